"""Publishing: who may read it, where it lands, which links move, what happens when the disk refuses."""

from __future__ import annotations

import errno
import fcntl
import grp
import itertools
import json
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from reconcile.errors import ReportError
from reconcile.model import RunStamp
from reports.columns import TABLES
from reports.disk import Access, exchange
from reports.files import ReportDirectory, read_table
from reports.leftovers import check_writable, clean_leftovers
from reports.summary import RunFacts
from reports.verification import verify
from tests.reports.factories import NIGHT_INPUTS, STAMP, facts, night
from tests.reports.publish_until import cannot_swap


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def of_run(run_id: str, day: int = 22, **stamp: object) -> RunFacts:
    return facts(stamp=replace(STAMP, run_id=run_id, business_date=date(2026, 11, day), **stamp))  # type: ignore[arg-type]


def publish(directory: ReportDirectory, run: RunFacts) -> Path:
    return directory.publish(run, night(), {"main": NIGHT_INPUTS}).path


def stop(directory: ReportDirectory, run: RunFacts) -> Path:
    return directory.publish_stopped(replace(run, complete=False, why="the ledger is away")).path


def target(link: Path) -> str | None:
    return os.readlink(link) if link.is_symlink() else None


def test_a_night_lies_where_people_look_for_it(tmp_path: Path) -> None:
    path = publish(ReportDirectory(tmp_path), facts())
    assert path == tmp_path / "run_date=2026-11-22" / "run_id=20261122T033000Z-ab12"
    tables = {f"{name}.{suffix}" for name in TABLES for suffix in ("csv", "parquet")}
    assert {file.name for file in path.iterdir()} == tables | {
        "summary.json",
        "manifest.json",
        "account_successors.sql",
    }
    assert verify(path) == []
    for name, table in night().items():
        assert read_table(path / f"{name}.parquet").to_pylist() == table.to_pylist()
        assert read_table(path / f"{name}.csv").num_rows == table.num_rows


def test_json_is_sorted_and_ends_its_last_line(tmp_path: Path) -> None:
    path = publish(ReportDirectory(tmp_path), facts())
    for name in ("summary.json", "manifest.json"):
        text = (path / name).read_text()
        assert text == json.dumps(json.loads(text), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def test_the_manifest_counts_rows_and_names_run_and_snapshot(tmp_path: Path) -> None:
    manifest = json.loads((publish(ReportDirectory(tmp_path), facts()) / "manifest.json").read_text())
    assert (manifest["run_id"], manifest["snapshots"]) == (STAMP.run_id, {"main": "snap_1"})
    assert manifest["files"]["accounts.csv"]["rows"] == manifest["files"]["accounts.parquet"]["rows"] == 4
    assert manifest["files"]["summary.json"]["rows"] is None
    assert "manifest.json" not in manifest["files"]


def test_the_same_night_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = (publish(ReportDirectory(tmp_path / name), facts()) for name in ("a", "b"))
    for file in first.iterdir():
        assert file.read_bytes() == (second / file.name).read_bytes()


def test_formats_are_those_chosen(tmp_path: Path) -> None:
    path = publish(ReportDirectory(tmp_path, formats=("csv", "xlsx", "html")), facts())
    assert {file.suffix for file in path.iterdir()} == {".csv", ".json", ".html", ".xlsx", ".sql"}
    assert verify(path) == []


def test_a_missing_table_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    tables = night()
    del tables["failure_reasons"]
    with pytest.raises(ValueError, match="failure_reasons"):
        ReportDirectory(tmp_path).publish(facts(), tables)
    assert list(tmp_path.iterdir()) == []


class TestAccess:
    @pytest.mark.parametrize(("file_mode", "directory_mode"), [(0o600, 0o700), (0o640, 0o750), (0o400, 0o700)])
    @pytest.mark.parametrize("umask", [0o000, 0o077, 0o277])
    def test_modes_are_the_same_under_any_umask(
        self, tmp_path: Path, open_umask: None, umask: int, file_mode: int, directory_mode: int
    ) -> None:
        os.umask(umask)
        root = tmp_path / "var" / "reports"
        publish(ReportDirectory(root, file_mode=file_mode), facts())
        publish(ReportDirectory(root, file_mode=file_mode), facts())
        for path in (tmp_path / "var", *(tmp_path / "var").rglob("*")):
            if not path.is_symlink():
                mode = stat.S_IMODE(path.stat().st_mode)
                assert mode == (directory_mode if path.is_dir() else file_mode), path

    def test_a_root_that_was_there_keeps_its_mode(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o711)
        publish(ReportDirectory(tmp_path), facts())
        assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o711

    def test_files_and_directories_go_to_the_group(self, tmp_path: Path) -> None:
        groups = [group for group in os.getgroups() or [os.getgid()] if group != os.getgid()]
        group_id = (
            groups[0] if groups else os.getgid() if os.getuid() else next(g.gr_gid for g in grp.getgrall() if g.gr_gid)
        )
        path = publish(ReportDirectory(tmp_path, file_mode=0o640, group=grp.getgrgid(group_id).gr_name), facts())
        assert {one.stat().st_gid for one in (path.parent, path, *path.iterdir())} == {group_id}

    def test_an_unknown_group_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ReportError, match=r"reports\.group.*'no-such-group'"):
            publish(ReportDirectory(tmp_path, group="no-such-group"), facts())


