"""Classify tonight's accounts, plan the requests, and commit what was learnt before anything is sent."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any

import pandas as pd

from jobs.adapters import records
from jobs.forecast import expect_lapses
from jobs.night import Counted, MerchantNight
from jobs.selection import FILE_COLUMNS, Selection
from jobs.send import server_now
from jobs.twins import find_twins, moved_accounts
from jobs.wiring import Wiring
from reconcile.breakages import BreakageStep, advance_breakages
from reconcile.classify import flags
from reconcile.contacts import sum_up_contacts
from reconcile.decisions import decisions_of
from reconcile.errors import SettingsError
from reconcile.ladder import ELIGIBLE_STEPS, eligible_dates
from reconcile.model import RelinkRequest, RunStamp, State, StoredRequest
from reconcile.orphans import OUTAGE_ENDED
from reconcile.outcomes import unmatched_accounts
from reconcile.partitioned import classify_large
from reconcile.plan import PlanInputs, plan
from reconcile.policy import RelinkPolicy
from reconcile.quiet import quiet_customers

logger = logging.getLogger(__name__)


def classify_accounts(wiring: Wiring, night: MerchantNight) -> None:
    """Give each account its finding, tell twins, open and close breakages by both, and tell what will lapse (in memory)."""
    scope = night.merchant.scope
    accounts, ledger = night.accounts, night.ledger
    in_both = int(accounts["account_id"].isin(ledger["account_id"].array).sum())
    night.counted = Counted(len(accounts), len(ledger), in_both)
    night.findings = classify_large(accounts, ledger, night.history, wiring.policy, night.stamp)
    # From here on the findings hold what is needed of both, and a world of them is a third of the memory.
    night.accounts, night.ledger = pd.DataFrame(), pd.DataFrame()
    del accounts, ledger
    known = [*records.successors(wiring.database, scope), *night.successors]
    named = frozenset() if night.work.selection is None else night.work.selection.authorizations
    night.twins = find_twins(wiring.database, scope, night.findings, night.history, known, named=named)
    night.successors.extend(night.twins.successors)
    moved = moved_accounts([*known, *night.twins.successors], night.twins)
    night.breakages = advance_breakages(
        records.open_breakages(wiring.database, scope),
        records.highest_breakage_numbers(wiring.database, scope),
        night.findings,
        {old for old, new in moved.items() if old != new},
        night.stamp,
    )
    if not night.pulled:
        night.breakages = _without_closing(night.breakages, wiring, night)
    night.expected_lapses = expect_lapses(wiring, night)


def _without_closing(step: BreakageStep, wiring: Wiring, night: MerchantNight) -> BreakageStep:
    """Only a complete new snapshot closes a breakage; a stored one has said all that it can."""
    still_open = {key for key, _ in step.closed}
    kept = [one for one in records.open_breakages(wiring.database, night.merchant.scope) if one.key in still_open]
    return BreakageStep(opened=step.opened, closed=(), open=(*step.open, *kept))


def guards_since(policy: RelinkPolicy, stamp: RunStamp) -> date:
    """The first business date whose requests a guard may rest on, whatever has become of them."""
    hosted_days = -(-policy.hosted_interval_hours // 24) + 1
    return stamp.business_date - timedelta(days=max(policy.cooldown_days, hosted_days))


def plan_requests(wiring: Wiring, night: MerchantNight) -> None:
    """Decide every account's next step and the requests of this run (in memory)."""
    assert night.breakages is not None
    scope, stamp, work = night.merchant.scope, night.stamp, night.work
    policy = wiring.policy
    since = guards_since(policy, stamp)
    stored = _as_looked_at(records.all_requests_for_planning(wiring.database, scope, since), night.looked_at)
    agreed = None if work.agreed is None else work.agreed.get(scope.merchant, ())
    only = None if work.selection is None else _selected(wiring, night, work.selection)
    if agreed is not None:
        only = frozenset(request.authorization_id for request in agreed)
    if work.retries is not None:
        only = frozenset(work.retries.values())
    open_keys = {breakage.key for breakage in night.breakages.open}
    if work.unknowns_resolved_by is not None and only is not None:
        stored = _resolve_unknowns(night, stored, only, work.unknowns_resolved_by)
    night.contacts, night.only = stored, only
    matched = [*records.successors(wiring.database, scope), *night.successors]
    successors = moved_accounts(matched, night.twins)
    moved = {old: new for old, new in successors.items() if old != new}
    night.quiet = night.silence or wiring.why_quiet()
    inputs = PlanInputs(
        scope=scope,
        stamp=stamp,
        policy=policy,
        breakages=night.breakages.open,
        contacts=sum_up_contacts(
            stored, open_keys, stamp, tried_again=work.retries or (), offers_at=_moment_of_offers(wiring, night, stored)
        ),
        successors=moved,
        unmatched_accounts=unmatched_accounts([one for one in stored if one.request.breakage in open_keys], successors),
        held_authorizations=night.brakes.held_authorizations,
        only_authorizations=only,
        ignore_cooldown=work.ignore_cooldown,
        suppressed_ids=night.suppressed_ids,
        quiet=night.quiet,
        quiet_until=quiet_customers(night.findings, night.history, wiring.policy, stamp),
        eligible_dates=eligible_dates(night.breakages.open, stamp),
        twins_in_review=night.twins.in_review,
    )
    night.history = pd.DataFrame()
    night.findings, night.plan = plan(night.findings, inputs)
    if agreed is not None:
        _keep_to_agreed(night, agreed)
    if night.quiet is not None:
        waiting = sum(decision.detail.startswith(night.quiet) for decision in night.plan.decisions)
        logger.warning("%s: nobody is contacted; %d requests wait for the next run", night.quiet, waiting)
    if work.retries is not None:
        mine = records.requests_by_id(wiring.database, scope, work.retries)
        _list_those_left_out(night, {one.authorization_id for one in mine})


