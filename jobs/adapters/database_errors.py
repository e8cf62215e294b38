"""What a database driver's error means: whether the transaction is worth doing again, and what a person can do."""

from __future__ import annotations

import re
from urllib.parse import quote, quote_plus, unquote

from sqlalchemy.exc import DBAPIError

from reconcile.errors import DatabaseError

_SERIALIZATION_FAILURE = "40001"
_DEADLOCK = "40P01"
_CONFLICT_STATES = (_SERIALIZATION_FAILURE, _DEADLOCK)
"""States after which the whole transaction may be done again (PostgreSQL documentation: "Serialization Failure Handling")."""

_LOST_STATES = ("57P01", "57P02", "57P03")
"""A server that was told to stop (PostgreSQL documentation: "PostgreSQL Error Codes", class 57)."""

_SQLITE_ADVICE = {
    "SQLITE_CORRUPT": "it is corrupt: stop the job, keep a copy of the file, and restore the newest backup",
    "SQLITE_NOTADB": "it is corrupt or not a SQLite database: restore the newest backup, or change database.url",
    "SQLITE_FULL": "the disk is full: free some space, then run again",
    "SQLITE_READONLY": "it is read-only: make the file and its directory writable for this user",
    "SQLITE_CANTOPEN": "it cannot be opened: check that the file and its directory exist and belong to this user",
    "SQLITE_PERM": "access was refused: make the file and its directory writable for this user",
    "SQLITE_BUSY": "another program keeps it locked: end that program, or run again later",
    "SQLITE_LOCKED": "another program keeps it locked: end that program, or run again later",
    "SQLITE_IOERR": "the disk failed: check the disk and the system log, then run again",
}

_POSTGRESQL_ADVICE = {
    "42501": "the user lacks a right: grant it rights on this job's tables (and CREATE on the schema, for `relink db upgrade`)",
    "42": "its tables are not as expected: run `relink db upgrade`",
    "53": "the server is out of space, memory or connections: relieve it, then run again",
    "57": "the server is stopping or cancelled the work: run again when it is back",
    "25006": "the server is read-only, perhaps a standby: point database.url to the primary",
}


def is_conflict(error: BaseException) -> bool:
    """Whether a transaction failed only because of another one, and left nothing behind."""
    return _sqlstate(error) in _CONFLICT_STATES or _sqlite_name(error).startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))


def is_lost_connection(error: BaseException) -> bool:
    """Whether the connection to the server is gone."""
    state = _sqlstate(error) or ""
    invalidated = isinstance(error, DBAPIError) and error.connection_invalidated
    return invalidated or state in _LOST_STATES or state.startswith("08")


def is_contradiction(error: BaseException) -> bool:
    """Whether a row broke a constraint."""
    return type(_driver_error(error)).__name__ == "IntegrityError" or (_sqlstate(error) or "").startswith("23")


def explain(
    error: Exception, shown: str, password: str | object | None, *, commit_in_doubt: bool = False
) -> DatabaseError:
    """The error to show: what is wrong, where, and how to mend it, without values, statements or the password."""
    name, state = _sqlite_name(error), _sqlstate(error) or ""
    advice = next((text for start, text in _SQLITE_ADVICE.items() if name.startswith(start)), None)
    if advice is None:
        advice = next(
            (_POSTGRESQL_ADVICE[state[:width]] for width in (5, 2) if state[:width] in _POSTGRESQL_ADVICE),
            None,
        )
    if commit_in_doubt:
        advice = "the connection broke during a commit, which may or may not hold: run again, which settles it"
    elif is_contradiction(error):
        advice = f"a record contradicts one that is there ({_constraint(error)}): report this as a fault of the program"
    elif (
        advice is None
        and not name
        and (is_lost_connection(error) or _driver_error(error).__class__.__name__ == "OperationalError")
    ):
        advice = "no connection: check that the server runs, and the host, name, user and password in database.url"
    words = without_password(_first_line(_driver_error(error)), password)
    detail = "" if is_contradiction(error) else f" [{words}]"
    return DatabaseError(f"database {shown}: {advice or 'it failed'}{detail}")


def without_password(words: str, password: str | object | None) -> str:
    """A text with a password, in any of the spellings that a URL allows, blotted out."""
    plain = str(password) if password else ""
    for spelling in {plain, unquote(plain), quote(plain, safe=""), quote_plus(plain)} - {""}:
        words = words.replace(spelling, "***")
    return re.sub(r"://([^/@\s:]*):[^@\s]*@", r"://\1:***@", words)


def _first_line(error: BaseException) -> str:
    # Later lines of a server's message quote rows (DETAIL) and statements.
    diagnostics = getattr(error, "diag", None)
    primary = getattr(diagnostics, "message_primary", None)
    lines = str(primary or error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:300]


def _constraint(error: BaseException) -> str:
    diagnostics = getattr(_driver_error(error), "diag", None)
    named = getattr(diagnostics, "constraint_name", None)
    return str(named or _first_line(_driver_error(error)))


def _driver_error(error: BaseException) -> BaseException:
    """The driver's error, whether SQLAlchemy wrapped it or bulk work met it bare."""
    return getattr(error, "orig", None) or error


def _sqlstate(error: BaseException) -> str | None:
    state: str | None = getattr(_driver_error(error), "sqlstate", None)
    return state


def _sqlite_name(error: BaseException) -> str:
    return str(getattr(_driver_error(error), "sqlite_errorname", "") or "")
