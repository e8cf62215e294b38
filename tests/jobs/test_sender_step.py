"""The sender by itself: what ends the sending, what does not, and how many may be under way."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import pytest

from jobs import sender as sender_module
from jobs.adapters import records
from jobs.crew import AT_ONCE, FAILURES_IN_A_ROW
from jobs.key_age import KEY_LIFETIME
from jobs.send import new_key_age
from jobs.sender import Sender
from jobs.simulator.reply import Call, Reply
from jobs.simulator.server import SimulatorServer
from jobs.simulator.world import World
from reconcile.delivery import UNAVAILABLE_LIMIT
from reconcile.errors import KeyRefused, ModeMismatch, StripeUnavailable
from reconcile.model import RelinkRequest, Scope, StoredRequest
from tests.jobs.conftest import MakeNights
from tests.jobs.decided import Decided, decided
from tests.jobs.nights import SESSIONS, Nights, small_world

ATTEMPTS = 3
"""`stripe.max_attempts` of the test settings."""
BANK = "Alderbrook Mutual"
GIVEN_UP_SECONDS = 10
"""So long something that never comes is waited for, so that a fault fails a test and does not hang it."""


def broken_world(customers: int = 30) -> World:
    return small_world(customers=customers, broken=range(1, customers + 1), accounts=1)


@pytest.fixture
def night(make_nights: MakeNights, sqlite_url: str) -> Iterator[Decided]:
    with decided(make_nights(broken_world(), sqlite_url)) as one:
        yield one


def stored(night: Decided, count: int, **overrides: object) -> list[StoredRequest]:
    return night.store(*(night.asked(number, **overrides) for number in range(1, count + 1)))


def fail(night: Decided, calls: int, kind: str = "error_503", **more: int) -> None:
    night.nights.world.faults.script(kind, method="POST", times=calls * ATTEMPTS, **more)


def sender_of(night: Decided) -> Sender:
    return Sender(night.wiring, night.night.merchant)


# One after the other


def test_five_of_stripes_failures_in_a_row_end_the_sending(night: Decided) -> None:
    kinds = ("error_503", "reset_before", "cut_body", "not_json", "rate_limit", "lock_timeout")
    waiting = iter(stored(night, FAILURES_IN_A_ROW * len(kinds)))
    for kind in kinds:
        fail(night, FAILURES_IN_A_ROW, kind)
        sender = sender_of(night)
        for _ in range(FAILURES_IN_A_ROW - 1):
            sender.send(next(waiting))
        with pytest.raises(StripeUnavailable, match=r"^5 calls in a row failed, the last one: .*run again later"):
            sender.send(next(waiting))
        assert sender.created == 0


@pytest.mark.parametrize("between", ["created", "rejected"])
def test_an_answer_between_failures_ends_the_row(night: Decided, between: str) -> None:
    """Also where it is a refusal, since that is Stripe working."""
    waiting = stored(night, 2 * FAILURES_IN_A_ROW)
    if between == "rejected":
        night.nights.world.delete_customer(f"cus_{FAILURES_IN_A_ROW}")
    fail(night, FAILURES_IN_A_ROW - 1)
    fail(night, FAILURES_IN_A_ROW, skip=1)
    sender = sender_of(night)
    for one in waiting[:-1]:
        sender.send(one)
    assert night.stored(f"req_{FAILURES_IN_A_ROW}").state == between
    assert sender.created == (1 if between == "created" else 0)
    with pytest.raises(StripeUnavailable):
        sender.send(waiting[-1])


def test_a_key_that_is_too_old_is_no_word_of_stripes(night: Decided) -> None:
    """Neither a failure nor an answer: the row goes on after it."""
    *failing, last = stored(night, FAILURES_IN_A_ROW)
    (old,) = night.attempting(night.asked(9))
    fail(night, FAILURES_IN_A_ROW)
    sender = sender_of(night)
    for one in failing:
        sender.send(one)
    sender.send(old, replay=new_key_age(night.wiring, night.night.merchant, KEY_LIFETIME))
    assert night.stored("req_9").state == "unknown"
    with pytest.raises(StripeUnavailable):
        sender.send(last)


def test_a_replay_is_recorded_as_one(night: Decided) -> None:
    """What Stripe did not act on this time stays open, since it may have acted before."""
    (begun,) = night.attempting(night.asked(1))
    fail(night, 1, "rate_limit")
    sender_of(night).send(begun, replay=new_key_age(night.wiring, night.night.merchant))
    assert night.stored("req_1").state == "attempting"


def test_a_refused_key_ends_the_sending_at_once(night: Decided) -> None:
    first, second = stored(night, 2)
    night.nights.world.faults.script("unauthorized", method="POST", skip=1)
    sender = sender_of(night)
    sender.send(first)
    with pytest.raises(KeyRefused, match=r"^Stripe refused the key midway: .*HTTP 401.* Check the key's permissions"):
        sender.send(second)
    assert (sender.created, night.stored("req_2").state) == (1, "not_sent")


def test_a_session_of_the_other_mode_counts_as_made(night: Decided) -> None:
    sender = Sender(night.wiring, replace(night.night.merchant, scope=Scope("main", "live")))
    for one in stored(night, 2):
        with pytest.raises(ModeMismatch):
            sender.send(one)
    assert sender.created == 2


def test_what_somebody_else_began_is_left_alone(night: Decided, caplog: pytest.LogCaptureFixture) -> None:
    (begun,) = night.attempting(night.asked(1))
    sender = sender_of(night)
    sender.send(begun)
    assert (sender.created, night.nights.posts()) == (0, 0)
    assert caplog.messages[-1].startswith("request req_1 is left alone: authorization fcauth_1")


def test_refusals_of_each_bank_are_counted(night: Decided) -> None:
    night.nights.world.set_unavailable(BANK)
    one, other, nameless = night.store(
        night.asked(1, institution_name=BANK),
        night.asked(2, institution_name="Other"),
        night.asked(3, institution_name=None),
    )
    sender = sender_of(night)
    for request in (one, other, nameless):
        sender.send(request)
    assert sender.unavailable == {BANK: 1, "Other": 1, "": 1}
    assert sender.created == 0


# Several at once


class Gated(SimulatorServer):
    """A stand-in that keeps the answers to POSTs back until they are let out."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.gate = threading.Event()
        self.gate.set()
        self.came = threading.Semaphore(0)
        self.meanwhile: Callable[[], None] | None = None

    def _respond(self, call: Call) -> tuple[Reply, World]:
        answer = super()._respond(call)
        if call.path == SESSIONS:
            self.came.release()
            if self.meanwhile is not None:
                self.meanwhile()
            self.gate.wait(GIVEN_UP_SECONDS)
        return answer


