"""Reads Stripe's JSON into our records, field by allowed field; pure.

No object of the `stripe` package is built: that costs some 600 microseconds of CPU an account, and such an object holds
everything that came, secrets too. Here a field that is not named is skipped by the parser and never becomes a value.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from jobs.adapters.stripe_shapes import (
    Account,
    AccountList,
    Active,
    Authorization,
    DatedRefresh,
    ErrorBody,
    ErrorDetails,
    Event,
    EventList,
    EventObject,
    EventRequest,
    Holder,
    Inactive,
    Number,
    Reference,
    RefreshedAccount,
    Remnant,
    RemnantList,
    Session,
    StatusDetails,
)
from reconcile.masking import mask
from reconcile.records import (
    AccountFreshness,
    AccountNumber,
    AccountRecord,
    AuthorizationRecord,
    EventRecord,
    SessionRecord,
)
from reconcile.refresh import FeatureState

MALFORMED = "malformed"
"""Begins what stands for the status of an account that is not as documented; the field at fault follows it."""

ACCOUNT_OBJECT = "financial_connections.account"

_LONGEST_MESSAGE = 300
_PLACE = re.compile(r"(?:\$\.|field `)([\w.\[\]]+)")


class NotJson(Exception):
    """The bytes are no JSON document, as when an answer was cut."""


class WrongShape(Exception):
    """A JSON document that is not what Stripe documents; the text names the place, never the value."""


_Shape = TypeVar("_Shape")

_ACCOUNT = msgspec.json.Decoder(Account)
_REFRESHED_ACCOUNT = msgspec.json.Decoder(RefreshedAccount)
_ACCOUNT_LIST = msgspec.json.Decoder(AccountList)
_REMNANT = msgspec.json.Decoder(Remnant)
_REMNANT_LIST = msgspec.json.Decoder(RemnantList)
_REFERENCE = msgspec.json.Decoder(str | Reference | None)
_HOLDER = msgspec.json.Decoder(Holder | None)
_AUTHORIZATION = msgspec.json.Decoder(Authorization)
_SESSION = msgspec.json.Decoder(Session)
_EVENT_OBJECT = msgspec.json.Decoder(EventObject)
_EVENT_LIST = msgspec.json.Decoder(EventList)
_ERROR = msgspec.json.Decoder(ErrorBody)


def read_accounts(body: bytes) -> tuple[tuple[AccountRecord, ...], bool]:
    """Return a page's accounts in Stripe's order and whether more follow.

    One account that is not as documented must not hide all others: it stands with what identifies it and a status that says which field
    is at fault, so that it is judged `unreadable` and nobody is asked about it. Where no account of the page can be read, it is the page that is
    wrong.

    Raises:
        WrongShape: that, or an account that cannot even be identified.
    """
    try:
        page = decode(_ACCOUNT_LIST, body)
        return tuple(map(_account_record, page.data)), page.has_more
    except WrongShape as fault:
        shape_fault = str(fault)
    pieces = decode(_REMNANT_LIST, body)
    records = tuple(_account_or_remnant(bytes(piece)) for piece in pieces.data)
    if all(record.status.startswith(MALFORMED) for record in records):
        raise WrongShape(shape_fault)
    return records, pieces.has_more


def read_account(body: bytes) -> AccountRecord:
    """Return one account."""
    return _account_record(decode(_ACCOUNT, body))


def read_freshness(body: bytes) -> AccountFreshness:
    """Return how far one account's data have been refreshed."""
    found = decode(_REFRESHED_ACCOUNT, body)
    refreshes = {
        "balances": found.balance_refresh,
        "ownership": found.ownership_refresh,
        "transactions": found.transaction_refresh,
    }
    calculated_at = _moment(found.balance.as_of) if found.balance else None
    return AccountFreshness(
        account_id=found.id,
        status=found.status,
        permissions=tuple(found.permissions or ()),
        seen={
            name: _feature_state(one, calculated_at if name == "balances" else None)
            for name, one in refreshes.items()
            if one is not None
        },
        livemode=found.livemode,
    )


