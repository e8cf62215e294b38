"""Retries stay a tenth of a run's calls, with fifty for a small run; what tells whether a session exists is always asked again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.adapters.retry_budget import LEAST_RETRIES, RETRY_SHARE, RetryBudget
from reconcile.records import ReadFailed, StripeCallFailed
from tests.jobs.adapters.stub_stripe import Scripted, StubStripe, answer, refusal, stub_stripe
from tests.jobs.adapters.test_stripe_gateway import SESSION, Time, create, gateway, page


@pytest.fixture
def stub() -> Iterator[StubStripe]:
    with stub_stripe() as started:
        yield started


@pytest.fixture
def time() -> Time:
    return Time()


def spent(budget: RetryBudget) -> RetryBudget:
    while budget.take():
        pass
    return budget


def test_a_small_run_has_fifty_and_a_large_one_a_tenth() -> None:
    budget = RetryBudget()
    assert (RETRY_SHARE, LEAST_RETRIES) == (0.1, 50)
    assert [budget.take() for _ in range(51)] == [True] * 50 + [False]
    for _ in range(500):
        budget.count_call()
    assert not budget.take()
    budget.count_call()
    assert [budget.take(), budget.take()] == [True, False]


def test_what_is_needed_is_granted_and_counts() -> None:
    budget = RetryBudget(share=0.0, least=2)
    assert [budget.take(needed=True) for _ in range(3)] == [True] * 3
    assert not budget.take()


def test_it_is_said_once_that_they_are_spent(caplog: pytest.LogCaptureFixture) -> None:
    budget = RetryBudget(share=0.0, least=1)
    budget.count_call()
    for _ in range(3):
        budget.take()
    assert [record.getMessage() for record in caplog.records] == [
        "1 retries of 1 calls are spent: what fails now is not tried again by this run"
    ]


@given(st.lists(st.sampled_from(["call", "retry", "needed"]), max_size=300), st.integers(0, 20))
def test_never_more_than_the_share_or_the_least(steps: list[str], least: int) -> None:
    budget = RetryBudget(least=least)
    calls = retries = needed = 0
    for step in steps:
        if step == "call":
            budget.count_call()
            calls += 1
        elif step == "needed":
            assert budget.take(needed=True)
            needed += 1
        else:
            retries += budget.take()
    assert retries <= max(least, RETRY_SHARE * calls + 1)


def test_a_failing_stripe_is_asked_fifty_times_again_and_no_more(stub: StubStripe, time: Time) -> None:
    stub.respond = lambda _: refusal(503)
    target = gateway(stub.url, time, max_attempts=6)
    for _ in range(30):
        with pytest.raises(ReadFailed):
            target.list_accounts_page()
    counts = target.meter.counts()
    assert (counts.retries, counts.wire_attempts) == (50, 80)


@pytest.mark.parametrize(
    ("fault", "attempts"),
    [(Scripted(reset=True), 3), (refusal(409, code="idempotency_key_in_use"), 3), (refusal(429), 1)],
    ids=["answer lost", "being worked on", "certainly not acted on"],
)
def test_only_a_request_that_may_have_been_acted_on_is_asked_again_beyond_it(
    fault: Scripted, attempts: int, stub: StubStripe, time: Time
) -> None:
    stub.respond = lambda _: fault
    target = gateway(stub.url, time, max_attempts=3, retry_budget=spent(RetryBudget()))
    with pytest.raises(StripeCallFailed) as raised:
        create(target)
    assert raised.value.failure.wire_attempts == attempts


def test_a_read_beyond_it_is_tried_once(stub: StubStripe, time: Time) -> None:
    stub.script = [Scripted(reset=True), page()]
    target = gateway(stub.url, time, retry_budget=spent(RetryBudget()))
    with pytest.raises(ReadFailed):
        target.list_accounts_page()
    assert len(stub.sent) == 1
    stub.script = [answer(SESSION)]
    assert create(target).session_id
