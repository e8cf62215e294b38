"""Many trials, and the figures of all of them: `python -m tests.chaos.campaign --help`."""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import select
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from jobs.simulator.server import SimulatorServer
from tests.chaos.deployment import Command, Template, ask_by, clock_of, settings_for
from tests.chaos.figures import DATABASES, as_table, summed_up
from tests.chaos.night_process import Ended, fork, run_night
from tests.chaos.scenarios import SCENARIOS, given_for
from tests.chaos.servers import PostgresServer
from tests.chaos.templates import TEMPLATES
from tests.chaos.trials import GAPS_HOURS, Catalogue, draw_trial, run_trial, scenario_of
from tests.chaos.variants import VARIANTS
from tests.compiled_statements import share_compiled_statements


@dataclass(frozen=True, slots=True)
class Stage:
    """What trials of one database start from, and how to reset a slot for one; `others` are for those that need another template."""

    template: Template
    server: PostgresServer | None
    name: str = "night"
    others: Mapping[str, Stage] = field(default_factory=dict)

    def of(self, name: str) -> Stage:
        """The stage of a template."""
        return self if name == self.name else self.others[name]

    def prepare(self, slot: Path) -> str:
        """Put a slot into the state of the template; returns the URL of its database."""
        self.template.copy_files(slot)
        if self.server is None:
            return f"sqlite:///{slot / 'relink.db'}"
        return self.server.copy_database(f"template_{self.name}", self.database_of(slot))

    def database_of(self, slot: Path) -> str:
        """The name of a slot's own PostgreSQL database."""
        return slot.name.replace("-", "_")


@contextmanager
def staged(
    databases: Sequence[str], scenarios: Collection[str] = ("run",)
) -> Iterator[tuple[Path, dict[str, Stage], dict[str, Catalogue]]]:
    """A directory in memory, the templates for each kind of database, and the moments of each scenario."""
    share_compiled_statements()
    memory = Path("/dev/shm")
    root = Path(tempfile.mkdtemp(prefix="relink-chaos-", dir=memory if os.access(memory, os.W_OK) else None))
    # One thread for Arrow, and the system's memory: pools would have to be made anew in every child.
    pa.set_cpu_count(1)
    pa.set_memory_pool(pa.system_memory_pool())
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, root, ignore_errors=True)
        stages: dict[str, Stage] = {}
        for name in databases:
            server = stack.enter_context(PostgresServer.started()) if name == "postgresql" else None
            needed = sorted({SCENARIOS[one].template for one in scenarios} - {"night"})
            others = {other: _stage(root / f"{other}-{name}", server, other) for other in needed}
            stages[name] = replace(_stage(root / f"night-{name}", server, "night"), others=others)
        first_stage = next(iter(stages.values()))
        catalogues = {name: _catalogue(root, first_stage, name) for name in scenarios}
        gc.collect()
        gc.freeze()
        yield root, stages, catalogues


def _stage(directory: Path, server: PostgresServer | None, name: str) -> Stage:
    directory.mkdir()
    url = f"sqlite:///{directory / 'relink.db'}" if server is None else server.new_database(f"template_{name}")
    return Stage(TEMPLATES[name](directory, url), server, name)


def _catalogue(root: Path, stage: Stage, name: str) -> Catalogue:
    """Perform a scenario's command as if a kill in a POST had come before, to learn the names of all moments; import what it imports.

    What it does at first and what while recovering is told apart for a night; another command's recovery is a night's or its own again.
    """
    scenario = SCENARIOS[name]
    stage = stage.of(scenario.template)

    def learn() -> None:
        slot = root / "learning"
        url = stage.prepare(slot)
        world = stage.template.world
        with SimulatorServer(world) as server:
            settings = settings_for(server.base_url, url, slot / "reports", braked=scenario.braked)

            given = given_for(name, stage.template, slot, server.base_url)

            def trace(command: Command) -> Ended:
                return run_night(settings, clock_of(world), command=command, trace=True)

            if scenario.before is not None:
                trace(scenario.before(given))
            world.faults.script("reset_after", method="POST", times=3)
            started = time.monotonic()
            first = trace(scenario.command(given))
            seconds = time.monotonic() - started
            second = first
            if name == "run":
                world.advance(hours=23)
                second = trace(scenario.command(given))
        told = {
            "first": Counter(first.moments),
            "recovery": Counter(second.moments),
            "modules": first.modules,
            "night_seconds": seconds,
        }
        (root / "moments.json").write_text(json.dumps(told))

    child = fork(learn)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0:
        raise SystemExit(f"the commands that show the moments of {name} failed")
    told = json.loads((root / "moments.json").read_text())
    for module in told["modules"]:
        with suppress(ImportError):
            importlib.import_module(module)
    return Catalogue(told["first"], told["recovery"], told["night_seconds"])


