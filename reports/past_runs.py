"""Finds the reports that were there before a run, and reads what they hold; the same ones however often its page is built again.

A run's id begins with its time, so that the reports before it are those of smaller ids, for its own date or earlier ones.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from reconcile.model import REPORT_WINDOW_DAYS

_DATE_NAME = re.compile(r"run_date=(\d{4}-\d{2}-\d{2})")
_RUN_NAME = re.compile(r"run_id=(.+)")

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
    found = []
    for directory in root.glob("run_date=*/run_id=*"):
        day, name = _DATE_NAME.fullmatch(directory.parent.name), _RUN_NAME.fullmatch(directory.name)
        if day is None or name is None or name[1] >= run_id:
            continue
        try:
            on = date.fromisoformat(day[1])
            if not first <= on <= last:
                continue
            manifest = json.loads((directory / "manifest.json").read_bytes())
            one = PastRun(directory, name[1], on, str(manifest["command"]), manifest["complete"] is True)
        except (OSError, ValueError, KeyError, TypeError):
            continue
        found.append(one)
    return sorted(found, key=lambda one: (one.run_date, one.run_id))


def bases(runs: Sequence[PastRun]) -> list[PastRun]:
    """For each business date its newest report of a complete run, or a rebuilt one where it had none; oldest first."""
    chosen: dict[date, PastRun] = {}
    for one in runs:
        before = chosen.get(one.run_date)
        if one.is_base and (before is None or one.command != "backfill" or before.command == "backfill"):
            chosen[one.run_date] = one
    return list(chosen.values())


def read_columns(path: Path, columns: Sequence[str]) -> pa.Table | None:
    """Some columns of a published Parquet table, or None where it is missing, damaged or of a version without them."""
    try:
        with pq.ParquetFile(path) as file:
            return file.read(columns=list(columns)).select(list(columns))
    except (OSError, ValueError, KeyError):
        return None


def read_summary(directory: Path) -> Mapping[str, object] | None:
    """The summary of a published report, or None where there is none to be read."""
    try:
        summary = json.loads((directory / "summary.json").read_bytes())
    except (OSError, ValueError):
        return None
    return summary if isinstance(summary, dict) else None
