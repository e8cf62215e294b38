"""The one call that the application itself makes to Stripe: read a session, for its client secret or its URL.

Give the application a restricted key of its own, which may read Financial Connections sessions and nothing else.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from urllib.parse import quote

API_VERSION = "2026-09-30.preview"


@dataclass(frozen=True)
class WaitingSession:
    """A session as it stands now. What lets somebody use it is kept out of `repr`, and lives only as long as one reply."""

    status: str | None
    holder_id: str | None
    outcome: str
    client_secret: str | None = field(default=None, repr=False)
    url: str | None = field(default=None, repr=False)


class SessionUnavailableError(Exception):
    """Stripe did not show the session; the message holds nothing of the answer."""


class StripeSessions:
    """Reads sessions under one key, and for a connected account where one is named."""

    def __init__(
        self, api_key: str, api_base: str = "https://api.stripe.com", stripe_account: str | None = None
    ) -> None:
        self._headers = {"Authorization": f"Bearer {api_key}", "Stripe-Version": API_VERSION}
        if stripe_account is not None:
            self._headers["Stripe-Account"] = stripe_account
        self._api_base = api_base

    def read(self, session_id: str) -> WaitingSession:
        """The session now; never log or store what this returns."""
        address = f"{self._api_base}/v1/financial_connections/sessions/{quote(session_id, safe='')}"
        request = urllib.request.Request(address, headers=self._headers)  # noqa: S310 (https, or loopback while trying)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310
                body = json.load(answer)
        except (urllib.error.URLError, TimeoutError, ValueError) as error:
            raise SessionUnavailableError(type(error).__name__) from None
        holder = body.get("account_holder") or {}
        return WaitingSession(
            status=body.get("status"),
            holder_id=holder.get(holder.get("type")) or holder.get("customer_account"),
            outcome=outcome_of(body),
            client_secret=body.get("client_secret"),
            url=body.get("url"),
        )


def outcome_of(session: dict[str, object]) -> str:
    """What the customer did, by the branches of Stripe's relink guide; `script.js` has the same for the modal."""
    result, asked = session.get("relink_result"), session.get("relink_options")
    if isinstance(result, dict) and result.get("authorization"):
        same = isinstance(asked, dict) and asked.get("authorization") == result["authorization"]
        return "relinked" if same else "new_authorization"
    if isinstance(result, dict) and result.get("failure_reason"):
        return str(result["failure_reason"])
    return "waiting" if session.get("status") in (None, "pending") else "cancelled"
