"""Turn what a run learnt and did into its report tables and control totals, and publish them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING

from jobs.adapters import records
from jobs.night import MerchantNight
from jobs.wiring import Wiring
from reconcile.contacts import is_open
from reconcile.errors import DatabaseError
from reconcile.model import REPORT_WINDOW_DAYS, Result, RunStamp, State, StoredRequest
from reports.columns import TABLES
from reports.control import ControlInputs
from reports.summary import ApiCalls, MerchantRun, RunFacts
from reports.tables import (
    account_successors_table,
    accounts_table,
    authorizations_table,
    combine,
    failure_reasons_table,
    relink_outcomes_table,
    relink_requests_table,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from reports.files import Published

SENT_STATES = (State.ATTEMPTING, State.CREATED, State.REJECTED, State.UNKNOWN)


def publish(
    wiring: Wiring,
    stamp: RunStamp,
    nights: Sequence[MerchantNight],
    durations_seconds: Mapping[str, float],
    why: str | None,
) -> Published:
    """Publish the report of a run, or, where no merchant reached its report, only that it stopped and why.

    Raises:
        ReportError: the disk refused.
    """
    reached = [night for night in nights if night.complete]
    facts = run_facts(wiring, stamp, nights, durations_seconds, why)
    if not reached:
        return wiring.reports.publish_stopped(facts)
    built = {night.merchant.scope.merchant: _tables(wiring, night) for night in reached}
    tables = {name: combine(name, [own[name] for own, _ in built.values()]) for name in TABLES}
    return wiring.reports.publish(facts, tables, {merchant: inputs for merchant, (_, inputs) in built.items()})


def run_facts(
    wiring: Wiring,
    stamp: RunStamp,
    nights: Sequence[MerchantNight],
    durations_seconds: Mapping[str, float],
    why: str | None,
) -> RunFacts:
    """What the tables do not say about a run."""
    reads: Counter[str] = Counter()
    writes = retries = rate_limited = 0
    for merchant in wiring.merchants:
        counts = merchant.gateway.meter.counts()
        reads.update(counts.reads)
        writes += counts.writes
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
            )
            for night in nights
        ],
        why=why,
        api_calls=ApiCalls(dict(reads), writes, retries, rate_limited),
        durations_seconds=durations_seconds,
    )


def _sent(wiring: Wiring, stamp: RunStamp, writes: int) -> int:
    """How many requests of this run may have reached Stripe; where the records cannot tell any more, how many calls were made."""
    try:
        return sum(one.state in SENT_STATES for one in records.requests_of_run(wiring.database, stamp.run_id))
    except DatabaseError:
        return writes


def _tables(wiring: Wiring, night: MerchantNight) -> tuple[dict[str, pa.Table], ControlInputs]:
    scope, stamp = night.merchant.scope, night.stamp
    requests = requests_of_night(wiring, night)
    followed = _followed(wiring, night, requests)
    first = stamp.business_date - timedelta(days=REPORT_WINDOW_DAYS - 1)
    window = [
        one
        for one in _newest(records.requests_since(wiring.database, scope, first), followed)
        if one.business_date <= stamp.business_date
    ]
    contacts = _newest(night.contacts, [*night.looked_at, *requests])
    known = {one.request.request_id for one in contacts}
    if not stamp.dry_run:
        contacts += [one for one in requests if one.request.request_id not in known]
    still_open = None if night.breakages is None else {breakage.key for breakage in night.breakages.open}
    would = Result.WOULD_REQUEST if stamp.dry_run else None
    tables = {
        "accounts": accounts_table(scope.merchant, night.findings),
        "authorizations": authorizations_table(scope.merchant, night.findings, contacts, open_breakages=still_open),
        "relink_requests": relink_requests_table(requests, result=would),
        "relink_outcomes": relink_outcomes_table(followed),
        "account_successors": account_successors_table(
            scope.merchant, list(dict.fromkeys([*records.successors(wiring.database, scope), *night.successors]))
        ),
        "failure_reasons": failure_reasons_table(window),
    }
    return tables, _control_inputs(wiring, night, requests, first)


def requests_of_night(wiring: Wiring, night: MerchantNight) -> list[StoredRequest]:
    """The requests of this run as recorded, or, where nothing is recorded, as they would be."""
    stamp = night.stamp
    if stamp.dry_run:
        return [
            StoredRequest(request, stamp.run_id, stamp.business_date, str(State.PLANNED), planned_at=stamp.as_of)
            for request in night.plan.requests
        ]
    return records.requests_of_run(wiring.database, stamp.run_id, night.merchant.scope)


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
        *records.requests_with_outcome_of_run(database, scope, night.stamp.run_id),
        *records.requests_by_id(database, scope, night.settled),
        *requests,
    ]
    return list({one.request.request_id: one for one in found}.values())


def _control_inputs(
    wiring: Wiring,
    night: MerchantNight,
    requests: Sequence[StoredRequest],
    first: date,
) -> ControlInputs:
    stamp = night.stamp
    accounts, ledger = night.accounts["account_id"], night.ledger["account_id"]
    posted = night.merchant.gateway.meter.counts().writes - night.replays
    sends = night.work.sends and not night.stamp.dry_run
    open_now = len(records.open_requests(wiring.database, night.merchant.scope)) if sends else None
    return ControlInputs(
        accounts_pulled=len(accounts),
        ledger_rows=len(ledger),
        ids_in_both=len(set(accounts) & set(ledger)),
        plan_requests=len(night.plan.requests) if night.work.sends else None,
        keys_posted=posted if sends else None,
        sessions_recorded=night.created if sends else None,
        open_before=night.open_before if sends else None,
        answered=night.answered if sends else None,
        open_after=open_now,
        window_requests=records.count_requests_between(
            wiring.database, night.merchant.scope, first, stamp.business_date
        )
        if sends
        else None,
    )
