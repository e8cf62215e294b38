"""Reading the stored requests: whom we asked, where each request stands, and how it stood at a past moment.

What came of a request is never kept on the request itself: it is the newest row of the append-only outcomes, so the two cannot
disagree, and a past moment is read by leaving later rows out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from itertools import islice
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, and_, exists, func, or_, select

from jobs.adapters.database import Database
from jobs.adapters.tables import breakages, outcomes, requests, session_checks
from reconcile.contacts import LISTED, NO_ANSWER
from reconcile.model import (
    BROUGHT_BACK,
    PROVISIONAL,
    BreakageKey,
    CoveredAccount,
    Holder,
    RelinkRequest,
    Scope,
    State,
    StoredRequest,
)

_IDS_PER_QUERY = 500
_OUTCOME_COLUMNS = (
    "outcome",
    "previous_outcome",
    "outcome_at",
    "outcome_at_basis",
    "failure_reason",
    "session_status",
    "result_authorization_id",
    "accounts_cured",
    "cured_accounts",
    "other_accounts",
)
_LISTS = ("cured_accounts", "other_accounts")
_STORED = (
    "run_id",
    "business_date",
    "state",
    "planned_at",
    "attempting_at",
    "answered_at",
    "idempotency_key",
    "request_body",
    "api_version",
    "session_id",
    "error_type",
    "error_code",
    "error_message",
    "http_status",
    "stripe_request_id",
    "calls",
    "requested_at",
    "offered_at",
    "resolved_by",
    "resolved_at",
    *_OUTCOME_COLUMNS,
    "outcome_observed_at",
    "outcome_run_id",
    "last_checked_at",
)


def open_requests(database: Database, scope: Scope) -> list[StoredRequest]:
    """Requests whose session exists and of which nothing final or provisional is known yet."""
    return _stored(database, scope, _is_open())


def provisional_requests(database: Database, scope: Scope, since: date) -> list[StoredRequest]:
    """Requests whose newest outcome may still be replaced, and was found on a business date from `since` on."""
    kinds = [str(kind) for kind in PROVISIONAL]
    return _stored(database, scope, outcomes.c.outcome.in_(kinds), outcomes.c.business_date >= since)


def planned_requests(database: Database, scope: Scope) -> list[StoredRequest]:
    """Requests that were stored and provably not sent."""
    return _stored(database, scope, requests.c.state == str(State.PLANNED))


def attempting_requests(database: Database, scope: Scope) -> list[StoredRequest]:
    """Requests that may have reached Stripe and of which no answer is recorded."""
    return _stored(database, scope, requests.c.state == str(State.ATTEMPTING))


def unknown_requests(database: Database, scope: Scope) -> list[StoredRequest]:
    """Requests of which nobody knows whether Stripe made them, and that nobody settled."""
    return _stored(database, scope, requests.c.state == str(State.UNKNOWN), requests.c.resolved_at.is_(None))


def once_unknown_requests(database: Database, scope: Scope, since: datetime) -> list[StoredRequest]:
    """Requests that were attempted since a moment and are unknown, settled or not, or were and got a session later."""
    has_session_since = and_(requests.c.state == str(State.CREATED), requests.c.resolved_at.is_not(None))
    chosen = or_(requests.c.state == str(State.UNKNOWN), has_session_since)
    return _stored(database, scope, chosen, requests.c.attempting_at >= since)


def followed_sessions(database: Database, scope: Scope, session_ids: Iterable[str]) -> set[str]:
    """Which of these sessions belong to a request."""
    found = _by_ids(database, scope, requests.c.session_id, session_ids)
    return {stored.session_id for stored in found if stored.session_id is not None}


def requests_brought_back(database: Database, scope: Scope, since: datetime) -> list[StoredRequest]:
    """Requests of which it was learnt since a moment that they brought accounts back."""
    kinds = [str(kind) for kind in BROUGHT_BACK]
    return _stored(database, scope, outcomes.c.outcome.in_(kinds), outcomes.c.observed_at >= since)


def requests_since(database: Database, scope: Scope, business_date: date) -> list[StoredRequest]:
    """Requests of a business date or a later one."""
    return _stored(database, scope, requests.c.business_date >= business_date)


def count_requests_between(database: Database, scope: Scope, first: date, last: date) -> int:
    """How many requests were made on business dates from `first` to `last`."""
    statement = select(func.count()).where(_in(scope), requests.c.business_date.between(first, last))
    with database.read() as connection:
        return int(connection.execute(statement).scalar_one())


def requests_of_run(database: Database, run_id: str, scope: Scope | None = None) -> list[StoredRequest]:
    """Requests that a run made, of one merchant or of all; not the sessions that the merchant's list named to it, which it only follows."""
    return _stored(database, scope, requests.c.run_id == run_id, requests.c.origin != LISTED)


