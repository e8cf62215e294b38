"""Storing and sending a night's plan by themselves: what each request is left with, and who is left out."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from sqlalchemy import text

from jobs.adapters import records
from jobs.relink import relink, store_plan
from jobs.work import Work
from reconcile.errors import KeyRefused, LeaseLost
from reconcile.model import CoveredAccount, Holder, Outcome, Plan, Scope
from reconcile.records import ReadFailed
from reconcile.request import session_parameters
from reconcile.session_request import encode_session_request
from tests.jobs.adapters.stored_values import DATE, SCOPE
from tests.jobs.conftest import MakeNights
from tests.jobs.decided import Decided, Told, decided
from tests.jobs.nights import small_world

HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)
ATTEMPTS = 3
"""`stripe.max_attempts` of the test settings."""


@pytest.fixture
def night(make_nights: MakeNights, sqlite_url: str) -> Iterator[Decided]:
    """Nine customers, all of them broken."""
    nights = make_nights(small_world(customers=9, broken=range(1, 10)), sqlite_url)
    with decided(nights, progress=Told()) as one:
        yield one


def reads(night: Decided) -> int:
    return night.nights.reads("accounts.retrieve")


# The plan


def test_a_plan_is_stored_with_the_bytes_that_will_be_sent(night: Decided, caplog: pytest.LogCaptureFixture) -> None:
    asked = (night.asked(1), night.asked(2, limit_accounts=1))
    night.machine.ahead = HOUR
    for stored, request in zip(night.store(*asked), asked, strict=True):
        assert stored.request == request
        body = encode_session_request(session_parameters(request, night.wiring.policy))
        version = night.wiring.settings.stripe.api_version
        assert (stored.state, stored.request_body, stored.api_version) == ("planned", body, version)
        stamp = night.night.stamp
        assert (stored.run_id, stored.business_date) == (stamp.run_id, stamp.business_date)
        assert stored.planned_at == night.machine.now()
    assert (night.night.skipped, caplog.messages) == ([], [])


def test_of_a_plan_only_what_is_taken_is_left_out(night: Decided, caplog: pytest.LogCaptureFixture) -> None:
    night.store(night.asked(2))
    night.machine.ahead = HOUR
    night.night.plan = Plan((night.asked(1), replace(night.asked(2), request_id="req_again"), night.asked(3)), ())
    store_plan(night.wiring, night.night)
    assert night.states() == {"req_1": "planned", "req_2": "planned", "req_3": "planned", "req_again": "not_sent"}
    ((authorization_id, why),) = night.night.skipped
    assert authorization_id == "fcauth_2"
    assert "connection breakage 1, attempt 1" in why
    left, stamp = night.stored("req_again"), night.night.stamp
    assert (left.error_type, left.error_message, left.answered_at) == ("contact_taken", why, night.machine.now())
    assert (left.run_id, left.business_date) == (stamp.run_id, stamp.business_date)
    one_by_one = night.stored("req_1")
    assert (one_by_one.run_id, one_by_one.business_date) == (stamp.run_id, stamp.business_date)
    assert (one_by_one.planned_at, one_by_one.request_body != "") == (night.machine.now(), True)
    assert f"the requests are stored one by one, since not all can be: {why}" in caplog.text


@pytest.mark.parametrize("taken", [False, True])
def test_a_run_that_was_taken_over_stores_nothing(night: Decided, taken: bool) -> None:
    """Neither the whole plan nor, where that cannot be, the rest of it, before which it slept."""
    if taken:
        night.store(night.asked(1))
    before = night.states()
    looks = 0

    def clock() -> datetime:
        nonlocal looks
        looks += 1
        if looks == (2 if taken else 1):
            with night.wiring.database.begin() as connection:
                connection.execute(text("UPDATE relink_lease SET token = token + 1"))
        return night.machine.now()

    night.wiring = replace(night.wiring, clock=clock)
    with pytest.raises(LeaseLost):
        night.store(replace(night.asked(1), request_id="req_again"), night.asked(2))
    assert night.states() == before


# The sending


def test_this_runs_requests_are_sent_in_order_and_no_others(night: Decided) -> None:
    database = night.wiring.database
    records.start_run(database, "other", "run", DATE, night.machine.now(), settings_hash="hash", settings={})
    mine = night.night
    night.night = replace(mine, stamp=replace(mine.stamp, run_id="other"))
    night.store(night.asked(9))
    night.night = mine
    night.store(night.asked(3), night.asked(1), night.asked(2), night.asked(4))
    records.record_not_sent(database, "req_4", night.machine.now())
    foreign = night.asked(8, merchant="other")
    there, stamp = Scope("other", foreign.mode), mine.stamp
    planned = [(foreign, "", "")]
    records.plan_requests(database, there, stamp.run_id, stamp.business_date, planned, night.machine.now())
    relink(night.wiring, night.night)
    assert night.states() == {
        "req_1": "created",
        "req_2": "created",
        "req_3": "created",
        "req_4": "not_sent",
        "req_9": "planned",
    }
    assert [one.state for one in records.planned_requests(database, there)] == ["planned"]
    assert [effect.authorization_id for effect in night.nights.world.effects] == ["fcauth_1", "fcauth_2", "fcauth_3"]
    assert (night.night.created, night.night.skipped, reads(night)) == (3, [], 0)
    told = night.wiring.progress
    assert isinstance(told, Told)
    assert (told.steps, told.advanced) == ([("relink requests", 3)], 3)


def test_how_many_were_made_is_known_also_where_the_key_was_refused_midway(night: Decided) -> None:
    night.store(night.asked(1), night.asked(2), night.asked(3))
    night.nights.world.faults.script("unauthorized", method="POST", skip=1)
    with pytest.raises(KeyRefused):
        relink(night.wiring, night.night)
    assert night.states() == {"req_1": "created", "req_2": "not_sent", "req_3": "planned"}
    assert night.night.created == 1


def test_a_bank_that_cannot_be_reached_is_left_alone_after_three_refusals(
    night: Decided, caplog: pytest.LogCaptureFixture
) -> None:
    """One of which no bank is known is sent all the same."""
    bank = "Alderbrook Mutual"
    night.nights.world.set_unavailable(bank)
    nameless = night.asked(6, institution_name=None)
    night.store(*(night.asked(number, institution_name=bank) for number in (1, 2, 3, 4, 5)), nameless)
    relink(night.wiring, night.night)
    assert night.nights.posts() == 4
    left = [night.stored(f"req_{number}") for number in (4, 5)]
    assert {(one.state, one.error_type, one.answered_at) for one in left} == {
        ("not_sent", "institution_unavailable", night.machine.now())
    }
    why = "Stripe could not reach the institution 3 times in this run; the next date asks again"
    assert {one.error_message for one in left} == {why}
    assert f"request req_4 is not sent: {why}" in caplog.messages
    told = night.wiring.progress
    assert isinstance(told, Told)
    assert told.advanced == 6


class MinuteEach(Told):
    """A minute passes with each request."""

    machine: Decided

    def advance(self, count: int = 1, total: int | None = None) -> None:
        super().advance(count, total)
        self.machine.machine.ahead += timedelta(minutes=1)


def test_what_quiet_hours_overtake_is_left_for_the_next_run(make_nights: MakeNights, sqlite_url: str) -> None:
    nights = make_nights(small_world(customers=4, broken=range(1, 5)), sqlite_url)
    nights.sections["relink"] = {"quiet_hours": f"{nights.now() + timedelta(minutes=2):%H:%M}-23:59"}
    told = MinuteEach()
    with decided(nights, progress=told) as night:
        told.machine = night
        night.store(*(night.asked(number) for number in (1, 2, 3, 4)))
        relink(night.wiring, night.night)
        assert night.states() == {"req_1": "created", "req_2": "created", "req_3": "not_sent", "req_4": "not_sent"}
        assert night.night.created == 2
        for number in (3, 4):
            left = night.stored(f"req_{number}")
            assert (left.error_type, left.answered_at) == ("quiet_time", night.machine.now())
            assert str(left.error_message).endswith(" began before it was sent")
            assert str(left.error_message).startswith("quiet hours")
            assert (f"fcauth_{number}", left.error_message) in night.night.skipped
        assert len(night.night.skipped) == 2


# Accounts that are read again


@pytest.mark.parametrize(
    ("passed", "seen", "resumes", "expected"),
    [
        (HOUR, None, (), 0),
        (HOUR + SECOND, None, (), 2),
        (None, None, (), 2),
        (HOUR, None, ("dead",), 2),
        (HOUR, {"fca_1_1", "fca_1_2"}, (), 0),
        (HOUR, {"fca_1_1"}, (), 2),
        (HOUR, set(), (), 2),
    ],
)
def test_accounts_are_read_again_that_were_seen_more_than_an_hour_ago_or_by_a_run_that_died(
    night: Decided, passed: timedelta | None, seen: set[str] | None, resumes: tuple[str, ...], expected: int
) -> None:
    night.store(night.asked(1))
    one = replace(night.night, work=Work("run", resumes=resumes))
    one.read_ids = None if seen is None else frozenset(seen)
    one.taken_at = None if passed is None else night.machine.now() - passed
    relink(night.wiring, one)
    assert (reads(night), night.states()) == (expected, {"req_1": "created"})


def later(night: Decided) -> None:
    night.machine.ahead = HOUR + SECOND


def left_out(night: Decided) -> tuple[str, str]:
    """The outcome and the reason of a request that was not sent after its accounts were read again."""
    stored, stamp, now = night.stored("req_1"), night.night.stamp, night.machine.now()
    assert (stored.state, stored.answered_at, night.nights.posts()) == ("not_sent", now, 0)
    ((observed_at, run_id, outcome),) = records.outcomes_of(night.wiring.database, "req_1")
    assert (observed_at, run_id) == (now, stamp.run_id)
    assert outcome == Outcome("req_1", outcome.kind, None, now, "observed", accounts_cured=0)
    ended = records.requests_with_outcome_of_run(night.wiring.database, SCOPE, stamp.run_id)
    assert [one.request.request_id for one in ended] == ["req_1"]
    assert night.night.skipped == [("fcauth_1", stored.error_message)]
    return outcome.kind, str(stored.error_message)


@pytest.mark.parametrize("change", ["gone", "authorization", "holder", "holder_type"])
def test_accounts_that_changed_hands_are_not_asked_about(
    night: Decided, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    world = night.nights.world
    request = night.asked(1)
    if change == "gone":
        world.remove_account("fca_1_2")
    elif change == "authorization":
        world.override("fca_1_2", {"authorization": "fcauth_other"})
    elif change == "holder":
        world.set_holder("fca_1_2", ("customer", "cus_other"))
    else:
        request = replace(request, holder=Holder("account", request.holder.id))
    night.store(request)
    later(night)
    relink(night.wiring, night.night)
    assert left_out(night) == ("review", "its accounts have another holder or authorization now")
    warned = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
    assert warned == [], "nobody else has taken it"


@pytest.mark.parametrize("healed", ["fca_1_1", "fca_1_2"])
def test_one_account_that_works_again_leaves_the_other_to_be_asked_about(night: Decided, healed: str) -> None:
    night.store(night.asked(1))
    night.nights.world.heal_account(healed)
    later(night)
    relink(night.wiring, night.night)
    assert (reads(night), night.states()) == (2, {"req_1": "created"})


def test_accounts_that_all_work_again_are_not_asked_about(night: Decided, caplog: pytest.LogCaptureFixture) -> None:
    """One of them by a new date of its end that is far off, by tonight's date and the days of the settings."""
    covered = (CoveredAccount("fca_1_1", "inactive"), CoveredAccount("fca_1_2", "expiring"))
    night.store(night.asked(1, covered=covered))
    world = night.nights.world
    world.heal_authorization("fcauth_1")
    days = night.wiring.policy.expiring_within_days
    world.expect_deactivation("fcauth_1", night.nights.now() + timedelta(days=days + 2))
    later(night)
    with caplog.at_level("INFO"):
        relink(night.wiring, night.night)
    assert left_out(night) == ("healed", "its accounts work again")
    told = [one.message for one in caplog.records if one.name == "jobs.relink"]
    assert told == ["request req_1 was not needed: its accounts work again"]
    assert "is left alone" not in caplog.text, "nobody else has taken it"


