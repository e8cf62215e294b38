"""The database fails at each write of a night: nothing is sent without its intent, and the next run goes on where this one was."""

from __future__ import annotations

import os
import resource
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event, inspect, text

from jobs.adapters import database as database_module
from jobs.adapters.database import Database, open_database
from jobs.migrations import configuration
from jobs.simulator.server import SimulatorServer
from reconcile.errors import SchemaOutdated
from tests.chaos.deployment import Row
from tests.chaos.night_process import fork
from tests.faults.runs import assert_asked_once, assert_posts_had_intents, end, rows
from tests.jobs.conftest import MakeNights
from tests.jobs.nights import Nights, small_world

CUSTOMERS = 24
Fault = Callable[[Connection], object]
"""Called at the beginning of a write transaction, to let the rest of it fail."""

STRIDE = 4
"""Of the writes of a night every fourth is the first to fail. Each kind of fault begins at another one, so that together they meet all,
and those of one database at an odd and an even one, since what comes in pairs would else be met in the middle only, or never."""

AFTER_THE_END = 2
"""Writes after a run is recorded as complete, which it does not depend on: removing what is old, and giving the lock back."""


class Writes:
    """Counts the write transactions of this process, and lets a fault befall some of them. The product has no hook for this."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.failing: Callable[[int], bool] = lambda _: False
        self.fault: Fault = lambda _: None
        whole = Database._transaction

        @contextmanager
        def counted(database: Database, *, writes: bool) -> Iterator[Connection]:
            with whole(database, writes=writes) as connection:
                if writes:
                    self.count += 1
                    if self.failing(self.count):
                        self.fault(connection)
                yield connection

        monkeypatch.setattr(Database, "_transaction", counted)
        # What is tried again is tried again at once.
        monkeypatch.setattr(database_module, "FIRST_PAUSE_SECONDS", 0.0)

    @contextmanager
    def befall(self, fault: Fault, failing: Callable[[int], bool]) -> Iterator[None]:
        """Meanwhile the transactions whose number, from 1, is `failing` meet the fault."""
        self.count, self.failing, self.fault = 0, failing, fault
        try:
            yield
        finally:
            self.failing = lambda _: False


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> Writes:
    return Writes(monkeypatch)


def _read_only(connection: Connection) -> None:
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA query_only = ON")
    else:
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")


def _no_larger_files(connection: Connection) -> None:
    """No file may become larger than the log of the database is now, so that neither it nor a larger report finds room."""
    log = Path(f"{connection.engine.url.database}-wal")
    resource.setrlimit(resource.RLIMIT_FSIZE, (log.stat().st_size, resource.RLIM_INFINITY))


def _server_without_room(connection: Connection) -> None:
    connection.exec_driver_sql("SET LOCAL relink.fault = '53100'")


@contextmanager
def _lifted_limit() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _break_two(nights: Nights, number: int) -> tuple[str, str]:
    names = (f"fcauth_{2 * number - 1}", f"fcauth_{2 * number}")
    for name in names:
        nights.world.break_authorization(name)
    return names


def _raise_on_request(url: str) -> None:
    """Let the server itself raise the state that a transaction names in `relink.fault`, at its first statement or at its commit."""
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE FUNCTION raise_fault() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "IF coalesce(current_setting('relink.fault', true), '') <> '' THEN "
            "RAISE EXCEPTION 'asked for' USING ERRCODE = current_setting('relink.fault'); END IF; RETURN NULL; END $$"
        )
        connection.exec_driver_sql(
            "CREATE FUNCTION raise_at_commit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "IF coalesce(current_setting('relink.commit_fault', true), '') <> '' THEN "
            "RAISE EXCEPTION 'asked for' USING ERRCODE = current_setting('relink.commit_fault'); END IF; RETURN NULL; END $$"
        )
        for name in inspect(connection).get_table_names():
            connection.exec_driver_sql(
                f"CREATE TRIGGER fault AFTER INSERT OR UPDATE OR DELETE ON {name} EXECUTE FUNCTION raise_fault()"
            )
            connection.exec_driver_sql(
                f"CREATE CONSTRAINT TRIGGER commit_fault AFTER INSERT OR UPDATE OR DELETE ON {name} "
                "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION raise_at_commit()"
            )
    engine.dispose()


CASES: list[tuple[str, Fault, str, int]] = [
    ("sqlite", _no_larger_files, "disk", 1),
    ("sqlite", _read_only, "read-only: make the file", 4),
    ("postgresql", _server_without_room, "out of space", 2),
    ("postgresql", _read_only, "read-only, perhaps a standby", 3),
]


@pytest.mark.parametrize(("kind", "fault", "advice", "first"), CASES)
def test_full_or_read_only_database(
    make_nights: MakeNights,
    writes: Writes,
    request: pytest.FixtureRequest,
    kind: str,
    fault: Fault,
    advice: str,
    first: int,
) -> None:
    """From a write on all fail, as they do until a person makes room; the very next run then asks those who were not asked."""
    url = request.getfixturevalue("postgres_url") if kind == "postgresql" else None
    nights = make_nights(small_world(customers=CUSTOMERS, broken=[], accounts=1), url)
    nights.sections["reports"] = {"formats": ["csv"]}
    # No offer is renewed meanwhile, however many writes, and so dates, there are.
    nights.sections["relink"] = {**nights.sections.get("relink", {}), "pending_days": 30}
    if url is not None:
        _raise_on_request(url)
    names: list[str] = list(_break_two(nights, 1))
    with writes.befall(lambda _: None, lambda _: False):
        assert end(nights).exit_code == 0
        until_recorded = writes.count - AFTER_THE_END
    assert until_recorded >= 20
    # The last one is always met: where only the end of the run could not be recorded.
    for number, failing in enumerate([*range(first, until_recorded, STRIDE), until_recorded], start=2):
        nights.world.advance(days=1)
        names += _break_two(nights, number)
        with _lifted_limit(), writes.befall(fault, lambda count, failing=failing: count >= failing):
            stopped = end(nights)
            assert writes.count >= failing
        assert stopped.exit_code == 3, f"with a fault at write {failing}"
        assert advice in stopped.why
        assert_posts_had_intents(nights)
        _free_lock(nights)
        assert end(nights).exit_code == 0, f"after a fault at write {failing}"
        assert_asked_once(nights, *names)


def _free_lock(nights: Nights) -> None:
    """Free the lock as the end of a process does on its own host; here the process is that of the tests."""
    engine = create_engine(nights.database_url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE relink_lease SET holder = NULL"))
    engine.dispose()


def test_database_that_may_not_grow(make_nights: MakeNights, writes: Writes) -> None:
    """SQLite's own full database, wherever in the nights it next needs a page."""
    nights = make_nights(small_world(customers=CUSTOMERS, broken=[], accounts=1))
    nights.sections["reports"] = {"formats": ["csv"]}
    names: list[str] = list(_break_two(nights, 1))
    assert end(nights).exit_code == 0
    refused = 0
    for number in range(2, 8):
        nights.world.advance(days=1)
        names += _break_two(nights, number)
        with writes.befall(_most_pages(_pages(nights)), lambda _: True):
            ended = end(nights)
        assert_posts_had_intents(nights)
        if ended.exit_code != 0:
            assert ended.exit_code == 3
            assert "the disk is full: free some space" in ended.why
            refused += 1
            _free_lock(nights)
            assert end(nights).exit_code == 0
        assert_asked_once(nights, *names)
    assert refused >= 2


