"""Single reads, several at once: nobody's answer is another's, and what fails in a row ends it as early as one at a time would."""

from __future__ import annotations

import threading
from itertools import islice, takewhile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.crew import AT_ONCE
from jobs.reading import ReadError, read_in_order
from reconcile.errors import KeyRefused
from reconcile.records import CallFailure, ReadFailed

IN_A_ROW = 5


class Stripe:
    """Answers a number with its square, fails for some, and remembers who asked and for what."""

    def __init__(self, failing: frozenset[int] = frozenset()) -> None:
        self.failing = failing
        self.asked: list[tuple[int, threading.Thread]] = []

    def read(self, number: int) -> int:
        self.asked.append((number, threading.current_thread()))
        if number in self.failing:
            raise ReadFailed(CallFailure("server", f"GET {number}", 500))
        return number * number


@given(count=st.integers(0, 60), failing=st.frozensets(st.integers(0, 59)))
def test_each_answer_is_told_in_the_order_asked_and_five_failures_in_a_row_end_it(
    count: int, failing: frozenset[int]
) -> None:
    stripe = Stripe(failing)
    ends = [place for place in range(IN_A_ROW - 1, count) if failing.issuperset(range(place - IN_A_ROW + 1, place + 1))]
    told: list[tuple[int, int | ReadError]] = []
    reading = read_in_order(range(count), stripe.read, failures=IN_A_ROW)
    if ends:
        told.extend(islice(reading, ends[0] + 1))
        with pytest.raises(ReadFailed, match=f"GET {ends[0]}:"):
            next(reading)
        assert len(stripe.asked) <= ends[0] + AT_ONCE
    else:
        told.extend(reading)
        assert sorted(number for number, _ in stripe.asked) == list(range(count)), "each once"
    assert [number for number, _ in told] == list(range(ends[0] + 1 if ends else count))
    for number, found in told:
        assert isinstance(found, ReadFailed) if number in failing else found == number * number


def test_until_one_is_answered_they_go_one_at_a_time() -> None:
    stripe = Stripe(frozenset(range(IN_A_ROW - 1)))
    assert len(list(read_in_order(range(40), stripe.read, failures=IN_A_ROW))) == 40
    here = threading.current_thread()
    assert [number for number, _ in takewhile(lambda asked: asked[1] is here, stripe.asked)] == list(range(IN_A_ROW))
    down = Stripe(frozenset(range(40)))
    with pytest.raises(ReadFailed):
        list(read_in_order(range(40), down.read, failures=IN_A_ROW))
    assert len(down.asked) == IN_A_ROW


def test_after_the_first_answer_as_many_are_under_way_as_may_be() -> None:
    together = threading.Barrier(AT_ONCE, timeout=30)

    def read(number: int) -> int:
        if number:
            together.wait()
        return number

    assert [found for _, found in read_in_order(range(1 + AT_ONCE), read, failures=IN_A_ROW)] == list(
        range(1 + AT_ONCE)
    )


def test_a_refused_key_ends_it() -> None:
    def read(number: int) -> int:
        if number == 20:
            raise KeyRefused("Stripe refused the key")
        return number

    with pytest.raises(KeyRefused):
        list(read_in_order(range(1000), read, failures=IN_A_ROW))


def test_where_no_thread_can_be_started_they_are_read_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    stripe = Stripe()
    monkeypatch.setattr(threading.Thread, "start", start)
    assert [found for _, found in read_in_order(range(40), stripe.read, failures=IN_A_ROW)] == [
        number * number for number in range(40)
    ]
    assert {thread for _, thread in stripe.asked} == {threading.current_thread()}
