"""The life of a request, as a chain of committed steps: planned, attempting, then what Stripe said.

`planned` is provably unsent; `attempting` may have reached Stripe, and is committed before the call is made. Every step is one conditional
update, so that of two processes that believe a request theirs one finds nothing to update.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date, datetime
from typing import Any

from sqlalchemy import Connection, Row, Update, func, literal, select, update
from sqlalchemy.exc import IntegrityError

from jobs.adapters.database import Database
from jobs.adapters.lease import LeaseToken, require_token
from jobs.adapters.tables import Moment, requests
from reconcile.errors import DatabaseError
from reconcile.model import BreakageKey, RelinkRequest, Scope, State

_ANSWERS = (State.CREATED, State.REJECTED, State.UNKNOWN, State.NOT_SENT)
_ANSWER_FIELDS = (
    "session_id",
    "error_type",
    "error_code",
    "error_message",
    "http_status",
    "stripe_request_id",
    "requested_at",
)


class ContactTaken(DatabaseError):
    """This very contact, or this step of it, was already taken by somebody; nothing was changed."""

    def __init__(self, breakage: BreakageKey, attempt: int, what: str) -> None:
        super().__init__(
            f"authorization {breakage.authorization_id}, {breakage.kind} breakage {breakage.number}, attempt {attempt}: {what}; "
            "nobody is contacted twice, see `relink history` of this authorization"
        )
        self.breakage = breakage
        self.attempt = attempt


def plan_requests(
    database: Database,
    scope: Scope,
    run_id: str,
    business_date: date,
    planned: Sequence[tuple[RelinkRequest, str, str]],
    at: datetime,
    fence: LeaseToken | None = None,
) -> None:
    """Store requests before anything is sent, all or none, committed on return.

    Args:
        planned: each request with its body as it will be sent and the API version it will be sent under.
        fence: the lease, proved in the same transaction: a run that was taken over must not fill contacts that the other one decides on.

    Raises:
        LeaseLost: another run took over.
        ContactTaken: naming the first request whose contact exists already; none of them was stored.
    """

    def work(connection: Connection) -> None:
        if fence is not None:
            require_token(connection, fence)
        for request, body, api_version in planned:
            row = _row(scope, run_id, business_date, request)
            row |= {"state": str(State.PLANNED), "planned_at": at, "request_body": body, "api_version": api_version}
            _insert(connection, request, row)

    database.run(work, durable=True)


def plan_taken(
    database: Database, scope: Scope, run_id: str, business_date: date, request: RelinkRequest, at: datetime, why: str
) -> None:
    """Store a request whose contact is recorded already as `not_sent`, so that the run's report says why it was left out."""
    row = _row(scope, run_id, business_date, request)
    row |= {"state": str(State.NOT_SENT), "planned_at": at, "answered_at": at, "request_body": "", "api_version": ""}
    row |= {"error_type": "contact_taken", "error_message": why}
    database.run(lambda connection: _insert(connection, request, row))


def mark_attempting(
    database: Database, request_id: str, at: datetime, fence: LeaseToken, *, replay: bool = False
) -> None:
    """Record that a request is about to be sent, committed on return: only then may it be sent.

    The lease is proved in the same transaction. A first attempt needs a `planned` request; with `replay`, one that is `attempting` since
    before may be sent again, verbatim. The time of the first attempt stays, since Stripe counts the life of the idempotency key from there
    (Stripe API docs: idempotent requests).

    Raises:
        LeaseLost: another run took over.
        ContactTaken: the request is not in a state from which it may be sent.
    """
    expected = State.ATTEMPTING if replay else State.PLANNED

    def work(connection: Connection) -> None:
        require_token(connection, fence)
        values = {
            "state": str(State.ATTEMPTING),
            "attempting_at": func.coalesce(requests.c.attempting_at, literal(at, Moment())),
        }
        _step(connection, request_id, (expected,), update(requests).values(values), "cannot be sent")

    database.run(work, durable=True)


