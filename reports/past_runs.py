"""Finds the reports of earlier runs and reads single files of them.

A run's id begins with its time, so that the reports before it are those of smaller ids, for its own date or earlier ones: they are
the same however often its page is built again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from reconcile.model import REPORT_WINDOW_DAYS
from reports.columns import TABLES
from reports.contract import SCHEMA_VERSION

_DATE_NAME, _RUN_NAME = "run_date=", "run_id="

COMPLETE_COMMANDS = ("run", "apply", "resume", "backfill")
"""Commands whose complete reports describe every account of a business date."""


@dataclass(frozen=True, slots=True)
class PastRun:
    """One published report of an earlier moment; `path` is its directory."""

    path: Path
    run_id: str
    run_date: date
    command: str
    complete: bool

    @property
    def is_base(self) -> bool:
        """Whether it describes a whole business date, so that a later one can be compared with it."""
        return self.complete and self.command in COMPLETE_COMMANDS

    @property
    def name(self) -> str:
        """Its place below the reports directory."""
        return f"{self.path.parent.name}/{self.path.name}"


def past_runs(root: Path, run_id: str, run_date: date, command: str) -> list[PastRun]:
    """The reports of the 30 business dates up to a run that were published before it, oldest first; dry runs are none.

    A backfill looks at earlier dates only, since its own date's first report is what it rebuilds. What is no report of ours, or
    has no readable manifest, is passed over.
    """
    first = run_date - timedelta(days=REPORT_WINDOW_DAYS - 1)
    last = run_date - timedelta(days=1) if command == "backfill" else run_date
    return [one for one in runs_between(root, first, last) if one.run_id < run_id]


def runs_between(root: Path, first: date, last: date) -> list[PastRun]:
    """The published reports of some business dates, oldest first; dry runs are none."""
    found = []
    for on in (first + timedelta(days=passed) for passed in range((last - first).days + 1)):
        for directory in sorted((root / f"run_date={on.isoformat()}").glob(f"{_RUN_NAME}*")):
            try:
                manifest = json.loads((directory / "manifest.json").read_bytes())
                name, complete = directory.name.removeprefix(_RUN_NAME), manifest["complete"] is True
                found.append(PastRun(directory, name, on, str(manifest["command"]), complete))
            except (OSError, ValueError, KeyError, TypeError):
                continue
    return found


def named_run(root: Path, name: str, command: str, *, complete: bool) -> PastRun:
    """A report by its place below the reports directory, whether it is still there or not."""
    on, _, directory = name.partition("/")
    run_date = date.fromisoformat(on.removeprefix(_DATE_NAME))
    return PastRun(root / name, directory.removeprefix(_RUN_NAME), run_date, command, complete)


def dates_of(root: Path) -> list[date]:
    """The business dates of which there are reports, in order; dry runs' are none."""
    found = []
    for directory in root.glob(f"{_DATE_NAME}*/"):
        with suppress(ValueError):
            found.append(date.fromisoformat(directory.name.removeprefix(_DATE_NAME)))
    return sorted(found)


def newest_complete(runs: Sequence[PastRun]) -> list[PastRun]:
    """For each business date its newest report of a complete run, or a rebuilt one where it had none."""
    chosen: dict[date, PastRun] = {}
    for one in runs:
        before = chosen.get(one.run_date)
        if one.is_base and (before is None or one.command != "backfill" or before.command == "backfill"):
            chosen[one.run_date] = one
    return list(chosen.values())


def read_columns(path: Path, columns: Sequence[str]) -> pa.Table | None:
    """Some columns of a published Parquet table, or None where it is missing or damaged.

    A column that came into the table after the file was written is null throughout.
    """
    try:
        with pq.ParquetFile(path) as file:
            there = set(file.schema_arrow.names)
            table = file.read(columns=[name for name in columns if name in there])
            if not there.issuperset(columns):
                if int((file.schema_arrow.metadata or {})[b"schema_version"]) >= SCHEMA_VERSION:
                    return None
                contract = TABLES[path.stem].schema
                for name in columns:
                    if name not in there:
                        table = table.append_column(name, pa.nulls(table.num_rows, contract.field(name).type))
            return table.select(list(columns))
    except (OSError, ValueError, KeyError):
        return None


def read_summary(directory: Path) -> Mapping[str, object] | None:
    """The summary of a published report, or None where there is none to be read."""
    try:
        summary = json.loads((directory / "summary.json").read_bytes())
    except (OSError, ValueError):
        return None
    return summary if isinstance(summary, dict) else None
