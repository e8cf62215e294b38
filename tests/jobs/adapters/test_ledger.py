from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import sqlalchemy

from jobs.adapters import ledger as adapter
from jobs.adapters.ledger import CHUNK_ROWS, read_csv, read_query
from reconcile.errors import LedgerError
from reconcile.ledger import check_rows, require_clean

CREATE = "CREATE TABLE accounts (account_id text, holder text, exposure numeric(12, 0), owner_email text)"
INSERT = "INSERT INTO accounts VALUES ('fca_1', 'cus_1', 1250, 'ada@example.com'), ('fca_2', 'cus_2', NULL, NULL)"
QUERY = "SELECT account_id, holder AS account_holder_id, exposure AS exposure_minor, 'usd' AS currency, owner_email FROM accounts"
# A statement that begins as a reading one and writes all the same.
PLACED_DELETE = "WITH gone AS (DELETE FROM accounts RETURNING account_id) SELECT account_id, account_id AS account_holder_id FROM gone"


@pytest.fixture
def sqlite_file(tmp_path: Path) -> Path:
    file = tmp_path / "merchant's ledger?.db"
    with sqlite3.connect(file) as connection:
        connection.execute(CREATE)
        connection.execute(INSERT)
    connection.close()
    return file


@pytest.fixture
def sqlite_url(sqlite_file: Path) -> str:
    return sqlalchemy.URL.create("sqlite", database=str(sqlite_file)).render_as_string(hide_password=False)


@pytest.fixture
def ledger_postgres_url(postgres_url: str) -> Iterator[str]:
    engine = sqlalchemy.create_engine(postgres_url)
    with engine.begin() as connection:
        connection.exec_driver_sql(CREATE)
        connection.exec_driver_sql(INSERT)
        connection.exec_driver_sql("CREATE SEQUENCE numbers")
    yield postgres_url
    engine.dispose()


def refused(url: str, query: str) -> str:
    with pytest.raises(LedgerError) as caught:
        list(read_query(url, query))
    return str(caught.value)


@pytest.mark.parametrize("database", ["sqlite_url", "ledger_postgres_url"])
def test_rows_come_with_the_ledgers_columns_alone(database: str, request: pytest.FixtureRequest) -> None:
    rows = list(read_query(request.getfixturevalue(database), f"{QUERY} ORDER BY account_id;"))
    assert [list(row) for row in rows] == [["account_id", "account_holder_id", "exposure_minor", "currency"]] * 2
    checked = require_clean(check_rows(rows, ["main"]))
    assert [(row.account_id, row.exposure_minor) for row in checked] == [("fca_1", 1250), ("fca_2", None)]


@pytest.mark.parametrize("database", ["sqlite_url", "ledger_postgres_url"])
def test_colons_and_percent_signs_in_the_query_mean_what_they_say(
    database: str, request: pytest.FixtureRequest
) -> None:
    query = "SELECT ' :a %s %(b)s 100%' AS account_id, holder AS account_holder_id FROM accounts WHERE holder LIKE '%_1' -- :c %d"
    rows = list(read_query(request.getfixturevalue(database), query))
    assert rows == [{"account_id": " :a %s %(b)s 100%", "account_holder_id": "cus_1"}]