def requests_with_outcome_of_run(database: Database, scope: Scope, run_id: str) -> list[StoredRequest]:
    """Requests whose newest outcome was found by this run."""
    return _stored(database, scope, outcomes.c.run_id == run_id)


def requests_for_authorizations(
    database: Database, scope: Scope, authorization_ids: Collection[str]
) -> list[StoredRequest]:
    """Every request that named one of these authorizations."""
    return _by_ids(database, scope, requests.c.authorization_id, authorization_ids)


def requests_for_holders(database: Database, scope: Scope, holder_ids: Collection[str]) -> list[StoredRequest]:
    """Every request to one of these customers or accounts."""
    return _by_ids(database, scope, requests.c.account_holder_id, holder_ids)


def requests_by_id(database: Database, scope: Scope, request_ids: Collection[str]) -> list[StoredRequest]:
    """The requests of these ids."""
    return _by_ids(database, scope, requests.c.request_id, request_ids)


def find_by_session(database: Database, scope: Scope, session_id: str) -> StoredRequest | None:
    """The request that a session belongs to."""
    return next(iter(_stored(database, scope, requests.c.session_id == session_id)), None)


def all_requests_for_planning(database: Database, scope: Scope, since: date) -> list[StoredRequest]:
    """Every request that a guard could rest on, in one query.

    These are the requests of open breakages, those that are open, in flight or unknown, and all that were made, attempted or handed over
    since a business date (with a day to spare, since the last two have a time and no business date; a resumed run keeps its old one).
    """
    of_open_breakage = exists().where(_of_breakage(), breakages.c.closed_at.is_(None))
    unsettled = requests.c.state.in_([str(state) for state in (State.PLANNED, State.ATTEMPTING, State.UNKNOWN)])
    began = datetime.combine(since, time(), UTC) - timedelta(days=1)
    recent = [column >= began for column in (requests.c.attempting_at, requests.c.offered_at)]
    return _stored(
        database, scope, or_(of_open_breakage, unsettled, _is_open(), requests.c.business_date >= since, *recent)
    )


def requests_as_of(
    database: Database, scope: Scope, moment: datetime, since: date | None = None
) -> list[StoredRequest]:
    """Every request that existed at a past moment, as it then stood.

    Args:
        since: leave out what no guard and no report of that moment could rest on any more: requests that were made, handed over and
            answered before this business date, and whose breakage was over by then.
    """
    chosen = [requests.c.planned_at <= moment]
    if since is not None:
        began = datetime.combine(since, time(), UTC) - timedelta(days=1)
        lasting = exists().where(
            _of_breakage(),
            breakages.c.opened_at <= moment,
            or_(breakages.c.closed_at.is_(None), breakages.c.closed_at >= began),
        )
        unsettled = requests.c.state.in_([str(state) for state in (State.PLANNED, State.ATTEMPTING, State.UNKNOWN)])
        recent = [column >= began for column in (requests.c.answered_at, requests.c.offered_at, requests.c.resolved_at)]
        chosen.append(
            or_(
                requests.c.business_date >= since,
                outcomes.c.business_date >= since,
                lasting,
                unsettled,
                _is_open(),
                *recent,
            )
        )
    stored = _stored(database, scope, *chosen, moment=moment)
    return [_as_of(request, moment) for request in stored]


def _as_of(stored: StoredRequest, moment: datetime) -> StoredRequest:
    """A request without what was learnt after a moment."""

    def later(at: datetime | None) -> bool:
        return at is None or at > moment

    offered_at = None if later(stored.offered_at) else stored.offered_at
    stored = replace(stored, offered_at=offered_at)
    if stored.resolved_at is not None and stored.resolved_at > moment:
        # Only an unknown is ever resolved, so that is what it was before.
        stored = replace(stored, state=str(State.UNKNOWN), session_id=None, resolved_at=None, resolved_by=None)
    if later(stored.answered_at):
        state = State.PLANNED if later(stored.attempting_at) else State.ATTEMPTING
        stored = replace(
            stored,
            state=str(state),
            answered_at=None,
            session_id=None,
            error_type=None,
            error_code=None,
            error_message=None,
            http_status=None,
            stripe_request_id=None,
            requested_at=None,
            calls=0,
        )
    if later(stored.attempting_at):
        stored = replace(stored, attempting_at=None)
    return stored


