"""Twins: accounts that may be one and the same at the bank, since a customer linked afresh where a relink was due.

They agree in holder, institution, last four digits and subcategory and stand under different authorizations. Two that ever stood under one
authorization are different accounts, since the bank showed both. Agreement alone proves nothing: a customer may have two accounts whose digits agree.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import combinations, pairwise
from typing import Any

import pandas as pd

from reconcile.classify import flags
from reconcile.frames import HISTORY, check
from reconcile.model import AFFECTED, Finding, Successor
from reconcile.request import Row, plain_rows

TRAITS = ("holder_type", "account_holder_id", "institution_name", "last4", "subcategory")
MATCHED_BY_TWIN = "twin"

SEEN_WITHIN = timedelta(hours=48)
"""A break that a nightly look shows may have come so long before: then the twin may be the older by that much and still be the later one."""

_BROKEN = (Finding.INACTIVE, Finding.INACTIVE_PERMANENT, Finding.DISCONNECTED)
_LIVING = (Finding.OK, Finding.NOT_IN_LEDGER, *AFFECTED)
_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Twins:
    """Successors that are proven, accounts that are not to be asked about, by id with the reason, and those of which a proof is on record that
    does not hold any more, since they worked beside their twin after all.
    """

    successors: tuple[Successor, ...] = ()
    in_review: Mapping[str, str] = field(default_factory=dict)
    withdrawn: frozenset[str] = frozenset()


def accounts_alike(findings: pd.DataFrame, history: pd.DataFrame) -> list[str]:
    """The accounts, by id, whose past decides about twins: those that agree in every trait with another, of customers with something broken.

    Args:
        findings: `frames.FINDINGS`.
        history: `frames.HISTORY`, the newest state of every account ever seen; one that Stripe lists no more is a rival still.
    """
    check(history, HISTORY, "history")
    names = [str(kind) for kind in (*AFFECTED, *_BROKEN)]
    broken = findings.loc[flags(findings["finding"].isin(names)), "account_holder_id"].dropna().unique()
    rows = history.loc[flags(history["account_holder_id"].isin(broken)), ["account_id", *TRAITS]].dropna()
    rows = rows.loc[flags((rows[list(TRAITS)] != "").all(axis=1))]
    alike = rows.loc[rows.duplicated(list(TRAITS), keep=False).to_numpy(dtype=bool), "account_id"]
    return sorted(str(name) for name in alike)


def judge_twins(
    findings: pd.DataFrame,
    history: pd.DataFrame,
    past: pd.DataFrame,
    known: Iterable[Successor] = (),
    named: Collection[str] = (),
) -> Twins:
    """Say which accounts live on as a twin, and which are not to be asked about because another may be the same.

    A broken account lives on as another only where each is the other's only look-alike, the other works, was linked later, and nothing shows
    the old one working since. Of look-alikes of which that cannot be said, only one is asked about: one that works before one that does not, one that
    needs nothing before one that does, then the one linked last. The others are a person's; a row that the ledger closed is in nobody's way.

    Args:
        findings: `frames.FINDINGS`.
        history: `frames.HISTORY`, the newest state of every account ever seen.
        past: `frames.HISTORY`, at least every row of the accounts that `accounts_alike` names.
        known: successors on record.
        named: authorizations that a person named to be asked about: that their accounts may be others' twins is then known.
    """
    alike = accounts_alike(findings, history)
    if not alike:
        return Twins()
    accounts = _accounts(alike, findings, history, past)
    moved = [one for one in known if one.old_account_id != one.new_account_id]
    withdrawn = frozenset(one.old_account_id for one in moved if _is_refuted(one, accounts))
    settled = {one.old_account_id: one.new_account_id for one in moved if one.old_account_id not in withdrawn}
    taken = set(settled.values())
    successors: list[Successor] = []
    in_review: dict[str, str] = {}
    for group in _by_traits(accounts.values()):
        others = _look_alikes([one for one in group if one.account_id not in settled])
        for one in group:
            mine = others.get(one.account_id, [])
            heir = _heir(one, others, taken)
            if heir is not None:
                successors.append(_successor(one, heir))
                continue
            first = max((each for each in mine if each.counts), key=_Account.rank, default=None)
            if one.askable and first is not None and first.rank() > one.rank() and one.authorization_id not in named:
                in_review[one.account_id] = _reason(one, first)
    return Twins(tuple(sorted(successors, key=lambda one: one.old_account_id)), in_review, withdrawn)


@dataclass(frozen=True, slots=True, eq=False)
class _Account:
    """One account as it stands tonight (`row`), with what was ever seen of it, oldest first."""

    row: Row
    past: Sequence[Row]

    @property
    def account_id(self) -> str:
        return str(self.row["account_id"])

    @property
    def authorization_id(self) -> str | None:
        name: str | None = self.row["authorization_id"]
        return name

    @property
    def logins(self) -> set[str]:
        """Every authorization under which it was ever seen."""
        return {row["authorization_id"] for row in (*self.past, self.row)} - {None}

    @property
    def works(self) -> bool:
        return bool(self.row["present"]) and self.row["stripe_status"] == "active"

    @property
    def counts(self) -> bool:
        """Whether it may be asked about in another's place; one that the ledger closed is not in use."""
        return bool(self.row["present"]) and self.row["ledger_status"] != "closed"

    @property
    def askable(self) -> bool:
        return self.row["finding"] in AFFECTED and self.row["ledger_status"] == "open"

    def rank(self) -> tuple[bool, bool, bool, datetime, str]:
        """The highest of several is the one to be asked about, where it needs to be."""
        well = self.works and self.row["finding"] not in AFFECTED
        return self.works, well, self.askable, self.row["created_at"] or _NEVER, self.account_id

    def worked(self) -> list[tuple[datetime, datetime | None]]:
        """When complete snapshots showed it active: from one to before another, the last without an end where it still is."""
        ends = [later["observed_at"] for _, later in pairwise(self.past)]
        return [
            (row["observed_at"], end)
            for row, end in zip(self.past, [*ends, None], strict=True)
            if row["present"] and row["stripe_status"] == "active"
        ]

    def broken_since(self) -> tuple[datetime, bool]:
        """Since when at the latest it has not worked, and whether the job had seen it before that."""
        run: list[Row] = []
        for row in reversed(self.past):
            if row["stripe_status"] == "active":
                break
            run.append(row)
        moments = [row["inactive_since"] or row["observed_at"] for row in run]
        seen_before = len(run) < len(self.past)
        return min(moments), seen_before


