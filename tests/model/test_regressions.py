"""Sequences that once showed a fault, made short, and done again step by step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.model.deployment import Rules
from tests.model.play import replay

FOUND: dict[str, tuple[Rules, list[tuple[str, dict[str, Any]]]]] = {
    "a clock that was a day fast at the first attempt made an old key look young": (
        Rules(cooldown_days=2, max_attempts=2, pending_days=6),
        [
            ("break_account", {"account": 6, "cause": 1}),
            ("storm", {"kind": 2, "rate": 1.0, "reads": False}),
            ("set_clock", {"hours": 25}),
            ("run", {}),
            ("quiet", {}),
            ("set_clock", {"hours": 0}),
            ("wait", {"hours": 25}),
            ("run", {}),
        ],
    ),
    "the session of an attempt that was settled without it was taken for that of the next one": (
        Rules(),
        [
            ("break_authorization", {"authorization": 0}),
            ("storm", {"kind": 5, "rate": 1.0, "reads": False}),
            ("run", {}),
            ("wait", {"hours": 25}),
            ("run", {}),
            ("quiet", {}),
            ("answer", {"session": 0, "how": "whole"}),
            ("wait", {"hours": 24}),
            ("run", {}),
        ],
    ),
}


@pytest.mark.parametrize("name", FOUND)
def test_what_was_found_once_stays_mended(name: str, tmp_path: Path) -> None:
    rules, steps = FOUND[name]
    play = replay(tmp_path / "one", rules, steps)
    assert play.counts.total()


def test_a_run_that_slept_and_was_taken_over_decides_and_publishes_nothing(tmp_path: Path) -> None:
    """It once recorded what it had concluded before, and reported totals that did not tie."""
    steps = [
        ("run", {}),
        ("break_authorization", {"authorization": 5}),
        ("wait", {"hours": 24}),
        ("run", {"fate": "stop", "at": 68}),
    ]
    play = replay(tmp_path / "one", Rules(), steps)
    assert play.counts["run: exit 3, its rival 0"] == 1
