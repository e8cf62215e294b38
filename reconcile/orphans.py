"""Sessions that events tell of and that no request explains: which lost request made which, where that is certain."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from reconcile.model import Holder, RunStamp, State, StoredRequest
from reconcile.records import EventRecord, SessionRecord

EVENTS_KEPT = timedelta(days=30)
"""How long Stripe keeps events (Stripe API: events)."""

CLOCK_TOLERANCE = timedelta(minutes=1)
"""Stripe dates events in whole seconds and by its own clock."""

BY_EVENT = "event"
"""How `resolved_by` begins where an event told of a session that only fits the request; without the request's key that proves nothing."""

OUTAGE_ENDED = "the outage ended"
"""How `resolved_by` begins where nobody decided about an unknown request, but its accounts came back."""


@dataclass(frozen=True, slots=True)
class SessionHint:
    """What the events of one session tell; its object is rendered at another API version, so only ids are taken from it.

    `updated_at` is the newest one that is not about its creation, None if there is none. `idempotency_keys` are those of its creation.
    """

    session_id: str
    event_id: str
    first_at: datetime
    updated_at: datetime | None
    holder: Holder | None
    authorization_id: str | None
    idempotency_keys: frozenset[str]


@dataclass(frozen=True, slots=True)
class Sighting:
    """A session that an event led to, as it was read."""

    hint: SessionHint
    session: SessionRecord


@dataclass(frozen=True, slots=True)
class Attributed:
    """A session and the one lost request that made it."""

    stored: StoredRequest
    sighting: Sighting


@dataclass(frozen=True, slots=True)
class ForeignSession:
    """A session that asks about an authorization of ours and that is taken for no request's; `why` says why not."""

    session_id: str
    authorization_id: str
    account_holder_id: str | None
    seen_at: datetime
    why: str


@dataclass(frozen=True, slots=True)
class Attribution:
    """What the sessions seen tonight are."""

    found: tuple[Attributed, ...] = ()
    foreign: tuple[ForeignSession, ...] = ()


def session_hints(events: Iterable[EventRecord]) -> tuple[SessionHint, ...]:
    """One hint for each session, the one that was updated first coming first.

    The API creates and retrieves sessions and changes none (Stripe API: financial_connections.session), so that an event with an
    idempotency key is about the creation and says nothing of an answer.
    """
    by_session: dict[str, list[EventRecord]] = {}
    for event in events:
        if event.object_id is not None:
            by_session.setdefault(event.object_id, []).append(event)
    return tuple(sorted(map(_hint, by_session.values()), key=lambda hint: (hint.first_at, hint.session_id)))


def _hint(events: Sequence[EventRecord]) -> SessionHint:
    oldest_first = sorted(events, key=lambda event: (event.created_at, event.event_id))
    newest = oldest_first[-1]
    holders = [
        Holder(one.holder_type, one.account_holder_id) for one in events if one.holder_type and one.account_holder_id
    ]
    return SessionHint(
        session_id=str(newest.object_id),
        event_id=newest.event_id,
        first_at=oldest_first[0].created_at,
        updated_at=max((one.created_at for one in events if one.request_idempotency_key is None), default=None),
        holder=holders[0] if holders else None,
        authorization_id=next((one.authorization_id for one in events if one.authorization_id), None),
        idempotency_keys=frozenset(one.request_idempotency_key for one in events if one.request_idempotency_key),
    )


def is_lost(stored: StoredRequest, stamp: RunStamp) -> bool:
    """Whether events may still tell which session a request made: nobody knows, nobody decided, and Stripe still keeps them."""
    return (
        stored.state == State.UNKNOWN
        and stored.session_id is None
        and stored.attempting_at is not None
        and stamp.as_of - stored.attempting_at <= EVENTS_KEPT
        and (stored.resolved_at is None or (stored.resolved_by or "").startswith(OUTAGE_ENDED))
    )


def may_have_made_another(stored: StoredRequest) -> bool:
    """Whether a session that nobody knows may be a request's: none is known of it, or one that only fits it."""
    if stored.state == State.CREATED:
        return (stored.resolved_by or "").startswith(BY_EVENT)
    return stored.state == State.UNKNOWN


def worth_reading(
    hints: Iterable[SessionHint],
    explained: Collection[str],
    requests: Iterable[StoredRequest],
    holders: Collection[Holder],
    authorization_ids: Collection[str],
    stamp: RunStamp,
) -> list[SessionHint]:
    """The sessions that are worth a read, those that may be a lost request's first, since reads are rationed by Stripe.

    Merchants make sessions for other purposes than to relink. So one is read only if its customer has a lost request, if the event
    names an authorization of ours, or if something is or was broken with its customer's accounts.

    Args:
        explained: sessions of requests, and those that are listed as foreign already.
        requests: those that are unknown.
        holders: customers of whose accounts something is broken or changed.
    """
    lost = [stored for stored in requests if is_lost(stored, stamp)]
    keys = {stored.idempotency_key for stored in lost}
    customers = {stored.request.holder for stored in lost}
    lost_ones, others = [], []
    for hint in hints:
        if hint.session_id in explained:
            continue
        if hint.idempotency_keys & keys or hint.holder in customers or (lost and hint.holder is None):
            lost_ones.append(hint)
        elif hint.authorization_id in authorization_ids or hint.holder in holders:
            others.append(hint)
    return lost_ones + others


