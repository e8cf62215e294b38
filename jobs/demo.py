"""Several nights of the real job against the stand-in for Stripe, with the trouble that real nights bring."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from jobs.adapters import records
from jobs.adapters.ledger import read_csv
from jobs.demo_directory import KEY_VARIABLE, DemoDirectory, write_settings
from jobs.nightly import RunResult, run
from jobs.progress import Progress, Quiet
from jobs.settings import Settings, load_settings
from jobs.simulator.ledger import make_ledger, write_ledger_csv
from jobs.simulator.server import SimulatorServer
from jobs.simulator.world import DEFAULT_KEY, World
from jobs.wiring import wire
from jobs.work import Work
from reconcile.ledger import check_rows, require_clean
from reconcile.model import AFFECTED, Finding, OutcomeKind, Result

SEED = 7
NIGHT_OF_TROUBLE = 2
LONGEST_WAIT_SECONDS = 0.1
"""Waits between attempts are cut to this: nobody at a demo wants to sit out the patience that Stripe is shown."""

UNFINISHED = (Result.REJECTED, Result.UNKNOWN, Result.NOT_SENT)
"""Results that end a finished run with exit code 4."""

_BEST_STORIES = (
    OutcomeKind.NEW_AUTHORIZATION,
    OutcomeKind.RELINKED_PARTIALLY,
    OutcomeKind.RELINKED,
    OutcomeKind.FAILED,
    OutcomeKind.PENDING,
)
_SESSIONS = "*/financial_connections/sessions"
_ACCOUNTS = "*/financial_connections/accounts"


@dataclass(frozen=True, slots=True)
class DemoNight:
    """One night in numbers.

    `faults` counts what the stand-in did wrong on purpose. `would_request` is what a dry run just before said, `posts_of_second_run`
    what another run just after sent; None where there was none. `unexpected` names everything that is not as it should be.
    """

    number: int
    run_id: str
    run_date: date
    exit_code: int
    report_directory: Path | None
    seconds: float
    accounts: int
    findings: Mapping[str, int]
    results: Mapping[str, int]
    outcomes: Mapping[str, int]
    failed_by_reason: Mapping[str, int]
    money_at_stake_minor: Mapping[str, int]
    reads: int
    writes: int
    retries: int
    faults: Mapping[str, int]
    customer_deleted: bool = False
    would_request: int | None = None
    posts_of_second_run: int | None = None
    unexpected: tuple[str, ...] = ()

    @property
    def affected(self) -> int:
        """Accounts that a relink can cure."""
        return sum(self.findings[finding] for finding in AFFECTED)

    @property
    def requests(self) -> int:
        """Requests of this night, whatever became of them."""
        return sum(self.results.values())

    @property
    def unfinished(self) -> int:
        """Requests that somebody should look at."""
        return sum(self.results[result] for result in UNFINISHED)


class Demo:
    """A stand-in for Stripe, a ledger and settings in a directory of their own; to be played once."""

    def __init__(self, directory: DemoDirectory, accounts: int, progress: Progress | None = None) -> None:
        self.directory = directory
        self.world = World.generate(accounts, seed=SEED)
        self.accounts = len(self.world.listing)
        self.customers = len(self.world.holders)
        self.example_id: str | None = None
        """An authorization with a story to it, for `relink history`."""
        self._example_rank = len(_BEST_STORIES)
        self._progress = progress or Quiet()
        self._ledger_rows = make_ledger(self.world, seed=SEED)
        self.ledger_rows = len(self._ledger_rows)

    def play(self, nights: int) -> Iterator[DemoNight]:
        """Load the ledger and run night after night, a day apart, in which customers answer; yields each as it ends."""
        with SimulatorServer(self.world) as server:
            settings = load_settings(write_settings(self.directory, server.base_url), {})
            write_ledger_csv(self.directory.ledger, self._ledger_rows)
            rows = require_clean(check_rows(read_csv(self.directory.ledger), settings.merchant_names))
            with wire(settings, {}, clock=self._clock, calls_stripe=False) as wiring:
                records.load_ledger(wiring.database, rows)
            trouble = min(NIGHT_OF_TROUBLE, nights)
            for number in range(1, nights + 1):
                if number > 1:
                    self.world.advance(days=1)
                night = self._night_of_trouble(settings, number) if number == trouble else self._night(settings, number)
                yield self._again(settings, night) if number == 1 else night

    def _night(self, settings: Settings, number: int) -> DemoNight:
        effects, injected = len(self.world.effects), Counter(self.world.faults.injected)
        started = time.monotonic()
        result = self._run(settings, Work("run"))
        night = _numbers(number, result, time.monotonic() - started, self.world.faults.injected - injected)
        self._look_for_example(result)
        unexpected = list(_unexpected(result, night))
        made = len(self.world.effects) - effects
        if made != night.results[Result.CREATED]:
            unexpected.append(f"the stand-in made {made} sessions, the job knows of {night.results[Result.CREATED]}")
        return replace(night, unexpected=tuple(unexpected))

    def _night_of_trouble(self, settings: Settings, number: int) -> DemoNight:
        """A dry run, then the night itself on a bad line and with a customer who was deleted in between."""
        posts = self._posts()
        rehearsal = self._run(settings, Work("run", dry_run=True))
        planned = [request for night in rehearsal.nights for request in night.plan.requests]
        unexpected = [] if self._posts() == posts else ["the dry run sent something"]
        customers = [request.holder.id for request in planned if request.holder.id in self.world.holders]
        # The first one is asked first and meets the rate limits; the second loses its answer, the third gets the 500.
        if len(customers) > 1:
            self.world.delete_customer(customers[0])
        faults = self.world.faults
        faults.script("rate_limit", method="GET", path=_ACCOUNTS)
        faults.script("rate_limit", method="POST", path=_SESSIONS, times=2)
        faults.script("reset_after", method="POST", path=_SESSIONS, skip=1)
        faults.script("error_500_before", method="POST", path=_SESSIONS, skip=2)
        night = self._night(settings, number)
        faults.clear()
        if night.requests != len(planned):
            unexpected.append(f"the dry run announced {len(planned)} requests, the run made {night.requests}")
        return replace(
            night,
            customer_deleted=len(customers) > 1,
            would_request=len(planned),
            unexpected=(*night.unexpected, *unexpected),
        )

    def _again(self, settings: Settings, night: DemoNight) -> DemoNight:
        """The same night once more, which has nothing left to send."""
        before = self._posts()
        result = self._run(settings, Work("run"))
        posts = self._posts() - before
        is_as_it_should_be = posts == 0 and result.exit_code == 0 and result.already_finished == night.run_id
        unexpected = () if is_as_it_should_be else (f"a second run sent {posts} and ended with {result.exit_code}",)
        return replace(night, posts_of_second_run=posts, unexpected=(*night.unexpected, *unexpected))

    def _run(self, settings: Settings, work: Work) -> RunResult:
        with wire(
            settings,
            {KEY_VARIABLE: DEFAULT_KEY},
            holder=None if work.dry_run else work.command,
            clock=self._clock,
            progress=self._progress,
            create=False,
            sleep=_wait_briefly,
        ) as wiring:
            return run(wiring, work)

    def _clock(self) -> datetime:
        return self.world.now_at

    def _posts(self) -> int:
        return self.world.calls["sessions.create"]

    def _look_for_example(self, result: RunResult) -> None:
        for night in result.nights:
            for stored in night.looked_at:
                outcome = stored.outcome or OutcomeKind.PENDING
                rank = _BEST_STORIES.index(OutcomeKind(outcome)) if outcome in _BEST_STORIES else len(_BEST_STORIES)
                if rank < self._example_rank:
                    self.example_id, self._example_rank = stored.request.authorization_id, rank


def _numbers(number: int, result: RunResult, seconds: float, faults: Mapping[str, int]) -> DemoNight:
    summary: Mapping[str, Any] = result.summary
    # A run that stopped has no counts; the demo then tells why, and zeros beside it.
    counts = summary.get("counts") or {}
    calls = summary["api_calls"]
    failed = (outcome for night in result.nights for outcome in night.outcomes if outcome.kind == OutcomeKind.FAILED)
    return DemoNight(
        number=number,
        run_id=result.stamp.run_id,
        run_date=result.stamp.business_date,
        exit_code=result.exit_code,
        report_directory=result.report_directory,
        seconds=round(seconds, 2),
        accounts=sum(counts.get("finding", {}).values()),
        findings=_each(Finding, counts.get("finding")),
        results=_each(Result, counts.get("result")),
        outcomes=_each(OutcomeKind, counts.get("outcome")),
        failed_by_reason=dict(
            sorted(Counter(outcome.failure_reason or "no reason given" for outcome in failed).items())
        ),
        money_at_stake_minor=summary.get("money_at_stake_minor") or {},
        reads=sum(calls["reads"].values()),
        writes=calls["writes"],
        retries=calls["retries"],
        faults=dict(faults),
    )


def _each(values: type[StrEnum], counts: Mapping[str, int] | None) -> dict[str, int]:
    return {str(value): (counts or {}).get(value, 0) for value in values}


def _unexpected(result: RunResult, night: DemoNight) -> Iterator[str]:
    if not result.complete:
        yield f"the run did not complete: {result.why}"
    for total in result.summary.get("control") or ():  # type: ignore[attr-defined]
        if not total["ties"]:
            yield f"the control total {total['name']} does not tie: {total['left']} and {total['right']}"
    if night.exit_code != (4 if night.unfinished else 0):
        yield f"it ended with exit code {night.exit_code} and {night.unfinished} unfinished requests"
    if not night.faults and (night.results[Result.UNKNOWN] or night.results[Result.NOT_SENT]):
        yield "requests are unknown or were not sent although nothing failed"


def _wait_briefly(seconds: float) -> None:
    time.sleep(min(seconds, LONGEST_WAIT_SECONDS))
