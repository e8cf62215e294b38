"""What the core knows of Stripe's objects: plain values, nothing that must stay secret, no names of people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import compress
from typing import Any, Literal, NamedTuple

from reconcile.errors import IncompletePull, OutsideError, StripeUnavailable
from reconcile.refresh import FeatureState

Fault = Literal[
    "rejected",
    "institution_unavailable",
    "idempotency_mismatch",
    "in_use",
    "rate",
    "lock",
    "server",
    "connection",
    "cut_body",
    "unparsable",
    "key_refused",
    "key_expired",
]
"""Why a call to Stripe failed.

`rejected`: refused, and the same call would be refused again. `institution_unavailable`: refused because the bank cannot be
reached. `idempotency_mismatch`: the key was used with other parameters. `in_use`: the same key is being worked on. `rate`:
over a limit. `lock`: the object was busy. `server`: 5xx. `connection`: no answer. `cut_body`: an answer that did not arrive whole. `unparsable`: a whole answer of another shape.
`key_refused`: 401 or 403. `key_expired`: the idempotency key may be forgotten by now, so no (further) wire attempt was made.
"""


class AccountNumber(NamedTuple):
    """One account number of an account, without the number."""

    identifier_type: str | None
    status: str | None
    expected_expiry_at: datetime | None


@dataclass(frozen=True, slots=True)
class AccountRecord:
    """A Financial Connections account: the fields that a decision or a report needs, and no others.

    `holder_type` names the field that carries the holder's id: `account`, `customer` or `customer_account` (whose type at
    Stripe is `customer` too), so that a request can send the holder back exactly as it came. Words of open lists (`status`, `active_cause`, ...) stand as Stripe sent them. `permissions` is None where Stripe sent
    none. `last_refreshed_at` is the newest attempt among the refreshes that succeeded. `authorization_key_present` tells
    an authorization that is null from one that the API version does not know.
    """

    account_id: str
    authorization_id: str | None
    authorization_key_present: bool
    holder_type: str | None
    account_holder_id: str | None
    institution_id: str | None
    institution_name: str | None
    last4: str | None
    category: str | None
    subcategory: str | None
    status: str
    active_action: str | None
    active_cause: str | None
    expected_deactivation_at: datetime | None
    inactive_action: str | None
    inactive_cause: str | None
    permissions: tuple[str, ...] | None
    account_numbers: tuple[AccountNumber, ...]
    last_refreshed_at: datetime | None
    created_at: datetime | None
    livemode: bool


@dataclass(frozen=True, slots=True)
class AccountFreshness:
    """How far an account's data have been refreshed: `seen` by balances, ownership and transactions, as far as Stripe told it."""

    account_id: str
    status: str
    permissions: tuple[str, ...]
    seen: Mapping[str, FeatureState]
    livemode: bool


@dataclass(frozen=True, slots=True)
class RefreshAsked:
    """Stripe's answer to a refresh that it took on, now or (`replayed`) at an earlier attempt under the same key."""

    account: AccountFreshness
    replayed: bool
    request_id: str | None
    wire_attempts: int


@dataclass(frozen=True, slots=True)
class AuthorizationRecord:
    """The set of credentials behind a group of accounts."""

    authorization_id: str
    institution_name: str | None
    status: str
    active_action: str | None
    expected_deactivation_at: datetime | None
    inactive_action: str | None
    holder_type: str | None
    account_holder_id: str | None
    livemode: bool


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """A session with all its accounts, without its client secret and its URL."""

    session_id: str
    status: str | None
    has_relink_options: bool
    requested_authorization: str | None
    requested_account: str | None
    result_present: bool
    result_authorization: str | None
    result_account: str | None
    failure_reason: str | None
    cancelled_reason: str | None
    ui_mode: str | None
    delivery_method: str | None
    holder_type: str | None
    account_holder_id: str | None
    permissions: tuple[str, ...] | None
    accounts: tuple[AccountRecord, ...]
    livemode: bool


@dataclass(frozen=True, slots=True)
class SessionCreated:
    """Stripe's answer to a session that was created, now or (`replayed`) at an earlier attempt under the same key."""

    session_id: str
    status: str | None
    has_relink_options: bool
    requested_authorization: str | None
    livemode: bool
    replayed: bool
    request_id: str | None
    server_at: datetime | None
    wire_attempts: int


