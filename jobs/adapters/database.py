"""The job's own database, SQLite or PostgreSQL: opening it, transactions, and whether its tables are of this version.

Every connection to SQLite proves at its start that commits survive a power loss (`synchronous=FULL`: with less, write-ahead logging
may drop the newest commits, SQLite documentation "PRAGMA synchronous"), and every write transaction takes the write lock at its beginning
(a read that later wants to write fails at once, whatever the busy timeout).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, Table, inspect, make_url, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from jobs.adapters.database_engines import postgresql_engine, refuse_damage, sqlite_engine, stand_in_engine
from jobs.adapters.database_errors import explain, is_conflict, is_lost_connection
from jobs.adapters.database_files import create_private_file, refuse_network_filesystem
from jobs.adapters.tables import SCHEMA_VERSION, VERSION_TABLE
from reconcile.errors import DatabaseError, SchemaOutdated

T = TypeVar("T")

TRANSACTION_ATTEMPTS = 6
FIRST_PAUSE_SECONDS = 0.05

_MIGRATION_LOCK = 7_265_108_113
"""The PostgreSQL advisory lock under which tables are made, so that two first starts do not both make them."""


@dataclass(frozen=True, slots=True)
class SchemaState:
    """The version of our tables: `status` is empty, older, current or newer; `found` is None where there are none."""

    status: str
    found: str | None
    expected: str


class Database:
    """An open database; use `open_database`. Safe for threads: each thread has its own transaction.

    `ephemeral` means an empty stand-in in memory: a reader was asked for and there is nothing on disk yet.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        shown: str,
        read_only: bool,
        keeper: Connection | None = None,
    ) -> None:
        self.shown = shown
        self.read_only = read_only
        self.ephemeral = keeper is not None
        self.kind = engine.dialect.name
        self._engine = engine
        self._keeper = keeper
        self._local = threading.local()
        # Bulk work uses the driver itself, whose errors SQLAlchemy then does not wrap.
        self._driver_errors: tuple[type[Exception], ...] = (SQLAlchemyError, engine.dialect.loaded_dbapi.Error)

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Database({self.shown})"

    def close(self) -> None:
        """Close every connection."""
        if self._keeper is not None:
            self._keeper.close()
        self._engine.dispose()

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """A write transaction, committed at the end of the block; inside another one of this thread it joins that."""
        outer = self._current()
        if outer is not None:
            if outer.get_execution_options().get("relink_writes") is not True:
                raise RuntimeError("a write transaction was begun inside a read")
            yield outer
            return
        try:
            with self._transaction(writes=True) as connection:
                yield connection
        except self._driver_errors as error:
            raise self._translated(error) from None

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction for reading; inside another one of this thread it joins that, and so sees what that wrote."""
        outer = self._current()
        if outer is not None:
            yield outer
            return
        try:
            with self._transaction(writes=False) as connection:
                yield connection
        except self._driver_errors as error:
            raise self._translated(error) from None

    def run(self, work: Callable[[Connection], T], *, durable: bool = False) -> T:
        """Do work in a write transaction, from its beginning again where the database asks for that, and return its result.

        Again means after a serialization failure, a deadlock or a busy database, and after a connection lost before the commit was sent: in
        each case nothing of the attempt remains. A connection lost during the commit is an error, since the commit may hold.
        Inside `begin` of this thread it joins, unless `durable`, which promises that the commit is done on return.
        """
        outer = self._current()
        if outer is not None:
            if durable:
                raise RuntimeError("this must commit by itself and cannot be part of a larger transaction")
            with self.begin() as connection:
                return work(connection)
        pause_seconds = FIRST_PAUSE_SECONDS
        for attempt in range(1, TRANSACTION_ATTEMPTS + 1):
            worked = False
            try:
                with self._transaction(writes=True) as connection:
                    result = work(connection)
                    worked = True
                return result
            except self._driver_errors as error:
                again = is_conflict(error) or (is_lost_connection(error) and not worked)
                if not again or attempt == TRANSACTION_ATTEMPTS:
                    raise self._translated(error, commit_in_doubt=worked and is_lost_connection(error)) from None
            time.sleep(pause_seconds)
            pause_seconds *= 2
        raise AssertionError("unreachable")

    def insert(self, table: Table) -> sqlite.Insert | postgresql.Insert:
        """An INSERT that can say what happens on a conflict, in this database's dialect."""
        return sqlite.insert(table) if self.kind == "sqlite" else postgresql.insert(table)

    def schema_state(self) -> SchemaState:
        """Whether our tables are there, and of this version."""
        with self.read() as connection:
            found = _found_version(connection)
            if found is None and inspect(connection).has_table("relink_runs"):
                raise DatabaseError(
                    f"database {self.shown} has tables of this job but no version of them: restore it from a backup, or move it away"
                )
        if found is None:
            status = "empty"
        elif found == SCHEMA_VERSION:
            status = "current"
        else:
            status = "older" if found < SCHEMA_VERSION else "newer"
        return SchemaState(status, found, SCHEMA_VERSION)

    def ensure_schema(self, *, create_new: bool = True) -> None:
        """Return only if the tables are of this version; an embedded database without any gets them, where `create_new`.

        Raises:
            SchemaOutdated: they are of another version, or have to be made by hand.
        """
        state = self.schema_state()
        if state.status == "empty" and create_new and self.kind == "sqlite" and not self.read_only:
            self.upgrade()
            return
        if state.status == "empty":
            raise SchemaOutdated(f"database {self.shown} does not have this job's tables yet: run `relink db upgrade`")
        if state.status == "older":
            raise SchemaOutdated(
                f"database {self.shown} is of version {state.found}, this program needs {state.expected}: run `relink db upgrade`"
            )
        if state.status == "newer":
            raise SchemaOutdated(
                f"database {self.shown} is of version {state.found}, newer than this program's {state.expected}: "
                "install the newer program; `relink db upgrade` cannot go back"
            )

    def upgrade(self) -> tuple[str | None, str]:
        """Migrate to this version in one transaction, so that a kill leaves the old tables or the new ones; return (from, to).

        Both databases roll definitions back with their transaction (SQLite because every transaction here is begun explicitly).
        """
        if self.read_only:
            raise DatabaseError(f"database {self.shown} was opened for reading only and cannot be migrated")
        from jobs.migrations import migrate

        def work(connection: Connection) -> tuple[str | None, str]:
            if self.kind == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
            found = _found_version(connection)
            if found is not None and found > SCHEMA_VERSION:
                raise SchemaOutdated(
                    f"database {self.shown} is of version {found}, newer than this program's {SCHEMA_VERSION}"
                )
            if found != SCHEMA_VERSION:
                migrate(connection)
            return found, SCHEMA_VERSION

        return self.run(work, durable=True)

    def _current(self) -> Connection | None:
        connection: Connection | None = getattr(self._local, "connection", None)
        return connection

    @contextmanager
    def _transaction(self, *, writes: bool) -> Iterator[Connection]:
        if writes and self.read_only:
            raise DatabaseError(f"database {self.shown} was opened for reading only")
        options: dict[str, Any] = {"relink_writes": writes}
        if self.kind == "postgresql" and not writes:
            options["postgresql_readonly"] = True
        with self._engine.connect().execution_options(**options) as connection, connection.begin():
            self._local.connection = connection
            try:
                yield connection
            finally:
                self._local.connection = None

    def _translated(self, error: Exception, *, commit_in_doubt: bool = False) -> Exception:
        # A fault of our own statements or values (a naive time) is a bug and must look like one.
        if isinstance(error, SQLAlchemyError) and not isinstance(error, (DBAPIError, PoolTimeout)):
            cause = getattr(error, "orig", None)
            return cause if isinstance(cause, (ValueError, TypeError)) else error
        return explain(error, self.shown, self._engine.url.password, commit_in_doubt=commit_in_doubt)