@pytest.mark.parametrize("database", ["sqlite_url", "ledger_postgres_url"])
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("SELECT holder AS account_holder_id FROM accounts", "yields no column account_id, but: account_holder_id"),
        ("SELECT 1 AS a", "no column account_id and no column account_holder_id"),
        (
            "SELECT account_id, holder AS account_holder_id, account_id FROM accounts",
            "yields account_id more than once",
        ),
        ("SELECT account_id FROM nowhere", "cannot query the ledger at"),
        ("SELECT FROM WHERE", "cannot query the ledger at"),
        ("DROP TABLE accounts", "begins with DROP"),
        ("SELECT 1; DROP TABLE accounts", "more than one statement"),
        (PLACED_DELETE, "cannot query the ledger at"),
    ],
)
def test_a_query_that_is_no_ledger_is_refused_and_changes_nothing(
    database: str, query: str, expected: str, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue(database)
    assert expected in refused(url, query)
    assert len(list(read_query(url, QUERY))) == 2


def test_column_names_in_capitals_are_the_same_columns(sqlite_url: str) -> None:
    rows = list(read_query(sqlite_url, "SELECT account_id AS ACCOUNT_ID, holder AS Account_Holder_Id FROM accounts"))
    assert list(rows[0]) == ["account_id", "account_holder_id"]


def test_a_sqlite_ledger_cannot_be_written_even_past_the_look_at_the_query(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "query_problem", lambda query: None)
    for statement in ("DELETE FROM accounts", "PRAGMA user_version = 7", "CREATE TABLE mine (a)"):
        assert "readonly" in refused(sqlite_url, statement)
    assert len(list(read_query(sqlite_url, QUERY))) == 2


def test_a_sqlite_ledger_in_use_is_read_as_last_committed(sqlite_file: Path, sqlite_url: str) -> None:
    writer = sqlite3.connect(sqlite_file, isolation_level=None)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("DELETE FROM accounts")
    assert len(list(read_query(sqlite_url, QUERY))) == 2
    writer.execute("COMMIT")
    assert list(read_query(sqlite_url, QUERY)) == []
    writer.close()


def test_a_missing_sqlite_file_is_named_and_not_created(tmp_path: Path) -> None:
    file = tmp_path / "none.db"
    assert f"the ledger database {file} does not exist" in refused(f"sqlite:///{file}", QUERY)
    assert not file.exists()


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "ledger.db"
    file.write_text("account_id,account_holder_id\n" * 100)
    assert "not a database" in refused(f"sqlite:///{file}", QUERY)


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_a_database_in_memory_is_no_ledger(url: str) -> None:
    assert "in memory" in refused(url, QUERY)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            "postgresql+psycopg://u:hunter2@127.0.0.1:1/x",
            "cannot reach the ledger at postgresql+psycopg://u:***@127.0.0.1:1/x",
        ),
        ("postgresql+psycopg://u:hunter2@/x?host=/nowhere", "cannot reach the ledger at"),
        ("nosuch://u:hunter2@h/x", "cannot open the ledger at nosuch://u:***@h/x"),
        ("mysql+nosuch://u:hunter2@h/x", "cannot open the ledger at"),
        ("oracle+cx_oracle://u:hunter2@h/x", "driver that ledger.url asks for is not installed"),
        ("mysql://u:hunter2@h:port/x", "cannot open the ledger at"),
    ],
)
def test_an_unreachable_ledger_is_told_without_its_password(url: str, expected: str) -> None:
    told = refused(url, QUERY)
    assert expected in told
    assert "hunter2" not in told


def test_a_drivers_message_is_masked_and_the_error_keeps_no_chain(ledger_postgres_url: str) -> None:
    with pytest.raises(LedgerError) as caught:
        list(read_query(ledger_postgres_url, "SELECT CAST('ada@example.com' AS integer) AS account_id"))
    assert "invalid input syntax" in str(caught.value)
    assert "ada@" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert caught.value.__suppress_context__


def test_postgresql_is_read_in_a_read_only_transaction_with_a_time_limit_and_a_cursor(ledger_postgres_url: str) -> None:
    query = """
        SELECT current_setting('transaction_read_only') AS account_id,
               current_setting('statement_timeout') AS account_holder_id,
               (SELECT count(*) FROM pg_cursors)::text AS reference
    """
    assert list(read_query(ledger_postgres_url, query)) == [
        {"account_id": "on", "account_holder_id": "10min", "reference": "1"}
    ]


@pytest.mark.parametrize(
    "query",
    [
        "SELECT nextval('numbers')::text AS account_id, '' AS account_holder_id",
        "SELECT set_config('transaction_read_only', 'off', true) AS account_id, '' AS account_holder_id",
        "SELECT lo_create(0)::text AS account_id, '' AS account_holder_id",
        "SELECT account_id, holder AS account_holder_id INTO copied FROM accounts",
        "SELECT account_id, holder AS account_holder_id FROM accounts FOR UPDATE",
    ],
)
def test_postgresql_refuses_what_would_change_something(ledger_postgres_url: str, query: str) -> None:
    assert "cannot" in refused(ledger_postgres_url, query)
    engine = sqlalchemy.create_engine(ledger_postgres_url)
    with engine.connect() as connection:
        state = connection.exec_driver_sql(
            "SELECT is_called, (SELECT count(*) FROM pg_largeobject_metadata), to_regclass('copied') FROM numbers"
        )
        assert tuple(state.one()) == (False, 0, None)
    engine.dispose()


def test_many_rows_come_in_chunks(ledger_postgres_url: str) -> None:
    count = CHUNK_ROWS * 2 + 1
    query = f"SELECT 'fca_' || n AS account_id, 'cus' AS account_holder_id FROM generate_series(1, {count}) n"
    rows = read_query(ledger_postgres_url, query)
    assert len({row["account_id"] for row in rows}) == count


