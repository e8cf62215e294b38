"""The command in a process of its own, for what only a real process shows."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.jobs.nights import KEY, Nights

ROOT = Path(__file__).resolve().parents[3]


def start(nights: Nights, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Start the command in the directory of a deployment."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "jobs", *arguments],
        cwd=nights.directory,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "STRIPE_API_KEY": KEY, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until(happened: Callable[[], object], what: str) -> None:
    """Look again and again until something happened."""
    until = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < until, f"{what} did not happen"
        time.sleep(0.01)


def wait_for_post(nights: Nights) -> None:
    """Wait until the stand-in has begun on its next scripted fault."""
    wait_until(lambda: nights.world.faults.injected, "the POST")