def _moment_of_offers(wiring: Wiring, night: MerchantNight, stored: Sequence[StoredRequest]) -> datetime:
    """When this is, for the age of offers that are `unknown`: by Stripe's clock where ours is ahead, which would renew them too early."""
    lost = any(one.state == State.UNKNOWN and one.resolved_at is None for one in stored)
    return min(night.stamp.as_of, server_now(wiring, night.merchant)) if lost else night.stamp.as_of


def _list_those_left_out(night: MerchantNight, authorizations: Iterable[str]) -> None:
    """Say of each authorization that was to be tried again and is not what stands against it."""
    asked = {request.authorization_id for request in night.plan.requests}
    for authorization_id in sorted(set(authorizations) - asked):
        night.skipped.append((authorization_id, _why_not(night, authorization_id)))


def _why_not(night: MerchantNight, authorization_id: str) -> str:
    for decision in night.plan.decisions:
        if decision.authorization_id == authorization_id:
            return f"{decision.next_step}: {decision.detail}".rstrip(": ")
    return "it needs no relink any more"


def _resolve_unknowns(
    night: MerchantNight, stored: Sequence[StoredRequest], only: frozenset[str], resolved_by: str
) -> list[StoredRequest]:
    """Let the selection's unknown requests stand in the way no more, since a person found out or takes it upon them."""
    decided = []
    for one in stored:
        if one.state == State.UNKNOWN and one.resolved_at is None and one.authorization_id in only:
            night.resolved_unknowns.append(one.request.request_id)
            one = replace(one, resolved_at=night.stamp.as_of, resolved_by=resolved_by)
        decided.append(one)
    return decided


def _selected(wiring: Wiring, night: MerchantNight, selection: Selection) -> frozenset[str]:
    """The authorizations a person means.

    Raises:
        SettingsError: a name is none that the snapshot has, so it may be a slip that would leave somebody out.
    """
    listed = night.findings.loc[flags(night.findings["in_stripe"]), list(FILE_COLUMNS)]
    unknown = selection.unknown_in(listed)
    if unknown and len(wiring.merchants) == 1:
        taken_at = night.taken_at.isoformat() if night.taken_at else "tonight"
        raise SettingsError(
            f"not among the accounts of the snapshot of {taken_at}: {', '.join(unknown[:20])}; check the spelling, or run `relink run` first"
        )
    night.unknown_names.extend(unknown)
    return selection.authorizations_in(listed)


def _as_looked_at(stored: Sequence[StoredRequest], looked_at: Sequence[StoredRequest]) -> list[StoredRequest]:
    """The stored requests, those that were looked at tonight as they stand now."""
    newest = {one.request.request_id: one for one in looked_at}
    return [newest.get(one.request.request_id, one) for one in stored]


def _keep_to_agreed(night: MerchantNight, agreed: Sequence[RelinkRequest]) -> None:
    """Keep only requests that are still what a person agreed to; list the others with what changed."""
    tonight = {request.authorization_id: request for request in night.plan.requests}
    kept: list[RelinkRequest] = []
    for before in agreed:
        now = tonight.get(before.authorization_id)
        if now is None:
            night.skipped.append((before.authorization_id, _why_not(night, before.authorization_id)))
        elif (changed := _changed(before, now)) is not None:
            night.skipped.append((before.authorization_id, changed))
        else:
            kept.append(now)
    dropped = {request.authorization_id for request in night.plan.requests} - {one.authorization_id for one in kept}
    night.plan = replace(night.plan, requests=tuple(kept))
    if dropped:
        changed_rows = night.findings["authorization_id"].isin(list(dropped)) & (
            night.findings["next_step"] == "request"
        )
        night.findings.loc[changed_rows.fillna(False).to_numpy(dtype=bool), "next_step"] = "capped"


