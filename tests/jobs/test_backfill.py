"""Reports of past dates are made again in the same bytes, whatever was lost, and nobody is asked anything for it."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, select

import reports.files
from jobs.adapters import records
from jobs.adapters.database import open_database
from jobs.adapters.tables import metadata, report_facts, snapshots
from jobs.backfill import Backfilled, DateResult, Only, RebuiltDate
from jobs.prune import prune
from jobs.recorded import recorded_settings
from jobs.resumption import work_to_resume
from jobs.settings import parse_settings, settings_for_record
from jobs.wiring import brake_policy, relink_policy
from jobs.work import Work
from reconcile.model import NextStep
from reports.files import read_table
from reports.manifest import is_whole
from reports.verification import verify
from tests.jobs.dying import die
from tests.jobs.nights import Nights
from tests.jobs.rough_month import PLAIN, RoughMonth, files_of, play, rebuild, ticking

LOST = {3, 4, 7}
FAILED = 6
DAYS = 9


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> RoughMonth:
    """Nine days of the rough month, of which three were lost and one failed; the last has every format, and its page looks back on all."""
    return play(tmp_path_factory.mktemp("month"), DAYS, LOST, FAILED, whole={8}, accounts=24)


@pytest.fixture
def month(played: RoughMonth, tmp_path: Path) -> RoughMonth:
    """The same, for one test to spoil."""
    here = tmp_path / "here"
    there = played.nights.directory
    shutil.copytree(there / "reports", here / "reports", symlinks=True)
    with closing(sqlite3.connect(there / "relink.db")) as source, closing(sqlite3.connect(here / "relink.db")) as copy:
        source.backup(copy)
    nights = object.__new__(Nights)
    nights.__dict__.update(played.nights.__dict__, directory=here, database_url=f"sqlite:///{here / 'relink.db'}")
    return replace(played, nights=nights)


def lose(month: RoughMonth, first: int, last: int) -> None:
    """Delete all reports of some days, those of `collect` and `request` among them."""
    for day in range(first, last + 1):
        shutil.rmtree(month.nights.reports / f"run_date={month.first + timedelta(days=day)}", ignore_errors=True)


def published(month: RoughMonth, on: date) -> Path:
    """Where the report of a date's last complete run was published, in the copy that nothing happened to."""
    directory = month.complete[on].report_directory
    assert directory is not None
    return month.twin / directory.parent.name / directory.name


def rows_of(month: RoughMonth) -> dict[str, list[str]]:
    """Every row of every table but the lock's."""
    with open_database(month.nights.database_url) as database, database.read() as connection:
        return {
            table.name: sorted(repr(tuple(row)) for row in connection.execute(select(table)))
            for table in metadata.sorted_tables
            if table.name != "relink_lease"
        }


def by_date(done: Backfilled) -> dict[date, RebuiltDate]:
    return {one.on: one for one in done.dates}


def assert_as_published(month: RoughMonth, dates: Iterator[date] | list[date]) -> None:
    for on in dates:
        there = published(month, on)
        assert files_of(month.nights.reports / there.parent.name / there.name) == files_of(there), on


def test_all_reports_of_a_rough_month_come_back_in_the_same_bytes(month: RoughMonth) -> None:
    lose(month, 0, DAYS)
    records_before, calls_before = rows_of(month), len(month.nights.world.log)
    done = rebuild(month)
    found = by_date(done)
    assert_as_published(month, list(month.complete))
    assert {on for on, one in found.items() if one.as_published} == set(month.complete)
    assert {on: one.result for on, one in found.items()} == dict.fromkeys(found, DateResult.REBUILT)
    nights_without = [*month.lost, month.failed]
    assert sorted(on for on, one in found.items() if one.basis == "earlier_snapshot") == sorted(nights_without)
    for on in nights_without:
        one = found[on]
        assert one.directory is not None
        summary = json.loads((one.directory / "summary.json").read_bytes())
        assert (summary["basis"], summary["command"], summary["sent"]) == ("earlier_snapshot", "backfill", 0)
        assert summary["basis_date"] == str(max(day for day in month.complete if day < on)) == str(one.basis_date)
        assert [total for total in summary["control"] if not total["ties"]] == []
        assert verify(one.directory) == []
        assert read_table(one.directory / "relink_requests.parquet").num_rows == 0
    assert len(month.nights.world.log) == calls_before, "nobody was asked anything"
    assert rows_of(month) == records_before, "nothing was recorded"
    assert done.exit_code == 0
    assert os.readlink(month.nights.reports / "latest") == os.readlink(month.twin / "latest")
    assert (month.nights.reports / "latest" / "summary.json").exists()


