"""The column contracts of the frames that flow through a run, and the check that holds them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import pyarrow as pa

TEXT = pa.string()
TIME = pa.timestamp("us", tz="UTC")

ACCOUNTS: Mapping[str, pa.DataType] = {
    "account_id": TEXT,
    "authorization_id": TEXT,
    "holder_type": TEXT,
    "account_holder_id": TEXT,
    "institution_id": TEXT,
    "institution_name": TEXT,
    "last4": TEXT,
    "category": TEXT,
    "subcategory": TEXT,
    "stripe_status": TEXT,
    "active_action": TEXT,
    "active_cause": TEXT,
    "inactive_action": TEXT,
    "inactive_cause": TEXT,
    "expected_deactivation_at": TIME,
    "permissions": TEXT,
    "tokenized_numbers": pa.bool_(),
    "usable_number_unlimited": pa.bool_(),
    "usable_number_expires_at": TIME,
    "last_refreshed_at": TIME,
    "created_at": TIME,
}
"""Stripe's accounts, one row each. `permissions` is sorted and joined by `;`. The three number columns sum up the account's
tokenized numbers: whether it has any, whether a usable one never expires, and when the last usable one does."""

LEDGER: Mapping[str, pa.DataType] = {
    "account_id": TEXT,
    "ledger_holder_id": TEXT,
    "required_permissions": TEXT,
    "purpose": TEXT,
    "ledger_status": TEXT,
    "do_not_contact": pa.bool_(),
    "exposure_minor": pa.int64(),
    "currency": TEXT,
    "reference": TEXT,
}
"""The merchant's ledger, one row an account. `required_permissions` is sorted and joined by `;`, null where the cell is empty."""

HISTORY: Mapping[str, pa.DataType] = {
    "account_id": TEXT,
    "observed_at": TIME,
    "present": pa.bool_(),
    "authorization_id": TEXT,
    "holder_type": TEXT,
    "account_holder_id": TEXT,
    "institution_name": TEXT,
    "last4": TEXT,
    "subcategory": TEXT,
    "stripe_status": TEXT,
    "action": TEXT,
    "cause": TEXT,
    "permissions": TEXT,
    "expected_deactivation_at": TIME,
    "number_state": TEXT,
    "inactive_since": TIME,
    "inactive_since_basis": TEXT,
}
"""The newest recorded state of each account; `inactive_since_basis` is event, observed or first_run."""

FINDINGS: Mapping[str, pa.DataType] = {
    **ACCOUNTS,
    **{name: kind for name, kind in LEDGER.items() if name != "account_id"},
    "in_stripe": pa.bool_(),
    "in_ledger": pa.bool_(),
    "cause": TEXT,
    "action": TEXT,
    "finding": TEXT,
    "also": TEXT,
    "missing_permissions": TEXT,
    "inactive_since": TIME,
    "inactive_since_basis": TEXT,
    "days_inactive": pa.int64(),
    "expected_deactivation_date": pa.date32(),
    "days_to_deactivation": pa.int64(),
    "shared_accounts": pa.int64(),
    "shared_affected": pa.int64(),
    "next_step": TEXT,
}
"""One row for each account id in Stripe or the ledger; `also` and `missing_permissions` are joined by `;`, empty where none.
`shared_*` count accounts of the same authorization, itself included. `next_step` is null until the plan sets it."""


def values_of(column: pd.Series) -> list[Any]:
    """An Arrow-backed column as plain values, null as None; walking the column itself costs ten times as much."""
    values: list[Any] = pa.array(column.array).to_pylist()
    return values


def array_of(column: pd.Series) -> pa.Array:
    """An Arrow-backed column in one piece."""
    array = pa.array(column.array)
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def arrow_series(values: Any, kind: pa.DataType, index: pd.Index | None = None) -> pd.Series:
    """An Arrow-backed column of one type, from anything that Arrow can take."""
    series = pd.Series(pd.array(values, dtype=pd.ArrowDtype(kind)))
    if index is not None:
        series.index = index
    return series


def empty(contract: Mapping[str, pa.DataType]) -> pd.DataFrame:
    """A frame of no rows that keeps a contract."""
    return pd.DataFrame({name: arrow_series([], kind) for name, kind in contract.items()})


def from_columns(columns: Mapping[str, object], contract: Mapping[str, pa.DataType]) -> pd.DataFrame:
    """Build a frame from plain column lists or Arrow arrays, in the contract's order and types.

    Raises:
        ValueError: a column is missing, or a value does not fit its type.
    """
    missing = [name for name in contract if name not in columns]
    if missing:
        raise ValueError(f"columns missing: {', '.join(missing)}")
    arrays: dict[str, Any] = {}
    for name, kind in contract.items():
        values = columns[name]
        array = values if isinstance(values, (pa.Array, pa.ChunkedArray)) else pa.array(values, type=kind)
        # Not a series: the frame would first have to find out that the indexes of all of them agree.
        arrays[name] = pd.array(array.cast(kind), dtype=pd.ArrowDtype(kind))
    return pd.DataFrame(arrays)


def check(frame: pd.DataFrame, contract: Mapping[str, pa.DataType], what: str) -> pd.DataFrame:
    """Return the frame if its columns are exactly the contract's, in order and type.

    Raises:
        ValueError: naming the first column that differs.
    """
    if list(frame.columns) != list(contract):
        raise ValueError(f"{what}: columns are {list(frame.columns)}, expected {list(contract)}")
    for name, kind in contract.items():
        dtype = frame[name].dtype
        if not isinstance(dtype, pd.ArrowDtype) or dtype.pyarrow_dtype != kind:
            raise ValueError(f"{what}: column {name} is {dtype}, expected {kind}")
    return frame
