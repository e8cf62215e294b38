"""One trial: a night that is killed, a gap, perhaps a second kill while recovering, and an undisturbed night; then what must hold."""

from __future__ import annotations

import random
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.simulator.server import SimulatorServer
from jobs.simulator.world import World
from tests.chaos.deployment import Template, clock_of, read_books, settings_for
from tests.chaos.invariants import Findings, Reports, check_end, check_leftovers, check_progress
from tests.chaos.night_process import Ended, Kill, run_night
from tests.chaos.variants import VARIANTS

GAPS_HOURS = {"10 min": 1 / 6, "23 h": 23.0, "25 h": 25.0, "8 d": 192.0}
RANDOM_KILL_SHARE = 0.15
FAULTY_SHARE = 0.3
SECOND_KILL_SHARE = 0.5
SECOND_RUN_SHARE = 0.25

FAULTS_OF_POSTS = (
    "reset_after",
    "cut_body",
    "cut_json",
    "reset_before",
    "error_500_before",
    "error_500_after",
    "error_503",
    "rate_limit",
    "lock_timeout",
    "in_use",
)
REFUSALS = ("rate_limit", "lock_timeout")
FAULTS_OF_READS = ("reset_before", "reset_after", "cut_body", "error_500_before", "error_503", "rate_limit")


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The moments of a first and of a recovering night, how often each is reached, and how long a night takes."""

    first: dict[str, int]
    recovery: dict[str, int]
    night_seconds: float


@dataclass(frozen=True, slots=True)
class Trial:
    """Everything that is drawn for a trial; the campaign's seed and the number give the same one again.

    `faults` are none, always (from the first night), or recovering (from the second): these trials have a second night even where it is
    not killed.
    """

    seed: int
    number: int
    database: str
    gap: str
    first: Kill
    second: Kill | None
    second_gap: str
    faults: str
    run_again: bool
    variant: str = "product"


@dataclass(slots=True)
class Outcome:
    """What a trial showed."""

    trial: Trial
    kills: int = 0
    second_kills: int = 0
    findings: Findings = field(default_factory=Findings)

    def as_json(self) -> dict[str, Any]:
        """Plain values, to hand over between processes."""
        trial, findings = self.trial, self.findings
        return {
            "number": trial.number,
            "database": trial.database,
            "gap": trial.gap,
            "faults": trial.faults,
            "first": str(trial.first),
            "moment": trial.first.moment,
            "second": None if trial.second is None else f"{trial.second} after {trial.second_gap}",
            "kills": self.kills,
            "second_kills": self.second_kills,
            "contacts_twice": findings.contacts_twice,
            "lost": findings.lost,
            "wrong": findings.wrong,
            "unknown": dict(findings.unknown),
            "renewed": findings.renewed,
        }


def draw_trial(
    seed: int, number: int, databases: Sequence[str], catalogue: Catalogue, variant: str = "product", part: str = ""
) -> Trial:
    """Draw a trial: databases and gaps take turns, and so do the named moments; the rest is chance.

    Args:
        part: only moments whose name has one of these words, separated by commas.
    """
    chance = random.Random(f"{seed}:{number}")
    gaps = list(GAPS_HOURS)
    names = sorted(name for name in catalogue.first if not part or any(word in name for word in part.split(",")))
    cycle, place = divmod(number, len(gaps) * len(names))
    turn, place = divmod(place, len(names))
    # A prime step, so that neighbours in time are not neighbours in name.
    first = names[place * 7919 % len(names)]
    return Trial(
        seed=seed,
        number=number,
        database=databases[(place // len(gaps) + cycle) % len(databases)],
        gap=gaps[(place + turn) % len(gaps)],
        first=_draw_kill(chance, first, catalogue.first, catalogue.night_seconds),
        second=_draw_kill(
            chance, chance.choice(sorted(catalogue.recovery)), catalogue.recovery, catalogue.night_seconds
        )
        if chance.random() < SECOND_KILL_SHARE
        else None,
        second_gap=chance.choice(gaps),
        faults=_draw_faults(chance, variant),
        run_again=chance.random() < SECOND_RUN_SHARE,
        variant=variant,
    )


def _draw_faults(chance: random.Random, variant: str) -> str:
    drawn = chance.choice(["always", "recovering"]) if chance.random() < FAULTY_SHARE else "none"
    return {"product": drawn, "free-after-replay": "recovering"}.get(variant, "none")


def _draw_kill(chance: random.Random, name: str, counts: dict[str, int], night_seconds: float) -> Kill:
    if chance.random() < RANDOM_KILL_SHARE:
        return Kill(seconds=chance.uniform(0.0, 1.2 * night_seconds))
    return Kill(name, chance.randint(1, counts[name]))


def run_trial(trial: Trial, template: Template, directory: Path, database_url: str) -> Outcome:
    """Carry a trial out; the world and the files are this process's own."""
    outcome = Outcome(trial)
    world, findings = template.world, outcome.findings
    with SimulatorServer(world) as server:
        settings = settings_for(server.base_url, database_url, directory / "reports")
        now, prepare = clock_of(world), VARIANTS[trial.variant]
        reports = Reports(directory / "reports")
        books = read_books(database_url, directory / "scratch")
        for kill, gap in ((trial.first, trial.gap), (trial.second, trial.second_gap)):
            if kill is None and trial.faults == "none":
                continue
            if trial.faults == ("always" if kill is trial.first else "recovering"):
                _let_fail(world, trial)
            ended = run_night(settings, now, kill, prepare=prepare)
            outcome.kills += ended.killed
            outcome.second_kills += ended.killed and kill is not trial.first
            _check_ended(ended, findings, (0,) if trial.faults == "none" else (0, 3, 4))
            wait_until_idle(server)
            after = read_books(database_url, directory / "scratch")
            check_progress(books, after, findings)
            reports.check(findings)
            books = after
            world.advance(hours=GAPS_HOURS[gap])
        world.faults.clear()
        last = run_night(settings, now, prepare=prepare)
        if last.finished_before:
            # The date was finished before the kill: what it left unsent is the next date's.
            world.advance(days=1)
            last = run_night(settings, now, prepare=prepare)
        _check_ended(last, findings, (0,))
        if trial.run_again:
            posts = _posts(world)
            again = run_night(settings, now, prepare=prepare)
            _check_ended(again, findings, (0,))
            if not again.finished_before or _posts(world) != posts:
                findings.wrong.append("the second run of a finished date did something")
        wait_until_idle(server)
        after = read_books(database_url, directory / "scratch")
        check_progress(books, after, findings)
        check_end(after, world.effects, world.log, findings)
        reports.check(findings)
        check_leftovers(directory / "reports", findings)
    return outcome


