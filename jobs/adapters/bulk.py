"""Writes many rows by one statement."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Insert


def insert_all(connection: Connection, statement: Insert, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows that name the same columns, as `connection.execute` does, of a table whose columns have no defaults of Python's.

    On SQLite by the driver's own call, and column by column: SQLAlchemy makes a mapping for each row and looks up there how each cell is
    stored, which costs four times as much as storing it.
    """
    if not rows:
        return
    if connection.dialect.name != "sqlite":
        connection.execute(statement, rows)
        return
    names = list(rows[0])
    compiled = statement.compile(dialect=connection.dialect, column_keys=names)
    fixed = compiled.params
    columns = []
    for name in compiled.positiontup or ():
        values = [row[name] for row in rows] if name in names else [fixed[name]] * len(rows)
        columns.append(_stored(values, compiled.binds[name].type.dialect_impl(connection.dialect), connection))
    connection.exec_driver_sql(str(compiled), list(zip(*columns, strict=True)))


def _stored(values: list[Any], kind: Any, connection: Connection) -> list[Any]:
    """What the database stores of the values, each different one worked out once."""
    process: Callable[[Any], Any] | None = kind.bind_processor(connection.dialect)
    if process is None:
        return values
    stored = {value: process(value) for value in set(values)}
    return [stored[value] for value in values]
