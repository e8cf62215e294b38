"""How connections to each kind of database are made, and what every one of them proves before it is used."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from sqlalchemy import URL, Connection, Engine, QueuePool, create_engine, event, text

from jobs.adapters.tables import SCHEMA_VERSION, VERSION_TABLE, metadata
from reconcile.errors import DatabaseError

BUSY_TIMEOUT_MILLISECONDS = 10_000
CONNECT_TIMEOUT_SECONDS = 10

_WANTED = {"foreign_keys": 1, "synchronous": 2, "journal_mode": "wal"}
_LEAST_BUSY_TIMEOUT_MILLISECONDS = 5000


def postgresql_engine(url: URL) -> Engine:
    """Connections that are tried before use, since a server or a proxy may have dropped an idle one."""
    arguments = {} if "connect_timeout" in url.query else {"connect_timeout": CONNECT_TIMEOUT_SECONDS}
    return create_engine(url, pool_pre_ping=True, hide_parameters=True, connect_args=arguments)


def sqlite_engine(path: str, *, read_only: bool) -> Engine:
    """Connections to an existing file, each of which proves that what it commits will last."""
    engine = create_engine(
        URL.create("sqlite", database=path),
        hide_parameters=True,
        connect_args={"timeout": BUSY_TIMEOUT_MILLISECONDS / 1000, "check_same_thread": False},
    )
    event.listen(engine, "connect", _prepare(path, read_only=read_only))
    event.listen(engine, "begin", _begin)
    return engine


def stand_in_engine() -> tuple[Engine, Connection]:
    """An empty database of this version in memory, shared by the threads of this process, and the connection that keeps it alive."""
    memory = {"mode": "memory", "cache": "shared", "uri": "true"}
    url = URL.create("sqlite", database=f"file:relink-{uuid.uuid4().hex}", query=memory)
    engine = create_engine(url, hide_parameters=True, poolclass=QueuePool, connect_args={"check_same_thread": False})
    event.listen(engine, "connect", _leave_transactions_to_us)
    event.listen(engine, "begin", _begin)
    keeper = engine.connect()
    metadata.create_all(keeper)
    keeper.execute(text(f"CREATE TABLE {VERSION_TABLE} (version_num TEXT NOT NULL PRIMARY KEY)"))
    keeper.execute(text(f"INSERT INTO {VERSION_TABLE} VALUES (:version)"), {"version": SCHEMA_VERSION})  # noqa: S608
    keeper.commit()
    return engine, keeper


def refuse_damage(connection: Connection, shown: str) -> None:
    """Raise DatabaseError if a SQLite file is damaged (SQLite documentation: "PRAGMA quick_check")."""
    if connection.exec_driver_sql("PRAGMA quick_check(1)").scalar() != "ok":
        raise DatabaseError(
            f"database {shown} is corrupt: stop the job, keep a copy of the file, and restore the newest backup; "
            "contacts made since that backup would be forgotten, so look through the reports before the next run"
        )


def _leave_transactions_to_us(connection: Any, _record: object) -> None:
    # The driver would otherwise begin transactions itself, late and not for definitions.
    connection.isolation_level = None


def _prepare(shown: str, *, read_only: bool) -> Callable[[Any, object], None]:
    def prepare(connection: Any, record: object) -> None:
        _leave_transactions_to_us(connection, record)
        cursor = connection.cursor()
        try:
            cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MILLISECONDS}")
            if cursor.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                cursor.execute("PRAGMA journal_mode = WAL")
            cursor.execute("PRAGMA synchronous = FULL")
            cursor.execute("PRAGMA foreign_keys = ON")
            if read_only:
                cursor.execute("PRAGMA query_only = ON")
            found = {name: cursor.execute(f"PRAGMA {name}").fetchone()[0] for name in (*_WANTED, "busy_timeout")}
        finally:
            cursor.close()
        wrong = [name for name, value in _WANTED.items() if found[name] != value]
        if wrong or found["busy_timeout"] < _LEAST_BUSY_TIMEOUT_MILLISECONDS:
            raise DatabaseError(
                f"database {shown} does not keep {', '.join(wrong) or 'busy_timeout'} as asked ({found}), so a committed record could be "
                "lost: move it to a local disk, or set database.url to a PostgreSQL server"
            )

    return prepare


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("relink_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