@dataclass
class Sending:
    """A sender and requests for it, of which nobody but this thread records an answer."""

    night: Decided
    server: Gated
    sender: Sender
    waiting: Iterator[StoredRequest]

    def send(self, count: int) -> None:
        for _ in range(count):
            self.sender.send(next(self.waiting))

    def start(self, count: int) -> list[str]:
        """Start so many more, each once there is room; returns the states in which that left them."""
        started = []
        for _ in range(count):
            one = next(self.waiting)
            self.sender.make_room(one)
            self.sender.start(one)
            started.append(one.request.request_id)
        return [str(self.night.stored(request_id).state) for request_id in started]

    def answers_taken_in_to_make_room(self) -> int:
        """Let the answers out, and say how many were recorded until one more may be started."""
        before = list(self.night.states().values()).count("attempting")
        self.server.gate.set()
        self.sender.make_room(next(self.waiting))
        return before - list(self.night.states().values()).count("attempting")


@pytest.fixture
def gated(tmp_path: Path, sqlite_url: str) -> Iterator[tuple[Decided, Gated]]:
    world = broken_world(60)
    with Gated(world) as server, decided(Nights(world, server, tmp_path, sqlite_url)) as night:
        yield night, server
        server.gate.set()


@contextmanager
def sending(gated: tuple[Decided, Gated], *requests: RelinkRequest) -> Iterator[Sending]:
    night, server = gated
    chosen = requests or tuple(night.asked(number, institution_name=None) for number in range(1, 61))
    waiting = iter(night.store(*chosen))
    with sender_of(night) as sender:
        yield Sending(night, server, sender, waiting)
        server.gate.set()