def _is_open() -> ColumnElement[bool]:
    return and_(requests.c.state == str(State.CREATED), no_answer())


def no_answer() -> ColumnElement[bool]:
    """The newest outcome, if there is one, is none of a customer's."""
    return or_(outcomes.c.outcome.is_(None), outcomes.c.outcome.in_([str(kind) for kind in NO_ANSWER]))


def _of_breakage() -> ColumnElement[bool]:
    return and_(
        breakages.c.merchant == requests.c.merchant,
        breakages.c.mode == requests.c.mode,
        breakages.c.authorization_id == requests.c.authorization_id,
        breakages.c.kind == requests.c.breakage_kind,
        breakages.c.number == requests.c.breakage_number,
    )


def _in(scope: Scope) -> ColumnElement[bool]:
    return and_(requests.c.merchant == scope.merchant, requests.c.mode == scope.mode)


def _by_ids(database: Database, scope: Scope, column: Any, ids: Iterable[str]) -> list[StoredRequest]:
    left = iter(sorted(set(ids)))
    found: list[StoredRequest] = []
    with database.read():
        while chunk := list(islice(left, _IDS_PER_QUERY)):
            found += _stored(database, scope, column.in_(chunk))
    return sorted(found, key=lambda stored: (stored.planned_at, stored.request.request_id))


def _stored(
    database: Database, scope: Scope | None, *chosen: ColumnElement[bool], moment: datetime | None = None
) -> list[StoredRequest]:
    statement = _newest() if moment is None else _select(moment)
    statement = statement.where(*chosen).order_by(requests.c.planned_at, requests.c.request_id)
    if scope is not None:
        statement = statement.where(_in(scope))
    with database.read() as connection:
        return [_request(row) for row in connection.execute(statement)]


@cache
def _newest() -> Select[Any]:
    """Every request with its newest outcome; kept, because building it takes longer than running it."""
    return _select(None)


def _select(moment: datetime | None) -> Select[Any]:
    newest = outcomes.alias("newest")
    newest_id = select(func.max(newest.c.id)).where(newest.c.request_id == requests.c.request_id)
    checked_at = select(func.max(session_checks.c.checked_at)).where(
        session_checks.c.request_id == requests.c.request_id
    )
    if moment is not None:
        newest_id = newest_id.where(newest.c.observed_at <= moment)
        checked_at = checked_at.where(session_checks.c.checked_at <= moment)
    columns = (
        *requests.columns,
        *(outcomes.c[name] for name in _OUTCOME_COLUMNS),
        outcomes.c.observed_at.label("outcome_observed_at"),
        outcomes.c.run_id.label("outcome_run_id"),
        checked_at.scalar_subquery().label("last_checked_at"),
    )
    return select(*columns).select_from(requests.outerjoin(outcomes, outcomes.c.id == newest_id.scalar_subquery()))


def _request(row: Row[Any]) -> StoredRequest:
    values = row._mapping
    request = RelinkRequest(
        request_id=row.request_id,
        merchant=row.merchant,
        mode=row.mode,
        breakage=BreakageKey(row.authorization_id, row.breakage_kind, row.breakage_number),
        attempt=row.attempt,
        account_id=row.account_id,
        holder=Holder(row.holder_type, row.account_holder_id),
        institution_name=row.institution_name,
        reason=row.reason,
        cause=row.cause,
        covered=tuple(_covered(account) for account in row.covered),
        permissions=tuple(row.permissions),
        widens=row.widens,
        delivery=row.delivery,
        due_date=row.due_date,
        exposure_by_currency=dict(row.exposure_by_currency),
        references=tuple(row.ledger_references),
        origin=row.origin,
        limit_accounts=row.limit_accounts,
        account_subcategories=tuple(row.account_subcategories),
        return_url=row.return_url,
    )
    known = {name: values[name] for name in _STORED}
    known |= {name: None if known[name] is None else tuple(known[name]) for name in _LISTS}
    return StoredRequest(request=request, **known)


def _covered(stored: dict[str, Any]) -> CoveredAccount:
    return CoveredAccount(**{**stored, "required_permissions": tuple(stored["required_permissions"])})
