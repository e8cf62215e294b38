"""One request by itself: the intent, the leave for each try, and what each answer leaves on record."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import product
from pathlib import Path

import pytest

from jobs.adapters import records
from jobs.key_age import KEY_LIFETIME
from jobs.send import begin, conclude, later_clock, moment_of_intent, new_key_age, post, state_after
from jobs.simulator.reply import Call, Reply
from jobs.simulator.server import SimulatorServer
from jobs.simulator.world import World
from reconcile.errors import LeaseLost, ModeMismatch
from reconcile.model import Scope
from reconcile.records import CallFailure, SessionCreated
from tests.jobs.conftest import MakeNights
from tests.jobs.decided import Decided, decided
from tests.jobs.nights import Nights, small_world

HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)


@pytest.fixture
def night(make_nights: MakeNights, sqlite_url: str) -> Iterator[Decided]:
    with decided(make_nights(database_url=sqlite_url)) as one:
        yield one


def created(**overrides: object) -> SessionCreated:
    values = {
        "session_id": "fcsess_1",
        "status": "pending",
        "has_relink_options": True,
        "requested_authorization": "fcauth_1",
        "livemode": False,
        "replayed": False,
        "request_id": "req_of_stripe",
        "server_at": None,
        "wire_attempts": 2,
    }
    return SessionCreated(**{**values, **overrides})  # type: ignore[arg-type]


# The intent


def test_nothing_begins_without_the_lock(night: Decided) -> None:
    (stored,) = night.store(night.asked(1))
    with pytest.raises(RuntimeError, match="nothing is sent without the lock"):
        begin(replace(night.wiring, lease=None), night.night.merchant, stored)
    lease = night.wiring.lease
    assert lease is not None
    lease.release()
    with pytest.raises(LeaseLost):
        begin(night.wiring, night.night.merchant, stored)
    assert night.states() == {"req_1": "planned"}


def test_a_try_may_go_out_while_the_lock_is_held_and_the_key_is_young(night: Decided) -> None:
    (stored,) = night.store(night.asked(1))
    may_send = begin(night.wiring, night.night.merchant, stored)
    after = night.stored("req_1")
    assert (after.state, after.attempting_at) == ("attempting", night.machine.now())
    assert may_send() is True
    night.machine.ahead = KEY_LIFETIME
    assert may_send() is False
    assert night.wiring.lease is not None
    night.wiring.lease.release()
    with pytest.raises(LeaseLost):
        may_send()


def test_only_a_replay_begins_what_was_begun(night: Decided) -> None:
    """And it goes by the age of its key, not by its own."""
    (stored,) = night.store(night.asked(1))
    merchant = night.night.merchant
    with pytest.raises(records.ContactTaken):
        begin(night.wiring, merchant, stored, replay=new_key_age(night.wiring, merchant))
    begin(night.wiring, merchant, stored)
    with pytest.raises(records.ContactTaken):
        begin(night.wiring, merchant, stored)
    nearly = new_key_age(night.wiring, merchant, KEY_LIFETIME - SECOND)
    may_send = begin(night.wiring, merchant, stored, replay=nearly)
    assert may_send() is True
    night.machine.ahead = SECOND
    assert may_send() is False


# The clocks


@pytest.mark.parametrize("clock", ["wall", "boot", "stripe"])
def test_each_clock_alone_makes_a_key_too_old(night: Decided, clock: str) -> None:
    machine, merchant = night.machine, night.night.merchant
    if clock == "stripe":
        later_clock(night.wiring, merchant)
    young, old = (new_key_age(night.wiring, merchant, *age) for age in ((), (HOUR,)))
    assert (young.now(), old.now()) == (timedelta(0), HOUR)
    if clock == "wall":
        machine.ahead += 19 * HOUR
    elif clock == "boot":
        machine.boot_seconds += 19 * 3600
    else:
        night.nights.world.advance(hours=19)
        machine.ahead -= 19 * HOUR
        later_clock(night.wiring, merchant)
    assert (young.expired(), old.expired()) == (False, True)


@pytest.mark.parametrize("ahead", [-5 * HOUR, 5 * HOUR])
def test_the_later_clock_is_asked_for(night: Decided, ahead: timedelta) -> None:
    night.machine.ahead = ahead
    latest = max(night.nights.now(), night.machine.now())
    assert later_clock(night.wiring, night.night.merchant) == latest
    assert night.night.merchant.gateway.meter.counts().reads == {"clock": 1}


@pytest.mark.parametrize(
    ("ahead", "believed"), [(-5 * HOUR, True), (60 * SECOND, True), (61 * SECOND, False), (25 * HOUR, False)]
)
def test_an_intent_is_dated_by_stripe_where_the_own_clock_is_ahead_by_more_than_a_minute(
    night: Decided, ahead: timedelta, believed: bool
) -> None:
    night.machine.ahead = ahead
    expected = night.machine.now() if believed else night.nights.now()
    for _ in range(2):
        assert moment_of_intent(night.wiring, night.night.merchant) == expected
    assert night.night.merchant.gateway.meter.counts().reads == {"clock": 1}, "Stripe's clock is heard from then on"


# The call


class Undated(SimulatorServer):
    """A stand-in, or a proxy before Stripe, whose answers have no date that can be read."""

    def _respond(self, call: Call) -> tuple[Reply, World]:
        reply, world = super()._respond(call)
        return replace(reply, headers={**reply.headers, "Date": "none"}), world


def test_where_stripe_tells_no_time_an_intent_is_dated_by_ours(tmp_path: Path, sqlite_url: str) -> None:
    world = small_world()
    with Undated(world) as server, decided(Nights(world, server, tmp_path, sqlite_url)) as night:
        night.machine.ahead = 25 * HOUR
        assert moment_of_intent(night.wiring, night.night.merchant) == night.machine.now()


def test_the_stored_bytes_version_and_key_are_sent_and_the_answer_comes_back(night: Decided) -> None:
    """Also where the settings have come to name another version since."""
    (stored,) = night.store(night.asked(1))
    stored = replace(stored, api_version="2026-08-31.preview")
    answer = post(night.night.merchant, stored, lambda: True)
    assert isinstance(answer, SessionCreated)
    (call,) = [one for one in night.nights.world.log if one.method == "POST"]
    assert (call.api_version, call.idempotency_key) == (stored.api_version, stored.idempotency_key)
    (effect,) = night.nights.world.effects
    assert (effect.session_id, answer.requested_authorization) == (answer.session_id, "fcauth_1")
    assert night.states() == {"req_1": "planned"}, "it touches no record"


def test_a_call_that_may_not_go_out_or_is_refused_comes_back_as_a_failure(night: Decided) -> None:
    first, second = night.store(night.asked(1), night.asked(2, holder=replace(night.asked(2).holder, id="cus_none")))
    stopped = post(night.night.merchant, first, lambda: False)
    assert isinstance(stopped, CallFailure)
    assert (stopped.fault, stopped.wire_attempts, night.nights.posts()) == ("key_expired", 0, 0)
    refused = post(night.night.merchant, second, lambda: True)
    assert isinstance(refused, CallFailure)
    assert (refused.fault, refused.http_status) == ("rejected", 400)


# What it leaves


@pytest.mark.parametrize(
    ("failure", "state", "of_a_replay"),
    [
        (CallFailure("rejected", "", 400), "rejected", "rejected"),
        (CallFailure("rejected", "", 400, maybe_executed=True), "rejected", "rejected"),
        (CallFailure("institution_unavailable", "", 400), "rejected", "rejected"),
        (CallFailure("key_expired", ""), "not_sent", "unknown"),
        (CallFailure("key_expired", "", maybe_executed=True), "unknown", "unknown"),
        (CallFailure("idempotency_mismatch", "", 400), "unknown", "unknown"),
        (CallFailure("server", "", 500, maybe_executed=True), "unknown", "unknown"),
        (CallFailure("server", "", 500), "unknown", "unknown"),
        (CallFailure("server", "", 503, maybe_executed=True), "attempting", "attempting"),
        (CallFailure("rate", "", 500), "not_sent", "attempting"),
        (CallFailure("rate", "", 429), "not_sent", "attempting"),
        (CallFailure("rate", "", 429, maybe_executed=True), "attempting", "attempting"),
        (CallFailure("lock", "", 429), "not_sent", "attempting"),
        (CallFailure("in_use", "", 409, maybe_executed=True), "attempting", "attempting"),
        (CallFailure("key_refused", "", 401), "not_sent", "attempting"),
        (CallFailure("connection", ""), "not_sent", "attempting"),
        (CallFailure("connection", "", maybe_executed=True), "attempting", "attempting"),
        (CallFailure("cut_body", "", 200, maybe_executed=True), "attempting", "attempting"),
        (CallFailure("unparsable", "", 200, maybe_executed=True), "attempting", "attempting"),
    ],
    ids=str,
)
def test_each_failure_leaves_its_state(failure: CallFailure, state: str, of_a_replay: str) -> None:
    assert (state_after(failure), state_after(failure, replay=True)) == (state, of_a_replay)


def test_a_session_counts_from_when_stripe_made_it(night: Decided) -> None:
    """From its first attempt, unless it was made only now: by Stripe's date, or by our clock where the answer has none."""
    began = night.machine.now()
    cases = dict(enumerate(product((False, True), repeat=3)))
    attempting = night.attempting(*(night.asked(number) for number in cases))
    night.machine.ahead = 3 * HOUR
    for (number, (replay, replayed, dated)), stored in zip(cases.items(), attempting, strict=True):
        said = began + 2 * HOUR if dated else None
        answer = created(session_id=f"fcsess_{number}", replayed=replayed, server_at=said)
        assert conclude(night.wiring, night.night.merchant, stored, answer, replay=replay) is None
        expected = (said or night.machine.now()) if replay and not replayed else began
        after = night.stored(stored.request.request_id)
        assert (after.state, after.session_id, after.requested_at) == ("created", f"fcsess_{number}", expected)
        assert (after.calls, after.answered_at, after.stripe_request_id) == (2, night.machine.now(), "req_of_stripe")
        assert (after.resolved_by, after.error_type) == (None, None)


