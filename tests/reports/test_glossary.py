"""Every column and every value is explained, once, and the README, the Parquet files and the code say the same."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import get_args

import pyarrow.parquet as pq
import pytest

from jobs.settings import Cause, Reason
from reconcile.classify import ACTIONS
from reconcile.model import AFFECTED, Finding, NextStep, OutcomeKind, Result
from reports.closed_lists import ALL_LISTS, CLOSED_LISTS
from reports.columns import TABLES
from reports.glossary import TERMS, about_column, about_value, column_of, entries, markdown
from reports.parquet_files import parquet_chunks

PARQUET_RUN = "20261122T033000Z-ab12"


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("finding", Finding),
        ("next_step", NextStep),
        ("result", Result),
        ("outcome", OutcomeKind),
        ("reason", AFFECTED),
        ("cause", get_args(Cause)),
        ("action", ACTIONS),
    ],
)
def test_every_value_that_the_code_knows_is_explained(name: str, values: Iterable[str]) -> None:
    assert list(ALL_LISTS[name]) == [str(value) for value in values]


def test_every_reason_of_the_settings_is_explained() -> None:
    assert set(ALL_LISTS["reason"]) == set(get_args(Reason))


def test_every_meaning_is_a_plain_sentence() -> None:
    """One that starts like a sentence, ends like one, and has no mark that Markdown or a table would take for its own."""
    for entry in entries():
        first, last = entry.meaning[0], entry.meaning[-1]
        assert (first.isupper(), last) == (True, "."), entry
        assert not set("|`*<>\n") & set(entry.meaning), entry


def test_every_column_names_a_list_that_there_is() -> None:
    named = {column.values for contract in TABLES.values() for column in contract.columns if column.values}
    assert named == set(ALL_LISTS)


def test_the_glossary_has_each_line_once() -> None:
    lines = [(entry.where, entry.term) for entry in entries()]
    assert len(set(lines)) == len(lines)
    columns = sum(len(contract.columns) for contract in TABLES.values())
    assert len(lines) == len(TERMS) + columns + sum(len(values) for values in ALL_LISTS.values())


def test_what_is_not_known_has_no_meaning() -> None:
    assert about_value("cause", "a word of next year") is None
    assert about_value("cause", None) is None
    assert about_value("finding", "ok") == "Nothing is wrong with the account."
    with pytest.raises(KeyError, match=r"accounts\.no_such"):
        column_of("accounts", "no_such")
    assert about_column(column_of("accounts", "days_inactive")).endswith("Unit: days.")


def test_markdown_names_every_column_and_value_once_in_its_table() -> None:
    sections = {part.splitlines()[0].strip("`"): part for part in markdown().split("### ")[1:]}
    for name, contract in TABLES.items():
        assert first_cells(sections[name]) == [f"`{column}`" for column in contract.names]
    for name, values in ALL_LISTS.items():
        assert first_cells(sections[name]) == [f"`{value}`" for value in values]


def first_cells(section: str) -> list[str]:
    return [line.split("|")[1].strip() for line in section.splitlines() if line.startswith("| `")]


@pytest.mark.parametrize("name", TABLES)
def test_a_parquet_file_explains_its_own_columns(tmp_path: Path, name: str) -> None:
    contract = TABLES[name]
    path = tmp_path / f"{name}.parquet"
    path.write_bytes(b"".join(parquet_chunks(contract.schema.empty_table(), contract, PARQUET_RUN)))
    for field, column in zip(pq.read_schema(path), contract.columns, strict=True):
        metadata = {key.decode(): value.decode() for key, value in field.metadata.items()}
        assert metadata["description"] == column.meaning
        assert metadata.get("unit", "") == column.unit
        if column.values is None:
            assert "values" not in metadata
        else:
            assert json.loads(metadata["values"]) == ALL_LISTS[column.values]
            assert metadata["values_are"] == ("closed" if column.values in CLOSED_LISTS else "open")
