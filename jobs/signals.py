"""SIGTERM and Ctrl-C: an orderly end that is recorded, and where that takes too long, an end all the same."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

ENDING_SECONDS = 4.0
"""How long an orderly end may take. What it then cuts off is as safe as a crash, which the next run settles."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Terminated(KeyboardInterrupt):
    """SIGTERM: leave at once, so that the run can be resumed."""


def exit_code_of(interruption: KeyboardInterrupt) -> int:
    """143 for SIGTERM, 130 for Ctrl-C."""
    return 128 + (signal.SIGTERM if isinstance(interruption, Terminated) else signal.SIGINT)


def interrupt_once() -> None:
    """Let the first SIGTERM or Ctrl-C interrupt this process, and no further one what then puts things in order."""
    coming = iter((True,))

    def interrupt(number: int, _frame: FrameType | None) -> None:
        if next(coming, False):
            raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    for number in _SIGNALS:
        signal.signal(number, interrupt)


def end_in_time() -> None:
    """End this process with 143 or 130 if it still is there `ENDING_SECONDS` after its first signal, whatever it is waiting for.

    Python runs a signal's handler only between two steps of the main thread, so one that waits inside a library (a locked
    database file, a name server) does not hear it; the thread made here does.
    """
    heard, told = os.pipe()
    os.set_blocking(told, False)
    signal.set_wakeup_fd(told, warn_on_full_buffer=False)

    def watch() -> None:
        number = os.read(heard, 1)[0]
        while number not in _SIGNALS:
            number = os.read(heard, 1)[0]
        threading.Event().wait(ENDING_SECONDS)
        os._exit(128 + number)

    threading.Thread(target=watch, name="relink-signals", daemon=True).start()
