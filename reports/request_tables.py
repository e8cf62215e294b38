"""Builds the report tables of requests and what came of them; pure, so that the same night always gives the same table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime

import pyarrow as pa

from reconcile.model import OutcomeKind, Result, State, StoredRequest, Successor
from reports.columns import ACCOUNT_SUCCESSORS, FAILURE_REASONS, RELINK_OUTCOMES, RELINK_REQUESTS
from reports.table_building import masked, single_exposure, sorted_once, table_of_rows

CONTACTED = (State.ATTEMPTING, State.CREATED, State.REJECTED, State.UNKNOWN)
"""States of a request that may have reached Stripe, which is what makes it an attempt."""

RESULT_OF_STATE: Mapping[str, Result] = {
    State.PLANNED: Result.NOT_SENT,
    # A run that is over answers for what it left behind: Stripe may have acted on it, so it is never shown as unsent.
    State.ATTEMPTING: Result.UNKNOWN,
    State.CREATED: Result.CREATED,
    State.REJECTED: Result.REJECTED,
    State.UNKNOWN: Result.UNKNOWN,
    State.NOT_SENT: Result.NOT_SENT,
}

OUTCOME_OF_STATE: Mapping[str, OutcomeKind] = {
    State.PLANNED: OutcomeKind.NOT_SENT,
    State.ATTEMPTING: OutcomeKind.UNKNOWN,
    State.CREATED: OutcomeKind.PENDING,
    State.REJECTED: OutcomeKind.REJECTED,
    State.UNKNOWN: OutcomeKind.UNKNOWN,
    State.NOT_SENT: OutcomeKind.NOT_SENT,
}
"""What stands for a request of which no outcome is recorded yet."""


def relink_requests_table(requests: Iterable[StoredRequest], *, result: Result | None = None) -> pa.Table:
    """One row for each request of a run; `result` stands on every row where it is given, as in a dry run."""
    rows = []
    for stored in requests:
        request = stored.request
        rows.append(
            {
                "merchant": request.merchant,
                "request_id": request.request_id,
                "authorization_id": request.authorization_id,
                "account_id": request.account_id,
                "account_holder_id": request.holder.id,
                "institution_name": request.institution_name,
                "reason": request.reason,
                "covered_accounts": [account.account_id for account in request.covered],
                "permissions": list(request.permissions),
                "widens": request.widens,
                "delivery": request.delivery,
                "attempt": request.attempt,
                "result": str(result or RESULT_OF_STATE[stored.state]),
                "session_id": stored.session_id,
                "error_type": stored.error_type,
                "error_code": stored.error_code,
                "error_message": stored.error_message,
                "http_status": stored.http_status,
                "stripe_request_id": stored.stripe_request_id,
                "calls": stored.calls,
                "requested_at": time_of_asking(stored),
                "references": sorted_once(request.references),
            }
        )
    return table_of_rows(RELINK_REQUESTS, rows)


def relink_outcomes_table(requests: Iterable[StoredRequest]) -> pa.Table:
    """One row for each request whose outcome changed or is still open."""
    rows = []
    for stored in requests:
        request = stored.request
        exposure_minor, currency = single_exposure(request.exposure_by_currency)
        requested_at = time_of_asking(stored)
        result_authorization_id = stored.result_authorization_id
        covered = {account.account_id for account in request.covered}
        cured = _cured(stored, covered)
        rows.append(
            {
                "merchant": request.merchant,
                "request_id": request.request_id,
                "session_id": stored.session_id,
                "authorization_id": request.authorization_id,
                "account_holder_id": request.holder.id,
                "institution_name": request.institution_name,
                "cause": request.cause,
                "outcome": outcome_of(stored),
                "previous_outcome": stored.previous_outcome,
                "failure_reason": stored.failure_reason,
                "session_status": stored.session_status,
                "new_authorization_id": None
                if result_authorization_id == request.authorization_id
                else result_authorization_id,
                "accounts_expected": len(request.covered),
                "accounts_cured": stored.accounts_cured,
                "requested_at": requested_at,
                "outcome_at": stored.outcome_at,
                "outcome_at_basis": stored.outcome_at_basis,
                "hours_to_outcome": _hours_between(requested_at, stored.outcome_at),
                "last_checked_at": stored.last_checked_at,
                "reason": request.reason,
                "attempt": request.attempt,
                "delivery": request.delivery,
                "origin": request.origin,
                "exposure_minor": exposure_minor,
                "currency": currency,
                "references": sorted_once(request.references),
                "reactivated_unattributed": stored.state == State.UNKNOWN and bool(stored.accounts_cured),
                "cured_accounts": cured,
                "uncured_accounts": None if cured is None else sorted(covered - set(cured)),
                "other_accounts": stored.other_accounts,
            }
        )
    return table_of_rows(RELINK_OUTCOMES, rows)


def account_successors_table(merchant: str, successors: Iterable[Successor]) -> pa.Table:
    """One row for each account that was replaced under a new authorization."""
    columns = [name for name in ACCOUNT_SUCCESSORS.names if name != "merchant"]
    rows = [{"merchant": merchant, **{name: getattr(one, name) or None for name in columns}} for one in successors]
    return table_of_rows(ACCOUNT_SUCCESSORS, rows)


def failure_reasons_table(requests: Iterable[StoredRequest]) -> pa.Table:
    """The requests of the window, counted by merchant, institution, cause, outcome and failure reason."""
    counts = Counter(
        (
            stored.request.merchant,
            masked(stored.request.institution_name),
            stored.request.cause,
            outcome_of(stored),
            masked(stored.failure_reason),
        )
        for stored in requests
    )
    totals: Counter[tuple[str | None, ...]] = Counter()
    for group, count in counts.items():
        totals[group[:3]] += count
    rows = [
        {**dict(zip(FAILURE_REASONS.key, group, strict=True)), "requests": count, "share": count / totals[group[:3]]}
        for group, count in counts.items()
    ]
    return table_of_rows(FAILURE_REASONS, rows)


def outcome_of(stored: StoredRequest) -> str:
    """The newest recorded outcome, else what the request's state says."""
    return str(stored.outcome or OUTCOME_OF_STATE[stored.state])


def time_of_asking(stored: StoredRequest) -> datetime | None:
    """When Stripe was asked, or for a request without an answer, when it may have been."""
    return stored.requested_at or (stored.attempting_at if stored.state in CONTACTED else None)


def _cured(stored: StoredRequest, covered: Collection[str]) -> list[str] | None:
    """The covered accounts that are cured; of records that only counted them, where the count leaves no doubt."""
    if stored.cured_accounts is not None:
        return sorted(stored.cured_accounts)
    if stored.accounts_cured == len(covered):
        return sorted(covered)
    return [] if stored.accounts_cured == 0 else None


def _hours_between(start: datetime | None, end: datetime | None) -> float | None:
    """Hours to four decimals; a clock that was set back gives zero and never less."""
    return None if start is None or end is None else max(0.0, round((end - start).total_seconds() / 3600, 4))
