"""The merchant's rules as plain values: whom to ask, how often, and when a person must decide."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, time


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
    """Who may be asked and how often; days are differences of business dates.

    `ladder_days`, where set, are the days of an outage on which its attempts are due, and take the place of `cooldown_days` and
    `pending_days`. The quiet days leave a customer alone about a bank that they withdrew from.
    """

    delivery: str = "modal"
    delivery_rules: tuple[DeliveryRule, ...] = ()
    return_url: str | None = None
    return_url_parameter: str = "return_url"
    hosted_interval_hours: int = 48
    reasons: tuple[str, ...] = ("inactive", "expiring", "account_number", "permissions")
    causes_to_review: tuple[str, ...] = ()
    expiring_within_days: int = 14
    ladder_days: tuple[int, ...] | None = None
    cooldown_days: int = 4
    max_attempts: int = 4
    pending_days: int = 7
    quiet_days_after_disconnected: int = 0
    quiet_days_after_access_denied: int = 0
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


WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
"""In the order of `date.weekday`."""


@dataclass(frozen=True, slots=True)
class QuietTimes:
    """When nobody is contacted, in local time; `hours` may pass midnight, and its end does not belong to it.

    A date is `YYYY-MM-DD`, or `MM-DD` for every year.
    """

    weekdays: Collection[str] = ()
    dates: Collection[str] = ()
    hours: tuple[time, time] | None = None

    def why_quiet(self, local: datetime) -> str | None:
        """What makes a local moment quiet, in words; None where contacts are allowed."""
        day = local.date()
        if WEEKDAYS[day.weekday()] in self.weekdays:
            return f"quiet weekday {WEEKDAYS[day.weekday()]}"
        if day.isoformat() in self.dates or day.isoformat()[5:] in self.dates:
            return f"quiet date {day.isoformat()}"
        if self.hours is None:
            return None
        start, end = self.hours
        clock = local.time()
        within = start <= clock < end if start < end else clock >= start or clock < end
        return f"quiet hours {start:%H:%M} to {end:%H:%M}" if within else None
