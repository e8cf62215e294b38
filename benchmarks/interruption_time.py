"""How long a run takes from SIGTERM to its end, at the places where it waits longest: python -m benchmarks.interruption_time"""

from __future__ import annotations

import signal
import sqlite3
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from jobs.simulator.server import SimulatorServer
from tests.jobs.cli.processes import start, wait_until
from tests.jobs.nights import ACCOUNTS, Nights, small_world

LONG_SECONDS = 600


def _unanswered(nights: Nights) -> Callable[[], object]:
    nights.config_file()
    nights.world.faults.script("hang_before", path=ACCOUNTS, seconds=LONG_SECONDS)
    return lambda: nights.world.faults.injected


def _told_to_wait(nights: Nights) -> Callable[[], object]:
    nights.config_file(stripe={"max_elapsed_seconds": 3600})
    nights.world.faults.script("rate_limit", path=ACCOUNTS, retry_after_seconds=LONG_SECONDS)
    return lambda: nights.world.faults.injected


def _own_rate(nights: Nights) -> Callable[[], object]:
    nights.config_file(stripe={"requests_per_second": 1 / LONG_SECONDS})
    return lambda: nights.world.log


def _lost_answer(nights: Nights) -> Callable[[], object]:
    nights.config_file()
    nights.world.faults.script("hang_after", method="POST", seconds=LONG_SECONDS)
    return lambda: nights.world.faults.injected


def _locked_file(nights: Nights) -> Callable[[], object]:
    begun = _unanswered(nights)

    def locked() -> object:
        if not begun():
            return False
        # Kept open, and so locked, until the measurement is over.
        nights.blocker = sqlite3.connect(nights.directory / "relink.db", isolation_level=None)  # type: ignore[attr-defined]
        nights.blocker.execute("BEGIN IMMEDIATE")  # type: ignore[attr-defined]
        nights.world.faults.release_hanging()
        wait_until(lambda: nights.world.log, "the second reading")
        return True

    return locked


def main() -> None:
    """Print a line a place."""
    places = {
        "an answer that does not come": _unanswered,
        "a retry in ten minutes": _told_to_wait,
        "its own rate limit": _own_rate,
        "the lost answer to a POST": _lost_answer,
        "a locked database file": _locked_file,
    }
    for place, wait in places.items():
        with tempfile.TemporaryDirectory() as name:
            world = small_world(start=datetime.now(UTC))
            with SimulatorServer(world) as server:
                nights = Nights(world, server, Path(name), f"sqlite:///{name}/relink.db")
                begun = wait(nights)
                running = start(nights, "run")
                wait_until(begun, place)
                signalled_at = time.monotonic()
                running.send_signal(signal.SIGTERM)
                running.communicate()
                took_seconds = time.monotonic() - signalled_at
                print(f"{place}: exit code {running.returncode} after {took_seconds:.2f} s")  # noqa: T201
                world.faults.clear()


if __name__ == "__main__":
    main()
