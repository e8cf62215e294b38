"""Waits until one transaction waits for another one."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from sqlalchemy import text

from jobs.adapters.database import Database

LONGEST_SECONDS = 60

_WAITS = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()")


def until_blocked(database: Database, late: Future[Any]) -> None:
    """Return once PostgreSQL has a transaction wait for a lock, or where `late`, which ought to, is done without.

    SQLite says of nobody that he waits, and there is nothing to wait for: a transaction that writes is alone from its beginning.
    """
    if database.kind == "sqlite":
        return

    def is_waiting() -> bool:
        with database.read() as connection:
            return bool(connection.execute(_WAITS).scalar())

    until = time.monotonic() + LONGEST_SECONDS
    with ThreadPoolExecutor(1) as pool:  # in this thread it would join the transaction that is waited for
        while not late.done() and not pool.submit(is_waiting).result():
            assert time.monotonic() < until, "nobody waits for the lock"