def test_what_cannot_be_read_again_is_not_sent_and_hinders_nobody(
    night: Decided, caplog: pytest.LogCaptureFixture
) -> None:
    """Four in a row, twice: the one between them was read."""
    night.store(*(night.asked(number) for number in range(1, 10)))
    later(night)
    faults = night.nights.world.faults
    faults.script("error_503", path="*/accounts/*", times=4 * ATTEMPTS)
    faults.script("error_503", path="*/accounts/*", skip=2, times=4 * ATTEMPTS)
    relink(night.wiring, night.night)
    states = night.states()
    assert states.pop("req_5") == "created"
    assert set(states.values()) == {"not_sent"}
    stored = night.stored("req_1")
    assert str(stored.error_message).startswith("its accounts could not be read again: ")
    assert "503" in str(stored.error_message)
    assert (stored.answered_at, night.nights.posts()) == (night.machine.now(), 1)
    assert "is left alone" not in caplog.text, "that would be another program's doing"
    told = night.wiring.progress
    assert isinstance(told, Told)
    assert told.advanced == 9


def test_five_in_a_row_that_cannot_be_read_again_end_the_sending(night: Decided) -> None:
    night.store(*(night.asked(number) for number in range(1, 8)))
    later(night)
    night.nights.world.faults.script("error_503", path="*/accounts/*", times=100)
    with pytest.raises(ReadFailed):
        relink(night.wiring, night.night)
    assert list(night.states().values()) == ["not_sent"] * 4 + ["planned"] * 3
