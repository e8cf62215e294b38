"""How much of the allowed rate the pull and the sending use: python -m benchmarks.pull_pace [--accounts 40000] [--requests 1000]

The stand-in answers after 150 ms and lets 25 requests a second through, from a process of its own; the gateway is set to the same rate. The
sequential cursor and the parallel one list the same accounts; then a night sends its requests, and a later one looks their sessions up. Refused
calls (429) are counted by the stand-in.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path

from jobs.adapters.rate_limiter import RateLimiter
from jobs.adapters.stripe_gateway import StripeGateway
from jobs.pull import cuts_of_ledger, cuts_of_list
from jobs.segments import walk
from jobs.simulator.limits import RateLimits
from jobs.simulator.server import SimulatorServer
from jobs.simulator.world import World
from jobs.work import Work
from tests.jobs.nights import KEY, SCOPE, Nights, small_world

PER_SECOND = 25.0
LATENCY_SECONDS = 0.15


def _serve(accounts: int, broken: int, ready: Connection) -> None:
    if broken:
        world = small_world(customers=broken, broken=range(1, broken + 1), accounts=1, start=datetime.now(UTC))
    else:
        world = World.generate(accounts, seed=3)
    limits = RateLimits(overall_per_second=PER_SECOND, endpoint_per_second=PER_SECOND)
    with SimulatorServer(world, rate_limits=limits, latency_seconds=LATENCY_SECONDS) as server:
        ready.send((server.port, [(one.id, one.holder.id) for one in reversed(world.listing)]))
        while ready.recv() == "so far":
            ready.send((len(world.log), sum(call.status == 429 for call in world.log)))


@contextmanager
def served(
    accounts: int, broken: int = 0
) -> Iterator[tuple[str, list[tuple[str, str]], Callable[[], tuple[int, int]]]]:
    """The stand-in's address, its accounts and holders, newest first, and what tells how many calls it has had and refused so far."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(accounts, broken, there), daemon=True)
    process.start()

    def counts() -> tuple[int, int]:
        here.send("so far")
        calls, refused = here.recv()
        return calls, refused

    try:
        port, ids = here.recv()
        yield f"http://127.0.0.1:{port}", ids, counts
        here.send("over")
    finally:
        process.terminate()


def pull(url: str, cuts: list[str]) -> tuple[int, float, float]:
    """Accounts, seconds and CPU seconds of one pull."""
    limiter = RateLimiter(requests_per_second=PER_SECOND, endpoint_requests_per_second=PER_SECOND)
    gateway = StripeGateway(KEY, api_base=url, api_version="2026-09-30.preview", limiter=limiter)
    started, cpu = time.monotonic(), time.process_time()
    accounts = len(walk(gateway.list_account_columns, SCOPE, cuts).accounts)
    took = time.monotonic() - started, time.process_time() - cpu
    gateway.close()
    return accounts, *took


def row(what: str, calls: int, refused: int, seconds: float, cpu_seconds: float) -> None:
    share = calls / seconds / PER_SECOND
    sys.stdout.write(
        f"| {what} | {calls} | {seconds:.1f} | {calls / seconds:.1f} | {share:.1%} | {refused / calls:.1%} | {cpu_seconds / calls * 1e3:.1f} |\n"
    )
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accounts", type=int, default=40_000)
    parser.add_argument("--requests", type=int, default=1_000)
    given = parser.parse_args()
    sys.stdout.write(
        "| what | calls | seconds | calls a second | of 25 | refused | ms CPU a call |\n|---|---|---|---|---|---|---|\n"
    )
    ways = ("one cursor", "cut points of the last snapshot", "cut points of the ledger")
    for way in ways:
        with served(given.accounts) as (url, known, counts):
            ids = [account_id for account_id, _ in known]
            cuts = {ways[0]: [], ways[1]: cuts_of_list(ids), ways[2]: cuts_of_ledger(ids)}[way]
            accounts, seconds, cpu_seconds = pull(url, cuts)
            if accounts != given.accounts:
                raise SystemExit(f"{way}: {accounts} accounts of {given.accounts}")
            row(f"pull, {way}", *counts(), seconds, cpu_seconds)
    if given.requests:
        _send(given.requests)


class _Timed:
    """Measures one step of a night."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.seconds = self.cpu_seconds = 0.0

    @contextmanager
    def step(self, name: str, total: int | None = None) -> Iterator[_Timed]:
        started, cpu = time.monotonic(), time.process_time()
        yield self
        if name == self._name:
            self.seconds, self.cpu_seconds = time.monotonic() - started, time.process_time() - cpu

    def advance(self, count: int = 1, total: int | None = None) -> None:
        """The whole is measured, not its parts."""


def _send(requests: int) -> None:
    with tempfile.TemporaryDirectory() as name, served(0, broken=requests) as (url, known, counts):
        # A small world of this process stands for the one that is served elsewhere.
        here = SimulatorServer(small_world(customers=1, broken=()))
        nights = Nights(here.world, here, Path(name), f"sqlite:///{name}/relink.db")
        here.close()
        nights.load_ledger(
            {"account_id": account_id, "account_holder_id": holder, "status": "open", "purpose": "data"}
            for account_id, holder in known
        )
        refused: list[int] = []
        sent, looked_up = _Timed("relink requests"), _Timed("open sessions")
        paced = {"api_base": url, "requests_per_second": PER_SECOND, "endpoint_requests_per_second": PER_SECOND}
        for work, timed in (
            (Work("run"), sent),
            (Work("collect", from_stored=True, collect_everything=True, sends=False), looked_up),
        ):
            result = nights.run(
                work,
                progress=timed,
                clock=lambda: datetime.now(UTC),
                sleep=time.sleep,
                stripe=paced,
                relink={"max_requests_per_run": requests},
            )
            if result.exit_code != 0:
                raise SystemExit(f"{work.command} ended with {result.exit_code}: {result.why}")
            if timed is sent and result.summary["sent"] != requests:
                raise SystemExit(f"sent {result.summary['sent']} of {requests}: {result.why}")
            refused.append(counts()[1])
    row("relink requests", requests, refused[0], sent.seconds, sent.cpu_seconds)
    row("sessions looked up", requests, refused[1] - refused[0], looked_up.seconds, looked_up.cpu_seconds)


if __name__ == "__main__":
    main()
