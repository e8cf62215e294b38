"""The steps of a sequence: what customers, banks, clocks, Stripe, operators and the job may do next.

A step is a name and plain arguments, so that a sequence can be written down and replayed after the code changed. Numbers choose among
what there is, modulo how many there are; a step for which there is nothing does nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

import requests

from jobs.handover import Handover
from jobs.plan_file import MerchantPlan, PlanFile, check_applicable
from jobs.selection import Selection
from jobs.simulator import changes
from jobs.simulator.model import INACTIVE_CAUSES, Account, Authorization
from jobs.work import Work
from tests.chaos.trials import FAULTS_OF_POSTS, FAULTS_OF_READS
from tests.model.deployment import DEFAULT_KEY, Deployment, Ended, Fate, Rules
from tests.model.direct_wire import BASE_URL, DirectSession
from tests.model.judge import FOREIGN_KEY, Judge, StepFacts

Step = tuple[str, dict[str, Any]]
T = TypeVar("T")

LEDGER_CHANGES = ("close", "open", "forbid", "allow", "require", "plain")
POST_FAULTS = (*FAULTS_OF_POSTS, "error_500_before")


class Fault(AssertionError):
    """What must never happen did."""

    def __init__(self, wrong: Sequence[str], rules: Rules, steps: Sequence[Step]) -> None:
        self.wrong, self.rules, self.steps = list(wrong), rules, list(steps)
        super().__init__(f"{'; '.join(wrong)}\n{rules}\nsteps = {json.dumps(self.steps)}")

    def rules_as_json(self) -> dict[str, int]:
        """The settings of its sequence, by name."""
        return asdict(self.rules)


class Play:
    """One sequence under way: a deployment, its judge, and the steps done so far."""

    def __init__(self, directory: Path, rules: Rules, counts: Counter[str] | None = None) -> None:
        self.deployment = Deployment(directory, rules)
        self.world = self.deployment.world
        self.judge = Judge(self.deployment)
        self.steps: list[Step] = []
        self.counts = Counter() if counts is None else counts
        self._plan: PlanFile | None = None
        self._held: list[str] = []
        self._foreign = 0
        self.failed = False

    @property
    def has_plan(self) -> bool:
        """Whether there is a plan file to apply."""
        return self._plan is not None

    @property
    def has_held(self) -> bool:
        """Whether a brake ever held a plan."""
        return bool(self._held)

    def step(self, name: str, **arguments: Any) -> None:
        """Do a step and judge what it did.

        Raises:
            Fault: something that must never happen did; it says what, and all steps up to here.
        """
        self.steps.append((name, arguments))
        self.counts[name] += 1
        self.failed = True
        facts = StepFacts(name)
        self.judge.before(facts)
        ended = getattr(self, f"_{name}")(facts, **arguments)
        if ended is not None:
            facts.ended = ended
            self.counts[f"{name}: {_told(ended)}"] += 1
            # Two commands of one second would share the start of their ids, and no process starts that fast.
            self.world.advance(seconds=2)
        wrong = self.judge.after(facts)
        self.counts.update({f"found: {whose}": count for whose, count in self.judge.found.items()})
        self.judge.found.clear()
        self.failed = bool(wrong)
        if wrong:
            raise Fault(wrong, self.deployment.rules, self.steps)

    def finish(self) -> None:
        """A calm night of the next date, after which nothing may be left unsettled."""
        self.step("quiet")
        self.step("set_clock", hours=0)
        self.step("wait", hours=25)
        self.step("run")

    # What banks and customers do

    def _break_account(self, _: StepFacts, account: int, cause: int = 0, lasting: bool = False) -> None:
        action = "none" if lasting else "relink_required"
        self.world.break_account(self._account(account).id, INACTIVE_CAUSES[cause % len(INACTIVE_CAUSES)], action)

    def _break_authorization(self, _: StepFacts, authorization: int, cause: int = 0) -> None:
        chosen = self._authorization(authorization)
        self.world.break_authorization(chosen.id, INACTIVE_CAUSES[cause % len(INACTIVE_CAUSES)])

    def _break_bank(self, _: StepFacts, bank: int) -> None:
        names = sorted({one.institution.name for one in self.world.authorizations.values()})
        self.world.break_institution(names[bank % len(names)])

    def _heal_account(self, _: StepFacts, account: int) -> None:
        chosen = self._account(account)
        if chosen.status != "disconnected":
            self.world.heal_account(chosen.id)

    def _heal_authorization(self, _: StepFacts, authorization: int) -> None:
        chosen = self._authorization(authorization)
        if chosen.status != "disconnected":
            self.world.heal_authorization(chosen.id)

    def _disconnect(self, _: StepFacts, account: int, whole: bool) -> None:
        chosen = self._account(account)
        if whole:
            self.world.disconnect_authorization(chosen.authorization.id)
        else:
            self.world.disconnect_account(chosen.id)

    def _announce(self, _: StepFacts, authorization: int, days: int | None) -> None:
        """A bank announces an end to come, in some days or at no date."""
        chosen = self._authorization(authorization)
        if chosen.status == "active":
            at = None if days is None else self.world.now_at + timedelta(days=days)
            self.world.expect_deactivation(chosen.id, at)

    def _withdraw(self, _: StepFacts, authorization: int) -> None:
        self.world.withdraw_expectation(self._authorization(authorization).id)

    def _number(self, _: StepFacts, account: int, status: str) -> None:
        """A tokenized account number stops working, or works again."""
        payable = [one for one in self.world.listing if len(one.numbers) and one.authorization.institution.tokenized]
        chosen = _chosen(payable, account)
        if chosen is not None and any(one.identifier_type == "tokenized_account_number" for one in chosen.numbers):
            wanted = ("transactable", "pending") if status != "transactable" else ("expired", "deactivated", "pending")
            changes.change_numbers(self.world, chosen, wanted, status)

    def _grant(self, _: StepFacts, account: int, few: bool) -> None:
        self.world.set_permissions(self._account(account).id, ["balances"] if few else ["balances", "transactions"])

    def _answer(
        self,
        _: StepFacts,
        session: int,
        how: str,
        chosen: int = 0,
        keep: bool = False,
        gone: bool = False,
        ambiguous: bool = False,
        lag_hours: int = 0,
    ) -> None:
        """A customer relinks, or does not; `chosen` are bits that pick accounts, 0 leaves the choice to the stand-in."""
        waiting = [one for one in self.world.sessions.values() if one.status == "pending" and one.authorization_id]
        found = _chosen(sorted(waiting, key=lambda one: (one.created, one.id)), session)
        if found is None:
            return
        accounts = None
        authorization = self.world.authorizations[found.authorization_id or ""]
        if chosen and how in ("whole", "partial", "new_authorization") and authorization.status != "disconnected":
            usable = [one.id for one in authorization.accounts if one.is_relinkable]
            accounts = [name for bit, name in enumerate(usable) if chosen >> bit & 1] or None
        self.world.answer(
            found.id,
            how,
            accounts,
            keep_account_ids=keep,
            old_disconnected=gone,
            ambiguous=ambiguous,
            lag_seconds=lag_hours * 3600,
        )

    # Time, Stripe's weather, the ledger

    def _wait(self, _: StepFacts, hours: float) -> None:
        self.world.advance(hours=hours)

    def _set_clock(self, _: StepFacts, hours: int) -> None:
        """The clock of the job's host is now wrong by this much, or right."""
        self.deployment.skew = timedelta(hours=hours)

    def _storm(self, facts: StepFacts, kind: int, rate: float, reads: bool) -> None:
        """Stripe fails now and then: one kind of fault in POSTs, or all kinds; and in reads."""
        seed = len(self.steps)
        kinds = [POST_FAULTS[kind % len(POST_FAULTS)]] if kind else POST_FAULTS
        self.world.faults.at_random(rate, kinds, method="POST", seed=seed)
        if reads:
            self.world.faults.at_random(0.3, FAULTS_OF_READS, method="GET", seed=seed)
        self.judge.is_stormy = True

    def _quiet(self, facts: StepFacts) -> None:
        self.world.faults.clear()
        self.world.faults.release.set()
        self.judge.is_stormy = False

    def _change_ledger(self, _: StepFacts, row: int, what: str) -> None:
        ledger = self.deployment.ledger
        changed = ledger[row % len(ledger)]
        changed |= {
            "close": {"status": "closed"},
            "open": {"status": "open"},
            "forbid": {"do_not_contact": "true"},
            "allow": {"do_not_contact": ""},
            "require": {"required_permissions": "balances,transactions"},
            "plain": {"required_permissions": ""},
        }[what]
        self.deployment.load_ledger()

    def _follow_successors(self, _: StepFacts, close_old: bool) -> None:
        """The merchant takes the accounts that came into its ledger, and closes those that went, or not yet."""
        ledger = self.deployment.ledger
        known = {row["account_id"] for row in ledger}
        for account in self.world.listing:
            if account.id not in known:
                new = {"account_id": account.id, "account_holder_id": account.holder.id, "status": "open"}
                ledger.append({"required_permissions": "", "purpose": "data", "do_not_contact": "", **new})
        for row in ledger:
            account = self.world.accounts.get(row["account_id"])
            if close_old and account is not None and account.status == "disconnected":
                row["status"] = "closed"
        self.deployment.load_ledger()

    # What the job and its operators do

    def _run(self, facts: StepFacts, fate: str | None = None, at: int = 0) -> Ended:
        return self._perform(facts, Work("run"), fate, at)

    def _dry_run(self, facts: StepFacts) -> Ended:
        facts.changes_nothing = True
        return self._perform(facts, Work("run", dry_run=True))

    def _plan_file(self, facts: StepFacts) -> Ended:
        facts.changes_nothing = True
        ended = self._perform(facts, Work("plan", dry_run=True))
        if ended.result is not None and ended.result.complete:
            result = ended.result
            plans = tuple(
                MerchantPlan(night.merchant.scope, night.merchant.settings_hash, night.plan.requests)
                for night in result.nights
            )
            stamp = result.stamp
            self._plan = PlanFile(stamp.run_id, stamp.as_of, stamp.business_date, plans)
        return ended

    def _apply(self, facts: StepFacts, fate: str | None = None, at: int = 0) -> Ended | None:
        plan = self._plan
        if plan is None:
            return None
        work = Work("apply", agreed={one.scope.merchant: one.requests for one in plan.merchants})
        return self._perform(
            facts,
            work,
            fate,
            at,
            check=lambda wiring: check_applicable(
                plan, {one.scope: one.settings_hash for one in wiring.merchants}, wiring.clock()
            ),
        )

    def _request(
        self,
        facts: StepFacts,
        authorization: int,
        ignore_cooldown: bool = False,
        resolve_unknown: bool = False,
        fate: str | None = None,
        at: int = 0,
    ) -> Ended:
        name = self._authorization(authorization).id
        facts.ignores_cooldown = ignore_cooldown
        facts.resolves = {name} if resolve_unknown else set()
        work = Work(
            "request",
            from_stored=True,
            selection=Selection(authorizations=frozenset([name])),
            ignore_cooldown=ignore_cooldown,
            unknowns_resolved_by="a person" if resolve_unknown else None,
        )
        return self._perform(facts, work, fate, at)

    def _collect(self, facts: StepFacts, fate: str | None = None, at: int = 0) -> Ended:
        facts.sends_nothing = True
        work = Work("collect", from_stored=True, collect_everything=True, sends=False)
        return self._perform(facts, work, fate, at)

    def _release(self, facts: StepFacts, held: int, fate: str | None = None, at: int = 0) -> Ended | None:
        plan_hash = _chosen(self._held, -1 - held)
        if plan_hash is None:
            return None
        return self._perform(facts, Work("run", released_brake=plan_hash), fate, at)

    def _foreign_session(self, facts: StepFacts, authorization: int) -> None:
        """Something else of the merchant's asks a customer; not about what is unknown here, for that would be its answer."""
        chosen = self._authorization(authorization)
        if self.judge.is_unsettled(chosen.id):
            return
        self._foreign += 1
        body = {
            "account_holder[type]": "customer",
            "account_holder[customer]": chosen.holder.id,
            "permissions[0]": "balances",
            "relink_options[authorization]": chosen.id,
        }
        headers = {
            "Authorization": f"Bearer {DEFAULT_KEY}",
            "Stripe-Version": self.deployment.settings.stripe.api_version,
            "Content-Type": "application/x-www-form-urlencoded",
            "Idempotency-Key": f"{FOREIGN_KEY}{self._foreign}",
        }
        url = f"{BASE_URL}/v1/financial_connections/sessions"
        stripe = DirectSession(self.world, lambda _: None)
        with suppress(requests.RequestException):
            stripe.request("POST", url, headers=headers, data=urlencode(body).encode())

    def _adopt(self, facts: StepFacts, session: int, fate: str | None = None, at: int = 0) -> Ended | None:
        """An operator names a session that the records do not know: something else's, or what an unknown request made."""
        found = _chosen(self.judge.sessions_to_adopt(), session)
        if found is None:
            return None
        facts.adopts = facts.sends_nothing = True
        work = Work("adopt", from_stored=True, sends=False, adopts=(found,))
        return self._perform(facts, work, fate, at)

    def _hand_over(self, facts: StepFacts, customer: int) -> None:
        """The merchant's application offers a customer what waits for them."""
        name = sorted({one.holder.id for one in self.world.authorizations.values()})
        settings = self.deployment.settings
        with self.deployment.opened() as database:
            handover = Handover(settings, database, self.deployment.now)
            offer = handover.offer_for("main", name[customer % len(name)])
            if offer is not None:
                handover.offered(offer)

    def _perform(
        self, facts: StepFacts, work: Work, fate: str | None = None, at: int = 0, check: Any = lambda _: None
    ) -> Ended:
        facts.pulls = not work.from_stored
        facts.fate = fate
        ended = self.deployment.perform(work, None if fate is None else Fate(fate, 1 + at), check)
        for one in (ended, ended.rival):
            if one is not None and one.result is not None:
                hashes = [night.held_plan_hash for night in one.result.nights]
                self._held += [name for name in hashes if name is not None]
        return ended

    def _account(self, number: int) -> Account:
        return self.world.listing[number % len(self.world.listing)]

    def _authorization(self, number: int) -> Authorization:
        all_of_them = list(self.world.authorizations.values())
        return all_of_them[number % len(all_of_them)]


def replay(directory: Path, rules: Rules, steps: Iterable[Sequence[Any]]) -> Play:
    """Do written down steps again."""
    play = Play(directory, rules)
    with play.deployment.installed():
        for name, arguments in steps:
            play.step(name, **arguments)
    return play


def _chosen(among: Sequence[T], number: int) -> T | None:
    return among[number % len(among)] if among else None


def _told(ended: Ended) -> str:
    if ended.killed:
        return "killed"
    if ended.rival is not None:
        return f"exit {ended.exit_code}, its rival {ended.rival.exit_code}"
    return f"exit {ended.exit_code}"
