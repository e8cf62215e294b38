"""The history of one account, authorization, customer, session or request as sentences in order of time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jobs.account_story import account_events
from jobs.adapters import records
from jobs.adapters.database import Database
from jobs.decision_story import decision_events
from jobs.event_line import Event, minute
from jobs.refresh_story import refresh_events
from reconcile.contacts import LISTED, MADE_ELSEWHERE
from reconcile.model import Breakage, Outcome, OutcomeKind, RelinkRequest, Scope, State, StoredRequest, Successor

_ORDER = (
    "account",
    "outage_opened",
    "decided",
    "planned",
    "sending",
    "answered",
    "offered",
    "session_read",
    "outcome",
    "settled",
    "successor",
    "refresh",
    "outage_closed",
)
"""How events of one moment follow each other: what was seen, what was done about it, what came of it."""

MATCHED_IN_WORDS = {
    "id": "the same id",
    "attributes": "holder, bank, last digits and kind",
    "twin": "holder, bank, last digits and kind: a twin, which the customer linked afresh after the old one had stopped working",
}


@dataclass(frozen=True, slots=True)
class _Found:
    """What an id stands for in one merchant's records.

    `states` are rows of the account history; a session or a request has none, and no accounts or authorizations of its own.
    """

    states: list[dict[str, Any]]
    requests: list[StoredRequest]
    authorization_ids: set[str]
    account_ids: set[str]


def history(database: Database, scope: Scope, identifier: str) -> list[Event]:
    """Everything recorded that concerns an id, oldest first; empty where nothing is."""
    found = _find(database, scope, identifier)
    events: list[Event] = list(account_events(scope.merchant, found.states))
    for stored in found.requests:
        events += _request_events(database, scope, stored)
    for breakage in _breakages(database, scope, found, identifier):
        events += _breakage_events(scope, breakage)
    events += _decisions(database, scope, found, identifier)
    matched = _successors(database, scope, found, identifier)
    events += [_successor_event(scope, at, run_id, successor) for at, run_id, successor in matched]
    return sorted(events, key=lambda event: (event.at, _ORDER.index(event.kind)))


def _decisions(database: Database, scope: Scope, found: _Found, identifier: str) -> Iterator[Event]:
    """Why somebody was or was not asked; of a session or a request only what came of it is told."""
    if found.states or not found.requests:
        accounts = {identifier} if identifier in found.account_ids or not found.states else None
        yield from decision_events(database, scope, found.authorization_ids | {identifier}, accounts)


def _breakages(database: Database, scope: Scope, found: _Found, identifier: str) -> Iterator[Breakage]:
    """Outages of the authorizations that the id names or had; of a session or request, the one that it was made for."""
    own = found.authorization_ids | {identifier}
    keys = {stored.request.breakage for stored in found.requests}
    for authorization_id in sorted(own | {key.authorization_id for key in keys}):
        for breakage in records.breakages_of(database, scope, authorization_id):
            if authorization_id in own or breakage.key in keys:
                yield breakage


def _successors(
    database: Database, scope: Scope, found: _Found, identifier: str
) -> list[tuple[datetime, str, Successor]]:
    if identifier in found.account_ids:
        return records.successors_of(database, scope, {identifier}, ())
    if found.states:
        return records.successors_of(database, scope, found.account_ids, found.authorization_ids)
    requests = {stored.request.request_id for stored in found.requests}
    accounts = {account.account_id for stored in found.requests for account in stored.request.covered}
    matched = records.successors_of(database, scope, accounts, {identifier})
    return [one for one in matched if one[2].request_id in requests or identifier in _authorizations(one[2])]


def _authorizations(successor: Successor) -> tuple[str, str]:
    return successor.old_authorization_id, successor.new_authorization_id


def _find(database: Database, scope: Scope, identifier: str) -> _Found:
    named = _plain(records.history_of(database, scope, [identifier], [identifier], [identifier]))
    of_account = any(row["account_id"] == identifier for row in named)
    account_ids = {str(row["account_id"]) for row in named}
    authorization_ids = {str(row["authorization_id"]) for row in named if row["authorization_id"] is not None}
    # Each account's story is told whole, so that its first line is its first and a move away is not missed.
    states = _plain(records.history_of(database, scope, account_ids)) if account_ids else []
    requests = {
        stored.request.request_id: stored
        for stored in (
            *records.requests_by_id(database, scope, [identifier]),
            *records.requests_for_authorizations(database, scope, [identifier]),
            *records.requests_for_holders(database, scope, [identifier]),
        )
    }
    of_session = records.find_by_session(database, scope, identifier)
    if of_session is not None:
        requests[of_session.request.request_id] = of_session
    if of_account:
        for stored in records.requests_for_authorizations(database, scope, authorization_ids):
            if _concerns(stored, identifier):
                requests[stored.request.request_id] = stored
    return _Found(states, list(requests.values()), authorization_ids, account_ids)


def _concerns(stored: StoredRequest, account_id: str) -> bool:
    covered = {account.account_id for account in stored.request.covered}
    return account_id in covered or stored.request.account_id == account_id


def _plain(frame: Any) -> list[dict[str, Any]]:
    import pandas as pd

    def plain(value: Any) -> Any:
        if pd.isna(value):
            return None
        return value.to_pydatetime() if isinstance(value, pd.Timestamp) else value

    return [{name: plain(value) for name, value in row.items()} for row in frame.to_dict("records")]


def _breakage_events(scope: Scope, breakage: Breakage) -> Iterator[Event]:
    key = breakage.key
    named = f"{key.kind.replace('_', ' ')} outage {key.number} of {key.authorization_id}"
    ids = {"authorization_id": key.authorization_id}
    yield Event(breakage.opened_at, scope.merchant, "outage_opened", f"{named} opened", breakage.opened_run_id, **ids)
    if breakage.closed_at is not None:
        why = {
            "cured": "nothing of it is broken any more",
            "replaced": "its accounts live on under a new authorization",
            "ledger_closed": "its accounts are closed in the ledger",
        }.get(breakage.closed_reason or "", breakage.closed_reason or "no reason recorded")
        yield Event(
            breakage.closed_at, scope.merchant, "outage_closed", f"{named} closed: {why}", breakage.closed_run_id, **ids
        )


def _request_events(database: Database, scope: Scope, stored: StoredRequest) -> Iterator[Event]:
    request = stored.request
    ids = {
        "authorization_id": request.authorization_id,
        "account_holder_id": request.holder.id,
        "request_id": request.request_id,
        "session_id": stored.session_id,
        "account_id": request.account_id,
    }

    def event(at: datetime, kind: str, text: str, run_id: str | None = stored.run_id) -> Event:
        return Event(at, scope.merchant, kind, text, run_id, **ids)

    yield event(stored.planned_at, "planned", _planned(stored))
    if stored.attempting_at is not None and stored.answered_at is None:
        yield event(
            stored.attempting_at, "sending", f"request {request.request_id} began to be sent; no answer is recorded"
        )
    if stored.answered_at is not None:
        yield event(stored.answered_at, "answered", _answer(stored))
    if stored.offered_at is not None:
        yield event(stored.offered_at, "offered", f"session {stored.session_id} was handed to the customer", None)
    if stored.resolved_at is not None:
        made = f", session {stored.session_id}" if stored.session_id else ""
        what = "it stays unknown, but nobody waits for it any more" if stored.state == State.UNKNOWN else stored.state
        text = f"request {request.request_id} was settled by {stored.resolved_by}: {what}{made}"
        yield event(stored.resolved_at, "settled", text, None)
    for at, run_id, status in records.session_checks_of(database, request.request_id):
        said = f"Stripe says {status}" if status else "Stripe gave no status"
        yield event(at, "session_read", f"session {stored.session_id} was read: {said}", run_id)
    for at, run_id, outcome in records.outcomes_of(database, request.request_id):
        yield event(at, "outcome", _outcome(request, outcome), run_id)
    for refresh in records.refreshes_of_requests(database, scope, [request.request_id]):
        yield from refresh_events(database, scope, stored, refresh)


def _planned(stored: StoredRequest) -> str:
    request = stored.request
    accounts = [account.account_id for account in request.covered]
    covered = f"; to mend {_listed(accounts)}" if accounts else ""
    cause = f", cause {request.cause}" if request.cause else ""
    bank = f" at {request.institution_name}" if request.institution_name else ""
    made = "followed" if request.origin in MADE_ELSEWHERE else "planned"
    by = "ledger.sessions_query" if request.origin == LISTED else f"relink {request.origin}"
    return (
        f"request {request.request_id} {made} by `{by}`: attempt {request.attempt} for "
        f"{request.breakage.kind.replace('_', ' ')} outage {request.breakage.number} of {request.authorization_id}{bank}, because "
        f"{request.reason.replace('_', ' ')}{cause}; customer {request.holder.id}, {request.delivery}, asks for "
        f"{', '.join(request.permissions) or 'no data'}{covered}"
    )


def _answer(stored: StoredRequest) -> str:
    named = f"request {stored.request.request_id}"
    # Only an unknown is ever settled later, so that is what the answer was.
    state = State.UNKNOWN if stored.resolved_at is not None else stored.state
    said = ", ".join(
        text
        for text in (
            stored.error_type,
            stored.error_code,
            None if stored.http_status is None else f"HTTP {stored.http_status}",
            stored.error_message,
        )
        if text
    )
    detail = f" ({said})" if said else ""
    if state == State.CREATED:
        return f"{named}: Stripe made session {stored.session_id}"
    if state == State.REJECTED:
        return f"{named}: Stripe refused it{detail}"
    if state == State.UNKNOWN:
        return f"{named}: whether Stripe made a session is unknown{detail}"
    return f"{named}: was not sent{detail}"


def _outcome(request: RelinkRequest, outcome: Outcome) -> str:
    if outcome.kind == OutcomeKind.UNKNOWN:
        return (
            f"{outcome.accounts_cured} of {len(request.covered)} accounts of {request.request_id} came back, and no known session explains it: "
            "its customer may have answered one that nobody can follow, or the bank healed by itself"
        )
    before = f", before that {outcome.previous.replace('_', ' ')}" if outcome.previous else ""
    failure = f", reason {outcome.failure_reason}" if outcome.failure_reason else ""
    moment = ""
    if outcome.at is not None:
        moment = (
            f", at {minute(outcome.at)}" if outcome.at_basis == "event" else f", by {minute(outcome.at)} at the latest"
        )
    led_to = outcome.result_authorization_id
    new = f", under {led_to}" if led_to not in (None, request.authorization_id) else ""
    cured = f", {outcome.accounts_cured} accounts mended" if outcome.accounts_cured else ""
    cured += _compared(request, outcome)
    return f"outcome of {request.request_id}: {outcome.kind.replace('_', ' ')}{failure}{new}{cured}{moment}{before}"


def _compared(request: RelinkRequest, outcome: Outcome) -> str:
    """Which accounts differ from what was asked for; nothing where all came back and no other."""
    text = ""
    if outcome.cured_accounts is not None and outcome.accounts_cured:
        left = sorted({account.account_id for account in request.covered} - set(outcome.cured_accounts))
        text += f", not mended {_listed(left)}" if left else ""
    if outcome.other_accounts:
        text += f", came back though not asked for: {_listed(outcome.other_accounts)}"
    return text


def _successor_event(scope: Scope, at: datetime, run_id: str, successor: Successor) -> Event:
    how = MATCHED_IN_WORDS.get(successor.matched_by, successor.matched_by)
    return Event(
        at,
        scope.merchant,
        "successor",
        f"account {successor.old_account_id} of {successor.old_authorization_id} lives on as {successor.new_account_id} of "
        f"{successor.new_authorization_id}, matched by {how}",
        run_id,
        account_id=successor.old_account_id,
        authorization_id=successor.old_authorization_id,
        request_id=successor.request_id or None,
    )


def _listed(names: Sequence[str], most: int = 10) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
