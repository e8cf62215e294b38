"""Reads the merchant's ledger, from any database by query and from a CSV file; changes neither."""

from __future__ import annotations

import csv
import difflib
import io
import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from jobs.database_url import scrub, without_password
from jobs.ledger_query import query_problem, tidy_query
from reconcile.errors import LedgerError
from reconcile.ledger import FAULTS_SHOWN, LEDGER_COLUMNS, REQUIRED_COLUMNS
from reconcile.masking import mask

if TYPE_CHECKING:
    from sqlalchemy.engine import URL, Connection, CursorResult, Engine

Result = TypeVar("Result")

CHUNK_ROWS = 10_000
STATEMENT_TIMEOUT_SECONDS = 600
CONNECT_TIMEOUT_SECONDS = 30
CSV_LIMIT_BYTES = 256 * 1024 * 1024

_SHOWN_CHARACTERS = 300

# Where PostgreSQL's messages go on to quote the query or rows, cut so that an address in them is no longer recognised as one.
_QUOTED_INPUT = re.compile(r"\n(?:LINE \d+|QUERY|CONTEXT|DETAIL):")

# The first statements of the reading transaction. PostgreSQL docs: SET TRANSACTION (read-write cannot be set again once a query
# ran); MySQL reference: START TRANSACTION READ ONLY; Oracle SQL reference: SET TRANSACTION.
_READ_ONLY = {
    "postgresql": ("SET TRANSACTION READ ONLY", f"SET LOCAL statement_timeout = {STATEMENT_TIMEOUT_SECONDS * 1000}"),
    "mysql": ("START TRANSACTION READ ONLY",),
    "mariadb": ("START TRANSACTION READ ONLY",),
    "oracle": ("SET TRANSACTION READ ONLY",),
    "sqlite": ("PRAGMA query_only = ON",),
}


@dataclass(frozen=True, slots=True)
class RowShape:
    """What rows are read for: the setting that gives them, the columns that are taken, those that must be there, and the setting of the database."""

    setting: str
    columns: tuple[str, ...]
    required: tuple[str, ...]
    database: str = "ledger.url"


LEDGER = RowShape("ledger.query", LEDGER_COLUMNS, REQUIRED_COLUMNS)


def read_query(url: str, query: str, shape: RowShape = LEDGER) -> Iterator[dict[str, object]]:
    """Yield each row that a SELECT gives, as `read_chunks` reads it."""
    for chunk in read_chunks(url, query, shape):
        for cells in zip(*chunk.values(), strict=True):
            yield dict(zip(chunk, cells, strict=True))


def read_chunks(url: str, query: str, shape: RowShape = LEDGER) -> Iterator[dict[str, Sequence[object]]]:
    """Yield the shape's columns of the rows that a SELECT gives, names in lower case; other columns are left in the database.

    The read happens in a read-only transaction that is always rolled back, and rows come in chunks, never all at once.

    Raises:
        LedgerError: the database cannot be reached, the statement fails, or a required column is missing.
    """
    problem = query_problem(query)
    if problem:
        raise LedgerError(f"{shape.setting} {problem}; write one SELECT that yields {', '.join(shape.columns)}")
    engine = _guarded("open", url, shape, lambda: _engine(url))
    try:
        with closing(_guarded("reach", url, shape, engine.connect)) as connection:
            result = _guarded("query", url, shape, lambda: _execute(connection, tidy_query(query)))
            columns = _positions(list(result.keys()), shape)
            while rows := _guarded("read", url, shape, lambda: result.fetchmany(CHUNK_ROWS)):
                cells = list(zip(*rows, strict=True))
                yield {name: cells[position] for name, position in columns}
    finally:
        engine.dispose()


def read_csv(path: Path, shape: RowShape = LEDGER) -> list[dict[str, str]]:
    """Every data row of a ledger file or a list of the same form, all cells as text; UTF-8 with or without a byte order mark, comma-separated (RFC 4180).

    Raises:
        LedgerError: it cannot be read, a column is unknown, repeated or missing, or a row has another number of cells.
    """
    reader = csv.reader(io.StringIO(_read_text(path), newline=""), strict=True)
    rows: list[dict[str, str]] = []
    faults: list[str] = []
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_header(path, header, shape)
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                faults.append(f"  line {reader.line_num}: has {len(cells)} cells, but the header has {len(header)}")
            rows.append(dict(zip(header, cells, strict=False)))
    except csv.Error as error:
        advice = "quote cells that hold commas, quotes or line ends, and double the quotes inside"
        raise LedgerError(f"{path}: line {reader.line_num} is not CSV ({error}); {advice}") from None
    if faults:
        more = [f"  and {len(faults) - FAULTS_SHOWN} more"] if len(faults) > FAULTS_SHOWN else []
        raise LedgerError("\n".join([f"{path}: rows are cut or run over:", *faults[:FAULTS_SHOWN], *more]))
    return rows


