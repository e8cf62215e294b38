"""Runs, merchants and snapshots in both databases."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime, timedelta

import pytest

from jobs.adapters import records
from jobs.adapters.database import Database
from reconcile.errors import DatabaseError, ModeMismatch
from tests.jobs.adapters.stored_values import AT, DATE, DAY, HOUR, OTHER_SCOPE, RUN_ID, SCOPE, finished


def test_a_run_is_followed_from_start_to_end(database: Database) -> None:
    started = records.run(database, RUN_ID)
    assert started is not None
    assert (started.command, started.business_date, started.state, started.started_at) == ("run", DATE, "running", AT)
    assert (started.settings, started.arguments, started.held) == ({"relink": {"cooldown_days": 4}}, {}, False)
    assert records.unfinished_runs(database) == [started]
    records.set_stage(database, RUN_ID, "pull")
    records.record_run_merchant(database, RUN_ID, SCOPE, snapshot_id=None, complete=False, why="first try")
    records.record_run_merchant(database, RUN_ID, SCOPE, snapshot_id="snap_1", complete=True, counts={"accounts": 3})
    records.finish_run(
        database, RUN_ID, records.COMPLETE, AT + HOUR, 4, why="one was rejected", report_directory="var/reports/x"
    )
    ended = records.run(database, RUN_ID)
    assert ended is not None
    assert (ended.state, ended.stage, ended.exit_code, ended.why) == ("complete", "pull", 4, "one was rejected")
    assert (ended.finished_at, ended.report_directory) == (AT + HOUR, "var/reports/x")
    (merchant,) = ended.merchants
    assert (merchant.snapshot_id, merchant.complete, merchant.counts, merchant.why) == (
        "snap_1",
        True,
        {"accounts": 3},
        None,
    )
    assert records.unfinished_runs(database) == []


def test_an_interrupted_run_may_be_taken_up_again_and_a_complete_one_not(database: Database) -> None:
    records.finish_run(database, RUN_ID, records.INTERRUPTED, AT + HOUR, 143, why="terminated")
    again = {"settings_hash": "other", "settings": {}}
    records.start_run(database, RUN_ID, "resume", DATE, AT + DAY, **again)
    run = records.run(database, RUN_ID)
    assert run is not None
    assert (run.state, run.command, run.started_at, run.exit_code, run.settings_hash) == (
        "running",
        "run",
        AT,
        None,
        "hash",
    )
    records.finish_run(database, RUN_ID, records.COMPLETE, AT + DAY, 0)
    with pytest.raises(DatabaseError, match=f"relink retry {RUN_ID}"):
        records.start_run(database, RUN_ID, "run", DATE, AT, **again)


def test_a_run_that_is_not_there_is_named(database: Database) -> None:
    assert records.run(database, "nonesuch") is None
    with pytest.raises(DatabaseError, match="nonesuch"):
        records.set_stage(database, "nonesuch", "pull")
    with pytest.raises(DatabaseError, match="nonesuch"):
        records.finish_run(database, "nonesuch", records.COMPLETE, AT, 0)


def test_the_last_complete_run_is_the_newest_that_counts(database: Database) -> None:
    assert records.last_complete_run(database, SCOPE) is None
    finished(database, "a", AT - 9 * DAY)
    finished(database, "b", AT - 3 * DAY)
    finished(database, "c", AT - 2 * DAY, held=True)
    finished(database, "d", AT - DAY, complete=False)
    finished(database, "e", AT - HOUR, state=records.STOPPED)
    finished(database, "f", AT - timedelta(minutes=1), scope=OTHER_SCOPE)

    def last(**options: object) -> str | None:
        found = records.last_complete_run(database, SCOPE, **options)  # type: ignore[arg-type]
        return found and found.run_id

    assert last() == "c"
    assert last(not_held=True) == "b"
    assert last(before=AT - 3 * DAY) == "a"
    assert last(on_or_before=(AT - 3 * DAY).date()) == "b"
    assert last(on_or_before=(AT - 4 * DAY).date()) == "a"
    assert last(on_or_before=(AT - 10 * DAY).date()) is None


def test_a_finished_business_date_is_known(database: Database) -> None:
    assert records.complete_run_on(database, DATE) is None
    finished(database, "a", AT, state=records.STOPPED)
    finished(database, "b", AT + HOUR, command="request")
    assert records.complete_run_on(database, DATE) is None
    finished(database, "c", AT + HOUR)
    found = records.complete_run_on(database, DATE)
    assert found is not None
    assert found.run_id == "c"
    assert records.complete_run_on(database, (AT + DAY).date()) is None


def test_runs_are_listed_newest_first(database: Database) -> None:
    for number in range(3):
        finished(database, f"run {number}", AT + number * DAY)
    listed = records.list_runs(database, limit=3)
    assert [run.run_id for run in listed] == ["run 2", "run 1", "run 0"]
    assert all(len(run.merchants) == 1 for run in listed)


def test_a_merchant_keeps_its_mode_and_stripe_account(database: Database) -> None:
    records.stamp_merchant(database, SCOPE.merchant, SCOPE.mode, None, AT + DAY)
    assert records.recorded_mode(database, SCOPE.merchant) == SCOPE.mode
    assert records.recorded_mode(database, "another") is None
    with pytest.raises(ModeMismatch, match=r"main.*sandbox.*live"):
        records.stamp_merchant(database, SCOPE.merchant, "live", None, AT)
    with pytest.raises(ModeMismatch, match="acct_1"):
        records.stamp_merchant(database, SCOPE.merchant, SCOPE.mode, "acct_1", AT)
    assert records.recorded_mode(database, SCOPE.merchant) == SCOPE.mode


def snapshot(snapshot_id: str, completed_at: datetime) -> records.SnapshotRecord:
    return records.SnapshotRecord(
        snapshot_id=snapshot_id,
        run_id=RUN_ID,
        merchant=SCOPE.merchant,
        mode=SCOPE.mode,
        taken_at=completed_at - HOUR,
        completed_at=completed_at,
        business_date=completed_at.date(),
        accounts=2**40,
        ledger_rows=3,
        path=f"merchant=main/{snapshot_id}.parquet",
        sha256="ab" * 32,
        bytes=2**40,
    )


def test_snapshots_are_found_by_time_and_date(database: Database) -> None:
    stored = [snapshot(f"snap_{number}", AT + number * DAY) for number in range(3)]
    for record in stored:
        records.record_snapshot(database, record)
    records.record_snapshot(database, replace(stored[0], sha256="cd" * 32))
    assert records.snapshot(database, "snap_0") == replace(stored[0], sha256="cd" * 32)
    assert records.snapshot(database, "nonesuch") is None
    assert records.last_snapshot(database, SCOPE) == stored[2]
    assert records.last_snapshot(database, SCOPE, before=AT + 2 * DAY) == stored[1]
    assert records.last_snapshot(database, OTHER_SCOPE) is None
    found = records.snapshots_between(database, SCOPE, (AT + DAY).date(), (AT + 5 * DAY).date())
    assert found == stored[1:]


def test_two_runs_on_one_date_are_told_apart_by_their_start(database: Database) -> None:
    finished(database, "z", AT + HOUR)
    finished(database, "y", AT + 2 * HOUR)
    found = records.complete_run_on(database, date(2026, 11, 22))
    assert found is not None
    assert found.run_id == "y"