@pytest.mark.parametrize("mode", ["sandbox", "live"])
def test_a_session_of_the_other_mode_is_recorded_and_ends_the_sending(night: Decided, mode: str) -> None:
    right, wrong = night.attempting(night.asked(1), night.asked(2))
    merchant = replace(night.night.merchant, scope=Scope("main", mode))
    live = mode == "live"
    assert conclude(night.wiring, merchant, right, created(livemode=live)) is None
    with pytest.raises(ModeMismatch, match=f"made session fcsess_2 in another mode than {mode}"):
        conclude(night.wiring, merchant, wrong, created(livemode=not live, session_id="fcsess_2"))
    assert night.states() == {"req_1": "created", "req_2": "created"}


def test_an_answer_that_comes_after_the_request_was_given_up_settles_it(
    night: Decided, caplog: pytest.LogCaptureFixture
) -> None:
    (stored,) = night.attempting(night.asked(1))
    records.record_result(night.wiring.database, "req_1", "unknown", night.machine.now(), error_type="key_expired")
    night.machine.ahead = HOUR
    assert conclude(night.wiring, night.night.merchant, stored, created()) is None
    after = night.stored("req_1")
    assert (after.state, after.session_id, after.error_type) == ("created", "fcsess_1", "key_expired")
    assert (after.resolved_by, after.resolved_at) == ("the answer of Stripe came late", night.machine.now())
    assert "session fcsess_1 of request req_1" in caplog.text


