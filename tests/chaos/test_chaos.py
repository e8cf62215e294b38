"""A seeded slice of the crash campaign, and designs that are known to be wrong, which the same harness must find out.

The whole campaign is `make chaos`. A campaign runs in a process of its own, because only one without threads may fork safely.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.variants import TELLING_GAPS

ROOT = Path(__file__).parents[2]
TRIALS_A_PART = 100
PARTS = (("sqlite", 0), ("sqlite", 100), ("sqlite", 200), ("postgresql", 300))
"""The kind of database and the number of the first trial: 400 trials together."""

LEAST_MOMENTS = 100
AROUND_THE_POST = "create_session,record_result"


def campaign(*options: str) -> dict[str, Any]:
    """The summary of a campaign."""
    command = [sys.executable, "-m", "tests.chaos.campaign", "--json", *options]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=1200)
    assert finished.stdout, finished.stderr
    summary: dict[str, Any] = json.loads(finished.stdout)
    assert summary["broken"] == [], finished.stderr
    return summary


@pytest.mark.parametrize(("database", "first"), PARTS)
def test_no_kill_makes_anybody_asked_twice_or_forgotten(database: str, first: int) -> None:
    summary = campaign(
        *(
            "--database",
            database,
            "--first",
            str(first),
            "--trials",
            str(TRIALS_A_PART),
            "--seed",
            "20",
            "--workers",
            "1",
        )
    )
    assert summary["suspicious"] == []
    figures = summary["figures"]
    assert figures["trials"] == TRIALS_A_PART
    assert figures["kills"] > 0.9 * TRIALS_A_PART, "the trials kill too seldom to show anything"
    assert figures["second_kills"] > 0.2 * TRIALS_A_PART
    assert summary["moments"] >= LEAST_MOMENTS


@pytest.mark.parametrize("killed", [("--scenario", "resume", "--ladder", "0,4,11"), ("--scenario", "retry")])
def test_no_kill_of_what_takes_a_night_up_again_makes_anybody_asked_twice_or_forgotten(killed: tuple[str, ...]) -> None:
    summary = campaign(*killed, "--database", "sqlite", "--trials", "8", "--seed", "20", "--workers", "1")
    assert summary["suspicious"] == []
    assert summary["figures"]["kills"] >= 8


def test_no_kill_of_a_night_that_has_stripe_write_to_customers_makes_anybody_asked_twice_or_forgotten() -> None:
    """What was mailed cannot be taken back, so that not even an offer that nobody knows of is renewed."""
    summary = campaign(
        *("--delivery", "hosted_email", "--scenario", "run", "--trials", "8"),
        *("--database", "sqlite", "--seed", "20", "--workers", "1"),
    )
    assert summary["suspicious"] == []
    assert summary["figures"]["kills"] >= 8


@pytest.mark.parametrize(
    ("variant", "trials"), [("remember-afterwards", 8), ("without-fence", 8), ("free-after-replay", 16)]
)
def test_the_harness_finds_designs_that_ask_twice(variant: str, trials: int) -> None:
    """No intent before the POST; a key asked again after Stripe forgot it; an attempt freed because its replay was refused."""
    summary = campaign(
        *("--variant", variant, "--gap", TELLING_GAPS[variant], "--trials", str(trials), "--part", AROUND_THE_POST),
        *("--database", "sqlite", "--seed", "3", "--workers", "1"),
    )
    assert summary["figures"]["contacts_twice"] > 0
