"""The run as a straight list of stages, for every merchant in turn, and its end in one report and one exit code."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import pyarrow as pa

from jobs.adapters import records
from jobs.adopt import adopt
from jobs.brake import brake, record_brakes
from jobs.clock import new_stamp
from jobs.collect import collect
from jobs.decide import classify_accounts, plan_requests, record_decisions
from jobs.garbage import rare_collections
from jobs.logs import log_fields
from jobs.night import MerchantNight
from jobs.orphans import find_orphans
from jobs.plan_file import remove_leftovers
from jobs.prune import prune_after_run
from jobs.publish import lapses_told, publish, requests_of_night
from jobs.refresh import COMMANDS as REFRESHING_COMMANDS
from jobs.refresh import refresh
from jobs.relink import relink, store_plan
from jobs.settle import settle
from jobs.signals import exit_code_of
from jobs.snapshot import obtain_snapshot
from jobs.traces import Span, span, tracing
from jobs.wiring import Wiring
from jobs.work import Work
from reconcile.brakes import may_be_decision_hash
from reconcile.errors import DatabaseError, DecisionNeeded, LeaseLost, ModeMismatch, RelinkError
from reconcile.masking import mask
from reconcile.model import RunStamp, Scope, State
from reports.files import Published
from reports.leftovers import check_writable, clean_leftovers

logger = logging.getLogger(__name__)

UNFINISHED_BUSINESS = (State.REJECTED, State.UNKNOWN, State.NOT_SENT, State.PLANNED, State.ATTEMPTING)
NOT_SETTLED = (State.REJECTED, State.UNKNOWN, State.ATTEMPTING)
"""What a request may be after it was taken up that a person should know; one that was never sent is planned anew."""

SEVERITY = (1, 130, 143, 2, 3, 5, 4, 0)
"""Exit codes from the worst to the best."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended: its exit code, where its report lies, and what was skipped and why."""

    stamp: RunStamp
    exit_code: int
    complete: bool
    report_directory: Path | None
    why: str | None = None
    nights: tuple[MerchantNight, ...] = ()
    summary: dict[str, object] = field(default_factory=dict)
    already_finished: str | None = None

    @property
    def run_id(self) -> str:
        """The run's id, or that of the run that had finished the business date already."""
        return self.already_finished or self.stamp.run_id


NEARLY_SPENT = 0.9
"""The share of the read allocation from which a run warns."""

PRUNING_COMMANDS = ("run", "resume")

STAGES: tuple[tuple[str, Callable[[Wiring, MerchantNight], None]], ...] = (
    ("settle", settle),
    ("pull", obtain_snapshot),
    ("orphans", find_orphans),
    ("collect", collect),
    ("classify", classify_accounts),
    ("adopt", adopt),
    ("brake", brake),
    ("plan", plan_requests),
)
"""Everything up to the decision; none of it contacts anybody, but to settle what was begun before."""


def run(wiring: Wiring, work: Work, on_start: Callable[[str], None] | None = None) -> RunResult:
    """Do one run: every merchant's stages, then the report.

    Errors that a person can mend end a merchant's part and are told in the result; a fault of ours goes through as it is, after the
    run is recorded as stopped. Ctrl-C and SIGTERM leave the run recorded as interrupted.

    Args:
        on_start: told the run's id before anything else happens.
    """
    attributes: dict[str, str | bool] = {"relink.command": work.command, "relink.dry_run": work.dry_run}
    with rare_collections(), tracing(wiring.environment), span(f"relink {work.command}", {**attributes}) as told:
        result = _run(wiring, work, on_start, told)
        told.set("relink.exit_code", result.exit_code)
        return result


