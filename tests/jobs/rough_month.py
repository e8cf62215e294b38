"""A month of simulated nights with all that makes a past report hard to make again: lost days, a failed night, lost answers, other commands."""

from __future__ import annotations

import itertools
import logging
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from jobs.adapters import records
from jobs.adapters.database import open_database
from jobs.backfill import Backfilled, Only, RebuiltDate, backfill
from jobs.nightly import RunResult
from jobs.selection import Selection
from jobs.simulator.behaviour import Behaviour
from jobs.simulator.server import SimulatorServer
from jobs.simulator.world import World
from jobs.wiring import wire
from jobs.work import Work
from tests.compiled_statements import share_compiled_statements
from tests.jobs.nights import ACCOUNTS, SCOPE, SESSIONS, Nights, ledger_of

PLAIN = {"reports": {"formats": ["parquet"]}}
WHOLE = {"reports": {"formats": ["csv", "parquet", "xlsx", "html"]}}

Sections = dict[str, dict[str, Any]]


def ticking(nights: Nights) -> Callable[[], datetime]:
    """The world's time, a little later at each look, as on a real night: what a run does comes after its beginning."""
    ticks = itertools.count(1)
    return lambda: nights.now() + timedelta(milliseconds=next(ticks))


@dataclass
class RoughMonth:
    """The deployment as it was left, and a copy of its reports as they were published."""

    nights: Nights
    clock: Callable[[], datetime]
    first: date
    last: date
    complete: dict[date, RunResult]
    lost: list[date]
    failed: date
    others: list[Path]
    twin: Path


def lively_world(accounts: int) -> World:
    """Customers whose banks break, heal and expire, and who answer, fail, ignore and come back under new authorizations."""
    return World.generate(accounts, seed=5, behaviour=Behaviour(daily_break_rate=0.04, initial_inactive_share=0.15))


def play(directory: Path, days: int, lost: set[int], failed: int, whole: set[int], accounts: int) -> RoughMonth:
    """Let the month happen; days count from 0, reports of the days in `whole` have every format."""
    world = lively_world(accounts)
    with SimulatorServer(world) as server:
        nights = Nights(world, server, directory, f"sqlite:///{directory / 'relink.db'}")
        nights.sections["relink"] = {"refresh_after": ["balances", "ownership", "transactions"]}
        clock = ticking(nights)
        complete: dict[date, RunResult] = {}
        others: list[Path] = []
        dates: list[date] = []
        for day in range(days):
            dates.append(nights.now().date())
            sections = WHOLE if day in whole else PLAIN
            if day not in lost:
                result = _night(nights, clock, day, failed, sections)
                if day != failed:
                    assert result.complete, result.why
                    complete[dates[-1]] = result
            world.advance(days=0.5)
            _hand_over(nights, clock)
            other = _afterwards(nights, clock, day, sections)
            if other is not None:
                assert other.report_directory is not None
                others.append(other.report_directory)
            world.advance(days=0.5)
    twin = directory / "twin"
    shutil.copytree(nights.reports, twin, symlinks=True)
    return RoughMonth(
        nights, clock, dates[0], dates[-1], complete, [dates[day] for day in sorted(lost)], dates[failed], others, twin
    )


def _night(nights: Nights, clock: Callable[[], datetime], day: int, failed: int, sections: Sections) -> RunResult:
    faults = nights.world.faults
    if day == failed:
        faults.script("cut_json", method="GET", path=ACCOUNTS, times=50)
    elif day % 6 == 1:
        # One request stays without an answer tonight, and the next night settles it.
        faults.script("reset_after", method="POST", path=SESSIONS, times=3)
    elif day % 6 == 2:
        faults.script("error_500_before", method="POST", path=SESSIONS, times=1)
    if day % 6 == 4:
        rows = ledger_of(nights.world)
        nights.load_ledger([{**row, "exposure_minor": 100 * day, "currency": "usd"} for row in rows[day:]])
    try:
        if day % 6 != 3:
            return nights.run(clock=clock, **sections)
        # This date's night is a plan that a person looked at before it was carried out.
        planned = nights.run(Work("plan", dry_run=True), clock=clock, **sections)
        agreed = {"main": planned.nights[0].plan.requests[:2]}
        return nights.run(Work("apply", agreed=agreed), clock=clock, **sections)
    finally:
        faults.clear()


