"""Opening either database, its transactions, what it says when it fails, and migrations that a kill cannot halve."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, event, inspect, select, text

from jobs.adapters import records, tables
from jobs.adapters.database import Database, open_database
from jobs.adapters.database_errors import without_password
from jobs.adapters.database_files import filesystem_type, refuse_network_filesystem
from jobs.migrations import configuration
from reconcile.errors import DatabaseError, SchemaOutdated
from tests.jobs.adapters.stored_values import AT, DATE, RUN_ID, SCOPE

ROOT = Path(__file__).parents[3]


def start(database: Database, run_id: str) -> None:
    records.start_run(database, run_id, "run", DATE, AT, settings_hash="hash", settings={})


def run_ids(database: Database) -> list[str]:
    return sorted(found.run_id for found in records.list_runs(database))


def test_a_new_embedded_database_is_private_and_durable(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "relink.db"
    with open_database(f"sqlite:///{path}") as database:
        database.ensure_schema()
        start(database, "one")
        with database.begin() as connection:
            pragmas = {
                name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                for name in ("foreign_keys", "synchronous", "journal_mode", "busy_timeout")
            }
        assert pragmas == {"foreign_keys": 1, "synchronous": 2, "journal_mode": "wal", "busy_timeout": 10_000}
        modes = {found.name: stat.S_IMODE(found.stat().st_mode) for found in path.parent.iterdir()}
        assert modes == dict.fromkeys(("relink.db", "relink.db-wal", "relink.db-shm"), 0o600)
    assert [stat.S_IMODE(found.stat().st_mode) for found in (path.parent, path.parent.parent)] == [0o700, 0o700]


@pytest.mark.parametrize("target", ["real.db", "missing/further/real.db"])
def test_a_database_behind_a_symlink_is_made_private_where_it_lies(tmp_path: Path, target: str) -> None:
    """Nothing is there yet, and SQLite itself would make it readable for everybody."""
    link, real = tmp_path / "relink.db", tmp_path / "elsewhere" / target
    real.parents[-len(tmp_path.parts) - 1].mkdir()
    (tmp_path / "middle.db").symlink_to(real)
    link.symlink_to("middle.db")
    with open_database(f"sqlite:///{link}") as database:
        database.ensure_schema()
        modes = {found.name: stat.S_IMODE(found.stat().st_mode) for found in real.parent.iterdir()}
    assert modes == dict.fromkeys(("real.db", "real.db-wal", "real.db-shm"), 0o600)
    if real.parent != tmp_path / "elsewhere":
        assert stat.S_IMODE(real.parent.stat().st_mode) == 0o700


def test_a_symlink_that_leads_nowhere_is_told(tmp_path: Path) -> None:
    link = tmp_path / "relink.db"
    link.symlink_to(link)
    with pytest.raises(DatabaseError, match=r"relink\.db"):
        open_database(f"sqlite:///{link}")


def test_a_connection_that_does_not_keep_its_promises_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jobs.adapters import database_engines

    monkeypatch.setattr(database_engines, "BUSY_TIMEOUT_MILLISECONDS", 1000)
    with pytest.raises(DatabaseError, match="busy_timeout"):
        open_database(f"sqlite:///{tmp_path / 'relink.db'}")


def test_a_write_takes_the_lock_at_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "relink.db"
    with open_database(f"sqlite:///{path}") as database, database.begin():
        other = sqlite3.connect(path, timeout=0)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        other.close()


@pytest.mark.parametrize("options", [{"create": False}, {"read_only": True}])
def test_a_reader_makes_no_file_and_reads_an_empty_stand_in(tmp_path: Path, options: dict[str, bool]) -> None:
    path = tmp_path / "none" / "relink.db"
    with open_database(f"sqlite:///{path}", **options) as database:
        database.ensure_schema(create_new=False)
        assert database.ephemeral
        assert records.list_runs(database) == []
        assert records.latest_history(database, SCOPE).empty
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(lambda _: records.open_requests(database, SCOPE), range(4))) == [[]] * 4
        with pytest.raises(DatabaseError, match="reading only"):
            start(database, "one")
    assert list(tmp_path.iterdir()) == []


def test_a_reader_cannot_write_even_behind_our_back(migrated_url: str) -> None:
    with open_database(migrated_url, read_only=True) as database:
        assert not database.ephemeral
        with pytest.raises(DatabaseError, match="reading only"):
            start(database, "one")
        with pytest.raises(DatabaseError), database.read() as connection:
            connection.execute(text("DELETE FROM relink_runs"))


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file:x?uri=true",
        "mysql://u:canary@h/d",
        "nonsense canary",
        "postgresql://u:canary@h/d",
    ],
)
def test_a_url_that_cannot_serve_is_refused_without_showing_its_password(url: str) -> None:
    with pytest.raises(DatabaseError) as raised:
        open_database(url)
    assert "database.url" in str(raised.value)
    assert "canary" not in str(raised.value)


def test_an_unreachable_server_is_named_without_its_password() -> None:
    url = "postgresql+psycopg://ann:can%40ry@127.0.0.1:9/relink?connect_timeout=2"
    with pytest.raises(DatabaseError) as raised:
        open_database(url)
    message = str(raised.value)
    assert "127.0.0.1" in message
    assert "check that the server runs" in message
    assert "can@ry" not in message + repr(raised.value.__cause__)
    assert "can%40ry" not in message


def test_a_missing_database_on_a_server_is_named(postgres_server_url: str) -> None:
    with pytest.raises(DatabaseError, match=r"name, user and password.*nonesuch"):
        open_database(postgres_server_url.replace("/postgres?", "/nonesuch?"))


@given(st.text(st.sampled_from("ab:@/%+ #é"), min_size=3, max_size=8).filter(lambda word: word not in "failed for at"))
def test_no_spelling_of_a_password_stays_in_a_message(password: str) -> None:
    from urllib.parse import quote, quote_plus

    for spelling in (password, quote(password, safe=""), quote_plus(password)):
        assert spelling not in without_password(f"<{spelling}>", password).replace("***", "")


@pytest.mark.parametrize(
    "content", [b"this is not a database, only a text that is long enough", b"SQLite format 3\x00" + b"\xff" * 4080]
)
def test_a_file_that_is_no_database_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "relink.db"
    path.write_bytes(content)
    with pytest.raises(DatabaseError, match=r"relink\.db.*corrupt"):
        open_database(f"sqlite:///{path}")
    assert path.read_bytes() == content


def test_a_damaged_page_is_noticed_on_opening(tmp_path: Path, migrated_sqlite_file: Path) -> None:
    path = tmp_path / "relink.db"
    content = bytearray(migrated_sqlite_file.read_bytes())
    content[4096 * 3 : 4096 * 3 + 64] = b"\xff" * 64
    path.write_bytes(content)
    with pytest.raises(DatabaseError, match=r"corrupt.*backup"):
        open_database(f"sqlite:///{path}")


def test_a_directory_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for url in (f"sqlite:///{tmp_path}", f"sqlite:///{tmp_path / 'file' / 'relink.db'}"):
        with pytest.raises(DatabaseError, match=str(tmp_path)):
            open_database(url)


MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
40 22 0:40 / /var/data rw - nfs4 server:/export rw
41 40 8:2 / /var/data/local rw - xfs /dev/sdb1 rw
42 22 0:41 / /mnt/with\\040space rw master:2 - cifs //server/share rw
43 22 0:42 / /over rw - ext4 /dev/sdc1 rw
44 43 0:43 / /over rw - fuse.sshfs host:/ rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/etc/relink.db", "ext4"),
        ("/var/data/relink.db", "nfs4"),
        ("/var/data/local/relink.db", "xfs"),
        ("/var/database/relink.db", "ext4"),
        ("/mnt/with space/relink.db", "cifs"),
        ("/over/relink.db", "fuse.sshfs"),
    ],
)
def test_the_filesystem_of_a_path_is_that_of_the_innermost_mount(path: str, kind: str) -> None:
    assert filesystem_type(Path(path), MOUNTS) == kind


def test_a_network_filesystem_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from jobs.adapters import database_files

    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"40 22 0:40 / {tmp_path} rw - nfs4 server:/export rw\n")
    monkeypatch.setattr(database_files, "_MOUNTS", mounts)
    with pytest.raises(DatabaseError, match=r"network filesystem \(nfs4\)"):
        open_database(f"sqlite:///{tmp_path / 'relink.db'}")
    assert not (tmp_path / "relink.db").exists()
    refuse_network_filesystem(Path("/elsewhere"))


def test_a_transaction_that_fails_leaves_nothing(database: Database) -> None:
    def work(_: object) -> None:
        start(database, "one")
        assert records.run(database, "one") is not None, "a reader in the same thread sees what is being written"
        raise KeyError

    with pytest.raises(KeyError):
        database.run(work)
    assert run_ids(database) == [RUN_ID]


def test_larger_transactions_hold_together(database: Database) -> None:
    with database.begin():
        start(database, "one")
        start(database, "two")
    assert run_ids(database) == [RUN_ID, "one", "two"]
    with database.read(), pytest.raises(RuntimeError, match="inside a read"):
        start(database, "three")


def test_threads_have_transactions_of_their_own(database: Database) -> None:
    seen: list[list[str]] = []
    with database.begin():
        start(database, "one")
        reader = threading.Thread(target=lambda: seen.append(run_ids(database)))
        reader.start()
        reader.join()
    assert seen == [[RUN_ID]]


def test_a_conflict_between_transactions_is_tried_again_from_the_beginning(database: Database) -> None:
    attempts: list[int] = []

    def work(connection: object) -> str:
        attempts.append(1)
        start(database, f"attempt {len(attempts)}")
        if len(attempts) < 3:
            raise_conflict(database, "40001" if len(attempts) == 1 else "40P01")
        return "done"

    assert database.run(work) == "done"
    assert run_ids(database) == [RUN_ID, "attempt 3"]


def test_a_conflict_that_stays_is_an_error_in_the_end(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    from jobs.adapters import database as module

    monkeypatch.setattr(module, "FIRST_PAUSE_SECONDS", 0)
    attempts: list[int] = []

    def work(_: object) -> None:
        attempts.append(1)
        raise_conflict(database, "40001")

    with pytest.raises(DatabaseError):
        database.run(work)
    assert len(attempts) == module.TRANSACTION_ATTEMPTS


def raise_conflict(database: Database, state: str) -> None:
    """Fail as the database does when another transaction is in the way."""
    with database.begin() as connection:
        if database.kind == "postgresql":
            connection.exec_driver_sql(f"DO $$ BEGIN RAISE EXCEPTION 'in the way' USING ERRCODE = '{state}'; END $$")
        else:
            busy = sqlite3.OperationalError("database is locked")
            busy.sqlite_errorname, busy.sqlite_errorcode = "SQLITE_BUSY", sqlite3.SQLITE_BUSY  # type: ignore[misc]
            raise busy


def test_a_dropped_connection_is_made_up_for(migrated_postgres_url: str) -> None:
    attempts: list[int] = []
    with open_database(migrated_postgres_url) as database:
        before = set(run_ids(database))

        def work(connection: object) -> None:
            attempts.append(1)
            start(database, f"dropped {len(attempts)}")
            if len(attempts) == 1:
                with database.begin() as inner:
                    inner.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")

        database.run(work)
        assert set(run_ids(database)) - before == {"dropped 2"}


def test_a_connection_lost_during_the_commit_is_not_tried_again(migrated_postgres_url: str) -> None:
    attempts: list[int] = []
    with open_database(migrated_postgres_url) as database, open_database(migrated_postgres_url) as killer:

        def work(connection: object) -> None:
            attempts.append(1)
            with database.begin() as inner:
                pid = inner.exec_driver_sql("SELECT pg_backend_pid()").scalar()
            with killer.begin() as other:
                other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})

        with pytest.raises(DatabaseError, match="may or may not hold"):
            database.run(work)
    assert attempts == [1]


def test_an_error_shows_no_row(database: Database) -> None:
    with pytest.raises(DatabaseError) as raised, database.begin() as connection:
        connection.execute(
            tables.outcomes.insert().values(
                request_id="canary", run_id=RUN_ID, business_date=DATE, observed_at=AT, outcome="x", accounts_cured=0
            )
        )
    assert "contradicts" in str(raised.value)
    assert "canary" not in str(raised.value)
    assert raised.value.exit_code == 3


def test_our_own_faults_look_like_faults(database: Database) -> None:
    with pytest.raises(ValueError, match="naive"), database.read() as connection:
        connection.execute(select(tables.runs).where(tables.runs.c.started_at == AT.replace(tzinfo=None)))


def test_a_new_database_is_made_by_its_migrations_and_equals_the_tables(database_url: str) -> None:
    with open_database(database_url) as database:
        assert database.schema_state().status == "empty"
        assert database.upgrade() == (None, tables.SCHEMA_VERSION)
        assert database.schema_state().status == "current"
        assert database.upgrade() == (tables.SCHEMA_VERSION, tables.SCHEMA_VERSION)
        with database.read() as connection:
            context = MigrationContext.configure(connection, opts={"version_table": tables.VERSION_TABLE})
            assert compare_metadata(context, tables.metadata) == []
            assert set(inspect(connection).get_table_names()) == {*tables.metadata.tables, tables.VERSION_TABLE}
            indexes = {found["name"]: found for found in inspect(connection).get_indexes("relink_requests")}
            contact = indexes["uq_relink_requests_contact"]
            assert contact["unique"]
            assert "not_sent" in str(next(iter(contact["dialect_options"].values())))


def test_the_newest_version_is_the_one_that_the_program_asks_for() -> None:
    assert ScriptDirectory.from_config(configuration()).get_heads() == [tables.SCHEMA_VERSION]


def test_only_an_embedded_database_is_made_on_first_use(database_url: str) -> None:
    with open_database(database_url) as database:
        if database.kind == "sqlite":
            database.ensure_schema()
            assert database.schema_state().status == "current"
        else:
            with pytest.raises(SchemaOutdated, match="relink db upgrade"):
                database.ensure_schema()
            assert database.schema_state().status == "empty"


@pytest.mark.parametrize(("found", "advice"), [("0000", "relink db upgrade"), ("9999", "install the newer program")])
def test_another_version_is_refused_with_advice(
    tmp_path: Path, migrated_sqlite_file: Path, found: str, advice: str
) -> None:
    path = tmp_path / "relink.db"
    path.write_bytes(migrated_sqlite_file.read_bytes())
    with open_database(f"sqlite:///{path}") as database:
        with database.begin() as connection:
            connection.exec_driver_sql(f"UPDATE {tables.VERSION_TABLE} SET version_num = '{found}'")
        with pytest.raises(SchemaOutdated, match=advice):
            database.ensure_schema()
        if found == "9999":
            with pytest.raises(SchemaOutdated, match="newer"):
                database.upgrade()


def test_tables_without_a_version_are_refused(tmp_path: Path, migrated_sqlite_file: Path) -> None:
    path = tmp_path / "relink.db"
    path.write_bytes(migrated_sqlite_file.read_bytes())
    with open_database(f"sqlite:///{path}") as database:
        with database.begin() as connection:
            connection.exec_driver_sql(f"DROP TABLE {tables.VERSION_TABLE}")
        with pytest.raises(DatabaseError, match="no version"):
            database.ensure_schema()


@pytest.fixture
def stop_at() -> Iterator[list[int]]:
    """Make the statement of a given number fail; the list holds that number."""
    numbers: list[int] = []
    count = [0]

    def before(*_: object) -> None:
        count[0] += 1
        if numbers and count[0] == numbers[0]:
            raise KeyboardInterrupt

    event.listen(Engine, "before_cursor_execute", before)
    yield numbers
    event.remove(Engine, "before_cursor_execute", before)


@pytest.mark.parametrize("statement", [8, 20, 38])
def test_an_interrupted_migration_leaves_the_old_tables_and_can_be_done_again(
    database_url: str, stop_at: list[int], statement: int
) -> None:
    with open_database(database_url) as database:
        stop_at.append(statement)
        with pytest.raises(KeyboardInterrupt):
            database.upgrade()
        stop_at.clear()
        with database.read() as connection:
            assert inspect(connection).get_table_names() == []
        assert database.upgrade() == (None, tables.SCHEMA_VERSION)


KILLED = """
import os, sys
from sqlalchemy import Engine, event
from jobs.adapters.database import open_database
left = [int(sys.argv[2])]
def before(*_):
    left[0] -= 1
    if not left[0]:
        os._exit(9)
event.listen(Engine, "before_cursor_execute", before)
open_database(sys.argv[1]).upgrade()
"""


@pytest.mark.parametrize(("statement", "exit_code"), [(12, 9), (36, 9), (1000, 0)])
def test_a_killed_migration_leaves_old_or_new(database_url: str, statement: int, exit_code: int) -> None:
    command = [sys.executable, "-c", KILLED, database_url, str(statement)]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == exit_code
    with open_database(database_url) as database:
        assert database.schema_state().status == ("empty" if exit_code else "current")
        database.upgrade()
        start(database, "one")


def test_of_several_first_starts_one_makes_the_tables(database_url: str) -> None:
    start_together = threading.Barrier(4)

    def upgrade(_: int) -> str | None:
        start_together.wait()
        with open_database(database_url) as database:
            return database.upgrade()[0]

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(upgrade, range(4)))
    assert sorted(found, key=str) == [tables.SCHEMA_VERSION] * 3 + [None]
