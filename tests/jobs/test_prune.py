"""Old files and records go, and nothing that any later night or rebuilt report rests on goes with them."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from jobs.adapters import records
from jobs.adapters.database import open_database
from jobs.adapters.tables import account_history, requests, runs
from jobs.nightly import RunResult
from jobs.prune import Pruned, prune
from jobs.simulator.behaviour import Behaviour
from jobs.simulator.world import World
from jobs.work import Work
from reports.columns import TABLES
from tests.jobs.cli.conftest import Relink, deployed, relink
from tests.jobs.conftest import MakeNights
from tests.jobs.dying import die
from tests.jobs.nights import SCOPE, Nights, table

__all__ = ["relink"]

TIGHT = {"retention": {"snapshots_days": 1, "reports_days": 1, "dry_runs_days": 1, "runs_days": 1}}
KEEP = {"retention": {"snapshots_days": None, "reports_days": None, "dry_runs_days": None, "runs_days": None}}
IDENTIFYING = {"request_id", "session_id", "stripe_request_id"}


def pruned(nights: Nights, *, dry_run: bool = False, **days: int | None) -> Pruned:
    settings = nights.settings(retention={**KEEP["retention"], **days})
    with open_database(nights.database_url) as database:
        return prune(settings, database, nights.now(), dry_run=dry_run)


Told = dict[str, list[dict[str, Any]]]


def long_story(nights: Nights, count: int, sections: dict[str, Any], days: float = 6) -> list[Told]:
    """What each of many nights decided and reported, without what differs from run to run."""
    told: list[Told] = []
    for _ in range(count):
        result = nights.run(**sections)
        assert result.exit_code == 0, result.why
        told.append({name: rows_of(result, name) for name in TABLES})
        nights.world.advance(days=days)
    return told


def rows_of(result: RunResult, name: str) -> list[dict[str, Any]]:
    rows = [{key: value for key, value in row.items() if key not in IDENTIFYING} for row in table(result, name)]
    return sorted(rows, key=repr)


def files(nights: Nights) -> set[str]:
    return {str(path.relative_to(nights.reports)) for path in nights.reports.rglob("*") if not path.is_dir()}


def test_snapshots_go_by_age_but_for_what_a_later_date_is_rebuilt_from(both_nights: Nights) -> None:
    nights = both_nights
    ran = [nights.run(**KEEP), *(nights.next_night(days) for days in (1, 1, 5))]
    found = pruned(nights, snapshots_days=4)
    names = [path.name for path in found.snapshots]
    assert names == [f"{ran[0].run_id}.parquet", f"{ran[1].run_id}.parquet"]
    assert [path.exists() for path in found.snapshots] == [False, False]
    with open_database(nights.database_url) as database:
        left = records.snapshots_between(database, SCOPE, ran[0].stamp.business_date, ran[-1].stamp.business_date)
    assert [one.run_id for one in left] == [ran[2].run_id, ran[3].run_id], "the third is the basis of the days after it"
    assert all((nights.reports / "_snapshots" / one.path).exists() for one in left)
    nights.world.advance(days=400)
    assert [path.name for path in pruned(nights, snapshots_days=5).snapshots] == [f"{ran[2].run_id}.parquet"]
    assert pruned(nights, snapshots_days=5).snapshots == [], "the last one stays however old it is"


def test_a_file_without_a_record_goes_and_a_record_never_loses_its_file(nights: Nights) -> None:
    """A run that stopped after its pull, or a pruning that was killed, leaves such a file."""
    nights.world.faults.script("cut_json", method="GET", path="*/events", times=20)
    first = nights.run(**KEEP)
    snapshots = nights.reports / "_snapshots" / "merchant=main"
    orphan = snapshots / "20200101T000000Z-0a0b.parquet"
    strangers = [snapshots / "20200101.parquet", nights.reports / "_snapshots" / "20200101T000000Z-0a0b.parquet"]
    for path in (orphan, *strangers):
        path.write_bytes(b"x")
    assert pruned(nights, snapshots_days=30).snapshots == [orphan]
    assert all(path.exists() for path in strangers)
    assert first.exit_code in (0, 3)


def test_reports_go_by_business_date_but_for_those_that_the_links_name(nights: Nights) -> None:
    ran = [nights.run(**KEEP)]
    dry = nights.run(Work("run", dry_run=True))
    ran += [nights.next_night(3), nights.next_night(3)]
    found = pruned(nights, reports_days=2, dry_runs_days=2)
    assert found.reports == [one.report_directory for one in ran[:2]]
    assert found.dry_runs == [dry.report_directory]
    assert [path for path in found.reports if path.parent.exists()] == [], "the date goes with its last report"
    nights.world.advance(days=900)
    assert pruned(nights, reports_days=2).reports == []
    assert nights.link("latest") == nights.link("last_attempt")
    assert (nights.reports / "latest" / "summary.json").exists()


def test_what_the_job_did_not_make_stays(nights: Nights, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "manifest.json").write_text('{"files": {}}')
    first = nights.run(**KEEP)
    nights.world.advance(days=100)
    nights.run(**KEEP)
    assert first.report_directory is not None
    (first.report_directory / "notes.txt").write_text("mine")
    os.symlink(outside, nights.reports / "run_date=2020-01-01")
    linked = nights.reports / "run_date=2020-01-02"
    linked.mkdir()
    os.symlink(outside, linked / "run_id=20200102T000000Z-0a0b")
    (linked / "run_id=mine").mkdir()
    (nights.reports / "run_date=2020-13-45").mkdir()
    before = files(nights)
    found = pruned(nights, reports_days=1, snapshots_days=200, dry_runs_days=1)
    assert (found.reports, found.kept) == ([], [first.report_directory])
    assert files(nights) == before
    assert (outside / "manifest.json").exists()
    os.unlink(first.report_directory / "notes.txt")
    os.symlink(outside / "manifest.json", first.report_directory / "more.json")
    assert pruned(nights, reports_days=1).reports == []


def test_plan_files_go_after_they_can_be_released_no_more(nights: Nights) -> None:
    plans = nights.reports / "_plans"
    nights.run(**KEEP)
    plans.mkdir(exist_ok=True)
    stamp = f"{nights.now() - timedelta(days=2):%Y%m%dT%H%M%SZ}"
    mine, old = plans / "my.json", [plans / f"{stamp}-0a0b-main.json", plans / f"{stamp}-0a0c.json"]
    today = plans / f"{nights.now():%Y%m%dT%H%M%SZ}-0a0b-main.json"
    for path in (mine, today, *old):
        path.write_text("{}")
    assert pruned(nights, dry_runs_days=1).plans == old
    assert mine.exists()
    assert today.exists()


def test_a_dry_run_says_what_goes_and_removes_nothing(both_nights: Nights) -> None:
    nights = both_nights
    long_story(nights, 5, KEEP, days=30)
    before, known = files(nights), nights.knowledge()
    days = {"snapshots_days": 1, "reports_days": 1, "dry_runs_days": 1, "runs_days": 1}
    said = pruned(nights, dry_run=True, **days)
    assert (files(nights), nights.knowledge()) == (before, known)
    assert len(said.snapshots) > 2
    assert said.rows["API calls"] > 0
    done = pruned(nights, **days)
    assert done == said
    assert files(nights) == before - {name for name in before if any(gone(name, path, nights) for path in all_of(done))}


def all_of(found: Pruned) -> list[Path]:
    return [*found.snapshots, *found.reports, *found.dry_runs, *found.plans]


def gone(name: str, path: Path, nights: Nights) -> bool:
    return (nights.reports / name).is_relative_to(path)


def lively_world() -> World:
    """Customers whose banks break, heal and expire, and who answer, fail, ignore and come back under new authorizations."""
    return World.generate(60, seed=5, behaviour=Behaviour(daily_break_rate=0.03, initial_inactive_share=0.15))


def test_a_pruned_twin_decides_and_reports_the_same(make_nights: MakeNights, tmp_path: Path, postgres_url: str) -> None:
    """Everything is pruned as early as it may be, every night for four months; then a twin that kept all is compared."""
    kept = make_nights(lively_world(), f"sqlite:///{tmp_path / 'kept.db'}")
    kept.directory = tmp_path / "kept"
    tight = make_nights(lively_world(), postgres_url)
    tight.directory = tmp_path / "tight"
    expected, found = long_story(kept, 12, KEEP, days=10), long_story(tight, 12, TIGHT, days=10)
    for night, (one, other) in enumerate(zip(expected, found, strict=True)):
        assert other == one, f"night {night}"
    assert any(row["outcome"] == "new_authorization" for night in found for row in night["relink_outcomes"])
    for what in (account_history, requests, runs):
        assert count(tight, what) < count(kept, what), f"nothing of {what.name} was removed, so nothing was shown"
    assert len(files(tight)) < len(files(kept)) / 4


def count(nights: Nights, what: Any) -> int:
    with open_database(nights.database_url) as database, database.read() as connection:
        return int(connection.execute(select(func.count()).select_from(what)).scalar_one())


def test_a_night_ends_the_same_where_nothing_can_be_removed(nights: Nights, caplog: pytest.LogCaptureFixture) -> None:
    nights.run(**KEEP)
    with open_database(nights.database_url) as database, database.begin() as connection:
        refuse = "CREATE TRIGGER refuse BEFORE DELETE ON relink_snapshots BEGIN SELECT RAISE(ABORT, 'refused'); END"
        connection.exec_driver_sql(refuse)
    nights.next_night(9)
    nights.world.advance(days=9)
    result = nights.run(**TIGHT)
    assert (result.exit_code, result.complete, nights.newest_run().state) == (0, True, "complete")
    assert "what is too old could not be removed" in caplog.text


def test_the_command_says_what_it_removes(nights: Nights, relink: Relink, monkeypatch: pytest.MonkeyPatch) -> None:
    first = nights.run(**KEEP)
    nights.next_night(30)
    command = deployed(nights, relink, monkeypatch, **TIGHT)
    said = command("prune", "--dry-run")
    assert (said.code, f"would remove {first.report_directory}" in said.out) == (0, True)
    done = command("prune", "--json")
    assert (done.code, done.json["reports"], done.json["kept"]) == (0, [str(first.report_directory)], [])
    assert command("prune").out == "nothing is too old\n"
    shown = command("runs", "show", first.run_id)
    assert f"report: {first.report_directory} (not there any more; see `relink prune`)\n" in shown.out


def test_an_interrupted_run_goes_once_a_later_night_has_done_its_work(both_nights: Nights) -> None:
    nights = both_nights
    die(nights, "planned")
    dead = nights.newest_run().run_id
    nights.world.advance(days=3)
    pruned(nights, runs_days=1)
    with open_database(nights.database_url) as database:
        assert records.run(database, dead) is not None, "it may still be resumed"
    nights.run(**KEEP)
    nights.world.advance(days=3)
    nights.run(**KEEP)
    pruned(nights, runs_days=1, snapshots_days=1)
    with open_database(nights.database_url) as database:
        run = records.run(database, dead)
        assert dead not in records.unfinished_run_ids(database)
        # Its requests are part of the story of outages that are still open.
        assert (run is None) == (not records.requests_of_run(database, dead))
