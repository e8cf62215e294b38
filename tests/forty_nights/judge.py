"""Judges every run of the forty nights by what the stand-in really did, by its truth, and by the files that the run left.

Nothing here asks the product: what is broken, who was asked when and what became of it is worked out anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

from jobs.simulator.model import Effect
from tests.forty_nights.customers import Customers
from tests.forty_nights.evidence import Evidence
from tests.forty_nights.merchant import Merchant
from tests.forty_nights.sessions import SessionJudge
from tests.forty_nights.truth import Truth, look
from tests.model.books import Row

LEAST_GAP_DAYS = 2
"""Business dates between two contacts of one customer: Stripe's 48 hours."""

LONGEST_NIGHTS = {"open_session": 12, "cooldown": 12, "held_by_brake": 4, "capped": 8, "request": 4}
"""So many nights on end an outage may stay at a step without a contact before it counts as forgotten."""

PERSONS = ("review", "attempts_exhausted", "replaced")
"""Steps at which the job itself does nothing more: each is a person's."""

NOT_FOR_THESE = ("none", "", "not_relinkable", "do_not_contact", "ledger_closed", "reason_off")
"""Steps that no account may have that is broken, open in the ledger and its customer's to bring back."""


@dataclass(slots=True)
class Stretch:
    """One outage as the world has it: the nights on end on which an authorization was broken."""

    began: date
    climbs_from: date | None = None
    kinds: set[str] = field(default_factory=set)
    contacts: list[tuple[date, str]] = field(default_factory=list)
    step: str = ""
    nights_at_step: int = 0
    looked_on: date | None = None


