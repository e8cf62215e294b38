"""One run at a time, on both databases: who gets the lock, who takes over from whom, and what the loser may no longer do."""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Engine, event, text

from jobs.adapters.database import Database, open_database
from jobs.adapters.lease import LeaseToken, acquire, holder_of, require_token
from reconcile.errors import AlreadyRunning, LeaseLost
from tests.jobs.adapters.holders import elsewhere, gone, rewrite
from tests.jobs.adapters.stored_values import held
from tests.jobs.adapters.waiting import until_blocked

ROOT = Path(__file__).parents[3]


def test_a_second_run_is_told_who_runs_since_when(database: Database) -> None:
    first = held(database)
    with pytest.raises(AlreadyRunning) as raised:
        acquire(database, "second run")
    message = str(raised.value)
    assert f"test (process {os.getpid()} on {socket.gethostname()})" in message
    assert "UTC" in message
    assert raised.value.exit_code == 6
    assert holder_of(database) == first.holder


def test_a_released_lease_is_free_and_its_token_rises(database: Database) -> None:
    with held(database) as first:
        assert holder_of(database) is not None
    assert holder_of(database) is None
    second = held(database)
    assert second.token.value == first.token.value + 1
    first.release()
    assert holder_of(database) == second.holder, "a second release takes nothing from the next holder"


def test_of_sixteen_threads_that_start_together_one_gets_the_lease(database: Database) -> None:
    start = threading.Barrier(16)

    def race(number: int) -> LeaseToken | None:
        start.wait()
        try:
            return acquire(database, f"run {number}", renew=False).token
        except AlreadyRunning:
            return None

    with ThreadPoolExecutor(16) as pool:
        tokens = [token for token in pool.map(race, range(16)) if token is not None]
    assert tokens == [LeaseToken(1)]


RACER = """
import sys, time
from jobs.adapters.database import open_database
from jobs.adapters.lease import acquire
from reconcile.errors import AlreadyRunning
database = open_database(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
try:
    acquire(database, "racer")
    print("got it", flush=True)
    sys.stdin.readline()
except AlreadyRunning:
    print("refused", flush=True)
"""


def test_of_several_processes_that_start_together_one_gets_the_lease(migrated_url: str) -> None:
    command = [sys.executable, "-c", RACER, migrated_url]
    racers = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(5)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("\n")
        racer.stdin.flush()
    answers = [racer.stdout.readline() for racer in racers if racer.stdout is not None]
    for racer in racers:
        racer.communicate("\n")
    assert sorted(answers) == ["got it\n"] + ["refused\n"] * 4


def test_a_lease_that_ended_is_taken_over_and_its_old_holder_is_out(database: Database) -> None:
    old = held(database)
    rewrite(database, elsewhere(), -0.001)
    new = held(database)
    assert new.token.value == old.token.value + 1
    assert not old.renew()
    with pytest.raises(LeaseLost, match="another run took over"):
        old.check()
    with pytest.raises(LeaseLost), database.begin() as connection:
        require_token(connection, old.token)
    old.release()
    assert holder_of(database) == new.holder
    new.check()
    with database.begin() as connection:
        require_token(connection, new.token)


def test_a_living_holder_elsewhere_is_respected(database: Database) -> None:
    held(database)
    rewrite(database, elsewhere(), 20)
    with pytest.raises(AlreadyRunning, match=r"their run \(process 4242 on another-host\)"):
        acquire(database, "second run")


def test_a_holder_that_provably_died_is_followed_at_once(database: Database) -> None:
    old = held(database)
    rewrite(database, gone(), 20)
    assert held(database).token.value == old.token.value + 1


def test_a_lease_from_before_the_clock_was_set_back_does_not_block(database: Database) -> None:
    old = held(database)
    rewrite(database, elsewhere(), 25 * 3600)
    assert holder_of(database) is None
    assert held(database).token.value == old.token.value + 1


def test_on_one_host_the_given_clock_decides(sqlite_url: str) -> None:
    with open_database(sqlite_url) as database:
        first = held(database, now=lambda: 1000.0)
        with pytest.raises(AlreadyRunning):
            held(database, now=lambda: 1029.9)
        assert held(database, now=lambda: 1030.0).token.value == first.token.value + 1


def test_an_overdue_lease_is_renewed_by_its_check_unless_somebody_took_over(database: Database) -> None:
    slept_seconds = 0.0
    lease = held(database, elapsed=lambda: slept_seconds)
    rewrite(database, lease.holder, -5)
    slept_seconds += 3600
    lease.check()
    assert holder_of(database) == lease.holder
    slept_seconds += 3600
    rewrite(database, elsewhere(), -5)
    held(database)
    with pytest.raises(LeaseLost):
        lease.check()


def test_a_released_lease_is_no_proof_any_more(database: Database) -> None:
    lease = held(database)
    lease.release()
    with pytest.raises(LeaseLost):
        lease.check()
    with pytest.raises(LeaseLost), database.begin() as connection:
        require_token(connection, lease.token)


def renewing() -> threading.Thread:
    """The thread that renews the lease that was taken last."""
    return [thread for thread in threading.enumerate() if thread.name == "relink-lease"][-1]


