"""Stripe's rate limits as token buckets on real time (Stripe docs: rate limits)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from jobs.simulator.failures import ApiFailure

_MESSAGE = "Request rate limit exceeded. You can learn more about rate limits here https://stripe.com/docs/rate-limits."


@dataclass(frozen=True, slots=True)
class RateLimits:
    """Calls a second, overall and for each endpoint; a bucket holds one second's worth."""

    overall_per_second: float
    endpoint_per_second: float = 25.0

    @classmethod
    def of_mode(cls, livemode: bool) -> RateLimits:
        """Stripe's own: 100 a second live, 25 in a sandbox, 25 for each endpoint."""
        return cls(100.0 if livemode else 25.0)


class _Bucket:
    def __init__(self, per_second: float, now: float) -> None:
        self.per_second = per_second
        self.tokens = max(1.0, per_second)
        self.at = now

    def take(self, now: float) -> bool:
        self.tokens = min(max(1.0, self.per_second), self.tokens + (now - self.at) * self.per_second)
        self.at = now
        if self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True


class RateLimiter:
    """Enforces `limits`; None lets everything through."""

    def __init__(self, limits: RateLimits | None, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._overall: _Bucket | None = None
        self._endpoints: dict[str, _Bucket] = {}

    def admit(self, endpoint: str) -> None:
        """Take one token, or raise ApiFailure 429 with its reason."""
        limits = self._limits
        if limits is None:
            return
        now = self._monotonic()
        with self._lock:
            if self._overall is None:
                self._overall = _Bucket(limits.overall_per_second, now)
            if not self._overall.take(now):
                raise too_many("global-rate")
            bucket = self._endpoints.get(endpoint)
            if bucket is None:
                bucket = self._endpoints[endpoint] = _Bucket(limits.endpoint_per_second, now)
            if not bucket.take(now):
                raise too_many("endpoint-rate")


def too_many(reason: str, retry_after_seconds: int | None = None, should_retry: bool | None = None) -> ApiFailure:
    """A 429 of the rate limiter."""
    return ApiFailure(
        429,
        _MESSAGE,
        code="rate_limit",
        reason=reason,
        retry_after_seconds=retry_after_seconds,
        should_retry=should_retry,
    )


def lock_timeout() -> ApiFailure:
    """A 429 of an object's lock: it carries no reason and no request id (Stripe docs: rate limits)."""
    return ApiFailure(
        429,
        "This object cannot be accessed right now because another API request or Stripe process is currently "
        "accessing it.",
        code="lock_timeout",
        with_request_id=False,
    )
