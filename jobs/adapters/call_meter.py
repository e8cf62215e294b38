"""Counts the calls to Stripe, for the summary and against the monthly allocation of reads."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class CallCounts:
    """The calls made so far.

    `reads` by purpose, `writes` (sessions) and `refreshes` are calls, each counted once however often it was tried; `by_endpoint` and
    `wire_attempts` count every request that went out, `retries` those after the first of a call.
    """

    reads: dict[str, int] = field(default_factory=dict)
    writes: int = 0
    refreshes: int = 0
    wire_attempts: int = 0
    retries: int = 0
    rate_limited: int = 0
    by_endpoint: dict[str, int] = field(default_factory=dict)


class CallMeter:
    """Takes the counts; safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reads: Counter[str] = Counter()
        self._by_endpoint: Counter[str] = Counter()
        self._writes = 0
        self._refreshes = 0
        self._retries = 0
        self._rate_limited = 0

    def count_attempt(self, endpoint: str, purpose: str | None, *, first: bool, write: bool = False) -> None:
        """Count one request before it goes out; `purpose` is None for a session, and a `write` with one is a refresh."""
        with self._lock:
            self._by_endpoint[endpoint] += 1
            if not first:
                self._retries += 1
            elif purpose is None:
                self._writes += 1
            elif write:
                self._refreshes += 1
            else:
                self._reads[purpose] += 1

    def count_rate_limited(self) -> None:
        """Count one refusal for going over a limit."""
        with self._lock:
            self._rate_limited += 1

    def counts(self) -> CallCounts:
        """Return the counts as they stand."""
        with self._lock:
            return CallCounts(
                reads=dict(self._reads),
                writes=self._writes,
                refreshes=self._refreshes,
                wire_attempts=self._by_endpoint.total(),
                retries=self._retries,
                rate_limited=self._rate_limited,
                by_endpoint=dict(self._by_endpoint),
            )
