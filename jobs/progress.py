"""Tells a person at a terminal how far a long step has come; says nothing under cron."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Step(Protocol):
    """One step that advances; `total` may become known later."""

    def advance(self, count: int = 1, total: int | None = None) -> None:
        """Say that `count` more are done."""


class Progress(Protocol):
    """Where steps are shown."""

    def step(self, name: str, total: int | None = None) -> AbstractContextManager[Step]:
        """Show a step for as long as the returned context is open."""


class _Silent:
    def advance(self, count: int = 1, total: int | None = None) -> None:
        """Nobody is watching."""


class Quiet:
    """For cron and for tests."""

    @contextmanager
    def step(self, name: str, total: int | None = None) -> Iterator[Step]:
        """Show nothing."""
        yield _Silent()