def run_campaign(options: argparse.Namespace) -> dict[str, Any]:
    """Run all trials, several at once, and sum them up."""
    databases = DATABASES if options.database == "both" else (options.database,)
    numbers = [options.only] if options.only is not None else list(range(options.first, options.first + options.trials))
    outcomes = _kept(options)
    numbers = sorted(set(numbers) - {one["number"] for one in outcomes})
    scenarios = sorted(
        {
            scenario_of(number, options.variant, options.scenario)[0]
            for number in (*numbers, *(one["number"] for one in outcomes))
        }
    )
    with staged(databases, scenarios) as (root, stages, catalogues):
        started = time.monotonic()
        free = [root / f"slot-{number}" for number in range(options.workers)]
        at_work: dict[int, tuple[int, Path, int]] = {}
        while numbers or at_work:
            while numbers and free:
                number, slot = numbers.pop(0), free.pop()
                child = fork(
                    lambda number=number, slot=slot: _work(options, databases, stages, catalogues, number, slot)
                )
                at_work[os.pidfd_open(child)] = (child, slot, number)
            ready, _, _ = select.select(list(at_work), [], [])
            for descriptor in ready:
                child, slot, number = at_work.pop(descriptor)
                os.close(descriptor)
                code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                outcomes.append(_outcome(slot, number, code))
                _keep(options, outcomes[-1])
                free.append(slot)
                if options.progress and len(outcomes) % 100 == 0:
                    print(f"{len(outcomes)} trials, {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
        seconds = time.monotonic() - started
    return summed_up(outcomes, seconds, catalogues)


def _kept(options: argparse.Namespace) -> list[dict[str, Any]]:
    """What an earlier part of the same campaign showed, from the file that it was kept in; broken trials are tried again."""
    if options.keep is None or not options.keep.exists():
        return []
    lines = [json.loads(line) for line in options.keep.read_text().splitlines()]
    if any(line["seed"] != options.seed for line in lines):
        raise SystemExit(f"{options.keep} holds trials of another seed; name another file with --keep")
    return [line["outcome"] for line in lines if "broken" not in line["outcome"]]


def _keep(options: argparse.Namespace, outcome: dict[str, Any]) -> None:
    if options.keep is not None:
        with options.keep.open("a") as file:
            file.write(json.dumps({"seed": options.seed, "outcome": outcome}) + "\n")


def _work(
    options: argparse.Namespace,
    databases: Sequence[str],
    stages: Mapping[str, Stage],
    catalogues: Mapping[str, Catalogue],
    number: int,
    slot: Path,
) -> None:
    trial = draw_trial(options.seed, number, databases, catalogues, options.variant, options.part, options.scenario)
    if options.gap:
        trial = replace(trial, gap=options.gap)
    stage = stages[trial.database].of(SCENARIOS[trial.scenario].template)
    url = stage.prepare(slot)
    outcome = run_trial(trial, stage.template, slot, url)
    (slot / "outcome.json").write_text(json.dumps(outcome.as_json()))


def _outcome(slot: Path, number: int, code: int) -> dict[str, Any]:
    path = slot / "outcome.json"
    if code != 0 or not path.exists():
        return {"number": number, "broken": f"the harness ended with {code}"}
    told: dict[str, Any] = json.loads(path.read_text())
    path.unlink()
    return told


def parser() -> argparse.ArgumentParser:
    """The options of a campaign."""
    made = argparse.ArgumentParser(prog="python -m tests.chaos.campaign", description=__doc__)
    made.add_argument("--trials", type=int, default=400)
    made.add_argument("--first", type=int, default=0, help="the number of the first trial")
    made.add_argument("--seed", type=int, default=1)
    made.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    made.add_argument("--database", choices=(*DATABASES, "both"), default="both")
    made.add_argument("--variant", choices=tuple(VARIANTS), default="product")
    made.add_argument(
        "--part", default="", help="only moments whose names have one of these words, separated by commas"
    )
    made.add_argument("--gap", choices=tuple(GAPS_HOURS), help="only this gap")
    made.add_argument("--only", type=int, help="only the trial of this number")
    made.add_argument(
        "--delivery",
        choices=("modal", "hosted_url", "hosted_email"),
        default="modal",
        help="how all customers are asked",
    )
    made.add_argument(
        "--scenario", choices=tuple(SCENARIOS), help="only trials that kill this; without it, those that take turns"
    )
    made.add_argument(
        "--ladder", type=_days, metavar="DAYS", help="the days of an outage on which customers are asked, as 0,4,11"
    )
    made.add_argument(
        "--keep", type=Path, help="a file for the outcome of each trial; a campaign that was stopped goes on from it"
    )
    made.add_argument("--json", action="store_true")
    made.add_argument("--progress", action="store_true")
    return made


def _days(text: str) -> tuple[int, ...]:
    return tuple(int(day) for day in text.split(","))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a campaign and print its figures; 1 where anything is wrong."""
    warnings.filterwarnings("ignore", category=DeprecationWarning)  # forking: no thread of ours is under way then
    options = parser().parse_args(arguments)
    ask_by(options.delivery, options.ladder)
    summary = run_campaign(options)
    if options.json:
        print(json.dumps(summary))
    else:
        print(as_table(summary))
        figures = summary["figures"]
        print(
            f"\n{summary['moments']} named moments, {summary['moments_killed_at']} of them killed at first; "
            f"{figures['seconds']} s, {figures['trials_a_second']} trials a second; seed {options.seed}"
        )
        for one in [*summary["broken"], *summary["suspicious"]]:
            print(json.dumps(one))
    return 1 if summary["broken"] or summary["suspicious"] else 0


if __name__ == "__main__":
    sys.exit(main())
