"""When an outage begins and ends, and that each has its own number."""

from __future__ import annotations

import pytest

from reconcile.model import BreakageKey
from reconcile.records import AccountRecord
from tests.reconcile.nights import Memory, account, decide, expiring, inactive, number, row, stamp


def opened(memory: Memory, day: int, *accounts: AccountRecord, **cells: object) -> list[tuple[str, int]]:
    """Run a night on one authorization; the kind and number of each breakage that is open after it."""
    rows = [row(one.account_id, **cells) for one in accounts]  # type: ignore[arg-type]
    decided = decide(accounts, rows, memory, stamp(day))
    assert {one.key.authorization_id for one in decided.breakages.open} <= {"fcauth_1"}
    return sorted((one.key.kind, one.key.number) for one in decided.breakages.open)


def test_each_kind_has_its_own() -> None:
    memory = Memory()
    broken = [
        inactive("fca_1"),
        account("fca_2", permissions=()),
        account("fca_3", account_numbers=(number("expired"),)),
        expiring("fca_4"),
    ]
    rows = [
        row("fca_1"),
        row("fca_2", required_permissions=("balances",)),
        row("fca_3", purpose="payments"),
        row("fca_4"),
    ]
    step = decide(broken, rows, memory).breakages
    assert {one.key for one in step.opened} == {
        BreakageKey("fcauth_1", kind, 1) for kind in ("connection", "account_number", "permissions")
    }


def test_it_takes_in_later_accounts_and_the_change_from_expiring_to_inactive() -> None:
    memory = Memory()
    assert opened(memory, 0, expiring("fca_1"), account("fca_2")) == [("connection", 1)]
    assert opened(memory, 1, inactive("fca_1"), account("fca_2")) == [("connection", 1)]
    assert opened(memory, 2, account("fca_1"), inactive("fca_2")) == [("connection", 1)]
    assert opened(memory, 3, account("fca_1"), account("fca_2")) == []
    assert opened(memory, 4, inactive("fca_1"), account("fca_2")) == [("connection", 2)]


@pytest.mark.parametrize(
    "healthy",
    [account(), account(status="disconnected"), inactive(inactive_action="none"), expiring(days=40)],
)
def test_it_closes_when_none_is_affected(healthy: AccountRecord) -> None:
    memory = Memory()
    assert opened(memory, 0, inactive()) == [("connection", 1)]
    assert opened(memory, 1, healthy) == []
    assert opened(memory, 2, inactive()) == [("connection", 2)]


def test_it_closes_when_its_rows_are_closed_or_its_account_vanished() -> None:
    memory = Memory()
    opened(memory, 0, inactive())
    assert opened(memory, 1, inactive(), status="closed") == []
    assert opened(memory, 2, inactive()) == [("connection", 2)]
    assert opened(memory, 3) == []


def test_it_closes_when_it_was_replaced_and_does_not_open_again_for_the_old_account() -> None:
    memory = Memory()
    opened(memory, 0, inactive())
    memory.successors = {"fca_1": "fca_9"}
    assert opened(memory, 1, inactive()) == []
    assert opened(memory, 2, inactive()) == []
    # An account that nobody has replaced keeps it open, or opens another.
    assert opened(memory, 3, inactive(), inactive("fca_2")) == [("connection", 2)]


@pytest.mark.parametrize(
    "misfiled", [inactive(account_holder_id="cus_2"), inactive(inactive_action="wait"), account(status="frozen")]
)
def test_a_misfiled_or_unreadable_account_neither_opens_nor_closes(misfiled: AccountRecord) -> None:
    memory = Memory()
    assert opened(memory, 0, misfiled) == []
    assert opened(memory, 1, inactive()) == [("connection", 1)]
    assert opened(memory, 2, misfiled) == [("connection", 1)]
    assert opened(memory, 3, inactive()) == [("connection", 1)]


def test_a_row_that_is_missing_for_a_night_closes_nothing() -> None:
    memory = Memory()
    opened(memory, 0, inactive())
    decided = decide([inactive()], [row("fca_9")], memory, stamp(1))
    assert [one.key.number for one in decided.breakages.open] == [1]
    assert decided.cell("fca_1", "next_step") == "review"


def test_why_it_closed() -> None:
    accounts = [inactive(f"fca_{n}", f"fcauth_{n}", account_holder_id=f"cus_{n}") for n in range(3)]
    rows = [row(f"fca_{n}", f"cus_{n}") for n in range(3)]
    memory = Memory()
    decide(accounts, rows, memory)
    memory.successors = {"fca_0": "fca_9"}
    rows[1] = row("fca_1", "cus_1", status="closed")
    accounts[2] = account("fca_2", "fcauth_2", account_holder_id="cus_2")
    closed = decide(accounts, rows, memory, stamp(1)).breakages.closed
    assert {key.authorization_id: why for key, why in closed} == {
        "fcauth_0": "replaced",
        "fcauth_1": "ledger_closed",
        "fcauth_2": "cured",
    }
