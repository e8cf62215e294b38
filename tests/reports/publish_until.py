"""Publishes a report in processes that end at a named step, as a power cut would end them; run by test_publishing_crashes.

Reads a list of [directory, step, swaps] from its standard input. One process that imports everything forks for each of them,
because a new interpreter for each would take minutes. Prints, for each, whether it reached the step.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from reports.disk import exchange
from reports.files import ReportDirectory
from tests.reports.factories import NIGHT_INPUTS, facts, night

DIED_AT_STEP = 99

FORMATS = ("parquet",)


def cannot_swap(_first: Path, _second: Path) -> bool:
    """A system without an atomic exchange of names."""
    return False


def publish_until(root: str, step: str, swaps: bool) -> None:
    """Publish the newer report of the run, ending the process without any clean-up when `step` is reached."""

    def reached(name: str) -> None:
        if name == step:
            os._exit(DIED_AT_STEP)

    directory = ReportDirectory(Path(root), FORMATS, reached=reached, swap=exchange if swaps else cannot_swap)
    directory.publish(facts(sent=2), night(), {"main": NIGHT_INPUTS})


def main() -> None:
    """Work through the cases."""
    died = []
    for root, step, swaps in json.load(sys.stdin):
        child = os.fork()
        if child == 0:
            try:
                publish_until(root, step, swaps)
            finally:
                os._exit(0)
        died.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == DIED_AT_STEP)
    json.dump(died, sys.stdout)


if __name__ == "__main__":
    main()
