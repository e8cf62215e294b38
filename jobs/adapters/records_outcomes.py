"""What came of requests and when sessions were looked at: both append only."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime
from typing import Any

from sqlalchemy import select

from jobs.adapters.database import Database
from jobs.adapters.tables import outcomes, session_checks
from reconcile.model import Outcome


def append_outcomes(
    database: Database, run_id: str, business_date: date, concluded: Iterable[Outcome], observed_at: datetime
) -> None:
    """Record what a run concluded of requests; the newest row is a request's outcome."""
    rows: list[dict[str, Any]] = [
        {
            "request_id": outcome.request_id,
            "run_id": run_id,
            "business_date": business_date,
            "observed_at": observed_at,
            "outcome": str(outcome.kind),
            "previous_outcome": None if outcome.previous is None else str(outcome.previous),
            "failure_reason": outcome.failure_reason,
            "session_status": outcome.session_status,
            "result_authorization_id": outcome.result_authorization_id,
            "accounts_cured": outcome.accounts_cured,
            "cured_accounts": outcome.cured_accounts,
            "other_accounts": outcome.other_accounts,
            "outcome_at": outcome.at,
            "outcome_at_basis": outcome.at_basis,
        }
        for outcome in concluded
    ]
    if rows:
        database.run(lambda connection: connection.execute(outcomes.insert(), rows))


def outcomes_of(database: Database, request_id: str) -> list[tuple[datetime, str, Outcome]]:
    """Everything ever concluded of a request, oldest first, as (observed at, run id, outcome)."""
    with database.read() as connection:
        rows = connection.execute(select(outcomes).where(outcomes.c.request_id == request_id).order_by(outcomes.c.id))
        return [
            (
                row.observed_at,
                row.run_id,
                Outcome(
                    request_id=row.request_id,
                    kind=row.outcome,
                    previous=row.previous_outcome,
                    at=row.outcome_at,
                    at_basis=row.outcome_at_basis,
                    failure_reason=row.failure_reason,
                    session_status=row.session_status,
                    result_authorization_id=row.result_authorization_id,
                    accounts_cured=row.accounts_cured,
                    cured_accounts=_names(row.cured_accounts),
                    other_accounts=_names(row.other_accounts),
                ),
            )
            for row in rows
        ]


def _names(stored: list[str] | None) -> tuple[str, ...] | None:
    return None if stored is None else tuple(stored)


def add_session_checks(
    database: Database, run_id: str, checked: Iterable[tuple[str, str | None]], checked_at: datetime
) -> None:
    """Record that sessions were read, as (request id, the status that Stripe gave), so that reads are not spent twice."""
    rows = [
        {"request_id": request_id, "run_id": run_id, "checked_at": checked_at, "session_status": status}
        for request_id, status in checked
    ]
    if rows:
        database.run(lambda connection: connection.execute(session_checks.insert(), rows))


def session_checks_of(database: Database, request_id: str) -> list[tuple[datetime, str, str | None]]:
    """Every read of a request's session, oldest first, as (checked at, run id, the status that Stripe gave)."""
    columns = (session_checks.c.checked_at, session_checks.c.run_id, session_checks.c.session_status)
    statement = select(*columns).where(session_checks.c.request_id == request_id).order_by(session_checks.c.id)
    with database.read() as connection:
        return [(checked_at, run_id, status) for checked_at, run_id, status in connection.execute(statement)]