def test_why_a_call_failed_is_recorded(night: Decided, caplog: pytest.LogCaptureFixture) -> None:
    """In Stripe's words, or, where it has none, in ours."""
    left = {"rejected": "rejected", "connection": "attempting", "rate": "not_sent"}
    cases = dict(enumerate(product(left.items(), (True, False))))
    attempting = night.attempting(*(night.asked(number) for number in cases))
    night.machine.ahead = HOUR
    for (number, ((fault, state), in_words)), stored in zip(cases.items(), attempting, strict=True):
        failure = CallFailure(
            fault,  # type: ignore[arg-type]
            "POST /v1/x",
            http_status=418,
            error_type="api_error" if in_words else None,
            error_code="a_code" if in_words else None,
            rate_limit_reason="endpoint-rate",
            request_id="req_of_stripe",
            message="said so",
            wire_attempts=3,
            maybe_executed=fault != "rate",
        )
        assert conclude(night.wiring, night.night.merchant, stored, failure) is failure
        after = night.stored(stored.request.request_id)
        assert (after.state, after.session_id, after.calls) == (state, None, 3)
        said = ("api_error", "a_code") if in_words else (fault, "endpoint-rate")
        assert (after.error_type, after.error_code) == said
        assert (after.error_message, after.http_status, after.stripe_request_id) == ("said so", 418, "req_of_stripe")
        assert after.answered_at == (None if state == "attempting" else night.machine.now())
        assert caplog.messages[-1].startswith(f"request req_{number} is {state}: POST /v1/x: {fault}")


@pytest.mark.parametrize(("fault", "http_status"), [("rejected", 400), ("server", 500), ("rate", 429)])
def test_a_run_that_was_taken_over_ends_nothing_without_a_session(night: Decided, fault: str, http_status: int) -> None:
    """The other one asks again, and has to be able to record the session that this makes; one that was made is better known."""
    first, second = night.attempting(night.asked(1), night.asked(2))
    night.take_over()
    failure = CallFailure(fault, "POST", http_status, wire_attempts=1)  # type: ignore[arg-type]
    with pytest.raises(LeaseLost):
        conclude(night.wiring, night.night.merchant, first, failure)
    assert conclude(night.wiring, night.night.merchant, second, created()) is None
    assert night.states() == {"req_1": "attempting", "req_2": "created"}


def test_a_replay_that_stripe_did_not_act_on_stays_open(night: Decided) -> None:
    (stored,) = night.attempting(night.asked(1))
    failure = CallFailure("rate", "POST", 429, wire_attempts=1)
    conclude(night.wiring, night.night.merchant, stored, failure, replay=True)
    assert night.states() == {"req_1": "attempting"}
    conclude(night.wiring, night.night.merchant, stored, failure)
    assert night.states() == {"req_1": "not_sent"}