def _hand_over(nights: Nights, clock: Callable[[], datetime]) -> None:
    with open_database(nights.database_url) as database:
        for stored in records.open_requests(database, SCOPE)[::2]:
            assert stored.session_id is not None
            records.mark_offered(database, SCOPE, stored.session_id, clock())


def _afterwards(nights: Nights, clock: Callable[[], datetime], day: int, sections: Sections) -> RunResult | None:
    if day % 7 == 3:
        work = Work("collect", from_stored=True, collect_everything=True, sends=False)
        return nights.run(work, clock=clock, **sections)
    if day % 7 == 5:
        with open_database(nights.database_url) as database:
            broken = sorted(one.key.authorization_id for one in records.open_breakages(database, SCOPE))
        known = {account.authorization.id for account in nights.world.listing}
        chosen = Selection(authorizations=frozenset([name for name in broken if name in known][:2]))
        return nights.run(
            Work("request", from_stored=True, selection=chosen, ignore_cooldown=True), clock=clock, **sections
        )
    return None


def rebuild(
    month: RoughMonth, only: Only = Only.MISSING, tell: Callable[[RebuiltDate], None] | None = None, **sections: Any
) -> Backfilled:
    """`relink backfill` of the whole month, without a key."""
    nights = month.nights
    with wire(
        nights.settings(**sections), {}, holder="backfill", clock=month.clock, calls_stripe=False, create=False
    ) as wiring:
        return backfill(wiring, month.first, month.last, only, tell or (lambda _: None))


def files_of(directory: Path) -> dict[str, bytes]:
    """Every file below a directory, by its place in it."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def main() -> int:
    """Thirty days, all of whose reports are lost and made again; says what came back and ends with 1 if a byte differs."""
    share_compiled_statements()
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="relink-month-") as directory:
        print("30 days of simulated nights: three lost, one failed ...", flush=True)
        month = play(Path(directory), 30, lost={10, 11, 20}, failed=15, whole={6, 12, 20, 29}, accounts=60)
        for path in month.nights.reports.glob("run_date=*"):
            shutil.rmtree(path)
        calls = len(month.nights.world.log)
        done = rebuild(month, tell=lambda one: print(f"{one.on} {one.result} {one.basis} {one.basis_date}", flush=True))
        wrong = [
            f"{one.on}: {one.why or 'not byte for byte'}"
            for one in done.dates
            if one.on in month.complete and not _is_same(month, one)
        ]
        named = {one.on for one in done.dates if one.basis == "earlier_snapshot"}
        if named != {*month.lost, month.failed}:
            wrong.append(f"without a snapshot are {sorted(named)}, expected {sorted([*month.lost, month.failed])}")
        if len(month.nights.world.log) != calls:
            wrong.append("the stand-in for Stripe was called")
        again = rebuild(month, Only.ALL)
        wrong += [f"{one.on}: the second time {one.result}" for one in again.dates if one.result != "unchanged"]
    for line in wrong:
        print(f"WRONG {line}")
    print(f"{len(month.complete)} reports as published, {len(named)} from an earlier snapshot, {len(wrong)} wrong")
    return 1 if wrong else 0


def _is_same(month: RoughMonth, one: RebuiltDate) -> bool:
    if one.directory is None:
        return False
    return files_of(one.directory) == files_of(month.twin / one.directory.parent.name / one.directory.name)


if __name__ == "__main__":
    sys.exit(main())