class TestLinks:
    def test_both_name_a_complete_run_by_a_relative_path(self, tmp_path: Path) -> None:
        publish(ReportDirectory(tmp_path), facts())
        for name in ("latest", "last_attempt"):
            assert target(tmp_path / name) == "run_date=2026-11-22/run_id=20261122T033000Z-ab12"
        assert verify(tmp_path / "latest") == []

    @pytest.mark.parametrize("command", ["apply", "resume"])
    def test_apply_and_resume_move_them(self, tmp_path: Path, command: str) -> None:
        publish(ReportDirectory(tmp_path), of_run("20261122T033000Z-ab12", command=command))
        assert (tmp_path / "latest").exists()

    @pytest.mark.parametrize("command", ["request", "collect", "adopt", "backfill", "retry"])
    def test_other_commands_publish_without_them(self, tmp_path: Path, command: str) -> None:
        path = publish(ReportDirectory(tmp_path), of_run("20261122T033000Z-ab12", command=command))
        assert path.exists()
        assert not (tmp_path / "latest").is_symlink()
        assert not (tmp_path / "last_attempt").is_symlink()

    def test_a_dry_run_lies_apart_and_moves_none(self, tmp_path: Path) -> None:
        path = publish(ReportDirectory(tmp_path), of_run("20261122T033000Z-ab12", dry_run=True))
        assert path == tmp_path / "dry_run=true" / "run_date=2026-11-22" / "run_id=20261122T033000Z-ab12"
        assert verify(path) == []
        assert [one.name for one in tmp_path.iterdir()] == ["dry_run=true"]

    def test_a_stopped_run_moves_only_the_last_attempt(self, tmp_path: Path) -> None:
        directory = ReportDirectory(tmp_path)
        complete = publish(directory, of_run("20261121T033000Z-aaaa", day=21))
        stopped = stop(directory, of_run("20261122T033000Z-bbbb"))
        assert (tmp_path / "latest").resolve() == complete
        assert (tmp_path / "last_attempt").resolve() == stopped

    def test_an_older_run_that_ends_later_moves_none(self, tmp_path: Path) -> None:
        directory = ReportDirectory(tmp_path)
        newest = publish(directory, of_run("20261122T033000Z-bbbb"))
        publish(directory, of_run("20261121T033000Z-aaaa", day=21, command="resume"))
        publish(directory, of_run("20261122T020000Z-zzzz"))
        assert (tmp_path / "latest").resolve() == (tmp_path / "last_attempt").resolve() == newest

    def test_a_link_to_a_report_that_was_deleted_moves_to_an_older_one(self, tmp_path: Path) -> None:
        directory = ReportDirectory(tmp_path)
        (tmp_path / "latest").symlink_to("run_date=2027-01-01/run_id=20270101T033000Z-zzzz")
        assert publish(directory, facts()) == (tmp_path / "latest").resolve()

    def test_something_else_in_its_place_is_not_overwritten(self, tmp_path: Path) -> None:
        (tmp_path / "latest").mkdir()
        with pytest.raises(ReportError, match=r"latest.*move it away"):
            publish(ReportDirectory(tmp_path), facts())
        with pytest.raises(ReportError, match="latest"):
            check_writable(tmp_path)
        assert (tmp_path / "latest").is_dir()


