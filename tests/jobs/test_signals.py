"""An interruption reaches the program wherever the main thread is when the signal comes."""

from __future__ import annotations

import subprocess
import sys

import pytest

DROPPED = """
import signal, sys, threading, weakref
from jobs.signals import exit_code_of, interrupt_again_where_ignored, interrupt_once

{install}
interrupt_once()


class Thing:
    pass


thing = Thing()
watched = weakref.ref(thing, lambda _: signal.raise_signal(signal.{name}))
try:
    del thing  # the handler runs in the callback, where Python drops what it raises
    threading.Event().wait(1.0)
except KeyboardInterrupt as interruption:
    sys.exit(exit_code_of(interruption))
sys.exit(0)
"""


def _ends_with(name: str, install: str) -> int:
    return subprocess.run(
        [sys.executable, "-c", DROPPED.format(name=name, install=install)], capture_output=True, timeout=60
    ).returncode


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_is_raised_again_where_python_dropped_it(name: str, code: int) -> None:
    assert _ends_with(name, "interrupt_again_where_ignored()") == code


def test_would_be_lost_otherwise() -> None:
    assert _ends_with("SIGTERM", "") == 0
