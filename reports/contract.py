"""What a report table is made of: typed columns in a fixed order, and the version of them all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

SCHEMA_VERSION = 4
"""Raised by one whenever a column is added. That is the only change: a column is never removed, renamed, moved or given another type or
meaning, since a new one can be added after the last. So files of all versions are read together by the names of their columns,
and what an older one lacks is null. Descriptions in the metadata are no columns, and may change at any time."""

TEXT = pa.string()
TEXTS = pa.list_(pa.string())
WHOLE = pa.int64()
REAL = pa.float64()
DATE = pa.date32()
TIME = pa.timestamp("us", tz="UTC")
FLAG = pa.bool_()

TYPE_NAMES: Mapping[pa.DataType, str] = {
    TEXT: "text",
    TEXTS: "list of texts",
    WHOLE: "whole number",
    REAL: "number",
    DATE: "date",
    TIME: "time",
    FLAG: "true or false",
}


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a report.

    `values` names the list of `reports/closed_lists.py` that the cells are taken from; `free_text` marks words that people outside
    wrote, which are masked once more before they are written.
    """

    name: str
    type: pa.DataType
    unit: str
    meaning: str
    values: str | None = None
    free_text: bool = False


@dataclass(frozen=True, slots=True)
class TableContract:
    """One report table: what a row is, its columns in order, and the columns by which rows are ordered and told apart."""

    name: str
    row: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema, the same whatever the data."""
        return pa.schema([pa.field(column.name, column.type) for column in self.columns])

    @property
    def names(self) -> tuple[str, ...]:
        """The column names in order."""
        return tuple(column.name for column in self.columns)


def conform(table: pa.Table, contract: TableContract) -> pa.Table:
    """Return the table if its columns are exactly the contract's, in order and type.

    Raises:
        ValueError: naming what differs.
    """
    if not table.schema.equals(contract.schema, check_metadata=False):
        raise ValueError(f"{contract.name}: columns are\n{table.schema.remove_metadata()}\nexpected\n{contract.schema}")
    return table
