"""The embedded ledger: what `relink ledger load` stored, for those without a ledger database."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from sqlalchemy import Connection, Row, and_, bindparam, delete, select

from jobs.adapters.database import Database
from jobs.adapters.tables import ledger

if TYPE_CHECKING:
    from reconcile.ledger import LedgerRow

_COLUMNS = tuple(column.name for column in ledger.columns)
_ROWS_PER_CHUNK = 10_000


class LedgerChange(NamedTuple):
    """How many rows a load added, changed and removed."""

    added: int
    changed: int
    removed: int


def load_ledger(database: Database, rows: Iterable[LedgerRow], merge: bool = False) -> LedgerChange:
    """Replace the whole embedded ledger, or with `merge` only add and update, in one transaction."""
    wanted = {(row.merchant, row.account_id): _values(row) for row in rows}

    def work(connection: Connection) -> LedgerChange:
        stored = {(row.merchant, row.account_id): tuple(row) for row in connection.execute(select(ledger))}
        before = {key: _comparable(dict(zip(_COLUMNS, row, strict=True))) for key, row in stored.items()}
        added = [values for key, values in wanted.items() if key not in before]
        changed = [values for key, values in wanted.items() if key in before and before[key] != _comparable(values)]
        removed = [] if merge else [key for key in before if key not in wanted]
        _delete(connection, [*removed, *((values["merchant"], values["account_id"]) for values in changed)])
        if added or changed:
            connection.execute(ledger.insert(), [*added, *changed])
        return LedgerChange(len(added), len(changed), len(removed))

    return database.run(work)


def ledger_rows(database: Database, merchant: str | None = None) -> list[LedgerRow]:
    """The embedded ledger, of one merchant or of all, by merchant and account id."""
    from reconcile.ledger import LedgerRow

    statement = select(ledger).order_by(ledger.c.merchant, ledger.c.account_id)
    if merchant is not None:
        statement = statement.where(ledger.c.merchant == merchant)
    with database.read() as connection:
        return [LedgerRow(**_plain(row)) for row in connection.execute(statement)]


def ledger_chunks(database: Database) -> Iterator[dict[str, Sequence[object]]]:
    """The embedded ledger as chunks of columns, in the order of `ledger_rows`; required permissions as a tuple or None."""
    statement = select(ledger).order_by(ledger.c.merchant, ledger.c.account_id)
    with database.read() as connection:
        for rows in connection.execute(statement).partitions(_ROWS_PER_CHUNK):
            chunk: dict[str, Sequence[object]] = dict(zip(_COLUMNS, zip(*rows, strict=True), strict=True))
            # As a tuple a set of permissions can be looked up, so that each is read once.
            required = cast("Sequence[list[str] | None]", chunk["required_permissions"])
            chunk["required_permissions"] = [None if names is None else tuple(names) for names in required]
            yield chunk


def _values(row: LedgerRow) -> dict[str, Any]:
    values = {name: getattr(row, name) for name in _COLUMNS}
    required = values["required_permissions"]
    return {**values, "required_permissions": None if required is None else list(required)}


def _comparable(values: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(values[name] for name in _COLUMNS)


def _plain(row: Row[Any]) -> dict[str, Any]:
    values = dict(row._mapping)
    required = values["required_permissions"]
    return {**values, "required_permissions": None if required is None else tuple(required)}


def _delete(connection: Connection, keys: list[tuple[str, str]]) -> None:
    chosen = and_(ledger.c.merchant == bindparam("of_merchant"), ledger.c.account_id == bindparam("of_account"))
    if keys:
        connection.execute(
            delete(ledger).where(chosen),
            [{"of_merchant": merchant, "of_account": account} for merchant, account in keys],
        )
