"""The documented campaign: many sequences of the stateful model, and how often each step was done.

`make model SEQUENCES=2000 STEPS=50 MODEL_SEED=1` runs it; RELIABILITY.md has its figures.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.compiled_statements import share_compiled_statements
from tests.model.deployment import Killed
from tests.model.machine import Model
from tests.model.play import Fault
from tests.model.reduction import reduced

BATCH = 25
"""Sequences under one seed, so that a fault in one batch does not end the campaign."""


def search(sequences: int, steps: int, number: int) -> BaseException | None:
    """Run sequences under a seed; return the first fault, as it was found and not made smaller."""
    chosen = settings(
        max_examples=sequences,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
        report_multiple_bugs=False,
        print_blob=False,
    )

    @seed(number)
    class Seeded(Model):
        pass

    try:
        run_state_machine_as_test(Seeded, settings=chosen)
    except (Exception, Killed) as error:
        return error
    return None


def main() -> int:
    """Run the campaign and print its figures; 1 where a fault was found."""
    made = argparse.ArgumentParser(prog="python -m tests.model", description=__doc__)
    made.add_argument("--sequences", type=int, default=2000)
    made.add_argument("--steps", type=int, default=50)
    made.add_argument("--seed", type=int, default=1)
    options = made.parse_args()
    share_compiled_statements()
    started, faults, number = time.monotonic(), 0, options.seed
    while Model.counts["sequences"] < options.sequences:
        left = options.sequences - Model.counts["sequences"]
        fault = search(min(BATCH, left), options.steps, number)
        if fault is not None:
            faults += 1
            _tell(fault, number)
        number += 1
        spent = time.monotonic() - started
        print(f"{Model.counts['sequences']} sequences, {spent:.0f} s, {faults} faults", file=sys.stderr, flush=True)
    steps = {name: count for name, count in Model.counts.items() if name != "sequences" and ":" not in name}
    print(
        f"{Model.counts['sequences']} sequences, {sum(steps.values())} steps, {faults} faults; seeds {options.seed} to {number - 1}; "
        f"{time.monotonic() - started:.0f} s ({time.process_time():.0f} s of a processor)"
    )
    print("\n| step | times | ends |\n|---|---|---|")
    for name, times in sorted(steps.items()):
        ends = {key.partition(": ")[2]: n for key, n in sorted(Model.counts.items()) if key.startswith(f"{name}: ")}
        print(f"| {name} | {times:,} | {'; '.join(f'{count:,} {end}' for end, count in ends.items())} |")
    return 1 if faults else 0


def _tell(fault: BaseException, number: int) -> None:
    print(f"seed {number}: {type(fault).__name__}: {fault}", flush=True)
    if isinstance(fault, Fault):
        print(json.dumps({"rules": fault.rules_as_json(), "steps": reduced(fault.rules, fault.steps)}), flush=True)


if __name__ == "__main__":
    sys.exit(main())
