"""Turn what a run learnt and did into its report tables and control totals, and publish them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from jobs.adapters import records
from jobs.night import DRIFT_SHOWN, Listed, MerchantNight
from jobs.report_facts import Decided, KeptFacts, MerchantFacts, answers_wanting, pack
from jobs.wiring import Wiring
from reconcile.contacts import UNSENT, is_open
from reconcile.errors import DatabaseError
from reconcile.model import REPORT_WINDOW_DAYS, BreakageKey, Result, RunStamp, State, StoredRequest, Successor
from reconcile.refresh import StoredRefresh, refreshes_told
from reconcile.schedules import ExpectedLapses
from reports.columns import TABLES
from reports.control import ControlInputs
from reports.past_nights import looked_back
from reports.request_tables import (
    account_successors_table,
    failure_reasons_table,
    relink_outcomes_table,
    relink_requests_table,
)
from reports.summary import (
    ApiCalls,
    ForeignSession,
    LapsesTold,
    ListedTold,
    MerchantRun,
    Orphans,
    PullTold,
    RefusedTold,
    RunFacts,
)
from reports.tables import accounts_table, authorizations_table, combine

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from reports.files import Published

SENT_STATES = (State.ATTEMPTING, State.CREATED, State.REJECTED, State.UNKNOWN)


class PublishedRun(NamedTuple):
    """A report where it lies, and what has to be kept so that it can be rebuilt; None where it says only that its run stopped."""

    report: Published
    facts: records.ReportFacts | None


@dataclass(frozen=True, slots=True)
class MerchantTold:
    """What one merchant's tables are made from.

    `contacts` are the requests that the guards rested on, `requests` those of the run, `followed` those whose outcome changed or is still
    open, `window` those of the business dates that `failure_reasons` counts. `open_breakages` are the outages that went on after it,
    `refreshes` those of the same business dates as `window`.
    """

    merchant: str
    stamp: RunStamp
    findings: pd.DataFrame
    contacts: Sequence[StoredRequest]
    requests: Sequence[StoredRequest]
    followed: Sequence[StoredRequest]
    window: Sequence[StoredRequest]
    successors: Sequence[Successor]
    open_breakages: Collection[BreakageKey] | None
    refreshes: Sequence[StoredRefresh] = ()
    result: Result | None = None


def publish(
    wiring: Wiring,
    stamp: RunStamp,
    nights: Sequence[MerchantNight],
    durations_seconds: Mapping[str, float],
    why: str | None,
) -> PublishedRun:
    """Publish the report of a run, or, where no merchant reached its report, only that it stopped and why.

    Raises:
        ReportError: the disk refused.
    """
    reached = [night for night in nights if night.complete]
    facts = run_facts(wiring, stamp, nights, durations_seconds, why)
    if not reached:
        return PublishedRun(wiring.reports.publish_stopped(facts), None)
    told = {night.merchant.scope.merchant: _told(wiring, night) for night in reached}
    inputs = {night.merchant.scope.merchant: _control_inputs(wiring, night) for night in reached}
    published_at = _moment_of(wiring, told.values())
    published = wiring.reports.publish(facts, report_tables(told.values()), inputs)
    if stamp.dry_run:
        return PublishedRun(published, None)
    kept = KeptFacts(
        run=facts,
        merchants={
            night.merchant.scope.merchant: _kept(night, told[night.merchant.scope.merchant], inputs)
            for night in reached
        },
        published_at=published_at,
        before=() if published.past is None else looked_back(published.past),
        unread=() if published.past is None else tuple(published.past.unread),
        files=published.files,
    )
    return PublishedRun(published, pack(kept))


def report_tables(told: Collection[MerchantTold]) -> dict[str, pa.Table]:
    """The tables of a report, of all its merchants together."""
    built = [merchant_tables(one) for one in told]
    return {name: combine(name, [own[name] for own in built]) for name in TABLES}


def merchant_tables(told: MerchantTold) -> dict[str, pa.Table]:
    """The tables of one merchant."""
    merchant = told.merchant
    return {
        "accounts": accounts_table(merchant, told.findings, refreshes_told(told.refreshes, told.stamp)),
        "authorizations": authorizations_table(
            merchant, told.findings, told.contacts, open_breakages=told.open_breakages
        ),
        "relink_requests": relink_requests_table(told.requests, result=told.result),
        "relink_outcomes": relink_outcomes_table(told.followed),
        "account_successors": account_successors_table(merchant, told.successors),
        "failure_reasons": failure_reasons_table(told.window),
    }


def _kept(night: MerchantNight, told: MerchantTold, inputs: Mapping[str, ControlInputs]) -> MerchantFacts:
    return MerchantFacts(
        decided=Decided.of(night.findings),
        settled=tuple(night.settled),
        unanswered=answers_wanting(list(told.requests)),
        control=inputs[told.merchant],
        taken_over=tuple(one.request.request_id for one in told.requests if one.run_id != night.stamp.run_id),
    )


def _moment_of(wiring: Wiring, told: Iterable[MerchantTold]) -> datetime:
    """The moment whose records the report shows: now, or later where a clock was set back since something of the run was recorded."""
    moments = [wiring.clock()]
    for one in told:
        for stored in one.requests:
            moments += [at for at in (stored.planned_at, stored.attempting_at, stored.answered_at) if at is not None]
        for asked in one.refreshes:
            moments += [at for at in (asked.planned_at, asked.answered_at, asked.last_checked_at) if at is not None]
    return max(moments)


def run_facts(
    wiring: Wiring,
    stamp: RunStamp,
    nights: Sequence[MerchantNight],
    durations_seconds: Mapping[str, float],
    why: str | None,
) -> RunFacts:
    """What the tables do not say about a run."""
    reads: Counter[str] = Counter()
    writes = refreshes = retries = rate_limited = 0
    for merchant in wiring.merchants:
        counts = merchant.gateway.meter.counts()
        reads.update(counts.reads)
        writes += counts.writes
        refreshes += counts.refreshes
        retries += counts.retries
        rate_limited += counts.rate_limited
    return RunFacts(
        stamp=stamp,
        complete=bool(nights) and all(night.complete for night in nights) and why is None,
        sent=0 if stamp.dry_run else _sent(wiring, stamp, writes),
        merchants=[
            MerchantRun(
                merchant=night.merchant.scope.merchant,
                mode=night.merchant.scope.mode,
                snapshot_id=night.snapshot_id,
                complete=night.complete and night.why is None,
                held=bool(night.plan.held),
                held_plan_hash=night.held_plan_hash,
                why=night.why or "; ".join(night.brakes.reasons) or None,
                basis_date=night.snapshot_date,
                quiet=night.quiet,
                pull=_pull_told(night),
                expected_lapses=[lapses_told(one) for one in night.expected_lapses],
                refresh_trouble=night.refresh_trouble,
            )
            for night in nights
        ],
        why=why,
        api_calls=ApiCalls(dict(reads), writes, retries, rate_limited, refreshes),
        orphans=Orphans(
            found=sum(len(night.found) for night in nights),
            reactivated_unattributed=sum(len(night.unattributed) for night in nights),
            foreign=[
                ForeignSession(
                    night.merchant.scope.merchant, one.session_id, one.authorization_id, one.seen_at, one.why
                )
                for night in nights
                for one in night.foreign
            ],
        ),
        listed=[
            _listed_told(night.merchant.scope.merchant, night.listed) for night in nights if night.listed is not None
        ],
        durations_seconds=durations_seconds,
    )


def _listed_told(merchant: str, listed: Listed) -> ListedTold:
    return ListedTold(
        merchant=merchant,
        yielded=len(listed.ids),
        followed_already=listed.known,
        adopted=sorted(one.session_id for one in listed.results if one.result == "adopted"),
        refused=[
            RefusedTold(one.session_id, one.why)
            for one in sorted(listed.results, key=lambda one: one.session_id)
            if one.result == "refused"
        ],
        unread=listed.unread,
    )


def _pull_told(night: MerchantNight) -> PullTold | None:
    facts = night.pull
    if facts is None:
        return None
    return PullTold(
        obtained=facts.obtained,
        why=facts.why,
        expected_reads=facts.expected_reads,
        base_snapshot_id=facts.base_snapshot_id,
        accounts_read=facts.accounts_read,
        told_by_events=facts.told_by_events,
        drift_accounts=None if facts.drift is None else len(facts.drift),
        drift=(facts.drift or ())[:DRIFT_SHOWN],
    )


def lapses_told(one: ExpectedLapses) -> LapsesTold:
    """What is expected of one bank, as plain values."""
    schedule = one.schedule
    return LapsesTold(
        institution_name=schedule.institution_name,
        lasts_days=schedule.days,
        agreeing=schedule.agreeing,
        observed=schedule.observed,
        within_days=one.within_days,
        logins=one.logins,
        logins_by_date={on.isoformat(): logins for on, logins in one.logins_by_date.items()},
        accounts=one.accounts,
        exposure_by_currency=dict(one.exposure_by_currency),
    )


def _sent(wiring: Wiring, stamp: RunStamp, writes: int) -> int:
    """How many requests of this run may have reached Stripe; where the records cannot tell any more, how many calls were made."""
    try:
        return sum(one.state in SENT_STATES for one in records.requests_of_run(wiring.database, stamp.run_id))
    except DatabaseError:
        return writes


def _told(wiring: Wiring, night: MerchantNight) -> MerchantTold:
    scope, stamp = night.merchant.scope, night.stamp
    requests = requests_of_night(wiring, night)
    followed = _followed(wiring, night, requests)
    window = [
        one
        for one in _newest(records.requests_since(wiring.database, scope, first_of_window(stamp)), followed)
        if one.business_date <= stamp.business_date
    ]
    contacts = _newest(night.contacts, [*night.looked_at, *requests])
    known = {one.request.request_id for one in contacts}
    if not stamp.dry_run:
        contacts += [one for one in requests if one.request.request_id not in known]
    return MerchantTold(
        merchant=scope.merchant,
        stamp=stamp,
        findings=night.findings,
        contacts=contacts,
        requests=requests,
        followed=followed,
        window=window,
        successors=list(dict.fromkeys([*records.successors(wiring.database, scope), *night.successors])),
        open_breakages=None if night.breakages is None else {breakage.key for breakage in night.breakages.open},
        refreshes=records.refreshes_as_of(wiring.database, scope, None, first_of_window(stamp), stamp.business_date),
        result=Result.WOULD_REQUEST if stamp.dry_run else None,
    )


def first_of_window(stamp: RunStamp) -> date:
    """The first of the business dates that `failure_reasons` counts."""
    return stamp.business_date - timedelta(days=REPORT_WINDOW_DAYS - 1)


def requests_of_night(wiring: Wiring, night: MerchantNight) -> list[StoredRequest]:
    """The requests of this run as recorded, those of the runs it finishes first, or, where nothing is recorded, as they would be."""
    stamp = night.stamp
    if stamp.dry_run:
        return [
            StoredRequest(request, stamp.run_id, stamp.business_date, str(State.PLANNED), planned_at=stamp.as_of)
            for request in night.plan.requests
        ]
    return [
        *requests_before(wiring, night),
        *records.requests_of_run(wiring.database, stamp.run_id, night.merchant.scope),
    ]


def requests_before(wiring: Wiring, night: MerchantNight) -> list[StoredRequest]:
    """What the runs that this one finishes did; not what they only planned, for that was decided anew."""
    runs = reversed(night.work.resumes)
    stored = [one for run_id in runs for one in records.requests_of_run(wiring.database, run_id, night.merchant.scope)]
    return [one for one in stored if one.state not in UNSENT or one.outcome is not None]


def _newest(stored: Sequence[StoredRequest], looked_at: Sequence[StoredRequest]) -> list[StoredRequest]:
    newest = {one.request.request_id: one for one in looked_at}
    return [newest.get(one.request.request_id, one) for one in stored]


def _followed(wiring: Wiring, night: MerchantNight, requests: Sequence[StoredRequest]) -> list[StoredRequest]:
    """Every request whose outcome is still open or changed in this run, each once."""
    if night.stamp.dry_run:
        changed = {outcome.request_id for outcome in night.outcomes}
        return [one for one in night.looked_at if is_open(one) or one.request.request_id in changed]
    scope, database = night.merchant.scope, wiring.database
    found = [
        *records.open_requests(database, scope),
        *(
            one
            for run_id in night.stamp.run_ids
            for one in records.requests_with_outcome_of_run(database, scope, run_id)
        ),
        *records.requests_by_id(database, scope, night.settled),
        *requests,
    ]
    return list({one.request.request_id: one for one in found}.values())


def _control_inputs(wiring: Wiring, night: MerchantNight) -> ControlInputs:
    stamp = night.stamp
    posted = night.merchant.gateway.meter.counts().writes - night.replays
    sends = night.work.sends and not night.stamp.dry_run
    open_now = len(records.open_requests(wiring.database, night.merchant.scope)) if sends else None
    before = [] if stamp.dry_run else requests_before(wiring, night)
    created_before = sum(one.state == State.CREATED for one in before)
    return ControlInputs(
        accounts_pulled=night.counted.accounts,
        ledger_rows=night.counted.ledger_rows,
        ids_in_both=night.counted.ids_in_both,
        plan_requests=len(night.plan.requests) if night.work.sends else None,
        keys_posted=posted if sends else None,
        sessions_recorded=night.created + created_before if sends else None,
        requests_before=len(before),
        sent_before=sum(one.calls > 0 for one in before),
        created_before=created_before,
        open_before=night.open_before if sends else None,
        answered=night.answered if sends else None,
        open_after=open_now,
        window_requests=records.count_requests_between(
            wiring.database, night.merchant.scope, first_of_window(stamp), stamp.business_date
        )
        if sends
        else None,
    )
