"""What a single setting's value must be; each check returns the value as it is used, or raises ValueError saying how to mend it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from datetime import date, time
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from jobs.cron_line import parse_cron_line
from jobs.ledger_query import query_problem, tidy_query

STRIPE_API = "https://api.stripe.com"
STRIPE_ENDPOINT_LIMIT = 25.0
"""Requests per second to one endpoint (Stripe docs: rate limits)."""
STRIPE_LIMIT = 100.0
"""Requests per second in all, in live mode (Stripe docs: rate limits)."""

DEFAULT_KEY_VARIABLE = "STRIPE_API_KEY"
DEFAULT_CRON = "30 3 * * *"

_MERCHANT_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_API_VERSION = re.compile(r"(\d{4}-\d{2}-\d{2})\.preview")
_QUIET_HOURS = re.compile(r"(\d\d:\d\d)-(\d\d:\d\d)")
LEAST_LADDER_GAP_DAYS = 2

_SQLITE = "sqlite:///"
_POSTGRESQL = "postgresql+psycopg://"
# As SQLAlchemy reads them: the password ends at the first `@`, so that what follows another one would be taken for the host's name and shown.
_CREDENTIALS = re.compile(r"(?:[^:/]*(?::[^@]*)?@)?")


def is_loopback(api_base: str) -> bool:
    """Whether a base address stays on this machine: 127.0.0.0/8, ::1 or localhost."""
    try:
        host = urlsplit(api_base).hostname or ""
    except ValueError:
        return False
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def api_base(value: str) -> str:
    """Stripe itself, or a stand-in on loopback; the key must never travel anywhere else."""
    try:
        parts = urlsplit(value)
        plain = f"{parts.scheme}://{parts.netloc}".lower()
        port = parts.port
    except ValueError:
        raise ValueError("is not an address; write https://api.stripe.com") from None
    if "@" in parts.netloc or parts.query or parts.fragment or parts.path not in ("", "/"):
        raise ValueError("must be a scheme, a host and perhaps a port; write https://api.stripe.com")
    if plain in (STRIPE_API, f"{STRIPE_API}:443"):
        return STRIPE_API
    if parts.scheme in ("http", "https") and is_loopback(value) and port != 0:
        return plain
    raise ValueError("must be https://api.stripe.com; any other host only on loopback (127.0.0.1, ::1, localhost)")


def api_version(value: str) -> str:
    """A dated preview version: relinking is absent from the others (Stripe docs: versioning)."""
    match = _API_VERSION.fullmatch(value)
    try:
        date.fromisoformat(match[1] if match else "")
    except ValueError:
        raise ValueError("must look like 2026-09-30.preview, a version in which Stripe offers relinking") from None
    return value


def merchant_name(value: str) -> str:
    """A name that is safe as a part of a path."""
    if not _MERCHANT_NAME.fullmatch(value):
        raise ValueError("must be 1 to 64 letters, digits, '.', '_' or '-', and begin with a letter, a digit or '_'")
    return value


def variable_name(value: str) -> str:
    """The name of an environment variable, not what the variable holds."""
    if not _VARIABLE_NAME.fullmatch(value):
        raise ValueError("must be the name of an environment variable, such as STRIPE_API_KEY")
    return value


def connected_account(value: str) -> str:
    """A connected account's id, which goes into a header."""
    if not re.fullmatch(r"acct_[A-Za-z0-9_]{1,250}", value):
        raise ValueError("must be the id of a connected account, acct_…")
    return value


def file_path(value: str | Path) -> Path:
    """A path; relative ones start at the current working directory."""
    if not isinstance(value, (str, Path)):
        raise ValueError("must be a path, as text")
    if not str(value).strip() or "\x00" in str(value):
        raise ValueError("must be a path")
    return Path(value)


def requests_per_second(value: object) -> str | float:
    """`auto`, or requests per second; `settings_relations` holds it below Stripe's own limit."""
    if value == "auto":
        return "auto"
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 10_000:
        raise ValueError("must be auto, or a number above 0")
    return float(value)


def database_url(value: str) -> str:
    """The job's own database: a SQLite file or PostgreSQL through psycopg."""
    if value.startswith(_SQLITE):
        path = value.removeprefix(_SQLITE)
        if not path.strip("/") or "\x00" in path or "?" in path or path.startswith("file:"):
            raise ValueError("must name a file and nothing else, as in sqlite:///var/relink.db")
        if ":memory:" in path:
            raise ValueError("must be a file: a database in memory would forget who was already asked")
        return value
    if value.startswith(_POSTGRESQL) and len(value) > len(_POSTGRESQL):
        _refuse_open_password(value)
        return value
    raise ValueError("must begin with sqlite:/// or postgresql+psycopg://")


def ledger_url(value: str) -> str:
    """Any SQLAlchemy database URL."""
    if not re.match(r"[A-Za-z][A-Za-z0-9_+.-]*://", value) or "\x00" in value:
        raise ValueError("must be a SQLAlchemy database URL")
    _refuse_open_password(value)
    return value