def _pages(nights: Nights) -> int:
    """The size of the file, after what was freed in it before was given back."""
    connection = sqlite3.connect(nights.database_url.removeprefix("sqlite:///"))
    connection.execute("VACUUM")
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.close()
    return int(pages)


def _most_pages(number: int) -> Fault:
    return lambda connection: connection.exec_driver_sql(f"PRAGMA max_page_count = {number}")


TABLES = ("relink_schema_version", "relink_lease", "relink_requests", "relink_runs", "relink_history", "relink_ledger")


def test_corrupt_page(nights: Nights) -> None:
    """A page that was overwritten is noticed before anything is decided, and the backup goes on as if nothing had been."""
    assert end(nights).exit_code == 0
    nights.world.advance(days=1)
    nights.world.break_authorization("fcauth_4")
    path = Path(str(nights.database_url).removeprefix("sqlite:///"))
    backup = nights.directory / "backup.db"
    shutil.copyfile(path, backup)
    with sqlite3.connect(path) as connection:
        size = connection.execute("PRAGMA page_size").fetchone()[0]
        roots = dict(connection.execute("SELECT name, rootpage FROM sqlite_master WHERE type = 'table'").fetchall())
    connection.close()
    calls = len(nights.world.log)
    pages = [roots[name] for name in TABLES if name in roots]
    assert len(pages) >= 4
    for page in pages:
        with path.open("r+b") as file:
            file.seek((page - 1) * size)
            file.write(b"\xff" * size)
        refused = end(nights)
        assert refused.exit_code == 3
        assert "corrupt" in refused.why
        assert "restore the newest backup" in refused.why
        assert len(nights.world.log) == calls
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        shutil.copyfile(backup, path)
    assert end(nights).exit_code == 0
    assert_asked_once(nights, "fcauth_1", "fcauth_2", "fcauth_3", "fcauth_4")


