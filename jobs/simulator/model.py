"""The things a simulated Stripe account knows about, as plain mutable values. Times are epoch seconds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

PERMISSIONS = ("balances", "ownership", "payment_method", "transactions")
CATEGORY_OF = {
    "checking": "cash",
    "savings": "cash",
    "credit_card": "credit",
    "line_of_credit": "credit",
    "mortgage": "credit",
    "other": "other",
}
INACTIVE_CAUSES = (
    "access_denied",
    "access_expired",
    "account_closed",
    "account_unavailable",
    "institution_requirement",
    "unspecified",
)


class Holder(NamedTuple):
    """Whom an account belongs to. `kind` is the parameter that names it: customer, account or customer_account."""

    kind: str
    id: str

    @property
    def type(self) -> str:
        """Stripe's `account_holder.type`; a customer_account is of type customer (Stripe API docs: account_holder)."""
        return "account" if self.kind == "account" else "customer"


class AccountNumber(NamedTuple):
    """One entry of `account_numbers`."""

    identifier_type: str
    status: str
    expires_at: int | None


@dataclass(slots=True, eq=False)
class Institution:
    """A bank. `manner` names how its accounts behave, see `banks.py`."""

    id: str
    name: str
    manner: str = "ordinary"
    tokenized: bool = False
    status: str = "active"
    is_unavailable: bool = False


@dataclass(slots=True, eq=False)
class Authorization:
    """The credentials that connect a group of accounts."""

    id: str
    holder: Holder
    institution: Institution
    created: int
    status: str = "active"
    active_action: str = "none"
    expected_at: int | None = None
    inactive_action: str | None = None
    attempts: int = 0
    accounts: list[Account] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Account:
    """A bank account as Financial Connections shows it."""

    id: str
    authorization: Authorization
    holder: Holder
    last4: str | None
    subcategory: str
    permissions: tuple[str, ...]
    numbers: tuple[AccountNumber, ...]
    created: int
    refreshed_at: int
    subscribed: bool = False
    status: str = "active"
    inactive_action: str | None = None
    inactive_cause: str | None = None
    active_action: str = "none"
    active_cause: str | None = None
    expected_at: int | None = None
    broken_at: int = 0
    refreshing: tuple[str, ...] = ()
    refreshed: dict[str, int] = field(default_factory=dict)
    refresh_failed: dict[str, int] = field(default_factory=dict)
    refresh_fails: frozenset[str] = frozenset()
    position: int = -1

    @property
    def is_relinkable(self) -> bool:
        """Whether a customer could bring it back: not disconnected, not inactive for good."""
        return self.status == "active" or (self.status == "inactive" and self.inactive_action != "none")


@dataclass(slots=True, eq=False)
class Session:
    """A Financial Connections session; `attempt` counts those of its authorization."""

    id: str
    created: int
    holder: Holder
    permissions: tuple[str, ...]
    client_secret: str
    authorization_id: str | None = None
    account_id: str | None = None
    prefetch: tuple[str, ...] = ()
    filters: dict[str, Any] = field(default_factory=dict)
    account_limit: int | None = None
    manual_entry_mode: str | None = None
    return_url: str | None = None
    ui_mode: str = "modal"
    delivery_method: str | None = None
    url: str | None = None
    status: str = "pending"
    result: dict[str, str] | None = None
    cancelled_reason: str | None = None
    account_ids: tuple[str, ...] = ()
    attempt: int = 1
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened; `payload` is the object as JSON, frozen when the event was made."""

    id: str
    type: str
    created: int
    object_id: str
    payload: bytes
    request_id: str | None = None
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class Effect:
    """A session that was really created: what counts as one contact of a customer."""

    session_id: str
    authorization_id: str | None
    account_holder_id: str
    idempotency_key: str | None
    delivery_method: str | None
    at: int
