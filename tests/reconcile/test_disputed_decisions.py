"""Decisions whose rule can be read in two ways; each is asserted as the product reads it, and says why."""

from __future__ import annotations

from dataclasses import replace

from reconcile.model import OutcomeKind
from reconcile.policy import RelinkPolicy
from tests.reconcile.nights import Memory, account, decide, inactive, row, send, stamp


def test_an_offer_that_was_left_pending_is_an_attempt() -> None:
    """Whether the customer saw it cannot be known here, so an offer that ran out counts: nobody is asked without end."""
    memory = Memory(RelinkPolicy(max_attempts=1))
    made = decide([inactive()], [row()], memory).plan.requests
    send(memory, made, stamp(), offered_at=None, session_status="pending")
    memory.requests[0] = replace(memory.requests[0], outcome=str(OutcomeKind.EXPIRED))
    assert decide([inactive()], [row()], memory, stamp(8)).steps()["fca_1"] == "attempts_exhausted"
    memory.policy = RelinkPolicy(max_attempts=2)
    assert decide([inactive()], [row()], memory, stamp(8)).steps()["fca_1"] == "request"


def test_an_offer_that_is_still_pending_is_a_contact_of_its_customer() -> None:
    """It may be in front of the customer now: a second bank of the same customer waits out the cooldown."""
    memory = Memory()
    send(memory, decide([inactive()], [row()], memory).plan.requests, stamp(), offered_at=None)
    accounts = [inactive(), inactive("fca_2", "fcauth_2")]
    decided = decide(accounts, [row(), row("fca_2")], memory, stamp(1))
    assert decided.steps() == {"fca_1": "open_session", "fca_2": "cooldown"}


def test_the_reason_is_the_first_covered_finding() -> None:
    """Covered are the affected, open, contactable accounts, whatever cause is reviewed on one of them."""
    memory = Memory(RelinkPolicy(causes_to_review=("access_denied",)))
    accounts = [inactive("fca_1", inactive_cause="access_denied"), account("fca_2", permissions=())]
    rows = [row("fca_1"), row("fca_2", required_permissions=("balances",))]
    (made,) = decide(accounts, rows, memory).plan.requests
    assert [(one.account_id, one.finding) for one in made.covered] == [("fca_1", "inactive"), ("fca_2", "permissions")]
    assert made.reason == "inactive"


def test_only_a_request_is_reviewed_for_widening() -> None:
    """`allow_widening` false: a request that asks more is `review`; where the reason is off there is no request."""
    memory = Memory(RelinkPolicy(allow_widening=False, reasons=("inactive",)))
    accounts = [account("fca_1", permissions=()), account("fca_2", permissions=())]
    rows = [row("fca_1", required_permissions=("balances",)), row("fca_2")]
    assert decide(accounts, rows, memory).steps()["fca_1"] == "reason_off"


def test_a_closed_row_needs_nothing() -> None:
    """`widens`: whether a sibling is asked for more than it grants and needs; closed accounts add nothing."""
    accounts = [inactive("fca_1"), account("fca_2", permissions=())]
    needs = ("balances", "transactions")
    rows = [row("fca_1", required_permissions=needs), row("fca_2", required_permissions=needs, status="closed")]
    (made,) = decide(accounts, rows).plan.requests
    assert made.widens
