"""What is known of each account over time, since Stripe gives no date of when it went inactive."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pandas as pd
import pyarrow as pa

from reconcile.classify import Flags, flags
from reconcile.frames import ACCOUNTS, HISTORY, arrow_series, check, values_of
from reconcile.joining import outer_join, taken
from reconcile.model import Holder, RunStamp

TRACKED = (
    "present",
    "authorization_id",
    "holder_type",
    "account_holder_id",
    "institution_name",
    "last4",
    "subcategory",
    "stripe_status",
    "action",
    "cause",
    "permissions",
    "expected_deactivation_at",
    "number_state",
    "inactive_since",
    "inactive_since_basis",
)

KEPT_AS_THEY_ARE = (
    "authorization_id",
    "holder_type",
    "account_holder_id",
    "institution_name",
    "last4",
    "subcategory",
    "stripe_status",
    "permissions",
    "expected_deactivation_at",
)
"""Columns of the accounts that the history keeps under the same name."""


_TONIGHT = tuple(name for name in TRACKED if name not in ("present", "inactive_since", "inactive_since_basis"))
"""What the accounts tell; the rest follows."""


@dataclass(frozen=True, slots=True)
class HistoryStep:
    """What one complete snapshot adds: the rows that changed, and the newest state of every account."""

    changed: pd.DataFrame
    latest: pd.DataFrame
    changed_holders: frozenset[Holder]


def advance_history(
    previous: pd.DataFrame,
    accounts: pd.DataFrame,
    stamp: RunStamp,
    deactivated_at: Mapping[str, datetime] | None = None,
    *,
    first_run: bool | None = None,
) -> HistoryStep:
    """Carry the account history forward by one complete snapshot.

    Args:
        previous: `frames.HISTORY`, the newest state of every account ever seen.
        accounts: `frames.ACCOUNTS` of tonight, complete.
        deactivated_at: Stripe's own time of deactivation by account id, where an event told it.
        first_run: whether the job never looked before; None where `previous` is of all accounts and shows it.

    `inactive_since` is an event's time, else the time of the snapshot that first showed it (an upper bound), else, for what
    was inactive when this job first looked, the time of that first look (at least that long).
    """
    check(previous, HISTORY, "history")
    check(accounts, ACCOUNTS, "accounts")
    first_run = previous.empty if first_run is None else first_run
    tonight = _states(accounts, stamp)
    join = outer_join(tonight, previous)
    gone, new = ~join.in_left, ~join.in_right
    columns = {"account_id": join.account_ids}
    for name in HISTORY:
        if name != "account_id":
            columns[f"{name}__before"] = taken(previous[name], join.right_rows)
        if name in _TONIGHT:
            now = taken(tonight[name], join.left_rows)
            columns[name] = now.where(~gone, columns[f"{name}__before"]) if gone.any() else now
    merged = pd.DataFrame(columns)
    merged["present"] = arrow_series(~gone, pa.bool_())
    _date_inactivity(merged, gone, first_run, stamp, deactivated_at or {})
    changed = new.copy()
    for name in TRACKED:
        changed |= differs(merged[name], merged[f"{name}__before"])
    tonight_at = pa.repeat(pa.scalar(stamp.as_of, HISTORY["observed_at"]), len(merged))
    merged["observed_at"] = merged["observed_at__before"].where(~changed, arrow_series(tonight_at, tonight_at.type))
    holders = _holders(merged.loc[changed & ~new, ["holder_type__before", "account_holder_id__before"]])
    holders |= _holders(merged.loc[changed, ["holder_type", "account_holder_id"]])
    latest = _contracted(merged)
    # In a first night all are new; a copy would be as large as all accounts.
    rows = latest if changed.all() else latest.loc[changed].reset_index(drop=True)
    return HistoryStep(changed=rows, latest=latest, changed_holders=frozenset(holders))


def _date_inactivity(
    merged: pd.DataFrame,
    gone: Flags,
    first_run: bool,
    stamp: RunStamp,
    deactivated_at: Mapping[str, datetime],
) -> None:
    inactive = flags(merged["stripe_status"] == "inactive")
    was_inactive = flags(merged["stripe_status__before"] == "inactive") & flags(
        merged["inactive_since__before"].notna()
    )
    carried = (inactive & was_inactive) | gone
    fresh = inactive & ~carried
    basis = "first_run" if first_run else "observed"
    since = merged["inactive_since__before"].where(carried)
    bases = merged["inactive_since_basis__before"].where(carried)
    merged["inactive_since"] = since.mask(fresh, pd.Timestamp(stamp.as_of)).astype(_dtype("inactive_since"))
    merged["inactive_since_basis"] = bases.mask(fresh, basis).astype(_dtype("inactive_since_basis"))
    told = [deactivated_at.get(str(account_id)) for account_id in merged["account_id"]] if deactivated_at else []
    if told:
        event_at = arrow_series(told, HISTORY["inactive_since"])
        later = flags(event_at > merged["observed_at__before"]) | fresh
        dated = inactive & ~gone & flags(event_at <= pd.Timestamp(stamp.as_of)) & later
        merged["inactive_since"] = merged["inactive_since"].mask(dated, event_at)
        merged["inactive_since_basis"] = merged["inactive_since_basis"].mask(dated, "event")


def _states(accounts: pd.DataFrame, stamp: RunStamp) -> pd.DataFrame:
    """Tonight's accounts reduced to what the history tracks."""
    inactive = flags(accounts["stripe_status"] == "inactive")
    active = flags(accounts["stripe_status"] == "active")
    frame = accounts[["account_id", *KEPT_AS_THEY_ARE]].copy()
    frame["action"] = accounts["inactive_action"].where(inactive, accounts["active_action"].where(active))
    frame["cause"] = accounts["inactive_cause"].where(inactive, accounts["active_cause"].where(active))
    tokenized = flags(accounts["tokenized_numbers"])
    unlimited = flags(accounts["usable_number_unlimited"])
    expiring = flags(accounts["usable_number_expires_at"].notna())
    state = np.where(unlimited, "usable", np.where(expiring, "until", "unusable")).astype(object)
    state[~tokenized] = None
    dated = tokenized & ~unlimited & expiring
    if dated.any():
        state[dated] = ["until " + str(at.date()) for at in accounts.loc[dated, "usable_number_expires_at"]]
    frame["number_state"] = arrow_series(state, pa.string(), frame.index)
    return frame


def differs(left: pd.Series, right: pd.Series) -> Flags:
    """Where two columns differ, null being equal to null."""
    one_null = left.isna().to_numpy(dtype=bool) != right.isna().to_numpy(dtype=bool)
    differs: Flags = one_null | flags(left != right)
    return differs


def _holders(frame: pd.DataFrame) -> set[Holder]:
    pairs = frame.dropna().drop_duplicates()
    return {Holder(kind, holder) for kind, holder in zip(*(values_of(pairs[name]) for name in pairs), strict=True)}


def _contracted(merged: pd.DataFrame) -> pd.DataFrame:
    frame = merged[list(HISTORY)].copy()
    for name in HISTORY:
        frame[name] = frame[name].astype(_dtype(name))
    return check(frame, HISTORY, "history")


def _dtype(name: str) -> pd.ArrowDtype:
    return pd.ArrowDtype(HISTORY[name])