def _lose_connection(connection: Connection) -> None:
    connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")


def _fail_with(setting: str, state: str) -> Fault:
    return lambda connection: connection.exec_driver_sql(f"SET LOCAL relink.{setting} = '{state}'")


@pytest.mark.parametrize(
    "fault",
    [_fail_with("fault", "40P01"), _fail_with("fault", "40001"), _fail_with("commit_fault", "40001"), _lose_connection],
    ids=["deadlock", "conflict", "conflict at the commit", "connection lost"],
)
def test_every_write_is_done_again(
    make_nights: MakeNights, writes: Writes, postgres_url: str, tmp_path: Path, fault: Fault
) -> None:
    """Each write fails twice before it succeeds; what is recorded in the end is what an undisturbed twin records."""
    nights = make_nights(database_url=postgres_url)
    _raise_on_request(postgres_url)
    (tmp_path / "twin").mkdir()
    world = small_world()
    with SimulatorServer(world) as server:
        twin = Nights(world, server, tmp_path / "twin", f"sqlite:///{tmp_path / 'twin' / 'relink.db'}")
        for one in (nights, twin):
            with writes.befall(fault, lambda count: count % 3 != 0) if one is nights else nullcontext():
                assert end(one).exit_code == 0
                one.world.answer(one.world.effects[0].session_id, "whole", lag_seconds=0)
                one.world.advance(days=1)
                one.world.break_authorization("fcauth_4")
                assert end(one).exit_code == 0
        assert nights.world.contacts_by_authorization() == twin.world.contacts_by_authorization()
        assert [_what(row) for row in rows(nights)] == [_what(row) for row in rows(twin)]
        assert _sizes(nights) == _sizes(twin)
    assert writes.count >= 60
    assert_asked_once(nights, "fcauth_1", "fcauth_2", "fcauth_3", "fcauth_4")


def _what(row: Row) -> tuple[str, int, int, str]:
    return row.authorization_id, row.breakage_number, row.attempt, row.state


def _sizes(nights: Nights) -> dict[str, int]:
    return {name: len(found) for name, found in nights.knowledge().items()}


def test_migration_killed_on_its_way(database_url: str) -> None:
    """From each version that was ever released: the process dies at a statement, and the next start has the old tables or the new.

    At every statement from the newest version, and from each of the others, whose statements are partly the same, at eight or nine that lie
    evenly and begin at another one for each version: every statement from every version would take a minute.
    """
    versions = [script.revision for script in ScriptDirectory.from_config(configuration()).walk_revisions()][::-1]
    for number, start in enumerate([None, *versions[:-1]]):
        _recreate(database_url, start)
        steps = _statements_of_upgrade(database_url, start)
        stride = max(1, steps // 8)
        for step in range(1 + number % stride, steps, stride):
            _recreate(database_url, start)
            child = fork(lambda step=step: _upgrade_until(database_url, step))
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == KILLED
            with open_database(database_url) as database:
                state = database.schema_state()
                assert (state.found, state.status) == (start, "empty" if start is None else "older")
                if start is not None:
                    with pytest.raises(SchemaOutdated, match="relink db upgrade"):
                        database.ensure_schema()
                assert database.upgrade() == (start, versions[-1])


KILLED = 9


def _recreate(url: str, version: str | None) -> None:
    """Empty the database, and bring it to a version."""
    if url.startswith("sqlite:///"):
        for suffix in ("", "-wal", "-shm"):
            Path(url.removeprefix("sqlite:///") + suffix).unlink(missing_ok=True)
    with open_database(url) as database, database.begin() as connection:
        if database.kind == "postgresql":
            connection.exec_driver_sql("DROP SCHEMA public CASCADE")
            connection.exec_driver_sql("CREATE SCHEMA public")
        if version is not None:
            command.upgrade(configuration(connection), version)


def _statements_of_upgrade(url: str, start: str | None) -> int:
    count = [0]

    def counted(*_: object) -> None:
        count[0] += 1

    event.listen(Engine, "before_cursor_execute", counted)
    try:
        with open_database(url) as database:
            assert database.upgrade()[0] == start
    finally:
        event.remove(Engine, "before_cursor_execute", counted)
    return count[0]


def _upgrade_until(url: str, step: int) -> None:
    left = [step]

    def die_in_time(*_: object) -> None:
        left[0] -= 1
        if left[0] == 0:
            os._exit(KILLED)

    event.listen(Engine, "before_cursor_execute", die_in_time)
    with open_database(url) as database:
        database.upgrade()
