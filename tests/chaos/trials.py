"""One trial: a command that is killed, a gap, perhaps a second kill while recovering, and an undisturbed night; then what must hold."""

from __future__ import annotations

import random
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.simulator.server import SimulatorServer
from jobs.simulator.world import World
from tests.chaos.deployment import (
    ASKED_BEFORE,
    NIGHT,
    Books,
    Command,
    Template,
    clock_of,
    read_books,
    settings_for,
)
from tests.chaos.invariants import Findings, Reports, check_collected, check_end, check_leftovers, check_progress
from tests.chaos.night_process import Ended, Kill, run_night
from tests.chaos.scenarios import SCENARIOS, given_for, release, turn_of
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
    """The moments of a command at first and while recovering, how often each is reached, and how long the command takes."""

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
    scenario: str
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
            "scenario": trial.scenario,
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


def scenario_of(number: int, variant: str = "product", only: str | None = None) -> tuple[str, int]:
    """The scenario of a trial and its number among those of that scenario; a variant is only shown nights."""
    if only is not None:
        return only, number
    return turn_of(number) if variant == "product" else ("run", number)


def draw_trial(
    seed: int,
    number: int,
    databases: Sequence[str],
    catalogues: Mapping[str, Catalogue],
    variant: str = "product",
    part: str = "",
    only: str | None = None,
) -> Trial:
    """Draw a trial: scenarios, databases and gaps take turns, and so do the named moments; the rest is chance.

    Args:
        catalogues: by scenario.
        part: only moments whose name has one of these words, separated by commas.
        only: the one scenario that all trials are of.
    """
    scenario, turn_in_scenario = scenario_of(number, variant, only)
    catalogue = catalogues[scenario]
    chance = random.Random(f"{seed}:{number}")
    gaps = list(GAPS_HOURS)
    names = sorted(name for name in catalogue.first if not part or any(word in name for word in part.split(",")))
    cycle, place = divmod(turn_in_scenario, len(gaps) * len(names))
    turn, place = divmod(place, len(names))
    # A prime step, so that neighbours in time are not neighbours in name.
    first = names[place * 7919 % len(names)]
    return Trial(
        seed=seed,
        number=number,
        scenario=scenario,
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
    with SimulatorServer(template.world) as server:
        return _Course(trial, template, directory, database_url, server).run()


class _Course:
    """The course of one trial, and what it showed so far."""

    def __init__(
        self, trial: Trial, template: Template, directory: Path, database_url: str, server: SimulatorServer
    ) -> None:
        self.trial = trial
        self.scenario = SCENARIOS[trial.scenario]
        self.given = given_for(trial.scenario, template, directory, server.base_url)
        self.world = template.world
        self.directory = directory
        self.outcome = Outcome(trial)
        self._server = server
        self._database_url = database_url
        self._settings = settings_for(server.base_url, database_url, directory / "reports", braked=self.scenario.braked)
        self._reports = Reports(directory / "reports")
        self._books = self._read()

    def run(self) -> Outcome:
        trial, findings = self.trial, self.outcome.findings
        if self.scenario.before is not None:
            self._do(self.scenario.before(self.given), (0,))
        command = self.scenario.command(self.given)
        contacts = self._newly_asked()
        for kill, gap in ((trial.first, trial.gap), (trial.second, trial.second_gap)):
            if kill is None and trial.faults == "none":
                continue
            if trial.faults == ("always" if kill is trial.first else "recovering"):
                _let_fail(self.world, trial)
            codes = self.scenario.codes
            ended = self._do(command, codes if trial.faults == "none" else (*codes, 3, 4), kill)
            self.outcome.kills += ended.killed
            self.outcome.second_kills += ended.killed and kill is not trial.first
            self._check_progress()
            self.world.advance(hours=GAPS_HOURS[gap])
        self.world.faults.clear()
        if trial.scenario != "run":
            self._do(command, self.scenario.codes)
        if not self.scenario.contacts and self._newly_asked() != contacts:
            findings.wrong.append(f"{trial.scenario} asked somebody")
        self._undisturbed_night()
        if trial.run_again:
            posts = _posts(self.world)
            again = self._do(NIGHT, (0,))
            if not again.finished_before or _posts(self.world) != posts:
                findings.wrong.append("the second run of a finished date did something")
        self._check_progress()
        check_end(self._books, self.world.effects, self.world.log, findings)
        if trial.scenario == "collect":
            check_collected(self._books, self.world.effects[0].session_id, findings)
        check_leftovers(self.directory / "reports", findings)
        return self.outcome

    def _newly_asked(self) -> int:
        """How many sessions there are but for the outage of the first night, whose customer may be due again."""
        return sum(effect.authorization_id != ASKED_BEFORE for effect in self.world.effects)

    def _undisturbed_night(self) -> None:
        """A whole night; where the brakes hold it, somebody then lets its plan go."""
        codes = (0, 5) if self.scenario.braked else (0,)
        last = self._do(NIGHT, codes)
        if last.finished_before:
            # The date was finished before the kill: what it left unsent is the next date's.
            self.world.advance(days=1)
            last = self._do(NIGHT, codes)
        if self.trial.scenario == "hold" and last.exit_code != 5:
            self.outcome.findings.wrong.append("what was held was forgotten")
        if last.exit_code == 5:
            self._do(release(last.held_plan_hash or ""), (0,))

    def _do(self, command: Command, allowed: Sequence[int], kill: Kill | None = None) -> Ended:
        """Perform a command in a process of its own, and judge how it ended."""
        prepare = VARIANTS[self.trial.variant]
        known = self._unknown()
        ended = run_night(self._settings, clock_of(self.world), kill, command=command, prepare=prepare)
        if ended.killed:
            return ended
        news = self._unknown() - known
        if ended.exit_code not in ((*allowed, 4) if news else allowed):
            self.outcome.findings.wrong.append(f"a command ended with {ended.exit_code}: {ended.why}")
        if news and ended.exit_code == 0:
            self.outcome.findings.wrong.append(f"a command ended with 0 although {news} became unknown")
        return ended

    def _unknown(self) -> set[str]:
        """Requests that wait for a person."""
        wait_until_idle(self._server)
        rows = self._read().requests.values()
        return {row.request_id for row in rows if row.state == "unknown" and row.resolved_at is None}

    def _check_progress(self) -> None:
        wait_until_idle(self._server)
        before, self._books = self._books, self._read()
        check_progress(before, self._books, self.outcome.findings)
        self._reports.check(self.outcome.findings)

    def _read(self) -> Books:
        return read_books(self._database_url, self.directory / "scratch")


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
