"""What is true in the world, stated without the product: which accounts are broken, whom nobody may contact, which account lives on as which."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

from jobs.simulator.model import Account
from jobs.simulator.world import World

EXPIRING_WITHIN_DAYS = 14
LedgerRow = Mapping[str, Any]


@dataclass(slots=True)
class Truth:
    """One night's truth: the accounts whose customer should be asked, with the kind of their outage, by authorization.

    `broken` also counts accounts that nobody may be asked about, such as those of a customer who must not be contacted.
    """

    today: date
    askable: dict[str, dict[str, str]] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    affected: int = 0
    working: set[str] = field(default_factory=set)
    silenced: set[str] = field(default_factory=set)


def look(world: World, ledger: Mapping[str, LedgerRow]) -> Truth:
    """The truth at this moment, as the ledger's rows have it."""
    truth = Truth(world.now_at.date())
    truth.silenced = {str(row["account_holder_id"]) for row in ledger.values() if _is_yes(row["do_not_contact"])}
    for account in world.listing:
        row = ledger.get(account.id)
        kind = None if row is None else _kind(account, row, truth.today)
        if account.status == "active" and kind is None:
            truth.working.add(account.id)
        if row is None or kind is None or row["account_holder_id"] != account.holder.id:
            continue
        truth.affected += 1
        if row["status"] == "closed":
            continue
        truth.broken[account.id] = kind
        if account.holder.id not in truth.silenced:
            truth.askable.setdefault(account.authorization.id, {})[account.id] = kind
    return truth


def _kind(account: Account, row: LedgerRow, today: date) -> str | None:
    """The outage that an account is part of: the first that holds of inactive, dead numbers, announced end, missing permissions."""
    if account.status == "disconnected":
        return None
    if account.status == "inactive":
        return None if account.inactive_action == "none" else "connection"
    if row["purpose"] == "payments" and not _has_usable_number(account, today):
        return "account_number"
    if account.active_action == "relink_required" and (
        account.expected_at is None or _days_until(account.expected_at, today) <= EXPIRING_WITHIN_DAYS
    ):
        return "connection"
    needed = {name for name in str(row["required_permissions"]).split(",") if name}
    return None if needed <= set(account.permissions) else "permissions"


def _has_usable_number(account: Account, today: date) -> bool:
    numbers = [one for one in account.numbers if one.identifier_type == "tokenized_account_number"]
    return not numbers or any(
        one.status in ("transactable", "pending")
        and (one.expires_at is None or _days_until(one.expires_at, today) > EXPIRING_WITHIN_DAYS)
        for one in numbers
    )


def _days_until(at: int, today: date) -> int:
    return (datetime.fromtimestamp(at, UTC).date() - today).days


def _is_yes(cell: object) -> bool:
    return cell in ("true", "yes", "1")


@dataclass(frozen=True, slots=True)
class Successors:
    """Which account lives on as which: the accounts that replaced each one, by the authorization under which they did."""

    by_old: Mapping[str, Mapping[str, frozenset[str]]]

    def is_true(self, old: str, new: str, new_authorization: str) -> bool:
        """Whether `new` replaced `old`, and nothing else under its authorization did, so that to say so is no guess."""
        return self.by_old.get(old, {}).get(new_authorization, frozenset()) == {new}


def successors_of(world: World, moved: Mapping[str, set[str]]) -> Successors:
    """The truth about successors.

    Args:
        moved: accounts that kept their id, with the authorizations to which they moved.
    """
    found: dict[str, dict[str, set[str]]] = {}
    for old, copies in world.lives_on.items():
        for new in copies:
            found.setdefault(old, {}).setdefault(world.accounts[new].authorization.id, set()).add(new)
    for account_id, authorizations in moved.items():
        for authorization_id in authorizations:
            found.setdefault(account_id, {}).setdefault(authorization_id, set()).add(account_id)
    return Successors({old: {name: frozenset(ids) for name, ids in under.items()} for old, under in found.items()})
