"""Publishes a simulated quarter: ninety business dates with everything that lies about in a reports directory besides good nights."""

from __future__ import annotations

import random
import shutil
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path

import pyarrow.parquet as pq

from reports.columns import TABLES
from reports.files import ReportDirectory
from reports.summary import MerchantRun
from tests.reports.factories import STAMP, facts
from tests.reports.page_world import MERCHANTS, tables_of

NIGHTS = 90
FIRST = date(2026, 8, 25)
LAST = FIRST + timedelta(days=NIGHTS - 1)

OLD_NIGHTS = 30
"""So many of the first nights were written by an older version, which had one column less in each table."""

STOPPED, MISSING, COLLECTED, TWICE, MENDED = (FIRST + timedelta(days=days) for days in (40, 41, 42, 50, 60))
"""Dates on which the run stopped, nothing ran, only a collect ran, a second run followed, a run stopped before a complete one."""

ADDED = {**{name: contract.names[-1] for name, contract in TABLES.items()}, "accounts": "reference"}
"""The column of each table that the older version did not have; of accounts one that every row fills."""


@dataclass(frozen=True, slots=True)
class Quarter:
    """Where it lies, the newest complete run of each date, and all runs that left tables, oldest first."""

    root: Path
    nights: dict[date, str]
    runs: list[tuple[date, str]]

    def path(self, on: date, run_id: str) -> Path:
        """The directory of a report."""
        return self.root / f"run_date={on}" / f"run_id={run_id}"


def publish_quarter(root: Path, seed: int = 11) -> Quarter:
    """Ninety nights of some forty accounts each."""
    chance = random.Random(seed)
    quarter = Quarter(root, {}, [])
    for days in range(NIGHTS):
        on = FIRST + timedelta(days=days)
        if on in (STOPPED, MENDED):
            _publish(quarter, chance, on, 0, "run", stopped=True)
        if on == COLLECTED:
            _publish(quarter, chance, on, 1, "collect")
        if on in (STOPPED, MISSING, COLLECTED):
            continue
        _publish(quarter, chance, on, 1, "run")
        if on == TWICE:
            _publish(quarter, chance, on, 2, "run")
        if days % 10 == 0:
            _publish(quarter, chance, on, 3, "collect")
            _publish(quarter, chance, on, 4, "run", dry_run=True)
    for on, run_id in quarter.runs:
        if on < FIRST + timedelta(days=OLD_NIGHTS):
            _make_older(quarter.path(on, run_id))
    _leave_things_about(quarter)
    return quarter


def _publish(
    quarter: Quarter,
    chance: random.Random,
    on: date,
    number: int,
    command: str,
    *,
    stopped: bool = False,
    dry_run: bool = False,
) -> None:
    run_id = f"{on:%Y%m%d}T03{number}000Z-{number:04x}"
    merchants = [MerchantRun(name, "sandbox", None) for name in MERCHANTS]
    stamp = replace(STAMP, run_id=run_id, business_date=on, command=command, dry_run=dry_run)
    reports = ReportDirectory(quarter.root, formats=("parquet",))
    run = facts(stamp=stamp, merchants=merchants)
    if stopped:
        reports.publish_stopped(replace(run, complete=False, why="the ledger is away"))
        return
    reports.publish(run, tables_of(chance, on, size=24))
    if not dry_run:
        quarter.runs.append((on, run_id))
        if command == "run":
            quarter.nights[on] = run_id


def _make_older(directory: Path) -> None:
    for name, column in ADDED.items():
        path = directory / f"{name}.parquet"
        table = pq.ParquetFile(path).read().drop_columns([column])
        metadata = {**(table.schema.metadata or {}), b"schema_version": b"0"}
        pq.write_table(table.replace_schema_metadata(metadata), path)


def _leave_things_about(quarter: Quarter) -> None:
    """What the job keeps there for itself, and what a run that died and a run that was replaced leave."""
    run = quarter.path(LAST, quarter.nights[LAST])
    for place in ("_snapshots/main", "_plans", f"{run.parent.name}/.{run.name}.0a1b2c3d.partial"):
        (quarter.root / place).mkdir(parents=True)
        shutil.copy(run / "accounts.parquet", quarter.root / place)