@dataclass(slots=True)
class Judge:
    """Looks at the world before and after each run. `faults` are sentences, `figures` counts."""

    merchant: Merchant
    customers: Customers
    ladder: Sequence[int]
    faults: list[str] = field(default_factory=list)
    figures: Counter[str] = field(default_factory=Counter)
    truth: Truth = field(default_factory=lambda: Truth(date.min))
    sessions: SessionJudge = field(init=False)
    _stretches: dict[str, Stretch] = field(default_factory=dict)
    _last_contact: dict[str, date] = field(default_factory=dict)
    _effects: int = 0

    def __post_init__(self) -> None:
        self.sessions = SessionJudge(self.merchant.world, self.customers)

    def before(self) -> None:
        """Remember the truth at which the run begins; time stands still while it runs."""
        self.truth = look(self.merchant.world, self.merchant.ledger)
        for name in list(self._stretches):
            if name not in self.truth.askable:
                del self._stretches[name]
        for name, accounts in self.truth.askable.items():
            stretch = self._stretches.setdefault(name, Stretch(self.truth.today))
            stretch.kinds.update(accounts.values())

    def after(self, name: str, evidence: Evidence, *, pulled: bool) -> None:
        """Judge a run, called `name` in what is said of it; `pulled` says that its report shows the accounts as they are now."""
        told = f"{self.truth.today} {name}"
        world = self.merchant.world
        new, self._effects = world.effects[self._effects :], len(world.effects)
        found = [*self._contacts(new, evidence), *self.sessions.after(evidence, new, self.figures)]
        if evidence.is_complete and pulled:
            found += [*self._next_steps(evidence), *self._totals(evidence, new)]
        self._climb(evidence)
        self.faults += [f"{told}: {fault}" for fault in found]

    # Contacts

    def _contacts(self, new: Sequence[Effect], evidence: Evidence) -> Iterator[str]:
        self.figures["asked"] += len(new)
        customers = Counter(effect.account_holder_id for effect in new)
        for customer, times in customers.items():
            if times > 1:
                yield f"customer {customer} was asked {times} times in one run"
        rows = self.sessions.rows_of(new, evidence)
        self._take_back(evidence)
        for effect in new:
            row = rows.get(effect.session_id)
            yield from self._may_be_asked(effect, row)
            yield from self._is_on_the_ladder(effect, row)

    def _may_be_asked(self, effect: Effect, row: Row | None) -> Iterator[str]:
        name = str(effect.authorization_id)
        if effect.account_holder_id in self.truth.silenced:
            yield f"{effect.account_holder_id} was asked although the ledger forbids it"
        if name not in self.truth.askable:
            self.figures["asked although all works"] += 1
            yield f"{name} was asked about although nothing of it is broken and open"
        elif row is not None and not set(row.covered) <= set(self.truth.askable[name]):
            yield f"{name} was asked about {sorted(set(row.covered) - set(self.truth.askable[name]))}, which are not broken and open"
        if row is not None:
            afresh = set(self.customers.fresh_links.values())
            self.figures["asked about an account linked afresh since"] += any(one in afresh for one in row.covered)
            replaced = [one for one in row.covered if self.sessions.is_told_to_live_on(one)]
            if replaced:
                self.figures["asked about a replaced account"] += 1
                yield f"{name} was asked about {replaced}, which an earlier report has as replaced"

    def _is_on_the_ladder(self, effect: Effect, row: Row | None) -> Iterator[str]:
        today = datetime.fromtimestamp(effect.at, UTC).date()
        last = self._last_contact.get(effect.account_holder_id)
        if last is not None and (today - last).days < LEAST_GAP_DAYS:
            self.figures["above the ladder"] += 1
            yield f"{effect.account_holder_id} was asked {(today - last).days} days after {last}"
        if row is None or row.state == "created" or effect.delivery_method is not None:
            self._last_contact[effect.account_holder_id] = today
        stretch = self._stretches.setdefault(str(effect.authorization_id), Stretch(today))
        steps = len(stretch.contacts)
        if steps >= len(self.ladder) * max(1, len(stretch.kinds)):
            self.figures["above the ladder"] += 1
            yield f"{effect.authorization_id} was asked {steps + 1} times in one outage, first on {stretch.contacts[0][0]}"
        elif len(stretch.kinds) == 1:
            days = (today - (stretch.climbs_from or today)).days
            if days < self.ladder[steps]:
                self.figures["above the ladder"] += 1
                yield f"step {steps + 1} for {effect.authorization_id} came on day {days}, not day {self.ladder[steps]}"
        stretch.contacts.append((today, effect.session_id))
        stretch.nights_at_step = 0

    def _take_back(self, evidence: Evidence) -> None:
        """Leave out what reached nobody: sessions in the application that nobody was at, whose id nobody knows or whose bank healed."""
        rows = {row.session_id: row for row in evidence.books.requests.values()}
        for stretch in self._stretches.values():
            stretch.contacts = [one for one in stretch.contacts if self._reached(one[1], rows.get(one[1]))]

    def _reached(self, session_id: str, row: Row | None) -> bool:
        session = self.merchant.world.sessions[session_id]
        if session.delivery_method is not None or session_id in self.customers.handed_over:
            return True
        return row is not None and row.outcome != "healed"

    # Next steps

    def _climb(self, evidence: Evidence) -> None:
        """Since when an outage climbs: its first night on which no brake and no cap held it, also one that stopped before its report."""
        going = {
            row["authorization_id"]
            for row in evidence.tables.get("authorizations", [])
            if row["next_step"] in ("request", "open_session", "cooldown", "attempts_exhausted")
        }
        going |= {
            row.authorization_id for row in evidence.books.requests.values() if row.business_date == self.truth.today
        }
        for name in going & self._stretches.keys():
            self._stretches[name].climbs_from = self._stretches[name].climbs_from or self.truth.today

    def _next_steps(self, evidence: Evidence) -> Iterator[str]:
        steps = {row["account_id"]: row["next_step"] for row in evidence.tables["accounts"]}
        logins = {row["authorization_id"]: row["next_step"] for row in evidence.tables["authorizations"]}
        rows = list(evidence.books.requests.values())
        outages = {one.authorization_id for one in evidence.books.outages.values() if not one.is_closed}
        for name in sorted(outages):
            if logins.get(name, "none") == "none":
                self.figures["without next step"] += 1
                yield f"the open outage of {name} has the next step {logins.get(name)}"
        tonight = {row.authorization_id for row in rows if row.business_date == self.truth.today}
        open_sessions = {row.authorization_id for row in rows if row.is_open}
        attempts = Counter(row.breakage for row in rows if row.state not in ("planned", "not_sent"))
        most = {name: max(attempts[key] for key in attempts if key[0] == name) for name in {key[0] for key in attempts}}
        for name, accounts in self.truth.askable.items():
            here = {steps.get(one, "none") for one in accounts}
            if here & set(NOT_FOR_THESE):
                self.figures["without next step"] += 1
                yield f"{name} is broken and its accounts have the steps {sorted(here)}"
            if "replaced" not in here and name not in outages:
                yield f"{name} is broken and has no open outage"
            step = logins.get(name, "none")
            if step == "request" and name not in tonight:
                yield f"{name} has the step request and no request of tonight"
            if step == "open_session" and name not in open_sessions:
                yield f"{name} has the step open_session and no open session"
            if step == "attempts_exhausted" and most.get(name, 0) < len(self.ladder):
                yield f"{name} is given up after {most.get(name, 0)} of {len(self.ladder)} steps"
            yield from self._is_under_way(name, step if step in here else min(here))

    def _is_under_way(self, name: str, step: str) -> Iterator[str]:
        """No outage waits at one step for longer than that step may last."""
        stretch = self._stretches[name]
        if self.truth.today == stretch.looked_on:
            stretch.step = step
            return
        stretch.looked_on = self.truth.today
        stretch.nights_at_step = stretch.nights_at_step + 1 if step == stretch.step else 1
        stretch.step = step
        if step not in PERSONS and stretch.nights_at_step == LONGEST_NIGHTS.get(step, 1) + 1:
            self.figures["without next step"] += 1
            yield f"{name} has been at {step} for {LONGEST_NIGHTS.get(step, 1)} nights and nothing was done"

    def waiting(self) -> Counter[str]:
        """How many outages of the world stand at each step now."""
        return Counter(stretch.step for stretch in self._stretches.values() if stretch.step)

    # Totals

    def _totals(self, evidence: Evidence, new: Sequence[Effect]) -> Iterator[str]:
        """The funnel against counts of our own."""
        summary, world = evidence.summary, self.merchant.world
        tonight = summary["funnel"]["tonight"]
        ids = {account.id for account in world.listing}
        known = self.sessions.rows_of(new, evidence)
        created = sum(row.state == "created" for row in known.values())
        pairs = {
            "accounts": len(ids | self.merchant.ledger.keys()),
            "accounts_in_both": len(ids & self.merchant.ledger.keys()),
            "affected_accounts": self.truth.affected,
            "created": created,
        }
        for name, count in pairs.items():
            if tonight[name] != count:
                yield f"the funnel has {tonight[name]} {name}, there are {count}"
        since = self.truth.today.toordinal() - 29
        asked = [
            row
            for row in evidence.books.requests.values()
            if row.business_date.toordinal() >= since and row.business_date <= self.truth.today
        ]
        if summary["funnel"]["thirty_days"]["requests"] != len(asked):
            yield f"the funnel has {summary['funnel']['thirty_days']['requests']} requests in thirty days, there are {len(asked)}"
        for total in summary["control"]:
            if not total["ties"]:
                yield f"the total {total['name']!r} does not tie"
