"""The recorded states of accounts, told as what changed from one to the next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jobs.event_line import Event, minute

_TOLD = {
    "authorization_id": "authorization",
    "account_holder_id": "holder",
    "institution_name": "bank",
    "last4": "last digits",
    "subcategory": "kind",
    "action": "action",
    "cause": "cause",
    "permissions": "permissions",
    "expected_deactivation_at": "expected to go inactive",
    "number_state": "account number",
}
"""Recorded fields with their names for people; status and presence are told apart from them."""

_SINCE = {
    "event": "since {} by Stripe's event",
    "observed": "since {} at the latest, when it was first seen so",
    "first_run": "since {} at least, when this job first looked",
}
"""How exact `inactive_since` is, by its basis."""


def account_events(merchant: str, states: Sequence[Mapping[str, Any]]) -> Iterator[Event]:
    """An event for each state of each account. `states` are rows of `frames.HISTORY` by account and time, null as None,
    times as aware datetimes."""
    before: Mapping[str, Any] | None = None
    for state in states:
        if before is not None and before["account_id"] != state["account_id"]:
            before = None
        text = _first(state) if before is None else _change(before, state)
        yield Event(
            state["observed_at"],
            merchant,
            "account",
            f"account {state['account_id']} {text}",
            account_id=state["account_id"],
            authorization_id=state["authorization_id"],
            account_holder_id=state["account_holder_id"],
        )
        before = state


def _first(state: Mapping[str, Any]) -> str:
    parts = [f"first seen: {_status(state)}"]
    bank = [state["institution_name"], state["subcategory"], f"ending in {state['last4']}" if state["last4"] else None]
    told = ", ".join(part for part in bank if part)
    if told:
        parts.append(told)
    parts.append(f"authorization {state['authorization_id'] or 'none'}")
    parts.append(f"holder {state['account_holder_id'] or 'none'}")
    return "; ".join(parts)


def _change(before: Mapping[str, Any], state: Mapping[str, Any]) -> str:
    if before["present"] and not state["present"]:
        return "is no longer listed by Stripe"
    parts = []
    if state["present"] and not before["present"]:
        parts.append("is listed by Stripe again")
    if before["stripe_status"] != state["stripe_status"]:
        parts.append(f"became {_status(state)}, after it was {before['stripe_status'] or 'without a status'}")
    elif before["inactive_since"] != state["inactive_since"]:
        parts.append(f"is {_status(state)}")
    skipped = {"action", "cause"} if parts and state["stripe_status"] != before["stripe_status"] else set()
    for name, told in _TOLD.items():
        if name not in skipped and before[name] != state[name]:
            parts.append(f"{told} changed from {_value(before[name])} to {_value(state[name])}")
    return "; ".join(parts) or "was recorded again"


def _status(state: Mapping[str, Any]) -> str:
    status = str(state["stripe_status"] or "without a status")
    why = [f"{name} {state[name]}" for name in ("cause", "action") if state[name]]
    told = f"{status} ({', '.join(why)})" if why else status
    if state["inactive_since"] is not None:
        told += " " + _SINCE.get(state["inactive_since_basis"], "since {}").format(minute(state["inactive_since"]))
    if state["expected_deactivation_at"] is not None:
        told += f", expected to go inactive on {minute(state['expected_deactivation_at'])}"
    return told


def _value(value: Any) -> str:
    if value is None or value == "":
        return "none"
    return minute(value) if hasattr(value, "isoformat") else str(value)
