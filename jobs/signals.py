"""SIGTERM and Ctrl-C: an orderly end that is recorded, and where that takes too long, an end all the same."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

ENDING_SECONDS = 4.0
"""How long an orderly end may take. What it then cuts off is as safe as a crash, which the next run settles."""

AGAIN_SECONDS = 0.01

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_heard = threading.Event()


class Terminated(KeyboardInterrupt):
    """SIGTERM: leave at once, so that the run can be resumed."""


def exit_code_of(interruption: KeyboardInterrupt) -> int:
    """143 for SIGTERM, 130 for Ctrl-C."""
    return 128 + (signal.SIGTERM if isinstance(interruption, Terminated) else signal.SIGINT)


def interrupt_once() -> None:
    """Let the first SIGTERM or Ctrl-C interrupt this process, and no further one what then puts things in order."""
    _heard.clear()

    def interrupt(number: int, _frame: FrameType | None) -> None:
        if not _heard.is_set():
            _heard.set()
            raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    for number in _SIGNALS:
        signal.signal(number, interrupt)


def interrupt_again_where_ignored() -> None:
    """Send a signal to this process once more where Python dropped the interruption that the first made.

    It drops what is raised while it removes an object (a finalizer, a callback of a weak reference) and tells `sys.unraisablehook` alone; a
    handler may run there like anywhere else.
    """
    others = sys.unraisablehook
    main = threading.main_thread().ident
    assert main is not None

    def hook(dropped: Any) -> None:
        if not isinstance(dropped.exc_value, KeyboardInterrupt):
            others(dropped)
            return
        _heard.clear()
        number = signal.SIGTERM if isinstance(dropped.exc_value, Terminated) else signal.SIGINT
        # Not from here, where it would be dropped as well, but from a thread that gives this hook time to return.
        again = threading.Timer(AGAIN_SECONDS, signal.pthread_kill, (main, number))
        again.daemon = True
        again.start()

    sys.unraisablehook = hook


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
