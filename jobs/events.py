"""Stripe's events as hints: when an account went inactive, and which sessions were answered."""

from __future__ import annotations

import logging
from datetime import datetime

from jobs.night import Hints, MerchantNight
from reconcile.errors import KeyRefused
from reconcile.orphans import EVENTS_KEPT, session_hints
from reconcile.records import EventRecord, MalformedAnswer, ReadFailed, ReadRejected

logger = logging.getLogger(__name__)

DEACTIVATED = "financial_connections.account.deactivated"
SESSION_UPDATED = "financial_connections.session.updated"


def read_hints(night: MerchantNight, last_taken_at: datetime, read_to: datetime | None, now: datetime) -> Hints:
    """Read the events since the last snapshot, a page for a hundred of them.

    Nothing rests on them but dates, which sessions are worth a read, and whose a session is that nobody knows. So a night goes on without
    them where the key may not read events or Stripe does not answer.

    Args:
        read_to: where an earlier night was without them, up to when they are read; then those since are read too.
        now: not later than the reading; the next night goes on from there.
    """
    start = max(min(last_taken_at, read_to or last_taken_at), night.stamp.as_of - EVENTS_KEPT)
    try:
        events = night.merchant.gateway.list_events([DEACTIVATED, SESSION_UPDATED], start)
    except (KeyRefused, ReadFailed, ReadRejected, MalformedAnswer) as failed:
        logger.warning("events could not be read, so dates are upper bounds tonight: %s", failed)
        return Hints(read_to=start)
    # What the last snapshot showed as working went inactive since.
    deactivated = [one for one in events if one.event_type == DEACTIVATED and one.created_at >= _second(last_taken_at)]
    sessions = session_hints(one for one in events if one.event_type == SESSION_UPDATED)
    updated_at = {one.session_id: one.updated_at for one in sessions if one.updated_at is not None}
    return Hints(_newest(deactivated), updated_at, sessions, read_to=now)


def _newest(events: list[EventRecord]) -> dict[str, datetime]:
    newest: dict[str, datetime] = {}
    for event in events:
        if event.object_id is not None:
            newest[event.object_id] = max(event.created_at, newest.get(event.object_id, event.created_at))
    return newest


def _second(moment: datetime) -> datetime:
    """Stripe dates events in whole seconds."""
    return moment.replace(microsecond=0)
