"""The merchant's list of sessions that something else made: which rows can be followed, and what is wrong with the others."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from reconcile.errors import LedgerError
from reconcile.ledger import FAULTS_SHOWN, BadCell, identifier, readers, shown, shown_key

SESSION_COLUMNS = ("session_id", "requested_at", "merchant")

CLOCK_TOLERANCE = timedelta(minutes=5)
"""So far may another system's clock be ahead of ours."""

_SESSION_ID = re.compile(r"fcsess_[A-Za-z0-9_]+")
_SECONDS = re.compile(r"\d{9,11}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_AS_EXPECTED = "write a time with its zone, such as 2026-11-22T03:30:00Z, or seconds since 1970 UTC"


@dataclass(frozen=True, slots=True)
class ListedSession:
    """A session that the list names; `requested_at` is when its customer was asked (aware UTC), None where the list does not say."""

    session_id: str
    requested_at: datetime | None = None


def sessions_by_merchant(
    rows: Iterable[Mapping[str, object]], merchants: Sequence[str], now: datetime, where: str
) -> dict[str, tuple[ListedSession, ...]]:
    """The sessions of each merchant, in the order of the rows; rows may omit `merchant` where there is one merchant only.

    Args:
        now: times later than this, by more than clocks differ, are faults.
        where: the setting that the rows come from, for messages.

    Raises:
        LedgerError: naming the rows at fault, since the customer of a broken one might be asked twice.
    """
    found: dict[str, list[ListedSession]] = {merchant: [] for merchant in merchants}
    first_seen: dict[str, int] = {}
    faults: list[str] = []
    merchant_of = readers(merchants)["merchant"]
    for number, row in enumerate(rows, start=1):
        column = "session_id"
        try:
            session_id = _session_id(row.get(column))
            first = first_seen.setdefault(session_id, number)
            if first != number:
                raise BadCell(f"stands in row {first} already; name each session once")
            column = "requested_at"
            requested_at = _moment(row.get(column), now)
            column = "merchant"
            merchant = str(merchant_of(row.get(column)))
        except BadCell as fault:
            faults.append(f"  row {number}, session {shown_key(row.get('session_id'))}, column {column}: {fault}")
            continue
        found[merchant].append(ListedSession(session_id, requested_at))
    if faults:
        more = [f"  and {len(faults) - FAULTS_SHOWN} more"] if len(faults) > FAULTS_SHOWN else []
        head = f"{where} yields faulty rows (counted from 1); mend them or leave them out, since their customers might be asked twice:"
        raise LedgerError("\n".join([head, *faults[:FAULTS_SHOWN], *more]))
    return {merchant: tuple(sessions) for merchant, sessions in found.items()}


def _session_id(value: object) -> str:
    session_id = identifier(value)
    if not _SESSION_ID.fullmatch(session_id):
        raise BadCell("is no id of a session; Stripe's begin with fcsess_")
    return session_id


def _moment(value: object, now: datetime) -> datetime | None:
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        moment = _read(value)
    except (ValueError, OverflowError):
        raise BadCell(f"is {shown(str(value))}; {_AS_EXPECTED}") from None
    if moment.tzinfo is None:
        raise BadCell(f"is {shown(str(value))}, which has no time zone; {_AS_EXPECTED}")
    if moment > now + CLOCK_TOLERANCE:
        raise BadCell(f"is {shown(str(value))}, which lies in the future; {_AS_EXPECTED}")
    return min(moment, now).astimezone(UTC)


def _read(value: object) -> datetime:
    if isinstance(value, datetime):
        return value
    if isinstance(value, str):
        text = value.strip()
        return _EPOCH + timedelta(seconds=int(text)) if _SECONDS.fullmatch(text) else datetime.fromisoformat(text)
    if isinstance(value, (int, float, Decimal)) and not isinstance(value, bool):
        return _EPOCH + timedelta(seconds=float(value))
    raise ValueError("neither a time, nor text, nor a number")