@pytest.mark.parametrize(("answers", "at_once"), [(6, 2), (8, 4), (24, AT_ONCE)])
def test_how_many_may_be_under_way_is_earned_by_answers(
    gated: tuple[Decided, Gated], answers: int, at_once: int
) -> None:
    """What is under way when `start` returns is `attempting`, since only this thread records answers."""
    with sending(gated) as one:
        one.send(answers)
        one.server.gate.clear()
        assert one.start(at_once) == ["attempting"] * at_once
        assert one.answers_taken_in_to_make_room() >= 1
    assert one.sender.created == answers + at_once


def test_a_failure_takes_back_what_was_earned(gated: tuple[Decided, Gated]) -> None:
    with sending(gated) as one:
        one.send(9)
        fail(one.night, 1, "rate_limit")
        one.send(1)
        assert one.start(FAILURES_IN_A_ROW + 1) == ["created"] * (FAILURES_IN_A_ROW + 1), "one after the other"
        one.server.gate.clear()
        assert one.start(1) == ["attempting"]


@pytest.mark.parametrize(
    ("bank", "answered", "refused", "at_once"),
    [
        (BANK, 2, 0, UNAVAILABLE_LIMIT + 2),
        (BANK, 2, 1, UNAVAILABLE_LIMIT - 1),
        (BANK, 0, UNAVAILABLE_LIMIT - 1, 1),
        (None, 0, 0, UNAVAILABLE_LIMIT),
    ],
)
def test_of_one_bank_no_more_are_under_way_than_may_be_refused_before_it_is_left_alone(
    gated: tuple[Decided, Gated], bank: str | None, answered: int, refused: int, at_once: int
) -> None:
    """Another bank's may be under way besides; a refusal forgets what the bank had answered before."""
    night, _ = gated
    others = [night.asked(number, institution_name="Other") for number in range(1, 25)]
    theirs = [night.asked(number, institution_name=bank) for number in range(30, 45)]
    count = answered + refused + at_once
    with sending(gated, *others[:20], *theirs[:count], *others[20:], *theirs[count:]) as one:
        one.send(20 + answered)
        night.nights.world.set_unavailable(BANK)
        one.send(refused)
        night.nights.world.set_unavailable(BANK, False)
        one.server.gate.clear()
        assert one.start(at_once + 4) == ["attempting"] * (at_once + 4)
        assert one.answers_taken_in_to_make_room() >= 1


@pytest.mark.parametrize("bank", [BANK, None])
def test_an_answer_makes_room_for_one_of_its_bank(gated: tuple[Decided, Gated], bank: str | None) -> None:
    """Three are under way; once one of them is answered, two are, and the bank has answered."""
    night, _ = gated
    others = [night.asked(number, institution_name="Other") for number in range(1, 31)]
    theirs = [night.asked(number, institution_name=bank) for number in range(31, 41)]
    first, second = theirs[:UNAVAILABLE_LIMIT], theirs[UNAVAILABLE_LIMIT:]
    with sending(gated, *others[:20], *first, second[0], *second[1:], *others[20:]) as one:
        one.send(20)
        one.server.gate.clear()
        assert one.start(UNAVAILABLE_LIMIT) == ["attempting"] * UNAVAILABLE_LIMIT
        assert one.answers_taken_in_to_make_room() == 1
        one.server.gate.clear()
        room = UNAVAILABLE_LIMIT + 1 - (UNAVAILABLE_LIMIT - 1)
        assert one.start(room) == ["attempting"] * room
        recorded = [night.stored(one_of_them.request_id).state for one_of_them in first].count("created")
        assert recorded == 1, "no further answer had to be taken in for that"
        assert one.answers_taken_in_to_make_room() == 1


