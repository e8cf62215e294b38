"""Gives what a table is built of the contract's types and order, with outside words masked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from reconcile.masking import mask
from reports.contract import TEXTS, TableContract, conform


def single_exposure(money: Mapping[str, int]) -> tuple[int | None, str | None]:
    """The amount and its currency where there is exactly one, since amounts of several currencies have no sum."""
    if len(money) != 1:
        return None, None
    currency, amount = next(iter(money.items()))
    return amount, currency


def sorted_once(texts: Iterable[object]) -> list[str]:
    """The texts that there are, each once, in order."""
    return sorted({text for text in texts if isinstance(text, str) and text})


def of_merchant(tables: Mapping[str, pa.Table], merchant: str) -> dict[str, pa.Table]:
    """One merchant's rows of each table; where all are, no copy of them."""
    own = {}
    for name, table in tables.items():
        theirs = pc.equal(table["merchant"], merchant)
        own[name] = table if pc.all(theirs).as_py() else table.filter(theirs)
    return own


def masked(text: str | None) -> str | None:
    """Words from outside without what must not be shown."""
    return None if text is None else mask(text)


def table_of_rows(contract: TableContract, rows: Sequence[Mapping[str, object]]) -> pa.Table:
    """The rows, each with every column, as a table."""
    return build_table(contract, {name: [row[name] for row in rows] for name in contract.names})


def build_table(contract: TableContract, columns: Mapping[str, object]) -> pa.Table:
    """Give columns the contract's order, types and order of rows, with outside words masked."""
    arrays = []
    for column in contract.columns:
        values = columns[column.name]
        array = values if isinstance(values, (pa.Array, pa.ChunkedArray)) else pa.array(values, type=column.type)
        arrays.append(mask_texts(array) if column.free_text else array)
    return in_order(conform(pa.table(arrays, schema=contract.schema), contract), contract)


def in_order(table: pa.Table, contract: TableContract) -> pa.Table:
    """The rows in the order of the contract's key."""
    # What the core gives is in order already, and sorting would copy it, a report of a million accounts with all its texts.
    ordered = (
        table if _is_in_order(table, contract.key) else table.sort_by([(name, "ascending") for name in contract.key])
    )
    return ordered.combine_chunks()


def _is_in_order(table: pa.Table, key: Sequence[str]) -> bool:
    """Whether each row's key is above that of the row before; False where that cannot be said."""
    if table.num_rows < 2:
        return True
    if any(table[name].null_count for name in key):
        return False
    above: pa.ChunkedArray | pa.Array = pa.repeat(pa.scalar(False), table.num_rows - 1)
    for name in reversed(key):
        before, after = table[name].slice(0, table.num_rows - 1), table[name].slice(1)
        above = pc.or_(pc.greater(after, before), pc.and_(pc.equal(after, before), above))
    return bool(pc.all(above).as_py())


def mask_texts(array: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Mask a column of texts or of lists of texts, each different text once."""
    flat = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    if flat.type == TEXTS:
        return pa.ListArray.from_arrays(
            flat.offsets, mask_texts(flat.values), mask=flat.is_null() if flat.null_count else None
        )
    encoded = flat.dictionary_encode()
    texts = pa.array([masked(text) for text in encoded.dictionary.to_pylist()], type=pa.string())
    return texts.take(encoded.indices)


def split_lists(joined: pa.ChunkedArray) -> pa.Array:
    """Turn texts joined by `;` into lists: an empty text into an empty list, null into null."""
    encoded = joined.combine_chunks().dictionary_encode()
    lists = [text.split(";") if text else [] for text in encoded.dictionary.to_pylist()]
    return pa.array(lists, type=TEXTS).take(encoded.indices)
