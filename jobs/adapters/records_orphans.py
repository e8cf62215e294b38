"""Sessions that something else made, and up to when the events are read that tell of them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import select, update

from jobs.adapters.database import Database
from jobs.adapters.tables import foreign_sessions, merchants
from reconcile.model import Scope
from reconcile.orphans import ForeignSession

_COLUMNS = ("session_id", "authorization_id", "account_holder_id", "seen_at", "why")


def events_read_to(database: Database, scope: Scope) -> datetime | None:
    """Up to when the events of this merchant were read and all that they told was looked at; None if never."""
    chosen = (merchants.c.merchant == scope.merchant, merchants.c.mode == scope.mode)
    with database.read() as connection:
        moment: datetime | None = connection.execute(select(merchants.c.events_read_to).where(*chosen)).scalar()
    return moment


def mark_events_read(database: Database, scope: Scope, moment: datetime) -> None:
    """Record up to when events need not be read again."""
    chosen = (merchants.c.merchant == scope.merchant, merchants.c.mode == scope.mode)
    database.run(lambda connection: connection.execute(update(merchants).where(*chosen).values(events_read_to=moment)))


def foreign_sessions_since(database: Database, scope: Scope, since: datetime) -> list[ForeignSession]:
    """The foreign sessions that events told of since a moment, oldest first."""
    table = foreign_sessions
    statement = (
        select(*(table.c[name] for name in _COLUMNS))
        .where(table.c.merchant == scope.merchant, table.c.mode == scope.mode, table.c.seen_at >= since)
        .order_by(table.c.seen_at, table.c.session_id)
    )
    with database.read() as connection:
        return [ForeignSession(**row._mapping) for row in connection.execute(statement)]


def add_foreign_sessions(database: Database, scope: Scope, sessions: Iterable[ForeignSession]) -> None:
    """Record sessions that belong to no request; one that is recorded stays as it is."""
    rows = [
        {"merchant": scope.merchant, "mode": scope.mode, **{name: getattr(one, name) for name in _COLUMNS}}
        for one in sessions
    ]
    if rows:
        statement = database.insert(foreign_sessions).on_conflict_do_nothing()
        database.run(lambda connection: connection.execute(statement, rows))
