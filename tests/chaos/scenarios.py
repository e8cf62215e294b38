"""What a trial kills: a night, or one of the commands by which a person decides, each repeated until it ends by itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from jobs.adapters import records
from jobs.backfill import Only, backfill
from jobs.clock import new_stamp
from jobs.nightly import RunResult
from jobs.nightly import run as run_night
from jobs.plan_file import MerchantPlan, PlanFile, check_applicable, read_plan, write_plan
from jobs.resumption import work_to_resume, work_to_retry
from jobs.selection import Selection
from jobs.wiring import Wiring
from jobs.work import Work
from tests.chaos.deployment import ASKED_BY_OTHERS, BROKEN, NIGHT, Command, Template
from tests.jobs.nights import make_session

PLAN_FILE = "plan.json"


@dataclass(frozen=True, slots=True)
class Given:
    """What a scenario's commands are given: a directory, the plan that was held, a session that our records do not know, and the run to take up."""

    directory: Path
    held_plan_hash: str
    foreign_session: str = ""
    run_id: str = ""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A command to be killed.

    `template` is what it starts from, `codes` those with which it may end where Stripe does not fail, `before` a command that is done first
    and never killed. `contacts` is False where nobody may be asked by it.
    """

    command: Callable[[Given], Command]
    template: str = "night"
    codes: tuple[int, ...] = (0,)
    braked: bool = False
    contacts: bool = True
    before: Callable[[Given], Command] | None = None


def _night(_given: Given) -> Command:
    return NIGHT


def _plan(given: Given) -> Command:
    """What `relink plan` does."""

    def perform(wiring: Wiring) -> RunResult:
        result = run_night(wiring, Work("plan", dry_run=True))
        merchants = (
            MerchantPlan(one.merchant.scope, one.merchant.settings_hash, one.plan.requests) for one in result.nights
        )
        stamp = result.stamp
        plan = PlanFile(stamp.run_id, stamp.as_of, stamp.business_date, tuple(merchants))
        write_plan(plan, given.directory / PLAN_FILE)
        return result

    return Command(perform, holder=None)


def _apply(given: Given) -> Command:
    """What `relink apply` does; it refuses the plan once that is a day old."""

    def perform(wiring: Wiring) -> RunResult:
        plan = read_plan(given.directory / PLAN_FILE)
        check_applicable(plan, {one.scope: one.settings_hash for one in wiring.merchants}, wiring.clock())
        return run_night(wiring, Work("apply", agreed={one.scope.merchant: one.requests for one in plan.merchants}))

    return Command(perform, holder="apply")


def _request(_given: Given) -> Command:
    chosen = Selection(authorizations=frozenset(BROKEN))
    return Command(
        lambda wiring: run_night(wiring, Work("request", from_stored=True, selection=chosen)), holder="request"
    )


def _adopt(given: Given) -> Command:
    work = Work("adopt", from_stored=True, sends=False, adopts=(given.foreign_session,))
    return Command(lambda wiring: run_night(wiring, work), holder="adopt")


def _collect(_given: Given) -> Command:
    work = Work("collect", from_stored=True, collect_everything=True, sends=False)
    return Command(lambda wiring: run_night(wiring, work), holder="collect")


def _resume(given: Given) -> Command:
    """What `relink resume` does; it refuses once the night is finished, and what the dead run lost for good is its own."""
    return Command(
        lambda wiring: run_night(wiring, work_to_resume(wiring.database, given.run_id)),
        holder="resume",
    )


def _retry(given: Given) -> Command:
    """What `relink retry` does."""

    def perform(wiring: Wiring) -> RunResult:
        work = work_to_retry(wiring.database, given.run_id)
        return _nothing_to_do("retry", wiring) if work is None else run_night(wiring, work)

    return Command(perform, holder="retry")


def _backfill(_given: Given) -> Command:
    """What `relink backfill --only all` does for all dates that had a night."""

    def perform(wiring: Wiring) -> RunResult:
        dates = [run.business_date for run in records.list_runs(wiring.database)]
        done = backfill(wiring, min(dates), max(dates), Only.ALL, lambda _: None)
        return replace(_nothing_to_do("backfill", wiring), exit_code=done.exit_code)

    return Command(perform, holder="backfill")


def _nothing_to_do(command: str, wiring: Wiring) -> RunResult:
    stamp = new_stamp(command, wiring.clock, wiring.settings.schedule.timezone)
    return RunResult(stamp, 0, complete=True, report_directory=None)


def release(plan_hash: str) -> Command:
    """What `relink run --override-brakes` does."""
    return Command(lambda wiring: run_night(wiring, Work("run", released_brake=plan_hash)))


SCENARIOS = {
    "run": Scenario(_night),
    "apply": Scenario(_apply, codes=(0, 5), before=_plan),
    "hold": Scenario(_night, codes=(0, 5), braked=True, contacts=False),
    "release": Scenario(lambda given: release(given.held_plan_hash), "held", codes=(0, 5), braked=True),
    "request": Scenario(_request, "held"),
    "adopt": Scenario(_adopt, "held", contacts=False),
    "collect": Scenario(_collect, "held", contacts=False),
    "resume": Scenario(_resume, "interrupted", codes=(0, 2, 4)),
    "retry": Scenario(_retry, "unsent"),
    "backfill": Scenario(_backfill, "held", contacts=False),
}

TURNS = ("run", "release", "run", "request", "run", "apply", "run", "adopt", "run", "hold", "run", "collect")
"""Which trial kills what, by its number; every second one a night. The scenarios that are not here have campaigns of their own (`--scenario`)."""


def given_for(name: str, template: Template, directory: Path, base_url: str) -> Given:
    """What the scenario is given; for one that adopts, a colleague asks a customer past us."""
    foreign = make_session(base_url, "cus_2", ASKED_BY_OTHERS) if name == "adopt" else ""
    return Given(directory, template.held_plan_hash, foreign, template.run_id)


def turn_of(number: int) -> tuple[str, int]:
    """The scenario of a trial, and how many trials of that scenario come before it."""
    cycle, place = divmod(number, len(TURNS))
    name = TURNS[place]
    return name, cycle * TURNS.count(name) + TURNS[:place].count(name)
