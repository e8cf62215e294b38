"""Fixtures of the adapters' tests: an open, migrated database of each kind, and a run to write under."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.adapters import records
from jobs.adapters.database import Database, open_database
from jobs.adapters.tables import metadata
from tests.jobs.adapters.stored_values import AT, DATE, RUN_ID, SCOPE


@pytest.fixture(scope="session")
def migrated_postgres_url(postgres_server_url: str) -> str:
    """A migrated PostgreSQL database that the tests of this process share, each emptying it first."""
    import psycopg

    with psycopg.connect(postgres_server_url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("CREATE DATABASE shared_by_tests")
    url = postgres_server_url.replace("/postgres?", "/shared_by_tests?")
    with open_database(url) as opened:
        opened.upgrade()
    return url


@pytest.fixture(params=["sqlite", "postgresql"])
def migrated_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a migrated database without rows, once of each kind."""
    if request.param == "sqlite":
        shutil.copyfile(request.getfixturevalue("migrated_sqlite_file"), tmp_path / "relink.db")
        return f"sqlite:///{tmp_path / 'relink.db'}"
    import psycopg

    url: str = request.getfixturevalue("migrated_postgres_url")
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(f"TRUNCATE {', '.join(metadata.tables)} RESTART IDENTITY")
    return url


@pytest.fixture
def database(migrated_url: str) -> Iterator[Database]:
    """A migrated database in which the run of `stored_values` has started."""
    with open_database(migrated_url) as opened:
        records.start_run(
            opened, RUN_ID, "run", DATE, AT, settings_hash="hash", settings={"relink": {"cooldown_days": 4}}
        )
        records.stamp_merchant(opened, SCOPE.merchant, SCOPE.mode, None, AT)
        yield opened
