"""What the stored requests say about whom may be asked again, and when."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime

from reconcile.delivery import hosted_request_at, refused_as_unavailable
from reconcile.model import (
    UNKNOWN_OFFER_LIFETIME,
    BreakageKey,
    Holder,
    OutcomeKind,
    RunStamp,
    State,
    StoredRequest,
)

LISTED = "sessions_query"
"""The origin of requests that something else made and that `ledger.sessions_query` named."""

MADE_ELSEWHERE = ("adopt", LISTED)
"""The origins of requests that something else made, which spend none of this job's caps."""

LATE_ORIGINS = ("resume", "retry")
"""Commands that keep the business date of an earlier run, though they may ask on a later day."""

UNSENT = (State.PLANNED, State.NOT_SENT)

NO_ANSWER = (OutcomeKind.PENDING, OutcomeKind.UNKNOWN)
"""Recorded outcomes of a session that still waits for its customer."""


@dataclass(frozen=True, slots=True)
class Contacts:
    """The guards' view of all past requests; dates are business dates.

    `last_hosted` is when Stripe's own page or mail was last asked for, by customer and by authorization id. `unavailable_today` counts
    this date's refusals because a bank could not be reached, by its name; `refused_today` are the breakages they were about.
    `account_attempts` counts the attempts of a breakage that covered an account.
    """

    open_authorizations: Mapping[str, str] = field(default_factory=dict)
    unknown_authorizations: frozenset[str] = frozenset()
    attempts: Mapping[BreakageKey, int] = field(default_factory=dict)
    highest_attempt: Mapping[BreakageKey, int] = field(default_factory=dict)
    account_attempts: Mapping[tuple[BreakageKey, str], int] = field(default_factory=dict)
    last_attempt: Mapping[BreakageKey, date] = field(default_factory=dict)
    first_request: Mapping[BreakageKey, date] = field(default_factory=dict)
    last_contact: Mapping[Holder, date] = field(default_factory=dict)
    requested_today: int = 0
    requested_today_by_institution: Mapping[str, int] = field(default_factory=dict)
    last_hosted: Mapping[Holder | str, datetime] = field(default_factory=dict)
    unavailable_today: Mapping[str, int] = field(default_factory=dict)
    refused_today: frozenset[BreakageKey] = frozenset()


def sum_up_contacts(
    requests: Iterable[StoredRequest],
    open_breakages: Iterable[BreakageKey],
    stamp: RunStamp,
    tried_again: Collection[str] = (),
    offers_at: datetime | None = None,
) -> Contacts:
    """Sum up every stored request that a guard could rest on.

    Args:
        requests: all requests of the open breakages, all with an open session, and all recent ones of any customer.
        tried_again: ids of refused requests that a person wants tried again. They are attempts, but nobody waits for them to cool down.
        offers_at: the moment at which `unknown` offers are as old as they are; `stamp.as_of` if it is not given.
    """
    offers_at = offers_at or stamp.as_of
    still_open = set(open_breakages)
    open_authorizations: dict[str, str] = {}
    unknown: set[str] = set()
    attempts: Counter[BreakageKey] = Counter()
    highest: dict[BreakageKey, int] = {}
    of_account: Counter[tuple[BreakageKey, str]] = Counter()
    last_attempt: dict[BreakageKey, date] = {}
    first_request: dict[BreakageKey, date] = {}
    last_contact: dict[Holder, date] = {}
    today: Counter[str] = Counter()
    last_hosted: dict[Holder | str, datetime] = {}
    unavailable: Counter[str] = Counter()
    refused: set[BreakageKey] = set()
    for stored in requests:
        key = stored.request.breakage
        if stored.state in UNSENT:
            continue
        highest[key] = max(highest.get(key, 0), stored.request.attempt)
        asked_on = session_date(stored, stamp)
        first_request[key] = min(first_request.get(key, asked_on), asked_on)
        if stored.business_date == stamp.business_date and stored.request.origin not in MADE_ELSEWHERE:
            today[stored.request.institution_name or ""] += 1
        forgiven = stored.state == State.REJECTED and stored.request.request_id in tried_again
        if stored.business_date == stamp.business_date and refused_as_unavailable(stored) and not forgiven:
            unavailable[stored.request.institution_name or ""] += 1
            refused.add(key)
        hosted_at = hosted_request_at(stored)
        if hosted_at is not None:
            for asked in (stored.request.holder, stored.authorization_id):
                last_hosted[asked] = max(last_hosted.get(asked, hosted_at), hosted_at)
        if is_open(stored):
            open_authorizations[stored.authorization_id] = stored.session_id or stored.request.request_id
        if stored.state == State.ATTEMPTING or (key in still_open and is_blocking_unknown(stored, offers_at)):
            unknown.add(stored.authorization_id)
        if is_attempt(stored):
            attempts[key] += 1
            of_account.update((key, account.account_id) for account in stored.request.covered)
            contacted = contact_date(stored, stamp)
            if not forgiven:
                last_attempt[key] = max(last_attempt.get(key, contacted), contacted)
            if stored.state != State.REJECTED:
                holder = stored.request.holder
                last_contact[holder] = max(last_contact.get(holder, contacted), contacted)
    return Contacts(
        open_authorizations=open_authorizations,
        unknown_authorizations=frozenset(unknown),
        attempts=attempts,
        highest_attempt=highest,
        account_attempts=of_account,
        last_attempt=last_attempt,
        first_request=first_request,
        last_contact=last_contact,
        requested_today=today.total(),
        requested_today_by_institution=today,
        last_hosted=last_hosted,
        unavailable_today=unavailable,
        refused_today=frozenset(refused),
    )


