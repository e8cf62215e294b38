"""Quiet times, customers who withdrew, and ids that are never contacted."""

from __future__ import annotations

from datetime import datetime, time, timedelta

import pytest

from reconcile.errors import LedgerError
from reconcile.lists import suppressed_by_merchant
from reconcile.policy import QuietTimes, RelinkPolicy
from reconcile.quiet import quiet_customers
from tests.reconcile.nights import Decided, Memory, account, decide, inactive, row, stamp

NIGHT = QuietTimes(hours=(time(20), time(8)))


@pytest.mark.parametrize(
    ("times", "local", "quiet"),
    [
        (QuietTimes(weekdays=("saturday", "sunday")), "2026-11-07T12:00", "quiet weekday saturday"),
        (QuietTimes(weekdays=("saturday", "sunday")), "2026-11-09T00:00", None),
        (QuietTimes(dates=("12-25",)), "2027-12-25T23:59", "quiet date 2027-12-25"),
        (QuietTimes(dates=("2026-12-25",)), "2027-12-25T12:00", None),
        (NIGHT, "2026-11-02T20:00", "quiet hours 20:00 to 08:00"),
        (NIGHT, "2026-11-02T07:59:59", "quiet hours 20:00 to 08:00"),
        (NIGHT, "2026-11-02T08:00", None),
        (NIGHT, "2026-11-02T19:59:59", None),
        (QuietTimes(hours=(time(12), time(13))), "2026-11-02T12:30", "quiet hours 12:00 to 13:00"),
        (QuietTimes(hours=(time(12), time(13))), "2026-11-02T13:00", None),
    ],
)
def test_what_is_quiet(times: QuietTimes, local: str, quiet: str | None) -> None:
    assert times.why_quiet(datetime.fromisoformat(local)) == quiet


def test_a_quiet_night_decides_as_any_other_and_asks_nobody() -> None:
    accounts = [inactive("fca_1"), account("fca_2", "fcauth_2")]
    decided = decide(accounts, [row("fca_1"), row("fca_2")], quiet="quiet date 2026-11-02")
    assert decided.steps() == {"fca_1": "capped", "fca_2": "none"}
    assert decided.plan.requests == ()
    assert decided.plan.decisions[0].detail == "quiet date 2026-11-02: nobody is contacted, the next run takes it up"


def withdrawn(memory: Memory, day: int, *accounts: object, closed: bool = False) -> Decided:
    """A night whose first account is that by which the customer withdrew."""
    status = "closed" if closed else "open"
    ledger = [row("fca_1", status=status), row("fca_2"), row("fca_3", "cus_2"), row("fca_4")]
    first = decide(list(accounts), ledger, memory, stamp(day))  # type: ignore[arg-type]
    until = quiet_customers(first.findings, memory.history, memory.policy, stamp(day))
    return decide(list(accounts), ledger, memory, stamp(day), quiet_until=until)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("first", "policy"),
    [
        (account("fca_1", status="disconnected"), RelinkPolicy(quiet_days_after_disconnected=5)),
        (
            inactive("fca_1", inactive_action="none", inactive_cause="access_denied"),
            RelinkPolicy(quiet_days_after_access_denied=5),
        ),
    ],
)
def test_a_customer_who_withdrew_is_left_alone_at_that_bank_for_the_days_set(
    first: object, policy: RelinkPolicy
) -> None:
    memory = Memory(policy)
    others = (
        inactive("fca_2", "fcauth_2"),
        inactive("fca_3", "fcauth_3", account_holder_id="cus_2"),
        inactive("fca_4", "fcauth_4", institution_name="Bank Two"),
    )
    decided = withdrawn(memory, 0, first, *others)
    assert decided.steps() == {"fca_1": "not_relinkable", "fca_2": "cooldown", "fca_3": "request", "fca_4": "request"}
    assert (
        "left alone until 2026-11-07"
        in {one.authorization_id: one for one in decided.plan.decisions}["fcauth_2"].detail
    )
    assert withdrawn(memory, 4, first, *others).steps()["fca_2"] == "cooldown"
    assert withdrawn(memory, 5, first, *others).steps()["fca_2"] == "request"


def test_an_account_that_the_merchant_closed_begins_no_quiet_period() -> None:
    memory = Memory(RelinkPolicy(quiet_days_after_disconnected=5))
    found = withdrawn(memory, 0, account("fca_1", status="disconnected"), inactive("fca_2", "fcauth_2"), closed=True)
    assert found.steps()["fca_2"] == "request"


def test_suppressed_holders_and_accounts_are_never_contacted_and_siblings_are() -> None:
    accounts = [
        inactive("fca_1"),
        inactive("fca_2"),
        inactive("fca_3", "fcauth_3", account_holder_id="cus_2"),
        inactive("fca_4", "fcauth_4", account_holder_id="cus_2"),
    ]
    ledger = [row("fca_1"), row("fca_2"), row("fca_3", "cus_2"), row("fca_4", "cus_2")]
    decided = decide(accounts, ledger, suppressed_ids={"fca_1", "cus_2", "cus_nobody"})
    assert decided.steps() == {
        "fca_1": "do_not_contact",
        "fca_2": "request",
        "fca_3": "do_not_contact",
        "fca_4": "do_not_contact",
    }
    assert [one.account_id for one in decided.plan.requests[0].covered] == ["fca_2"]


def test_a_row_without_a_merchant_holds_for_all() -> None:
    rows = [{"id": "cus_1"}, {"id": " cus_2 ", "merchant": "b"}, {"id": "fca_1", "merchant": ""}]
    assert suppressed_by_merchant(rows, ["a", "b"], "list") == {
        "a": frozenset({"cus_1", "fca_1"}),
        "b": frozenset({"cus_1", "cus_2", "fca_1"}),
    }


def test_a_broken_row_is_named_and_hides_no_other() -> None:
    rows = [{"id": "cus_1"}, {"id": ""}, {"id": "x@example.com"}, {"id": "cus_2", "merchant": "c"}]
    with pytest.raises(LedgerError) as caught:
        suppressed_by_merchant(rows, ["a"], "list.csv")
    said = str(caught.value)
    assert said.startswith("list.csv has faulty rows")
    assert "row 2, id without an id: is missing" in said
    assert "row 3" in said
    assert "x@example.com" not in said
    assert "row 4, id cus_2: names merchant 'c'" in said
    assert "row 1," not in said


def test_the_quiet_period_counts_from_when_access_was_lost_and_not_from_the_first_look() -> None:
    memory = Memory(RelinkPolicy(quiet_days_after_access_denied=5))
    denied = inactive("fca_1", inactive_action="none", inactive_cause="access_denied")
    lost_at = stamp().as_of - timedelta(days=10)
    decide([account("fca_1")], [row()], memory, stamp(-20))
    found = decide([denied], [row()], memory, stamp(), deactivated_at={"fca_1": lost_at})
    assert quiet_customers(found.findings, memory.history, memory.policy, stamp()) == {}
