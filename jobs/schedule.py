"""Stays up and starts a run whenever the schedule comes due, each in a process of its own."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NoReturn

from jobs.adapters import records
from jobs.adapters.database import open_database
from jobs.clock import Clock
from jobs.settings import Settings
from jobs.signals import exit_code_of
from jobs.ticks import Tick, Ticks
from reconcile.errors import AlreadyRunning, RelinkError

logger = logging.getLogger(__name__)

LONGEST_WAIT_SECONDS = 30.0
"""The wall clock is looked at again at least so often: one long wait would stand still while the machine sleeps."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """When runs are due, and what is done then.

    `start` does the run for a tick and returns its exit code. `is_finished` says whether the tick's business date, or a later one, has a
    complete run. `announce` is told when the next run is.
    """

    ticks: Ticks
    misfire_grace: timedelta
    start: Callable[[Tick], int]
    is_finished: Callable[[Tick], bool]
    announce: Callable[[str], None]
    clock: Clock
    sleep: Callable[[float], None] = time.sleep

    def serve(self) -> NoReturn:
        """Catch up once with the last tick if nothing served it, then serve each tick until interrupted."""
        seen = self.clock()
        last = self.ticks.last_until(seen)
        if last is not None and not self.is_finished(last):
            logger.info("catching up with %s", self.ticks.describe(last))
            self._run(last)
        while True:
            tick, seen = self._wait(seen)
            late = seen - tick.at
            if late > self.misfire_grace:
                logger.warning(
                    "the run of %s was missed by %.1f hours, more than schedule.misfire_grace_hours; `relink run` makes up for it",
                    self.ticks.describe(tick),
                    late / timedelta(hours=1),
                )
            elif self.is_finished(tick):
                logger.info("business date %s is finished already; nothing to run", tick.business_date)
            else:
                self._run(tick)

    def _wait(self, seen: datetime) -> tuple[Tick, datetime]:
        """Wait for a tick later than `seen` and return the newest that is due, with the time: what was missed is made up for once."""
        following = self.ticks.next_after(seen)
        now = self.clock()
        if now < following.at:
            self.announce(f"next run: {self.ticks.describe(following)}")
        while now < following.at:
            self.sleep(min((following.at - now).total_seconds(), LONGEST_WAIT_SECONDS))
            seen, now = now, self.clock()
            if now < seen:  # the clock was set back
                following = self.ticks.next_after(now)
        return self.ticks.last_until(now) or following, now

    def _run(self, tick: Tick) -> None:
        code = self.start(tick)
        if code == 0:
            logger.info("the run of business date %s is done", tick.business_date)
        elif code == AlreadyRunning.exit_code:
            logger.warning("nothing was started for %s: another run holds the lock", self.ticks.describe(tick))
        else:
            logger.error("the run of business date %s ended with exit code %s", tick.business_date, code)


def run_in_own_process(arguments: Sequence[str], tick: Tick) -> int:
    """Do one run as `relink run` would in a new process; return its exit code (128 and the signal's number where one killed it).

    Interrupted itself, it passes the interruption on and waits: the run then records how far it came.
    """
    command = [sys.executable, "-P", "-m", "jobs", *arguments, "run", "--business-date", tick.business_date.isoformat()]
    # A process group of its own, so that Ctrl-C reaches it once, through here.
    running = subprocess.Popen(command, process_group=0)  # noqa: S603 - our own program
    try:
        code = running.wait()
    except KeyboardInterrupt as interruption:
        running.send_signal(exit_code_of(interruption) - 128)
        running.wait()
        raise
    return code if code >= 0 else 128 - code


def is_finished(settings: Settings, clock: Clock, ticks: Ticks) -> Callable[[Tick], bool]:
    """Asks the job's records anew each time, so that nothing is held open between two nights; what cannot be told is left to the run."""

    def ask(tick: Tick) -> bool:
        today = clock().astimezone(ticks.zone).date()
        try:
            with open_database(settings.database.url, create=False, read_only=True, check=False) as database:
                if database.schema_state().status != "current":
                    return False
                until = max(today, tick.business_date)
                return records.complete_run_on(database, tick.business_date, until=until) is not None
        except RelinkError as error:
            logger.warning("whether business date %s is finished cannot be told: %s", tick.business_date, error)
            return False

    return ask