def is_open(stored: StoredRequest) -> bool:
    """Whether a session was made and nothing final or provisional has come of it yet; one that was lost and is found again too."""
    return stored.state == State.CREATED and stored.outcome in (None, *NO_ANSWER)


def is_blocking_unknown(stored: StoredRequest, now: datetime) -> bool:
    """Whether an unknown attempt still forbids another one.

    An unknown `modal` session was handed to nobody, since nobody learnt its id, so after 24 hours it may be renewed; every other
    unknown waits for a person.
    """
    if stored.state != State.UNKNOWN or stored.resolved_at is not None:
        return False
    if stored.request.delivery != "modal":
        return True
    return stored.attempting_at is None or now - stored.attempting_at < UNKNOWN_OFFER_LIFETIME


def is_attempt(stored: StoredRequest) -> bool:
    """Whether a request counts against `max_attempts`: it may have reached Stripe, and for a modal offer, also the customer.

    A modal offer that nobody took up and that ended because the bank recovered by itself, or whose id nobody knows, has
    reached no customer; nor has a request that Stripe refused because the bank could not be reached.
    """
    if stored.state in UNSENT or refused_as_unavailable(stored):
        return False
    if stored.request.delivery == "modal" and stored.offered_at is None:
        return stored.state != State.UNKNOWN and stored.outcome != OutcomeKind.HEALED
    return True


def session_date(stored: StoredRequest, stamp: RunStamp) -> date:
    """The business date on which Stripe was asked for the session: that of its run, or a later one.

    What a resumed or repeated run asked counts from the day on which it did, and so does a session that only the replay of a lost call made:
    so that nobody is asked again too soon, and everybody has as many days for an answer.
    """
    late = stored.attempting_at if stored.request.origin in LATE_ORIGINS else None
    moments = (late, stored.requested_at if _made_by_replay(stored) else None)
    return max([stored.business_date, *(stamp.date_of(moment) for moment in moments if moment is not None)])


def contact_date(stored: StoredRequest, stamp: RunStamp) -> date:
    """The business date on which the customer was asked: of the handing over where there was one, else of the session."""
    asked = session_date(stored, stamp)
    return asked if stored.offered_at is None else max(asked, stamp.date_of(stored.offered_at))


def _made_by_replay(stored: StoredRequest) -> bool:
    """Whether Stripe was asked later than the first attempt, which then never reached it; one that is followed was asked before."""
    return (
        stored.requested_at is not None
        and stored.attempting_at is not None
        and stored.requested_at > stored.attempting_at
    )
