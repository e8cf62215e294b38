"""Holders of the lock: one of another host, one whose process has ended, and whichever is put in place of the stored one."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from sqlalchemy import text

from jobs.adapters.database import Database
from jobs.adapters.lock_probe import Holder, provably_gone, this_process, to_text


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


def holder_of_process(pid: int) -> Holder:
    """A process of this host as a holder."""
    started = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19].decode()
    return replace(this_process("run", 30.0), pid=pid, pid_started=started)


def gone() -> Holder:
    """A holder of this host whose process has ended."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    holder = holder_of_process(process.pid)
    assert not provably_gone(holder)
    process.communicate(b"\n")
    return holder
