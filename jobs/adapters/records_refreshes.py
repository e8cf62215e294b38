"""Refreshes of accounts that came back: asked for once for each account and success, in committed steps as a request is, and followed to their end."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime
from itertools import islice
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, func, literal, select, update

from jobs.adapters.database import Database
from jobs.adapters.lease import LeaseToken, require_token
from jobs.adapters.records_requests import ContactTaken
from jobs.adapters.tables import Moment, refresh_checks, refreshes
from reconcile.model import BreakageKey, Scope
from reconcile.refresh import FeatureState, RefreshState, StoredRefresh, refresh_id

_IDS_PER_QUERY = 500
_STORED = (
    "refresh_id",
    "request_id",
    "account_id",
    "run_id",
    "business_date",
    "state",
    "planned_at",
    "not_before_at",
    "attempting_at",
    "answered_at",
    "idempotency_key",
    "request_body",
    "api_version",
    "calls",
    "error_type",
    "error_code",
    "error_message",
    "http_status",
    "stripe_request_id",
)
_UNFINISHED = (str(RefreshState.PLANNED), str(RefreshState.ATTEMPTING))


def plan_refreshes(
    database: Database,
    scope: Scope,
    run_id: str,
    business_date: date,
    planned: Iterable[tuple[str, str]],
    at: datetime,
) -> None:
    """Store which accounts are to be refreshed, as (request id, account id); what is stored already stays."""
    rows = [
        {
            "refresh_id": refresh_id(scope, request_id, account_id),
            "merchant": scope.merchant,
            "mode": scope.mode,
            "run_id": run_id,
            "business_date": business_date,
            "request_id": request_id,
            "account_id": account_id,
            "features": [],
            "state": str(RefreshState.PLANNED),
            "planned_at": at,
            "idempotency_key": "relink-" + refresh_id(scope, request_id, account_id),
            "request_body": "",
            "api_version": "",
            "calls": 0,
        }
        for request_id, account_id in planned
    ]
    if rows:
        statement = database.insert(refreshes).on_conflict_do_nothing()
        database.run(lambda connection: connection.execute(statement, rows))


def mark_refresh_attempting(
    database: Database,
    refresh_id: str,
    at: datetime,
    fence: LeaseToken,
    *,
    features: Sequence[str] = (),
    body: str = "",
    api_version: str = "",
    replay: bool = False,
) -> None:
    """Record that a refresh is about to be asked for, with the bytes that will be sent, committed on return: only then may it be sent.

    Raises:
        LeaseLost: another run took over.
        ContactTaken: it is not in a state from which it may be sent.
    """

    def work(connection: Connection) -> None:
        require_token(connection, fence)
        values: dict[str, Any] = {"state": str(RefreshState.ATTEMPTING)}
        if not replay:
            values |= {"features": list(features), "request_body": body, "api_version": api_version}
            values["attempting_at"] = func.coalesce(refreshes.c.attempting_at, literal(at, Moment()))
        expected = RefreshState.ATTEMPTING if replay else RefreshState.PLANNED
        _step(connection, refresh_id, expected, values)

    database.run(work, durable=True)


def record_refresh_result(
    database: Database,
    refresh_id: str,
    run_id: str,
    before: RefreshState,
    state: RefreshState,
    at: datetime,
    *,
    features: Sequence[str] | None = None,
    seen: Mapping[str, FeatureState] | None = None,
    calls: int = 0,
    not_before_at: datetime | None = None,
    error: Mapping[str, Any] | None = None,
    fence: LeaseToken | None = None,
) -> None:
    """Record what became of a refresh: an end, or `planned` and `attempting` for one that goes on, with why.

    Args:
        fence: the lease, proved in the same transaction; given for all but what Stripe took on.
        before: the state it must be in.
        seen: what Stripe said of its features in the same breath.
        calls: wire attempts, added to the earlier ones.

    Raises:
        ContactTaken: somebody else has brought it further meanwhile.
        LeaseLost: another run took over.
    """
    values: dict[str, Any] = {"state": str(state), "calls": refreshes.c.calls + calls, "not_before_at": not_before_at}
    values |= dict.fromkeys(("error_type", "error_code", "error_message", "http_status", "stripe_request_id"))
    values |= error or {}
    if str(state) not in _UNFINISHED:
        values["answered_at"] = at
    elif state == RefreshState.PLANNED:
        values["attempting_at"] = None
    if features is not None:
        values["features"] = list(features)

    def work(connection: Connection) -> None:
        if fence is not None:
            require_token(connection, fence)
        _step(connection, refresh_id, before, values)
        _add_checks(connection, run_id, refresh_id, seen or {}, at)

    database.run(work)


def add_refresh_checks(
    database: Database, run_id: str, refresh_id: str, seen: Mapping[str, FeatureState], at: datetime
) -> None:
    """Record what a read showed of the features of a refresh; append only."""
    database.run(lambda connection: _add_checks(connection, run_id, refresh_id, seen, at))


def unfinished_refreshes(database: Database, scope: Scope) -> list[StoredRefresh]:
    """Those that were planned or are being attempted, in order of planning."""
    return _stored(database, scope, refreshes.c.state.in_(_UNFINISHED))


def followed_refreshes(database: Database, scope: Scope, since: date) -> list[StoredRefresh]:
    """Those that Stripe has taken on, or needed no asking, since a business date."""
    states = (str(RefreshState.ASKED), str(RefreshState.FRESH))
    return _stored(database, scope, refreshes.c.state.in_(states), refreshes.c.business_date >= since)


def refreshes_of_requests(database: Database, scope: Scope, request_ids: Collection[str]) -> list[StoredRefresh]:
    """Those that follow some requests."""
    left = iter(sorted(set(request_ids)))
    found: list[StoredRefresh] = []
    while chunk := list(islice(left, _IDS_PER_QUERY)):
        found += _stored(database, scope, refreshes.c.request_id.in_(chunk))
    return found


def refreshes_as_of(
    database: Database, scope: Scope, moment: datetime | None, first: date, last: date
) -> list[StoredRefresh]:
    """Those of a span of business dates, as the records told at a moment, or now where that is None."""
    chosen = [refreshes.c.business_date >= first, refreshes.c.business_date <= last]
    if moment is None:
        return _stored(database, scope, *chosen)
    chosen.append(refreshes.c.planned_at <= moment)
    return [_as_of(one, moment) for one in _stored(database, scope, *chosen, moment=moment)]


def refresh_checks_of(database: Database, refresh_id: str) -> list[tuple[datetime, str, str, FeatureState]]:
    """Everything ever seen of a refresh, oldest first, as (seen at, run id, feature, its state)."""
    table = refresh_checks
    statement = select(table).where(table.c.refresh_id == refresh_id).order_by(table.c.id)
    with database.read() as connection:
        return [(row.checked_at, row.run_id, row.feature, _state(row)) for row in connection.execute(statement)]


def _as_of(stored: StoredRefresh, moment: datetime) -> StoredRefresh:
    """A refresh without what was learnt after a moment."""
    if stored.answered_at is not None and stored.answered_at > moment:
        attempting = stored.attempting_at is not None and stored.attempting_at <= moment
        stored = replace(
            stored,
            state=str(RefreshState.ATTEMPTING if attempting else RefreshState.PLANNED),
            answered_at=None,
            error_type=None,
            error_code=None,
            error_message=None,
        )
    if stored.attempting_at is not None and stored.attempting_at > moment:
        state = str(RefreshState.PLANNED) if stored.state == RefreshState.ATTEMPTING else stored.state
        stored = replace(stored, attempting_at=None, state=state)
    return stored


def _step(connection: Connection, refresh_id: str, before: RefreshState, values: Mapping[str, Any]) -> None:
    chosen = (refreshes.c.refresh_id == refresh_id, refreshes.c.state == str(before))
    if connection.execute(update(refreshes).where(*chosen).values(values)).rowcount != 1:
        raise ContactTaken(BreakageKey(refresh_id, "refresh", 0), 1, f"the refresh is not {before} any more")


def _add_checks(
    connection: Connection, run_id: str, refresh_id: str, seen: Mapping[str, FeatureState], at: datetime
) -> None:
    rows = [
        {
            "refresh_id": refresh_id,
            "run_id": run_id,
            "checked_at": at,
            "feature": feature,
            "status": state.status,
            "last_attempted_at": state.last_attempted_at,
            "next_available_at": state.next_available_at,
            "through_at": state.through_at,
        }
        for feature, state in sorted(seen.items())
    ]
    if rows:
        connection.execute(refresh_checks.insert(), rows)


def _stored(
    database: Database, scope: Scope, *chosen: ColumnElement[bool], moment: datetime | None = None
) -> list[StoredRefresh]:
    own = (refreshes.c.merchant == scope.merchant, refreshes.c.mode == scope.mode, *chosen)
    statement = select(refreshes).where(*own).order_by(refreshes.c.planned_at, refreshes.c.refresh_id)
    checks = (
        select(refresh_checks)
        .where(refresh_checks.c.refresh_id.in_(select(refreshes.c.refresh_id).where(*own)))
        .order_by(refresh_checks.c.id)
    )
    if moment is not None:
        checks = checks.where(refresh_checks.c.checked_at <= moment)
    with database.read() as connection:
        rows = list(connection.execute(statement))
        seen: dict[str, dict[str, FeatureState]] = {}
        checked_at: dict[str, datetime] = {}
        for row in connection.execute(checks):
            seen.setdefault(row.refresh_id, {})[row.feature] = _state(row)
            checked_at[row.refresh_id] = row.checked_at
    return [
        StoredRefresh(
            **{name: row._mapping[name] for name in _STORED},
            features=tuple(row.features),
            last_checked_at=checked_at.get(row.refresh_id),
            seen=seen.get(row.refresh_id, {}),
        )
        for row in rows
    ]


def _state(row: Row[Any]) -> FeatureState:
    return FeatureState(row.status, row.last_attempted_at, row.next_available_at, row.through_at)