def _feature_state(found: DatedRefresh, through_at: datetime | None) -> FeatureState:
    """A balance is as of when the bank calculated it; anything else is known up to the refresh that succeeded."""
    attempted_at = _moment(found.last_attempted_at)
    return FeatureState(
        found.status, attempted_at, _moment(found.next_refresh_available_at), through_at or attempted_at
    )


def read_authorization(body: bytes) -> AuthorizationRecord:
    """Return one authorization."""
    found = decode(_AUTHORIZATION, body)
    details = found.status_details or NO_DETAILS
    active = details.active or NO_ACTIVE
    holder_type, holder_id = holder_of(found.account_holder)
    return AuthorizationRecord(
        authorization_id=found.id,
        institution_name=found.institution_name,
        status=found.status,
        active_action=active.action,
        expected_deactivation_at=_moment(active.expected_deactivation_date),
        inactive_action=details.inactive.action if details.inactive else None,
        holder_type=holder_type,
        account_holder_id=holder_id,
        livemode=found.livemode,
    )


def read_session(body: bytes) -> tuple[SessionRecord, bool]:
    """Return a session with the accounts in its body, and whether it has more accounts than those."""
    found = decode(_SESSION, body)
    holder_type, holder_id = holder_of(found.account_holder)
    options, result = found.relink_options, found.relink_result
    cancelled = found.status_details.cancelled if found.status_details else None
    record = SessionRecord(
        session_id=found.id,
        status=found.status,
        has_relink_options=options is not None,
        requested_authorization=reference_of(options.authorization) if options else None,
        requested_account=reference_of(options.account) if options else None,
        result_present=result is not None,
        result_authorization=reference_of(result.authorization) if result else None,
        result_account=reference_of(result.account) if result else None,
        failure_reason=result.failure_reason if result else None,
        cancelled_reason=cancelled.reason if cancelled else None,
        ui_mode=found.ui_mode,
        delivery_method=found.hosted.delivery_method if found.hosted else None,
        holder_type=holder_type,
        account_holder_id=holder_id,
        permissions=None if found.permissions is None else tuple(found.permissions),
        accounts=tuple(map(_account_record, found.accounts.data)) if found.accounts else (),
        livemode=found.livemode,
    )
    return record, found.accounts is not None and found.accounts.has_more


def read_events(body: bytes) -> tuple[tuple[EventRecord, ...], bool]:
    """Return a page's events in Stripe's order and whether more follow."""
    page = decode(_EVENT_LIST, body)
    return tuple(map(_event_record, page.data)), page.has_more


def read_error(body: bytes) -> ErrorDetails:
    """Return what an error says, masked and short; all None where it says nothing that can be read."""
    try:
        error = _ERROR.decode(body).error
    except (msgspec.DecodeError, ValueError):
        return ErrorDetails()
    return ErrorDetails(
        error_type=_short(error.error_type),
        error_code=_short(error.error_code),
        param=_short(error.param),
        message=_short(error.message),
    )


