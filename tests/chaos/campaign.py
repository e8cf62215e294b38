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
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from jobs.simulator.server import SimulatorServer
from tests.chaos.deployment import Template, clock_of, make_template, settings_for
from tests.chaos.night_process import fork, run_night
from tests.chaos.servers import PostgresServer
from tests.chaos.trials import GAPS_HOURS, Catalogue, draw_trial, run_trial
from tests.chaos.variants import VARIANTS

DATABASES = ("sqlite", "postgresql")


@dataclass(frozen=True, slots=True)
class Stage:
    """What trials of one database start from, and how to reset a slot for one."""

    template: Template
    server: PostgresServer | None

    def prepare(self, slot: Path) -> str:
        """Put a slot into the state of the template; returns the URL of its database."""
        self.template.copy_files(slot)
        if self.server is None:
            return f"sqlite:///{slot / 'relink.db'}"
        return self.server.copy_database("template_night", self.database_of(slot))

    def database_of(self, slot: Path) -> str:
        """The name of a slot's own PostgreSQL database."""
        return slot.name.replace("-", "_")


@contextmanager
def staged(databases: Sequence[str]) -> Iterator[tuple[Path, dict[str, Stage], Catalogue]]:
    """A directory in memory, a template for each kind of database, and the catalogue of moments."""
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
            directory = root / f"template-{name}"
            directory.mkdir()
            url = f"sqlite:///{directory / 'relink.db'}" if server is None else server.new_database("template_night")
            stages[name] = Stage(make_template(directory, url), server)
        catalogue = _catalogue(root, next(iter(stages.values())))
        gc.collect()
        gc.freeze()
        yield root, stages, catalogue


def _catalogue(root: Path, stage: Stage) -> Catalogue:
    """Run a night, and one that recovers from a kill in a POST, to learn the names of all moments; import what they import."""

    def learn() -> None:
        slot = root / "learning"
        url = stage.prepare(slot)
        world = stage.template.world
        with SimulatorServer(world) as server:
            settings = settings_for(server.base_url, url, slot / "reports")
            world.faults.script("reset_after", method="POST", times=3)
            started = time.monotonic()
            first = run_night(settings, clock_of(world), trace=True)
            seconds = time.monotonic() - started
            world.advance(hours=23)
            second = run_night(settings, clock_of(world), trace=True)
        told = {
            "first": Counter(first.moments),
            "recovery": Counter(second.moments),
            "modules": first.modules,
            "night_seconds": seconds,
        }
        (root / "moments.json").write_text(json.dumps(told))

    child = fork(learn)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0:
        raise SystemExit("the nights that show the moments failed")
    told = json.loads((root / "moments.json").read_text())
    for name in told["modules"]:
        with suppress(ImportError):
            importlib.import_module(name)
    return Catalogue(told["first"], told["recovery"], told["night_seconds"])


def run_campaign(options: argparse.Namespace) -> dict[str, Any]:
    """Run all trials, several at once, and sum them up."""
    databases = DATABASES if options.database == "both" else (options.database,)
    numbers = [options.only] if options.only is not None else list(range(options.first, options.first + options.trials))
    outcomes: list[dict[str, Any]] = []
    with staged(databases) as (root, stages, catalogue):
        started = time.monotonic()
        free = [root / f"slot-{number}" for number in range(options.workers)]
        at_work: dict[int, tuple[int, Path, int]] = {}
        while numbers or at_work:
            while numbers and free:
                number, slot = numbers.pop(0), free.pop()
                child = fork(
                    lambda number=number, slot=slot: _work(options, databases, stages, catalogue, number, slot)
                )
                at_work[os.pidfd_open(child)] = (child, slot, number)
            ready, _, _ = select.select(list(at_work), [], [])
            for descriptor in ready:
                child, slot, number = at_work.pop(descriptor)
                os.close(descriptor)
                code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                outcomes.append(_outcome(slot, number, code))
                free.append(slot)
                if options.progress and len(outcomes) % 100 == 0:
                    print(f"{len(outcomes)} trials, {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
        seconds = time.monotonic() - started
    return summed_up(outcomes, seconds, catalogue)


def _work(
    options: argparse.Namespace,
    databases: Sequence[str],
    stages: dict[str, Stage],
    catalogue: Catalogue,
    number: int,
    slot: Path,
) -> None:
    trial = draw_trial(options.seed, number, databases, catalogue, options.variant, options.part)
    if options.gap:
        trial = replace(trial, gap=options.gap)
    stage = stages[trial.database]
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


def summed_up(outcomes: Sequence[dict[str, Any]], seconds: float, catalogue: Catalogue) -> dict[str, Any]:
    """The figures, by database and gap, and every trial that shows something wrong."""
    done = [one for one in outcomes if "broken" not in one]
    rows = []
    for database in DATABASES:
        for gap in GAPS_HOURS:
            mine = [one for one in done if (one["database"], one["gap"]) == (database, gap)]
            if mine:
                rows.append({"database": database, "gap": gap, **_figures(mine)})
    suspicious = [one for one in done if one["contacts_twice"] or one["lost"] or one["wrong"]]
    return {
        "figures": {**_figures(done), "seconds": round(seconds, 1), "trials_a_second": round(len(done) / seconds, 1)},
        "rows": rows,
        "moments": len({*catalogue.first, *catalogue.recovery}),
        "moments_killed_at": len({one["moment"] for one in done if one["moment"] and one["kills"]}),
        "broken": [one for one in outcomes if "broken" in one],
        "suspicious": suspicious,
    }


def _figures(outcomes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    unknown: Counter[str] = Counter()
    for one in outcomes:
        unknown.update(one["unknown"])
    return {
        "trials": len(outcomes),
        "kills": sum(one["kills"] for one in outcomes),
        "second_kills": sum(one["second_kills"] for one in outcomes),
        "contacts_twice": sum(len(one["contacts_twice"]) for one in outcomes),
        "lost": sum(len(one["lost"]) for one in outcomes),
        "wrong": sum(len(one["wrong"]) for one in outcomes),
        "unknown": dict(unknown),
        "renewed": sum(one["renewed"] for one in outcomes),
    }


def as_table(summary: dict[str, Any]) -> str:
    """The figures as a Markdown table."""
    names = ("trials", "kills", "second_kills", "contacts_twice", "lost", "wrong")
    lines = [
        "| database | gap | trials | kills | of these while recovering | asked twice | lost | other faults | unknown | renewed offers |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in [*summary["rows"], {"database": "all", "gap": "", **summary["figures"]}]:
        unknown = "; ".join(f"{number} {reason}" for reason, number in sorted(row["unknown"].items())) or "0"
        cells = [row["database"], row["gap"], *(f"{row[name]:,}" for name in names), unknown, f"{row['renewed']:,}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


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
    made.add_argument("--json", action="store_true")
    made.add_argument("--progress", action="store_true")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a campaign and print its figures; 1 where anything is wrong."""
    warnings.filterwarnings("ignore", category=DeprecationWarning)  # forking: no thread of ours is under way then
    options = parser().parse_args(arguments)
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
