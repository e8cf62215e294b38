"""Stripe's accounts as they stood on a date of which there is no snapshot: an earlier snapshot, carried on by the account history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import pandas as pd

from reconcile.classify import flags
from reconcile.frames import ACCOUNTS, HISTORY, check, from_columns
from reconcile.history import KEPT_AS_THEY_ARE
from reconcile.request import plain_rows

_UNTIL = "until "


def carry_forward(accounts: pd.DataFrame, history: pd.DataFrame, taken_at: datetime) -> pd.DataFrame:
    """The accounts of a snapshot with every change that the history tells of since.

    Args:
        accounts: `frames.ACCOUNTS` of the snapshot.
        history: `frames.HISTORY`, the newest state of each account at the moment asked for.
        taken_at: when the snapshot was taken; rows of the history that are not later change nothing.

    What the history does not keep (the category, when the data were refreshed) stays as it was, and is null for an account that
    came later. Such accounts follow after the others, by id.
    """
    check(accounts, ACCOUNTS, "accounts")
    check(history, HISTORY, "history")
    later = history.loc[flags(history["observed_at"] > pd.Timestamp(taken_at))].sort_values("account_id")
    if later.empty:
        return accounts
    states = {str(row["account_id"]): row for row in plain_rows(later)}
    touched = flags(accounts["account_id"].isin(list(states)))
    carried = [
        _carried(row, states[str(row["account_id"])])
        for row in plain_rows(accounts.loc[touched])
        if states[str(row["account_id"])]["present"]
    ]
    known = set(accounts.loc[touched, "account_id"])
    fresh: dict[str, object] = dict.fromkeys(ACCOUNTS)
    came = [
        _carried({**fresh, "account_id": account_id}, state)
        for account_id, state in states.items()
        if account_id not in known and state["present"]
    ]
    untouched = accounts.loc[~touched]
    places = {account_id: place for place, account_id in enumerate(accounts["account_id"])}
    changed = _frame([*carried, *came])
    whole = pd.concat([untouched, changed], ignore_index=True)
    order = whole["account_id"].map(lambda account_id: places.get(account_id, len(places)))
    whole = whole.loc[order.argsort(kind="stable")].reset_index(drop=True)
    return check(whole, ACCOUNTS, "accounts")


def _frame(rows: Sequence[Mapping[str, object]]) -> pd.DataFrame:
    return from_columns({name: [row[name] for row in rows] for name in ACCOUNTS}, ACCOUNTS)


def _carried(account: Mapping[str, object], state: Mapping[str, object]) -> dict[str, object]:
    now = {**account, **{name: state[name] for name in KEPT_AS_THEY_ARE}}
    for status in ("active", "inactive"):
        is_so = state["stripe_status"] == status
        now[f"{status}_action"] = state["action"] if is_so else None
        now[f"{status}_cause"] = state["cause"] if is_so else None
    numbers = state["number_state"]
    until = None
    if isinstance(numbers, str) and numbers.startswith(_UNTIL):
        until = datetime.fromisoformat(numbers.removeprefix(_UNTIL)).replace(tzinfo=UTC)
    expires_at = account["usable_number_expires_at"]
    if isinstance(expires_at, datetime) and until is not None and expires_at.date() == until.date():
        until = expires_at  # the history keeps the date alone
    now["tokenized_numbers"] = numbers is not None
    now["usable_number_unlimited"] = numbers == "usable"
    now["usable_number_expires_at"] = until
    return now