def _check_header(path: Path, header: Sequence[str], shape: RowShape) -> None:
    faults = []
    if not any(header):
        raise LedgerError(f"{path}: the file is empty; its first line names the columns: {', '.join(shape.columns)}")
    if len(header) == 1 and (";" in header[0] or "\t" in header[0]):
        raise LedgerError(
            f"{path}: the cells are not separated by commas; save the file as comma-separated CSV in UTF-8"
        )
    what = "a ledger column" if shape is LEDGER else f"a column of {shape.setting}"
    for name in dict.fromkeys(header):
        if name not in shape.columns:
            close = difflib.get_close_matches(name.lower(), shape.columns, n=1, cutoff=0.6)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(shape.columns)}"
            faults.append(f"  column {_shown(name)!r} is not {what}; {hint}")
        if header.count(name) > 1:
            faults.append(f"  column {_shown(name)} stands more than once")
    faults += [f"  column {name} is missing" for name in shape.required if name not in header]
    if faults:
        raise LedgerError("\n".join([f"{path}: the header is wrong:", *faults]))


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(CSV_LIMIT_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a path"
        raise LedgerError(f"{path}: the ledger file cannot be read ({reason})") from None
    if len(content) > CSV_LIMIT_BYTES:
        raise LedgerError(
            f"{path}: the ledger file is larger than {CSV_LIMIT_BYTES // 1024**2} MiB; configure a query instead"
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise LedgerError(f"{path}: line {line} is not UTF-8; save the file as CSV in UTF-8") from None


def _engine(url: str) -> Engine:
    import sqlalchemy
    from sqlalchemy.pool import NullPool

    parts = sqlalchemy.make_url(url)
    backend = parts.get_backend_name()
    arguments: dict[str, Any] = {}
    if backend == "sqlite":
        if parts.database in (None, "", ":memory:"):
            raise LedgerError("ledger.url names a SQLite database in memory, which is empty; name its file")
        if not str(parts.database).startswith("file:") and parts.get_driver_name() == "pysqlite":
            arguments["creator"] = lambda: _open_sqlite(parts)
    elif backend == "postgresql" and parts.get_driver_name() in ("psycopg", "psycopg2"):
        arguments["connect_args"] = (
            {"connect_timeout": CONNECT_TIMEOUT_SECONDS} if "connect_timeout" not in parts.query else {}
        )
    return sqlalchemy.create_engine(parts, poolclass=NullPool, hide_parameters=True, **arguments)


def _open_sqlite(url: URL) -> sqlite3.Connection:
    file = Path(str(url.database))
    if not file.exists():
        raise LedgerError(
            f"the ledger database {file} does not exist; check ledger.url (relative paths start where the job does)"
        )
    # The URI's mode=ro keeps SQLite from creating, writing or recovering anything (SQLite docs: URI filenames).
    return sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=CONNECT_TIMEOUT_SECONDS)


def _execute(connection: Connection, query: str) -> CursorResult[Any]:
    """Run the query as it is written: no bind parameters, so that colons and percent signs in it mean nothing to us."""
    for statement in _READ_ONLY.get(connection.dialect.name, ()):
        connection.exec_driver_sql(statement)
    reading = connection.execution_options(stream_results=True, no_parameters=True)
    return reading.exec_driver_sql(query)


def _positions(names: Sequence[str], shape: RowShape) -> list[tuple[str, int]]:
    """Where each column stands in the query's rows."""
    lowered = [name.lower() for name in names]
    missing = [name for name in shape.required if name not in lowered]
    if missing:
        given = ", ".join(_shown(name) for name in names[:40])
        raise LedgerError(
            f"{shape.setting} yields no column {' and no column '.join(missing)}, but: {given}; rename one with AS"
        )
    twice = [name for name in shape.columns if lowered.count(name) > 1]
    if twice:
        raise LedgerError(f"{shape.setting} yields {', '.join(twice)} more than once; name the columns instead of *")
    return [(name, lowered.index(name)) for name in shape.columns if name in lowered]


def _guarded(what: str, url: str, shape: RowShape, call: Callable[[], Result]) -> Result:
    """Do one thing with the database; whatever a driver raises becomes a `LedgerError` without a secret in it."""
    try:
        return call()
    except LedgerError:
        raise
    except ImportError as error:
        advice = "install the driver into this program's environment, or correct ledger.url"
        raise LedgerError(
            f"the driver that ledger.url asks for is not installed ({_shown(str(error))}); {advice}"
        ) from None
    except Exception as error:  # drivers raise what they like, and the settings allow any driver
        said = _QUOTED_INPUT.split(str(getattr(error, "orig", None) or error), maxsplit=1)[0]
        message = f"cannot {what} the ledger at {without_password(url)}: {_shown(scrub(said, url))}"
        advice = f"check {shape.database} and {shape.setting}, and that the database is up"
        raise LedgerError(f"{message}; {advice}") from None


def _shown(text: str) -> str:
    """Somebody else's text in a message of ours: one line, masked, cut."""
    flat = " ".join(mask(text).split())
    plain = "".join(character for character in flat if character.isprintable())
    return plain if len(plain) <= _SHOWN_CHARACTERS else plain[:_SHOWN_CHARACTERS] + "…"
