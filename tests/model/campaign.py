"""Sequences of the stateful model under one seed, and what they showed."""

from __future__ import annotations

import json
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Batch:
    """What the sequences under one seed showed: how often each step was done and how it ended, and the faults found, told."""

    seed: int
    counts: dict[str, int]
    told: list[str]


def try_batch(number: int, sequences: int, steps: int) -> Batch:
    """Run the sequences under one seed."""
    share_compiled_statements()
    Model.counts.clear()
    fault = search(sequences, steps, number)
    return Batch(number, dict(Model.counts), [] if fault is None else _told(fault, number))


def _told(fault: BaseException, number: int) -> list[str]:
    told = [f"seed {number}: {type(fault).__name__}: {fault}"]
    if isinstance(fault, Fault):
        told.append(json.dumps({"rules": fault.rules_as_json(), "steps": reduced(fault.rules, fault.steps)}))
    return told
