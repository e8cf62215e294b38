"""One night, or another command, in a process of its own, which may be killed at a named moment by itself or at any moment from outside."""

from __future__ import annotations

import gc
import json
import logging
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from jobs.settings import Settings
from reconcile.errors import RelinkError
from tests.chaos import failpoints
from tests.chaos.deployment import NIGHT, Command, run_command

LONGEST_NIGHT_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Kill:
    """Where to kill: the `occurrence`-th time that a named moment is reached, or after some seconds."""

    moment: str | None = None
    occurrence: int = 1
    seconds: float | None = None

    def __str__(self) -> str:
        return f"{self.moment} ({self.occurrence})" if self.moment else f"after {self.seconds or 0:.3f} s"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a night's process ended. `moments` are those it reached, in order, where they were asked for."""

    killed: bool
    exit_code: int | None = None
    complete: bool = False
    finished_before: bool = False
    held_plan_hash: str | None = None
    why: str | None = None
    moments: list[str] = field(default_factory=list)
    modules: list[str] = field(default_factory=list)


def fork(work: Callable[[], None]) -> int:
    """Do work in a child process that ends without any clean-up; return its process id."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


@dataclass(slots=True)
class Night:
    """A night that runs in a child process."""

    process: int
    reader: int

    def wait_until_stopped(self) -> None:
        """Wait until the process stopped itself."""
        _, status = os.waitpid(self.process, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            raise RuntimeError("the night ended before it came to the moment at which it was to stop")

    def go_on(self) -> None:
        """Let a stopped process run on."""
        os.kill(self.process, signal.SIGCONT)

    def kill_after(self, seconds: float) -> None:
        """Kill the process unless it ended by itself before."""
        # The pipe ends with the process, so that waiting for it ends early where there is nothing left to kill.
        ready, _, _ = select.select([self.reader], [], [], seconds)
        if not ready:
            os.kill(self.process, signal.SIGKILL)

    def end(self) -> Ended:
        """Wait for its end."""
        with os.fdopen(self.reader) as pipe:
            told = pipe.read()
        status = os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])
        if status == -signal.SIGKILL:
            return Ended(killed=True)
        if status != 0 or not told:
            return Ended(killed=False, exit_code=status, why=f"the process of the night ended with {status}")
        return Ended(killed=False, **json.loads(told))


def start_night(
    settings: Settings,
    now: Callable[[], datetime],
    at: Kill | None = None,
    *,
    command: Command = NIGHT,
    signal_number: int = signal.SIGKILL,
    prepare: Callable[[], None] = lambda: None,
    trace: bool = False,
) -> Night:
    """Begin a night in a child.

    Args:
        at: where the process sends itself the signal.
        prepare: called in the child first, to put a variant in place.
        trace: report every moment that the night reached.
    """
    reader, writer = os.pipe()

    def night() -> None:
        os.close(reader)
        signal.alarm(LONGEST_NIGHT_SECONDS)
        gc.disable()
        logging.disable(logging.CRITICAL)
        prepare()
        moments: list[str] = []
        if trace:
            failpoints.install(moments.append)
        elif at is not None and at.moment is not None:
            failpoints.install(_signaller(at, signal_number))
        told = _result(settings, now, command)
        if trace:
            told |= {"moments": moments, "modules": sorted(sys.modules)}
        with os.fdopen(writer, "w") as pipe:
            json.dump(told, pipe)

    child = fork(night)
    os.close(writer)
    return Night(child, reader)


def run_night(
    settings: Settings,
    now: Callable[[], datetime],
    kill: Kill | None = None,
    *,
    command: Command = NIGHT,
    prepare: Callable[[], None] = lambda: None,
    trace: bool = False,
) -> Ended:
    """Run a night in a child, kill it where that is asked for, and wait for its end."""
    night = start_night(settings, now, kill, command=command, prepare=prepare, trace=trace)
    if kill is not None and kill.seconds is not None:
        night.kill_after(kill.seconds)
    return night.end()


def _result(settings: Settings, now: Callable[[], datetime], command: Command) -> dict[str, Any]:
    try:
        result = run_command(settings, now, command)
    except RelinkError as error:
        return {"exit_code": error.exit_code, "why": str(error)}
    except Exception:
        return {"exit_code": 1, "why": traceback.format_exc()}
    return {
        "exit_code": result.exit_code,
        "complete": result.complete,
        "finished_before": result.already_finished is not None,
        "held_plan_hash": next((night.held_plan_hash for night in result.nights), None),
        "why": result.why,
    }


def _signaller(at: Kill, signal_number: int) -> failpoints.Reached:
    seen = 0

    def reached(name: str) -> None:
        nonlocal seen
        if name == at.moment:
            seen += 1
            if seen == at.occurrence:
                os.kill(os.getpid(), signal_number)
                while (
                    signal_number == signal.SIGKILL
                ):  # it comes before this process runs on, but nothing promises that
                    time.sleep(1)

    return reached
