"""Paces calls below Stripe's limits, overall and for each endpoint, and learns from refusals."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

# Stripe's limits are 100 requests a second live and 25 in a sandbox, each for a whole Stripe account, and 25 for one
# endpoint (Stripe docs: rate limits). The rest is left to the merchant's other traffic.
LIVE_REQUESTS_PER_SECOND = 80.0
SANDBOX_REQUESTS_PER_SECOND = 20.0

_CREDIT_SECONDS = 0.05
_SLIGHTLY_SLOWER = 0.9
_SLOWER = 0.5
_SLOWEST_SHARE = 1 / 20
_RECOVERY_SECONDS = 30.0
_SETTLING_SECONDS = 1.0


def overall_requests_per_second(livemode: bool) -> float:
    """Return the overall rate that the setting `auto` stands for."""
    return LIVE_REQUESTS_PER_SECOND if livemode else SANDBOX_REQUESTS_PER_SECOND


class Pacer:
    """Hands out evenly spaced slots; not safe for threads by itself.

    Slots are spaced rather than saved up: a whole second's permits at once come back as refusals at once. Up to 50 ms
    of unused time counts, so that a late wake-up does not cost throughput.
    """

    def __init__(self, per_second: float, now: float) -> None:
        if per_second <= 0:
            raise ValueError(f"a rate of {per_second} requests a second allows none")
        self._configured = per_second
        self._rate = per_second
        self._rate_at = now
        self._slowed_at = -math.inf
        self._next_at = now

    def reserve(self, now: float) -> float:
        """Take the next slot and return its time on the same clock as `now`."""
        slot_at = max(self._next_at, now - _CREDIT_SECONDS)
        self._next_at = slot_at + 1 / self.rate(now)
        return slot_at

    def slow_down(self, now: float) -> None:
        """Lower the rate, once for the refusals of one burst: by a tenth where none came for 30 s, else by half.

        Calls that a busy machine sends late may arrive together, and are refused though the pace is right. Halving for that would cost the calls of some
        four seconds each time; where the rate is too high, more are refused a second later.
        """
        since = now - self._slowed_at
        if since < _SETTLING_SECONDS:
            return
        share = _SLIGHTLY_SLOWER if since > _RECOVERY_SECONDS else _SLOWER
        self._rate = max(self.rate(now) * share, self._configured * _SLOWEST_SHARE)
        self._slowed_at = now

    def rate(self, now: float) -> float:
        """Return the requests a second allowed now: back to the configured rate within 30 s without a refusal."""
        regained = (now - self._rate_at) / _RECOVERY_SECONDS * self._configured
        self._rate = min(self._configured, self._rate + max(0.0, regained))
        self._rate_at = now
        return self._rate


class RateLimiter:
    """Makes each caller wait for its slot of the endpoint, then of the whole Stripe account. Safe for threads."""

    def __init__(
        self,
        *,
        requests_per_second: float,
        endpoint_requests_per_second: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._endpoint_rate = endpoint_requests_per_second
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._overall = Pacer(requests_per_second, clock())
        self._endpoints: dict[str, Pacer] = {}

    def acquire(self, endpoint: str) -> None:
        """Wait until a call to `endpoint` (method and path, ids left out) may be sent.

        The endpoint's slot comes first, so that callers who wait for a busy endpoint hold no slot of the whole.
        """
        self._wait(lambda now: self._endpoint(endpoint, now).reserve(now))
        self._wait(self._overall.reserve)

    def slow_down(self, endpoint: str, *, everything: bool) -> None:
        """Take in that Stripe refused a call: it is over the limit of that endpoint, or of `everything`."""
        with self._lock:
            now = self._clock()
            self._endpoint(endpoint, now).slow_down(now)
            if everything:
                self._overall.slow_down(now)

    def rates(self) -> dict[str, float]:
        """Return the rates in force, requests a second, by endpoint and `overall`."""
        with self._lock:
            now = self._clock()
            rates = {endpoint: pacer.rate(now) for endpoint, pacer in self._endpoints.items()}
            return rates | {"overall": self._overall.rate(now)}

    def _endpoint(self, endpoint: str, now: float) -> Pacer:
        pacer = self._endpoints.get(endpoint)
        if pacer is None:
            pacer = self._endpoints[endpoint] = Pacer(self._endpoint_rate, now)
        return pacer

    def _wait(self, reserve: Callable[[float], float]) -> None:
        with self._lock:
            now = self._clock()
            wait_seconds = reserve(now) - now
        if wait_seconds > 0:
            self._sleep(wait_seconds)