class TestStopped:
    def test_only_summary_and_manifest_are_there_and_say_why(self, tmp_path: Path) -> None:
        path = stop(ReportDirectory(tmp_path), facts())
        assert {file.name for file in path.iterdir()} == {"summary.json", "manifest.json"}
        for name in ("summary.json", "manifest.json"):
            content = json.loads((path / name).read_text())
            assert (content["complete"], content["why"]) == (False, "the ledger is away")
        assert verify(path) == []

    def test_it_never_replaces_the_complete_report_of_the_same_run(self, tmp_path: Path) -> None:
        directory = ReportDirectory(tmp_path)
        path = publish(directory, facts())
        assert stop(directory, facts()) == path
        assert read_table(path / "accounts.parquet").num_rows == 4
        assert verify(path) == []

    def test_a_run_that_was_resumed_replaces_its_stopped_report(self, tmp_path: Path) -> None:
        directory = ReportDirectory(tmp_path)
        path = stop(directory, facts())
        assert publish(directory, facts()) == path
        assert json.loads((path / "summary.json").read_text())["complete"] is True
        assert (tmp_path / "latest").resolve() == path


class TestConfinement:
    @pytest.mark.parametrize(
        "run_id", ["../../x", "/etc/x", "a/b", "", ".", "..", ".hidden", "a\0b", "a\nb", "x" * 200]
    )
    def test_a_run_id_that_is_no_plain_name_is_refused(self, tmp_path: Path, run_id: str) -> None:
        root = tmp_path / "reports"
        with pytest.raises(ReportError, match="run id"):
            publish(ReportDirectory(root), of_run(run_id))
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("below", ["run_date=2026-11-22", "run_date=2026-11-22/run_id=20261122T033000Z-ab12"])
    def test_a_symlink_on_the_way_is_refused(self, tmp_path: Path, below: str) -> None:
        outside = tmp_path / "outside"
        outside.mkdir()
        link = tmp_path / "reports" / below
        link.parent.mkdir(parents=True)
        link.symlink_to(outside)
        with pytest.raises(ReportError, match="symlink"):
            publish(ReportDirectory(tmp_path / "reports"), facts())
        clean_leftovers(tmp_path / "reports")
        assert list(outside.iterdir()) == []


def full_from(call: int) -> Callable[[int], None]:
    """An fsync that finds the disk full at its nth call."""
    plain_fsync, calls = os.fsync, itertools.count(1)

    def fsync(descriptor: int) -> None:
        if next(calls) == call:
            raise OSError(errno.ENOSPC, "No space left on device")
        plain_fsync(descriptor)

    return fsync


