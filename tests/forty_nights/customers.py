"""What customers do between two nights: they answer in every way there is, link afresh where a relink was due, or do nothing at all."""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime

from jobs.handover import Handover, OfferEndedError
from jobs.simulator.draws import Draws
from jobs.simulator.model import Account, Authorization, Session
from jobs.simulator.world import World

ANSWERS = {
    "whole": 0.36,
    "partial": 0.09,
    "other_accounts": 0.05,
    "new_authorization": 0.10,
    "new_authorization_part": 0.03,
    "new_authorization_others": 0.04,
    "new_authorization_unclear": 0.03,
    "fresh_link": 0.06,
    "no_account": 0.03,
    "no_authorization": 0.06,
    "other": 0.02,
    "failed": 0.02,
    "cancelled": 0.04,
    "succeeded_without_result": 0.01,
    "never": 0.06,
}
"""What a customer who looks at a session does with it. Of all customers every eighth ignores whatever comes."""

IGNORES_SHARE = 1 / 8
HOUR_SECONDS = 3600


@dataclass(order=True, slots=True)
class Deed:
    """What a customer does at a moment: open a session in the merchant's application, or answer it."""

    at: int
    session_id: str
    answers: bool


@dataclass(slots=True)
class Customers:
    """The customers of a world. `handed_over` are the sessions whose customer was at them, `moved` the accounts that kept their id
    under a new authorization, `fresh_links` those that were linked anew, by what they replace.
    """

    world: World
    handover: Handover
    seed: int = 1
    handed_over: set[str] = field(default_factory=set)
    moved: dict[str, set[str]] = field(default_factory=dict)
    fresh_links: dict[str, str] = field(default_factory=dict)
    done: Counter[str] = field(default_factory=Counter)
    _known: set[str] = field(default_factory=set)
    _agenda: list[Deed] = field(default_factory=list)

    def live_until(self, at: datetime) -> None:
        """Let time pass up to `at`, with whatever customers do meanwhile in its order."""
        for session in self.world.sessions.values():
            if session.id not in self._known:
                self._known.add(session.id)
                self._intend(session)
        while self._agenda and self._agenda[0].at <= at.timestamp():
            deed = heapq.heappop(self._agenda)
            self.world.advance_to(max(self.world.now_at, datetime.fromtimestamp(deed.at, UTC)))
            session = self.world.sessions[deed.session_id]
            if session.status != "pending":
                continue
            if deed.answers:
                self._answer(session)
            else:
                self._open(session)
        self.world.advance_to(at)

    def _draws(self, session: Session, purpose: str) -> Draws:
        return Draws(self.seed, purpose, session.authorization_id, session.attempt)

    def _intend(self, session: Session) -> None:
        if Draws(self.seed, "temper", session.holder.id).chance(IGNORES_SHARE):
            self.done["ignored"] += 1
            return
        draws = self._draws(session, "when")
        opened = session.created + int(draws.between(0.5, 22) * HOUR_SECONDS)
        mark = draws.unit()
        waits = (
            draws.between(170, 480) if mark < 0.06 else draws.between(24, 140) if mark < 0.2 else draws.between(0, 2)
        )
        if (
            mark > 0.9
        ):  # looked at only when it is long in the application, or never, since that customer does not come by
            opened += int(draws.between(1, 12) * 24 * HOUR_SECONDS)
        heapq.heappush(self._agenda, Deed(opened, session.id, answers=False))
        heapq.heappush(self._agenda, Deed(opened + 60 + int(waits * HOUR_SECONDS), session.id, answers=True))

    def _open(self, session: Session) -> None:
        """Come by the merchant's application, which hands over what waits; Stripe's own mail needs no application."""
        if session.delivery_method == "email":
            self.handed_over.add(session.id)
            return
        offer = self.handover.offer_for("main", session.holder.id)
        if offer is None or offer.session_id != session.id:
            self.done["not offered any more"] += 1
            return
        try:
            self.handover.offered(offer)
        except OfferEndedError:
            return
        self.handed_over.add(session.id)

    def _answer(self, session: Session) -> None:
        if session.id not in self.handed_over or session.authorization_id is None:
            return
        how = self._draws(session, "answer").weighted(ANSWERS)
        old = self.world.authorizations[session.authorization_id]
        if how == "fresh_link":
            self._link_afresh(old)
        elif how == "other_accounts":
            how = self._choose_others(session, old)
        elif how.startswith("new_authorization"):
            self._come_back_anew(session, old, how)
        elif how != "never":
            self.world.answer(session.id, how)
        self.done[how] += 1

    def _choose_others(self, session: Session, old: Authorization) -> str:
        """Choose accounts at the bank that were not the broken ones."""
        others = [one.id for one in old.accounts if one.is_relinkable and one.status == "active"]
        if not others or session.account_limit is not None:
            self.world.answer(session.id, "no_account")
            return "no_account"
        self.world.answer(session.id, "partial", accounts=others)
        return "other_accounts"

    def _come_back_anew(self, session: Session, old: Authorization, how: str) -> None:
        """Log in anew: with the same accounts, some of them, others, or so that nobody can tell which is which."""
        draws = self._draws(session, "anew")
        before = list(old.accounts)
        chosen: list[str] | None = None
        if how == "new_authorization_part":
            possible = [one.id for one in before if one.is_relinkable]
            chosen = draws.subset(possible, max(1, len(possible) // 2)) if possible else None
        elif how == "new_authorization_others":
            chosen = []
        self.world.answer(session.id, "new_authorization", chosen, ambiguous=how == "new_authorization_unclear")
        new = self.world.authorizations.get((session.result or {}).get("authorization", ""))
        if new is None or new is old:
            return
        for account in before:
            if account.authorization is new:
                self.moved.setdefault(account.id, set()).add(new.id)
        if how == "new_authorization_others":
            self._add_lookalikes(session, new, before)

    def _add_lookalikes(self, session: Session, new: Authorization, before: list[Account]) -> None:
        """Other accounts of the same customer at the same bank: one shares the digits of a broken account, though not its kind."""
        like = before[0]
        other_kind = "savings" if like.subcategory != "savings" else "checking"
        made = [
            self.world.add_account(new.id, last4=like.last4, subcategory=other_kind, permissions=like.permissions),
            self.world.add_account(new.id, subcategory=like.subcategory, permissions=like.permissions),
        ]
        self._announce(made)
        session.account_ids = tuple(account.id for account in made)

    def _link_afresh(self, old: Authorization) -> None:
        """Link the bank once more, as a new customer would, and leave the session unanswered."""
        chosen = [account for account in old.accounts if account.is_relinkable]
        new = self.world.add_authorization((old.holder.kind, old.holder.id), old.institution.name, 0)
        for account in chosen:
            made = self.world.add_account(
                new.id, last4=account.last4, subcategory=account.subcategory, permissions=account.permissions
            )
            self.world.lives_on.setdefault(account.id, []).append(made.id)
            self.fresh_links[made.id] = account.id
            self._announce([made])

    def _announce(self, accounts: list[Account]) -> None:
        with self.world.lock:
            for account in accounts:
                self.world.emit("account.created", account)
