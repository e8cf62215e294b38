"""Stripe's account records and the ledger's rows as contracted frames."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import chain
from typing import Any, TypeVar

import pandas as pd
import pyarrow as pa

from reconcile.frames import ACCOUNTS, LEDGER, TIME, from_columns
from reconcile.ledger import LedgerRow
from reconcile.records import AccountColumns, AccountRecord

USABLE_NUMBER_STATUSES = ("transactable", "pending")
TOKENIZED = "tokenized_account_number"
NO_NUMBERS = (False, False, None)

_Moment = TypeVar("_Moment", datetime, int)

_ACCOUNTS_SCHEMA = pa.schema(list(ACCOUNTS.items()))
_TIMES = tuple(name for name, kind in ACCOUNTS.items() if kind == TIME)
_SECONDS = pa.timestamp("s", tz="UTC")


def accounts_frame(records: Sequence[AccountRecord]) -> pd.DataFrame:
    """One row per account record, in the `frames.ACCOUNTS` contract and in the order given."""
    return from_columns(_columns(records), ACCOUNTS)


def account_columns(records: Sequence[AccountRecord], *, has_more: bool) -> AccountColumns:
    """Records as the columns that a page is read into."""
    columns = _columns(records)
    for name in _TIMES:
        columns[name] = [None if at is None else round(at.timestamp()) for at in columns[name]]
    return AccountColumns(
        columns,
        [record.authorization_key_present for record in records],
        [record.livemode for record in records],
        has_more,
    )


def pages_table(pages: Sequence[AccountColumns]) -> pa.Table:
    """The accounts of several pages in the `frames.ACCOUNTS` contract.

    Several at once, since each column that becomes Arrow's lets another thread take over, as often as there are columns.
    """
    arrays = []
    for name, kind in ACCOUNTS.items():
        values = list(chain.from_iterable(page.columns[name] for page in pages))
        arrays.append(pa.array(values, _SECONDS).cast(TIME) if name in _TIMES else pa.array(values, kind))
    return pa.table(arrays, schema=_ACCOUNTS_SCHEMA)


def _columns(records: Sequence[AccountRecord]) -> dict[str, list[Any]]:
    numbers = [
        summarize_numbers(record.account_numbers) if record.account_numbers else NO_NUMBERS for record in records
    ]
    return {
        "account_id": [record.account_id for record in records],
        "authorization_id": [record.authorization_id for record in records],
        "holder_type": [record.holder_type for record in records],
        "account_holder_id": [record.account_holder_id for record in records],
        "institution_id": [record.institution_id for record in records],
        "institution_name": [record.institution_name for record in records],
        "last4": [record.last4 for record in records],
        "category": [record.category for record in records],
        "subcategory": [record.subcategory for record in records],
        "stripe_status": [record.status for record in records],
        "active_action": [record.active_action for record in records],
        "active_cause": [record.active_cause for record in records],
        "inactive_action": [record.inactive_action for record in records],
        "inactive_cause": [record.inactive_cause for record in records],
        "expected_deactivation_at": [record.expected_deactivation_at for record in records],
        "permissions": [join_words(record.permissions or ()) for record in records],
        "tokenized_numbers": [tokenized for tokenized, _, _ in numbers],
        "usable_number_unlimited": [unlimited for _, unlimited, _ in numbers],
        "usable_number_expires_at": [expires_at for _, _, expires_at in numbers],
        "last_refreshed_at": [record.last_refreshed_at for record in records],
        "created_at": [record.created_at for record in records],
    }


def ledger_frame(rows: Iterable[LedgerRow], merchant: str) -> pd.DataFrame:
    """One row per ledger row of one merchant, in the `frames.LEDGER` contract."""
    chosen = [row for row in rows if row.merchant == merchant]
    return from_columns(
        {
            "account_id": [row.account_id for row in chosen],
            "ledger_holder_id": [row.account_holder_id for row in chosen],
            "required_permissions": [
                None if row.required_permissions is None else join_words(row.required_permissions) for row in chosen
            ],
            "purpose": [row.purpose for row in chosen],
            "ledger_status": [row.status for row in chosen],
            "do_not_contact": [row.do_not_contact for row in chosen],
            "exposure_minor": [row.exposure_minor for row in chosen],
            "currency": [row.currency for row in chosen],
            "reference": [row.reference for row in chosen],
        },
        LEDGER,
    )


def summarize_numbers(
    numbers: Iterable[tuple[str | None, str | None, _Moment | None]],
) -> tuple[bool, bool, _Moment | None]:
    """Say whether there are tokenized numbers, whether a usable one never expires, and when the last usable one does.

    Usable is `transactable` or `pending` (Stripe API: account_numbers.status).

    Args:
        numbers: as `AccountNumber`, times as moments or as seconds.
    """
    tokenized = unlimited = False
    expiries: list[_Moment] = []
    for identifier_type, status, expires_at in numbers:
        if identifier_type != TOKENIZED:
            continue
        tokenized = True
        if status not in USABLE_NUMBER_STATUSES:
            continue
        if expires_at is None:
            unlimited = True
        else:
            expiries.append(expires_at)
    return tokenized, unlimited, max(expiries, default=None)


def join_words(words: Iterable[str]) -> str:
    """Sort and join distinct words by `;`."""
    return ";".join(sorted(set(words)))


def split_words(text: str | None) -> tuple[str, ...]:
    """The words of a joined text, none for null or empty."""
    return tuple(text.split(";")) if text else ()
