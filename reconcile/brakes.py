"""When a night looks like a fault of ours or of a bank, so that a person decides before anybody is contacted."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from reconcile.classify import Flags, flags
from reconcile.errors import DecisionNeeded
from reconcile.frames import values_of
from reconcile.model import AFFECTED, Scope
from reconcile.policy import BrakePolicy

DECISION_HASH_DIGITS = 24
SMALLEST_INSTITUTION = 20
"""Below so many open ledger accounts, a share of an institution says nothing."""


@dataclass(frozen=True, slots=True)
class BrakeInputs:
    """What the brakes compare tonight with.

    `known` were affected at the last complete run that did not hold them, `new_this_week` became so in the six business dates before
    tonight, `released_authorizations` a person let go. `first_run` says that there is nothing to compare with, `live` that customers are real.
    """

    known: Collection[str]
    new_this_week: Collection[str]
    released_authorizations: Collection[str]
    first_run: bool
    live: bool


@dataclass(frozen=True, slots=True)
class BrakeVerdict:
    """Which authorizations are held and why, and which accounts are new; both empty of reasons where no brake holds."""

    held_authorizations: frozenset[str]
    new_accounts: frozenset[str]
    reasons: tuple[str, ...]


def apply_brakes(findings: pd.DataFrame, policy: BrakePolicy, inputs: BrakeInputs) -> BrakeVerdict:
    """Hold what looks like a fault rather than like customers' own outages.

    Args:
        findings: `frames.FINDINGS`.

    Shares are of the open ledger accounts found in Stripe. New is an account that is affected tonight and was not at the last complete run
    that did not hold it, so that what one night holds is still new to the next.
    """
    return judge_brakes(tally_brakes(findings), policy, inputs)


@dataclass(frozen=True, slots=True)
class BrakeTally:
    """What the brakes compare: open ledger accounts found in Stripe, in all and by institution, and the affected ones of them."""

    present: int
    present_by_institution: Mapping[str, int]
    affected: pd.DataFrame

    def __add__(self, other: BrakeTally) -> BrakeTally:
        return BrakeTally(
            self.present + other.present,
            Counter(self.present_by_institution) + Counter(other.present_by_institution),
            pd.concat([self.affected, other.affected], ignore_index=True),
        )


def tally_brakes(findings: pd.DataFrame) -> BrakeTally:
    """Count some accounts; of all accounts it is the sum of their parts."""
    present = flags(findings["in_stripe"]) & flags(findings["ledger_status"] == "open")
    affected = present & flags(findings["finding"].isin([str(kind) for kind in AFFECTED]))
    institutions = findings.loc[present, "institution_name"].dropna().value_counts()
    return BrakeTally(
        int(present.sum()),
        {str(name): int(count) for name, count in institutions.items()},
        findings.loc[affected, ["account_id", "authorization_id", "institution_name"]].reset_index(drop=True),
    )


def judge_brakes(tally: BrakeTally, policy: BrakePolicy, inputs: BrakeInputs) -> BrakeVerdict:
    """Hold what the numbers say, see `apply_brakes`."""
    affected, base = tally.affected, tally.present
    new = ~flags(affected["account_id"].isin(list(inputs.known)))
    new_ids = frozenset(values_of(affected.loc[new, "account_id"]))
    braked = new & ~flags(affected["authorization_id"].isin(list(inputs.released_authorizations)))
    count = int(braked.sum())
    reasons: tuple[str, ...] = ()
    if inputs.first_run and not inputs.released_authorizations:
        if inputs.live and count:
            reasons = ("the first live run holds all its requests",)
        return BrakeVerdict(_authorizations(affected, braked) if reasons else frozenset(), new_ids, reasons)
    if count >= policy.minimum and count > policy.newly_broken_share * base:
        reasons = (
            f"{count} of {base} accounts broke since the last run (newly_broken_share {policy.newly_broken_share:g})",
        )
    week = len({*affected.loc[braked, "account_id"], *inputs.new_this_week})
    if count and week >= policy.minimum and week > policy.newly_broken_share_7d * base:
        reasons += (
            f"{week} of {base} accounts broke within seven days (newly_broken_share_7d {policy.newly_broken_share_7d:g})",
        )
    if reasons:
        return BrakeVerdict(_authorizations(affected, braked), new_ids, reasons)
    held: frozenset[str] = frozenset()
    for institution in sorted(affected.loc[braked, "institution_name"].dropna().unique()):
        here = braked & flags(affected["institution_name"] == institution)
        linked, broken = tally.present_by_institution[institution], int(here.sum())
        if linked >= SMALLEST_INSTITUTION and broken > policy.institution_share * linked:
            held |= _authorizations(affected, here)
            reasons += (
                f"{broken} of {linked} accounts at {institution} broke since the last run (institution_share {policy.institution_share:g})",
            )
    return BrakeVerdict(held, new_ids, reasons)


def _authorizations(findings: pd.DataFrame, wanted: Flags) -> frozenset[str]:
    return frozenset(findings.loc[wanted, "authorization_id"].dropna())


def check_account_drop(
    scope: Scope, previous_ids: Collection[str], vanished: Sequence[str], policy: BrakePolicy, released: str | None
) -> bool:
    """Stop before anything is decided if too many of the last snapshot's accounts are gone.

    Args:
        vanished: ids of the last snapshot that tonight's lacks.
        released: the hash by which a person let a brake go, if one did.

    Returns whether that hash released this very drop.

    Raises:
        DecisionNeeded: naming how many vanished, and the hash that releases just this drop.
    """
    if not vanished:
        return False
    everything = len(vanished) == len(previous_ids)
    if not everything and (len(vanished) < policy.minimum or len(vanished) <= policy.account_drop * len(previous_ids)):
        return False
    digest = decision_hash("account_drop", scope, vanished)
    if released == digest:
        return True
    raise DecisionNeeded(
        f"merchant {scope.merchant}: {len(vanished)} of {len(previous_ids)} accounts of the last snapshot are gone from Stripe "
        f"(brakes.account_drop is {policy.account_drop:g}); the first is {vanished[0]}. Check that the key is the right one; "
        f"if they are really gone, release it with `relink run --override-brakes {digest}`"
    )


def decision_hash(what: str, scope: Scope, items: Sequence[str]) -> str:
    """A hash that stands for exactly these items of one merchant, so that an override cannot release others."""
    text = json.dumps([what, scope.merchant, scope.mode, list(items)], separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:DECISION_HASH_DIGITS]


def may_be_decision_hash(given: str) -> bool:
    """Whether a text is as long as such a hash; that of a held plan is longer."""
    return len(given) == DECISION_HASH_DIGITS
