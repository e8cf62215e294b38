"""Find the sessions of requests whose answer was lost, where events of them tell; name those that nobody here made."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from jobs.adapters import records
from jobs.crew import FAILURES_IN_A_ROW
from jobs.night import Found, MerchantNight
from jobs.wiring import Wiring
from reconcile.classify import flags
from reconcile.frames import values_of
from reconcile.model import Holder, OutcomeKind, State, StoredRequest
from reconcile.orphans import (
    BY_EVENT,
    CLOCK_TOLERANCE,
    EVENTS_KEPT,
    Attributed,
    SessionHint,
    Sighting,
    attribute,
    worth_reading,
)
from reconcile.outcomes import Look
from reconcile.records import MalformedAnswer, ReadFailed, ReadRejected

logger = logging.getLogger(__name__)

MOST_READS = 100
"""Sessions looked at in one night; the others wait for the next."""


def find_orphans(wiring: Wiring, night: MerchantNight) -> None:
    """Match sessions that events tell of to requests that are unknown; nothing is recorded yet.

    A request that is found is followed from tonight on like any other. Nothing is guessed: what fits several stays unknown.

    Raises:
        OutsideError: Stripe refused the key.
    """
    scope, database, stamp = night.merchant.scope, wiring.database, night.stamp
    listed = records.foreign_sessions_since(database, scope, stamp.as_of - EVENTS_KEPT)
    hints = night.hints.sessions
    followed = records.followed_sessions(
        database, scope, [*(hint.session_id for hint in hints), *(one.session_id for one in listed)]
    )
    night.foreign = [one for one in listed if one.session_id not in followed]
    waiting = records.attempting_requests(database, scope)
    night.events_read_to = _read_to(night.hints.read_to, waiting)
    if not hints:
        return
    doubtful = [*records.once_unknown_requests(database, scope, stamp.as_of - EVENTS_KEPT), *waiting]
    ours = frozenset(values_of(night.accounts["authorization_id"])) - {None}
    # Also where a new authorization has taken over every account of the one that was asked about.
    ours |= {stored.authorization_id for stored in doubtful}
    # A session that the merchant's list names is read and judged by that.
    explained = followed | {one.session_id for one in listed} | (night.listed.ids if night.listed else frozenset())
    chosen = worth_reading(hints, explained, doubtful, _troubled(night), ours, stamp)
    attribution = attribute(_look(night, chosen), doubtful, ours, stamp)
    night.found = [_found(night, one) for one in attribution.found]
    night.newly_foreign = list(attribution.foreign)
    night.foreign += attribution.foreign
    for one in attribution.found:
        logger.warning(
            "session %s is what the unknown request %s made; it is followed from now on",
            one.sighting.session.session_id,
            one.stored.request.request_id,
        )
    for foreign in attribution.foreign:
        logger.warning(
            "session %s asks about authorization %s and is not followed: %s; to follow it: `relink adopt %s`",
            foreign.session_id,
            foreign.authorization_id,
            foreign.why,
            foreign.session_id,
        )


def _read_to(read_to: datetime | None, waiting: Sequence[StoredRequest]) -> datetime | None:
    """Up to when events need not be read again: those since a request that still waits for Stripe's answer will be, once it is unknown."""
    began = [stored.attempting_at - CLOCK_TOLERANCE for stored in waiting if stored.attempting_at is not None]
    return None if read_to is None else min([read_to, *began])


def _troubled(night: MerchantNight) -> set[Holder]:
    """Customers of whose accounts something is broken, or changed since the last snapshot."""
    accounts = night.accounts
    broken = flags(accounts["stripe_status"] != "active") | flags(accounts["active_action"] == "relink_required")
    pairs = accounts.loc[broken, ["holder_type", "account_holder_id"]].dropna().drop_duplicates()
    return {*night.changed_holders} | {Holder(*pair) for pair in pairs.itertuples(index=False, name=None)}


def _look(night: MerchantNight, chosen: Sequence[SessionHint]) -> list[Sighting]:
    """Read each session once; the events of what could not be read are read again by the next night."""
    seen: list[Sighting] = []
    unread = list(chosen[MOST_READS:])
    failures = 0
    for number, hint in enumerate(chosen[:MOST_READS]):
        if failures >= FAILURES_IN_A_ROW:
            unread.extend(chosen[number:MOST_READS])
            break
        try:
            session = night.merchant.gateway.retrieve_session(hint.session_id, purpose="orphans")
        except (ReadFailed, ReadRejected, MalformedAnswer) as failed:
            failures += 1
            unread.append(hint)
            logger.warning("session %s of an event could not be read: %s", hint.session_id, failed)
            continue
        failures = 0
        if session is not None:
            seen.append(Sighting(hint, session))
    if unread:
        firsts = [hint.first_at for hint in unread]
        night.events_read_to = min(firsts if night.events_read_to is None else [night.events_read_to, *firsts])
        logger.warning("%d sessions of events are looked at by the next night", len(unread))
    return seen


def _found(night: MerchantNight, one: Attributed) -> Found:
    session, hint = one.sighting.session, one.sighting.hint
    stored = replace(
        one.stored,
        state=str(State.CREATED),
        session_id=session.session_id,
        resolved_by=_resolved_by(one.stored, hint, night.stamp.run_id),
        resolved_at=night.stamp.as_of,
        outcome=str(OutcomeKind.UNKNOWN),
    )
    night.checked.append((stored.request.request_id, session.status))
    return Found(stored, Look(session, answered_at=hint.updated_at))


def _resolved_by(stored: StoredRequest, hint: SessionHint, run_id: str) -> str:
    before = f"; before that: {stored.resolved_by}" if stored.resolved_by else ""
    proof = "its own key in " if stored.idempotency_key in hint.idempotency_keys else ""
    return f"{proof}{BY_EVENT} {hint.event_id} read by run {run_id}{before}"
