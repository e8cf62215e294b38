"""Stripe's events as hints: what changed since a moment, when an account went inactive, and which sessions were answered."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime

from jobs.night import Hints, MerchantNight
from jobs.wiring import Merchant
from reconcile.errors import KeyRefused
from reconcile.increment import DEACTIVATED, EVENT_TYPES, SESSION_UPDATED
from reconcile.orphans import EVENTS_KEPT, session_hints
from reconcile.records import EventRecord, MalformedAnswer, ReadFailed, ReadRejected

logger = logging.getLogger(__name__)

UNREADABLE = (KeyRefused, ReadFailed, ReadRejected, MalformedAnswer)


def read_events(
    merchant: Merchant, since: datetime, spend: Callable[[int], None] = lambda _: None
) -> list[EventRecord]:
    """All events since a moment that may tell of an account, newest first, a page for a hundred of them.

    Args:
        spend: told of each read, and may end it.

    Raises:
        ModeMismatch: an event is of the other mode than the key.
        KeyRefused, ReadFailed, ReadRejected, MalformedAnswer: they cannot be read.
    """
    events: list[EventRecord] = []
    for page in merchant.gateway.event_pages(EVENT_TYPES, since):
        spend(1)
        events.extend(page)
    return events


def read_hints(night: MerchantNight, last_taken_at: datetime, read_to: datetime | None, now: datetime) -> Hints:
    """Read the events since the last snapshot, a page for a hundred of them.

    Nothing rests on them but dates, which sessions are worth a read, and whose a session is that nobody knows. So a night goes on without
    them where the key may not read events or Stripe does not answer.

    Args:
        read_to: where an earlier night was without them, up to when they are read; then those since are read too.
        now: not later than the reading; the next night goes on from there.
    """
    start = hints_from(night, last_taken_at, read_to)
    try:
        events = night.merchant.gateway.list_events([DEACTIVATED, SESSION_UPDATED], start)
    except UNREADABLE as failed:
        logger.warning("events could not be read, so dates are upper bounds tonight: %s", failed)
        return Hints(read_to=start)
    return hints_of(events, last_taken_at, now)


def hints_from(night: MerchantNight, last_taken_at: datetime, read_to: datetime | None) -> datetime:
    """The moment from which a night's hints are read."""
    return max(min(last_taken_at, read_to or last_taken_at), night.stamp.as_of - EVENTS_KEPT)


def hints_of(events: Sequence[EventRecord], last_taken_at: datetime, now: datetime) -> Hints:
    """What events say of dates and of sessions; `now` is not later than their reading."""
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