class TestRefusingDisk:
    def test_a_file_in_place_of_the_root_is_named(self, tmp_path: Path) -> None:
        root = tmp_path / "reports"
        root.write_text("in the way")
        for attempt in (lambda: publish(ReportDirectory(root), facts()), lambda: check_writable(root)):
            with pytest.raises(ReportError, match=r"reports.*move it away") as caught:
                attempt()
            assert caught.value.exit_code == 3

    def test_a_read_only_directory_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        plain_open = os.open

        def refuse(path: object, flags: int, *rest: object, **named: object) -> int:
            if flags & os.O_CREAT:
                raise OSError(errno.EROFS, "Read-only file system", str(path))
            return plain_open(path, flags, *rest, **named)  # type: ignore[arg-type]

        monkeypatch.setattr(os, "open", refuse)
        with pytest.raises(ReportError, match="read-only"):
            check_writable(tmp_path)

    def test_a_group_that_the_user_is_not_in_is_named(self, tmp_path: Path, strange_group: str) -> None:
        reports = ReportDirectory(tmp_path, file_mode=0o640, group=strange_group)
        check_writable(tmp_path)
        for attempt in (
            lambda: check_writable(tmp_path, reports.access),
            lambda: check_writable(tmp_path / "not" / "yet", reports.access),
            lambda: publish(reports, facts()),
        ):
            with pytest.raises(ReportError, match=r"member of reports\.group"):
                attempt()
        assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == []

    def test_looking_tries_the_mode_and_the_group_of_the_reports(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        given: list[tuple[int, int]] = []
        plain_unlink = Path.unlink

        def unlink(path: Path, missing_ok: bool = False) -> None:
            given.append((path.stat().st_mode & 0o777, path.stat().st_gid))
            plain_unlink(path, missing_ok=missing_ok)

        monkeypatch.setattr(Path, "unlink", unlink)
        check_writable(tmp_path, Access(0o440, os.getgid()))
        assert given == [(0o440, os.getgid())]

    def test_looking_leaves_nothing_behind(self, tmp_path: Path) -> None:
        check_writable(tmp_path)
        check_writable(tmp_path / "not" / "there" / "yet")
        assert list(tmp_path.iterdir()) == []

    def test_a_full_disk_at_any_moment_leaves_the_old_report_and_no_rubbish(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        directory = ReportDirectory(tmp_path)
        path = publish(directory, facts())
        for fails_at in range(1, 16):
            with monkeypatch.context() as patch:
                patch.setattr(os, "fsync", full_from(fails_at))
                with pytest.raises(ReportError, match="free some disk space"):
                    directory.publish(facts(sent=2), night(), {"main": NIGHT_INPUTS})
            assert verify(path) == []
            assert json.loads((path / "summary.json").read_text())["sent"] == 1
            assert list(path.parent.iterdir()) == [path]


def test_everything_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names may reach the disk before contents unless each file, then the directory, then its parent are waited for."""
    events: list[tuple[str, str]] = []
    plain_fsync, plain_rename = os.fsync, os.rename

    def fsync(descriptor: int) -> None:
        events.append(("fsync", Path(os.readlink(f"/proc/self/fd/{descriptor}")).name))
        plain_fsync(descriptor)

    def rename(source: str, destination: str, **named: int) -> None:
        events.append(("rename", Path(destination).name))
        plain_rename(source, destination, **named)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    path = publish(ReportDirectory(tmp_path), facts())
    renamed = events.index(("rename", path.name))
    before, after = events[:renamed], events[renamed + 1 :]
    written = [
        name
        for kind, name in before
        if kind == "fsync" and not name.startswith((".", "run_date")) and name != tmp_path.name
    ]
    assert set(written) == {file.name for file in path.iterdir()}
    assert written[-1] == "manifest.json"
    assert before[-1][0] == "fsync"
    assert before[-1][1].startswith(f".{path.name}.")
    assert after[0] == ("fsync", path.parent.name)
    assert [name for kind, name in after if kind == "rename"] == ["last_attempt", "latest"]


class TestLeftovers:
    def test_only_what_dead_runs_left_is_removed(self, tmp_path: Path) -> None:
        path = publish(ReportDirectory(tmp_path), facts())
        dead = path.with_name(f".{path.name}.0000.partial")
        dead.mkdir()
        (dead / "accounts.csv").write_text("half")
        dry = tmp_path / "dry_run=true" / path.parent.name / dead.name
        dry.mkdir(parents=True)
        (tmp_path / ".latest.0000").symlink_to("nowhere")
        foreign = tmp_path / ".somebody-elses"
        foreign.mkdir()
        assert set(clean_leftovers(tmp_path)) == {dead, dry, tmp_path / ".latest.0000"}
        assert foreign.exists()
        assert verify(path) == []
        assert list(path.parent.iterdir()) == [path]
        assert clean_leftovers(tmp_path) == []

    def test_what_a_living_process_writes_is_left_alone(self, tmp_path: Path) -> None:
        living = tmp_path / "run_date=2026-11-22" / ".run_id=x.0000.partial"
        living.mkdir(parents=True)
        descriptor = os.open(living, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            assert clean_leftovers(tmp_path) == []
            assert living.exists()
        finally:
            os.close(descriptor)
        assert clean_leftovers(tmp_path) == [living]

    @pytest.mark.parametrize("swap", [exchange, cannot_swap])
    def test_cleaning_beside_a_publication_does_not_disturb_it(
        self, tmp_path: Path, swap: Callable[[Path, Path], bool]
    ) -> None:
        """A dry run publishes without the lock, so another run may clean up at any of its steps."""
        steps: list[str] = []

        def clean(step: str) -> None:
            steps.append(step)
            clean_leftovers(tmp_path)

        directory = ReportDirectory(tmp_path, reached=clean, swap=swap)
        publish(directory, facts())
        path = publish(directory, facts(sent=2))
        assert verify(path) == []
        assert json.loads((path / "summary.json").read_text())["sent"] == 2
        assert list(path.parent.iterdir()) == [path]
        assert len(steps) > 40

    def test_of_no_root_there_is_nothing_to_clean(self, tmp_path: Path) -> None:
        assert clean_leftovers(tmp_path / "not-there") == []


def test_read_table_refuses_other_files(tmp_path: Path) -> None:
    for name in ("summary.json", "other.csv", "accounts.txt"):
        with pytest.raises(ValueError, match="no report table"):
            read_table(tmp_path / name)


def test_a_run_id_of_the_promised_form_is_accepted() -> None:
    stamp: RunStamp = STAMP
    assert ReportDirectory(Path("reports")).path_of(stamp).name == "run_id=20261122T033000Z-ab12"
