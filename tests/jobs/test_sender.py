"""Several POSTs at once keep every promise that one at a time keeps."""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from jobs.crew import AT_ONCE, FAILURES_IN_A_ROW
from jobs.simulator.world import World
from reconcile.errors import LeaseLost
from tests.jobs.conftest import MakeNights
from tests.jobs.nights import SESSIONS, Nights, assert_ties, small_world

CUSTOMERS = 60
ATTEMPTS = 3
"""`stripe.max_attempts` of the test settings."""


def broken_world() -> World:
    return small_world(customers=CUSTOMERS, broken=range(1, CUSTOMERS + 1), accounts=1)


def assert_each_key_once(nights: Nights) -> None:
    """No key made two sessions, none reached Stripe without a committed intent, and each session is in the records."""
    keys = [effect.idempotency_key for effect in nights.world.effects]
    assert len(keys) == len(set(keys))
    stored = nights.stored()
    attempted = {one.idempotency_key for one in stored if one.attempting_at is not None}
    assert {call.idempotency_key for call in nights.world.log if call.path == SESSIONS} <= attempted


def test_many_are_sent_in_order_and_at_once(make_nights: MakeNights, database_url: str) -> None:
    nights = make_nights(broken_world(), database_url, latency_seconds=0.02)
    result = nights.run()
    assert result.exit_code == 0
    assert set(nights.states().values()) == {"created"}
    assert nights.world.contacts_by_authorization() == {f"fcauth_{one}": 1 for one in range(1, CUSTOMERS + 1)}
    assert_each_key_once(nights)
    assert_ties(result)
    sent = [call.idempotency_key for call in nights.world.log if call.path == SESSIONS]
    order = {
        one.idempotency_key: place
        for place, one in enumerate(sorted(nights.stored(), key=lambda one: one.request.request_id))
    }
    places = [order[str(key)] for key in sent]
    assert max(abs(place - at) for at, place in enumerate(places)) <= AT_ONCE, "who goes first is started first"
    assert places[: FAILURES_IN_A_ROW + 1] == list(range(FAILURES_IN_A_ROW + 1)), "the first go one after the other"


@pytest.mark.parametrize("kind", ["error_500_after", "error_503", "reset_after", "cut_body"])
def test_an_outage_midway_stops_the_rest(make_nights: MakeNights, kind: str) -> None:
    """Twenty are answered, then nothing any more: those under way may fail as well, and nobody further is asked."""
    nights = make_nights(broken_world(), latency_seconds=0.01)
    nights.world.faults.script(kind, method="POST", skip=20, times=10_000)
    result = nights.run()
    assert result.exit_code == 3
    assert "calls in a row failed" in (result.why or "")
    states = Counter(nights.states().values())
    assert states["created"] == 20
    tried = {call.idempotency_key for call in nights.world.log if call.path == SESSIONS}
    assert 20 + FAILURES_IN_A_ROW <= len(tried) < 20 + FAILURES_IN_A_ROW + AT_ONCE
    assert states["planned"] >= CUSTOMERS - 20 - FAILURES_IN_A_ROW - AT_ONCE
    assert_each_key_once(nights)
    assert_ties(result)
    nights.world.faults.clear()
    nights.world.advance(hours=1)
    again = nights.run()
    assert_ties(again)
    assert_each_key_once(nights)
    left = {"unknown"} if kind.startswith("error_500") else set()
    assert set(nights.states().values()) == {"created"} | left


@pytest.mark.parametrize("kind", ["unauthorized", "forbidden"])
def test_a_refused_key_stops_at_once(make_nights: MakeNights, kind: str) -> None:
    nights = make_nights(broken_world(), latency_seconds=0.01)
    nights.world.faults.script(kind, method="POST", skip=20, times=10_000)
    result = nights.run()
    assert result.exit_code == 3
    assert "refused the key midway" in (result.why or "")
    states = Counter(nights.states().values())
    assert states["created"] == 20
    assert set(states) == {"created", "not_sent", "planned"}
    assert states["not_sent"] <= AT_ONCE + 1
    assert nights.posts() <= 20 + AT_ONCE + 1
    assert_ties(result)
    nights.world.faults.clear()
    nights.world.advance(hours=1)
    assert nights.run().exit_code == 0
    assert set(nights.states().values()) == {"created"}
    assert_each_key_once(nights)


def test_failures_of_single_customers_stop_nothing(make_nights: MakeNights) -> None:
    nights = make_nights(broken_world(), latency_seconds=0.005)
    for number in range(10, 40):
        nights.world.delete_customer(f"cus_{number}")
    result = nights.run()
    assert result.exit_code == 4
    assert Counter(nights.states().values()) == {"created": CUSTOMERS - 30, "rejected": 30}
    assert_ties(result)


class TakenOver:
    """Another run takes the lock over once so many requests were started."""

    def __init__(self, nights: Nights, after: int) -> None:
        self._path = nights.database_url.removeprefix("sqlite:///")
        self._left = after

    @contextmanager
    def step(self, name: str, total: int | None = None) -> Iterator[TakenOver | NoStep]:
        yield self if name == "relink requests" else NoStep()

    def advance(self, count: int = 1, total: int | None = None) -> None:
        self._left -= count
        if self._left == 0:
            with sqlite3.connect(self._path) as connection:
                connection.execute("UPDATE relink_lease SET token = token + 1, holder = NULL")


class NoStep:
    def advance(self, count: int = 1, total: int | None = None) -> None:
        """Nobody is watching."""


def test_a_run_that_was_taken_over_lets_nothing_more_out(make_nights: MakeNights) -> None:
    """What was under way is recorded or settled by the next run, under the same keys."""
    nights = make_nights(broken_world(), latency_seconds=0.005)
    with pytest.raises(LeaseLost):
        nights.run(progress=TakenOver(nights, 25))
    assert len(nights.world.effects) == 25
    nights.world.advance(hours=1)
    assert nights.run().exit_code == 0
    assert set(nights.states().values()) == {"created"}
    assert_each_key_once(nights)


@pytest.mark.parametrize("started", [0, 2])
def test_threads_that_cannot_be_started_hinder_nobody(
    make_nights: MakeNights, monkeypatch: pytest.MonkeyPatch, started: int
) -> None:
    """The machine allows no more of them: fewer, or none, share the work."""
    start = threading.Thread.start

    def start_or_not(thread: threading.Thread) -> None:
        if thread.name.startswith("relink-send-") and int(thread.name.rpartition("-")[2]) >= started:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_or_not)
    nights = make_nights(broken_world(), latency_seconds=0.001)
    assert nights.run().exit_code == 0
    assert set(nights.states().values()) == {"created"}
    assert_each_key_once(nights)
