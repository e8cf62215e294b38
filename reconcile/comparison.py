"""Which accounts came back by a session besides those that were asked about: states before the request laid beside those after it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from reconcile.model import StoredRequest
from reconcile.records import SessionRecord

PastStates = Mapping[str, Sequence[Mapping[str, Any]]]
"""Rows of the account history (`frames.HISTORY` columns) by account id, oldest first."""


def accounts_reached(session: SessionRecord, tonight: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """Ids of the accounts that a session linked or that stand under the authorization it led to.

    Relinking one account may bring its siblings back, which the session does not list (Stripe's guide to relinking accounts used
    for data products).
    """
    linked = {account.account_id for account in session.accounts}
    led_to = session.result_authorization
    return linked | {name for name, row in tonight.items() if led_to is not None and row["authorization_id"] == led_to}


def others_cured(
    stored: StoredRequest,
    session: SessionRecord,
    seen: Mapping[str, Mapping[str, Any]],
    past: PastStates,
    successors: Collection[str] = (),
) -> tuple[str, ...]:
    """Ids of the accounts that work now by this session and were not covered by its request, sorted.

    One that was healthy when the customer was asked is none of them, and so is one of which nobody knows how it was; one that was made since
    is.

    Args:
        seen: the accounts after it, by id (`frames.ACCOUNTS` columns), the session's own included.
        successors: ids of accounts that carry covered ones on.
    """
    own = {account.account_id for account in stored.request.covered} | set(successors)
    asked_at = stored.requested_at or stored.attempting_at or stored.planned_at
    return tuple(
        name
        for name in sorted(accounts_reached(session, seen) - own)
        if name in seen and _works(seen[name]) and _was_broken(seen[name], past.get(name, ()), asked_at)
    )


def _works(row: Mapping[str, Any]) -> bool:
    return bool(row["stripe_status"] == "active" and row["active_action"] != "relink_required")


def _was_broken(row: Mapping[str, Any], states: Sequence[Mapping[str, Any]], asked_at: datetime) -> bool:
    before = [state for state in states if state["observed_at"] <= asked_at]
    if before:
        return bool(before[-1]["stripe_status"] != "active" or before[-1]["action"] == "relink_required")
    # Stripe's times are whole seconds, so one made in the second of the request is of it.
    made_at: datetime | None = row["created_at"]
    return made_at is not None and made_at >= asked_at.replace(microsecond=0)