def record_result(
    database: Database,
    request_id: str,
    state: str,
    at: datetime,
    *,
    calls: int = 0,
    session_id: str | None = None,
    error_type: str | None = None,
    error_code: str | None = None,
    error_message: str | None = None,
    http_status: int | None = None,
    stripe_request_id: str | None = None,
    requested_at: datetime | None = None,
    fence: LeaseToken | None = None,
) -> None:
    """Record what became of a request that was being attempted; saying the same again changes nothing.

    Args:
        fence: the lease, proved in the same transaction; given for all but `created`, since a run that was taken over must not end what the
            other one is asking again, which then could not record the session that this makes.
        state: created, rejected or unknown; not_sent only where nothing of it can have left this host.
        calls: wire attempts, added to those of earlier runs.
        requested_at: when Stripe was asked; without it, when the first attempt began.
    """
    if state not in _ANSWERS:
        raise ValueError(f"{state} is not a result")
    if (state == State.CREATED) != (session_id is not None):
        raise ValueError("a created request has a session id, and no other has")
    given = (session_id, error_type, error_code, error_message, http_status, stripe_request_id, requested_at)
    values: dict[str, Any] = dict(zip(_ANSWER_FIELDS, given, strict=True))
    if requested_at is None and state != State.NOT_SENT:
        values["requested_at"] = requests.c.attempting_at

    def work(connection: Connection) -> None:
        if fence is not None:
            require_token(connection, fence)
        row = _find(connection, request_id)
        if row.state == state and row.session_id == session_id and row.answered_at is not None:
            return
        answer = update(requests).values(state=str(state), answered_at=at, calls=requests.c.calls + calls, **values)
        _step(connection, request_id, (State.ATTEMPTING,), answer, "already has a result")

    database.run(work)


def record_no_answer(
    database: Database,
    request_id: str,
    *,
    calls: int,
    error_type: str | None = None,
    error_code: str | None = None,
    error_message: str | None = None,
    http_status: int | None = None,
    stripe_request_id: str | None = None,
) -> None:
    """Record why a request that stays `attempting` has no answer yet; `calls` are wire attempts, added to the earlier ones."""
    values = {
        "calls": requests.c.calls + calls,
        "error_type": error_type,
        "error_code": error_code,
        "error_message": error_message,
        "http_status": http_status,
        "stripe_request_id": stripe_request_id,
    }
    chosen = (requests.c.request_id == request_id, requests.c.state == str(State.ATTEMPTING))
    database.run(lambda connection: connection.execute(update(requests).where(*chosen).values(values)))


def record_not_sent(
    database: Database,
    request_id: str,
    at: datetime,
    *,
    error_type: str | None = None,
    error_message: str | None = None,
) -> None:
    """Record that a planned request is given up: it is provably unsent, so its attempt is free for another one."""
    values = {"state": str(State.NOT_SENT), "answered_at": at, "error_type": error_type, "error_message": error_message}

    def work(connection: Connection) -> None:
        if _find(connection, request_id).state != State.NOT_SENT:
            _step(connection, request_id, (State.PLANNED,), update(requests).values(values), "may have been sent")

    database.run(work)


def mark_offered(database: Database, scope: Scope, session_id: str, at: datetime) -> bool:
    """Record that a session was handed to its customer; the first time stands. Returns whether this was the first.

    Raises:
        DatabaseError: there is no such session.
    """

    def work(connection: Connection) -> bool:
        chosen = (
            requests.c.merchant == scope.merchant,
            requests.c.mode == scope.mode,
            requests.c.session_id == session_id,
        )
        statement = update(requests).where(*chosen, requests.c.offered_at.is_(None)).values(offered_at=at)
        if connection.execute(statement).rowcount:
            return True
        if connection.execute(select(requests.c.request_id).where(*chosen)).first() is None:
            raise DatabaseError(
                f"session {session_id} of merchant {scope.merchant} is not known: follow it with `relink adopt`"
            )
        return False

    return database.run(work, durable=True)


def adopt_request(
    database: Database,
    scope: Scope,
    run_id: str,
    business_date: date,
    request: RelinkRequest,
    session_id: str,
    requested_at: datetime,
    at: datetime,
) -> bool:
    """Follow a session that something else created, as an attempt that was made. Returns False if it is followed already.

    Raises:
        ContactTaken: the request's attempt exists already.
    """

    def work(connection: Connection) -> bool:
        chosen = (
            requests.c.merchant == scope.merchant,
            requests.c.mode == scope.mode,
            requests.c.session_id == session_id,
        )
        if connection.execute(select(requests.c.request_id).where(*chosen)).first() is not None:
            return False
        row = _row(scope, run_id, business_date, request)
        # Whoever created it did so to ask the customer, so it is a contact whether or not this job sees it handed over.
        moments = {"planned_at": at, "attempting_at": at, "answered_at": at, "requested_at": requested_at}
        moments["offered_at"] = requested_at
        row |= {"state": str(State.CREATED), "session_id": session_id, "request_body": "", "api_version": "", **moments}
        _insert(connection, request, row)
        return True

    return database.run(work)


