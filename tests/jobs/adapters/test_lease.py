"""One run at a time, on both databases: who gets the lock, who takes over from whom, and what the loser may no longer do."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text

from jobs.adapters import lease as lease_module
from jobs.adapters import lock_probe
from jobs.adapters.database import Database, open_database
from jobs.adapters.lease import LeaseToken, acquire, holder_of, require_token
from jobs.adapters.lock_probe import Holder, from_text, probe_lock, provably_gone, this_process, to_text
from reconcile.errors import AlreadyRunning, LeaseLost
from tests.jobs.adapters.stored_values import held

ROOT = Path(__file__).parents[3]


def rewrite(database: Database, holder: Holder | None, ends_in_seconds: float) -> None:
    """Put somebody else's lease in place of the stored one, ending some time from now."""
    shift = ends_in_seconds * 1_000_000
    clock = (
        "clock_timestamp() + :shift * interval '1 microsecond'" if database.kind == "postgresql" else ":now + :shift"
    )
    statement = text(f"UPDATE relink_lease SET holder = :holder, expires_at = {clock}")
    values = {"holder": None if holder is None else to_text(holder), "shift": int(shift)}
    with database.begin() as connection:
        connection.execute(
            statement, values if database.kind == "postgresql" else {**values, "now": int(time.time() * 1e6)}
        )


def elsewhere() -> Holder:
    """A holder of which nothing can be proved from here."""
    return replace(this_process("their run", 30.0), host="another-host", boot_id="another boot", pid=4242)


def gone() -> Holder:
    """A holder of this host whose process has ended."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    holder = replace(this_process("dead run", 30.0), pid=process.pid, pid_started=lock_probe._started(process.pid))
    assert not provably_gone(holder)
    process.communicate(b"\n")
    return holder


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


def test_an_overdue_lease_is_renewed_by_its_check_unless_somebody_took_over(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = held(database)
    rewrite(database, lease.holder, -5)
    slept = lease_module._elapsed() + 3600
    monkeypatch.setattr(lease_module, "_elapsed", lambda: slept)
    lease.check()
    assert holder_of(database) == lease.holder
    monkeypatch.setattr(lease_module, "_elapsed", lambda: slept + 3600)
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


def test_the_thread_renews_and_notices_a_loss(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    lease = acquire(database, "test", ttl_seconds=0.3)
    assert until(lambda: _renewals(database) > 0)
    rewrite(database, elsewhere(), -1)
    other = held(database)
    assert until(lambda: not lease._thread.is_alive())
    with pytest.raises(LeaseLost):
        lease.check()
    lease.release()
    assert "taken over" in caplog.text
    assert holder_of(database) == other.holder


def test_the_thread_ends_with_the_lease(database: Database) -> None:
    lease = acquire(database, "test")
    assert (lease._thread.name, lease._thread.daemon) == ("relink-lease", True), "it keeps no process from ending"
    lease.release()
    assert not lease._thread.is_alive()


class _Pauses(threading.Event):
    """Notes how long is waited instead of waiting; set after so many pauses."""

    def __init__(self, database: Database, renamed_during: int, most: int) -> None:
        super().__init__()
        self.seconds: list[float | None] = []
        self._database, self._renamed_during, self._most = database, renamed_during, most

    def wait(self, timeout: float | None = None) -> bool:
        self.seconds.append(timeout)
        if len(self.seconds) == self._renamed_during:
            self._rename("relink_lease", "elsewhere")
        if len(self.seconds) == self._renamed_during + 1:
            self._rename("elsewhere", "relink_lease")
        return len(self.seconds) == self._most

    def _rename(self, name: str, other: str) -> None:
        with self._database.begin() as connection:
            connection.execute(text(f"ALTER TABLE {name} RENAME TO {other}"))


def test_a_lease_is_renewed_three_times_a_lifetime_and_sooner_after_a_failure(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    lease = held(database)
    pauses = _Pauses(database, renamed_during=2, most=5)
    lease._released = pauses
    lease._keep()
    assert pauses.seconds == [10.0, 10.0, 2.5, 10.0, 10.0]
    (warned,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "could not be renewed, trying again: " in warned
    assert "relink_lease" in warned
    assert holder_of(database) == lease.holder


def test_a_lease_that_is_not_overdue_is_checked_without_the_database(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = held(database)
    latest = lease._renewed + lease.holder.ttl_seconds
    monkeypatch.setattr(lease_module, "_elapsed", lambda: latest)
    lease.check()
    assert _renewals(database) == 0
    monkeypatch.setattr(lease_module, "_elapsed", lambda: latest + 0.001)
    lease.check()
    assert _renewals(database) == 1


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


def test_whoever_took_the_lock_just_now_is_named(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another start came between the look and the taking."""
    held(database)
    monkeypatch.setattr(lease_module, "_refuse_if_held", lambda _: None)
    with pytest.raises(AlreadyRunning, match=rf"test \(process {os.getpid()} on "):
        acquire(database, "second run")


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


