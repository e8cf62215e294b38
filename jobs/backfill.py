"""Rebuilds the reports of past business dates, one after the other, so that it can be stopped at any moment and started again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from pathlib import Path
from zoneinfo import ZoneInfo

from jobs.adapters import records
from jobs.nightly import RunResult
from jobs.nightly import run as run_night
from jobs.rebuild import NothingToStandOn, Rebuilder, Rebuilt
from jobs.recorded import stamp_of_run
from jobs.wiring import Wiring
from jobs.work import Work
from reconcile.errors import DatabaseError, LeaseLost, OutsideError, ReportError
from reconcile.model import RunStamp
from reports.files import LAST_ATTEMPT, LATEST, LINKED_COMMANDS
from reports.leftovers import check_writable, clean_leftovers
from reports.manifest import is_whole
from reports.summary import Basis


class Only(StrEnum):
    """Which business dates are rebuilt: those without a whole report of a complete run, those whose last attempt did not complete, or all."""

    MISSING = "missing"
    FAILED = "failed"
    ALL = "all"


class DateResult(StrEnum):
    """What became of one business date."""

    REBUILT = "rebuilt"
    UNCHANGED = "unchanged"
    LEFT = "left"
    NOTHING = "nothing"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class RebuiltDate:
    """One business date of a backfill.

    `had_run` says whether a night was ever tried on it. `as_published` says whether the bytes are those published then; None where that is not
    known. `why` says why it was not rebuilt, or what differs.
    """

    on: date
    result: DateResult
    had_run: bool
    run_id: str | None = None
    directory: Path | None = None
    basis: Basis | None = None
    basis_date: date | None = None
    as_published: bool | None = None
    why: str | None = None


@dataclass(frozen=True, slots=True)
class Backfilled:
    """All dates of a backfill, the look-up that went before it, and the links that were restored."""

    dates: Sequence[RebuiltDate]
    collected: RunResult | None
    links: Sequence[str]

    @property
    def exit_code(self) -> int:
        """0; 3 where a date on which there was a night could not be rebuilt; or the code of the look-up."""
        lost = any(one.result is DateResult.FAILED for one in self.dates)
        collected = 0 if self.collected is None else self.collected.exit_code
        return collected or (OutsideError.exit_code if lost else 0)


def today_of(wiring: Wiring) -> date:
    """The business date of this moment."""
    return wiring.clock().astimezone(ZoneInfo(wiring.settings.schedule.timezone)).date()


def sessions_to_collect(wiring: Wiring, first: date, last: date) -> int:
    """How many open sessions were asked for on these business dates."""
    waiting = (one for merchant in wiring.merchants for one in records.open_requests(wiring.database, merchant.scope))
    return sum(first <= one.business_date <= last for one in waiting)


def collect_range(wiring: Wiring, first: date, last: date, on_start: Callable[[str], None] | None = None) -> RunResult:
    """Look up the open sessions of these business dates, as `relink collect` does with all; recorded as of today."""
    work = Work(
        command="collect",
        from_stored=True,
        collect_everything=True,
        collect_between=(first, last),
        sends=False,
        arguments={"from": first.isoformat(), "to": last.isoformat()},
    )
    return run_night(wiring, work, on_start)


def backfill(
    wiring: Wiring,
    first: date,
    last: date,
    only: Only,
    tell: Callable[[RebuiltDate], None],
    collected: RunResult | None = None,
) -> Backfilled:
    """Rebuild the reports of the business dates from `first` to `last`, oldest first, since each page looks back on those before it.

    Asks nobody and records nothing. Each directory is replaced in one step; the same bytes stay where they are. A date that cannot be rebuilt is
    told and hinders no other.

    Args:
        tell: is told each date as it is done.

    Raises:
        DatabaseError: the records cannot be read.
        ReportError: the disk refused.
        LeaseLost: another run took over.
    """
    root = wiring.settings.reports.directory
    check_writable(root, wiring.reports.access)
    clean_leftovers(root)
    attempts: dict[date, list[records.StoredRun]] = {}
    for run in records.runs_between(wiring.database, first, last, LINKED_COMMANDS):
        attempts.setdefault(run.business_date, []).append(run)
    rebuilder, today = Rebuilder(wiring), today_of(wiring)
    done: list[RebuiltDate] = []
    for on in (first + timedelta(days=passed) for passed in range((last - first).days + 1)):
        if wiring.lease is not None:
            wiring.lease.prove()
        result = _one_date(wiring, rebuilder, on, attempts.get(on, []), only, today)
        done.append(result)
        tell(result)
    return Backfilled(done, collected, _restore_links(wiring))


def _one_date(
    wiring: Wiring,
    rebuilder: Rebuilder,
    on: date,
    attempts: Sequence[records.StoredRun],
    only: Only,
    today: date,
) -> RebuiltDate:
    complete = next((run for run in reversed(attempts) if run.state == records.COMPLETE), None)
    stamp = _stamp_of(wiring, rebuilder, on, complete)
    left = _left(wiring, on, attempts, stamp, only)
    if left is not None:
        return left
    had_run = bool(attempts)
    if complete is not None and stamp is not None and not rebuilder.has_snapshots_of(complete):
        directory = wiring.reports.path_of(stamp)
        if is_whole(directory):
            why = "its report is there, and its snapshot is not any more: made again it would tell less"
            return RebuiltDate(on, DateResult.LEFT, had_run, complete.run_id, directory, why=why)
    if complete is None and on >= today:
        return RebuiltDate(
            on, DateResult.NOTHING, had_run, why="the date is not over, and no run of it is complete yet"
        )
    try:
        rebuilt = rebuilder.rebuild_date(on) if complete is None else rebuilder.rebuild_run(complete)
    except NothingToStandOn as missing:
        result = DateResult.FAILED if had_run else DateResult.NOTHING
        return RebuiltDate(on, result, had_run, None if complete is None else complete.run_id, why=str(missing))
    except (DatabaseError, LeaseLost):
        raise
    except OutsideError as error:
        if isinstance(error, ReportError) and isinstance(error.__cause__, OSError):
            raise  # the disk, which the next date would meet as well
        run_id = None if complete is None else complete.run_id
        return RebuiltDate(on, DateResult.FAILED, had_run, run_id, why=str(error))
    return _as_result(on, had_run, rebuilt)


def _left(
    wiring: Wiring, on: date, attempts: Sequence[records.StoredRun], stamp: RunStamp | None, only: Only
) -> RebuiltDate | None:
    """The date as it is, where it is not among those asked for."""
    directory = None if stamp is None else wiring.reports.path_of(stamp)
    there = directory is not None and is_whole(directory)
    is_meant = {
        Only.MISSING: not there,
        Only.FAILED: bool(attempts) and attempts[-1].state != records.COMPLETE,
        Only.ALL: True,
    }[only]
    if is_meant:
        return None
    why = "its report is there" if only is Only.MISSING else "its last attempt completed" if attempts else "no attempt"
    run_id = stamp.run_id if stamp is not None and there else None
    return RebuiltDate(on, DateResult.LEFT, bool(attempts), run_id, directory if there else None, why=why)


def _stamp_of(wiring: Wiring, rebuilder: Rebuilder, on: date, complete: records.StoredRun | None) -> RunStamp | None:
    """Under which name a date's report lies; None where it has nothing to stand on."""
    if complete is not None:
        return stamp_of_run(complete, wiring.settings.schedule.timezone)
    try:
        return rebuilder.stamp_of(on)
    except NothingToStandOn:
        return None


def _as_result(on: date, had_run: bool, rebuilt: Rebuilt) -> RebuiltDate:
    result = DateResult.REBUILT if rebuilt.published.changed else DateResult.UNCHANGED
    return RebuiltDate(
        on,
        result,
        had_run,
        rebuilt.run_id,
        rebuilt.published.path,
        rebuilt.basis,
        rebuilt.basis_date,
        rebuilt.as_published,
        rebuilt.why,
    )


def _restore_links(wiring: Wiring) -> list[str]:
    """Let the links name the newest runs on record where their reports are there; never an older one than they say."""
    moved, timezone = [], wiring.settings.schedule.timezone
    for name, complete in ((LAST_ATTEMPT, False), (LATEST, True)):
        run = records.newest_run_of(wiring.database, LINKED_COMMANDS, complete=complete)
        if run is not None and wiring.reports.restore_link(name, stamp_of_run(run, timezone)):
            moved.append(name)
    return moved