@dataclass(frozen=True, slots=True)
class EventRecord:
    """A hint that something changed; its object is rendered at another API version (`api_version`), which shows less.

    `account` is the account of an event about one, as it was then and as far as that version shows it.
    """

    event_id: str
    event_type: str
    created_at: datetime
    object_type: str | None
    object_id: str | None
    authorization_id: str | None
    holder_type: str | None
    account_holder_id: str | None
    request_idempotency_key: str | None
    livemode: bool
    api_version: str | None = None
    account: AccountRecord | None = None


@dataclass(frozen=True, slots=True)
class AccountsPage:
    """One page of the list of accounts, newest first; `last_id` is the cursor of the next page."""

    records: tuple[AccountRecord, ...]
    has_more: bool
    last_id: str | None
    server_at: datetime | None


@dataclass(frozen=True, slots=True)
class AccountColumns:
    """The same page by columns, which costs half as much as records.

    `columns` has the names of `frames.ACCOUNTS` and a value for each account, times as whole seconds since 1970; the other lists say of each
    whether it has the key `authorization`, and its mode.
    """

    columns: Mapping[str, Sequence[Any]]
    authorization_key_present: Sequence[bool]
    livemode: Sequence[bool]
    has_more: bool
    server_at: datetime | None = None

    @property
    def account_ids(self) -> Sequence[str]:
        """The accounts in the order of the list."""
        return self.columns["account_id"]

    @property
    def last_id(self) -> str | None:
        """The cursor of the next page."""
        return self.account_ids[-1] if self.account_ids else None

    def chosen(self, kept: Sequence[bool]) -> AccountColumns:
        """The page with only those of its accounts for which `kept` says so."""
        return replace(
            self,
            columns={name: list(compress(values, kept)) for name, values in self.columns.items()},
            authorization_key_present=list(compress(self.authorization_key_present, kept)),
            livemode=list(compress(self.livemode, kept)),
        )


class KeyProbe(NamedTuple):
    """Whether the API key may read something."""

    what: str
    allowed: bool


@dataclass(frozen=True, slots=True)
class CallFailure:
    """All that is kept of a failed call; `message` is Stripe's, masked.

    `sent` is False only where no byte of the request can have reached Stripe. `maybe_executed` covers every wire attempt
    of the call: it is False only where Stripe certainly did not act on any of them.
    """

    fault: Fault
    call: str
    http_status: int | None = None
    error_type: str | None = None
    error_code: str | None = None
    param: str | None = None
    request_id: str | None = None
    rate_limit_reason: str | None = None
    message: str | None = None
    server_at: datetime | None = None
    wire_attempts: int = 0
    sent: bool = False
    maybe_executed: bool = False

    def __str__(self) -> str:
        words = [f"{self.call}: {self.fault}"]
        if self.http_status is not None:
            words.append(f"HTTP {self.http_status}")
        words += [word for word in (self.error_type, self.error_code, self.rate_limit_reason) if word]
        if self.param:
            words.append(f"parameter {self.param}")
        if self.message:
            words.append(f"({self.message})")
        if self.request_id:
            words.append(f"request {self.request_id}")
        words.append(f"after {self.wire_attempts} wire attempt{'' if self.wire_attempts == 1 else 's'}")
        return ", ".join(words)


class StripeCallFailed(Exception):
    """A write that failed; the caller decides from `fault`, `sent` and `maybe_executed` what to record."""

    def __init__(self, failure: CallFailure) -> None:
        super().__init__(failure)
        self.failure = failure

    def __str__(self) -> str:
        return str(self.failure)

    @property
    def fault(self) -> Fault:
        """The class of the failure."""
        return self.failure.fault

    @property
    def sent(self) -> bool:
        """Whether any part of the request can have reached Stripe."""
        return self.failure.sent

    @property
    def maybe_executed(self) -> bool:
        """Whether Stripe may have created the session all the same."""
        return self.failure.maybe_executed


class ReadFailed(StripeUnavailable):
    """A read that got no usable answer within its attempts; another time it may."""

    def __init__(self, failure: CallFailure) -> None:
        super().__init__(f"{failure}. Stripe or the network did not answer: run again later.")
        self.failure = failure


class ReadRejected(OutsideError):
    """A read that Stripe refused as such: a wrong parameter, API version or cursor."""

    def __init__(self, failure: CallFailure) -> None:
        super().__init__(f"{failure}. Check stripe.api_version and the id that was asked for.")
        self.failure = failure


class MalformedAnswer(IncompletePull):
    """A whole answer that lacks a required key or holds another type than documented."""

    def __init__(self, failure: CallFailure) -> None:
        super().__init__(f"{failure}. Check that stripe.api_version is one this version was written for.")
        self.failure = failure
