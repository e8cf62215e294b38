"""Which finding an account gets, by example, and at the edges of its conditions."""

from __future__ import annotations

from typing import Any

import pytest

from reconcile.ledger import LedgerRow
from reconcile.policy import RelinkPolicy
from reconcile.records import AccountRecord
from tests.reconcile.nights import FIRST_NIGHT, Memory, account, decide, expiring, inactive, number, row, stamp


def finding(one: AccountRecord | None, other: LedgerRow | None, **policy: Any) -> tuple[str, str]:
    """The finding and the others that hold besides, of one account beside a healthy one."""
    accounts = [account("fca_z", "fcauth_z", account_holder_id="cus_z")] + ([] if one is None else [one])
    rows = [row("fca_z", "cus_z")] + ([] if other is None else [other])
    decided = decide(accounts, rows, Memory(RelinkPolicy(**policy)))
    return decided.cell("fca_1", "finding"), decided.cell("fca_1", "also")


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (account(), ("ok", "")),
        (account(status="frozen"), ("unreadable", "")),
        (inactive(inactive_action=None), ("unreadable", "")),
        (inactive(inactive_action="call_bank"), ("unreadable", "")),
        (account(active_action="verify"), ("unreadable", "")),
        (account(active_action="none"), ("ok", "")),
        (account(authorization_id=None), ("unreadable", "")),
        (account(account_holder_id=None, holder_type=None), ("unreadable", "")),
        (inactive(holder_type="organisation"), ("unreadable", "inactive")),
        (inactive(authorization_id=None), ("unreadable", "inactive")),
        (account(account_holder_id="cus_2"), ("holder_mismatch", "")),
        (inactive(account_holder_id="cus_2"), ("holder_mismatch", "inactive")),
        (account(status="frozen", account_holder_id="cus_2"), ("unreadable", "holder_mismatch")),
        (account(status="disconnected"), ("disconnected", "")),
        (account(status="disconnected", authorization_id=None), ("disconnected", "")),
        (account(status="disconnected", active_action="verify"), ("disconnected", "")),
        (account(status="disconnected", account_holder_id="cus_2"), ("holder_mismatch", "disconnected")),
        (inactive(inactive_action="none"), ("inactive_permanent", "")),
        (inactive(), ("inactive", "")),
        (expiring(), ("expiring", "")),
    ],
)
def test_what_stripe_says_decides(one: AccountRecord, expected: tuple[str, str]) -> None:
    assert finding(one, row()) == expected


def test_one_side_only() -> None:
    assert finding(None, row()) == ("not_in_stripe", "")
    assert finding(account(), None) == ("not_in_ledger", "")
    assert finding(inactive(), None) == ("not_in_ledger", "inactive")
    assert finding(account(status="frozen"), None) == ("not_in_ledger", "")  # unreadable needs both sides


@pytest.mark.parametrize(
    ("days", "is_due"),
    [(None, True), (-3, True), (0, True), (13, True), (14, True), (14.8, True), (14.9, False), (15, False)],
)
def test_expiring_at_the_end_of_the_window(days: float | None, is_due: bool) -> None:
    """The first night is at 03:30, so 14.8 days on is still business date 14, and 14.9 is the next."""
    assert finding(expiring(days=days), row()) == (("expiring", "") if is_due else ("ok", ""))


def test_a_date_alone_is_no_warning() -> None:
    assert finding(account(expected_deactivation_at=FIRST_NIGHT), row()) == ("ok", "")


@pytest.mark.parametrize(
    ("numbers", "is_dead"),
    [
        ((), False),
        ((number("transactable", identifier_type="account_number"),), False),
        ((number("deactivated", identifier_type="account_number"),), False),
        ((number("transactable"),), False),
        ((number("pending"),), False),
        ((number("expired"),), True),
        ((number("deactivated", 90),), True),
        ((number("transactable", 14),), True),
        ((number("transactable", 15),), False),
        ((number("pending", 14),), True),
        ((number("expired"), number("pending", 40)), False),
        ((number("transactable", identifier_type="account_number"), number("expired")), True),
    ],
)
def test_account_number_counts_tokenized_numbers_of_payments_only(numbers: Any, is_dead: bool) -> None:
    one = account(account_numbers=numbers)
    assert finding(one, row(purpose="payments")) == (("account_number", "") if is_dead else ("ok", ""))
    assert finding(one, row(purpose="data")) == ("ok", "")


def test_permissions_that_are_needed_and_not_granted() -> None:
    needed = ("balances", "ownership", "payment_method")
    assert finding(account(), row(required_permissions=needed)) == ("permissions", "")
    assert finding(account(), row(required_permissions=("balances",))) == ("ok", "")
    assert finding(account(permissions=None), row(required_permissions=("balances",))) == ("permissions", "")
    decided = decide([account()], [row(required_permissions=needed)])
    assert decided.cell("fca_1", "missing_permissions") == "ownership;payment_method"


def test_everything_that_holds_is_told_in_the_order_of_the_list() -> None:
    one = expiring(account_numbers=(number("expired"),))
    paying = row(purpose="payments", required_permissions=("ownership",))
    assert finding(one, paying) == ("account_number", "expiring;permissions")
    one = inactive(account_numbers=(number("expired"),), account_holder_id="cus_2")
    assert finding(one, paying) == ("holder_mismatch", "inactive;account_number;permissions")


def test_sharing_counts_accounts_in_stripe_and_those_affected_by_their_finding() -> None:
    accounts = [
        inactive("fca_1"),
        inactive("fca_2"),  # not in the ledger
        account("fca_3"),
        inactive("fca_4", account_holder_id="cus_2"),  # holder mismatch
        inactive("fca_5", "fcauth_2"),
        account("fca_6", None),
    ]
    rows = [row("fca_1"), row("fca_3"), row("fca_4"), row("fca_5"), row("fca_6"), row("fca_7")]
    decided = decide(accounts, rows)
    counts = {
        name: (decided.cell(name, "shared_accounts"), decided.cell(name, "shared_affected"))
        for name in decided.findings["account_id"]
    }
    assert counts == {
        **dict.fromkeys(("fca_1", "fca_2", "fca_3", "fca_4"), (4, 1)),
        "fca_5": (1, 1),
        "fca_6": (None, None),
        "fca_7": (None, None),
    }


@pytest.mark.parametrize("timezone", ["UTC", "America/New_York", "Pacific/Auckland", "Australia/Lord_Howe"])
def test_days_are_counted_between_business_dates(timezone: str) -> None:
    run = stamp(timezone=timezone)
    decided = decide(
        [expiring(days=days / 4, account_id=f"fca_{days}") for days in range(-8, 9)], [row("fca_0")], run=run
    )
    for days in range(-8, 9):
        due = expiring(days=days / 4).expected_deactivation_at
        assert due is not None
        expected = (run.date_of(due) - run.business_date).days
        assert decided.cell(f"fca_{days}", "days_to_deactivation") == expected
        assert decided.cell(f"fca_{days}", "expected_deactivation_date") == run.date_of(due)
