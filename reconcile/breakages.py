"""When an outage of an authorization begins and ends, so that nobody is asked twice about the same one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from reconcile.classify import flags
from reconcile.model import AFFECTED, KIND_OF_FINDING, Breakage, BreakageKey, Finding, RunStamp
from reconcile.normalize import split_words
from reconcile.request import plain_rows


@dataclass(frozen=True, slots=True)
class BreakageStep:
    """What one complete snapshot does to the breakages: those it opens, those it closes and why, and those open after it."""

    opened: tuple[Breakage, ...]
    closed: tuple[tuple[BreakageKey, str], ...]
    open: tuple[Breakage, ...]


@dataclass(frozen=True, slots=True)
class ShownKinds:
    """(authorization, kind) pairs that are broken, that linger and that are closed in the ledger; authorizations with a replaced account."""

    broken: frozenset[tuple[str, str]] = frozenset()
    lingering: frozenset[tuple[str, str]] = frozenset()
    closed: frozenset[tuple[str, str]] = frozenset()
    replaced: frozenset[str] = frozenset()

    def __or__(self, other: ShownKinds) -> ShownKinds:
        return ShownKinds(
            self.broken | other.broken,
            self.lingering | other.lingering,
            self.closed | other.closed,
            self.replaced | other.replaced,
        )


def advance_breakages(
    open_breakages: Sequence[Breakage],
    highest_numbers: Mapping[tuple[str, str], int],
    findings: pd.DataFrame,
    replaced_accounts: Collection[str],
    stamp: RunStamp,
) -> BreakageStep:
    """Open and close breakages by what a complete snapshot shows.

    A breakage opens with an affected account whose ledger row is open. It stays open while Stripe still shows its kind on an
    account that is merely misfiled (unledgered, wrong holder) or unreadable tonight: otherwise one bad ledger would close every outage,
    and the next good one would ask each customer again as if for the first time.

    Args:
        highest_numbers: the highest breakage number ever given, by (authorization id, kind).
        findings: `frames.FINDINGS`.
        replaced_accounts: accounts that have a matched successor under another authorization.
    """
    return step_breakages(open_breakages, highest_numbers, shown_kinds(findings, replaced_accounts), stamp)


def shown_kinds(findings: pd.DataFrame, replaced_accounts: Collection[str]) -> ShownKinds:
    """What some accounts show; of all accounts it is what their parts show together."""
    moved = flags(findings["account_id"].isin(list(replaced_accounts)))
    return ShownKinds(*_kinds(findings, replaced_accounts), frozenset(findings.loc[moved, "authorization_id"].dropna()))


def step_breakages(
    open_breakages: Sequence[Breakage],
    highest_numbers: Mapping[tuple[str, str], int],
    shown: ShownKinds,
    stamp: RunStamp,
) -> BreakageStep:
    """Open and close breakages by what all accounts show, see `advance_breakages`."""
    broken, lingering, closed_in_ledger, replaced = shown.broken, shown.lingering, shown.closed, shown.replaced
    still_open = {breakage.key for breakage in open_breakages}
    covered = {(key.authorization_id, key.kind) for key in still_open}
    opened = tuple(
        Breakage(
            key=BreakageKey(authorization_id, kind, highest_numbers.get((authorization_id, kind), 0) + 1),
            opened_at=stamp.as_of,
            opened_date=stamp.business_date,
            opened_run_id=stamp.run_id,
        )
        for authorization_id, kind in sorted(broken - covered)
    )
    closed: list[tuple[BreakageKey, str]] = []
    kept: list[Breakage] = []
    for breakage in open_breakages:
        pair = (breakage.key.authorization_id, breakage.key.kind)
        if pair in broken or pair in lingering:
            kept.append(breakage)
        elif breakage.key.authorization_id in replaced:
            closed.append((breakage.key, "replaced"))
        elif pair in closed_in_ledger:
            closed.append((breakage.key, "ledger_closed"))
        else:
            closed.append((breakage.key, "cured"))
    return BreakageStep(opened=opened, closed=tuple(closed), open=(*kept, *opened))


Pairs = set[tuple[str, str]]
FrozenPairs = frozenset[tuple[str, str]]


def _kinds(findings: pd.DataFrame, replaced_accounts: Collection[str]) -> tuple[FrozenPairs, FrozenPairs, FrozenPairs]:
    """(authorization, kind) pairs that are affected, that linger, and that are closed in the ledger; replaced accounts left out."""
    broken: Pairs = set()
    lingering: Pairs = set()
    closed_in_ledger: Pairs = set()
    shown = findings["finding"].isin([str(kind) for kind in AFFECTED]) | (findings["also"] != "")
    shown |= findings["finding"] == str(Finding.UNREADABLE)
    columns = ["account_id", "authorization_id", "finding", "also", "ledger_status"]
    rows = plain_rows(findings.loc[flags(shown & findings["authorization_id"].notna()), columns])
    successors = set(replaced_accounts)
    for account_id, authorization_id, finding, also, ledger_status in (row.values() for row in rows):
        kinds = {str(KIND_OF_FINDING[name]) for name in (finding, *split_words(also)) if name in KIND_OF_FINDING}
        if finding == Finding.UNREADABLE:
            kinds = {str(kind) for kind in KIND_OF_FINDING.values()}
        pairs = {(authorization_id, kind) for kind in kinds}
        if account_id in successors or finding in (Finding.DISCONNECTED, Finding.INACTIVE_PERMANENT):
            continue
        if ledger_status == "closed":
            closed_in_ledger |= pairs
        elif finding in AFFECTED:
            broken |= pairs
        else:
            lingering |= pairs
    return frozenset(broken), frozenset(lingering), frozenset(closed_in_ledger)
