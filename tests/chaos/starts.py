"""Races for the lock: many starts at once, a holder that is stopped beyond its lease, and a database that drops its connections."""

from __future__ import annotations

import functools
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jobs.adapters import lease
from jobs.adapters.database import open_database
from jobs.simulator.server import SimulatorServer
from jobs.simulator.world import DEFAULT_KEY
from tests.chaos.campaign import Stage
from tests.chaos.deployment import Template, clock_of, run_command, settings_for
from tests.chaos.night_process import Ended, Kill, fork, run_night, start_night
from tests.chaos.trials import wait_until_idle

ROOT = Path(__file__).parents[2]
SHORT_LEASE_SECONDS = 0.6
LONGEST_RACE_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Race:
    """How many starts ended with each exit code, the slowest of those that were refused, and the sessions that came of it."""

    exit_codes: dict[int, int]
    slowest_refusal_seconds: float
    contacts: dict[str, int]


def race(stage: Stage, slot: Path, starts: int) -> Race:
    """Let many processes start a run at the same moment; the first read of the one that works takes until all others ended."""
    url = stage.prepare(slot)
    world = stage.template.world
    before = len(world.effects)
    world.faults.script("slow", method="GET", seconds=LONGEST_RACE_SECONDS)
    go_reader, go_writer = os.pipe()
    told_reader, told_writer = os.pipe()
    with SimulatorServer(world) as server:
        settings = settings_for(server.base_url, url, slot / "reports")

        def start() -> None:
            os.close(go_writer)
            signal.alarm(LONGEST_RACE_SECONDS)
            os.read(go_reader, 1)  # ends when the last writer is gone: for all at once
            started = time.monotonic()
            try:
                code = run_command(settings, clock_of(world)).exit_code
            except Exception as error:
                code = getattr(error, "exit_code", 1)
            os.write(told_writer, f"{code} {time.monotonic() - started:.3f}\n".encode())

        children = [fork(start) for _ in range(starts)]
        for descriptor in (go_reader, go_writer, told_writer):
            os.close(descriptor)
        told = b""
        while told.count(b"\n") < starts:
            if told.count(b"\n") == starts - 1:
                world.faults.release_hanging()  # again and again, since the last one's read may only be on its way
            ready, _, _ = select.select([told_reader], [], [], 0.05)
            if ready:
                told += os.read(told_reader, 1 << 16)
        os.close(told_reader)
        for child in children:
            os.waitpid(child, 0)
    made = Counter(str(effect.authorization_id) for effect in world.effects[before:])
    ended = [(int(code), float(seconds)) for code, seconds in (line.split() for line in told.decode().splitlines())]
    slowest = max((seconds for code, seconds in ended if code == 6), default=0.0)
    return Race(dict(Counter(code for code, _ in ended)), slowest, dict(made))


@dataclass(frozen=True, slots=True)
class Stopped:
    """What came of a holder that stopped at a moment and went on later, while something happened between."""

    holder: Ended
    between: Ended | None
    posts_before: int
    posts_between: int
    posts_afterwards: int
    contacts: dict[str, int]
    replayed_afterwards: int


def stop_beyond_lease(stage: Stage, slot: Path, moment: str) -> Stopped:
    """Stop the holder at a moment until its lease ended and another run did the night, and let it go on."""

    def take_over(again: Callable[[], Ended]) -> Ended:
        end = time.monotonic() + 60
        while (ended := again()).exit_code == 6 and time.monotonic() < end:
            pass  # every start looks whether the lease has ended
        return ended

    return _stop(stage, slot, moment, take_over)


def lose_connections(stage: Stage, slot: Path, moment: str, *, for_good: bool) -> Stopped:
    """Stop the holder at a moment, end its connections on the server, and let it go on; `for_good` lets none be made anew."""

    def end_connections(_again: Callable[[], Ended]) -> None:
        assert stage.server is not None
        name = stage.database_of(slot)
        if for_good:
            stage.server.execute(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false")
        stage.server.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")

    return _stop(stage, slot, moment, end_connections)


def _stop(stage: Stage, slot: Path, moment: str, happen: Callable[[Callable[[], Ended]], Ended | None]) -> Stopped:
    url = stage.prepare(slot)
    world = stage.template.world

    def posts() -> int:
        return sum(call.method == "POST" for call in world.log)

    with SimulatorServer(world) as server:
        settings, now = settings_for(server.base_url, url, slot / "reports"), clock_of(world)
        first, effects = posts(), len(world.effects)
        holder = start_night(settings, now, Kill(moment, 2), signal_number=signal.SIGSTOP, prepare=_short_lease)
        holder.wait_until_stopped()
        stopped_at = posts()
        between = happen(lambda: run_night(settings, now))
        resumed_at = posts()
        holder.go_on()
        ended = holder.end()
        wait_until_idle(server)
    late = [call for call in world.log if call.method == "POST"][resumed_at:]
    contacts = Counter(str(effect.authorization_id) for effect in world.effects[effects:])
    return Stopped(
        ended,
        between,
        posts_before=stopped_at - first,
        posts_between=resumed_at - stopped_at,
        posts_afterwards=len(late),
        contacts=dict(contacts),
        replayed_afterwards=sum(call.replayed for call in late),
    )


def _short_lease() -> None:
    lease.acquire = functools.partial(lease.acquire, ttl_seconds=SHORT_LEASE_SECONDS)  # type: ignore[assignment]


def lone_second_start(template: Template, directory: Path, database_url: str) -> tuple[int, float]:
    """Exit code and seconds of a real `relink run`, from nothing, while this process holds the lock."""
    config = directory / "config.yaml"
    settings = {
        "merchants": [{"name": "main"}],
        "stripe": {"api_base": "http://127.0.0.1:9"},
        "database": {"url": database_url},
        "reports": {"directory": str(directory / "reports")},
    }
    config.write_text(json.dumps(settings))  # JSON is YAML
    environment = {"PATH": os.environ.get("PATH", ""), "STRIPE_API_KEY": DEFAULT_KEY}
    command = [sys.executable, "-P", "-m", "jobs", "run", "--config", str(config)]
    with open_database(database_url) as database, lease.acquire(database, "the first run"):
        started = time.monotonic()
        finished = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False, timeout=60)
        return finished.returncode, time.monotonic() - started
