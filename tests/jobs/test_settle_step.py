"""Settling by itself, over records as a dead run leaves them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from jobs.adapters import records
from jobs.key_age import KEY_LIFETIME
from jobs.settle import settle
from reconcile.errors import KeyRefused, LeaseLost
from tests.jobs.adapters.stored_values import DATE, OTHER_SCOPE
from tests.jobs.conftest import MakeNights
from tests.jobs.decided import Decided, decided

HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)


@pytest.fixture
def night(make_nights: MakeNights, sqlite_url: str) -> Iterator[Decided]:
    with decided(make_nights(database_url=sqlite_url)) as one:
        yield one


def test_nothing_is_settled_without_the_lock(night: Decided) -> None:
    night.store(night.asked(1))
    settle(replace(night.wiring, lease=None), night.night)
    assert (night.states(), night.night.settled) == ({"req_1": "planned"}, [])


def test_only_other_runs_that_are_recorded_as_running_have_died(night: Decided) -> None:
    database, now = night.wiring.database, night.machine.now()
    for run_id in ("dead", "stopped"):
        records.start_run(database, run_id, "run", DATE, now, settings_hash="hash", settings={})
    records.finish_run(database, "stopped", records.STOPPED, now, 3, why="no room")
    night.machine.ahead = HOUR
    settle(night.wiring, night.night)
    runs = {run_id: records.run(database, run_id) for run_id in ("dead", "stopped", night.night.stamp.run_id)}
    told = [one and (one.state, one.finished_at, one.exit_code, one.why) for one in runs.values()]
    assert told == [
        ("interrupted", now + HOUR, 1, "the run died; the next one settled it"),
        ("stopped", now, 3, "no room"),
        ("running", None, None, None),
    ]


def test_what_was_planned_is_given_up_and_told(night: Decided, caplog: pytest.LogCaptureFixture) -> None:
    night.store(night.asked(1), night.asked(2))
    night.machine.ahead = HOUR
    settle(night.wiring, night.night)
    for request_id in ("req_1", "req_2"):
        stored = night.stored(request_id)
        assert (stored.state, stored.answered_at) == ("not_sent", night.machine.now())
        assert stored.error_message == "the run ended before it was sent"
    assert sorted(night.night.settled) == ["req_1", "req_2"]
    assert (night.night.replays, night.nights.posts()) == (0, 0)
    assert night.night.merchant.gateway.meter.counts().reads == {}, "no clock is needed where nothing was under way"
    assert "settled 2 requests" in caplog.text


def test_another_mode_is_left_to_itself(night: Decided) -> None:
    night.store(night.asked(1))
    night.attempting(night.asked(2))
    there = replace(night.night.merchant, scope=OTHER_SCOPE)
    settle(night.wiring, replace(night.night, merchant=there))
    assert night.states() == {"req_1": "planned", "req_2": "attempting"}


@pytest.mark.parametrize(
    ("age", "state"),
    [
        (KEY_LIFETIME - SECOND, "created"),
        (KEY_LIFETIME, "unknown"),
        (timedelta(minutes=-1), "created"),
        (timedelta(minutes=-1) - SECOND, "unknown"),
    ],
)
def test_a_key_is_asked_under_again_while_it_is_young_and_its_beginning_has_come(
    night: Decided, age: timedelta, state: str
) -> None:
    """By Stripe's clock: this machine's was set back a day meanwhile."""
    night.attempting(night.asked(1), at=night.machine.now() - age)
    night.machine.ahead = timedelta(days=-1)
    settle(night.wiring, night.night)
    stored = night.stored("req_1")
    assert stored.state == state
    assert night.night.settled == ["req_1"]
    assert (night.nights.posts(), night.night.replays) == ((1, 1) if state == "created" else (0, 0))
    if state == "unknown":
        assert (stored.error_type, stored.answered_at) == ("key_expired", night.machine.now())
        assert "the idempotency key is too old to ask again" in str(stored.error_message)


def test_a_run_that_was_taken_over_gives_up_no_key(night: Decided) -> None:
    night.attempting(night.asked(1), at=night.machine.now() - KEY_LIFETIME)
    night.take_over()
    with pytest.raises(LeaseLost):
        settle(night.wiring, night.night)
    assert night.states() == {"req_1": "attempting"}


def test_each_is_replayed_under_its_own_key_and_age(night: Decided) -> None:
    first, second = night.attempting(night.asked(1), night.asked(2))
    (old,) = night.attempting(night.asked(3), at=night.machine.now() - KEY_LIFETIME)
    settle(night.wiring, night.night)
    assert night.states() == {"req_1": "created", "req_2": "created", "req_3": "unknown"}
    keys = [effect.idempotency_key for effect in night.nights.world.effects]
    assert sorted(keys) == sorted([first.idempotency_key, second.idempotency_key])
    assert old.idempotency_key not in keys
    assert (sorted(night.night.settled), night.night.replays) == (["req_1", "req_2", "req_3"], 2)


def test_a_replay_that_ends_the_run_is_counted(night: Decided) -> None:
    night.attempting(night.asked(1), night.asked(2))
    night.nights.world.faults.script("unauthorized", method="POST", skip=1)
    with pytest.raises(KeyRefused):
        settle(night.wiring, night.night)
    assert sorted(night.states().values()) == ["attempting", "created"]
    assert night.night.replays == 2


def test_in_quiet_times_stripe_is_not_made_to_write_to_anybody(
    make_nights: MakeNights, sqlite_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    nights = make_nights(database_url=sqlite_url)
    nights.sections["relink"] = {"quiet_dates": [nights.now().date().isoformat()]}
    with decided(nights) as night:
        mailed = {"delivery": "hosted_email", "return_url": "https://shop.example/back"}
        night.attempting(night.asked(1, **mailed), night.asked(2), night.asked(3, **mailed))
        night.attempting(night.asked(4, **mailed), at=night.machine.now() - KEY_LIFETIME)
        settle(night.wiring, night.night)
        assert night.states() == {"req_1": "attempting", "req_2": "created", "req_3": "attempting", "req_4": "unknown"}
        assert sorted(night.night.settled) == ["req_2", "req_4"]
        assert f"request req_1 is not settled yet: quiet date {nights.now().date().isoformat()}" in caplog.text