def attribute(
    sightings: Iterable[Sighting],
    requests: Sequence[StoredRequest],
    authorization_ids: Collection[str],
    stamp: RunStamp,
) -> Attribution:
    """Match sessions to lost requests, each only where nothing else fits; what is left of our authorizations is foreign.

    The key of a creation decides by itself. Else authorization, customer, account, delivery and time must fit exactly one lost
    request, and exactly one session must fit that. One that was settled without its session, or with one that only fitted, is a rival: it
    may have made it as well.

    Args:
        requests: those that are unknown, settled or not, that were, or that still wait for Stripe's answer.
    """
    sightings = [one for one in sightings if _ours(one.session, authorization_ids)]
    waiting = {stored.authorization_id for stored in requests if stored.state == State.ATTEMPTING}
    lost = [stored for stored in requests if is_lost(stored, stamp)]
    by_key = {stored.idempotency_key: stored for stored in requests}
    found: list[Attributed] = []
    left: list[Sighting] = []
    foreign: list[ForeignSession] = []
    for sighting in sightings:
        own = next((by_key[key] for key in sighting.hint.idempotency_keys if key in by_key), None)
        if own is not None and is_lost(own, stamp):
            found.append(Attributed(own, sighting))
        elif own is not None:
            foreign.extend(_of_settled(own, sighting))
        elif sighting.session.requested_authorization not in waiting:
            # Else the replay of that request tells whose it is.
            left.append(sighting)
    taken = {one.stored.request.request_id for one in found}
    candidates = [
        stored for stored in requests if may_have_made_another(stored) and stored.request.request_id not in taken
    ]
    fitting = {
        sighting.session.session_id: [stored for stored in candidates if _fits(stored, sighting)] for sighting in left
    }
    rivals = _rivals(fitting)
    for sighting in left:
        fits = fitting[sighting.session.session_id]
        if len(fits) == 1 and fits[0] in lost and len(rivals[fits[0].request.request_id]) == 1:
            found.append(Attributed(fits[0], sighting))
        else:
            foreign.append(_foreign(sighting, _why_not(sighting, fits, rivals, lost)))
    return Attribution(tuple(found), tuple(foreign))


def fits_request(stored: StoredRequest, session: SessionRecord) -> bool:
    """Whether a session asks of the same customer just what a request asked."""
    request = stored.request
    return (
        session.requested_authorization == request.authorization_id
        and session.requested_account == request.account_id
        and (session.holder_type, session.account_holder_id) == (request.holder.type, request.holder.id)
        and delivery_of(session) == request.delivery
    )


def delivery_of(session: SessionRecord) -> str:
    """How a session's customer comes to it, in the words of the settings."""
    if session.ui_mode != "hosted":
        return "modal"
    return "hosted_email" if session.delivery_method == "email" else "hosted_url"


def _ours(session: SessionRecord, authorization_ids: Collection[str]) -> bool:
    return session.has_relink_options and session.requested_authorization in authorization_ids


def _fits(stored: StoredRequest, sighting: Sighting) -> bool:
    # A creation under another key was not ours, and what was updated before we asked was there before.
    if sighting.hint.idempotency_keys or stored.attempting_at is None:
        return False
    early = stored.attempting_at - sighting.hint.first_at
    return early <= CLOCK_TOLERANCE and fits_request(stored, sighting.session)


def _rivals(fitting: Mapping[str, Sequence[StoredRequest]]) -> dict[str, list[str]]:
    """The sessions that fit each request, by its id."""
    rivals: dict[str, list[str]] = {}
    for session_id, fits in fitting.items():
        for stored in fits:
            rivals.setdefault(stored.request.request_id, []).append(session_id)
    return rivals


def _of_settled(own: StoredRequest, sighting: Sighting) -> list[ForeignSession]:
    if own.state == State.ATTEMPTING or own.request.delivery == "modal":
        return []  # the replay of the one tells; the other was handed to nobody, and another took its place
    settled = f", which was settled by {own.resolved_by}" if own.resolved_by else ""
    return [_foreign(sighting, f"it is what request {own.request.request_id} asked for{settled}")]


def _why_not(
    sighting: Sighting,
    fits: Sequence[StoredRequest],
    rivals: Mapping[str, Sequence[str]],
    lost: Collection[StoredRequest],
) -> str:
    if len(fits) > 1:
        return f"it may be what any of the requests {_named(fits)} asked for"
    if fits:
        request_id = fits[0].request.request_id
        others = [name for name in rivals[request_id] if name != sighting.session.session_id]
        if fits[0] not in lost:
            return f"it may be what request {request_id} asked for, which was settled by {fits[0].resolved_by}"
        return f"request {request_id} may have made it, or session {', '.join(others)}"
    if sighting.hint.idempotency_keys:
        return "something else created it"
    unlike = [one for one in lost if one.authorization_id == sighting.session.requested_authorization]
    if unlike:
        return f"its authorization has the unknown request {_named(unlike)}, but customer, account, delivery or time differ"
    return "no request of this job explains it"


def _named(requests: Iterable[StoredRequest]) -> str:
    return ", ".join(sorted(stored.request.request_id for stored in requests))


def _foreign(sighting: Sighting, why: str) -> ForeignSession:
    session = sighting.session
    return ForeignSession(
        session.session_id,
        str(session.requested_authorization),
        session.account_holder_id,
        sighting.hint.first_at,
        why,
    )
