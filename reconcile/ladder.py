"""The escalation ladder: on which day of an outage each attempt is due, and how long each one waits for its answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, timedelta

from reconcile.contacts import session_date
from reconcile.model import Breakage, BreakageKey, NextStep, RunStamp, StoredRequest
from reconcile.policy import RelinkPolicy

MINIMUM_DAYS = 2
"""Business dates between two contacts of one customer, whatever the ladder says."""

ELIGIBLE_STEPS = (NextStep.OPEN_SESSION, NextStep.ATTEMPTS_EXHAUSTED, NextStep.COOLDOWN, NextStep.REQUEST)
"""Steps from which an outage's days are counted: nothing but the ladder itself, an open session or another contact of the customer stands
in the way then, no brake, cap or quiet time."""


def eligible_dates(breakages: Iterable[Breakage], stamp: RunStamp) -> dict[BreakageKey, date]:
    """Since which business date each breakage could be asked about; those that never could are left out."""
    return {one.key: stamp.date_of(one.eligible_at) for one in breakages if one.eligible_at is not None}


def most_attempts(policy: RelinkPolicy) -> int:
    """How many attempts an outage gets before it is a person's: the ladder's steps, never more than `max_attempts`."""
    if policy.ladder_days is None:
        return policy.max_attempts
    return min(policy.max_attempts, len(policy.ladder_days))


def contact_gap_days(policy: RelinkPolicy) -> int:
    """Business dates between two contacts of one customer: the cooldown, or under a ladder the least that is allowed."""
    return policy.cooldown_days if policy.ladder_days is None else MINIMUM_DAYS


def step_due(policy: RelinkPolicy, attempts: int, eligible: date) -> date | None:
    """When the step after so many attempts is due, counted from the business date on which the outage became eligible.

    None without a ladder, and after its last step.
    """
    if policy.ladder_days is None or attempts >= len(policy.ladder_days):
        return None
    return eligible + timedelta(days=policy.ladder_days[attempts])


def answer_until(
    stored: StoredRequest, policy: RelinkPolicy, stamp: RunStamp, eligible_dates: Mapping[BreakageKey, date]
) -> date:
    """The last business date on which a request's answer is waited for; after it an unanswered one is `expired`.

    Under a ladder it is the day before the next step, which would otherwise find the session of the step before still open; after the
    last step it is `pending_days`, as without a ladder. Both count from the day on which the session was asked for.
    """
    asked_on = session_date(stored, stamp)
    last = asked_on + timedelta(days=policy.pending_days)
    if policy.ladder_days is None or stored.request.attempt >= len(policy.ladder_days):
        return last
    began = asked_on - timedelta(days=policy.ladder_days[stored.request.attempt - 1])
    due = step_due(policy, stored.request.attempt, eligible_dates.get(stored.request.breakage, began))
    if due is None:
        return last
    return max(due, asked_on + timedelta(days=MINIMUM_DAYS)) - timedelta(days=1)
