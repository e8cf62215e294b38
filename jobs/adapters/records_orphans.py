"""Sessions that something else made, and up to when the events are read that tell of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from sqlalchemy import select, update

from jobs.adapters.database import Database
from jobs.adapters.tables import foreign_sessions, merchants
from jobs.adapters.tables import refused_sessions as refused
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


_IDS_PER_QUERY = 500


@dataclass(frozen=True, slots=True)
class RefusedSession:
    """A listed session that cannot be followed and why; with an authorization, for as long as that is not known."""

    session_id: str
    authorization_id: str | None
    why: str


def refused_sessions(database: Database, scope: Scope, session_ids: Iterable[str]) -> dict[str, RefusedSession]:
    """Those of these sessions that were refused before, by id."""
    found: dict[str, RefusedSession] = {}
    left = iter(session_ids)
    with database.read() as connection:
        while chunk := list(islice(left, _IDS_PER_QUERY)):
            statement = select(refused.c.session_id, refused.c.authorization_id, refused.c.why).where(
                refused.c.merchant == scope.merchant, refused.c.mode == scope.mode, refused.c.session_id.in_(chunk)
            )
            found |= {row.session_id: RefusedSession(**row._mapping) for row in connection.execute(statement)}
    return found


def add_refused_sessions(database: Database, scope: Scope, sessions: Iterable[RefusedSession], at: datetime) -> None:
    """Record listed sessions that cannot be followed; one that is recorded stays as it is."""
    rows = [
        {
            "merchant": scope.merchant,
            "mode": scope.mode,
            "session_id": one.session_id,
            "authorization_id": one.authorization_id,
            "refused_at": at,
            "why": one.why,
        }
        for one in sessions
    ]
    if rows:
        statement = database.insert(refused).on_conflict_do_nothing()
        database.run(lambda connection: connection.execute(statement, rows))
