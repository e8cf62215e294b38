"""The merchant of the forty nights: a ledger that people edit, plans that they release, lost sessions that they find, and weather."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jobs.simulator.draws import Draws
from jobs.simulator.faults import Faults
from jobs.simulator.ledger import LedgerRow, make_ledger
from jobs.simulator.world import World
from tests.jobs.nights import ACCOUNTS, SESSIONS

APPLIED_SHARE = 0.6
"""Of the successors that a report shows, so many are once taken over into the ledger."""

ENTERED_SHARE = 0.7
"""Of the accounts that customers link by themselves, so many get a row of their own."""


@dataclass(slots=True)
class Merchant:
    """The ledger by account id, and what its people still mean to do: rows to write, by night."""

    world: World
    seed: int = 1
    ledger: dict[str, LedgerRow] = field(default_factory=dict)
    applied: int = 0
    _seen: set[str] = field(default_factory=set)
    _meant: dict[int, list[tuple[str, str]]] = field(default_factory=dict)

    def begin(self) -> None:
        """A ledger that agrees with the world but for the faults that ledgers have."""
        for row in make_ledger(self.world, self.seed):
            row["status"] = row["status"] or "open"
            self.ledger[str(row["account_id"])] = row
        self._seen.update(account.id for account in self.world.listing)

    def rows(self) -> list[LedgerRow]:
        """The ledger as it would be loaded."""
        return list(self.ledger.values())

    def edit(self, night: int, successors: Iterable[Mapping[str, Any]]) -> None:
        """A day's edits: successors of earlier reports are taken over or not, new accounts entered, customers silenced, accounts closed."""
        for row in successors:
            old, new = str(row["old_account_id"]), str(row["new_account_id"])
            if old == new or f"{old}>{new}" in self._seen:
                continue
            self._seen.add(f"{old}>{new}")
            draws = Draws(self.seed, "take over", old, new)
            if draws.chance(APPLIED_SHARE):
                self._meant.setdefault(night + draws.word() % 5, []).append((old, new))
        for old, new in self._meant.pop(night, []):
            self._take_over(old, new)
        self._enter_new_accounts()
        self._change_some(night)

    def _take_over(self, old: str, new: str) -> None:
        row = self.ledger.get(old)
        if row is None:
            return
        self.applied += 1
        if new not in self.ledger:
            self.ledger[new] = row | {"account_id": new}
        what = Draws(self.seed, "old row", old).weighted({"closed": 0.5, "removed": 0.3, "left": 0.2})
        if what == "removed":
            del self.ledger[old]
        elif what == "closed":
            self.ledger[old] = row | {"status": "closed"}

    def _enter_new_accounts(self) -> None:
        """Accounts that a customer linked: the application enters most, what a relink made it leaves to whoever reads the report."""
        by_relink = {name for session in self.world.sessions.values() for name in session.account_ids}
        for account in self.world.listing:
            if account.id in self._seen:
                continue
            self._seen.add(account.id)
            if account.id in by_relink or not Draws(self.seed, "enter", account.id).chance(ENTERED_SHARE):
                continue
            self.ledger[account.id] = {
                "account_id": account.id,
                "account_holder_id": account.holder.id,
                "required_permissions": "",
                "purpose": "data",
                "status": "open",
                "do_not_contact": "",
                "exposure_minor": None,
                "currency": None,
                "reference": "",
            }

    def _change_some(self, night: int) -> None:
        """Some rows are closed and some customers silenced each day, most of them where something is broken."""
        for name, row in self.ledger.items():
            account = self.world.accounts.get(name)
            rate = 0.0005 if account is None or account.status == "active" else 0.01
            draws = Draws(self.seed, "change", name, night)
            if draws.chance(rate):
                self.ledger[name] = row | ({"status": "closed"} if draws.chance(0.6) else {"do_not_contact": "yes"})


def weather(faults: Faults, night: int) -> str:
    """Make the faults of a night; returns what is wrong, empty on a calm one. Lost answers and an unreadable list come again and again."""
    kind = {1: "answers lost", 3: "500", 5: "rough", 6: "no list"}.get(night % 9, "")
    if kind == "answers lost":
        faults.script("reset_after", method="POST", path=SESSIONS, times=4)
    elif kind == "500":
        faults.script("error_500_after", method="POST", path=SESSIONS, times=3, skip=1, should_retry=False)
        faults.script("error_500_before", method="POST", path=SESSIONS, times=2, skip=1, should_retry=False)
    elif kind == "rough":
        kinds = ("rate_limit", "lock_timeout", "error_503", "reset_before", "reset_after", "cut_body")
        faults.at_random(0.05, kinds, path="/v1/*")
    elif kind == "no list":
        faults.script("cut_json", method="GET", path=ACCOUNTS, times=500)
    return kind
