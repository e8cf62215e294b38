"""Values to store: defaults with overrides."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

from jobs.adapters import records
from jobs.adapters.database import Database
from jobs.adapters.lease import Lease, LeaseToken, acquire
from reconcile.model import Breakage, BreakageKey, CoveredAccount, Holder, Outcome, RelinkRequest, Scope

SCOPE = Scope("main", "sandbox")
OTHER_SCOPE = Scope("main", "live")
RUN_ID = "20261122T033000Z-aaaa"
DATE = date(2026, 11, 22)
AT = datetime(2026, 11, 22, 3, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def key(authorization_id: str = "fcauth_1", kind: str = "connection", number: int = 1) -> BreakageKey:
    return BreakageKey(authorization_id, kind, number)


def breakage(at: datetime = AT, **overrides: Any) -> Breakage:
    values = {"key": key(), "opened_at": at, "opened_date": at.date(), "opened_run_id": RUN_ID} | overrides
    return Breakage(**values)


def relink_request(request_id: str = "req_1", **overrides: Any) -> RelinkRequest:
    values: dict[str, Any] = {
        "request_id": request_id,
        "merchant": SCOPE.merchant,
        "mode": SCOPE.mode,
        "breakage": key(f"fcauth_{request_id}"),
        "attempt": 1,
        "account_id": None,
        "holder": Holder("customer", f"cus_{request_id}"),
        "institution_name": "Bank of Örebro \U0001f3e6",
        "reason": "inactive",
        "cause": "access_expired",
        "covered": (
            CoveredAccount("fca_1", "inactive", ("balances", "transactions"), "Bank of Örebro", "4242", "checking"),
            CoveredAccount("fca_2", "expiring"),
        ),
        "permissions": ("balances", "transactions"),
        "widens": False,
        "delivery": "modal",
        "due_date": date(2026, 11, 20),
        "exposure_by_currency": {"EUR": 1250, "USD": 2**53 + 1},
        "references": ("invoice 7",),
        "origin": "run",
    } | overrides
    return RelinkRequest(**values)


def plan(
    database: Database, *requests: RelinkRequest, at: datetime = AT, run_id: str = RUN_ID, day: date = DATE
) -> None:
    scope = Scope(requests[0].merchant, requests[0].mode)
    records.plan_requests(
        database, scope, run_id, day, [(request, "permissions[0]=balances", "v.preview") for request in requests], at
    )


def create(
    database: Database, lease: LeaseToken, request: RelinkRequest, session_id: str, at: datetime = AT, **placed: Any
) -> None:
    plan(database, request, at=at, **placed)
    records.mark_attempting(database, request.request_id, at, lease)
    records.record_result(database, request.request_id, "created", at, session_id=session_id, calls=1)


def conclude(
    database: Database, request_id: str, kind: str, observed_at: datetime, previous: str | None = None, **values: Any
) -> None:
    outcome = Outcome(
        request_id=request_id, kind=kind, previous=previous, at=values.pop("at", None), at_basis="observed", **values
    )
    records.append_outcomes(database, RUN_ID, observed_at.date(), [outcome], observed_at)


def held(database: Database, **options: Any) -> Lease:
    return acquire(database, "test", renew=False, **options)


def finished(
    database: Database,
    run_id: str,
    at: datetime,
    *,
    held: bool = False,
    complete: bool = True,
    state: str = records.COMPLETE,
    scope: Scope = SCOPE,
    command: str = "run",
) -> None:
    """Store a run that has ended, with one merchant."""
    records.start_run(database, run_id, command, at.date(), at, settings_hash="hash", settings={})
    records.record_run_merchant(database, run_id, scope, snapshot_id=f"snap_{run_id}", complete=complete, held=held)
    records.finish_run(database, run_id, state, at + HOUR, 0, held=held)
