"""Removes what is older than `retention` keeps: snapshots, reports, plan files and records.

Records go before their files, so that a crash in between leaves a file without a record, which the next pruning removes, and never
a record without its file.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from jobs.adapters import records
from jobs.adapters.database import Database
from jobs.adapters.old_files import (
    OldFile,
    is_ours,
    plan_files,
    remove_file,
    remove_report,
    report_directories,
    snapshot_files,
)
from jobs.settings import Settings
from jobs.wiring import PLAN_DIRECTORY, SNAPSHOT_DIRECTORY
from reconcile.errors import OutsideError

logger = logging.getLogger(__name__)

WINDOW_DAYS = 31
"""Business dates before a night on which its report and its provisional outcomes rest."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was removed, or would be: paths by kind, numbers of rows by kind; `kept` are old reports with something else in them."""

    snapshots: list[Path] = field(default_factory=list)
    reports: list[Path] = field(default_factory=list)
    dry_runs: list[Path] = field(default_factory=list)
    plans: list[Path] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    kept: list[Path] = field(default_factory=list)


def prune(settings: Settings, database: Database, now: datetime, *, dry_run: bool = False) -> Pruned:
    """Remove what is too old, or only say what would be; call it under the lock.

    Raises:
        OutsideError: the disk refused; what was removed before stays removed, and the next time goes on.
        DatabaseError: the records cannot be changed.
    """
    today = now.astimezone(ZoneInfo(settings.schedule.timezone)).date()
    chosen, root = settings.retention, settings.reports.directory
    pruned = Pruned()
    unfinished = records.unfinished_run_ids(database)
    old_snapshots = _old_snapshots(database, today, chosen.snapshots_days)
    kept_paths = records.kept_snapshot_paths(database) - set(old_snapshots.values())
    before = _rows_before(settings, database, today, old_snapshots)
    pruned.rows.update(records.remove_old_rows(database, set(old_snapshots), before, dry_run=dry_run))
    # Snapshots without a record are of runs that stopped after their pull, or of a pruning that was cut short.
    snapshots = root / SNAPSHOT_DIRECTORY
    found = _older(snapshot_files(snapshots), today, chosen.snapshots_days, unfinished)
    unrecorded = [one for one in found if str(one.path.relative_to(snapshots)) not in kept_paths]
    _remove(unrecorded, remove_file, pruned.snapshots, dry_run=dry_run)
    for directory, days, removed in (
        (root, chosen.reports_days, pruned.reports),
        (root / "dry_run=true", chosen.dry_runs_days, pruned.dry_runs),
    ):
        old = _older(report_directories(directory), today, days, unfinished)
        pruned.kept.extend(one.path for one in old if not is_ours(one))
        _remove([one for one in old if is_ours(one)], remove_report, removed, dry_run=dry_run)
    old = _older(plan_files(root / PLAN_DIRECTORY), today, chosen.dry_runs_days, set())
    _remove(old, remove_file, pruned.plans, dry_run=dry_run)
    return pruned


def prune_after_run(settings: Settings, database: Database, now: datetime) -> None:
    """Prune at the end of a night, which it must not fail: the next night tries again."""
    try:
        pruned = prune(settings, database, now)
    except Exception as error:
        logger.warning("what is too old could not be removed: %s", error)
        return
    files = len(pruned.snapshots) + len(pruned.reports) + len(pruned.dry_runs) + len(pruned.plans)
    if files or any(pruned.rows.values()):
        logger.info("removed %d old files and reports and %d old records", files, sum(pruned.rows.values()))


def _old_snapshots(database: Database, today: date, days: int | None) -> dict[str, str]:
    """The paths of the snapshots on record that may go, by their ids."""
    if days is None:
        return {}
    return {one.snapshot_id: one.path for one in records.prunable_snapshots(database, today - timedelta(days=days))}


def _rows_before(settings: Settings, database: Database, today: date, leaving: Collection[str]) -> date | None:
    """The business date before which records may go: older than the settings keep, and than all that still rests on them."""
    if settings.retention.runs_days is None:
        return None
    hosted_days = -(-settings.relink.hosted_interval_hours // 24) + 1
    guards = max(settings.relink.cooldown_days, settings.relink.pending_days, hosted_days)
    before = today - timedelta(days=max(settings.retention.runs_days, WINDOW_DAYS, guards) + 1)
    oldest = records.oldest_snapshot_date(database, leaving)
    return before if oldest is None else min(before, oldest - timedelta(days=WINDOW_DAYS + guards))


def _older(found: Iterable[OldFile], today: date, days: int | None, unfinished: set[str]) -> list[OldFile]:
    if days is None:
        return []
    before = today - timedelta(days=days)
    return [one for one in found if one.day < before and one.run_id not in unfinished]


def _remove(old: Iterable[OldFile], remove: Callable[[OldFile], None], removed: list[Path], *, dry_run: bool) -> None:
    for one in old:
        try:
            if not dry_run:
                remove(one)
        except OSError as error:
            raise OutsideError(
                f"{one.path} is too old to keep and cannot be removed ({error.strerror or error}): let the user that runs the job "
                "write there, or remove it"
            ) from None
        removed.append(one.path)
