"""The part of Stripe's objects that this project reads, as the parser's types.

Lists of words that Stripe may lengthen are plain text here. A key without a default is required. What is not named is
skipped by the parser: client secrets, URLs, balances, owners and display names never become values.
"""

from __future__ import annotations

from msgspec import UNSET, Raw, Struct, UnsetType


class Reference(Struct, gc=False):
    id: str


class Holder(Struct, gc=False):
    type: str | None = None
    customer: str | Reference | None = None
    account: str | Reference | None = None
    customer_account: str | Reference | None = None


class Active(Struct, gc=False):
    action: str | None = None
    cause: str | None = None
    expected_deactivation_date: int | None = None


class Inactive(Struct, gc=False):
    action: str | None = None
    cause: str | None = None


class Cancelled(Struct, gc=False):
    reason: str | None = None


class StatusDetails(Struct, gc=False):
    active: Active | None = None
    inactive: Inactive | None = None
    cancelled: Cancelled | None = None


class Number(Struct, gc=False):
    identifier_type: str | None = None
    status: str | None = None
    expected_expiry_date: int | None = None


class Refresh(Struct, gc=False):
    status: str | None = None
    last_attempted_at: int | None = None


class Account(Struct, gc=False):
    id: str
    status: str
    livemode: bool
    # Absent below the preview versions: that must not pass for an account without an authorization.
    authorization: str | Reference | UnsetType | None = UNSET
    account_holder: Holder | None = None
    institution: str | Reference | None = None
    institution_name: str | None = None
    last4: str | None = None
    category: str | None = None
    subcategory: str | None = None
    status_details: StatusDetails | None = None
    permissions: list[str] | None = None
    account_numbers: list[Number] | None = None
    balance_refresh: Refresh | None = None
    inferred_balances_refresh: Refresh | None = None
    ownership_refresh: Refresh | None = None
    transaction_refresh: Refresh | None = None
    created: int | None = None


class DatedRefresh(Struct):
    status: str | None = None
    last_attempted_at: int | None = None
    next_refresh_available_at: int | None = None


class Balance(Struct):
    as_of: int | None = None


class RefreshedAccount(Struct):
    """An account as far as its refreshes go; the amounts of a balance are not read."""

    id: str
    status: str
    livemode: bool
    permissions: list[str] | None = None
    balance: Balance | None = None
    balance_refresh: DatedRefresh | None = None
    ownership_refresh: DatedRefresh | None = None
    transaction_refresh: DatedRefresh | None = None


class AccountList(Struct):
    data: list[Account]
    has_more: bool


class Remnant(Struct):
    """What must be readable of an account so that it can be told from others, and what may be."""

    id: str
    livemode: bool
    authorization: Raw = Raw()
    account_holder: Raw = Raw()


class RemnantList(Struct):
    data: list[Raw]
    has_more: bool


class Authorization(Struct):
    id: str
    status: str
    livemode: bool
    institution_name: str | None = None
    account_holder: Holder | None = None
    status_details: StatusDetails | None = None


class RelinkOptions(Struct):
    authorization: str | Reference | None = None
    account: str | Reference | None = None


class RelinkResult(Struct):
    authorization: str | Reference | None = None
    account: str | Reference | None = None
    failure_reason: str | None = None


class Hosted(Struct):
    delivery_method: str | None = None


class Session(Struct):
    id: str
    livemode: bool
    status: str | None = None
    account_holder: Holder | None = None
    accounts: AccountList | None = None
    permissions: list[str] | None = None
    relink_options: RelinkOptions | None = None
    relink_result: RelinkResult | None = None
    status_details: StatusDetails | None = None
    ui_mode: str | None = None
    hosted: Hosted | None = None


class EventRequest(Struct):
    idempotency_key: str | None = None


class EventObject(Struct):
    id: str | None = None
    object: str | None = None
    authorization: str | Reference | None = None
    relink_options: RelinkOptions | None = None
    account_holder: Holder | None = None


class EventData(Struct):
    # Decoded twice: as what any event tells, and an account as the account it is.
    object: Raw


class Event(Struct):
    id: str
    type: str
    created: int
    livemode: bool
    data: EventData
    api_version: str | None = None
    request: str | EventRequest | None = None


class EventList(Struct):
    data: list[Event]
    has_more: bool


class ErrorDetails(Struct, rename={"error_type": "type", "error_code": "code"}):
    """The part of an error that may be kept, masked."""

    error_type: str | None = None
    error_code: str | None = None
    param: str | None = None
    message: str | None = None


class ErrorBody(Struct):
    error: ErrorDetails
