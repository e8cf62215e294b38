"""Divide accounts, ledger and history by customer, so that each part can be judged by itself and the parts together say what the whole says.

A part holds whole authorizations. Where the accounts of one authorization name several customers, all of them go where the first of these
customers' parts is, since they are counted and asked about together.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from reconcile.frames import array_of

Numbers = NDArray[np.int64]

UNDIVIDED_ROWS = 2_000_000
"""Up to so many accounts are judged at once, which is quicker; above, memory would grow with them."""

ROWS_PER_PART = 100_000
"""About so many accounts make a part."""

_HASHED_CHARACTERS = 8
"""The last of an id, which differ the most."""


class Part(NamedTuple):
    """A part's share: `frames.ACCOUNTS`, `frames.LEDGER` and the `frames.HISTORY` of before."""

    accounts: pd.DataFrame
    ledger: pd.DataFrame
    history: pd.DataFrame


def parts_for(rows: int, undivided_rows: int = UNDIVIDED_ROWS, rows_per_part: int = ROWS_PER_PART) -> int:
    """Into how many parts so many rows are divided."""
    return 1 if rows <= undivided_rows else -(-rows // rows_per_part)


def split(accounts: pd.DataFrame, ledger: pd.DataFrame, history: pd.DataFrame, parts: int) -> Iterator[Part]:
    """Divide into so many parts, one after the other, each in the order of the whole; some may be empty."""
    in_part = part_numbers(accounts, parts)
    of_ledger = follow(ledger["account_id"], ledger["ledger_holder_id"], accounts["account_id"], in_part, parts)
    of_history = follow(history["account_id"], history["account_holder_id"], accounts["account_id"], in_part, parts)
    for number in range(parts):
        yield Part(
            accounts.loc[in_part == number].reset_index(drop=True),
            ledger.loc[of_ledger == number].reset_index(drop=True),
            history.loc[of_history == number].reset_index(drop=True),
        )


def part_numbers(accounts: pd.DataFrame, parts: int) -> Numbers:
    """The part of each account, from 0: that of its customer, or of another customer of its authorization."""
    numbers = _hashes(accounts["account_holder_id"]) % parts
    encoded = array_of(accounts["authorization_id"]).dictionary_encode()
    named = encoded.indices.is_valid().to_numpy(zero_copy_only=False)
    codes = encoded.indices.fill_null(0).to_numpy(zero_copy_only=False)[named]
    first = np.full(len(encoded.dictionary), parts, dtype=np.int64)
    np.minimum.at(first, codes, numbers[named])
    numbers[named] = first[codes]
    return numbers


def follow(
    account_ids: pd.Series, holders: pd.Series, pulled_ids: pd.Series, pulled_parts: Numbers, parts: int
) -> Numbers:
    """The part of each row that is about an account: the account's, or, where it was not pulled, that of the row's customer."""
    numbers = _hashes(holders) % parts
    places = pc.index_in(array_of(account_ids), value_set=array_of(pulled_ids))
    known = places.is_valid().to_numpy(zero_copy_only=False)
    numbers[known] = pulled_parts[places.drop_null().to_numpy(zero_copy_only=False)]
    return numbers


def _hashes(texts: pd.Series) -> Numbers:
    """A number for each text, the same on every machine, 0 for null; worked out on the bytes, without a Python value for each text."""
    array = array_of(texts).cast(pa.large_binary())
    if not len(array):
        return np.zeros(0, dtype=np.int64)
    _, offsets, data = array.buffers()
    bounds = np.frombuffer(offsets, dtype=np.int64)[array.offset : array.offset + len(array) + 1]
    content = np.frombuffer(data, dtype=np.uint8) if data is not None and data.size else np.zeros(1, dtype=np.uint8)
    starts, ends = bounds[:-1], bounds[1:]
    hashes = np.zeros(len(array), dtype=np.uint64)
    for back in range(1, _HASHED_CHARACTERS + 1):
        inside = ends - back >= starts
        byte = content[np.where(inside, ends - back, 0)].astype(np.uint64)
        hashes = np.where(inside, (hashes ^ byte) * np.uint64(1_099_511_628_211), hashes)  # FNV-1a
    mixed: Numbers = (hashes >> np.uint64(33)).astype(np.int64)
    return mixed