def _run(wiring: Wiring, work: Work, on_start: Callable[[str], None] | None, told: Span) -> RunResult:
    stamp = new_stamp(
        work.command,
        wiring.clock,
        wiring.settings.schedule.timezone,
        dry_run=work.dry_run,
        business_date=work.business_date,
        resumed_from=work.resumes,
    )
    told.set("relink.run_id", stamp.run_id)
    told.set("relink.business_date", stamp.business_date.isoformat())
    if on_start is not None:
        on_start(stamp.run_id)
    check_writable(wiring.settings.reports.directory, wiring.reports.access)
    if work.dry_run:
        for merchant in wiring.merchants:
            _refuse_other_mode(wiring, merchant.scope)
    else:
        clean_leftovers(wiring.settings.reports.directory)
        remove_leftovers(wiring.plan_directory)
        for merchant in wiring.merchants:
            scope = merchant.scope
            records.stamp_merchant(
                wiring.database, scope.merchant, scope.mode, merchant.settings.stripe_account, stamp.as_of
            )
        finished = _finished_already(wiring, work, stamp)
        if finished is not None:
            return finished
        _start(wiring, work, stamp)
    clock = _StageClock(wiring, stamp)
    nights = [MerchantNight(merchant=merchant, work=work, stamp=stamp) for merchant in wiring.merchants]
    try:
        if work.released_brake is not None:
            _narrow_to_released(wiring, nights, work.released_brake)
        worst = max((_one_merchant(wiring, night, clock) for night in nights), key=_rank_of, default=0)
        result = _report(wiring, work, stamp, nights, clock, worst)
    except KeyboardInterrupt as signal:
        code = exit_code_of(signal)
        _stop(wiring, stamp, nights, clock, records.INTERRUPTED, code, "interrupted; the next run settles what it left")
        raise
    except LeaseLost as error:
        # Another run is in charge of the reports now.
        _close(wiring, stamp, records.STOPPED, error.exit_code, str(error), None)
        raise
    except RelinkError as error:
        logger.error("%s", error)
        published = _stop(wiring, stamp, nights, clock, records.STOPPED, error.exit_code, str(error))
        result = RunResult(stamp, error.exit_code, False, None, why=str(error), nights=tuple(nights))
        if published is None:
            return result
        return replace(result, report_directory=published.path, summary=dict(published.summary))
    except BaseException:
        _stop(wiring, stamp, nights, clock, records.STOPPED, 1, "stopped by a fault of the program")
        raise
    # The run is recorded and published by now, so that nothing in here can undo it.
    if result.complete and work.command in PRUNING_COMMANDS and not work.dry_run:
        prune_after_run(wiring.settings, wiring.database, wiring.clock())
    return result


def _stop(
    wiring: Wiring,
    stamp: RunStamp,
    nights: Sequence[MerchantNight],
    clock: _StageClock,
    state: str,
    exit_code: int,
    why: str,
) -> Published | None:
    """Record and publish that the run stopped and why, as far as what stopped it still allows."""
    published = None
    for night in nights:
        night.complete = False
    try:
        published = publish(wiring, stamp, nights, clock.durations_seconds, why).report
    except Exception as error:
        # What stopped the run goes through to the caller; this must neither hide it nor leave the run recorded as running.
        logger.error("that the run stopped could not be published: %s", error)
    try:
        for night in nights:
            if not stamp.dry_run:
                _record_calls(wiring, night)
    except DatabaseError as error:
        logger.error("what the run spent at Stripe could not be recorded: %s", error)
    _close(wiring, stamp, state, exit_code, why, None if published is None else published.path)
    return published


def _refuse_other_mode(wiring: Wiring, scope: Scope) -> None:
    """Never let live and sandbox meet, not even in a dry run, which stamps nothing.

    Raises:
        ModeMismatch: the merchant's records are of the other mode.
    """
    recorded = records.recorded_mode(wiring.database, scope.merchant)
    if recorded is not None and recorded != scope.mode:
        raise ModeMismatch(
            f"merchant {scope.merchant}: the records are of mode {recorded}, the key is {scope.mode}: use the other key, or "
            "another name or database for this mode"
        )


def _one_merchant(wiring: Wiring, night: MerchantNight, clock: _StageClock) -> int:
    name = night.merchant.scope.merchant
    with log_fields(merchant=name), span(f"merchant {name}", {"relink.merchant": name}):
        return _merchant_part(wiring, night, clock)


def _merchant_part(wiring: Wiring, night: MerchantNight, clock: _StageClock) -> int:
    """All stages for one merchant; returns the exit code of its part. One merchant's trouble never stops another."""
    try:
        for name, stage in STAGES:
            with clock.stage(name):
                stage(wiring, night)
        if not night.stamp.dry_run:
            with clock.stage("record"):
                record_decisions(wiring, night)
                record_brakes(wiring, night)
        if night.work.sends and not night.stamp.dry_run:
            store_plan(wiring, night)
        night.complete = True
        if night.work.sends and not night.stamp.dry_run:
            with clock.stage("relink"):
                relink(wiring, night)
        if night.work.command in REFRESHING_COMMANDS and not night.stamp.dry_run:
            with clock.stage("refresh"):
                refresh(wiring, night)
    except (DatabaseError, LeaseLost):
        raise
    except RelinkError as error:
        logger.error(
            "merchant %s stopped: %s",
            night.merchant.scope.merchant,
            str(error).removeprefix(f"merchant {night.merchant.scope.merchant}: "),
        )
        night.why = str(error)
        return error.exit_code
    if night.plan.held and night.work.sends:
        return 5
    return 4 if not night.stamp.dry_run and _left_something(wiring, night) else 0


