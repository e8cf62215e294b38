"""The forty nights themselves: the real job every night, and by day the customers, the merchant's people and the banks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from jobs.adapters.database import open_database
from jobs.handover import Handover
from jobs.nightly import RunResult
from jobs.simulator.behaviour import Behaviour
from jobs.simulator.server import SimulatorServer
from jobs.simulator.world import World
from jobs.work import Work
from tests.forty_nights.customers import Customers
from tests.forty_nights.evidence import Evidence, read_evidence
from tests.forty_nights.judge import Judge
from tests.forty_nights.merchant import Merchant, weather
from tests.jobs.nights import Nights

Tell = Callable[[str], None]

LADDER_DAYS = (0, 4, 11)
EXPIRING_BANK = "Alderbrook Mutual"
UNREACHABLE_BANK = "Copperline Credit Union"
COLLECT = Work("collect", from_stored=True, collect_everything=True, sends=False)
BEHAVIOUR = Behaviour(
    daily_break_rate=0.006,
    initial_inactive_share=0.02,
    initial_expired_number_share=0.02,
    automatic_answers=False,
    ambiguous_share=0.0,
    keep_account_ids_share=0.3,
)


@dataclass(frozen=True, slots=True)
class Size:
    """How long and how large; on the night `expiry` (from 0) one bank's logins all expire, on `skipped` the job does not run."""

    nights: int = 40
    accounts: int = 5000
    expiry: int = 10
    skipped: int = 21
    unreachable: tuple[int, ...] = (15, 16)
    requests_per_run: int = 250
    requests_per_institution: int = 120
    seed: int = 1
    pull: str = "auto"


QUICK = Size(10, 300, expiry=3, skipped=7, unreachable=(4,), requests_per_run=30, requests_per_institution=15)


@dataclass(slots=True)
class Played:
    """What came of the nights."""

    faults: list[str]
    figures: Counter[str]
    waiting: Counter[str]
    done: Counter[str]


def build_world(size: Size) -> World:
    """Customers and banks; in some logins two accounts share digits and kind, so that nobody can tell their successors apart."""
    world = World.generate(size.accounts, seed=size.seed, behaviour=BEHAVIOUR)
    for authorization in world.authorizations.values():
        first = authorization.accounts[0]
        like = [one for one in authorization.accounts[1:] if one.subcategory == first.subcategory]
        if like and world.draws("joint", authorization.id).chance(0.15):
            like[0].last4 = first.last4
    return world


def settings(size: Size) -> dict[str, dict[str, Any]]:
    """A ladder, three deliveries, the brakes as they are by default."""
    return {
        "relink": {
            "ladder_days": list(LADDER_DAYS),
            "delivery_rules": [
                {"institution": "Driftmoor Savings, Inc.", "delivery": "hosted_email"},
                {"institution": "Gullhaven Federal", "delivery": "hosted_url"},
            ],
            "return_url": "https://app.merchant.example/back",
            "max_requests_per_run": size.requests_per_run,
            "max_requests_per_institution": size.requests_per_institution,
        },
        "brakes": {
            "minimum": 25 if size.accounts >= 2000 else 12,
            "newly_broken_share": 0.05,
            "newly_broken_share_7d": 0.10,
            "institution_share": 0.20,
        },
        "pull": {"mode": size.pull},
        "reports": {"formats": ["parquet"]},
        "log": {"level": "error"},
    }


def _say_nothing(_: str) -> None:
    pass


def play(directory: Path, size: Size, tell: Tell = _say_nothing) -> Played:
    """Let the nights happen under the judge's eyes."""
    world = build_world(size)
    database = directory / "relink.db"
    merchant = Merchant(world, size.seed)
    merchant.begin()
    with SimulatorServer(world) as server:
        nights = Nights(world, server, directory, f"sqlite:///{database}")
        nights.sections = settings(size)
        with open_database(nights.database_url) as opened:
            customers = Customers(world, Handover(nights.settings(), opened, nights.now), size.seed)
            return _Play(size, nights, merchant, customers, database).all_nights(tell)


@dataclass(slots=True)
class _Play:
    size: Size
    nights: Nights
    merchant: Merchant
    customers: Customers
    database: Path
    judge: Judge = field(init=False)
    successors: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.judge = Judge(self.merchant, self.customers, LADDER_DAYS)

    def all_nights(self, tell: Tell) -> Played:
        world = self.merchant.world
        start = world.now_at
        evidence = Evidence(read_evidence(self.database, None).books)
        for night in range(self.size.nights):
            self.customers.live_until(start + timedelta(days=night))
            self._day_before(night)
            if night == self.size.skipped:
                continue
            kind = weather(world.faults, night)
            if kind == "no list" and night == self.size.nights - 1:
                world.faults.clear()  # the last night has to see what its customers did
                kind = ""
            evidence, result = self._run("run", Work("run"))
            code = result.exit_code
            morning = start + timedelta(days=night, hours=7)
            if night == self.size.nights - 1:
                world.advance_to(morning)  # what a customer did after the last night could be seen by none
            else:
                self.customers.live_until(morning)
            for one in result.nights:
                if one.held_plan_hash is not None:
                    self.judge.figures["nights held"] += 1
                    evidence, _ = self._run("release", Work("run", released_brake=one.held_plan_hash))
            world.faults.clear()
            self._find_lost(evidence)
            self.judge.figures["nights"] += 1
            tell(
                f"night {night + 1}: exit {code}{', ' + kind if kind else ''}; {len(world.effects)} sessions so far, {len(self.judge.faults)} faults"
            )
        evidence, _ = self._run("collect", COLLECT)
        self.judge.faults += self.judge.sessions.at_the_end(evidence, self.judge.figures)
        self.judge.figures["successors taken over into the ledger"] = self.merchant.applied
        self.judge.figures["fresh links"] = len(self.customers.fresh_links)
        return Played(self.judge.faults, self.judge.figures, self.judge.waiting(), self.customers.done)

    def _day_before(self, night: int) -> None:
        """What banks and the merchant's people did since the last night."""
        world = self.merchant.world
        self.merchant.edit(night, self.successors)
        self.nights.load_ledger(self.merchant.rows())
        if night == self.size.expiry:
            self.judge.figures["logins expired at once"] = world.break_institution(EXPIRING_BANK)
        world.set_unavailable(UNREACHABLE_BANK, night in self.size.unreachable)

    def _run(self, name: str, work: Work) -> tuple[Evidence, RunResult]:
        self.judge.before()
        result = self.nights.run(work)
        evidence = read_evidence(self.database, result.report_directory)
        self.judge.after(name, evidence, pulled=not work.from_stored)
        self.successors += evidence.tables.get("account_successors", [])
        return evidence, result

    def _find_lost(self, evidence: Evidence) -> None:
        """A person looks into Stripe's log for requests that stayed unknown for two days, and has the sessions followed."""
        keys = {effect.idempotency_key: effect.session_id for effect in self.merchant.world.effects}
        today = self.nights.now().timestamp()
        followed = {row.session_id for row in evidence.books.requests.values()}
        lost = [
            keys[row.idempotency_key]
            for row in evidence.books.requests.values()
            if row.state == "unknown" and row.idempotency_key in keys and today - row.planned_at > 2 * 86_400
        ]
        lost = [session_id for session_id in lost if session_id not in followed]
        if lost:
            self.judge.figures["sessions found by a person"] += len(lost)
            self._run("adopt", Work("adopt", from_stored=True, sends=False, adopts=tuple(lost)))
