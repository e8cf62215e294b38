"""Which complete snapshots there are, and where each lies."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from sqlalchemy import Select, func, select

from jobs.adapters.database import Database
from jobs.adapters.tables import snapshots
from reconcile.model import Scope


@dataclass(frozen=True, slots=True)
class SnapshotRecord:
    """Where a complete snapshot lies (`path` is relative to the snapshot directory), what it holds, and how it was obtained.

    `obtained` is full or incremental, and the snapshot is whole either way. An incremental one was made from `base_snapshot_id`. `full_date` is the
    business date of the full pull that it rests on. `server_from` and `server_to` are Stripe's own time before its first page was read
    and after the last. `drift` counts the accounts of which a full pull found what increments before it had missed.
    """

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
    obtained: str = "full"
    base_snapshot_id: str | None = None
    full_date: date | None = None
    server_from: datetime | None = None
    server_to: datetime | None = None
    drift: int | None = None


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
    database: Database,
    scope: Scope,
    before: datetime | None = None,
    on_or_before: date | None = None,
    obtained: str | None = None,
) -> SnapshotRecord | None:
    """The newest complete snapshot of a merchant, or the newest one completed before a moment, or of a business date or an earlier one, or obtained in that way."""
    statement = _of(scope).order_by(snapshots.c.completed_at.desc()).limit(1)
    if before is not None:
        statement = statement.where(snapshots.c.completed_at < before)
    if on_or_before is not None:
        statement = statement.where(snapshots.c.business_date <= on_or_before)
    if obtained is not None:
        statement = statement.where(snapshots.c.obtained == obtained)
    return next(iter(_snapshots(database, statement)), None)


def drift_since(database: Database, scope: Scope, first: date) -> int:
    """How many accounts full pulls since a business date found to have drifted from the increments before them, all together."""
    statement = select(func.coalesce(func.sum(snapshots.c.drift), 0)).where(
        snapshots.c.merchant == scope.merchant, snapshots.c.mode == scope.mode, snapshots.c.business_date >= first
    )
    with database.read() as connection:
        return int(connection.execute(statement).scalar_one())


def snapshots_between(database: Database, scope: Scope, first: date, last: date) -> list[SnapshotRecord]:
    """A merchant's snapshots of the business dates from `first` to `last`, oldest first."""
    statement = _of(scope).where(snapshots.c.business_date.between(first, last))
    return _snapshots(database, statement.order_by(snapshots.c.business_date, snapshots.c.completed_at))


def _of(scope: Scope) -> Select[Any]:
    return select(snapshots).where(snapshots.c.merchant == scope.merchant, snapshots.c.mode == scope.mode)


def _snapshots(database: Database, statement: Select[Any]) -> list[SnapshotRecord]:
    with database.read() as connection:
        return [SnapshotRecord(**row) for row in connection.execute(statement).mappings()]