class Pauses:
    """The pauses of the thread that renews: noted, ended by whoever lets it go on, and so many at most."""

    def __init__(self, most: int) -> None:
        self.seconds: list[float] = []
        self._most = most
        self._waits, self._goes_on = threading.Semaphore(0), threading.Semaphore(0)

    def __call__(self, released: threading.Event, seconds: float) -> bool:
        self.seconds.append(seconds)
        self._waits.release()
        return not self._goes_on.acquire(timeout=10) or released.is_set() or len(self.seconds) == self._most

    def come(self) -> None:
        """Return once the thread has come to its next pause."""
        assert self._waits.acquire(timeout=10), "the thread does not wait"

    def end(self) -> None:
        """Let the thread go on."""
        self._goes_on.release()


def test_the_thread_renews_and_notices_a_loss(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    pauses = Pauses(most=3)
    lease = acquire(database, "test", wait=pauses)
    thread = renewing()
    pauses.come()
    before = renewed_at(database)
    pauses.end()
    pauses.come()
    assert renewed_at(database) != before
    rewrite(database, elsewhere(), -1)
    other = held(database)
    pauses.end()
    thread.join(10)
    assert (thread.is_alive(), len(pauses.seconds)) == (False, 2)
    with pytest.raises(LeaseLost):
        lease.check()
    lease.release()
    assert "taken over" in caplog.text
    assert holder_of(database) == other.holder


def test_the_thread_ends_with_the_lease(database: Database) -> None:
    lease = acquire(database, "test")
    thread = renewing()
    assert thread.daemon, "it keeps no process from ending"
    lease.release()
    assert not thread.is_alive()


def test_a_lease_is_renewed_three_times_a_lifetime_and_sooner_after_a_failure(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    pauses = Pauses(most=5)
    lease = acquire(database, "test", wait=pauses)
    thread = renewing()
    for name, other in ((None, None), ("relink_lease", "elsewhere"), ("elsewhere", "relink_lease"), (None, None)):
        pauses.come()
        if name is not None:
            with database.begin() as connection:
                connection.execute(text(f"ALTER TABLE {name} RENAME TO {other}"))
        pauses.end()
    pauses.come()
    pauses.end()
    thread.join(10)
    assert pauses.seconds == [10.0, 10.0, 2.5, 10.0, 10.0]
    (warned,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "could not be renewed, trying again: " in warned
    assert "relink_lease" in warned
    assert holder_of(database) == lease.holder


def test_a_lease_that_is_not_overdue_is_checked_without_the_database(database: Database) -> None:
    passed_seconds = 1000.0
    lease = held(database, elapsed=lambda: passed_seconds)
    before = renewed_at(database)
    passed_seconds += lease.holder.ttl_seconds
    lease.check()
    assert renewed_at(database) == before
    passed_seconds += 0.001
    lease.check()
    assert renewed_at(database) != before


def test_a_lease_that_cannot_be_given_back_says_when_it_ends(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    lease = held(database)
    with database.begin() as connection:
        connection.execute(text("ALTER TABLE relink_lease RENAME TO elsewhere"))
    try:
        lease.release()
    finally:
        with database.begin() as connection:
            connection.execute(text("ALTER TABLE elsewhere RENAME TO relink_lease"))
    assert "ends by itself in 30 seconds: " in caplog.text
    assert "relink_lease" in caplog.text


def test_a_second_start_is_refused_while_the_first_one_writes(database: Database, migrated_url: str) -> None:
    """It only reads, and so waits for no transaction."""
    lease = held(database)
    with database.begin() as connection, open_database(migrated_url) as other:
        require_token(connection, lease.token)
        connection.execute(text("UPDATE relink_lease SET renewed_at = renewed_at"))
        with pytest.raises(AlreadyRunning):
            acquire(other, "second run")


def test_whoever_took_the_lock_just_now_is_named(database: Database, migrated_url: str) -> None:
    """Another start came between the look and the taking."""
    transactions = 0

    def another_start_comes(_: object) -> None:
        nonlocal transactions
        transactions += 1
        if transactions == 2:
            with open_database(migrated_url) as other:
                held(other)

    event.listen(Engine, "engine_connect", another_start_comes)
    try:
        with pytest.raises(AlreadyRunning, match=rf"test \(process {os.getpid()} on "):
            acquire(database, "second run", renew=False)
    finally:
        event.remove(Engine, "engine_connect", another_start_comes)
    assert transactions > 2


def test_since_when_is_told_in_utc(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        with open_database(sqlite_url) as database:
            held(database, now=lambda: 1000.0)
            with pytest.raises(AlreadyRunning, match="since 1970-01-01 00:16:40 UTC"):
                held(database, now=lambda: 1001.0)
    finally:
        monkeypatch.undo()
        time.tzset()


def renewed_at(database: Database) -> object:
    """When the stored lease was renewed last."""
    with database.read() as connection:
        return connection.execute(text("SELECT renewed_at FROM relink_lease")).scalar_one()


def test_a_takeover_waits_for_a_proof_in_progress(database: Database, migrated_url: str) -> None:
    """Between the proof of a token and the commit that rests on it, nobody else can become the holder."""
    lease = held(database)
    rewrite(database, elsewhere(), -1)
    with ThreadPoolExecutor(1) as pool:
        with database.begin() as connection:
            require_token(connection, lease.token)
            taker = pool.submit(held, database)
            until_blocked(database, taker)
            if database.kind == "sqlite":
                _assert_nobody_else_can_write(migrated_url)
            assert not taker.done()
        assert taker.result().token.value == lease.token.value + 1


def _assert_nobody_else_can_write(sqlite_url: str) -> None:
    with (
        closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), timeout=0)) as other,
        pytest.raises(sqlite3.OperationalError, match="locked"),
    ):
        other.execute("BEGIN IMMEDIATE")
