"""A seeded world of accounts that costs next to nothing to keep: what an account is follows from its number, the seed and the night.

The stand-in of `jobs/simulator` keeps an object for everything and checks all that it is sent, at some 200 microseconds of CPU an account,
several times what our side costs. Here a page is filled into a text made beforehand, so that what is measured is the job and the script
that it is compared with.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

PERMISSION_SETS = (
    ("balances", "ownership", "payment_method", "transactions"),
    ("balances", "payment_method", "transactions"),
    ("balances", "transactions"),
    ("payment_method",),
)
SUBCATEGORIES = ("checking", "savings", "credit_card", "line_of_credit")
INSTITUTIONS = 80
ACCOUNTS_PER_LOGIN = 2
CHANGED_SHARE = 0.003
"""Of the accounts, each night after the first."""

FIRST_NIGHT = datetime(2026, 11, 20, 3, 30, tzinfo=UTC)
_REFRESHED = int(datetime(2026, 11, 18, tzinfo=UTC).timestamp())
_EXPIRES_SOON = int(datetime(2026, 12, 1, tzinfo=UTC).timestamp())
_EXPIRES_LATE = int(datetime(2027, 6, 1, tzinfo=UTC).timestamp())
_FIRST_CREATED = 1_600_000_000

STATES = ("active", "expiring", "expiring_late", "inactive", "inactive_permanent", "disconnected")
_SHARES = (0.78, 0.01, 0.01, 0.15, 0.02, 0.03)
_DETAILS: tuple[dict[str, Any], ...] = (
    {},
    {"active": {"action": "relink_required", "cause": "access_expired", "expected_deactivation_date": _EXPIRES_SOON}},
    {"active": {"action": "relink_required", "cause": "access_expired", "expected_deactivation_date": _EXPIRES_LATE}},
    {"inactive": {"action": "relink_required", "cause": "access_denied"}},
    {"inactive": {"action": "none", "cause": "unspecified"}},
    {},
)


@dataclass(frozen=True, slots=True)
class World:
    """`night` counts from 1; every night after it some logins break and some of the broken ones heal."""

    accounts: int
    seed: int = 1
    night: int = 1

    @property
    def logins(self) -> int:
        """Authorizations, each with the same number of accounts but perhaps the last."""
        return -(-self.accounts // ACCOUNTS_PER_LOGIN)

    def states(self) -> np.ndarray:
        """The state of each login as a position in `STATES`."""
        drawn = np.random.default_rng(self.seed)
        states = drawn.choice(len(STATES), self.logins, p=_SHARES).astype(np.int8)
        for night in range(2, self.night + 1):
            chosen = self.changed_logins(night)
            states[chosen] = np.where(states[chosen] == STATES.index("inactive"), 0, STATES.index("inactive"))
        return states

    def changed_logins(self, night: int) -> np.ndarray:
        """Logins that changed on the day before a night, in order."""
        count = max(1, round(self.logins * CHANGED_SHARE)) if night > 1 else 0
        return np.sort(np.random.default_rng([self.seed, night]).choice(self.logins, count, replace=False))

    def account_id(self, number: int) -> str:
        """Numbers grow with the age of an account, so that the newest is listed first."""
        return f"fca_1Bn{number:017d}"

    def ledger(self) -> pa.Table:
        """The merchant's own list: nearly all accounts, and a few that Stripe does not know; it does not change by night."""
        drawn = np.random.default_rng([self.seed, 1_000_003])
        known = np.flatnonzero(drawn.random(self.accounts) >= 0.005)
        unknown = np.arange(max(1, self.accounts // 200)) + self.accounts
        numbers = np.concatenate([known, unknown])
        rows = len(numbers)
        other_holder = drawn.random(rows) < 0.001
        wanted = drawn.integers(0, len(PERMISSION_SETS) + 1, rows)
        exposed = drawn.random(rows) < 0.7
        amounts = drawn.integers(0, 2_000_000, rows)
        euros = drawn.random(rows) < 0.2
        closed, silent = drawn.random(rows) < 0.02, drawn.random(rows) < 0.003
        required = [*(",".join(names) for names in PERMISSION_SETS), None]
        return pa.table(
            {
                "account_id": pa.array([self.account_id(number) for number in numbers.tolist()]),
                "account_holder_id": pa.array(
                    [
                        holder_id(-1 if moved else number // ACCOUNTS_PER_LOGIN)
                        for number, moved in zip(numbers.tolist(), other_holder.tolist(), strict=True)
                    ]
                ),
                # What is required is mostly what is granted, so that few accounts lack a permission.
                "required_permissions": pa.array(
                    [
                        required[choice] if number % 64 == 0 else required[number // ACCOUNTS_PER_LOGIN % 4]
                        for number, choice in zip(numbers.tolist(), wanted.tolist(), strict=True)
                    ]
                ),
                "purpose": pa.array(["data"] * rows),
                "status": pa.array(["closed" if one else "open" for one in closed.tolist()]),
                "do_not_contact": pa.array(silent),
                "exposure_minor": pa.array(
                    [amount if one else None for amount, one in zip(amounts.tolist(), exposed.tolist(), strict=True)],
                    pa.int64(),
                ),
                "currency": pa.array(
                    [
                        ("EUR" if euro else "USD") if one else None
                        for euro, one in zip(euros.tolist(), exposed.tolist(), strict=True)
                    ]
                ),
                "reference": pa.array([f"LN-{number:08d}" for number in numbers.tolist()]),
            }
        )


def holder_id(login: int) -> str:
    """The customer of a login; of no login, somebody whom Stripe does not name."""
    return "cus_somebody_else" if login < 0 else f"cus_1Bn{login:011d}"


def authorization_id(login: int) -> str:
    """The authorization of a login."""
    return f"fcauth_1Bn{login:017d}"


class Renderer:
    """Account objects and lists of them as Stripe writes them, with what nobody reads too."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._states = world.states().tolist()
        self._texts = {
            (state, kind): _text(state, kind) for state in range(len(STATES)) for kind in range(len(PERMISSION_SETS))
        }

    def account(self, number: int) -> bytes:
        """One account object."""
        login = number // ACCOUNTS_PER_LOGIN
        return self._texts[self._states[login], login % len(PERMISSION_SETS)] % {
            b"number": number,
            b"login": login,
            b"institution": login % INSTITUTIONS,
            b"subcategory": SUBCATEGORIES[number % len(SUBCATEGORIES)].encode(),
            b"last4": number % 10_000,
            b"created": _FIRST_CREATED + number,
        }

    def page(self, numbers: range, has_more: bool) -> bytes:
        """A list of accounts."""
        accounts = b",\n".join(map(self.account, numbers))
        end = b'],\n  "has_more": %s,\n  "object": "list",\n  "url": "/v1/financial_connections/accounts"\n}'
        return b'{\n  "data": [' + accounts + end % (b"true" if has_more else b"false")

    def events(self) -> list[dict[str, Any]]:
        """What happened on the day before this night, newest first."""
        return sorted(self._events(), key=lambda event: (event["created"], event["id"]), reverse=True)

    def _events(self) -> Iterator[dict[str, Any]]:
        night = self.world.night
        if night == 1:
            return
        noon = int(FIRST_NIGHT.timestamp()) + (night - 2) * 86_400 + 43_200
        for place, login in enumerate(self.world.changed_logins(night).tolist()):
            broke = STATES[self._states[login]] == "inactive"
            for number in range(login * ACCOUNTS_PER_LOGIN, min((login + 1) * ACCOUNTS_PER_LOGIN, self.world.accounts)):
                yield {
                    "id": f"evt_1Bn{night:03d}{number:014d}",
                    "object": "event",
                    "api_version": "2025-09-30.clover",
                    "created": noon + place % 3_600,
                    "data": {
                        "object": {"id": self.world.account_id(number), "object": "financial_connections.account"}
                    },
                    "livemode": False,
                    "pending_webhooks": 0,
                    "request": {"id": None, "idempotency_key": None},
                    "type": f"financial_connections.account.{'deactivated' if broke else 'reactivated'}",
                }


def _text(state: int, kind: int) -> bytes:
    """An account object of one state and one set of permissions, with places to fill in; indented, as Stripe sends it."""
    refresh = {"last_attempted_at": _REFRESHED, "next_refresh_available_at": _REFRESHED + 86_400, "status": "succeeded"}
    status = STATES[state]
    value = {
        "id": "fca_1Bn%(number)017d",
        "object": "financial_connections.account",
        "account_holder": {"customer": "cus_1Bn%(login)011d", "type": "customer"},
        "account_numbers": [
            {
                "expected_expiry_date": None,
                "identifier_type": "tokenized_account_number",
                "status": "transactable",
                "supported_networks": ["ach"],
            }
        ],
        "authorization": "fcauth_1Bn%(login)017d",
        "balance": {
            "as_of": _REFRESHED,
            "cash": {"available": {"usd": 1000}},
            "current": {"usd": 1000},
            "type": "cash",
        },
        "balance_refresh": refresh,
        "category": "cash",
        "created": "%(created)d",
        "display_name": "Everyday account",
        "institution": "fcinst_1Bn%(institution)06d",
        "institution_name": "Bank of Town %(institution)d",
        "last4": "%(last4)04d",
        "livemode": False,
        "ownership": None,
        "ownership_refresh": refresh,
        "permissions": list(PERMISSION_SETS[kind]),
        "status": {"expiring": "active", "expiring_late": "active", "inactive_permanent": "inactive"}.get(
            status, status
        ),
        "status_details": _DETAILS[state],
        "subcategory": "%(subcategory)s",
        "subscriptions": ["transactions"],
        "supported_payment_method_types": ["us_bank_account"],
        "transaction_refresh": {"id": "fctxnref_1", **refresh},
    }
    return json.dumps(value, indent=2).replace('"%(created)d"', "%(created)d").encode()