def test_a_week_is_mended_and_the_second_time_changes_nothing(month: RoughMonth) -> None:
    lose(month, 1, 7)
    first = by_date(rebuild(month))
    assert {one.result for on, one in first.items() if 1 <= (on - month.first).days <= 7} == {DateResult.REBUILT}
    assert {one.result for on, one in first.items() if not 1 <= (on - month.first).days <= 7} == {DateResult.LEFT}
    assert_as_published(month, list(month.complete))
    before = {path: os.stat(path).st_ino for path in month.nights.reports.glob("run_date=*/run_id=*")}
    again = by_date(rebuild(month))
    assert {one.result for one in again.values()} == {DateResult.LEFT}
    every = by_date(rebuild(replace(month, last=month.last - timedelta(days=1)), Only.ALL))
    assert {one.result for one in every.values()} == {DateResult.UNCHANGED}
    assert {path: os.stat(path).st_ino for path in month.nights.reports.glob("run_date=*/run_id=*")} == before


def test_it_can_be_stopped_at_any_moment_and_started_again(month: RoughMonth, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C comes at every date once, and in the middle of a directory again and again."""
    lose(month, 0, DAYS)
    write, written = reports.files.write_file, 0

    def write_or_stop(*arguments: Any) -> tuple[str, int]:
        nonlocal written
        written += 1
        if written % 23 == 0:
            raise KeyboardInterrupt
        return write(*arguments)

    def stop_once(one: RebuiltDate) -> None:
        if one.result is not DateResult.LEFT and one.on not in seen:
            seen.add(one.on)
            raise KeyboardInterrupt

    monkeypatch.setattr(reports.files, "write_file", write_or_stop)
    seen: set[date] = set()
    stops = 0
    while True:
        try:
            rebuild(month, tell=stop_once)
            break
        except KeyboardInterrupt:
            stops += 1
        for directory in month.nights.reports.glob("run_date=*/run_id=*"):
            assert is_whole(directory), "a name never stands for half a report"
    assert stops >= len(seen) + 3
    assert len(seen) == DAYS
    assert_as_published(month, list(month.complete))
    assert list(month.nights.reports.rglob(".*")) == []


def test_only_failed_means_the_dates_whose_last_attempt_did_not_complete(month: RoughMonth) -> None:
    found = by_date(rebuild(month, Only.FAILED))
    assert [on for on, one in found.items() if one.result is not DateResult.LEFT] == [month.failed]
    stopped = month.nights.reports / f"run_date={month.failed}"
    told = {json.loads(path.read_bytes())["command"] for path in stopped.glob("*/summary.json")}
    assert told == {"run", "backfill"}, "what stopped is still told beside it"


def test_the_links_never_lead_back(month: RoughMonth) -> None:
    root = month.nights.reports
    named = os.readlink(root / "latest")
    lose(month, 1, DAYS)
    older = replace(month, last=month.first + timedelta(days=2))
    assert rebuild(older).links == []
    assert os.readlink(root / "latest") == named, "its report is lost, and an older one takes not its place"
    (root / "latest").unlink()
    (root / "last_attempt").unlink()
    assert rebuild(older, Only.ALL).links == []
    assert not os.path.lexists(root / "latest")
    newest = published(month, month.last)
    shutil.copytree(newest, root / newest.parent.name / newest.name)
    assert rebuild(older).links == ["last_attempt", "latest"]
    assert os.readlink(root / "latest") == os.readlink(root / "last_attempt") == named
    os.unlink(root / "latest")
    os.symlink(f"run_date={month.first}/run_id={month.complete[month.first].run_id}", root / "latest")
    assert rebuild(older).links == ["latest"]
    assert os.readlink(root / "latest") == named


def test_a_damaged_snapshot_is_named_and_hinders_no_other_date(month: RoughMonth) -> None:
    on = month.first + timedelta(days=5)
    snapshot = month.nights.reports / "_snapshots" / "merchant=main" / f"{month.complete[on].run_id}.parquet"
    snapshot.write_bytes(snapshot.read_bytes()[:-1] + b"x")
    lose(month, 2, 5)
    done = rebuild(month)
    found = by_date(done)
    failed = {one.on: one.why or "" for one in done.dates if one.result is DateResult.FAILED}
    assert sorted(failed) == [on, month.failed, month.lost[2]], "the two nights after it have no other basis"
    assert all("is damaged" in why and str(snapshot) in why for why in failed.values())
    assert found[month.first + timedelta(days=2)].as_published
    assert done.exit_code == 3


def test_a_whole_report_is_not_replaced_by_what_an_earlier_snapshot_tells(month: RoughMonth) -> None:
    on = month.first + timedelta(days=2)
    with open_database(month.nights.database_url) as database, database.begin() as connection:
        connection.execute(delete(snapshots).where(snapshots.c.run_id == month.complete[on].run_id))
    before = (published(month, on) / "manifest.json").read_bytes()
    one = by_date(rebuild(replace(month, first=on, last=on), Only.ALL))[on]
    assert one.result is DateResult.LEFT
    assert "its snapshot is not any more" in (one.why or "")
    assert (published(month, on) / "manifest.json").read_bytes() == before


def test_a_removed_snapshot_is_made_up_for_by_the_account_history(month: RoughMonth) -> None:
    on = month.first + timedelta(days=2)
    run_id = month.complete[on].run_id
    with open_database(month.nights.database_url) as database, database.begin() as connection:
        connection.execute(delete(snapshots).where(snapshots.c.run_id == run_id))
    lose(month, 2, 2)
    one = by_date(rebuild(month))[on]
    assert (one.result, one.run_id, one.basis) == (DateResult.REBUILT, run_id, "earlier_snapshot")
    assert one.basis_date == on - timedelta(days=1)
    assert one.directory is not None
    kept = [
        "account_id",
        "authorization_id",
        "stripe_status",
        "cause",
        "action",
        "finding",
        "inactive_since",
        "permissions",
    ]
    was, now = (
        {
            row["account_id"]: row
            for row in read_table(where / "accounts.parquet").select([*kept, "next_step"]).to_pylist()
        }
        for where in (published(month, on), one.directory)
    )
    before = read_table(published(month, on - timedelta(days=1)) / "accounts.parquet").select(kept).to_pylist()
    assert [row for row in before if any(row[name] != was[row["account_id"]][name] for name in kept)], (
        "something changed"
    )
    assert now == was
    for name in ("relink_requests", "relink_outcomes", "failure_reasons", "account_successors"):
        assert read_table(one.directory / f"{name}.parquet").equals(
            read_table(published(month, on) / f"{name}.parquet")
        )
    assert verify(one.directory) == []


def test_a_report_of_a_version_that_kept_nothing_has_the_same_tables(month: RoughMonth) -> None:
    with open_database(month.nights.database_url) as database, database.begin() as connection:
        connection.execute(delete(report_facts))
    lose(month, 0, DAYS)
    found = by_date(rebuild(replace(month, last=month.last - timedelta(days=1))))
    compared = 0
    for on, result in month.complete.items():
        if on == month.last:
            continue
        one = found[on]
        assert (one.result, one.run_id, one.as_published) == (DateResult.REBUILT, result.run_id, None)
        assert one.directory is not None
        for name in ("accounts", "relink_outcomes", "failure_reasons", "account_successors"):
            if result.stamp.command == "apply" and name == "accounts":
                continue  # what was left out of a plan is not on record
            was, now = (read_table(where / f"{name}.parquet") for where in (published(month, on), one.directory))
            assert now.to_pylist() == was.to_pylist(), (on, name)
            compared += now.num_rows
    assert compared > 100


def test_what_somebody_put_into_a_report_is_not_taken_along(month: RoughMonth) -> None:
    result = month.complete[month.first]
    directory = month.nights.reports / f"run_date={month.first}" / f"run_id={result.run_id}"
    (directory / "notes.txt").write_text("mine")
    (directory / "summary.json").write_text("{}")
    one = by_date(rebuild(month))[month.first]
    assert one.result is DateResult.FAILED
    assert "notes.txt" in (one.why or "")
    (directory / "notes.txt").unlink()
    assert by_date(rebuild(month))[month.first].as_published


def test_pruning_keeps_what_the_dates_of_kept_snapshots_rest_on(month: RoughMonth) -> None:
    kept = {"snapshots_days": 4, "reports_days": None, "dry_runs_days": 1, "runs_days": 1}
    with open_database(month.nights.database_url) as database:
        pruned = prune(month.nights.settings(retention=kept), database, month.nights.now())
    assert pruned.snapshots
    basis = [on for on in month.complete if on >= month.nights.now().date() - timedelta(days=4)]
    assert len(basis) >= 2
    lose(month, (basis[0] - month.first).days, DAYS)
    found = by_date(rebuild(month))
    assert [on for on in basis if not found[on].as_published] == []
    assert_as_published(month, basis)
    lose(month, 0, DAYS)
    done = rebuild(month)
    found = by_date(done)
    last = found[basis[-1]]
    assert (last.as_published, last.result) == (False, DateResult.REBUILT)
    assert (
        last.why
        == "other bytes than were published then in index.html, manifest.json, report.xlsx; its page looks back on reports that are lost"
    )
    gone = [on for on, one in found.items() if one.result is DateResult.FAILED]
    assert gone
    assert all("removed" in (found[on].why or "") for on in gone)
    assert [found[on].basis for on in month.lost[:2]] == ["earlier_snapshot"] * 2, (
        "the newest one before is kept for them"
    )
    assert done.exit_code == 3


def test_both_databases_and_a_night_that_held_its_requests(both_nights: Nights) -> None:
    nights = both_nights
    clock = ticking(nights)
    tight = {
        "brakes": {"minimum": 0, "newly_broken_share": 0.01, "newly_broken_share_7d": 0.01, "institution_share": 0.01}
    }
    first = nights.run(clock=clock, **PLAIN)
    nights.world.advance(days=1)
    nights.world.break_authorization("fcauth_5")
    second = nights.run(clock=clock, **PLAIN, **tight)
    assert (second.exit_code, second.complete) == (5, True)
    nights.world.advance(days=1)
    nights.run(Work("collect", from_stored=True, collect_everything=True, sends=False), clock=clock, **PLAIN)
    on = first.stamp.business_date
    month = RoughMonth(nights, clock, on, on + timedelta(days=2), {}, [], on, [], nights.reports)
    twin = files_of(nights.reports)
    for directory in nights.reports.glob("run_date=*"):
        shutil.rmtree(directory)
    found = rebuild(month)
    assert [(one.result, one.as_published) for one in found.dates] == [
        (DateResult.REBUILT, True),
        (DateResult.REBUILT, True),
        (DateResult.NOTHING, None),
    ]
    assert found.dates[-1].why == "the date is not over, and no run of it is complete yet"
    assert second.report_directory is not None
    now = files_of(nights.reports)
    assert {name: twin[name] for name in now} == now
    assert json.loads((second.report_directory / "summary.json").read_bytes())["merchants"][0]["held_plan_hash"]


@pytest.mark.parametrize("point", ["decided", "after_first"])
def test_a_night_that_was_killed_and_resumed_is_rebuilt_under_the_id_that_finished_it(
    nights: Nights, point: str
) -> None:
    clock = ticking(nights)
    die(nights, point)
    nights.world.advance(hours=2)
    with open_database(nights.database_url) as database:
        work = work_to_resume(database, records.list_runs(database, limit=1)[0].run_id)
    resumed = nights.run(work, clock=clock, **PLAIN)
    nights.world.advance(days=1)
    after = nights.run(clock=clock, **PLAIN)
    on = resumed.stamp.business_date
    month = RoughMonth(nights, clock, on, after.stamp.business_date, {}, [], on, [], nights.reports)
    for directory in nights.reports.glob("run_date=*"):
        shutil.rmtree(directory)
    found = rebuild(month).dates
    assert [(one.run_id, one.as_published, one.why) for one in found] == [
        (resumed.stamp.run_id, True, None),
        (after.stamp.run_id, True, None),
    ]
    assert resumed.report_directory is not None
    assert read_table(resumed.report_directory / "relink_requests.parquet").num_rows == 3


def test_every_next_step_has_a_letter_of_its_own() -> None:
    from jobs.report_facts import _LETTERS

    assert set(_LETTERS) == set(NextStep)
    assert len(set(_LETTERS.values())) == len(NextStep)


def test_recorded_settings_decide_as_those_that_were_recorded() -> None:
    relink = {
        "quiet_weekdays": ["saturday", "sunday"],
        "quiet_dates": ["2026-12-25"],
        "quiet_hours": "20:00-08:00",
        "ladder_days": [0, 3, 7],
        "delivery_rules": [{"delivery": "modal", "institution": "Bank One"}],
    }
    given = parse_settings({"relink": relink, "brakes": {"minimum": 3}, "schedule": {"timezone": "Europe/Helsinki"}})
    record = json.loads(json.dumps(settings_for_record(given)))
    found = recorded_settings({**record, "relink": {**record["relink"], "of_a_later_version": 1}})
    assert (relink_policy(found), brake_policy(found)) == (relink_policy(given), brake_policy(given))
    assert (found.schedule.timezone, found.reports.formats) == ("Europe/Helsinki", given.reports.formats)
