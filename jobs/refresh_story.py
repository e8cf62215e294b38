"""The story of the fresh data that were asked for after an account came back, as sentences."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from jobs.adapters import records
from jobs.adapters.database import Database
from jobs.event_line import Event, minute
from reconcile.model import Scope, StoredRequest
from reconcile.refresh import StoredRefresh

_WORDS = {
    "asked": "Stripe was asked",
    "fresh": "nothing had to be asked for",
    "rejected": "Stripe refused it",
    "unknown": "whether Stripe was asked is unknown",
    "not_sent": "Stripe was not asked",
}


def refresh_events(database: Database, scope: Scope, stored: StoredRequest, refresh: StoredRefresh) -> Iterator[Event]:
    """What was recorded of one refresh, in order of time."""
    ids = {
        "authorization_id": stored.authorization_id,
        "account_holder_id": stored.request.holder.id,
        "request_id": stored.request.request_id,
        "session_id": stored.session_id,
        "account_id": refresh.account_id,
    }

    def event(at: datetime, text: str, run_id: str = refresh.run_id) -> Event:
        return Event(at, scope.merchant, "refresh", text, run_id, **ids)

    of = f"fresh data of {refresh.account_id}"
    yield event(refresh.planned_at, f"{of} are to be asked for, since {stored.request.request_id} brought it back")
    features = ", ".join(refresh.features) or "nothing"
    if refresh.answered_at is None and refresh.attempting_at is not None:
        yield event(refresh.attempting_at, f"{of} began to be asked for ({features}); no answer is recorded")
    if refresh.answered_at is not None:
        why = ", ".join(part for part in (refresh.error_type, refresh.error_code, refresh.error_message) if part)
        yield event(refresh.answered_at, f"{of}: {_WORDS[refresh.state]} ({features}){': ' if why else ''}{why}")
    for at, run_id, feature, state in records.refresh_checks_of(database, refresh.refresh_id):
        through = f", of {minute(state.last_attempted_at)}" if state.last_attempted_at is not None else ""
        yield event(at, f"{of}: Stripe says {feature} {state.status or 'without a status'}{through}", run_id)
