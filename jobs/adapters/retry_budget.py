"""Keeps what is tried again a small part of all calls, so that a service in trouble is not asked many times over."""

from __future__ import annotations

import logging
import threading

logger = logging.getLogger(__name__)

RETRY_SHARE = 0.10
"""Of all calls of a run (Google SRE book, "Handling overload": retries under a tenth of the traffic)."""

LEAST_RETRIES = 50
"""What a run of under 500 calls may spend all the same, so that a few faults do not end it."""


class RetryBudget:
    """Counts the calls of one run and grants retries in proportion. Safe for threads."""

    def __init__(self, share: float = RETRY_SHARE, least: int = LEAST_RETRIES) -> None:
        self._share = share
        self._least = least
        self._lock = threading.Lock()
        self._calls = 0
        self._retries = 0
        self._told = False

    def count_call(self) -> None:
        """Count one call, however often it will be tried."""
        with self._lock:
            self._calls += 1

    def take(self, *, needed: bool = False) -> bool:
        """Whether one more retry may be made; one that is `needed` is counted, and never refused."""
        with self._lock:
            granted = needed or self._retries < max(self._least, self._share * self._calls)
            self._retries += granted
            tell, self._told = not granted and not self._told, self._told or not granted
        if tell:
            logger.warning(
                "%d retries of %d calls are spent: what fails now is not tried again by this run",
                self._retries,
                self._calls,
            )
        return granted