def wait_until_idle(server: SimulatorServer) -> None:
    """Return once the stand-in has dealt with everything that a dead process sent it.

    Connections are taken in the order in which they came, so after an answer on a new one all older ones have been taken; each is
    done when it is closed, since its other end is gone.
    """
    with urllib.request.urlopen(f"{server.base_url}/_simulator/stats", timeout=30) as answer:
        answer.read()
    end = time.monotonic() + 30
    while server._http._connections:
        if time.monotonic() > end:
            raise TimeoutError("the stand-in is still answering a process that is dead")
        time.sleep(0.001)


def _check_ended(ended: Ended, findings: Findings, allowed: Sequence[int]) -> None:
    if not ended.killed and ended.exit_code not in allowed:
        findings.wrong.append(f"a night ended with {ended.exit_code}: {ended.why}")


def _let_fail(world: World, trial: Trial) -> None:
    """Weather of this trial's own: all kinds of faults now and then, one kind nearly always, or hardly anything but refusals."""
    seed = trial.seed * 1_000_003 + trial.number
    chance = random.Random(seed)
    mixed, one, refusals = (0.3, FAULTS_OF_POSTS), (0.9, (chance.choice(FAULTS_OF_POSTS),)), (0.95, REFUSALS)
    rate, kinds = chance.choice([mixed, one, refusals])
    world.faults.at_random(rate, kinds, method="POST", seed=seed)
    world.faults.at_random(0.05, FAULTS_OF_READS, method="GET", seed=seed)


def _posts(world: World) -> int:
    return sum(call.method == "POST" for call in world.log)