def _left_something(wiring: Wiring, night: MerchantNight) -> bool:
    """Whether a request of this run, or one that it took up from a run that died and told nobody, needs a look."""
    own = [one for one in requests_of_night(wiring, night) if one.outcome is None]
    return any(one.state in UNFINISHED_BUSINESS for one in own) or _left_taken_up(wiring, night)


def _left_taken_up(wiring: Wiring, night: MerchantNight) -> bool:
    taken_up = records.requests_by_id(wiring.database, night.merchant.scope, night.settled)
    return any(one.state in NOT_SETTLED and one.resolved_at is None for one in taken_up)


def _report(
    wiring: Wiring, work: Work, stamp: RunStamp, nights: list[MerchantNight], clock: _StageClock, worst: int
) -> RunResult:
    why = "; ".join(night.why for night in nights if night.why is not None) or None
    if not _every_name_is_known(nights):
        worst = min(worst, 2, key=SEVERITY.index)
    if work.released_brake is not None and not any(night.drop_released or night.released for night in nights):
        worst = min(worst, DecisionNeeded.exit_code, key=SEVERITY.index)
        why = why or f"nothing was released: no brake has the hash {work.released_brake}"
    with clock.stage("report"):
        if wiring.lease is not None:
            wiring.lease.prove()  # else a run that slept would publish totals over what another one did meanwhile
        if not work.dry_run:
            for night in nights:
                _record_merchant(wiring, night)
        published, facts = publish(wiring, stamp, nights, clock.durations_seconds, why)
    summary = dict(published.summary)
    untied = [total for total in _control(summary) if not total["ties"]]
    for total in untied:
        logger.error("control total does not tie: %s: %s and %s", total["name"], total["left"], total["right"])
    if untied:
        worst = 1
    complete = bool(summary["complete"])
    if not work.dry_run:
        state = records.COMPLETE if complete else records.STOPPED
        held = any(night.plan.held for night in nights) and work.sends
        unrecorded = _close(wiring, stamp, state, worst, why, published.path, held=held, facts=facts)
        if unrecorded is not None:
            # All is done and reported, but the records do not say so: the next run looks at everything again.
            worst, why = min(worst, unrecorded.exit_code, key=SEVERITY.index), str(unrecorded)
    return RunResult(
        stamp=stamp,
        exit_code=worst,
        complete=complete,
        report_directory=published.path,
        why=why,
        nights=tuple(nights),
        summary=summary,
    )


def _every_name_is_known(nights: Sequence[MerchantNight]) -> bool:
    """Whether every session and every id that a person named belongs to one of the merchants."""
    refused = [{one.session_id for one in night.adoptions if one.result == "refused"} for night in nights]
    unknown = [set(night.unknown_names) for night in nights]
    return not (set.intersection(*refused) or set.intersection(*unknown)) if nights else True


def _control(summary: dict[str, object]) -> list[dict[str, object]]:
    totals = summary["control"]
    return totals if isinstance(totals, list) else []


def _finished_already(wiring: Wiring, work: Work, stamp: RunStamp) -> RunResult | None:
    """The result of a `run` whose business date is finished: nothing is read or sent again."""
    if work.command != "run" or work.released_brake is not None:
        return None
    before = records.complete_run_on(wiring.database, stamp.business_date)
    if before is None:
        return None
    code, why = 0, None
    for merchant in wiring.merchants:
        night = MerchantNight(merchant=merchant, work=work, stamp=stamp)
        try:
            settle(wiring, night)
            code = min(code, 4 if _left_taken_up(wiring, night) else 0, key=SEVERITY.index)
        except (DatabaseError, LeaseLost):
            raise
        except RelinkError as error:
            # The keys of the other merchants' requests grow old meanwhile.
            logger.error("what merchant %s left could not be settled: %s", merchant.scope.merchant, error)
            code, why = min(code, error.exit_code, key=SEVERITY.index), str(error)
    logger.info("business date %s was finished by run %s; nothing is sent again", stamp.business_date, before.run_id)
    directory = None if before.report_directory is None else Path(before.report_directory)
    return RunResult(stamp, code, True, directory, why=why, already_finished=before.run_id)


def _narrow_to_released(wiring: Wiring, nights: Sequence[MerchantNight], plan_hash: str) -> None:
    """On a date that is finished, let a release be of the merchant alone whose plan it is.

    Raises:
        DecisionNeeded: nothing has this hash, so that a slip is not taken for leave to run a finished date once more.
    """
    plan = records.held_plan(wiring.database, plan_hash)
    if plan is None and not may_be_decision_hash(plan_hash):
        raise DecisionNeeded(f"no held plan has the hash {plan_hash}: see `relink status` for those that wait")
    finished = records.complete_run_on(wiring.database, nights[0].stamp.business_date)
    if finished is None:
        return
    for night in nights:
        if plan is None or night.merchant.scope != Scope(plan.merchant, plan.mode):
            night.silence = f"since run {finished.run_id} finished this date and only what was released is carried out"