def open_database(url: str, *, create: bool = True, read_only: bool = False, check: bool = True) -> Database:
    """Open the job's database and prove that it can be trusted.

    Without `create`, or with `read_only`, no file is made: where there is none, an empty stand-in in memory answers. `read_only` has the
    database itself refuse writes. `check` has SQLite read its file through once for damage.

    Raises:
        DatabaseError: it cannot be reached, created, or trusted.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise DatabaseError(
            "database.url is not a database URL: use sqlite:///PATH or postgresql+psycopg://HOST/NAME"
        ) from None
    if parsed.drivername == "postgresql+psycopg":
        return _open_postgresql(parsed, read_only=read_only)
    if parsed.drivername in ("sqlite", "sqlite+pysqlite"):
        return _open_sqlite(parsed, create=create and not read_only, read_only=read_only, check=check)
    raise DatabaseError(
        f"database.url has the scheme {parsed.drivername}: use sqlite:///PATH or postgresql+psycopg://HOST/NAME"
    )


def _open_postgresql(url: URL, *, read_only: bool) -> Database:
    shown = url.set(query={}).render_as_string(hide_password=True)
    database = Database(postgresql_engine(url), shown=shown, read_only=read_only)
    try:
        with database.read() as connection:
            connection.execute(text("SELECT 1"))
    except BaseException:
        database.close()
        raise
    return database


def _open_sqlite(url: URL, *, create: bool, read_only: bool, check: bool) -> Database:
    if not url.database or url.database == ":memory:" or url.database.startswith("file:") or url.query:
        raise DatabaseError("database.url must name a plain file: a database in memory forgets whom it has contacted")
    path = Path(url.database)
    refuse_network_filesystem(path)
    if not path.exists():
        if not create:
            return _stand_in(str(path))
        create_private_file(path)
    database = Database(sqlite_engine(str(path), read_only=read_only), shown=str(path), read_only=read_only)
    try:
        with database.read() as connection:
            if check:
                refuse_damage(connection, str(path))
            names = inspect(connection).get_table_names()
    except BaseException:
        database.close()
        raise
    if not create and VERSION_TABLE not in names and "relink_runs" not in names:
        database.close()
        return _stand_in(str(path))
    return database


def _stand_in(shown: str) -> Database:
    engine, keeper = stand_in_engine()
    return Database(engine, shown=shown, read_only=True, keeper=keeper)


def _found_version(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    version: str | None = connection.execute(text(f"SELECT max(version_num) FROM {VERSION_TABLE}")).scalar()  # noqa: S608
    return version


def driver_connection(connection: Connection) -> Any:
    """The driver's own connection under a transaction, for bulk work that SQLAlchemy has no call for."""
    return connection.connection.driver_connection
