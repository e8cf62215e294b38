"""Join Stripe's accounts with the ledger and give each account exactly one finding."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from reconcile.frames import ACCOUNTS, FINDINGS, HISTORY, LEDGER, arrow_series, check
from reconcile.joining import outer_join, rows_of, taken
from reconcile.model import AFFECTED, HOLDER_TYPES, Finding, RunStamp
from reconcile.normalize import split_words
from reconcile.policy import RelinkPolicy

Flags = NDArray[np.bool_]

STATUSES = ("active", "inactive", "disconnected")
ACTIONS = ("none", "relink_required")


def classify(
    accounts: pd.DataFrame, ledger: pd.DataFrame, history: pd.DataFrame, policy: RelinkPolicy, stamp: RunStamp
) -> pd.DataFrame:
    """Return the outer join with one finding per account id, in the `frames.FINDINGS` contract, ordered by account id.

    Args:
        accounts: `frames.ACCOUNTS`, distinct account ids.
        ledger: `frames.LEDGER` of the same merchant, distinct account ids.
        history: `frames.HISTORY` with tonight's states already in it; gives `inactive_since`.

    Raises:
        ValueError: a frame breaks its contract.
        pandas.errors.MergeError: an account id stands twice on one side.
    """
    check(accounts, ACCOUNTS, "accounts")
    check(ledger, LEDGER, "ledger")
    check(history, HISTORY, "history")
    join = outer_join(accounts, ledger)
    columns = {"account_id": join.account_ids}
    columns |= {name: taken(accounts[name], join.left_rows) for name in ACCOUNTS if name != "account_id"}
    columns |= {name: taken(ledger[name], join.right_rows) for name in LEDGER if name != "account_id"}
    columns["in_stripe"] = arrow_series(join.in_left, pa.bool_())
    columns["in_ledger"] = arrow_series(join.in_right, pa.bool_())
    since = rows_of(join.account_ids, history)
    columns |= {name: taken(history[name], since) for name in ("inactive_since", "inactive_since_basis")}
    joined = pd.DataFrame(columns)

    inactive = flags(joined["stripe_status"] == "inactive")
    active = flags(joined["stripe_status"] == "active")
    joined["cause"] = _choose(inactive, joined["inactive_cause"], active, joined["active_cause"])
    joined["action"] = _choose(inactive, joined["inactive_action"], active, joined["active_action"])
    joined.loc[~inactive, ["inactive_since", "inactive_since_basis"]] = pd.NA
    joined["expected_deactivation_date"] = business_dates(joined["expected_deactivation_at"], stamp)
    joined["days_to_deactivation"] = days_until(joined["expected_deactivation_date"], stamp)
    # A clock that was set back gives zero and never less.
    joined["days_inactive"] = (-days_until(business_dates(joined["inactive_since"], stamp), stamp)).clip(lower=0)
    missing = missing_permissions(joined["required_permissions"], joined["permissions"])
    joined["missing_permissions"] = missing.where(joined["in_stripe"], "")

    held = _conditions(joined, policy, stamp)
    finding, also = _first_and_others(held)
    joined["finding"] = finding
    joined["also"] = also
    affected = np.isin(finding, [str(kind) for kind in AFFECTED])
    joined["shared_accounts"] = _count_by_authorization(joined, flags(joined["in_stripe"]))
    joined["shared_affected"] = _count_by_authorization(joined, affected)
    joined["next_step"] = None
    for name, kind in FINDINGS.items():
        joined[name] = joined[name].astype(pd.ArrowDtype(kind))
    return check(joined[list(FINDINGS)], FINDINGS, "findings")


def _conditions(joined: pd.DataFrame, policy: RelinkPolicy, stamp: RunStamp) -> dict[Finding, Flags]:
    """Every finding's own condition, without regard to the order in which the first one wins."""
    in_stripe, in_ledger = flags(joined["in_stripe"]), flags(joined["in_ledger"])
    both = in_stripe & in_ledger
    status = joined["stripe_status"]
    active, inactive = flags(status == "active"), flags(status == "inactive")
    disconnected = flags(status == "disconnected")
    no_holder = flags(joined["account_holder_id"].isna() | ~joined["holder_type"].isin(HOLDER_TYPES))
    inactive_known = flags(joined["inactive_action"].isin(ACTIONS))
    active_unknown = flags(joined["active_action"].notna() & ~joined["active_action"].isin(ACTIONS))
    unreadable = both & ~disconnected
    unreadable &= (
        ~flags(status.isin(STATUSES))
        | (inactive & ~inactive_known)
        | (active & active_unknown)
        | flags(joined["authorization_id"].isna())
        | no_holder
    )
    window = policy.expiring_within_days
    due = flags(joined["days_to_deactivation"].isna() | (joined["days_to_deactivation"] <= window))
    days_to_expiry = days_until(business_dates(joined["usable_number_expires_at"], stamp), stamp)
    usable = flags(joined["usable_number_unlimited"]) | flags(days_to_expiry > window)
    return {
        Finding.UNREADABLE: unreadable,
        Finding.NOT_IN_STRIPE: ~in_stripe,
        Finding.NOT_IN_LEDGER: ~in_ledger,
        Finding.HOLDER_MISMATCH: both & ~no_holder & flags(joined["account_holder_id"] != joined["ledger_holder_id"]),
        Finding.DISCONNECTED: disconnected,
        Finding.INACTIVE_PERMANENT: inactive & flags(joined["inactive_action"] == "none"),
        Finding.INACTIVE: inactive & flags(joined["inactive_action"] == "relink_required"),
        Finding.ACCOUNT_NUMBER: both
        & flags(joined["purpose"] == "payments")
        & flags(joined["tokenized_numbers"])
        & ~usable,
        Finding.EXPIRING: active & flags(joined["active_action"] == "relink_required") & due,
        Finding.PERMISSIONS: both & flags(joined["missing_permissions"] != ""),
    }