def _refuse_open_password(url: str) -> None:
    """Refuse a URL in which a part of the password would be taken for host, port, database or a parameter, which are shown."""
    rest = url.partition("://")[2]
    credentials = _CREDENTIALS.match(rest)
    end = credentials.end() if credentials else 0
    place, _, parameters = rest[end:].partition("?")
    # The path of an embedded database may hold one. A parameter may, too, unless the `?` before it can be the password's.
    in_place = "@" in place and (not place.startswith("/") or ":" in place.rpartition("@")[0])
    if in_place or (end and "@" in parameters):
        raise ValueError(
            "has an @ behind the one that ends user and password: percent-encode what is special in either, "
            "@ as %40, / as %2F, ? as %3F, # as %23, : as %3A; in a parameter, too"
        )


def ledger_query(value: str) -> str:
    """One statement that reads."""
    problem = query_problem(value)
    if problem:
        raise ValueError(f"{problem}; write one SELECT that yields the ledger's columns")
    return tidy_query(value)


def list_query(value: str) -> str:
    """One statement that reads a list."""
    problem = query_problem(value)
    if problem:
        raise ValueError(f"{problem}; write one SELECT")
    return tidy_query(value)


def ladder(days: tuple[int, ...]) -> tuple[int, ...]:
    """Days of an outage on which its attempts are due, each at least two after the one before."""
    if not days:
        raise ValueError("has no step; write null for no ladder")
    if any(later - earlier < LEAST_LADDER_GAP_DAYS for earlier, later in pairwise(days)):
        raise ValueError("must rise by at least 2 days from step to step, as in [0, 4, 11]")
    return days


def quiet_date(value: object) -> str:
    """A date of one year, or a month and day of every year."""
    text = value.isoformat() if isinstance(value, date) else value
    if isinstance(text, str):
        try:
            # 2024 had a 29 February.
            date.fromisoformat(text if len(text) == 10 else f"2024-{text}")
            return text
        except ValueError:
            pass
    raise ValueError('must be a date such as 2026-12-25, or "12-25" for every year')


def quiet_hours(value: str) -> str:
    """Two times of day; the span may pass midnight."""
    parse_quiet_hours(value)
    return value


def parse_quiet_hours(value: str) -> tuple[time, time]:
    """Both ends of a span such as `20:00-08:00`.

    Raises:
        ValueError: it is none, or an empty one.
    """
    match = _QUIET_HOURS.fullmatch(value)
    try:
        start, end = (time.fromisoformat(part) for part in (match[1], match[2])) if match else (time.min, time.min)
    except ValueError:
        start = end = time.min
    if start == end:
        raise ValueError('must be two different times of day, as in "20:00-08:00"')
    return start, end


def return_url(value: str) -> str:
    """Where Stripe sends the customer back to; without TLS only on this machine, to try an application out."""
    try:
        parts = urlsplit(value)
        usable = (
            (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(value)))
            and bool(parts.hostname)
            and "@" not in parts.netloc
        )
    except ValueError:
        usable = False
    if not usable or not value.isprintable() or " " in value:
        raise ValueError("must be an https:// address")
    return value


def file_mode(value: str) -> str:
    """Octal permission bits, a subset of 0640 that the owner can read."""
    if not re.fullmatch(r"0?[0-7]{3}", value):
        raise ValueError('must be octal digits in quotes, as in "0600"')
    bits = int(value, 8)
    if bits & ~0o640 or not bits & 0o400:
        raise ValueError("must let the owner read, the group read at most, and nobody else: 0640, 0600, 0440 or 0400")
    return f"{bits:04o}"


def group_name(value: str) -> str:
    """A group that this machine knows."""
    import grp

    try:
        grp.getgrnam(value)
    except (KeyError, ValueError):
        raise ValueError("is not a group on this machine; create it, or write null") from None
    return value


def timezone(value: str) -> str:
    """An IANA time zone."""
    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError):  # a directory of zones, such as `America`, is an OSError
        raise ValueError("is not a time zone; write one like UTC or America/New_York") from None
    return value


def cron(value: str) -> str:
    """Five crontab fields that come due at least once."""
    try:
        line = parse_cron_line(value)
    except ValueError as error:
        raise ValueError(f'is not a crontab line ({error}); write five fields, as in "30 3 * * *"') from None
    if not line.comes_due:
        raise ValueError('never comes due; write five fields, as in "30 3 * * *"')
    return value


def distinct(values: tuple[str, ...]) -> tuple[str, ...]:
    """A list in which nothing stands twice."""
    twice = repeated(values)
    if twice:
        raise ValueError(f"names {', '.join(twice)} more than once; keep one")
    return values


def repeated(values: Iterable[str]) -> list[str]:
    """What stands more than once, in order of its second appearance."""
    seen: set[str] = set()
    twice: list[str] = []
    for value in values:
        if value in seen and value not in twice:
            twice.append(value)
        seen.add(value)
    return twice
