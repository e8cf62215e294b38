"""Accounts used for payments: each asked for alone, one after the other, and what a session for one of them may be narrowed to."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconcile.model import OutcomeKind, RelinkRequest
from reconcile.policy import RelinkPolicy
from reconcile.request import session_parameters
from tests.reconcile.nights import Memory, account, decide, expiring, inactive, number, row, send, stamp

NAMES = ("fca_1", "fca_2", "fca_3")


def paying(*names: str, **fields: object) -> list[object]:
    return [row(name, purpose="payments", **fields) for name in names]


def test_several_payments_accounts_are_asked_for_one_after_the_other_and_each_in_turn() -> None:
    """Nobody answers: without turns the most urgent account would use up the attempts of the others."""
    memory = Memory(RelinkPolicy(max_attempts=5, cooldown_days=2))
    rows = [
        row(name, purpose="payments", exposure_minor=money, currency="usd")
        for name, money in zip(NAMES, (5, 9, 7), strict=True)
    ]
    asked: list[RelinkRequest] = []
    for day in range(0, 14, 2):
        decided = decide([inactive(name) for name in NAMES], rows, memory, stamp(day))
        send(memory, decided.plan.requests, stamp(day), outcome=str(OutcomeKind.FAILED))
        asked += decided.plan.requests
        assert set(decided.steps().values()) == {"request" if day < 10 else "attempts_exhausted"}
    assert [one.account_id for one in asked] == ["fca_2", "fca_3", "fca_1", "fca_2", "fca_3"]
    assert [one.attempt for one in asked] == [1, 2, 3, 4, 5]
    assert {one.limit_accounts for one in asked} == {1}
    assert [[each.account_id for each in one.covered] for one in asked] == [[one.account_id] for one in asked]
    assert len({one.idempotency_key for one in asked}) == 5


def test_the_earliest_due_goes_first_and_what_is_cured_is_passed_over() -> None:
    memory = Memory(RelinkPolicy(cooldown_days=2))
    accounts = [expiring("fca_1", days=9), expiring("fca_2", days=3), expiring("fca_3", days=6)]
    decided = decide(accounts, paying(*NAMES), memory)
    (first,) = decided.plan.requests
    assert first.account_id == "fca_2"
    assert set(decided.steps().values()) == {"request"}, "decided for the authorization, so it stands on each account"
    send(memory, [first], stamp(), outcome=None)
    assert set(decide(accounts, paying(*NAMES), memory, stamp(1)).steps().values()) == {"open_session"}
    memory.requests[0] = replace(memory.requests[0], outcome=str(OutcomeKind.RELINKED))
    accounts[1] = account("fca_2")
    assert decide(accounts, paying(*NAMES), memory, stamp(1)).steps() == {
        "fca_1": "cooldown",
        "fca_2": "none",
        "fca_3": "cooldown",
    }
    (second,) = decide(accounts, paying(*NAMES), memory, stamp(2)).plan.requests
    assert (second.account_id, second.attempt, second.breakage) == ("fca_3", 2, first.breakage)


def test_an_exhausted_outage_does_not_stand_in_the_way_of_another_kind() -> None:
    """The connection's attempts are spent on one account; another one's dead number is an outage of its own."""
    memory = Memory(RelinkPolicy(max_attempts=1, cooldown_days=2))
    accounts = [inactive("fca_1"), account("fca_2", account_numbers=(number("expired"),))]
    (first,) = decide(accounts, paying("fca_1", "fca_2"), memory).plan.requests
    assert (first.account_id, first.breakage.kind) == ("fca_1", "connection")
    send(memory, [first], stamp(), outcome=str(OutcomeKind.FAILED))
    (second,) = decide(accounts, paying("fca_1", "fca_2"), memory, stamp(2)).plan.requests
    assert (second.account_id, second.breakage.kind, second.attempt) == ("fca_2", "account_number", 1)
    send(memory, [second], stamp(2), outcome=str(OutcomeKind.FAILED))
    assert set(decide(accounts, paying("fca_1", "fca_2"), memory, stamp(4)).steps().values()) == {"attempts_exhausted"}


def test_an_account_whose_reason_is_off_is_nobodys_turn() -> None:
    policy = RelinkPolicy(reasons=("expiring",))
    accounts = [inactive("fca_1"), expiring("fca_2")]
    decided = decide(accounts, paying("fca_1", "fca_2"), Memory(policy))
    assert [one.account_id for one in decided.plan.requests] == ["fca_2"]
    assert decided.steps() == {"fca_1": "reason_off", "fca_2": "request"}


def test_an_account_that_a_person_is_to_look_at_is_nobodys_turn() -> None:
    """Else its customer would be asked about it all the same, as the most urgent of the authorization."""
    policy = RelinkPolicy(causes_to_review=("access_denied",))
    rows = [row("fca_1", purpose="payments", exposure_minor=9, currency="usd"), *paying("fca_2")]
    decided = decide([inactive("fca_1", inactive_cause="access_denied"), inactive("fca_2")], rows, Memory(policy))
    assert [one.account_id for one in decided.plan.requests] == ["fca_2"]
    assert decided.steps() == {"fca_1": "review", "fca_2": "request"}


def test_an_account_whose_answer_could_not_be_matched_is_not_asked_about_again() -> None:
    memory = Memory(RelinkPolicy(cooldown_days=2))
    accounts = [inactive("fca_1"), inactive("fca_2")]
    for day, asked in ((0, "fca_1"), (2, "fca_2"), (4, "fca_2")):
        decided = decide(accounts, paying("fca_1", "fca_2"), memory, stamp(day))
        assert [one.account_id for one in decided.plan.requests] == [asked]
        send(memory, decided.plan.requests, stamp(day), outcome=str(OutcomeKind.FAILED))
        memory.unmatched = frozenset({"fca_1"})


def test_where_one_is_used_for_data_the_whole_authorization_is_asked_for() -> None:
    accounts = [inactive(name) for name in NAMES]
    (made,) = decide(accounts, [*paying("fca_1", "fca_2"), row("fca_3")]).plan.requests
    assert (made.account_id, made.limit_accounts, len(made.covered)) == (None, None, 3)


def body(policy: RelinkPolicy, *accounts: object, purpose: str = "payments") -> dict[str, object]:
    rows = [row(f"fca_{n}", purpose=purpose) for n in range(1, len(accounts) + 1)]
    (made,) = decide(accounts, rows, Memory(policy)).plan.requests
    return session_parameters(made, policy)


def test_any_eligible_account_names_none_and_still_asks_for_one() -> None:
    policy = RelinkPolicy(payments_account="any_eligible", require_payment_method_support="all")
    made = body(policy, inactive("fca_1"))
    assert made["relink_options"] == {"authorization": "fcauth_1"}
    assert made["limits"] == {"accounts": 1}
    assert made["filters"] == {"require_payment_method_support": "all"}


@pytest.mark.parametrize("purpose", ["payments", "data"])
def test_payment_method_support_is_required_of_payments_accounts_only(purpose: str) -> None:
    made = body(RelinkPolicy(require_payment_method_support="at_least_one"), inactive("fca_1"), purpose=purpose)
    assert made.get("filters") == (
        {"require_payment_method_support": "at_least_one"} if purpose == "payments" else None
    )


@pytest.mark.parametrize(
    ("subcategories", "sent"),
    [
        (("checking", "savings"), ["checking", "savings"]),
        (("savings", "savings"), ["savings"]),
        (("checking", "other"), None),
        (("checking", None), None),
    ],
)
def test_a_session_is_narrowed_to_the_covered_subcategories_where_stripe_can(
    subcategories: tuple[str | None, ...], sent: list[str] | None
) -> None:
    accounts = [inactive(f"fca_{n}", subcategory=kind) for n, kind in enumerate(subcategories, 1)]
    healthy = account("fca_9", subcategory="mortgage")
    policy = RelinkPolicy(narrow_to_subcategories=True)
    rows = [row(f"fca_{n}") for n in range(1, len(accounts) + 1)]
    (made,) = decide([*accounts, healthy], [*rows, row("fca_9")], Memory(policy)).plan.requests
    assert session_parameters(made, policy).get("filters") == (sent and {"account_subcategories": sent})
