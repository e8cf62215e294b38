"""Since when an account is inactive, and which customers there is news of."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from reconcile.model import Holder
from reconcile.records import AccountRecord
from tests.reconcile.nights import FIRST_NIGHT, Decided, Memory, account, decide, expiring, inactive, number, row, stamp


def night(memory: Memory, day: int, *accounts: AccountRecord, told: datetime | None = None) -> Decided:
    events = None if told is None else {"fca_1": told}
    return decide(accounts, [row()], memory, stamp(day), deactivated_at=events)


def since(decided: Decided) -> tuple[datetime | None, str | None, int | None]:
    return (
        decided.cell("fca_1", "inactive_since"),
        decided.cell("fca_1", "inactive_since_basis"),
        decided.cell("fca_1", "days_inactive"),
    )


def test_what_was_inactive_at_the_first_look_is_so_for_at_least_that_long() -> None:
    memory = Memory()
    assert since(night(memory, 0, inactive())) == (FIRST_NIGHT, "first_run", 0)
    assert since(night(memory, 3, inactive())) == (FIRST_NIGHT, "first_run", 3)


def test_what_went_inactive_between_looks_is_dated_by_the_look_or_by_an_event() -> None:
    for told in (None, FIRST_NIGHT + timedelta(hours=7)):
        memory = Memory()
        assert since(night(memory, 0, account())) == (None, None, None)
        dated = (stamp(1).as_of, "observed", 0) if told is None else (told, "event", 1)
        assert since(night(memory, 1, inactive(), told=told)) == (dated)
        assert since(night(memory, 5, inactive())) == (dated[0], dated[1], dated[2] + 4)


def test_coming_back_ends_it_and_going_again_dates_it_anew() -> None:
    memory = Memory()
    night(memory, 0, inactive())
    assert since(night(memory, 1, account())) == (None, None, None)
    assert since(night(memory, 2, inactive())) == (stamp(2).as_of, "observed", 0)
    # Between two looks it came back and went again: only the event tells.
    told = stamp(2).as_of + timedelta(hours=1)
    assert since(night(memory, 4, inactive(), told=told)) == (told, "event", 2)


def test_an_event_of_the_future_is_believed_no_more_than_the_look() -> None:
    memory = Memory()
    night(memory, 0, account())
    found = since(night(memory, 1, inactive(), told=stamp(1).as_of + timedelta(hours=1)))
    assert found == (stamp(1).as_of, "observed", 0)


def test_an_account_that_vanished_for_a_night_keeps_its_date() -> None:
    memory = Memory()
    night(memory, 0, inactive())
    night(memory, 1)
    assert since(night(memory, 2, inactive())) == (FIRST_NIGHT, "first_run", 2)


def test_a_new_account_that_is_inactive_was_not_there_at_the_first_look() -> None:
    memory = Memory()
    night(memory, 0, account("fca_2", "fcauth_2"))
    assert since(night(memory, 1, inactive())) == (stamp(1).as_of, "observed", 0)


def test_inactive_for_another_reason_goes_on() -> None:
    memory = Memory()
    night(memory, 0, inactive())
    changed = inactive(inactive_cause="account_closed", inactive_action="none")
    assert since(night(memory, 1, changed)) == (FIRST_NIGHT, "first_run", 1)


@pytest.mark.parametrize(
    "changed",
    [
        inactive(),
        expiring(),
        account(permissions=("balances",)),
        account(authorization_id="fcauth_2"),
        account(account_numbers=(number("expired"),)),
        account(account_numbers=(number("transactable", 40),)),
        account(status="disconnected"),
        account(last4="0009"),
        None,
    ],
)
def test_any_change_that_matters_is_news_of_the_customer(changed: AccountRecord | None) -> None:
    memory = Memory()
    bystander = account("fca_2", "fcauth_9", account_holder_id="cus_2")
    night(memory, 0, account(), bystander)
    told = night(memory, 1, *([changed] if changed else []), bystander)
    assert told.history.changed_holders == {Holder("customer", "cus_1")}
    assert told.history.changed["account_id"].tolist() == ["fca_1"]


def test_a_refresh_is_no_news_and_both_holders_of_a_moved_account_are() -> None:
    memory = Memory()
    night(memory, 0, account())
    refreshed = night(memory, 1, account(last_refreshed_at=FIRST_NIGHT))
    assert refreshed.history.changed_holders == frozenset()
    assert refreshed.history.changed.empty
    moved = night(memory, 2, account(account_holder_id="cus_2"))
    assert moved.history.changed_holders == {Holder("customer", "cus_1"), Holder("customer", "cus_2")}