def _changed(before: RelinkRequest, now: RelinkRequest) -> str | None:
    if before.holder != now.holder:
        return "its holder changed"
    if (before.breakage, before.attempt) != (now.breakage, now.attempt):
        return "another attempt was made meanwhile"
    if before.account_id != now.account_id or [one.account_id for one in before.covered] != [
        one.account_id for one in now.covered
    ]:
        return "its accounts changed"
    if before.delivery != now.delivery:
        return "the way in which its customer is asked changed"
    if before.permissions != now.permissions:
        return "the permissions to ask for changed"
    return None


def record_decisions(wiring: Wiring, night: MerchantNight) -> None:
    """Commit what tonight's snapshot and sessions showed, all together or not at all."""
    breakages = night.breakages
    assert breakages is not None
    database, scope, stamp = wiring.database, night.merchant.scope, night.stamp
    now = wiring.clock()
    reached = set(
        night.findings.loc[night.findings["next_step"].isin([str(step) for step in ELIGIBLE_STEPS]), "authorization_id"]
    )
    decided = decisions_of(night.findings, night.plan) if night.work.sends else set()
    # A command that only looks asks nobody, so that no ladder counts from its day.
    may_start = [one.key for one in breakages.open if one.eligible_at is None] if night.work.sends else []
    eligible = [key for key in may_start if key.authorization_id in reached]

    def work(connection: Any) -> None:
        # A run that slept and was taken over decided on what is no longer so.
        wiring.require_fence(connection)
        if night.new_snapshot is not None:
            records.record_snapshot(database, night.new_snapshot)
        if night.pulled:
            records.append_history(database, scope, stamp.run_id, night.history_changed)
        for one in night.found:
            records.record_found(
                database,
                one.stored.request.request_id,
                now,
                session_id=str(one.stored.session_id),
                resolved_by=str(one.stored.resolved_by),
            )
        records.add_foreign_sessions(database, scope, night.newly_foreign)
        if night.events_read_to is not None:
            records.mark_events_read(database, scope, night.events_read_to)
        records.append_outcomes(database, stamp.run_id, stamp.business_date, night.outcomes, stamp.as_of)
        records.add_session_checks(database, stamp.run_id, night.checked, stamp.as_of)
        records.add_successors(database, scope, stamp.run_id, night.successors, stamp.as_of)
        records.open_breakage(database, scope, *breakages.opened)
        for reason in sorted({reason for _, reason in breakages.closed}):
            ended = [key for key, why in breakages.closed if why == reason]
            records.close_breakage(database, scope, *ended, at=now, run_id=stamp.run_id, reason=reason)
        records.mark_eligible(database, scope, *eligible, at=now)
        if night.work.sends:
            records.record_changed_decisions(
                database, scope, stamp.run_id, stamp.business_date, stamp.as_of, decided, night.only
            )
        for request_id, resolved_by in _unknowns_that_ended(night):
            records.resolve_unknown(database, request_id, now, resolved_by=resolved_by, state=str(State.UNKNOWN))
        for request_id in night.resolved_unknowns:
            resolved_by = night.work.unknowns_resolved_by or stamp.command
            records.resolve_unknown(database, request_id, now, resolved_by=resolved_by, state=str(State.UNKNOWN))

    # `run` and not `begin`: done again from its beginning where the database asks for that.
    database.run(work)
    night.history_changed = pd.DataFrame()


def _unknowns_that_ended(night: MerchantNight) -> Iterator[tuple[str, str]]:
    """Unknown requests that nobody need look into any more: their outage is over, or another attempt takes their place."""
    assert night.breakages is not None
    over = {key for key, _ in night.breakages.closed}
    renewed = {request.breakage for request in night.plan.requests} if night.work.sends else set()
    for stored in night.contacts:
        if stored.state != State.UNKNOWN or stored.resolved_at is not None:
            continue
        if stored.request.breakage in over:
            yield stored.request.request_id, f"{OUTAGE_ENDED}, run {night.stamp.run_id}"
        elif stored.request.breakage in renewed:
            yield stored.request.request_id, f"renewed by run {night.stamp.run_id}"
