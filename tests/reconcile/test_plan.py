"""What is done about each account, by example: every next step, its place in the order, and what a request asks."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from reconcile.model import Holder, OutcomeKind, State
from reconcile.policy import RelinkPolicy
from tests.reconcile.nights import (
    FIRST_NIGHT,
    Memory,
    account,
    answered,
    decide,
    expiring,
    inactive,
    number,
    row,
    send,
    stamp,
)


def asked_on_day_0(**policy: Any) -> Memory:
    """A memory in which the only broken account was asked about on the first night."""
    memory = Memory(RelinkPolicy(**policy))
    send(memory, decide([inactive()], [row()], memory).plan.requests, stamp())
    return memory


def step(memory: Memory | None = None, day: int = 0, **inputs: Any) -> str:
    """The step of one inactive account."""
    return decide([inactive()], [row()], memory, stamp(day), **inputs).steps()["fca_1"]


def test_each_step_that_an_accounts_own_facts_decide() -> None:
    accounts = [
        account("fca_ok", "fcauth_ok"),
        inactive("fca_closed", "fcauth_closed"),
        account("fca_gone", "fcauth_gone", status="disconnected"),
        inactive("fca_dead", "fcauth_dead", inactive_action="none"),
        inactive("fca_odd", "fcauth_odd", inactive_action="wait"),
        inactive("fca_unledgered", "fcauth_unledgered"),
        inactive("fca_moved", "fcauth_moved", account_holder_id="cus_2"),
        inactive("fca_quiet", "fcauth_quiet", account_holder_id="cus_quiet"),
        inactive("fca_asked", "fcauth_asked", account_holder_id="cus_3"),
    ]
    rows = [
        row("fca_ok"),
        row("fca_closed", status="closed"),
        row("fca_gone"),
        row("fca_dead"),
        row("fca_odd"),
        row("fca_moved"),
        row("fca_quiet", "cus_quiet"),
        row("fca_elsewhere", "cus_quiet", status="closed", do_not_contact=True),
        row("fca_missing"),
        row("fca_asked", "cus_3"),
    ]
    assert decide(accounts, rows).steps() == {
        "fca_ok": "none",
        "fca_closed": "ledger_closed",
        "fca_elsewhere": "ledger_closed",
        "fca_gone": "not_relinkable",
        "fca_dead": "not_relinkable",
        "fca_missing": "not_relinkable",
        "fca_odd": "review",
        "fca_unledgered": "review",
        "fca_moved": "review",
        "fca_quiet": "do_not_contact",
        "fca_asked": "request",
    }


@pytest.mark.parametrize(
    ("closed", "successor", "status", "silent", "cause_reviewed", "expected"),
    [
        (True, True, "disconnected", True, True, "ledger_closed"),
        (False, True, "disconnected", True, True, "replaced"),
        (False, True, "inactive", False, False, "replaced"),
        (False, False, "disconnected", True, True, "not_relinkable"),
        (False, False, "inactive", True, True, "do_not_contact"),
        (False, False, "inactive", False, True, "review"),
        (False, False, "inactive", False, False, "request"),
    ],
)
def test_the_first_step_that_holds(
    closed: bool, successor: bool, status: str, silent: bool, cause_reviewed: bool, expected: str
) -> None:
    memory = Memory(RelinkPolicy(causes_to_review=("access_expired",) if cause_reviewed else ()))
    memory.successors = {"fca_1": "fca_2"} if successor else {}
    ledger = [row(status="closed" if closed else "open", do_not_contact=silent)]
    assert decide([inactive(status=status)], ledger, memory).steps() == {"fca_1": expected}


def test_disputed_holder_is_reviewed_before_anything_is_asked() -> None:
    accounts = [inactive("fca_1"), account("fca_2", account_holder_id="cus_2")]
    decided = decide(accounts, [row("fca_1"), row("fca_2", "cus_2")])
    assert decided.steps() == {"fca_1": "review", "fca_2": "none"}
    kinds = [inactive("fca_1"), account("fca_2", holder_type="customer_account")]
    assert decide(kinds, [row("fca_1"), row("fca_2")]).steps()["fca_1"] == "review"


def test_reason_off_leaves_the_other_reasons_on() -> None:
    policy = RelinkPolicy(reasons=("inactive",))
    accounts = [inactive("fca_1", "fcauth_1"), expiring("fca_2", "fcauth_2", account_holder_id="cus_2")]
    decided = decide(accounts, [row("fca_1"), row("fca_2", "cus_2")], Memory(policy))
    assert decided.steps() == {"fca_1": "request", "fca_2": "reason_off"}


def test_open_session_stands_before_attempts_cooldown_brake_and_caps() -> None:
    memory = asked_on_day_0(max_attempts=1, max_requests_per_run=0)
    send(memory, decide([inactive()], [row()], Memory()).plan.requests, stamp())
    assert step(memory, 1, held_authorizations={"fcauth_1"}) == "open_session"


def test_attempts_exhausted_stands_before_cooldown() -> None:
    memory = asked_on_day_0(max_attempts=1)
    answered(memory, OutcomeKind.FAILED)
    assert step(memory, 1) == "attempts_exhausted"
    assert step(memory, 30) == "attempts_exhausted"


def test_cooldown_ends_on_its_day_and_the_next_attempt_has_the_next_number() -> None:
    memory = asked_on_day_0(cooldown_days=4)
    answered(memory, OutcomeKind.CANCELLED)
    assert [step(memory, day) for day in (1, 2, 3, 4)] == ["cooldown", "cooldown", "cooldown", "request"]
    made = decide([inactive()], [row()], memory, stamp(4)).plan.requests[0]
    assert (made.attempt, made.breakage) == (2, memory.requests[0].request.breakage)
    assert made.idempotency_key != memory.requests[0].request.idempotency_key


def test_cooldown_counts_business_dates_and_not_hours() -> None:
    memory = Memory(RelinkPolicy(cooldown_days=2), timezone="America/New_York")
    late = stamp(timezone="America/New_York", at=FIRST_NIGHT.replace(hour=4, minute=59))  # 23:59 of the day before
    send(memory, decide([inactive()], [row()], memory, late).plan.requests, late)
    answered(memory, OutcomeKind.FAILED)
    soon = stamp(timezone="America/New_York", at=late.as_of + timedelta(hours=24, minutes=2))
    assert (soon.business_date - late.business_date).days == 2
    assert decide([inactive()], [row()], memory, soon).steps()["fca_1"] == "request"


def test_cooldown_holds_for_the_customer_and_not_for_another_of_the_same_id() -> None:
    memory = asked_on_day_0()
    answered(memory, OutcomeKind.FAILED)
    others = [
        inactive("fca_1", "fcauth_1"),
        inactive("fca_2", "fcauth_2"),
        inactive("fca_3", "fcauth_3", holder_type="customer_account"),
    ]
    decided = decide(others, [row("fca_1"), row("fca_2"), row("fca_3")], memory, stamp(2))
    assert decided.steps() == {"fca_1": "cooldown", "fca_2": "cooldown", "fca_3": "request"}
    assert decide(others, [row("fca_2")], memory, stamp(2), ignore_cooldown=True).steps()["fca_2"] == "request"


def test_an_unknown_request_is_left_to_a_person_unless_it_was_an_offer_of_yesterday() -> None:
    for delivery, hours, expected in (
        ("hosted_email", 23, "review"),
        ("hosted_email", 24 * 9, "review"),
        ("modal", 23, "review"),
        ("modal", 24, "request"),
    ):
        memory = Memory(RelinkPolicy(delivery=delivery))
        first = decide([inactive()], [row()], memory).plan.requests
        send(memory, first, stamp(), state=str(State.UNKNOWN), offered_at=None)
        memory.requests[0] = replace(memory.requests[0], session_id=None)
        later = stamp(1, at=FIRST_NIGHT + timedelta(hours=hours))
        decided = decide([inactive()], [row()], memory, later)
        assert decided.steps()["fca_1"] == expected, (delivery, hours)


def test_what_was_not_sent_neither_counts_nor_cools() -> None:
    memory = asked_on_day_0(max_attempts=1)
    memory.requests[0] = replace(memory.requests[0], state=str(State.NOT_SENT), offered_at=None, session_id=None)
    assert step(memory, 0) == "request"


def test_an_offer_that_healed_untaken_was_no_contact_but_one_that_was_handed_over_is() -> None:
    for offered, expected in ((False, "request"), (True, "cooldown")):
        memory = asked_on_day_0()
        memory.requests[0] = replace(
            memory.requests[0], outcome=str(OutcomeKind.HEALED), offered_at=FIRST_NIGHT if offered else None
        )
        assert step(memory, 1) == expected


def test_a_late_handing_over_starts_the_cooldown() -> None:
    memory = asked_on_day_0(cooldown_days=4)
    memory.requests[0] = replace(
        memory.requests[0], outcome=str(OutcomeKind.FAILED), offered_at=FIRST_NIGHT + timedelta(days=3)
    )
    assert [step(memory, day) for day in (4, 6, 7)] == ["cooldown", "cooldown", "request"]


def test_a_brake_stands_before_a_cap_and_leaves_the_cap_to_others() -> None:
    accounts = [inactive(f"fca_{n}", f"fcauth_{n}", account_holder_id=f"cus_{n}") for n in range(3)]
    rows = [row(f"fca_{n}", f"cus_{n}") for n in range(3)]
    memory = Memory(RelinkPolicy(max_requests_per_run=1))
    decided = decide(accounts, rows, memory, held_authorizations={"fcauth_0"})
    assert decided.steps() == {"fca_0": "held_by_brake", "fca_1": "request", "fca_2": "capped"}


def test_caps_count_what_was_asked_earlier_on_the_same_business_date() -> None:
    memory = asked_on_day_0(max_requests_per_run=2)
    accounts = [inactive(f"fca_{n}", f"fcauth_{n}", account_holder_id=f"cus_{n}") for n in range(1, 5)]
    rows = [row(f"fca_{n}", f"cus_{n}") for n in range(1, 5)]
    assert list(decide(accounts, rows, memory).steps().values()) == ["open_session", "request", "capped", "capped"]
    assert list(decide(accounts, rows, memory, stamp(1)).steps().values()) == [
        "open_session",
        "request",
        "request",
        "capped",
    ]


def test_cap_per_institution() -> None:
    banks = ["One", "One", "Two", "One"]
    accounts = [
        inactive(f"fca_{n}", f"fcauth_{n}", account_holder_id=f"cus_{n}", institution_name=bank)
        for n, bank in enumerate(banks)
    ]
    rows = [row(f"fca_{n}", f"cus_{n}") for n in range(4)]
    decided = decide(accounts, rows, Memory(RelinkPolicy(max_requests_per_institution=1)))
    assert list(decided.steps().values()) == ["request", "capped", "request", "capped"]


def test_one_request_a_customer_and_the_more_urgent_one() -> None:
    accounts = [expiring("fca_1", "fcauth_1", days=9), expiring("fca_2", "fcauth_2", days=8)]
    decided = decide(accounts, [row("fca_1"), row("fca_2")])
    assert decided.steps() == {"fca_1": "cooldown", "fca_2": "request"}


def test_who_goes_first() -> None:
    money: dict[str, tuple[int | None, str | None]] = {
        "b": (5, "eur"),
        "c": (900, "gbp"),
        "d": (7, "eur"),
        "e": (None, None),
        "f": (5, "eur"),
        "g": (10**9, "usd"),
    }
    accounts = [inactive(f"fca_{n}", f"fcauth_{n}", account_holder_id=f"cus_{n}") for n in money]
    accounts += [
        expiring("fca_a", "fcauth_a", days=1, account_holder_id="cus_a"),
        expiring("fca_h", "fcauth_h", days=-2, account_holder_id="cus_h"),
        account("fca_i", "fcauth_i", account_holder_id="cus_i"),
        expiring("fca_j", "fcauth_j", days=None, account_holder_id="cus_j"),
    ]
    rows = [
        row(f"fca_{n}", f"cus_{n}", exposure_minor=amount, currency=currency) for n, (amount, currency) in money.items()
    ]
    rows += [row(f"fca_{n}", f"cus_{n}") for n in "ahj"] + [row("fca_i", "cus_i", required_permissions=("ownership",))]
    asked = decide(accounts, rows).asked
    assert [name.removeprefix("fcauth_") for name in asked] == ["h", "d", "b", "f", "c", "g", "e", "a", "i", "j"]


def test_permissions_are_the_union_over_open_rows_and_a_grant_only_stands_in_for_an_empty_cell() -> None:
    accounts = [
        inactive("fca_1", permissions=("balances", "transactions")),
        account("fca_2", permissions=("ownership", "payment_method")),
        account("fca_3", permissions=("transactions",)),
        account("fca_4", permissions=("balances", "transactions")),
        account("fca_5", permissions=("transactions",)),
    ]
    rows = [
        row("fca_1", required_permissions=("balances",)),
        row("fca_2"),  # empty: what it grants
        row("fca_3", required_permissions=("transactions",), status="closed"),
        row("fca_4", required_permissions=("balances",)),  # healthy, asks for less than it grants
    ]
    (made,) = decide(accounts, rows).plan.requests
    assert made.permissions == ("balances", "ownership", "payment_method")
    assert made.widens
    assert [one.account_id for one in made.covered] == ["fca_1"]


@pytest.mark.parametrize(
    ("granted", "required", "is_widened"),
    [
        (("balances", "transactions"), None, False),
        (("balances",), ("transactions",), False),
        (("balances",), ("balances",), True),
        ((), None, True),
    ],
)
def test_widening_is_more_than_a_sibling_grants_and_needs(granted: Any, required: Any, is_widened: bool) -> None:
    accounts = [inactive("fca_1"), account("fca_2", permissions=granted)]
    rows = [
        row("fca_1", required_permissions=("balances", "transactions")),
        row("fca_2", required_permissions=required),
    ]
    (made,) = decide(accounts, rows).plan.requests
    assert made.widens is is_widened
    strict = decide(accounts, rows, Memory(RelinkPolicy(allow_widening=False)))
    assert strict.steps()["fca_1"] == ("review" if is_widened else "request")


def test_payments_with_one_covered_account_asks_for_it_alone() -> None:
    dead = {"account_numbers": (number("expired"),)}
    accounts = [account("fca_1", **dead), account("fca_2", **dead)]
    paying, other = row("fca_1", purpose="payments"), row("fca_2")
    (alone,) = decide(accounts, [paying, other]).plan.requests
    assert (alone.account_id, alone.limit_accounts, alone.reason) == ("fca_1", 1, "account_number")
    mixed = [inactive("fca_1"), inactive("fca_2")]
    (both,) = decide(mixed, [paying, other]).plan.requests
    assert (both.account_id, both.limit_accounts, len(both.covered)) == (None, None, 2)
    (data,) = decide([inactive()], [row()]).plan.requests
    assert (data.account_id, data.limit_accounts) == (None, None)


def test_the_request_carries_the_holder_as_the_accounts_do_and_the_first_finding_as_its_reason() -> None:
    accounts = [
        expiring("fca_1", holder_type="customer_account", account_holder_id="acct_9"),
        inactive("fca_2", holder_type="customer_account", account_holder_id="acct_9"),
    ]
    (made,) = decide(accounts, [row("fca_1", "acct_9"), row("fca_2", "acct_9")]).plan.requests
    assert made.holder == Holder("customer_account", "acct_9")
    assert (made.reason, made.breakage.kind) == ("inactive", "connection")
    assert [(one.account_id, one.finding) for one in made.covered] == [("fca_1", "expiring"), ("fca_2", "inactive")]


def test_an_unmatched_account_is_reviewed() -> None:
    memory = Memory()
    memory.unmatched = frozenset({"fca_1"})
    assert step(memory) == "review"


def test_a_replaced_account_stays_so_while_its_own_row_is_open_and_is_reviewed_once_only_the_successor_is_named() -> (
    None
):
    memory = Memory()
    memory.successors = {"fca_1": "fca_2"}
    accounts = [inactive("fca_1"), account("fca_2", "fcauth_2")]
    assert decide(accounts, [row("fca_1")], memory).steps()["fca_1"] == "replaced"
    assert decide(accounts, [row("fca_1"), row("fca_2")], memory).steps() == {"fca_1": "replaced", "fca_2": "none"}
    assert decide(accounts, [row("fca_2")], memory).steps() == {"fca_1": "review", "fca_2": "none"}
    closed = [row("fca_1", status="closed"), row("fca_2")]
    assert decide(accounts, closed, memory).steps() == {"fca_1": "ledger_closed", "fca_2": "none"}


def test_a_replaced_account_is_no_longer_covered_by_its_siblings_request() -> None:
    memory = Memory()
    memory.successors = {"fca_1": "fca_9"}
    (made,) = decide([inactive("fca_1"), inactive("fca_2")], [row("fca_1"), row("fca_2")], memory).plan.requests
    assert [one.account_id for one in made.covered] == ["fca_2"]