def _renewals(database: Database) -> int:
    with database.read() as connection:
        return connection.execute(text("SELECT count(*) FROM relink_lease WHERE renewed_at > acquired_at")).scalar_one()


def until(condition: Callable[[], bool]) -> bool:
    """Wait for another thread, ten seconds at most."""
    end = time.monotonic() + 10
    while not condition():
        if time.monotonic() > end:
            return False
        threading.Event().wait(0.01)
    return True


def test_a_takeover_waits_for_a_proof_in_progress(database: Database) -> None:
    """Between the proof of a token and the commit that rests on it, nobody else can become the holder."""
    lease = held(database)
    rewrite(database, elsewhere(), -1)
    order: list[str] = []
    proven, finish = threading.Event(), threading.Event()

    def prove() -> None:
        with database.begin() as connection:
            require_token(connection, lease.token)
            proven.set()
            finish.wait(10)
            order.append("committed")

    def take_over() -> None:
        held(database)
        order.append("taken over")

    prover, taker = threading.Thread(target=prove), threading.Thread(target=take_over)
    prover.start()
    assert proven.wait(10)
    taker.start()
    taker.join(0.2)
    finish.set()
    prover.join()
    taker.join()
    assert order == ["committed", "taken over"]


def test_the_probe_agrees_with_the_lease(database: Database, migrated_url: str) -> None:
    assert probe_lock(migrated_url) is None
    lease = held(database)
    assert probe_lock(migrated_url) == lease.holder
    rewrite(database, elsewhere(), -1)
    assert probe_lock(migrated_url) is None
    rewrite(database, elsewhere(), 25 * 3600)
    assert probe_lock(migrated_url) is None
    rewrite(database, gone(), 20)
    assert probe_lock(migrated_url) is None
    rewrite(database, lease.holder, 20)
    lease.release()
    assert probe_lock(migrated_url) is None


@pytest.mark.parametrize(
    "url",
    ["sqlite:///{0}/none.db", "sqlite:///{0}/text.db", "postgresql+psycopg://127.0.0.1:9/x", "nonsense", "sqlite://"],
)
def test_a_probe_that_cannot_tell_says_free_and_makes_nothing(tmp_path: Path, url: str) -> None:
    (tmp_path / "text.db").write_text("no database")
    assert probe_lock(url.format(tmp_path)) is None
    assert [found.name for found in tmp_path.iterdir()] == ["text.db"]


def test_the_probe_is_light() -> None:
    script = "import sys, jobs.adapters.lock_probe; print([name for name in ('sqlalchemy', 'pandas', 'pyarrow', 'psycopg') if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout == "[]\n"


def test_only_what_can_be_proved_counts_as_gone() -> None:
    me = this_process("test", 30.0)
    assert not provably_gone(me)
    assert provably_gone(replace(me, pid_started="1"))
    assert not provably_gone(replace(me, pid_started="1", boot_id="another boot"))
    assert not provably_gone(replace(me, pid_started="1", pid_namespace="pid:[1]"))
    assert not provably_gone(replace(me, pid_started=None))


def test_a_holder_of_another_version_is_still_a_holder() -> None:
    me = this_process("test", 30.0)
    assert from_text(to_text(me)) == me
    assert from_text(json.dumps({**json.loads(to_text(me)), "later_field": 1})) == me
    assert from_text(None) is None
    for stored in ("", "[]", "{}", "no json"):
        nameless = from_text(stored)
        assert nameless is not None
        assert "another program" in nameless.describe()
