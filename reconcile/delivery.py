"""How each customer comes to a session, and when Stripe would refuse to let its own pages be used again."""

from __future__ import annotations

from datetime import datetime, timedelta

from reconcile.model import RelinkRequest, State, StoredRequest
from reconcile.policy import RelinkPolicy

MODAL, HOSTED_URL, HOSTED_EMAIL = "modal", "hosted_url", "hosted_email"

DELIVERY_METHODS = {HOSTED_URL: "url", HOSTED_EMAIL: "email"}
"""What each hosted delivery is called in `hosted[delivery_method]` (Stripe API: financial_connections sessions create)."""

INSTITUTION_UNAVAILABLE = "financial_connections_institution_unavailable"
"""Stripe's error code where the bank itself cannot be reached at present (Stripe docs: error codes)."""

UNAVAILABLE_LIMIT = 3
"""So many such refusals in a run and the institution is left alone until the next business date."""


def delivery_of(policy: RelinkPolicy, *, merchant: str, institution: str | None, customer: str, reason: str) -> str:
    """The delivery of the first rule that fits, else the policy's own."""
    for rule in policy.delivery_rules:
        fits = (
            rule.merchant in (None, merchant)
            and rule.institution in (None, institution)
            and rule.customer in (None, customer)
            and rule.reason in (None, reason)
        )
        if fits:
            return rule.delivery
    return policy.delivery


def hosted_parameters(request: RelinkRequest, policy: RelinkPolicy) -> dict[str, object]:
    """What of a session's body depends on the delivery.

    Stripe's reference calls `hosted[return_url]` required in what it answers and lists only `return_url` among what it takes; which
    of the two a hosted session needs is `return_url_parameter`.
    """
    parameters: dict[str, object] = {}
    method = DELIVERY_METHODS.get(request.delivery)
    if method is not None:
        hosted: dict[str, object] = {"delivery_method": method}
        parameters = {"ui_mode": "hosted", "hosted": hosted}
        if request.return_url is not None and policy.return_url_parameter == "hosted[return_url]":
            hosted["return_url"] = request.return_url
            return parameters
    if request.return_url is not None:
        parameters["return_url"] = request.return_url
    return parameters


def hosted_request_at(stored: StoredRequest) -> datetime | None:
    """When Stripe was asked to use its own page or mail, where that still stands in the way of another such request.

    One that was completed does not (Stripe docs: hosted relink, eligibility), and neither does one that Stripe refused.
    """
    if stored.request.delivery not in DELIVERY_METHODS or stored.session_status == "succeeded":
        return None
    if stored.state in (State.PLANNED, State.NOT_SENT, State.REJECTED):
        return None
    return stored.requested_at or stored.attempting_at


def hosted_too_soon(last: datetime | None, now: datetime, policy: RelinkPolicy) -> bool:
    """Whether Stripe would refuse another hosted request, since the last one was too short a time ago."""
    return last is not None and now - last < timedelta(hours=policy.hosted_interval_hours)


def refused_as_unavailable(stored: StoredRequest) -> bool:
    """Whether Stripe refused because the bank could not be reached: nobody was asked, and no customer is at fault."""
    return stored.state == State.REJECTED and stored.error_code == INSTITUTION_UNAVAILABLE
