"""Pacing on a clock that only sleeping moves."""

from __future__ import annotations

import itertools

import pytest

from jobs.adapters.rate_limiter import Pacer, RateLimiter, overall_requests_per_second


class Time:
    """A clock that moves only when something sleeps on it."""

    def __init__(self) -> None:
        self.now = 100.0

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def limiter(time: Time, overall: float, endpoint: float) -> RateLimiter:
    return RateLimiter(
        requests_per_second=overall,
        endpoint_requests_per_second=endpoint,
        clock=time.clock,
        sleep=time.sleep,
    )


def sent_at(target: RateLimiter, time: Time, endpoints: list[str]) -> list[float]:
    times = []
    for endpoint in endpoints:
        target.acquire(endpoint)
        times.append(time.now)
    return times


def most_in_a_second(times: list[float]) -> int:
    return max(sum(start <= moment < start + 1 for moment in times) for start in times)


def test_one_endpoint_is_paced_at_its_own_rate() -> None:
    """Evenly, without a burst, and without wasting what is allowed."""
    time = Time()
    times = sent_at(limiter(time, 80, 20), time, ["a"] * 100)
    assert most_in_a_second(times) <= 21
    assert 4.9 <= times[-1] - times[0] <= 5.0
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert min(gaps) == pytest.approx(0.05)


def test_the_whole_is_paced_over_all_endpoints() -> None:
    """Ten endpoints, each below its own limit, together keep to the overall one."""
    time = Time()
    times = sent_at(limiter(time, 80, 20), time, list("abcdefghij") * 20)
    assert most_in_a_second(times) <= 81
    assert times[-1] - times[0] == pytest.approx(199 / 80, rel=0.05)


def test_idle_time_is_not_saved_up() -> None:
    """After an hour of silence a burst is still paced; at most 50 ms of slots count."""
    time = Time()
    target = limiter(time, 1000, 20)
    target.acquire("a")
    time.now += 3600
    times = sent_at(target, time, ["a"] * 10)
    assert sum(moment == times[0] for moment in times) <= 2


def test_a_busy_endpoint_keeps_no_other_waiting() -> None:
    """Slots of the whole are taken when a call is ready to go, not while it waits for its endpoint."""
    now = 100.0
    waits: list[float] = []
    target = RateLimiter(
        requests_per_second=80,
        endpoint_requests_per_second=1,
        clock=lambda: now,
        sleep=waits.append,
    )
    for _ in range(10):
        target.acquire("slow")
    waits.clear()
    target.acquire("other")
    assert sum(waits) < 0.2


def test_a_burst_of_refusals_lowers_the_rate_once() -> None:
    """Twenty calls in flight that are refused together say the same thing; only refusals that go on halve the rate."""
    time = Time()
    target = limiter(time, 80, 20)
    for _ in range(20):
        target.slow_down("a", everything=True)
    assert target.rates() == {"a": 18, "overall": 72}
    time.now += 1
    for _ in range(20):
        target.slow_down("a", everything=False)
    assert target.rates() == {"a": pytest.approx(9, abs=0.5), "overall": pytest.approx(74.7, abs=0.1)}


def test_a_refusal_long_after_the_last_one_is_no_reason_to_halve() -> None:
    time = Time()
    pacer = Pacer(20, time.now)
    for seconds, rate in ((0, 18), (31, 18), (5, 10), (5, 6.67)):
        time.now += seconds
        pacer.slow_down(time.now)
        assert pacer.rate(time.now) == pytest.approx(rate, abs=0.01)


def test_the_rate_recovers_to_what_is_configured_and_no_further() -> None:
    time = Time()
    pacer = Pacer(20, time.now)
    pacer.slow_down(time.now - 1)
    pacer.slow_down(time.now)
    assert pacer.rate(time.now) == pytest.approx(9.33, abs=0.01)
    assert pacer.rate(time.now + 7.5) == pytest.approx(14.33, abs=0.01)
    assert pacer.rate(time.now + 16) == 20
    assert pacer.rate(time.now + 1000) == 20


def test_the_rate_never_falls_to_nothing() -> None:
    """However long Stripe refuses, a call a second still asks."""
    time = Time()
    pacer = Pacer(20, time.now)
    for _ in range(100):
        pacer.slow_down(time.now)
        time.now += 1.0
    assert pacer.rate(time.now) >= 1


def test_a_slower_rate_spaces_the_slots() -> None:
    time = Time()
    target = limiter(time, 1000, 20)
    target.acquire("a")
    target.slow_down("a", everything=False)
    time.now += 1
    target.slow_down("a", everything=False)
    times = sent_at(target, time, ["a"] * 3)
    assert times[2] - times[1] == pytest.approx(0.1, rel=0.1)


def test_the_automatic_rates_stay_below_stripes_limits() -> None:
    """Stripe allows 100 requests a second live and 25 in a sandbox."""
    assert overall_requests_per_second(livemode=True) == 80
    assert overall_requests_per_second(livemode=False) == 20
    with pytest.raises(ValueError, match="0"):
        Pacer(0, 0.0)
