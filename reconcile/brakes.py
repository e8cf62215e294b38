"""When a night looks like a fault of ours or of a bank, so that a person decides before anybody is contacted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence

from reconcile.errors import DecisionNeeded
from reconcile.model import Scope
from reconcile.policy import BrakePolicy


def check_account_drop(
    scope: Scope, previous_ids: Collection[str], vanished: Sequence[str], policy: BrakePolicy, released: str | None
) -> None:
    """Stop before anything is decided if too many of the last snapshot's accounts are gone.

    Args:
        vanished: ids of the last snapshot that tonight's lacks.
        released: the hash by which a person let a brake go, if one did.

    Raises:
        DecisionNeeded: naming how many vanished, and the hash that releases just this drop.
    """
    if not vanished:
        return
    everything = len(vanished) == len(previous_ids)
    if not everything and (len(vanished) < policy.minimum or len(vanished) <= policy.account_drop * len(previous_ids)):
        return
    digest = decision_hash("account_drop", scope, vanished)
    if released == digest:
        return
    raise DecisionNeeded(
        f"merchant {scope.merchant}: {len(vanished)} of {len(previous_ids)} accounts of the last snapshot are gone from Stripe "
        f"(brakes.account_drop is {policy.account_drop:g}); the first is {vanished[0]}. Check that the key is the right one; "
        f"if they are really gone, release it with `relink run --override-brakes {digest}`"
    )


def decision_hash(what: str, scope: Scope, items: Sequence[object]) -> str:
    """A hash that stands for exactly these items of one merchant, so that an override cannot release others."""
    text = json.dumps([what, scope.merchant, scope.mode, list(items)], separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:24]
