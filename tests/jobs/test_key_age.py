"""Nothing is put on the wire under a key that Stripe may have forgotten, wherever the machine slept."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import MethodType

import pytest
from sqlalchemy import text

from jobs.adapters import lease as lease_module
from jobs.adapters.database import open_database
from jobs.clock import elapsed_seconds
from jobs.key_age import KEY_LIFETIME, KeyAge
from reconcile.errors import LeaseLost
from tests.jobs.dying import die
from tests.jobs.nights import Nights, assert_ties
from tests.jobs.test_settle import assert_each_attempt_once

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
ALL = 1000


class Hand:
    """A clock that is set by hand, or not heard."""

    def __init__(self, now: datetime | None = NOON) -> None:
        self.now = now

    def __call__(self) -> datetime | None:
        return self.now


def hours(number: float) -> timedelta:
    return timedelta(hours=number)


def test_the_clock_that_moved_furthest_is_believed() -> None:
    wall, server = Hand(), Hand(NOON + hours(9))
    age = KeyAge(hours(1), (wall, server))
    assert age.now() == hours(1), "that two clocks differ is no age"
    wall.now = NOON + hours(2)
    assert age.now() == hours(3)
    server.now = NOON + hours(9 + 5)
    assert age.now() == hours(6)


def test_a_clock_set_back_makes_no_key_young() -> None:
    wall = Hand()
    age = KeyAge(hours(0), (wall,))
    wall.now = NOON + hours(5)
    age.now()
    wall.now = NOON - hours(50)
    assert age.now() == hours(5)


def test_a_clock_heard_late_counts_on_from_there() -> None:
    wall, server = Hand(), Hand(None)
    age = KeyAge(hours(0), (wall, server))
    wall.now, server.now = NOON + hours(4), NOON - hours(700)
    assert age.now() == hours(4)
    server.now += hours(3)
    assert age.now() == hours(7)


def test_it_expires_at_twenty_hours() -> None:
    wall = Hand()
    age = KeyAge(hours(0), (wall,))
    wall.now = NOON + KEY_LIFETIME - timedelta(seconds=1)
    assert not age.expired()
    wall.now = NOON + KEY_LIFETIME
    assert age.expired()


class Machine:
    """This machine's clocks, and what happens while it sleeps inside a call; the stand-in's clock is `nights.now`."""

    def __init__(self, nights: Nights, asleep: Callable[[Machine], None]) -> None:
        self.nights = nights
        self.wall = nights.now()
        self.boot_ahead = 0.0
        self._asleep: Callable[[Machine], None] | None = asleep

    def run(self, **sections: dict[str, object]) -> int:
        return self.nights.run(
            clock=lambda: self.wall,
            elapsed_seconds=lambda: elapsed_seconds() + self.boot_ahead,
            sleep=self.sleep,
            **sections,
        ).exit_code

    def sleep(self, _: float) -> None:
        """Stand in for the pause before a further attempt: the first one, with a request under way, is the long one."""
        if self._asleep is not None and "attempting" in self.nights.states().values():
            asleep, self._asleep = self._asleep, None
            asleep(self)


def wall_moves(number: float) -> Callable[[Machine], None]:
    """Time passes for the stand-in too; only the wall clock tells this machine."""

    def asleep(machine: Machine) -> None:
        machine.nights.world.advance(hours=number)
        machine.wall += hours(number)

    return asleep


def boot_moves(number: float) -> Callable[[Machine], None]:
    """Somebody set the wall clock back meanwhile; the clock that counts from boot tells."""

    def asleep(machine: Machine) -> None:
        machine.nights.world.advance(hours=number)
        machine.wall -= hours(number)
        machine.boot_ahead += number * 3600

    return asleep


def only_stripe_moves(number: float) -> Callable[[Machine], None]:
    """A suspended virtual machine: none of its clocks counted."""

    def asleep(machine: Machine) -> None:
        machine.nights.world.advance(hours=number)

    return asleep


@pytest.mark.parametrize("asleep", [wall_moves, boot_moves])
@pytest.mark.parametrize(("number", "state"), [(19.9, "created"), (20, "unknown"), (30, "unknown")])
def test_a_sleep_between_two_tries_of_a_post(
    nights: Nights, asleep: Callable[[float], Callable[[Machine], None]], number: float, state: str
) -> None:
    nights.world.faults.script("reset_after", method="POST", times=1)
    machine = Machine(nights, asleep(number))
    assert machine.run() == (0 if state == "created" else 4)
    first = nights.by_authorization()["fcauth_1"]
    assert (first.state, first.calls) == (state, 2 if state == "created" else 1)
    assert first.error_type == (None if state == "created" else "key_expired")
    assert nights.states()["fcauth_2"] == nights.states()["fcauth_3"] == "created"
    assert len(nights.world.effects) == 3
    assert_each_attempt_once(nights)


def test_stripes_date_tells_where_no_clock_of_the_machine_does(nights: Nights) -> None:
    """The one try that nothing could stop is answered with a date; there is no third."""
    nights.world.faults.script("error_503", method="POST", times=2)
    machine = Machine(nights, only_stripe_moves(21))
    assert machine.run() == 4
    first = nights.by_authorization()["fcauth_1"]
    assert (first.state, first.calls, first.error_type) == ("unknown", 2, "key_expired")
    assert_each_attempt_once(nights)


def test_what_stripe_certainly_did_not_do_is_not_sent_and_free_for_the_next_night(nights: Nights) -> None:
    nights.world.faults.script("rate_limit", method="POST", times=1)
    machine = Machine(nights, wall_moves(20))
    assert machine.run() == 4
    assert nights.states() == {"fcauth_1": "not_sent", "fcauth_2": "created", "fcauth_3": "created"}
    nights.next_night()
    assert nights.states()["fcauth_1"] == "created"
    assert_each_attempt_once(nights)


def test_a_sleep_between_the_intent_and_its_post(nights: Nights) -> None:
    """The wait for a slot is after the intent and before the check."""
    machine = Machine(nights, wall_moves(20))
    assert machine.run(stripe={"requests_per_second": 0.01}) == 4
    first = nights.by_authorization()["fcauth_1"]
    assert (first.state, first.calls, first.error_type) == ("not_sent", 0, "key_expired")
    assert nights.posts() == 2


def test_a_sleep_before_a_replay(nights: Nights) -> None:
    """Nineteen hours old when settling began, more than twenty when its slot came: what the dead run did is not known."""
    die(nights, "after_post")
    nights.world.advance(hours=19)
    machine = Machine(nights, wall_moves(1))
    result = nights.run(clock=lambda: machine.wall, sleep=machine.sleep, stripe={"requests_per_second": 0.01})
    assert result.exit_code == 4, "the run that died told nobody"
    assert_ties(result)
    first = nights.by_authorization()["fcauth_1"]
    assert (first.state, first.error_type) == ("unknown", "key_expired")
    assert_each_attempt_once(nights)


def test_an_intent_is_dated_by_stripe_where_the_own_clock_is_ahead(nights: Nights) -> None:
    """Else a key of 25 hours would look as if it were made this moment, once the clock is right again."""
    now = nights.now
    nights.now = MethodType(lambda self: now() + hours(25), nights)  # type: ignore[method-assign]
    die(nights, "after_post")
    nights.now = now  # type: ignore[method-assign]
    nights.world.advance(hours=25)
    nights.run()
    first = [one for one in nights.stored() if one.authorization_id == "fcauth_1" and one.request.attempt == 1]
    assert [one.state for one in first] == ["unknown"]
    assert_each_attempt_once(nights)


def test_a_run_that_lost_the_lock_between_two_tries_makes_no_further_post(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    late_seconds = 0.0

    def taken_over(machine: Machine) -> None:
        nonlocal late_seconds
        with open_database(nights.database_url) as database:
            database.run(lambda connection: connection.execute(text("UPDATE relink_lease SET token = token + 1")))
        late_seconds = 3600.0

    monkeypatch.setattr(lease_module, "_elapsed", lambda: elapsed_seconds() + late_seconds)
    nights.world.faults.script("error_503", method="POST", times=ALL)
    machine = Machine(nights, taken_over)
    with pytest.raises(LeaseLost):
        machine.run()
    assert nights.posts() == 1
    assert nights.states() == {"fcauth_1": "attempting", "fcauth_2": "planned", "fcauth_3": "planned"}