def _first_and_others(held: dict[Finding, Flags]) -> tuple[NDArray[np.object_], NDArray[np.object_]]:
    """The first finding that holds and the others joined by `;`, worked out once for each pattern that occurs."""
    order = list(held)
    codes = np.zeros(len(next(iter(held.values()))), dtype=np.int64)
    for bit, finding in enumerate(order):
        codes |= held[finding].astype(np.int64) << bit
    patterns, positions = np.unique(codes, return_inverse=True)
    words = [[str(finding) for bit, finding in enumerate(order) if code >> bit & 1] for code in patterns.tolist()]
    first = np.array([names[0] if names else str(Finding.OK) for names in words], dtype=object)
    others = np.array([";".join(names[1:]) for names in words], dtype=object)
    return first[positions], others[positions]


def missing_permissions(required: pd.Series, granted: pd.Series) -> pd.Series:
    """What the ledger requires and the account does not grant, joined by `;`, worked out once for each pair that occurs."""
    pairs = pd.DataFrame({"required": required, "granted": granted}).fillna("")
    codes = pairs.groupby(["required", "granted"], sort=False).ngroup().to_numpy()
    distinct = pairs.drop_duplicates()
    answers = np.array(
        [
            ";".join(sorted(set(split_words(need)) - set(split_words(have))))
            for need, have in zip(distinct["required"], distinct["granted"], strict=True)
        ],
        dtype=object,
    )
    return arrow_series(answers[codes] if len(codes) else [], pa.string(), required.index)


def business_dates(times: pd.Series, stamp: RunStamp) -> pd.Series:
    """The business date of each UTC time, null for null."""
    array = pa.chunked_array([pa.array(times, type=pa.timestamp("us", tz="UTC"))])
    local = pc.cast(pc.local_timestamp(pc.cast(array, pa.timestamp("us", tz=stamp.timezone))), pa.date32(), safe=False)
    return arrow_series(local, pa.date32(), times.index)


def days_until(dates: pd.Series, stamp: RunStamp) -> pd.Series:
    """Days from the run's business date to each date, negative for the past, null for null."""
    array = pa.chunked_array([pa.array(dates, type=pa.date32())])
    ordinals = pc.cast(pc.cast(array, pa.int32()), pa.int64())
    today = (stamp.business_date - date(1970, 1, 1)).days
    return arrow_series(pc.subtract(ordinals, today), pa.int64(), dates.index)


def flags(series: pd.Series | Iterable[bool]) -> Flags:
    """A condition as plain booleans in which null means it does not hold."""
    return pd.Series(series).fillna(False).to_numpy(dtype=bool)


def _choose(first: Flags, first_values: pd.Series, second: Flags, second_values: pd.Series) -> pd.Series:
    return first_values.where(first, second_values.where(second))


def _count_by_authorization(joined: pd.DataFrame, counted: Flags) -> pd.Series:
    """How many counted accounts share each row's authorization, null where a row has none."""
    marks = pd.Series(counted.astype(np.int64), index=joined.index)
    totals = marks.groupby(joined["authorization_id"], sort=False).transform("sum")
    return totals.astype(pd.ArrowDtype(pa.int64()))
