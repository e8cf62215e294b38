"""When each authorization broke and recovered, and which accounts live on under a new authorization."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import date, datetime
from typing import Any

from sqlalchemy import Row, and_, bindparam, func, or_, select, update

from jobs.adapters.bulk import insert_all
from jobs.adapters.database import Database
from jobs.adapters.tables import breakages as table
from jobs.adapters.tables import successors as successors_table
from reconcile.model import Breakage, BreakageKey, Scope, Successor


def open_breakages(database: Database, scope: Scope) -> list[Breakage]:
    """Breakages that no complete snapshot has closed yet, by key."""
    return _breakages(database, _in(scope), table.c.closed_at.is_(None))


def breakages(database: Database, scope: Scope, since: date | None = None) -> list[Breakage]:
    """Breakages opened on a business date or later, else all, by key."""
    return _breakages(database, _in(scope), *([table.c.opened_date >= since] if since is not None else []))


def breakages_as_of(database: Database, scope: Scope, moment: datetime) -> list[Breakage]:
    """Breakages that had begun by a moment and were not over before it, by key; those that closed at that very moment are among them."""
    not_over = or_(table.c.closed_at.is_(None), table.c.closed_at >= moment)
    return _breakages(database, _in(scope), table.c.opened_at <= moment, not_over)


def breakages_of(database: Database, scope: Scope, authorization_id: str) -> list[Breakage]:
    """All breakages of one authorization, by key."""
    return _breakages(database, _in(scope), table.c.authorization_id == authorization_id)


def highest_breakage_numbers(
    database: Database, scope: Scope, as_of: datetime | None = None
) -> dict[tuple[str, str], int]:
    """The highest number given so far, or by a moment, by (authorization id, kind)."""
    pair = (table.c.authorization_id, table.c.kind)
    with database.read() as connection:
        statement = select(*pair, func.max(table.c.number)).where(_in(scope)).group_by(*pair)
        if as_of is not None:
            statement = statement.where(table.c.opened_at <= as_of)
        rows = connection.execute(statement)
        return {(authorization_id, kind): number for authorization_id, kind, number in rows}


def open_breakage(database: Database, scope: Scope, *opened: Breakage) -> None:
    """Record breakages that opened; one that is there already stays as it is, so that a resumed run may say it again."""
    rows = [
        {
            "merchant": scope.merchant,
            "mode": scope.mode,
            **_key_values(breakage.key),
            **{name: getattr(breakage, name) for name in Breakage.__slots__ if name != "key"},
        }
        for breakage in opened
    ]
    if rows:
        database.run(lambda connection: insert_all(connection, database.insert(table).on_conflict_do_nothing(), rows))


def close_breakage(
    database: Database, scope: Scope, *keys: BreakageKey, at: datetime, run_id: str, reason: str
) -> None:
    """Record that breakages closed, and why; one that is closed already stays as it is."""
    values = {"closed_at": at, "closed_run_id": run_id, "closed_reason": reason}
    _update_each(database, scope, keys, table.c.closed_at, values)


def mark_eligible(database: Database, scope: Scope, *keys: BreakageKey, at: datetime) -> None:
    """Record when breakages first could have been asked about; the first time stands."""
    _update_each(database, scope, keys, table.c.eligible_at, {"eligible_at": at})


def add_successors(database: Database, scope: Scope, run_id: str, matched: Iterable[Successor], at: datetime) -> None:
    """Record accounts that live on under a new authorization; a pair that is known stays as it is."""
    rows = [
        {
            "merchant": scope.merchant,
            "mode": scope.mode,
            "run_id": run_id,
            "matched_at": at,
            **{name: getattr(successor, name) for name in Successor.__slots__},
        }
        for successor in matched
    ]
    if rows:
        database.run(
            lambda connection: connection.execute(database.insert(successors_table).on_conflict_do_nothing(), rows)
        )


def successors(database: Database, scope: Scope, as_of: datetime | None = None) -> list[Successor]:
    """Every successor of a merchant's accounts, or those that were matched by a moment, in the order in which they were matched."""
    chosen = [successors_table.c.merchant == scope.merchant, successors_table.c.mode == scope.mode]
    if as_of is not None:
        chosen.append(successors_table.c.matched_at <= as_of)
    return _successors(database, and_(*chosen))


def successors_of_run(database: Database, scope: Scope, run_id: str) -> list[Successor]:
    """The successors that one run matched."""
    chosen = (successors_table.c.merchant == scope.merchant, successors_table.c.mode == scope.mode)
    return _successors(database, and_(*chosen, successors_table.c.run_id == run_id))


def successors_of(
    database: Database, scope: Scope, account_ids: Collection[str], authorization_ids: Collection[str]
) -> list[tuple[datetime, str, Successor]]:
    """The successors that name one of these accounts or authorizations, on either side, as (matched at, run id, successor)."""
    table = successors_table.c
    named = or_(
        table.old_account_id.in_(account_ids),
        table.new_account_id.in_(account_ids),
        table.old_authorization_id.in_(authorization_ids),
        table.new_authorization_id.in_(authorization_ids),
    )
    statement = select(successors_table).where(table.merchant == scope.merchant, table.mode == scope.mode, named)
    with database.read() as connection:
        rows = connection.execute(statement.order_by(table.matched_at, table.old_account_id, table.new_account_id))
        return [
            (row.matched_at, row.run_id, Successor(**{name: row._mapping[name] for name in Successor.__slots__}))
            for row in rows
        ]


def _successors(database: Database, chosen: Any) -> list[Successor]:
    columns = [successors_table.c[name] for name in Successor.__slots__]
    order = (
        successors_table.c.matched_at,
        successors_table.c.old_account_id,
        successors_table.c.new_account_id,
    )
    with database.read() as connection:
        return [
            Successor(**row) for row in connection.execute(select(*columns).where(chosen).order_by(*order)).mappings()
        ]


def _breakages(database: Database, *chosen: Any) -> list[Breakage]:
    order = (table.c.authorization_id, table.c.kind, table.c.number)
    with database.read() as connection:
        return [_breakage(row) for row in connection.execute(select(table).where(*chosen).order_by(*order))]


def _breakage(row: Row[Any]) -> Breakage:
    key = BreakageKey(row.authorization_id, row.kind, row.number)
    return Breakage(key=key, **{name: row._mapping[name] for name in Breakage.__slots__ if name != "key"})


def _update_each(
    database: Database, scope: Scope, keys: Sequence[BreakageKey], unset: Any, values: dict[str, Any]
) -> None:
    """Set values on each breakage where a column is not set yet: one statement, compiled once, for all."""
    if not keys:
        return
    which: dict[str, Any] = {name: bindparam(f"of_{name}") for name in _key_values(keys[0])}
    statement = update(table).where(_in(scope), *(table.c[name] == mark for name, mark in which.items()))
    statement = statement.where(unset.is_(None)).values(values)
    chosen = [{f"of_{name}": value for name, value in _key_values(key).items()} for key in keys]
    database.run(lambda connection: connection.execute(statement, chosen))


def _in(scope: Scope) -> Any:
    return and_(table.c.merchant == scope.merchant, table.c.mode == scope.mode)


def _key_values(key: BreakageKey) -> dict[str, Any]:
    return {"authorization_id": key.authorization_id, "kind": str(key.kind), "number": key.number}