def test_without_a_thread_requests_go_one_after_the_other(
    night: Decided, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    waiting = stored(night, 12)
    with sender_of(night) as sender:
        for one in waiting[:10]:
            sender.send(one)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refused)
            for one in waiting[10:]:
                sender.make_room(one)
                sender.start(one)
                assert night.stored(one.request.request_id).state == "created"
    assert sender.created == 12
    told = "requests are sent one after the other, since no thread could be started: can't start new thread"
    assert caplog.messages.count(told) == 2


def test_the_end_waits_for_all_that_is_under_way(gated: tuple[Decided, Gated]) -> None:
    with sending(gated) as one:
        one.send(10)
        one.server.gate.clear()
        one.start(5)
    assert list(one.night.states().values()).count("created") == one.sender.created == 15


class Ended(Exception):
    """Something else ends the run."""


@pytest.mark.parametrize("tries", [0, 1, 2])
def test_a_try_that_was_not_made_before_the_sending_ended_is_never_made(
    make_nights: MakeNights, sqlite_url: str, tries: int
) -> None:
    """Before the first one nothing left this machine; before a further one the next run asks again."""
    nights = make_nights(broken_world(12), sqlite_url)
    if tries == 0:
        nights.sections["stripe"] = {"requests_per_second": 0.01}
    with decided(nights) as night:
        sender = sender_of(night)
        *before, last = stored(night, 9)

        asleep = threading.Event()
        naps = count(1)

        def sleep_until_the_sending_is_stopped() -> None:
            if threading.current_thread().name.startswith("relink-send") and next(naps) >= tries:
                asleep.set()
                sender._stopping.wait(GIVEN_UP_SECONDS)

        def send_and_end() -> None:
            with sender:
                for one in before:
                    sender.send(one)
                nights.world.faults.script("error_503", method="POST", times=tries + 1)
                sender.start(last)
                assert asleep.wait(GIVEN_UP_SECONDS)
                raise Ended

        night.machine.asleep = sleep_until_the_sending_is_stopped
        with pytest.raises(Ended):
            send_and_end()
        left = night.stored("req_9")
    if tries == 0:
        assert (left.state, left.calls, left.answered_at) == ("not_sent", 0, night.machine.now())
        assert (left.error_type, left.error_message) == (None, "the sending was stopped before it went out")
    else:
        assert (left.state, left.calls, left.answered_at) == ("attempting", tries, None)
        assert (left.error_type, left.error_message) == ("stopped", "the sending was stopped between two tries")
    assert nights.posts() == 8 + tries


def test_what_never_went_out_is_not_given_up_by_a_run_that_was_taken_over(
    make_nights: MakeNights, sqlite_url: str
) -> None:
    """The other run may be asking again already."""
    nights = make_nights(broken_world(12), sqlite_url)
    nights.sections["stripe"] = {"requests_per_second": 0.01}
    with decided(nights) as night:
        sender = sender_of(night)
        *before, last = stored(night, 9)
        asleep = threading.Event()

        def sleep_until_the_sending_is_stopped() -> None:
            if threading.current_thread().name.startswith("relink-send"):
                asleep.set()
                sender._stopping.wait(GIVEN_UP_SECONDS)

        def send_and_end() -> None:
            with sender:
                for one in before:
                    sender.send(one)
                sender.start(last)
                assert asleep.wait(GIVEN_UP_SECONDS)
                night.take_over()
                raise Ended

        night.machine.asleep = sleep_until_the_sending_is_stopped
        with pytest.raises(Ended):
            send_and_end()
        assert night.stored("req_9").state == "attempting"
    assert nights.posts() == 8


