"""Tells people and their monitoring how a run went: heartbeat pings, notifications and the metrics file.

Nothing here fails a run, changes its result, or holds it up for longer than `notify.timeout_seconds`. It begins before the lock is asked
for, so that a night that could not start is told of, and ends after the lock is free.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from typing import TYPE_CHECKING, Any

from jobs import signals
from jobs.addresses import heartbeat_problem, heartbeat_url, notify_urls, ping_address
from jobs.clock import Clock, system_clock
from jobs.settings import Settings
from reconcile.errors import AlreadyRunning, RelinkError
from reports.notice import Held, Notice, RunEnd, notice

if TYPE_CHECKING:
    from jobs.adapters.courier import Sending
    from jobs.nightly import RunResult

logger = logging.getLogger(__name__)

WATCHED_COMMANDS = ("run", "resume")
INTERRUPTED_TIMEOUT_SECONDS = 2.0
"""Whoever stops a run waits for it to be gone."""

_RUN_NAMES = uuid.UUID("6c1f6a0e-52c4-4c0b-9a1a-6f1b0e7d9a55")


class Watch:
    """Is told how a run goes."""

    def __init__(self, settings: Settings, environment: Mapping[str, str], command: str, clock: Clock) -> None:
        self._settings = settings
        self._environment = environment
        self._command = command
        self._clock = clock
        self._run_id: str | None = None
        self._start: tuple[Sending, float] | None = None
        self._result: RunResult | None = None

    def began(self, run_id: str) -> None:
        """The run holds the lock and has this id."""
        self._run_id = run_id
        url = self._heartbeat("/start")
        if url is not None:
            from jobs.adapters.courier import send_ping

            timeout_seconds = self._settings.notify.timeout_seconds
            # Not waited for: the run goes on, and its end settles what became of this.
            sending = send_ping(url, "", timeout_seconds, self._environment, "the heartbeat's start")
            self._start = sending, time.monotonic() + timeout_seconds

    def ended(self, result: RunResult) -> RunResult:
        """The run reached this end; its report is published and its lock may still be held."""
        self._result = result
        return result

    def tell(self, error: BaseException | None) -> None:
        """Tell of the end, whatever it was; raises nothing."""
        try:
            self._tell(error)
        except KeyboardInterrupt:
            logger.warning("interrupted while telling how the run ended; the run's result stands")
        except Exception as problem:
            # Not its text, which may hold an address.
            logger.warning("how the run ended could not be told (%s)", type(problem).__name__)

    def _tell(self, error: BaseException | None) -> None:
        if isinstance(error, AlreadyRunning):
            return  # the run that is going on tells of itself
        end = self._end(error)
        self._write_metrics(end)
        timeout_seconds = self._settings.notify.timeout_seconds
        if end.exit_code in (130, 143):
            timeout_seconds = min(timeout_seconds, INTERRUPTED_TIMEOUT_SECONDS)
        told = notice(end)
        self._deliver(end, told, time.monotonic() + timeout_seconds, timeout_seconds)

    def _deliver(self, end: RunEnd, told: Notice, until: float, timeout_seconds: float) -> None:
        from jobs.adapters.courier import send_notifications, send_ping

        under_way: list[Sending] = []
        try:
            urls = notify_urls(self._settings, self._environment) if self._is_worth_telling(end) else []
            if urls:
                under_way.append(
                    send_notifications(urls, told.title, told.text, told.kind, timeout_seconds, self._environment)
                )
            if self._start is not None:
                # Settled first: a start that arrived after the end would look like a run that never ended.
                starting, started_until = self._start
                under_way.append(starting)
                _warn(starting, min(until, started_until))
                under_way.remove(starting)
            url = self._heartbeat("" if end.exit_code == 0 else f"/{end.exit_code}")
            if url is not None:
                ping = send_ping(url, told.text, timeout_seconds, self._environment, "the heartbeat")
                under_way.append(ping)
                _warn(ping, until)
            if urls:
                _warn(under_way[0], until)
        except BaseException:
            for sending in under_way:
                sending.cancel()
            raise

    def _is_worth_telling(self, end: RunEnd) -> bool:
        if end.exit_code:
            return True
        repeated = self._result is not None and self._result.already_finished is not None
        return self._settings.notify.on_success and not repeated

    def _end(self, error: BaseException | None) -> RunEnd:
        result = self._result
        names = self._settings.merchant_names
        if result is None:
            why = str(error) if isinstance(error, RelinkError) else None
            on, directory = self._recorded()
            return RunEnd(self._command, exit_code_of(error), names, self._run_id, on, why, {}, (), directory)
        return RunEnd(
            command=self._command,
            exit_code=result.exit_code if error is None else exit_code_of(error),
            merchants=names,
            run_id=result.run_id,
            business_date=result.stamp.business_date,
            why=result.why,
            summary=result.summary,
            held=[
                Held(night.merchant.scope.merchant, len(night.plan.held), night.held_plan_hash)
                for night in result.nights
                if night.plan.held
            ],
            report_directory=None if result.report_directory is None else str(result.report_directory),
        )

    def _recorded(self) -> tuple[date | None, str | None]:
        """Business date and report of a run that ended without a result, as far as the records can tell."""
        if self._run_id is None:
            return None, None
        from jobs.adapters import records
        from jobs.adapters.database import open_database

        try:
            with open_database(self._settings.database.url, create=False, read_only=True, check=False) as database:
                found = records.run(database, self._run_id)
        except RelinkError:
            return None, None
        return (None, None) if found is None else (found.business_date, found.report_directory)

    def _write_metrics(self, end: RunEnd) -> None:
        path = self._settings.metrics.textfile
        if path is None:
            return
        from jobs.metrics import write_metrics

        try:
            write_metrics(self._settings, path, end, self._clock())
        except OSError as error:
            logger.warning("the metrics file %s could not be written: %s", path, error.strerror or type(error).__name__)
        except RelinkError as error:
            logger.warning("the metrics file %s could not be written: %s", path, error)

    def _heartbeat(self, suffix: str) -> str | None:
        url = heartbeat_url(self._settings, self._environment)
        if url is None:
            return None
        problem = heartbeat_problem(url)
        if problem is not None:
            if self._start is None:
                logger.warning("no heartbeat: $%s %s", self._settings.notify.heartbeat_url_env, problem)
            return None
        run = None if self._run_id is None else str(uuid.uuid5(_RUN_NAMES, self._run_id))
        return ping_address(url, suffix, run)


@contextmanager
def watched(
    settings: Settings,
    environment: Mapping[str, str],
    command: str,
    *,
    dry_run: bool = False,
    clock: Clock = system_clock,
) -> Iterator[Watch]:
    """Watch over one command: it is told of however the block ends, unless it is a dry run or not a night's command.

    The block calls `began` with the run's id (`on_start` of `nightly.run`) and `ended` with its result.
    """
    watch: Watch = Watch(settings, environment, command, clock)
    if dry_run or command not in WATCHED_COMMANDS:
        watch = Unwatched(settings, environment, command, clock)
    try:
        yield watch
    except BaseException as error:
        watch.tell(error)
        raise
    watch.tell(None)


class Unwatched(Watch):
    """Of commands that nobody waits for."""

    def began(self, run_id: str) -> None:
        """Nothing is told."""

    def tell(self, error: BaseException | None) -> None:
        """Nothing is told."""


def then(*called: Callable[[str], None]) -> Callable[[str], None]:
    """One function that passes a run's id on to several, in order."""

    def all_of_them(run_id: str) -> None:
        for one in called:
            one(run_id)

    return all_of_them


def exit_code_of(error: BaseException | None) -> int:
    """The exit code that a command ends with after this error."""
    if isinstance(error, KeyboardInterrupt):
        return signals.exit_code_of(error)
    return error.exit_code if isinstance(error, RelinkError) else 1


def _warn(sending: Sending, until: float) -> None:
    problems = sending.finish(until)
    if problems:
        which: Any = "" if sending.addresses == 1 else f" to {len(problems)} of {sending.addresses} addresses"
        told = "; ".join(dict.fromkeys(problems.values()))
        logger.warning("%s was not delivered%s: %s", sending.what, which, told)
