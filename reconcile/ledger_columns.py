"""The ledger checked column by column, for the millions of rows of a night: the same rows and the same faults as `ledger.check_rows`.

What a cell may hold is said once, in `reconcile.ledger`. Here a word that came before is looked up, and an id or a reference of a plain shape is
taken as it is; a row with any other cell is read by the slow reader, which alone finds faults.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from reconcile.frames import LEDGER, from_columns
from reconcile.ledger import (
    LARGEST_AMOUNT,
    LEDGER_COLUMNS,
    BadCell,
    LedgerFault,
    already_stands,
    read_cells,
    readers,
    refuse,
    shown_key,
)
from reconcile.normalize import join_words

Chunk = Mapping[str, Sequence[object]]
"""The cells of some rows by column name."""

# Base64 that says printable ASCII has a letter from A to f at the head of each four; only such a text can hide an address or a key.
_MAYBE_ENCODED = r"(?:[A-Za-f][A-Za-z0-9_\-]{3})*(?:[A-Za-f][A-Za-z0-9_\-]{0,3})?\Z"

# One underscore at most leaves no room for `_secret_`; without `@`, `:`, `/` and `%` there is no address and no link.
_PLAIN_ID = re.compile(
    rf"(?!(?:sk|rk|ek|uk|whsec)_)(?!{_MAYBE_ENCODED})[A-Za-z0-9]{{1,40}}_[A-Za-z0-9]{{1,200}}\Z"
).match
_PLAIN_REFERENCE = re.compile(
    rf"(?:(?!.*[A-Za-z0-9\-]{{12}}|.*Bearer|.*Basic)[A-Za-z0-9](?:[A-Za-z0-9 .#\-]{{0,198}}[A-Za-z0-9.#\-])?"
    rf"|(?!{_MAYBE_ENCODED})[A-Za-z0-9\-]{{1,200}})\Z"
).match

_WORDS = ("required_permissions", "purpose", "status", "do_not_contact", "currency", "merchant")
"""Columns of few different cells, each of which is read once."""

_MOST_WORDS = 10_000
"""Of one column that are remembered, so that a column which is not what it should be cannot fill the memory."""

_NAMES = {"account_holder_id": "ledger_holder_id", "status": "ledger_status"}
"""What ledger columns are called in `frames.LEDGER`, where that differs."""

_SCHEMA = pa.schema([("merchant", pa.string()), *LEDGER.items()])
_SLOW: Final = object()
"""Stands for a cell that only the slow reader can judge."""


@dataclass(frozen=True, slots=True)
class LedgerColumns:
    """The rows without a fault, as `merchant` and the columns of `frames.LEDGER`, and every fault of the others."""

    rows: pa.Table
    faults: list[LedgerFault]

    def of_merchant(self, merchant: str) -> pd.DataFrame:
        """One merchant's rows in the `frames.LEDGER` contract, in the order in which they came.

        Raises:
            LedgerError: anything is wrong with any merchant's rows, or there are none; see `ledger.require_clean`.
        """
        refuse(self.faults, self.rows.num_rows)
        own = self.rows.filter(pc.equal(self.rows["merchant"], merchant))
        return from_columns({name: own[name] for name in LEDGER}, LEDGER)


@dataclass(slots=True)
class _Found:
    """What the chunks gave so far. `ids` are of the rows whose account and merchant can be read; `keys` what shows a row that was read slowly."""

    rows: list[pa.Table] = field(default_factory=list)
    ids: list[pa.Table] = field(default_factory=list)
    keys: dict[int, str] = field(default_factory=dict)
    problems: dict[int, list[tuple[str, str]]] = field(default_factory=dict)


def check_columns(chunks: Iterable[Chunk], merchants: Sequence[str]) -> LedgerColumns:
    """Check a ledger that comes in chunks, in the order of its rows; where a column is missing, its cells count as empty."""
    found = _Found()
    words = {name: _Words(read) for name, read in readers(merchants).items() if name in _WORDS}
    first = 1
    for chunk in chunks:
        first += _check_chunk(chunk, first, merchants, words, found)
    for number, account_id, earlier in _repeated(found.ids):
        found.keys.setdefault(number, account_id)
        found.problems.setdefault(number, []).append(already_stands(earlier))
    rows = pa.concat_tables(found.rows) if found.rows else _SCHEMA.append(_NUMBER).empty_table()
    if found.problems:
        rows = rows.filter(pc.invert(pc.is_in(rows["number"], pa.array(list(found.problems), pa.int64()))))
    faults = [
        LedgerFault(number, found.keys[number], column, problem)
        for number, problems in sorted(found.problems.items())
        for column, problem in problems
    ]
    return LedgerColumns(rows.drop_columns("number"), faults)


class _Words(dict[tuple[type, Any], Any]):
    """What each different cell of a column says; the type counts, since 1, True and 1.0 are one key otherwise."""

    def __init__(self, read: Callable[[object], Any]) -> None:
        super().__init__()
        self._read = read

    def __missing__(self, key: tuple[type, Any]) -> Any:
        try:
            said = _storable(self._read(key[1]))
        except BadCell:
            said = _SLOW
        if len(self) < _MOST_WORDS:
            self[key] = said
        return said

    def of_column(self, cells: Sequence[object]) -> list[Any]:
        """What all cells say."""
        try:
            return list(map(self.__getitem__, zip(map(type, cells), cells, strict=True)))
        except TypeError:  # a list, which is no key
            return [_SLOW if isinstance(cell, list) else self[type(cell), cell] for cell in cells]


def _check_chunk(chunk: Chunk, first: int, merchants: Sequence[str], words: Mapping[str, _Words], found: _Found) -> int:
    count = len(chunk["account_id"])
    cells = {name: chunk[name] if name in chunk else [None] * count for name in LEDGER_COLUMNS}
    said = {
        name: words[name].of_column(column) if name in words else list(_PLAIN[name](column))
        for name, column in cells.items()
    }
    slow = {place for column in said.values() if _SLOW in column for place, one in enumerate(column) if one is _SLOW}
    slow.update(
        place
        for place, (amount, currency) in enumerate(zip(said["exposure_minor"], said["currency"], strict=True))
        if currency is None and amount is not None
    )
    for place in slow:
        row = {name: column[place] for name, column in cells.items()}
        values, problems = read_cells(row, merchants)
        found.keys[first + place] = shown_key(row["account_id"])
        if problems:
            found.problems[first + place] = problems
        for name, column in said.items():
            column[place] = _storable(values.get(name))
    numbers = pa.array(range(first, first + count), pa.int64())
    ids = pa.table({"merchant": said["merchant"], "account_id": said["account_id"], "number": numbers}, schema=_IDS)
    found.ids.append(ids.filter(pc.and_(pc.is_valid(ids["merchant"]), pc.is_valid(ids["account_id"]))))
    columns = {
        _NAMES.get(name, name): pa.array(values, _SCHEMA.field(_NAMES.get(name, name)).type)
        for name, values in said.items()
    }
    found.rows.append(pa.table([*(columns[name] for name in _SCHEMA.names), numbers], schema=_SCHEMA.append(_NUMBER)))
    return count


_NUMBER = pa.field("number", pa.int64())
_IDS = pa.schema([("merchant", pa.string()), ("account_id", pa.string()), _NUMBER])


def _storable(value: Any) -> Any:
    return join_words(value) if isinstance(value, tuple) else value


def _plain_ids(cells: Sequence[Any]) -> Iterator[Any]:
    return (cell if type(cell) is str and _PLAIN_ID(cell) else _SLOW for cell in cells)


def _plain_references(cells: Sequence[Any]) -> Iterator[Any]:
    return (
        cell
        if cell is None or (type(cell) is str and _PLAIN_REFERENCE(cell))
        else None
        if type(cell) is str and not cell
        else _SLOW
        for cell in cells
    )


def _plain_amounts(cells: Sequence[Any]) -> Iterator[Any]:
    return (
        cell if cell is None or (type(cell) is int and -LARGEST_AMOUNT <= cell <= LARGEST_AMOUNT) else _SLOW
        for cell in cells
    )


_PLAIN: Mapping[str, Callable[[Sequence[Any]], Iterator[Any]]] = {
    "account_id": _plain_ids,
    "account_holder_id": _plain_ids,
    "exposure_minor": _plain_amounts,
    "reference": _plain_references,
}


def _repeated(ids: list[pa.Table]) -> Iterator[tuple[int, str, int]]:
    """Each row whose account stands in an earlier row of the same merchant: its number, its account and that earlier row's number."""
    if not ids:
        return
    whole = pa.concat_tables(ids)
    if (
        pc.count_distinct(whole["account_id"]).as_py() == whole.num_rows
    ):  # a fifth of the memory that the groups below take
        return
    pair = ["merchant", "account_id"]
    counted = whole.group_by(pair).aggregate([("number", "count"), ("number", "min")])
    if counted.num_rows == whole.num_rows:
        return
    several = counted.filter(pc.greater(counted["number_count"], 1)).select([*pair, "number_min"])
    for row in whole.join(several, pair, join_type="inner").to_pylist():
        if row["number"] != row["number_min"]:
            yield row["number"], row["account_id"], row["number_min"]