def resolve_unknown(
    database: Database,
    request_id: str,
    at: datetime,
    *,
    resolved_by: str,
    state: str,
    session_id: str | None = None,
) -> None:
    """Settle a request of which nobody knew whether Stripe made it.

    Args:
        resolved_by: what settled it, such as an event or a person.
        state: created (with its session id), rejected, not_sent (which frees the attempt), or unknown for "leave it, but stop asking".
    """
    if state not in _ANSWERS:
        raise ValueError(f"{state} does not settle a request")
    if (state == State.CREATED) != (session_id is not None):
        raise ValueError("a created request has a session id, and no other has")
    values = {"state": str(state), "resolved_at": at, "resolved_by": resolved_by, "session_id": session_id}

    def work(connection: Connection) -> None:
        statement = update(requests).where(requests.c.resolved_at.is_(None)).values(values)
        _step(connection, request_id, (State.UNKNOWN,), statement, "is not an open unknown")

    database.run(work)


def record_found(database: Database, request_id: str, at: datetime, *, session_id: str, resolved_by: str) -> None:
    """Record which session an unknown request made, also where nobody waited for it any more.

    Raises:
        ContactTaken: the request is not unknown any more.
    """
    values = {"state": str(State.CREATED), "resolved_at": at, "resolved_by": resolved_by, "session_id": session_id}

    def work(connection: Connection) -> None:
        _step(connection, request_id, (State.UNKNOWN,), update(requests).values(values), "was settled meanwhile")

    database.run(work)


def _step(connection: Connection, request_id: str, expected: Sequence[State], statement: Update, refusal: str) -> None:
    chosen = (requests.c.request_id == request_id, requests.c.state.in_([str(state) for state in expected]))
    if connection.execute(statement.where(*chosen)).rowcount != 1:
        row = _find(connection, request_id)
        key = BreakageKey(row.authorization_id, row.breakage_kind, row.breakage_number)
        raise ContactTaken(key, row.attempt, f"request {request_id} is {row.state} and {refusal}")


def _find(connection: Connection, request_id: str) -> Row[Any]:
    row = connection.execute(select(requests).where(requests.c.request_id == request_id)).one_or_none()
    if row is None:
        raise DatabaseError(f"request {request_id} is not in the records: check the id with `relink history`")
    return row


def _insert(connection: Connection, request: RelinkRequest, row: Mapping[str, Any]) -> None:
    try:
        connection.execute(requests.insert().values(row))
    except IntegrityError as error:
        if "foreign key" in str(error).lower():
            raise
        raise ContactTaken(request.breakage, request.attempt, "this contact is recorded already") from None


def _row(scope: Scope, run_id: str, business_date: date, request: RelinkRequest) -> dict[str, Any]:
    if (request.merchant, request.mode) != (scope.merchant, scope.mode):
        raise ValueError(f"request {request.request_id} is of {request.merchant}/{request.mode}, not of {scope}")
    return {
        "request_id": request.request_id,
        "merchant": scope.merchant,
        "mode": scope.mode,
        "run_id": run_id,
        "business_date": business_date,
        "authorization_id": request.breakage.authorization_id,
        "breakage_kind": str(request.breakage.kind),
        "breakage_number": request.breakage.number,
        "attempt": request.attempt,
        "account_id": request.account_id,
        "holder_type": request.holder.type,
        "account_holder_id": request.holder.id,
        "institution_name": request.institution_name,
        "reason": str(request.reason),
        "cause": request.cause,
        "covered": [asdict(account) for account in request.covered],
        "permissions": list(request.permissions),
        "widens": request.widens,
        "delivery": request.delivery,
        "due_date": request.due_date,
        "exposure_by_currency": dict(request.exposure_by_currency),
        "ledger_references": list(request.references),
        "origin": request.origin,
        "limit_accounts": request.limit_accounts,
        "account_subcategories": list(request.account_subcategories),
        "return_url": request.return_url,
        "idempotency_key": request.idempotency_key,
        "calls": 0,
    }
