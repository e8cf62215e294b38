"""Told from the recorded decisions: from which night on somebody was or was not to be asked, and why."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from jobs.adapters import records
from jobs.adapters.database import Database
from jobs.event_line import Event
from reconcile.model import NextStep, Scope

_TOLD = {
    NextStep.LEDGER_CLOSED: "nobody is asked, since the ledger has closed it",
    NextStep.REPLACED: "nobody is asked, since it lives on under another account that the ledger does not name yet",
    NextStep.NOT_RELINKABLE: "nobody is asked, since a relink cannot mend it",
    NextStep.REVIEW: "nobody is asked before a person has looked at it",
    NextStep.DO_NOT_CONTACT: "nobody is asked, since the ledger says not to contact this customer",
    NextStep.REASON_OFF: "nobody is asked, since the settings turn this reason off",
    NextStep.OPEN_SESSION: "the customer is not asked again while a session is open",
    NextStep.ATTEMPTS_EXHAUSTED: "the customer is not asked again, since all attempts are spent",
    NextStep.COOLDOWN: "the customer is not asked yet, since it is too soon",
    NextStep.HELD_BY_BRAKE: "the customer is not asked, since a brake holds the request",
    NextStep.CAPPED: "the customer's turn has not come",
    NextStep.REQUEST: "the customer is to be asked",
}


def decision_events(
    database: Database, scope: Scope, authorization_ids: Collection[str], account_ids: Collection[str] | None
) -> Iterator[Event]:
    """An event for each decision about some authorizations, and for its end where none follows.

    Args:
        account_ids: tell of single accounts only of these; None for all.
    """
    about = records.decisions_about(database, scope, authorization_ids, account_ids or ())
    found = [
        one
        for one in about
        if not one.decision.account_id or account_ids is None or one.decision.account_id in account_ids
    ]
    begun = {(one.decision.authorization_id, one.decision.account_id, one.decided_at) for one in found}
    for one in found:
        said = one.decision
        ids = {"authorization_id": said.authorization_id or None, "account_id": said.account_id or None}
        whose = said.account_id or said.authorization_id
        detail = f" ({said.detail})" if said.detail else ""
        what = f"{said.finding.replace('_', ' ')}, {_told(said.next_step)}{detail}"
        if said.next_step == NextStep.HELD_BY_BRAKE:
            what = f"{said.finding.replace('_', ' ')}, {_told(said.next_step)}{_plans(database, scope, one)}"
        text = f"from business date {one.since_date} on, {whose}: {what}"
        yield Event(one.decided_at, scope.merchant, "decided", text, one.run_id, **ids)
        if one.ended_at is not None and (said.authorization_id, said.account_id, one.ended_at) not in begun:
            text = f"from business date {one.until_date} on, {whose}: nothing is to be decided any more"
            yield Event(one.ended_at, scope.merchant, "decided", text, None, **ids)


def _told(step: str) -> str:
    return _TOLD.get(NextStep(step), step.replace("_", " ")) if step in set(NextStep) else step.replace("_", " ")


def _plans(database: Database, scope: Scope, one: records.StoredDecision) -> str:
    """Which plans held the request, and what became of them."""
    plans = records.plans_holding(database, scope, one.decision.authorization_id, one.decided_at, one.ended_at)
    return "".join(f"; {_plan(plan)}" for plan in _first_and_last(plans))


def _plan(plan: records.HeldPlan) -> str:
    became = f"released to run {plan.released_by_run}" if plan.released_by_run else "not released"
    return f"plan {plan.plan_hash} of run {plan.run_id} holds it, {became}"


def _first_and_last(plans: Sequence[records.HeldPlan]) -> Sequence[records.HeldPlan]:
    # One a night: the first tells when it began, the last what became of it.
    return plans if len(plans) <= 2 else (plans[0], plans[-1])
