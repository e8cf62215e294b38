"""Whether a process is gone, and whether a lock is held, told without the database's machinery."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.adapters.database import Database, open_database
from jobs.adapters.lease import holder_of
from jobs.adapters.lock_probe import from_text, probe_lock, provably_gone, this_process, to_text
from tests.jobs.adapters.holders import elsewhere, gone, holder_of_process, rewrite
from tests.jobs.adapters.stored_values import held

ROOT = Path(__file__).parents[3]

NAMED = "import sys; open('/proc/self/comm', 'wb').write(b'a) Z \\xff 1'); print('named', flush=True); sys.stdin.read()"
"""A process whose name holds a bracket, spaces, a letter that is a state, and a byte that is no text."""


def test_a_holder_says_what_tells_its_process_from_all_others() -> None:
    me = this_process("run", 7.0)
    assert (me.name, me.pid, me.ttl_seconds) == ("run", os.getpid(), 7.0)
    assert me == replace(holder_of_process(os.getpid()), ttl_seconds=7.0)
    assert int(str(me.pid_started)) / os.sysconf("SC_CLK_TCK") <= time.clock_gettime(time.CLOCK_BOOTTIME)


def test_a_process_of_any_name_is_there_until_it_ends_and_its_remains_are_not() -> None:
    process = subprocess.Popen([sys.executable, "-c", NAMED], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == b"named\n"
    holder = holder_of_process(process.pid)
    assert not provably_gone(holder)
    assert provably_gone(replace(holder, pid_started="1"))
    process.stdin.close()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert provably_gone(holder), "it has ended, though its parent has not asked for it yet"
    process.wait()
    assert provably_gone(holder)
    process.stdout.close()


def test_a_lock_is_held_from_its_beginning_to_its_end_and_not_from_a_clock_that_was_set_back(sqlite_url: str) -> None:
    with open_database(sqlite_url) as database:
        lease = held(database, now=lambda: 1000.0)
        for now, holder in ((969.9, None), (970.0, lease.holder), (1029.5, lease.holder), (1030.0, None)):
            at = (lambda moment: lambda: moment)(now)
            assert (now, probe_lock(sqlite_url, now=at)) == (now, holder)
            assert (now, holder_of(database, at)) == (now, holder)


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
        assert nameless.describe() == "another program (process 0 on an unknown host)"