def decode(decoder: msgspec.json.Decoder[_Shape], body: bytes) -> _Shape:
    """Return what the bytes hold.

    Raises:
        NotJson, WrongShape: neither holds a byte of what came.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        shape_fault = str(error)
    except (msgspec.DecodeError, ValueError):
        shape_fault = None
    # Raised out here so that no chained exception reaches the bytes.
    if shape_fault is None:
        raise NotJson
    raise WrongShape(shape_fault)


def _account_record(found: Account) -> AccountRecord:
    details = found.status_details or NO_DETAILS
    active = details.active or NO_ACTIVE
    inactive = details.inactive or NO_INACTIVE
    holder_type, holder_id = holder_of(found.account_holder)
    authorization = found.authorization
    return AccountRecord(
        account_id=found.id,
        authorization_id=None if authorization is UNSET else reference_of(authorization),
        authorization_key_present=authorization is not UNSET,
        holder_type=holder_type,
        account_holder_id=holder_id,
        institution_id=reference_of(found.institution),
        institution_name=found.institution_name,
        last4=found.last4,
        category=found.category,
        subcategory=found.subcategory,
        status=found.status,
        active_action=active.action,
        active_cause=active.cause,
        expected_deactivation_at=_moment(active.expected_deactivation_date),
        inactive_action=inactive.action,
        inactive_cause=inactive.cause,
        permissions=None if found.permissions is None else tuple(found.permissions),
        account_numbers=tuple(map(_account_number, found.account_numbers)) if found.account_numbers else (),
        last_refreshed_at=_moment(newest_refresh(found)),
        created_at=_moment(found.created),
        livemode=found.livemode,
    )


def _account_or_remnant(body: bytes) -> AccountRecord:
    try:
        return read_account(body)
    except WrongShape as fault:
        named = _PLACE.search(str(fault))
    found = decode(_REMNANT, body)
    authorization = bytes(found.authorization)
    return _account_record(
        Account(
            id=found.id,
            status=f"{MALFORMED}: {named.group(1) if named else 'a time'}",
            livemode=found.livemode,
            authorization=_if_readable(_REFERENCE, authorization) if authorization else UNSET,
            account_holder=_if_readable(_HOLDER, bytes(found.account_holder)),
        )
    )


def _if_readable(decoder: msgspec.json.Decoder[_Shape], body: bytes) -> _Shape | None:
    try:
        return decode(decoder, body)
    except (NotJson, WrongShape):
        return None


def _account_number(found: Number) -> AccountNumber:
    return AccountNumber(found.identifier_type, found.status, _moment(found.expected_expiry_date))


def newest_refresh(found: Account) -> int | None:
    """The newest attempt among the refreshes that succeeded, in seconds since 1970."""
    newest = None
    for refresh in (
        found.balance_refresh,
        found.inferred_balances_refresh,
        found.ownership_refresh,
        found.transaction_refresh,
    ):
        if refresh is not None and refresh.status == "succeeded":
            at = refresh.last_attempted_at
            if at is not None and (newest is None or at > newest):
                newest = at
    return newest


def _event_record(found: Event) -> EventRecord:
    about = decode(_EVENT_OBJECT, bytes(found.data.object))
    holder_type, holder_id = holder_of(about.account_holder)
    authorization = reference_of(about.authorization)
    if about.object == "financial_connections.authorization":
        authorization = about.id
    elif about.relink_options:
        authorization = reference_of(about.relink_options.authorization)
    created_at = _moment(found.created)
    if created_at is None:
        raise WrongShape("an event without a creation time")
    return EventRecord(
        event_id=found.id,
        event_type=found.type,
        created_at=created_at,
        object_type=about.object,
        object_id=about.id,
        authorization_id=authorization,
        holder_type=holder_type,
        account_holder_id=holder_id,
        request_idempotency_key=found.request.idempotency_key if isinstance(found.request, EventRequest) else None,
        livemode=found.livemode,
        api_version=found.api_version,
        account=_account_of_event(bytes(found.data.object)) if about.object == ACCOUNT_OBJECT else None,
    )


def _account_of_event(body: bytes) -> AccountRecord | None:
    """The account that an event carries, as it was then and as its version shows it; None where it is not as documented."""
    found = _if_readable(_ACCOUNT, body)
    try:
        return None if found is None else _account_record(found)
    except WrongShape:
        return None


def holder_of(found: Holder | None) -> tuple[str | None, str | None]:
    """Return the name of the field that carries the holder's id, and the id."""
    if found is None:
        return None, None
    if found.type == "account":
        return "account", reference_of(found.account)
    # The newer kind of customer has the type `customer` too and differs in the field that carries its id.
    if found.customer is None and found.customer_account is not None:
        return "customer_account", reference_of(found.customer_account)
    return found.type, reference_of(found.customer)


def reference_of(found: str | Reference | UnsetType | None) -> str | None:
    """Return the id of an object that is named or expanded."""
    if isinstance(found, Reference):
        return found.id
    return None if found is UNSET else found


def _moment(epoch_seconds: int | None) -> datetime | None:
    if epoch_seconds is None:
        return None
    try:
        return datetime.fromtimestamp(epoch_seconds, UTC)
    except (OverflowError, OSError, ValueError):
        pass
    raise WrongShape(f"{epoch_seconds} is no time in seconds since 1970")


def _short(text: str | None) -> str | None:
    if text is None:
        return None
    return mask(" ".join(text.split()))[:_LONGEST_MESSAGE] or None


NO_DETAILS = StatusDetails()
NO_ACTIVE = Active()
NO_INACTIVE = Inactive()
