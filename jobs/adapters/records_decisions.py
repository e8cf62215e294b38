"""What was decided about whom and how long it stood: a row only where a decision changed, so that quiet nights add nothing."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, datetime
from itertools import islice

from sqlalchemy import ColumnElement, Connection, and_, bindparam, select, update

from jobs.adapters.bulk import insert_all
from jobs.adapters.database import Database
from jobs.adapters.tables import decisions as table
from reconcile.decisions import Decision
from reconcile.model import Scope

_IDS_PER_QUERY = 500
_SAID = ("authorization_id", "account_id", "finding", "next_step", "detail")


@dataclass(frozen=True, slots=True)
class StoredDecision:
    """A decision from a business date until another one, that one left out; `until_date` and `ended_at` are None while it stands."""

    decision: Decision
    since_date: date
    until_date: date | None
    decided_at: datetime
    ended_at: datetime | None
    run_id: str


def record_changed_decisions(
    database: Database,
    scope: Scope,
    run_id: str,
    business_date: date,
    at: datetime,
    tonight: Collection[Decision],
    only: Collection[str] | None = None,
) -> int:
    """End the decisions that stand no more and record the new ones, in bulk; return how many changed.

    Args:
        only: the authorizations that were decided about; what stands of others goes on standing.
    """
    meant = None if only is None else set(only)

    def work(connection: Connection) -> int:
        rows = connection.execute(select(*(table.c[name] for name in _SAID)).where(*_of(scope), _stands()))
        standing = {Decision(*row) for row in rows if meant is None or row.authorization_id in meant}
        decided = {_storable(one) for one in tonight if meant is None or one.authorization_id in meant}
        ended, begun = standing - decided, decided - standing
        if ended:
            chosen = (table.c.authorization_id == bindparam("of"), table.c.account_id == bindparam("of_account"))
            statement = update(table).where(*_of(scope), _stands(), *chosen)
            connection.execute(
                statement.values(until_date=business_date, ended_at=at),
                [{"of": one.authorization_id, "of_account": one.account_id} for one in sorted(ended)],
            )
        if begun:
            fixed: dict[str, object] = {"merchant": scope.merchant, "mode": scope.mode, "run_id": run_id}
            fixed |= {"since_date": business_date, "decided_at": at}
            insert_all(connection, table.insert(), [{**fixed, **one._asdict()} for one in sorted(begun)])
        return len(ended) + len(begun)

    return database.run(work)


def decisions_about(
    database: Database, scope: Scope, authorization_ids: Collection[str], account_ids: Collection[str] = ()
) -> list[StoredDecision]:
    """Every decision about some authorizations, and about some accounts that have none, in order of time."""
    found: list[StoredDecision] = []
    by_authorization, by_account = iter(sorted(set(authorization_ids))), iter(sorted(set(account_ids)))
    while chunk := list(islice(by_authorization, _IDS_PER_QUERY)):
        found += _stored(database, scope, table.c.authorization_id.in_(chunk))
    while chunk := list(islice(by_account, _IDS_PER_QUERY)):
        found += _stored(database, scope, and_(table.c.authorization_id == "", table.c.account_id.in_(chunk)))
    return sorted(found, key=lambda one: (one.decided_at, one.ended_at is None, one.ended_at, one.decision))


def _stored(database: Database, scope: Scope, chosen: ColumnElement[bool]) -> list[StoredDecision]:
    with database.read() as connection:
        return [
            StoredDecision(
                Decision(*(row[name] for name in _SAID)),
                row["since_date"],
                row["until_date"],
                row["decided_at"],
                row["ended_at"],
                row["run_id"],
            )
            for row in connection.execute(select(table).where(*_of(scope), chosen)).mappings()
        ]


def _storable(one: Decision) -> Decision:
    """The decision as it is read back, so that text which no database holds is no change every night."""
    return one._replace(detail=one.detail.replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8"))


def _of(scope: Scope) -> tuple[ColumnElement[bool], ...]:
    return (table.c.merchant == scope.merchant, table.c.mode == scope.mode)


def _stands() -> ColumnElement[bool]:
    return table.c.ended_at.is_(None)