def test_a_connection_that_breaks_midway_is_an_error_and_not_a_short_ledger(ledger_postgres_url: str) -> None:
    engine = sqlalchemy.create_engine(ledger_postgres_url)
    query = (
        "SELECT n::text AS account_id, pg_backend_pid()::text AS account_holder_id FROM generate_series(1, 1000000) n"
    )
    rows = read_query(ledger_postgres_url, query)
    first = next(rows)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"SELECT pg_terminate_backend({int(str(first['account_holder_id']))})")
    engine.dispose()
    with pytest.raises(LedgerError, match="cannot read the ledger at"):
        list(rows)


def test_leaving_early_frees_the_connection(ledger_postgres_url: str) -> None:
    rows = read_query(ledger_postgres_url, QUERY)
    next(rows)
    rows.close()  # type: ignore[attr-defined]
    engine = sqlalchemy.create_engine(ledger_postgres_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("SET LOCAL lock_timeout = '5s'")
        connection.exec_driver_sql("DROP TABLE accounts")
    engine.dispose()


class RecordingConnection:
    """Stands for a connection to a database that this machine has no driver for; notes what it is told, in order."""

    def __init__(self, dialect: str) -> None:
        self.dialect = SimpleNamespace(name=dialect)
        self.told: list[str] = []

    def execution_options(self, **options: object) -> RecordingConnection:
        self.told.append(",".join(sorted(options)))
        return self

    def exec_driver_sql(self, statement: str) -> None:
        self.told.append(statement)


@pytest.mark.parametrize(
    ("dialect", "first"),
    [
        ("mysql", ["START TRANSACTION READ ONLY"]),
        ("mariadb", ["START TRANSACTION READ ONLY"]),
        ("oracle", ["SET TRANSACTION READ ONLY"]),
        ("mssql", []),
    ],
)
def test_databases_that_know_how_are_told_to_read_only_before_the_query(dialect: str, first: list[str]) -> None:
    connection = RecordingConnection(dialect)
    adapter._execute(connection, "SELECT 1")  # type: ignore[arg-type]
    assert connection.told == [*first, "no_parameters,stream_results", "SELECT 1"]


def csv_file(tmp_path: Path, content: str | bytes) -> Path:
    file = tmp_path / "ledger.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_csv_is_read_with_quotes_marks_and_either_line_end(tmp_path: Path, start: str, end: str) -> None:
    lines = ["account_id, account_holder_id,reference", 'fca_1,cus_1,"a ""b"", c\nd"', "", "fca_2,cus_2,é"]
    assert read_csv(csv_file(tmp_path, start + end.join(lines))) == [
        {"account_id": "fca_1", "account_holder_id": "cus_1", "reference": 'a "b", c\nd'},
        {"account_id": "fca_2", "account_holder_id": "cus_2", "reference": "é"},
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "the file is empty"),
        ("\n\n", "the file is empty"),
        ("account_id,holder_id\n", "'holder_id' is not a ledger column; did you mean account_holder_id?"),
        ("account_id,account_holder_id,do_not_contct\n", "did you mean do_not_contact?"),
        ("account_id,account_holder_id,Status\n", "'Status' is not a ledger column; did you mean status?"),
        ("account_id,account_holder_id,account_id\n", "column account_id stands more than once"),
        ("account_id,reference\n", "column account_holder_id is missing"),
        ("account_id;account_holder_id\n", "not separated by commas"),
        (
            "account_id,account_holder_id\nfca_1\nfca_2,cus_2\nfca_3,cus_3,x\n",
            "line 2: has 1 cells, but the header has 2",
        ),
        ("account_id,account_holder_id\nfca_1\nfca_2,cus_2\nfca_3,cus_3,x\n", "line 4: has 3 cells"),
        ('account_id,account_holder_id\nfca_1,"cus" 1\n', "line 2 is not CSV"),
        ('account_id,account_holder_id\nfca_1,"cus_1\n', "is not CSV"),
        (b"account_id,account_holder_id\nfca_1,\xff\n", "line 2 is not UTF-8"),
        ("account_id,account_holder_id\nfca_1," + "x" * 200_000, "is not CSV"),
        ("account_id\n", "column account_holder_id is missing"),
    ],
)
def test_a_faulty_csv_is_refused_by_its_place(tmp_path: Path, content: str | bytes, expected: str) -> None:
    file = csv_file(tmp_path, content)
    with pytest.raises(LedgerError) as caught:
        read_csv(file)
    assert str(caught.value).startswith(str(file))
    assert expected in str(caught.value)


def test_a_csv_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="No such file"):
        read_csv(tmp_path / "none.csv")
    with pytest.raises(LedgerError, match="Is a directory"):
        read_csv(tmp_path)
