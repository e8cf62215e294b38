"""One thing that happened, as a person tells it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened at an aware UTC moment; `kind` is for programs, `text` for people."""

    at: datetime
    merchant: str
    kind: str
    text: str
    run_id: str | None = None
    account_id: str | None = None
    authorization_id: str | None = None
    account_holder_id: str | None = None
    request_id: str | None = None
    session_id: str | None = None


def minute(moment: datetime) -> str:
    """A moment to the minute, with its zone."""
    return f"{moment:%Y-%m-%d %H:%M} UTC"
