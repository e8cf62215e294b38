"""What a run left behind, read as files: rows of the records, tables of the report, its summary."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet

from tests.model.books import Books, read_books

TABLES = ("accounts", "authorizations", "relink_requests", "relink_outcomes", "account_successors", "failure_reasons")

Rows = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Evidence:
    """The records after a run, and its report where it published a complete one."""

    books: Books
    tables: dict[str, Rows] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        """Whether there is a report to judge."""
        return bool(self.summary.get("complete"))


def read_evidence(database: Path, report: Path | None) -> Evidence:
    """Read what lies there now."""
    books = read_books(database)
    if report is None:
        return Evidence(books)
    summary = json.loads((report / "summary.json").read_text())
    if not summary["complete"]:
        return Evidence(books, {}, summary)
    tables = {name: pyarrow.parquet.read_table(report / f"{name}.parquet").to_pylist() for name in TABLES}
    return Evidence(books, tables, summary)
