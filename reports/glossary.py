"""Says what every column and every listed value means, wherever that is asked for: README, workbook, page and Parquet metadata.

The sentences stand in `reports/columns.py` and `reports/closed_lists.py`, each once. `python -m reports.glossary` prints them for
the README.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa

from reports.closed_lists import ALL_LISTS, CLOSED_LISTS
from reports.columns import TABLES
from reports.contract import TYPE_NAMES, Column, TableContract

TERMS: Mapping[str, str] = {
    "affected": "An account that a relink can cure: its finding is inactive, account_number, expiring or permissions.",
    "authorization": "One login at one institution, with which a customer connected one account or several.",
    "breakage": "One outage of one authorization: of its connection, its account numbers or its permissions.",
    "business date": "The date, in the time zone of the settings, that a run stands for; all days are counted between such dates.",
    "complete": "Everything was read to its end and the run reached its report.",
    "cured": "What was wrong with the account when the customer was asked is no longer so.",
    "held": "A brake keeps requests back until a person releases them, because so much broke at once.",
    "money at stake": "The exposure of the affected accounts that the ledger has open, for each currency by itself.",
    "needs a person": "The job will do nothing more about it, or must not, until somebody has looked.",
    "request": "One session that Stripe was asked for, so that one customer can relink one authorization.",
    "dry run": "Decides like any run, but asks nobody and records nothing.",
    "control total": "One number counted twice, in the report and where it came from; if the two differ, do not trust the report.",
}
"""Words that the reports use and no column is named after, in the order in which they are listed."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the glossary: `where` it is met, the `term`, and the plain sentence."""

    where: str
    term: str
    meaning: str


def column_of(table: str, column: str) -> Column:
    """The column of a table.

    Raises:
        KeyError: there is no such table or column.
    """
    return _column(TABLES[table], column)


def _column(contract: TableContract, name: str) -> Column:
    """The column of that name."""
    for column in contract.columns:
        if column.name == name:
            return column
    raise KeyError(f"{contract.name}.{name}")


def about_column(column: Column) -> str:
    """What a column says, with its unit."""
    return f"{column.meaning} Unit: {column.unit}." if column.unit else column.meaning


def about_value(name: str, value: str | None) -> str | None:
    """What a value of a list says; None where it is no value that this version knows.

    `name` is a list's name, such as `finding`, `next_step`, `outcome` or `failure_reason`.
    """
    return None if value is None else ALL_LISTS[name].get(value)


def about_term(term: str) -> str:
    """What a word of the reports means.

    Raises:
        KeyError: there is no such word.
    """
    return TERMS[term]


def entries() -> Iterator[Entry]:
    """Every line of the glossary: words first, then the columns of each table, then the values of each list."""
    for term, meaning in TERMS.items():
        yield Entry("all", term, meaning)
    for contract in TABLES.values():
        for column in contract.columns:
            yield Entry(contract.name, column.name, about_column(column))
    for name, values in ALL_LISTS.items():
        for value, meaning in values.items():
            yield Entry(f"{name} =", value, meaning)


def described(contract: TableContract) -> pa.Schema:
    """The contract's schema with the glossary in each field's metadata.

    Every field has `description`; `unit` and `values` (a JSON object, value to meaning) where there are any; `values_are` is
    `closed` where no other value can occur, or `open`.
    """
    return pa.schema(
        [
            field.with_metadata(_metadata(column))
            for field, column in zip(contract.schema, contract.columns, strict=True)
        ]
    )


def _metadata(column: Column) -> dict[str, str]:
    metadata = {"description": column.meaning}
    if column.unit:
        metadata["unit"] = column.unit
    if column.values:
        metadata["values"] = json.dumps(dict(ALL_LISTS[column.values]), ensure_ascii=False)
        metadata["values_are"] = "closed" if column.values in CLOSED_LISTS else "open"
    return metadata


def markdown() -> str:
    """The column tables, lists and words as Markdown, for the README."""
    return "\n".join(_markdown_lines()) + "\n"


def _markdown_lines() -> Iterator[str]:
    for contract in TABLES.values():
        yield from (f"### `{contract.name}`", "", f"A row is {contract.row}.", "")
        yield from ("| column | type | unit | meaning |", "|---|---|---|---|")
        for column in contract.columns:
            yield f"| `{column.name}` | {TYPE_NAMES[column.type]} | {column.unit} | {column.meaning}{_reference(column)} |"
        yield ""
    for name, values in ALL_LISTS.items():
        grows = [] if name in CLOSED_LISTS else ["Others may come; these are known.", ""]
        yield from (f"### {name}", "", *grows, "| value | meaning |", "|---|---|")
        yield from (f"| `{value}` | {meaning} |" for value, meaning in values.items())
        yield ""
    yield from ("### Words", "", "| word | meaning |", "|---|---|")
    yield from (f"| {term} | {meaning} |" for term, meaning in TERMS.items())
    yield ""


def _reference(column: Column) -> str:
    if column.values is None:
        return ""
    known = "One of" if column.values in CLOSED_LISTS else "Known words:"
    return f" {known} [{column.values}](#{column.values})."


if __name__ == "__main__":
    sys.stdout.write(markdown())
