"""How many retries a night makes while a share of all calls fails: python -m benchmarks.retry_share"""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

from jobs.simulator.server import SimulatorServer
from tests.jobs.nights import Nights, small_world

CUSTOMERS = 1000
KINDS = ("error_502", "error_503", "rate_limit", "reset_before", "reset_after", "cut_body")
SHARES = (0.0, 0.01, 0.05, 0.20, 0.50)


def main() -> None:
    """Print a row a share of faults: a night in which each of a thousand customers is to be asked."""
    print("faults  calls  retries  retries of calls  exit  created  other")  # noqa: T201
    for share in SHARES:
        world = small_world(CUSTOMERS, broken=range(1, CUSTOMERS + 1), accounts=1)
        with tempfile.TemporaryDirectory() as place, SimulatorServer(world) as server:
            nights = Nights(world, server, Path(place), f"sqlite:///{place}/relink.db")
            world.faults.at_random(share, KINDS, seed=7)
            result = nights.run(stripe={"max_attempts": 6})
            calls = result.summary["api_calls"]
            assert isinstance(calls, dict)
            first_tries = sum(calls["reads"].values()) + calls["writes"]
            states = Counter(str(one.state) for one in nights.stored())
            other = ", ".join(f"{number} {state}" for state, number in sorted(states.items()) if state != "created")
            print(  # noqa: T201
                f"{share:6.0%}  {first_tries:5}  {calls['retries']:7}  {calls['retries'] / first_tries:16.1%}  "
                f"{result.exit_code:4}  {states['created']:7}  {other or '-'}"
            )


if __name__ == "__main__":
    main()
