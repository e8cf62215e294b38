"""Stripe's events as hints: when an account went inactive, and which sessions were answered."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from jobs.night import Hints, MerchantNight
from reconcile.errors import KeyRefused
from reconcile.records import EventRecord, MalformedAnswer, ReadFailed, ReadRejected

logger = logging.getLogger(__name__)

DEACTIVATED = "financial_connections.account.deactivated"
SESSION_UPDATED = "financial_connections.session.updated"
KEPT = timedelta(days=30)
"""How long Stripe keeps events (Stripe API: events)."""


def read_hints(night: MerchantNight, since: datetime) -> Hints:
    """Read the events since a moment, a page for a hundred of them.

    Nothing rests on them but dates and which sessions are worth a read, so a night goes on without them where the key may not read
    events or Stripe does not answer.
    """
    start = max(since, night.stamp.as_of - KEPT)
    try:
        events = night.merchant.gateway.list_events([DEACTIVATED, SESSION_UPDATED], start)
    except (KeyRefused, ReadFailed, ReadRejected, MalformedAnswer) as failed:
        logger.warning("events could not be read, so dates are upper bounds tonight: %s", failed)
        return Hints()
    return Hints(_newest(events, DEACTIVATED), _newest(events, SESSION_UPDATED))


def _newest(events: list[EventRecord], event_type: str) -> dict[str, datetime]:
    newest: dict[str, datetime] = {}
    for event in events:
        if event.event_type == event_type and event.object_id is not None:
            newest[event.object_id] = max(event.created_at, newest.get(event.object_id, event.created_at))
    return newest