@pytest.mark.parametrize(
    ("why", "seconds", "created"),
    [(Ended, 0.0, 13), (KeyboardInterrupt, GIVEN_UP_SECONDS, 13), (KeyboardInterrupt, 0.0, 10)],
)
def test_only_an_interruption_does_not_wait_long_for_stripe(
    gated: tuple[Decided, Gated],
    monkeypatch: pytest.MonkeyPatch,
    why: type[BaseException],
    seconds: float,
    created: int,
) -> None:
    """The answers come once the sending has been stopped, or never; what is left then is `attempting`, and the next run asks again."""
    monkeypatch.setattr(sender_module, "LAST_ANSWERS_SECONDS", seconds)
    night, server = gated

    def answer_once_stopped(sender: Sender) -> None:
        if sender._stopping.wait(GIVEN_UP_SECONDS):
            server.gate.set()

    def send_and_end() -> None:
        with sending(gated) as one:
            one.send(10)
            server.gate.clear()
            one.start(3)
            assert all(server.came.acquire(timeout=GIVEN_UP_SECONDS) for _ in range(13))
            if created == 13:
                threading.Thread(target=answer_once_stopped, args=(one.sender,), daemon=True).start()
            raise why

    with pytest.raises(why):
        send_and_end()
    left = list(night.states().values())
    assert (left.count("created"), left.count("attempting")) == (created, 13 - created)


def test_an_interruption_while_the_end_is_waited_for_does_not_wait_long_either(
    gated: tuple[Decided, Gated], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C comes when nothing is left but to wait for three answers, which never come."""
    monkeypatch.setattr(sender_module, "LAST_ANSWERS_SECONDS", 0.0)
    night, server = gated
    waiting, all_started = stored(night, 13), threading.Event()

    def interrupt() -> None:
        if all_started.wait(GIVEN_UP_SECONDS):
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def send_and_end() -> None:
        with sender_of(night) as sender:
            for one in waiting[:10]:
                sender.send(one)
            server.gate.clear()
            for one in waiting[10:]:
                sender.make_room(one)
                sender.start(one)
            all_started.set()

    # A shell lets what it starts in the background ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Thread(target=interrupt, daemon=True).start()
        with pytest.raises(KeyboardInterrupt):
            send_and_end()
    finally:
        signal.signal(signal.SIGINT, before)
    left = list(night.states().values())
    assert (left.count("created"), left.count("attempting")) == (10, 3)


def test_what_fails_while_the_sending_ends_is_recorded_and_told(
    gated: tuple[Decided, Gated], caplog: pytest.LogCaptureFixture
) -> None:
    night, server = gated

    def send_and_end() -> None:
        with sending(gated) as one:
            one.send(10)
            night.nights.world.faults.script("unauthorized", method="POST", times=3)
            one.start(3)
            assert all(server.came.acquire(timeout=GIVEN_UP_SECONDS) for _ in range(13))
            raise Ended

    with pytest.raises(Ended):
        send_and_end()
    states = list(night.states().values())
    assert (states.count("created"), states.count("not_sent")) == (10, 3)
    told = [line for line in caplog.messages if line.startswith("while the sending was ended: ")]
    assert len(told) == 3
    assert all("Stripe refused the key midway" in line for line in told)


def test_what_somebody_else_ended_meanwhile_is_left_alone(
    gated: tuple[Decided, Gated], caplog: pytest.LogCaptureFixture
) -> None:
    night, server = gated

    def ended_elsewhere() -> None:
        records.record_result(night.wiring.database, "req_1", "rejected", night.machine.now())

    server.meanwhile = ended_elsewhere
    with sending(gated, night.asked(1)) as one:
        one.send(1)
    assert (one.sender.created, night.nights.posts(), night.states()) == (0, 1, {"req_1": "rejected"})
    assert caplog.messages[-1].startswith("request req_1 is left alone: authorization fcauth_1")
