"""An old snapshot carried on by the account history is what a snapshot of that night would have been."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from reconcile.frames import HISTORY, empty
from reconcile.history import advance_history
from reconcile.normalize import accounts_frame
from reconcile.past_accounts import carry_forward
from reconcile.records import AccountRecord
from tests.reconcile.nights import FIRST_NIGHT, account, expiring, inactive, number, stamp

KEPT = [
    "account_id",
    "authorization_id",
    "holder_type",
    "account_holder_id",
    "institution_name",
    "last4",
    "subcategory",
]
KEPT += ["stripe_status", "active_action", "active_cause", "inactive_action", "inactive_cause", "permissions"]
KEPT += ["expected_deactivation_at", "tokenized_numbers", "usable_number_unlimited"]

STATES = (
    lambda name: account(name),
    lambda name: inactive(name),
    lambda name: inactive(name, inactive_action="none", inactive_cause="account_closed"),
    lambda name: expiring(name, days=20),
    lambda name: account(name, status="disconnected"),
    lambda name: account(name, "fcauth_2", account_holder_id="cus_2", last4="0002", subcategory="savings"),
    lambda name: account(name, account_numbers=(number(),)),
    lambda name: account(name, account_numbers=(number("transactable", days=9),)),
    lambda name: account(name, account_numbers=(number("expired"),)),
    lambda name: account(name, permissions=(), institution_name=None),
)
night = st.dictionaries(st.sampled_from([f"fca_{n}" for n in range(5)]), st.sampled_from(STATES), max_size=5)


def frame(accounts: dict[str, Any]) -> Any:
    return accounts_frame([make(name) for name, make in accounts.items()])


@settings(max_examples=12, deadline=None)
@given(nights=st.lists(night, min_size=2, max_size=3))
def test_it_equals_the_snapshot_that_was_not_kept(nights: list[dict[str, Any]]) -> None:
    history, frames = empty(HISTORY), []
    for day, accounts in enumerate(nights):
        frames.append(frame(accounts))
        history = advance_history(history, frames[-1], stamp(day)).latest
    carried = carry_forward(frames[0], history, FIRST_NIGHT)
    expected = frames[-1].sort_values("account_id", ignore_index=True)
    found = carried.sort_values("account_id", ignore_index=True)
    assert found[KEPT].equals(expected[KEPT])
    was, now = (
        one["usable_number_expires_at"].dropna().map(lambda at: at.date()).tolist() for one in (expected, found)
    )
    assert now == was


def test_what_the_history_has_no_word_of_stays_as_it_was_in_its_place() -> None:
    first = [account("fca_2", last_refreshed_at=FIRST_NIGHT), account("fca_1"), account("fca_0")]
    history = advance_history(empty(HISTORY), accounts_frame(first), stamp(0)).latest
    second: list[AccountRecord] = [account("fca_9"), account("fca_2", last_refreshed_at=None), inactive("fca_1")]
    history = advance_history(history, accounts_frame(second), stamp(1)).latest
    carried = carry_forward(accounts_frame(first), history, FIRST_NIGHT)
    assert carried["account_id"].tolist() == ["fca_2", "fca_1", "fca_9"]
    assert carried["stripe_status"].tolist() == ["active", "inactive", "active"]
    assert carried["last_refreshed_at"].tolist()[0] == FIRST_NIGHT
    assert carry_forward(accounts_frame(first), history, stamp(1).as_of).equals(accounts_frame(first))
