"""Deployments over a simulated world, for the tests of the shell."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from jobs.adapters.database import open_database
from jobs.simulator.server import SimulatorServer
from jobs.simulator.world import World
from tests.jobs.nights import Nights, small_world

MakeNights = Callable[..., Nights]


@pytest.fixture(scope="session")
def migrated_sqlite_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty SQLite database to copy: migrating takes longer than most tests."""
    path = tmp_path_factory.mktemp("migrated") / "relink.db"
    with open_database(f"sqlite:///{path}") as opened:
        opened.upgrade()
    return path


@pytest.fixture
def sqlite_url(migrated_sqlite_file: Path, tmp_path: Path) -> str:
    """The URL of a migrated SQLite database without rows."""
    shutil.copyfile(migrated_sqlite_file, tmp_path / "relink.db")
    return f"sqlite:///{tmp_path / 'relink.db'}"


@pytest.fixture
def make_nights(tmp_path: Path) -> Iterator[MakeNights]:
    """Makes deployments of its own over worlds, on SQLite unless a database is named."""
    with ExitStack() as stack:

        def make(world: World | None = None, database_url: str | None = None, **options: object) -> Nights:
            chosen = world or small_world()
            server = stack.enter_context(SimulatorServer(chosen, **options))  # type: ignore[arg-type]
            return Nights(chosen, server, tmp_path, database_url or f"sqlite:///{tmp_path / 'relink.db'}")

        yield make


@pytest.fixture
def nights(make_nights: MakeNights) -> Nights:
    """Six customers, three of them broken, on SQLite."""
    return make_nights()


@pytest.fixture
def both_nights(make_nights: MakeNights, database_url: str) -> Nights:
    """The same, once on each kind of database."""
    return make_nights(database_url=database_url)