def _accounts(
    alike: Sequence[str], findings: pd.DataFrame, history: pd.DataFrame, past: pd.DataFrame
) -> dict[str, _Account]:
    columns = ["account_id", "finding", "cause", "ledger_status", "created_at", "last_refreshed_at"]
    tonight = {
        row["account_id"]: row for row in plain_rows(findings.loc[flags(findings["account_id"].isin(alike)), columns])
    }
    missing: dict[str, Any] = dict.fromkeys(columns)
    seen: dict[str, dict[datetime, Row]] = {}
    latest = plain_rows(history.loc[flags(history["account_id"].isin(alike))])
    for row in (*plain_rows(past.loc[flags(past["account_id"].isin(alike))]), *latest):
        seen.setdefault(row["account_id"], {})[row["observed_at"]] = row
    return {
        row["account_id"]: _Account(
            missing | row | tonight.get(row["account_id"], {}),
            [seen[row["account_id"]][moment] for moment in sorted(seen[row["account_id"]])],
        )
        for row in latest
    }


def _by_traits(accounts: Iterable[_Account]) -> list[list[_Account]]:
    groups: dict[tuple[Any, ...], list[_Account]] = {}
    for one in accounts:
        groups.setdefault(tuple(one.row[name] for name in TRAITS), []).append(one)
    return list(groups.values())


def _look_alikes(group: Sequence[_Account]) -> dict[str, list[_Account]]:
    """The look-alikes of each account of a group, those left out that the bank ever showed together with it."""
    others: dict[str, list[_Account]] = {one.account_id: [] for one in group}
    for one, other in combinations(group, 2):
        if one.logins.isdisjoint(other.logins):
            others[one.account_id].append(other)
            others[other.account_id].append(one)
    return others


def _heir(one: _Account, others: Mapping[str, Sequence[_Account]], taken: Collection[str]) -> _Account | None:
    """The account as which another lives on, one to one or none."""
    mine = others.get(one.account_id, [])
    if len(mine) != 1 or len(others[mine[0].account_id]) != 1 or mine[0].account_id in taken:
        return None
    return mine[0] if _lives_on(one, mine[0]) else None


def _lives_on(old: _Account, new: _Account) -> bool:
    """Whether a new link took the place of an account that had stopped working."""
    fits = old.row["ledger_status"] == "open" and old.row["finding"] in _BROKEN
    fits = fits and new.works and new.counts and new.row["finding"] in _LIVING
    if not fits or old.authorization_id is None or new.authorization_id is None:
        return False
    if old.row["cause"] == "account_closed":  # closed at the bank: no other link shows it again
        return False
    linked_at, created_at = new.row["created_at"], old.row["created_at"]
    if linked_at is None or created_at is None or created_at >= linked_at:
        return False
    refreshed_at = old.row["last_refreshed_at"]
    if (refreshed_at is not None and refreshed_at >= linked_at) or _worked_together(old, new):
        return False
    broken_since, seen_before = old.broken_since()
    # What was broken at the first look may have worked beside the other for long.
    return bool(broken_since <= linked_at or (seen_before and broken_since - linked_at <= SEEN_WITHIN))


def _is_refuted(known: Successor, accounts: Mapping[str, _Account]) -> bool:
    """Whether a twin on record was seen since beside the account whose successor it was told to be."""
    old, new = accounts.get(known.old_account_id), accounts.get(known.new_account_id)
    if known.matched_by != MATCHED_BY_TWIN or old is None or new is None:
        return False
    return _worked_together(old, new) or not old.logins.isdisjoint(new.logins)


def _worked_together(one: _Account, other: _Account) -> bool:
    """Whether a complete snapshot ever showed both active."""
    return any(
        (end is None or other_start < end) and (other_end is None or start < other_end)
        for start, end in one.worked()
        for other_start, other_end in other.worked()
    )


def _successor(old: _Account, new: _Account) -> Successor:
    return Successor(
        old.account_id,
        new.account_id,
        str(old.authorization_id),
        str(new.authorization_id),
        MATCHED_BY_TWIN,
        request_id="",
    )


def _reason(one: _Account, other: _Account) -> str:
    how = "works" if other.works else "is broken too"
    return f"it may be the same account as {other.account_id}, which {how}: same customer, bank, last digits and kind"
