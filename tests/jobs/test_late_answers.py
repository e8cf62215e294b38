"""An answer that comes to a run after another one took over: it ends nothing that the other is asking again."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text

from jobs.nightly import RunResult
from jobs.simulator.server import SimulatorServer
from jobs.simulator.world import World
from jobs.work import Work
from reconcile.errors import LeaseLost
from tests.jobs.nights import SESSIONS, Nights, small_world

LONGEST_SECONDS = 120
LAST_TRY, REPLAY = 3, 4
"""Which POST is the first run's last try, and which the other run's replay of it."""


class Withheld(SimulatorServer):
    """A stand-in that keeps the answers to some POSTs back, by their number, until they are let go."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._posts = 0
        self.came = {number: threading.Event() for number in (LAST_TRY, REPLAY)}
        self.go = {number: threading.Event() for number in (LAST_TRY, REPLAY)}

    def _respond(self, call: Any) -> Any:
        answer = super()._respond(call)
        if (call.method, call.path) == ("POST", SESSIONS):
            self._posts += 1
            number = self._posts
            if number in self.go:
                self.came[number].set()
                assert self.go[number].wait(LONGEST_SECONDS)
        return answer


class Running(threading.Thread):
    """A command in a thread, and how it ended."""

    def __init__(self, nights: Nights, work: Work) -> None:
        super().__init__()
        self._nights, self._work = nights, work
        self.ended: RunResult | BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.ended = self._nights.run(self._work)
        except BaseException as error:
            self.ended = error

    def wait(self) -> RunResult | BaseException | None:
        self.join(LONGEST_SECONDS)
        return self.ended


def test_a_refusal_that_comes_late_ends_nothing_that_another_run_asks_again(tmp_path: Path) -> None:
    """The session that the other one makes is recorded, and its mail is not sent a second time."""
    world = small_world(customers=2, broken=[1])
    with Withheld(world) as server:
        nights = Nights(world, server, tmp_path, f"sqlite:///{tmp_path / 'relink.db'}")
        nights.sections["relink"] = {"delivery": "hosted_email", "return_url": "https://example.com/back"}
        world.faults.script("rate_limit", method="POST", times=LAST_TRY)
        first = Running(nights, Work("run"))
        assert server.came[LAST_TRY].wait(LONGEST_SECONDS)
        # Its machine stands still for longer than the lease lasts.
        with create_engine(nights.database_url).begin() as connection:
            connection.execute(text("UPDATE relink_lease SET token = token + 1, holder = NULL, expires_at = 0"))
        second = Running(nights, Work("collect", from_stored=True, collect_everything=True, sends=False))
        assert server.came[REPLAY].wait(LONGEST_SECONDS)
        server.go[LAST_TRY].set()
        assert isinstance(first.wait(), LeaseLost)
        assert nights.states() == {"fcauth_1": "attempting"}
        server.go[REPLAY].set()
        ended = second.wait()
        assert isinstance(ended, RunResult)
        world.advance(hours=49)
        nights.run()
        (made,) = world.effects
        assert [(str(one.state), one.session_id) for one in nights.stored()] == [("created", made.session_id)]
