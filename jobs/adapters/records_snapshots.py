"""Which complete snapshots there are, and where each lies."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from sqlalchemy import Select, select

from jobs.adapters.database import Database
from jobs.adapters.tables import snapshots
from reconcile.model import Scope


@dataclass(frozen=True, slots=True)
class SnapshotRecord:
    """Where a complete snapshot lies (`path` is relative to the snapshot directory) and what it holds."""

    snapshot_id: str
    run_id: str
    merchant: str
    mode: str
    taken_at: datetime
    completed_at: datetime
    business_date: date
    accounts: int
    ledger_rows: int
    path: str
    sha256: str
    bytes: int


def record_snapshot(database: Database, record: SnapshotRecord) -> None:
    """Record a stored snapshot; the same run's second snapshot replaces its first."""
    values = {name: getattr(record, name) for name in SnapshotRecord.__slots__}
    rest = {name: value for name, value in values.items() if name != "snapshot_id"}
    statement = (
        database.insert(snapshots).values(values).on_conflict_do_update(index_elements=["snapshot_id"], set_=rest)
    )
    database.run(lambda connection: connection.execute(statement))


def snapshot(database: Database, snapshot_id: str) -> SnapshotRecord | None:
    """One snapshot's record."""
    return next(iter(_snapshots(database, select(snapshots).where(snapshots.c.snapshot_id == snapshot_id))), None)


def last_snapshot(
    database: Database, scope: Scope, before: datetime | None = None, on_or_before: date | None = None
) -> SnapshotRecord | None:
    """The newest complete snapshot of a merchant, or the newest one completed before a moment, or of a business date or an earlier one."""
    statement = _of(scope).order_by(snapshots.c.completed_at.desc()).limit(1)
    if before is not None:
        statement = statement.where(snapshots.c.completed_at < before)
    if on_or_before is not None:
        statement = statement.where(snapshots.c.business_date <= on_or_before)
    return next(iter(_snapshots(database, statement)), None)


def snapshots_between(database: Database, scope: Scope, first: date, last: date) -> list[SnapshotRecord]:
    """A merchant's snapshots of the business dates from `first` to `last`, oldest first."""
    statement = _of(scope).where(snapshots.c.business_date.between(first, last))
    return _snapshots(database, statement.order_by(snapshots.c.business_date, snapshots.c.completed_at))


def _of(scope: Scope) -> Select[Any]:
    return select(snapshots).where(snapshots.c.merchant == scope.merchant, snapshots.c.mode == scope.mode)


def _snapshots(database: Database, statement: Select[Any]) -> list[SnapshotRecord]:
    with database.read() as connection:
        return [SnapshotRecord(**row) for row in connection.execute(statement).mappings()]
