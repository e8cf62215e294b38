"""Who holds the lock, found out cheaply: without SQLAlchemy, so that a second start gives up at once."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from urllib.parse import quote

LOCK_NAME = "run"
CLOCK_SLACK = 2
"""A lock that claims to end later than this many lifetimes ahead was taken under a clock that has since been set back."""

_CONNECT_TIMEOUT_SECONDS = 2


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that holds the lock. `pid` means something only within `boot_id` and `pid_namespace`; `pid_started` tells reused pids apart."""

    name: str
    host: str
    pid: int
    boot_id: str | None = None
    pid_namespace: str | None = None
    pid_started: str | None = None
    ttl_seconds: float = 30.0

    def describe(self) -> str:
        """The holder for people."""
        return f"{self.name} (process {self.pid} on {self.host})"


def this_process(name: str, ttl_seconds: float) -> Holder:
    """The holder that this process would be."""
    pid = os.getpid()
    return Holder(name, socket.gethostname(), pid, _boot_id(), _pid_namespace(), _started(pid), ttl_seconds)


def to_text(holder: Holder) -> str:
    """A holder as it is stored."""
    return json.dumps(asdict(holder))


def from_text(stored: str | None) -> Holder | None:
    """A stored holder; None for none, and a nameless one for text that this version cannot read."""
    if stored is None:
        return None
    try:
        values = json.loads(stored)
        known = {field.name for field in fields(Holder)}
        return Holder(**{name: value for name, value in values.items() if name in known})
    except (ValueError, TypeError, AttributeError):
        return Holder("another program", "an unknown host", 0)


def provably_gone(holder: Holder) -> bool:
    """Whether the holder certainly ended: it ran in this boot and this set of processes, and is not there now.

    Anything that cannot be proved, such as a process in another container, counts as alive; its lock then ends by time.
    """
    here = (_boot_id(), _pid_namespace())
    if None in here or (holder.boot_id, holder.pid_namespace) != here or holder.pid_started is None:
        return False
    return _started(holder.pid) != holder.pid_started


def probe_lock(url: str, *, now: Callable[[], float] = time.time) -> Holder | None:
    """The live holder of the lock in a database, None where it is free or that cannot be told here.

    It only ever reads, and any fault counts as free: taking the lock properly then decides, and explains.
    """
    try:
        if url.startswith("sqlite:///"):
            row = _probe_sqlite(url.removeprefix("sqlite:///"), now())
        elif url.startswith("postgresql+psycopg://"):
            row = _probe_postgresql("postgresql" + url.removeprefix("postgresql+psycopg"))
        else:
            return None
    except Exception:
        return None
    holder = from_text(row[0]) if row else None
    if row is None or holder is None or provably_gone(holder):
        return None
    left_seconds = float(row[1])
    return holder if 0 < left_seconds <= CLOCK_SLACK * holder.ttl_seconds else None


def _probe_sqlite(path: str, now: float) -> tuple[str | None, float] | None:
    connection = sqlite3.connect(f"file:{quote(os.path.abspath(path))}?mode=ro", uri=True, timeout=1)
    try:
        row = connection.execute("SELECT holder, expires_at FROM relink_lease WHERE name = ?", (LOCK_NAME,)).fetchone()
    finally:
        connection.close()
    return (row[0], row[1] / 1e6 - now) if row else None


def _probe_postgresql(url: str) -> tuple[str | None, float] | None:
    import psycopg

    statement = "SELECT holder, extract(epoch FROM expires_at - clock_timestamp()) FROM relink_lease WHERE name = %s"
    with psycopg.connect(url, connect_timeout=_CONNECT_TIMEOUT_SECONDS) as connection:
        row = connection.execute(statement, (LOCK_NAME,)).fetchone()
    return (row[0], float(row[1])) if row else None


def _boot_id() -> str | None:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


def _pid_namespace() -> str | None:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return None


def _started(pid: int) -> str | None:
    """When a process started, in ticks since boot (proc(5), stat field 22); None if there is none, or only its remains."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    # The second field, the program's name, may hold spaces and brackets; the rest follows its last bracket.
    after_name = status.rpartition(")")[2].split()
    return None if after_name[0] in "ZX" else after_name[19]
