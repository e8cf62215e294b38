"""A run in a process of its own that ends at a moment without a word."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from jobs import nightly
from jobs.adapters.stripe_gateway import StripeGateway
from jobs.progress import Quiet, Step
from jobs.work import Work
from reconcile.records import SessionCreated
from tests.jobs.nights import Nights

EARLY_POINTS = ("pulled", "decided")
"""Before anything is committed; with the decisions committed and the brakes' memory and the requests not."""

POINTS = ("planned", "before_post", "after_post", "after_first")
"""Where a run is killed: with all requests planned; the first marked and unsent; the first at Stripe; the second marked."""


class _DiesBeforeSending(Quiet):
    """Ends the process where sending would begin."""

    @contextmanager
    def step(self, name: str, total: int | None = None) -> Iterator[Step]:
        if name == "relink requests":
            os._exit(0)
        with super().step(name, total) as step:
            yield step


class _DiesAtPage(Quiet):
    """Kills the process once so many pages of the accounts' list are read."""

    def __init__(self, pages: int) -> None:
        self._left = pages

    @contextmanager
    def step(self, name: str, total: int | None = None) -> Iterator[Step]:
        with super().step(name, total) as step:
            yield self if name == "accounts" else step

    def advance(self, count: int = 1, total: int | None = None) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def die_at_page(nights: Nights, page: int) -> None:
    """Do a run in a process of its own that is killed with SIGKILL as soon as it has read that page of the accounts, from 1."""
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(60)
            nights.run(progress=_DiesAtPage(page))
        finally:
            os._exit(99)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL, f"the run did not come to page {page}"


def die(nights: Nights, point: str, work: Work | None = None) -> None:
    """Do a run in a process of its own that ends at `point` without a word, as by SIGKILL."""
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(60)
            _die(nights, point, work or Work("run"))
        finally:
            os._exit(99)
    _, status = os.waitpid(child, 0)
    assert status == 0, f"the run did not come to {point}"


def _die(nights: Nights, point: str, work: Work) -> None:
    calls = 0
    create = StripeGateway.create_session

    def create_session(
        self: StripeGateway,
        body: bytes | str,
        *,
        api_version: str,
        idempotency_key: str,
        may_send: Callable[[], bool],
    ) -> SessionCreated:
        nonlocal calls
        calls += 1
        if point == "before_post" or (point == "after_first" and calls == 2):
            os._exit(0)
        made = create(self, body, api_version=api_version, idempotency_key=idempotency_key, may_send=may_send)
        if point == "after_post":
            os._exit(0)
        return made

    StripeGateway.create_session = create_session  # type: ignore[method-assign]
    if point in EARLY_POINTS:
        stage = {"pulled": "record_decisions", "decided": "record_brakes"}[point]
        setattr(nightly, stage, lambda *_: os._exit(0))
    nights.run(work, progress=_DiesBeforeSending() if point == "planned" else None)
