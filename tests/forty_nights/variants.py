"""Designs that look right and are not, put in place of the product's, to show that the judge of the forty nights would notice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from jobs import collect, send
from reconcile import outcomes, plan
from reconcile.model import NextStep, State, StoredRequest, Successor
from reconcile.outcomes import AccountStates


def _no_step_due(*_: Any) -> None:
    return None


def _no_end(*_: Any) -> int:
    return 99


def _no_gap(*_: Any) -> int:
    return 0


def _by_last_digits(
    stored: StoredRequest, new_authorization_id: str, seen: AccountStates
) -> tuple[list[Successor], bool]:
    """The first account under the new authorization with the same last digits, whatever its kind and whoever else has them."""
    found = []
    for account in stored.request.covered:
        for name, row in sorted(seen.items()):
            if row["authorization_id"] == new_authorization_id and row["last4"] == account.last4:
                found.append(
                    Successor(
                        account.account_id,
                        name,
                        stored.authorization_id,
                        new_authorization_id,
                        "attributes",
                        stored.request.request_id,
                    )
                )
                break
    return found, False


def _nothing_concluded(*_: Any, **__: Any) -> None:
    return None


def _free_to_ask_again(*_: Any, **__: Any) -> State:
    return State.NOT_SENT


_standing_step = plan._standing_step


def _waiting_is_off(*arguments: Any) -> tuple[NextStep, str] | None:
    step = _standing_step(*arguments)
    return (NextStep.REASON_OFF, "") if step is not None and step[0] == NextStep.COOLDOWN else step


@dataclass(frozen=True, slots=True)
class Variant:
    """A wrong design: what it replaces, and words of a fault that tells of it."""

    replaces: tuple[tuple[Any, str, Callable[..., Any]], ...]
    telling: str


VARIANTS = {
    "ladder-without-days": Variant(((plan, "step_due", _no_step_due),), "came on day"),
    "ladder-without-end": Variant(((plan, "most_attempts", _no_end),), "times in one outage"),
    "each-bank-for-itself": Variant(((plan, "contact_gap_days", _no_gap),), "days after"),
    "successors-by-last-digits": Variant(((outcomes, "match_successors", _by_last_digits),), "is said to live on as"),
    "answers-unread": Variant(((collect, "conclude", _nothing_concluded),), "its outcome is None"),
    "lost-answers-forgotten": Variant(((send, "state_after", _free_to_ask_again),), "is in no record"),
    "waiting-is-nobodys": Variant(((plan, "_standing_step", _waiting_is_off),), "is broken and its accounts have"),
}


def install(name: str, patch: pytest.MonkeyPatch) -> None:
    """Put a wrong design in place until the patch is undone."""
    for owner, attribute, replacement in VARIANTS[name].replaces:
        patch.setattr(owner, attribute, replacement)