def _start(wiring: Wiring, work: Work, stamp: RunStamp) -> None:
    from jobs.settings import settings_for_record

    records.start_run(
        wiring.database,
        stamp.run_id,
        stamp.command,
        stamp.business_date,
        stamp.as_of,
        settings_hash=",".join(merchant.settings_hash for merchant in wiring.merchants),
        settings=settings_for_record(wiring.settings),
        arguments=work.arguments,
        resumed_from=work.resumes[0] if work.resumes else None,
    )


def _was_held(night: MerchantNight) -> bool:
    """Whether a brake kept this night from being one that later ones are compared with.

    What a command was given is all that its plan may hold; a brake on the others has held them all the same.
    """
    held = night.brakes.held_authorizations if night.work.agreed is not None else night.plan.held
    return bool(held) and night.work.sends


def _record_merchant(wiring: Wiring, night: MerchantNight) -> None:
    scope, stamp = night.merchant.scope, night.stamp
    findings = {} if not night.complete else night.findings["finding"].value_counts().to_dict()
    records.record_run_merchant(
        wiring.database,
        stamp.run_id,
        scope,
        snapshot_id=night.snapshot_id,
        complete=night.complete and night.why is None,
        held=_was_held(night),
        why=mask(night.why or "; ".join(night.brakes.reasons)) or None,
        counts={
            "findings": findings,
            "requests": len(night.plan.requests),
            "expected_lapses": [asdict(lapses_told(one)) for one in night.expected_lapses],
        },
    )
    _record_calls(wiring, night)
    _warn_of_allocation(wiring, scope)


def _record_calls(wiring: Wiring, night: MerchantNight) -> None:
    """Add what the run spent to the reads of 30 days, once."""
    if night.calls_recorded:
        return
    counts = night.merchant.gateway.meter.counts()
    reads = [records.ApiCalls(purpose, "read", calls) for purpose, calls in counts.reads.items()]
    writes = [records.ApiCalls("sessions", "write", counts.writes, counts.retries, counts.rate_limited)]
    if counts.refreshes:
        writes.append(records.ApiCalls("refresh", "write", counts.refreshes))
    stamp = night.stamp
    records.add_api_calls(wiring.database, stamp.run_id, night.merchant.scope, stamp.business_date, reads + writes)
    night.calls_recorded = True


def _warn_of_allocation(wiring: Wiring, scope: Scope) -> None:
    """Say so before Stripe does when the reads of 30 days come near what it allots."""
    allotted = wiring.settings.stripe.monthly_read_allocation
    spent = 0 if allotted is None else records.reads_last_30_days(wiring.database, scope, wiring.clock())
    if allotted is not None and spent >= NEARLY_SPENT * allotted:
        logger.warning("merchant %s: %d of %d reads of 30 days are spent", scope.merchant, spent, allotted)


def _close(
    wiring: Wiring,
    stamp: RunStamp,
    state: str,
    exit_code: int,
    why: str | None,
    directory: Path | None,
    *,
    held: bool = False,
    facts: records.ReportFacts | None = None,
) -> DatabaseError | None:
    """Record how the run ended, unless the database itself is what ended it; returns what hindered it."""
    if stamp.dry_run:
        return None
    where = None if directory is None else str(directory)
    try:
        records.finish_run(
            wiring.database,
            stamp.run_id,
            state,
            wiring.clock(),
            exit_code,
            why=None if why is None else mask(why),
            held=held,
            report_directory=where,
            facts=facts,
        )
    except DatabaseError as error:
        logger.error("how the run ended could not be recorded: %s", error)
        return error
    return None


def _rank_of(code: int) -> int:
    return -SEVERITY.index(code)


class _StageClock:
    """Measures stages and records how far the run has come."""

    def __init__(self, wiring: Wiring, stamp: RunStamp) -> None:
        self._wiring = wiring
        self._stamp = stamp
        self.durations_seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        if not self._stamp.dry_run:
            records.set_stage(self._wiring.database, self._stamp.run_id, name)
        started = time.monotonic()
        try:
            with log_fields(stage=name), span(f"stage {name}"):
                yield
        finally:
            spent = time.monotonic() - started
            self.durations_seconds[name] = self.durations_seconds.get(name, 0.0) + spent
            logger.info("stage %s took %.1f s", name, spent)
            # Else what a stage no longer needs stays with the process: some 80 MiB after a pull of 200,000 accounts.
            pa.default_memory_pool().release_unused()
