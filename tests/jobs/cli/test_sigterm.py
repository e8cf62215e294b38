"""SIGTERM ends a run with 143 whatever it is waiting for, and the night can be finished afterwards."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime

import psycopg
import pytest

from jobs.adapters import records
from tests.jobs.cli.processes import start, wait_until
from tests.jobs.conftest import MakeNights
from tests.jobs.nights import ACCOUNTS, Nights, small_world

LONG_SECONDS = 600


@pytest.fixture
def tonight(make_nights: MakeNights) -> Nights:
    """A world whose time is this machine's."""
    return make_nights(small_world(start=datetime.now(UTC)))


@contextmanager
def a_run(nights: Nights) -> Iterator[subprocess.Popen[str]]:
    running = start(nights, "run")
    try:
        yield running
    finally:
        running.kill()
        running.communicate()
        nights.world.faults.clear()


def terminate(running: subprocess.Popen[str]) -> None:
    running.send_signal(signal.SIGTERM)
    _, err = running.communicate(timeout=120)
    assert running.returncode == 143, err
    assert "Traceback" not in err


def assert_finished_by_the_next_run(nights: Nights) -> None:
    assert nights.run(clock=lambda: datetime.now(UTC)).exit_code == 0
    assert nights.world.contacts_by_authorization() == {"fcauth_1": 1, "fcauth_2": 1, "fcauth_3": 1}


def _accounts_answer_never(nights: Nights) -> Callable[[], object]:
    nights.config_file()
    nights.world.faults.script("hang_before", path=ACCOUNTS, seconds=LONG_SECONDS)
    return lambda: nights.world.faults.injected["hang_before"]


def _stripe_says_later(nights: Nights) -> Callable[[], object]:
    nights.config_file(stripe={"max_elapsed_seconds": 3600})
    nights.world.faults.script("rate_limit", path=ACCOUNTS, retry_after_seconds=LONG_SECONDS)
    return lambda: nights.world.faults.injected["rate_limit"]


def _the_rate_is_low(nights: Nights) -> Callable[[], object]:
    nights.config_file(stripe={"requests_per_second": 1 / LONG_SECONDS})
    return lambda: nights.world.log


def _the_answer_to_a_post_is_lost(nights: Nights) -> Callable[[], object]:
    nights.config_file()
    nights.world.faults.script("hang_after", method="POST", seconds=LONG_SECONDS)
    return lambda: nights.world.faults.injected["hang_after"]


@pytest.mark.parametrize(
    "wait",
    [_accounts_answer_never, _stripe_says_later, _the_rate_is_low, _the_answer_to_a_post_is_lost],
    ids=lambda wait: wait.__name__.strip("_"),
)
def test_while_it_waits_for_stripe(tonight: Nights, wait: Callable[[Nights], Callable[[], object]]) -> None:
    begun = wait(tonight)
    with a_run(tonight) as running:
        wait_until(begun, "the wait")
        terminate(running)
    run = tonight.newest_run()
    assert (run.state, run.exit_code) == (records.INTERRUPTED, 143)
    assert_finished_by_the_next_run(tonight)


def test_while_it_writes_its_report(tonight: Nights) -> None:
    tonight.config_file(reports={"formats": ["csv", "parquet", "xlsx", "html"]})
    with a_run(tonight) as running:
        assert running.stderr is not None
        while "stage relink took" not in (line := running.stderr.readline()):
            assert line, "the run ended early"
        wait_until(lambda: tonight.newest_run().stage == "report", "the report")
        terminate(running)
    run = tonight.newest_run()
    assert (run.state, run.exit_code, run.stage) == (records.INTERRUPTED, 143, "report")
    assert_finished_by_the_next_run(tonight)


def test_while_a_server_makes_it_wait_for_a_row(make_nights: MakeNights, postgres_url: str) -> None:
    nights = make_nights(small_world(start=datetime.now(UTC)), database_url=postgres_url)
    nights.config_file()
    plain = postgres_url.replace("+psycopg", "")
    waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with psycopg.connect(plain) as blocker, psycopg.connect(plain, autocommit=True) as observer:
        blocker.execute("LOCK TABLE relink_requests IN ACCESS EXCLUSIVE MODE")
        with a_run(nights) as running:
            wait_until(lambda: observer.execute(waits).fetchone() != (0,), "the wait for the lock")
            terminate(running)
    run = nights.newest_run()
    assert run.state in (records.INTERRUPTED, records.RUNNING)  # what reports of the stop waits for the same lock
    assert_finished_by_the_next_run(nights)


def test_while_another_program_keeps_the_database_file_locked(tonight: Nights) -> None:
    begun = _accounts_answer_never(tonight)
    file = tonight.database_url.removeprefix("sqlite:///")
    with a_run(tonight) as running:
        wait_until(begun, "the wait")
        with closing(sqlite3.connect(file, isolation_level=None)) as blocker:
            blocker.execute("BEGIN IMMEDIATE")
            tonight.world.faults.release_hanging()
            wait_until(lambda: tonight.world.log, "the second reading of the accounts")
            terminate(running)
    # It could not even say that it was interrupted; nothing holds the lock any more, which says the same.
    assert tonight.newest_run().state == records.RUNNING
    assert_finished_by_the_next_run(tonight)
