"""The merchant's rules as plain values: whom to ask, how often, and when a person must decide."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DeliveryRule:
    """A delivery for the requests that fit everything the rule names; what is None fits all."""

    delivery: str
    merchant: str | None = None
    institution: str | None = None
    customer: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class RelinkPolicy:
    """Who may be asked and how often; days are differences of business dates."""

    delivery: str = "modal"
    delivery_rules: tuple[DeliveryRule, ...] = ()
    return_url: str | None = None
    return_url_parameter: str = "return_url"
    hosted_interval_hours: int = 48
    reasons: tuple[str, ...] = ("inactive", "expiring", "account_number", "permissions")
    causes_to_review: tuple[str, ...] = ()
    expiring_within_days: int = 14
    cooldown_days: int = 4
    max_attempts: int = 4
    pending_days: int = 7
    max_requests_per_run: int = 1000
    max_requests_per_institution: int | None = None
    allow_widening: bool = True
    narrow_to_subcategories: bool = False
    payments_account: str = "same"
    require_payment_method_support: str | None = None


@dataclass(frozen=True, slots=True)
class BrakePolicy:
    """Shares above which a night looks like a fault of ours or of a bank rather than of many customers."""

    minimum: int = 25
    newly_broken_share: float = 0.05
    newly_broken_share_7d: float = 0.10
    institution_share: float = 0.20
    account_drop: float = 0.02
