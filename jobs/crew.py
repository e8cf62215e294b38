"""Threads that wait for Stripe while one thread decides: they are handed calls, and tell what came of them."""

from __future__ import annotations

import contextvars
import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

logger = logging.getLogger(__name__)

_News = TypeVar("_News")

AT_ONCE = 16
"""Calls under way at once: enough to fill 20 calls a second where one takes 0.8 s. The limiter sets the pace, these wait for it."""

FAILURES_IN_A_ROW = 5
"""So many failures one after the other, in the order in which they end, mean that Stripe or the network, not a customer, has a problem."""


class Crew(Generic[_News]):
    """A few daemon threads, each with connections of its own.

    Daemons, so that an interruption ends the process without waiting for an answer; so whoever hands them something must be able to do
    without its result. Each works under the log fields and the trace of who made the crew.
    """

    def __init__(self, name: str, most: int = AT_ONCE) -> None:
        self._name = name
        self._most = most
        self._waiting: queue.SimpleQueue[Callable[[], _News] | None] = queue.SimpleQueue()
        self._told: queue.SimpleQueue[tuple[_News] | BaseException] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def hand(self, work: Callable[[], _News]) -> None:
        """Have a call made by whoever is free first.

        Raises:
            RuntimeError: not even one thread could be started, so nobody would ever make it; it was not taken.
        """
        if len(self._threads) < self._most:
            name = f"relink-{self._name}-{len(self._threads)}"
            run = contextvars.copy_context().run
            thread = threading.Thread(target=run, args=(self._work,), name=name, daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                if not self._threads:
                    raise
                logger.warning(
                    "%d threads share the work, since no further one could be started: %s", len(self._threads), error
                )
                self._most = len(self._threads)
            else:
                self._threads.append(thread)
        self._waiting.put(work)

    def hand_or_make(self, work: Callable[[], _News]) -> None:
        """Have a call made by whoever is free first, or make it here and now where not one thread could be started."""
        try:
            self.hand(work)
        except RuntimeError as error:
            logger.warning("calls are made one after the other, since no thread could be started: %s", error)
            self._make(work)

    def tell(self, news: _News) -> None:
        """Tell something before a call is over; for the threads."""
        self._told.put((news,))

    def hear(self, timeout_seconds: float | None = None) -> _News:
        """Wait for the next thing that is told, and return it; what a call raised is raised here.

        Raises:
            queue.Empty: nothing was told in time.
        """
        news = self._told.get(timeout=timeout_seconds)
        if isinstance(news, BaseException):
            raise news
        return news[0]

    def dismiss(self, wait_seconds: float = 0.0) -> None:
        """Hand out nothing more, and wait so long for the calls that are under way."""
        for _ in self._threads:
            self._waiting.put(None)
        until = time.monotonic() + wait_seconds
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _work(self) -> None:
        while (work := self._waiting.get()) is not None:
            self._make(work)

    def _make(self, work: Callable[[], _News]) -> None:
        try:
            self._told.put((work(),))
        except BaseException as failed:
            self._told.put(failed)
