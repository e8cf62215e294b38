"""Simulated objects as Stripe's JSON, by API version.

Sources: Stripe API reference for Financial Connections accounts, authorizations and sessions, and the changelog entries
2025-11-17 (account_numbers), 2026-01-28.preview (relink), 2026-06-24 (status_details.active), 2026-09-30 (number statuses).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import Any

import msgspec

from jobs.simulator.model import (
    CATEGORY_OF,
    Account,
    AccountNumber,
    Authorization,
    Event,
    Holder,
    Institution,
    Session,
)

Json = dict[str, Any]
_VERSION = re.compile(r"(\d{4}-\d{2}-\d{2})(?:\.([a-z]+))?")
_FEATURE_PERMISSION = {"balance": "balances", "ownership": "ownership", "transaction": "transactions"}


@dataclass(frozen=True, slots=True)
class Rendering:
    """What an API version shows."""

    version: str
    relink: bool
    account_numbers: bool
    active_details: bool
    every_number_status: bool


@lru_cache(maxsize=64)
def rendering(version: str) -> Rendering | None:
    """What `version` shows, or None where it is no version at all. Relink is shown by previews since 2026-01-28."""
    match = _VERSION.fullmatch(version)
    if match is None:
        return None
    day, name = match.groups()
    try:
        date.fromisoformat(day)
    except ValueError:
        return None
    return Rendering(
        version=version,
        relink=name == "preview" and day >= "2026-01-28",
        account_numbers=day >= "2025-11-17",
        active_details=day >= "2026-06-24" or (name == "preview" and day >= "2026-01-28"),
        every_number_status=day >= "2026-09-30",
    )


def holder(value: Holder) -> Json:
    """An `account_holder`: only the key that names it, and its type."""
    return {value.kind: value.id, "type": value.type}


def account(item: Account, shown: Rendering, livemode: bool, now: int, overrides: Json | None = None) -> Json:
    """An account; `overrides` replaces raw fields, for worlds that need something Stripe does not document."""
    authorization = item.authorization
    institution = authorization.institution
    body: Json = {
        "id": item.id,
        "object": "financial_connections.account",
        "account_holder": {item.holder.kind: item.holder.id, "type": item.holder.type},
        "balance": None,
        "balance_refresh": last_refresh(item, "balance", now),
        "category": CATEGORY_OF.get(item.subcategory, "other"),
        "created": item.created,
        "display_name": item.subcategory.replace("_", " ").title(),
        "institution_name": institution.name,
        "last4": item.last4,
        "livemode": livemode,
        "ownership": None,
        "ownership_refresh": last_refresh(item, "ownership", now),
        "permissions": list(item.permissions),
        "status": item.status,
        "status_details": _status_details(item, shown),
        "subcategory": item.subcategory,
        "subscriptions": ["transactions"] if item.subscribed else [],
        "supported_payment_method_types": _payment_method_types(item),
        "transaction_refresh": last_refresh(item, "transaction", now),
    }
    if shown.account_numbers:
        body["account_numbers"] = [_account_number(number, shown) for number in item.numbers]
    if shown.relink:
        body["authorization"] = authorization.id
        body["institution"] = institution.id
        body["inferred_balances_refresh"] = None
    if overrides:
        body.update({name: value for name, value in overrides.items() if shown.relink or name in body})
    return body


def authorization(item: Authorization, shown: Rendering, livemode: bool) -> Json:
    """An authorization; it shows neither a cause, nor when it was made, nor its accounts."""
    details: Json = {}
    status = item.status
    if item.status == "active" and (item.active_action != "none" or item.expected_at is not None):
        details["active"] = {"action": item.active_action, "expected_deactivation_date": item.expected_at}
    elif item.status == "inactive":
        details["inactive"] = {"action": item.inactive_action}
    body: Json = {
        "id": item.id,
        "object": "financial_connections.authorization",
        "institution_name": item.institution.name,
        "livemode": livemode,
        "status": status if shown.relink or status != "disconnected" else "inactive",
        "status_details": details,
    }
    if shown.relink:
        body["account_holder"] = holder(item.holder)
        body["institution"] = item.institution.id
    return body


def session(item: Session, accounts: Json, shown: Rendering, livemode: bool) -> Json:
    """A session with its embedded list of accounts. It has no created, metadata or expiry (Stripe API reference)."""
    body: Json = {
        "id": item.id,
        "object": "financial_connections.session",
        "account_holder": holder(item.holder),
        "accounts": accounts,
        "bank_account_token": None,
        "filters": item.filters or None,
        "limits": None if item.account_limit is None else {"accounts": item.account_limit},
        "livemode": livemode,
        "manual_entry": None if item.manual_entry_mode is None else {"mode": item.manual_entry_mode},
        "permissions": list(item.permissions),
        "prefetch": list(item.prefetch),
    }
    if item.return_url is not None:
        body["return_url"] = item.return_url
    if not (shown.relink and item.ui_mode == "hosted"):
        body["client_secret"] = item.client_secret
    if not shown.relink:
        return body
    body["status"] = item.status
    body["status_details"] = {"cancelled": {"reason": item.cancelled_reason}} if item.cancelled_reason else {}
    body["ui_mode"] = item.ui_mode
    body["relink_options"] = None
    body["relink_result"] = None
    if item.authorization_id is not None:
        body["relink_options"] = {"authorization": item.authorization_id}
        if item.account_id is not None:
            body["relink_options"]["account"] = item.account_id
    if item.result is not None:
        body["relink_result"] = {"authorization": None, "failure_reason": None, **item.result}
    if item.ui_mode == "hosted":
        body["hosted"] = {"delivery_method": item.delivery_method, "return_url": item.return_url}
        if item.status == "pending":
            body["url"] = item.url
    return body


def institution(item: Institution, livemode: bool) -> Json:
    """An institution with the features that it supports."""
    payable = item.manner != "unpayable"
    return {
        "id": item.id,
        "object": "financial_connections.institution",
        "countries": ["US"],
        "features": {
            "balances": {"supported": True},
            "ownership": {"supported": True},
            "payment_method": {"supported": payable},
            "transactions": {"supported": True},
        },
        "livemode": livemode,
        "name": item.name,
        "routing_numbers": ["110000000"],
        "status": item.status,
        "url": None,
    }


def event(item: Event, livemode: bool, api_version: str) -> Json:
    """An event, whose object is as it was rendered when the event was made (Stripe API docs: events)."""
    return {
        "id": item.id,
        "object": "event",
        "api_version": api_version,
        "created": item.created,
        "data": {"object": msgspec.Raw(item.payload)},
        "livemode": livemode,
        "pending_webhooks": 0,
        "request": {"id": item.request_id, "idempotency_key": item.idempotency_key},
        "type": item.type,
    }


def page(items: Iterable[Json], has_more: bool, url: str) -> Json:
    """A list page."""
    return {"object": "list", "data": list(items), "has_more": has_more, "url": url}


def encode(body: Json) -> bytes:
    """JSON bytes."""
    return msgspec.json.encode(body)


REFRESH_PAUSE_SECONDS = 3_600


def last_refresh(item: Account, feature: str, now: int) -> Json | None:
    """The last refresh of a feature, null where the account does not grant it or Stripe shows none."""
    if _FEATURE_PERMISSION.get(feature) not in item.permissions:
        return None
    at, status = max(item.refreshed_at, item.refreshed.get(feature, 0)), "succeeded"
    if item.subscribed and item.status == "active":
        # A subscribed account is refreshed once a day, at its own hour.
        at = max(at, now - (now - at) % 86_400)
    if feature in item.refreshing:
        return _with_id(
            item, feature, {"last_attempted_at": now, "next_refresh_available_at": None, "status": "pending"}
        )
    if item.refresh_failed.get(feature, 0) > at:
        at, status = item.refresh_failed[feature], "failed"
    if item.status == "inactive" and feature == "balance":
        # The refresh that noticed the break is the one that failed.
        at, status = item.broken_at, "failed"
    return _with_id(
        item,
        feature,
        {"last_attempted_at": at, "next_refresh_available_at": at + REFRESH_PAUSE_SECONDS, "status": status},
    )


def _with_id(item: Account, feature: str, body: Json) -> Json:
    return {"id": "fctxnref_" + item.id[4:], **body} if feature == "transaction" else body


def _status_details(item: Account, shown: Rendering) -> Json:
    if item.status == "inactive":
        if not shown.relink:
            return {}
        return {"inactive": {"action": item.inactive_action, "cause": item.inactive_cause}}
    if item.status != "active" or not shown.active_details:
        return {}
    if item.active_action == "none" and item.expected_at is None:
        # Stripe shows a healthy account in each of these ways.
        style = ord(item.id[-1]) % 3
        if style == 0:
            return {}
        if style == 1:
            return {"active": {}}
    return {
        "active": {
            "action": item.active_action,
            "cause": item.active_cause or "unspecified",
            "expected_deactivation_date": item.expected_at,
        }
    }


def _account_number(number: AccountNumber, shown: Rendering) -> Json:
    status = number.status
    if not shown.every_number_status and status not in ("transactable", "deactivated"):
        status = "deactivated"
    return {
        "expected_expiry_date": number.expires_at,
        "identifier_type": number.identifier_type,
        "status": status,
        "supported_networks": ["ach"],
    }


def _payment_method_types(item: Account) -> list[str]:
    payable = item.authorization.institution.manner != "unpayable" and item.subcategory in ("checking", "savings")
    return ["link", "us_bank_account"] if payable else []
