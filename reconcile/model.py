"""The values that travel through a run: who is asked, why, under which identity, and what came of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo


class Finding(StrEnum):
    """What is true of an account tonight; the first that holds, in this order."""

    UNREADABLE = "unreadable"
    NOT_IN_STRIPE = "not_in_stripe"
    NOT_IN_LEDGER = "not_in_ledger"
    HOLDER_MISMATCH = "holder_mismatch"
    DISCONNECTED = "disconnected"
    INACTIVE_PERMANENT = "inactive_permanent"
    INACTIVE = "inactive"
    ACCOUNT_NUMBER = "account_number"
    EXPIRING = "expiring"
    PERMISSIONS = "permissions"
    OK = "ok"


AFFECTED = (Finding.INACTIVE, Finding.ACCOUNT_NUMBER, Finding.EXPIRING, Finding.PERMISSIONS)
"""Findings that a relink can cure, in the order in which one becomes a request's reason."""


class NextStep(StrEnum):
    """What the job does about an account; the first that holds, in this order."""

    NONE = "none"
    LEDGER_CLOSED = "ledger_closed"
    REPLACED = "replaced"
    NOT_RELINKABLE = "not_relinkable"
    REVIEW = "review"
    DO_NOT_CONTACT = "do_not_contact"
    REASON_OFF = "reason_off"
    OPEN_SESSION = "open_session"
    ATTEMPTS_EXHAUSTED = "attempts_exhausted"
    COOLDOWN = "cooldown"
    HELD_BY_BRAKE = "held_by_brake"
    CAPPED = "capped"
    REQUEST = "request"


AUTHORIZATION_STEPS = (
    NextStep.OPEN_SESSION,
    NextStep.ATTEMPTS_EXHAUSTED,
    NextStep.COOLDOWN,
    NextStep.HELD_BY_BRAKE,
    NextStep.CAPPED,
    NextStep.REQUEST,
)
"""Steps that are decided once for an authorization and stand on each of its eligible accounts."""


class BreakageKind(StrEnum):
    """What broke: the login itself, its account numbers, or what it may show."""

    CONNECTION = "connection"
    ACCOUNT_NUMBER = "account_number"
    PERMISSIONS = "permissions"


KIND_OF_FINDING: Mapping[str, BreakageKind] = {
    Finding.INACTIVE: BreakageKind.CONNECTION,
    Finding.EXPIRING: BreakageKind.CONNECTION,
    Finding.ACCOUNT_NUMBER: BreakageKind.ACCOUNT_NUMBER,
    Finding.PERMISSIONS: BreakageKind.PERMISSIONS,
}


class Result(StrEnum):
    """What became of the call that asks Stripe for a session."""

    CREATED = "created"
    REJECTED = "rejected"
    UNKNOWN = "unknown"
    NOT_SENT = "not_sent"
    WOULD_REQUEST = "would_request"


class State(StrEnum):
    """Where a stored request stands; `planned` is provably unsent, `attempting` may have reached Stripe."""

    PLANNED = "planned"
    ATTEMPTING = "attempting"
    CREATED = "created"
    REJECTED = "rejected"
    UNKNOWN = "unknown"
    NOT_SENT = "not_sent"


class OutcomeKind(StrEnum):
    """What came of a request."""

    RELINKED = "relinked"
    RELINKED_PARTIALLY = "relinked_partially"
    NEW_AUTHORIZATION = "new_authorization"
    FAILED = "failed"
    CANCELLED = "cancelled"
    PENDING = "pending"
    HEALED = "healed"
    EXPIRED = "expired"
    REVIEW = "review"
    UNKNOWN = "unknown"
    REJECTED = "rejected"
    NOT_SENT = "not_sent"


BROUGHT_BACK = (OutcomeKind.RELINKED, OutcomeKind.RELINKED_PARTIALLY, OutcomeKind.NEW_AUTHORIZATION)
"""Outcomes that brought back at least one account."""

PROVISIONAL = (OutcomeKind.EXPIRED, OutcomeKind.HEALED, OutcomeKind.CANCELLED)
"""Outcomes that a later answer within `PROVISIONAL_DAYS` replaces."""

PROVISIONAL_DAYS = 30
REPORT_WINDOW_DAYS = 30
REREAD_AFTER = timedelta(minutes=60)
PLAN_LIFETIME = timedelta(hours=24)
UNKNOWN_OFFER_LIFETIME = timedelta(hours=24)

PERMISSIONS = ("balances", "ownership", "payment_method", "transactions")
"""Data a session may ask for (Stripe API: financial_connections.session.permissions)."""


@dataclass(frozen=True, slots=True)
class RunStamp:
    """Which run speaks, and for which moment: `as_of` is aware UTC, `business_date` is in `timezone`.

    `resumed_from` are the unfinished runs of which this one finishes the night, the newest first.
    """

    run_id: str
    command: str
    as_of: datetime
    business_date: date
    timezone: str
    dry_run: bool = False
    resumed_from: tuple[str, ...] = ()

    @property
    def run_ids(self) -> tuple[str, ...]:
        """The ids under which what the night did is recorded."""
        return (self.run_id, *self.resumed_from)

    def date_of(self, moment: datetime) -> date:
        """The business date on which a moment falls."""
        return moment.astimezone(ZoneInfo(self.timezone)).date()


@dataclass(frozen=True, slots=True)
class Scope:
    """The merchant and mode that every record belongs to; rows of two scopes never meet."""

    merchant: str
    mode: str


