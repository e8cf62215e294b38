"""Whether a process is gone, and whether a lock is held, told without the database's machinery."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from jobs.adapters.database import open_database
from jobs.adapters.lease import holder_of
from jobs.adapters.lock_probe import Holder, from_text, probe_lock, provably_gone, this_process
from tests.jobs.adapters.stored_values import held

NAMED = "import sys; open('/proc/self/comm', 'wb').write(b'a) Z \\xff 1'); print('named', flush=True); sys.stdin.read()"
"""A process whose name holds a bracket, spaces, a letter that is a state, and a byte that is no text."""


def holder_of_process(pid: int) -> Holder:
    started = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19].decode()
    return replace(this_process("run", 30.0), pid=pid, pid_started=started)


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


def test_a_holder_that_cannot_be_read_is_named_as_such() -> None:
    nameless = from_text("no json")
    assert nameless is not None
    assert nameless.describe() == "another program (process 0 on an unknown host)"


def test_a_lock_is_held_from_its_beginning_to_its_end_and_not_from_a_clock_that_was_set_back(sqlite_url: str) -> None:
    with open_database(sqlite_url) as database:
        lease = held(database, now=lambda: 1000.0)
        for now, holder in ((969.9, None), (970.0, lease.holder), (1029.5, lease.holder), (1030.0, None)):
            at = (lambda moment: lambda: moment)(now)
            assert (now, probe_lock(sqlite_url, now=at)) == (now, holder)
            assert (now, holder_of(database, at)) == (now, holder)