HOLDER_TYPES = ("customer", "account", "customer_account")
"""The fields of `account_holder` that may carry its id; a holder of any other kind cannot be sent back to Stripe."""


@dataclass(frozen=True, slots=True, order=True)
class Holder:
    """The customer: a holder type (`customer`, `account`, `customer_account`) and its id."""

    type: str
    id: str


@dataclass(frozen=True, slots=True, order=True)
class BreakageKey:
    """One outage of one authorization."""

    authorization_id: str
    kind: str
    number: int


@dataclass(frozen=True, slots=True)
class Breakage:
    """A breakage as recorded; `eligible_at` is when it first could have been asked about."""

    key: BreakageKey
    opened_at: datetime
    opened_date: date
    opened_run_id: str
    eligible_at: datetime | None = None
    closed_at: datetime | None = None
    closed_run_id: str | None = None
    closed_reason: str | None = None


@dataclass(frozen=True, slots=True)
class CoveredAccount:
    """An account that a request is to cure, with what was wrong with it when asked."""

    account_id: str
    finding: str
    required_permissions: tuple[str, ...] = ()
    institution_name: str | None = None
    last4: str | None = None
    subcategory: str | None = None


@dataclass(frozen=True, slots=True)
class RelinkRequest:
    """One contact as decided: everything that is stored before the POST, and nothing secret.

    `exposure_by_currency` is integer money in minor units; `permissions` and `covered` are sorted.
    `account_id` is set only where one account is asked for alone.
    """

    request_id: str
    merchant: str
    mode: str
    breakage: BreakageKey
    attempt: int
    account_id: str | None
    holder: Holder
    institution_name: str | None
    reason: str
    cause: str | None
    covered: tuple[CoveredAccount, ...]
    permissions: tuple[str, ...]
    widens: bool
    delivery: str
    due_date: date | None
    exposure_by_currency: Mapping[str, int]
    references: tuple[str, ...]
    origin: str
    limit_accounts: int | None = None
    account_subcategories: tuple[str, ...] = ()
    return_url: str | None = None

    @property
    def authorization_id(self) -> str:
        """The authorization that the session names."""
        return self.breakage.authorization_id

    @property
    def idempotency_key(self) -> str:
        """The key of this contact's identity, without its parameters, so that a changed setting cannot make a second one."""
        return idempotency_key(Scope(self.merchant, self.mode), self.breakage, self.attempt)


def idempotency_key(scope: Scope, breakage: BreakageKey, attempt: int) -> str:
    """Hash (merchant, mode, authorization, breakage, attempt) into a key of 71 characters (Stripe allows 255)."""
    parts = (scope.merchant, scope.mode, breakage.authorization_id, breakage.kind, str(breakage.number), str(attempt))
    joined = "\x1f".join(f"{len(part)}:{part}" for part in parts)
    return "relink-" + hashlib.sha256(joined.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class StoredRequest:
    """A request as recorded, with what happened to it; times are aware UTC.

    `outcome` is the newest one, None before any. `business_date` is the date of the run that made it.
    """

    request: RelinkRequest
    run_id: str
    business_date: date
    state: str
    planned_at: datetime
    attempting_at: datetime | None = None
    answered_at: datetime | None = None
    idempotency_key: str = ""
    request_body: str = ""
    api_version: str = ""
    session_id: str | None = None
    error_type: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    http_status: int | None = None
    stripe_request_id: str | None = None
    calls: int = 0
    requested_at: datetime | None = None
    offered_at: datetime | None = None
    resolved_by: str | None = None
    resolved_at: datetime | None = None
    outcome: str | None = None
    previous_outcome: str | None = None
    outcome_at: datetime | None = None
    outcome_at_basis: str | None = None
    outcome_observed_at: datetime | None = None
    outcome_run_id: str | None = None
    failure_reason: str | None = None
    session_status: str | None = None
    result_authorization_id: str | None = None
    accounts_cured: int | None = None
    cured_accounts: tuple[str, ...] | None = None
    other_accounts: tuple[str, ...] | None = None
    last_checked_at: datetime | None = None

    @property
    def authorization_id(self) -> str:
        """The authorization asked about."""
        return self.request.authorization_id


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one look at a request concluded; `previous` is what stood before, where it differs.

    `at` with basis `event` is Stripe's time; with basis `observed` it is an upper bound. `cured_accounts` are the covered accounts that were
    cured, `other_accounts` those that came back without being covered; None in records from before they were compared.
    """

    request_id: str
    kind: str
    previous: str | None
    at: datetime | None
    at_basis: str | None
    failure_reason: str | None = None
    session_status: str | None = None
    result_authorization_id: str | None = None
    accounts_cured: int = 0
    cured_accounts: tuple[str, ...] | None = None
    other_accounts: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Successor:
    """An account that lives on under a new authorization.

    `matched_by` is `id`, `attributes` or, where no request brought it, `twin`; then `request_id` is empty.
    """

    old_account_id: str
    new_account_id: str
    old_authorization_id: str
    new_authorization_id: str
    matched_by: str
    request_id: str


@dataclass(frozen=True, slots=True)
class AuthorizationDecision:
    """What the plan decided about one authorization and why it does nothing, where it does nothing."""

    authorization_id: str
    next_step: str
    detail: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be sent, in sending order, one decision for every authorization considered, and what a brake holds back.

    `account_details` say why single accounts fare otherwise than their authorization, where that can be said.
    """

    requests: tuple[RelinkRequest, ...]
    decisions: tuple[AuthorizationDecision, ...]
    held: tuple[RelinkRequest, ...] = ()
    account_details: Mapping[str, str] = field(default_factory=dict)
