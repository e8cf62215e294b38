"""One run at a time: a lease with a fencing token, so that a holder that slept through its time cannot act any more.

The lease keeps runs politely apart; what keeps a customer from being asked twice is the unique contact in the records. The token
rises with every acquisition, and whoever is about to contact a customer shows it in the transaction that says so.
PostgreSQL's own clock decides there, since several hosts may share it; on SQLite there is one host and so one clock.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, text

from jobs.adapters.database import Database
from jobs.adapters.lock_probe import (
    CLOCK_SLACK,
    LOCK_NAME,
    Holder,
    from_text,
    probe_lock,
    provably_gone,
    this_process,
    to_text,
)
from jobs.adapters.tables import from_microseconds
from jobs.clock import elapsed_seconds as _elapsed
from reconcile.errors import AlreadyRunning, DatabaseError, LeaseLost

__all__ = ["Holder", "Lease", "LeaseToken", "acquire", "holder_of", "probe_lock", "require_token"]

logger = logging.getLogger(__name__)

TTL_SECONDS = 30.0
RENEWALS_PER_TTL = 3


@dataclass(frozen=True, slots=True)
class LeaseToken:
    """What proves, in a transaction, that its maker still holds the lease."""

    value: int
    name: str = LOCK_NAME


class Lease:
    """A held lease; a thread renews it until `release`, which leaving a `with` block also does."""

    def __init__(
        self,
        database: Database,
        holder: Holder,
        token: LeaseToken,
        ttl_seconds: float,
        now: Callable[[], float],
        elapsed: Callable[[], float],
        wait: Callable[[threading.Event, float], bool],
    ) -> None:
        self.holder = holder
        self.token = token
        self._database = database
        self._ttl_seconds = ttl_seconds
        self._now = now
        self._elapsed = elapsed
        self._wait = wait
        self._renewed = elapsed()
        self._lost = threading.Event()
        self._released = threading.Event()
        self._renewing = threading.Lock()
        self._thread = threading.Thread(target=self._keep, name="relink-lease", daemon=True)

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def check(self) -> None:
        """Return only while this process holds the lease; an overdue renewal is made up for here, if nobody took over.

        Raises:
            LeaseLost: another run took over, or this lease was released.
        """
        overdue = self._elapsed() - self._renewed > self._ttl_seconds
        if overdue and not self._lost.is_set() and not self._released.is_set():
            self.renew()
        if self._lost.is_set() or self._released.is_set():
            raise LeaseLost(
                f"{self.holder.describe()} no longer holds the lock: another run took over, see `relink runs list`"
            )

    def prove(self) -> None:
        """Return only if the database says now that this process holds the lease; a run that was stopped learns here that it was taken over.

        Raises:
            LeaseLost: another run took over, or this lease was released.
            DatabaseError: the database could not be asked.
        """
        self.renew()
        self.check()

    def renew(self) -> bool:
        """Renew now and return whether the lease still is ours.

        The token in the row decides, not the time: as long as nobody took the lease over, nobody else has acted under it.
        """
        with self._renewing:
            started = self._elapsed()
            renewed = self._database.run(self._renew)
            if renewed:
                self._renewed = started
            else:
                self._lost.set()
            return renewed

    def release(self) -> None:
        """Give the lease back, so that the next run need not wait for its end; a lost lease is left to its new holder."""
        if self._released.is_set():
            return
        self._released.set()
        if self._thread.is_alive():
            self._thread.join(timeout=self._ttl_seconds)
        if self._lost.is_set():
            return
        statement = text(
            "UPDATE relink_lease SET holder = NULL, expires_at = renewed_at WHERE name = :name AND token = :token"
        )
        try:
            self._database.run(lambda connection: connection.execute(statement, self._key()))
        except DatabaseError as error:
            logger.warning(
                "the lock could not be given back and ends by itself in %.0f seconds: %s",
                self._ttl_seconds,
                error,
            )

    def start_renewing(self) -> None:
        """Start the thread that renews."""
        self._thread.start()

    def _keep(self) -> None:
        pause_seconds = self._ttl_seconds / RENEWALS_PER_TTL
        while not self._wait(self._released, pause_seconds):
            try:
                if not self.renew():
                    logger.error("the lock was taken over by another run")
                    return
                pause_seconds = self._ttl_seconds / RENEWALS_PER_TTL
            except Exception as error:
                # A run that cannot renew goes on until `check` or the fence says otherwise: both ask the database.
                logger.warning("the lock could not be renewed, trying again: %s", error)
                pause_seconds = self._ttl_seconds / RENEWALS_PER_TTL / 4

    def _renew(self, connection: Connection) -> bool:
        clock = _Clock(self._database, self._now)
        statement = text(
            f"UPDATE relink_lease SET renewed_at = {clock.now}, expires_at = {clock.end} WHERE name = :name AND token = :token"  # noqa: S608
        )
        result = connection.execute(statement, {**self._key(), **clock.values(self._ttl_seconds)})
        return result.rowcount == 1

    def _key(self) -> dict[str, Any]:
        return {"name": self.token.name, "token": self.token.value}


def acquire(
    database: Database,
    holder: str,
    ttl_seconds: float = TTL_SECONDS,
    now: Callable[[], float] = time.time,
    *,
    elapsed: Callable[[], float] | None = None,
    wait: Callable[[threading.Event, float], bool] = threading.Event.wait,
    renew: bool = True,
) -> Lease:
    """Take the lease, or say who has it.

    Args:
        holder: whose run it is, for people: the run id or the command.
        now: the wall clock in seconds since 1970, which decides on SQLite.
        elapsed: seconds that nobody can set back, by which a renewal is overdue.
        wait: pauses between two renewals; true once the event is set, by which the lease is released.
        renew: start the thread that keeps the lease; only tests do without.

    Raises:
        AlreadyRunning: another process holds it and may be alive.
    """
    mine = this_process(holder, ttl_seconds)

    def work(connection: Connection) -> int:
        clock = _Clock(database, now)
        row = _row(connection, clock)
        # A holder that is gone cannot be renewing, so its very token may be taken without waiting for the end of its time.
        gone = (
            row.token if row is not None and (held := from_text(row.holder)) is not None and provably_gone(held) else -1
        )
        statement = text(
            "INSERT INTO relink_lease (name, holder, token, acquired_at, renewed_at, expires_at) "  # noqa: S608
            f"VALUES (:name, :holder, 1, {clock.now}, {clock.now}, {clock.end}) "
            "ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, token = relink_lease.token + 1, "
            "acquired_at = excluded.acquired_at, renewed_at = excluded.renewed_at, expires_at = excluded.expires_at "
            f"WHERE relink_lease.holder IS NULL OR relink_lease.expires_at <= {clock.now} "
            f"OR relink_lease.expires_at > {clock.implausible} OR relink_lease.token = :gone "
            "RETURNING token"
        )
        values = {"name": LOCK_NAME, "holder": to_text(mine), "gone": gone, **clock.values(ttl_seconds)}
        token: int | None = connection.execute(statement, values).scalar()
        if token is None:
            raise _already_running(_row(connection, clock))
        return token

    with database.read() as connection:
        _refuse_if_held(_row(connection, _Clock(database, now)))
    token = LeaseToken(database.run(work, durable=True))
    lease = Lease(database, mine, token, ttl_seconds, now, elapsed or _elapsed, wait)
    if renew:
        lease.start_renewing()
    return lease


def holder_of(database: Database, now: Callable[[], float] = time.time) -> Holder | None:
    """Who holds the lease now, None if it is free."""
    with database.read() as connection:
        row = _row(connection, _Clock(database, now))
    return from_text(row.holder) if row is not None and _is_held(row) else None


def require_token(connection: Connection, token: LeaseToken) -> None:
    """Raise LeaseLost unless the token is the newest; until this transaction ends nobody can take the lease over.

    The lease's end is not asked for: a token that is still the newest proves that nobody else has begun to act.
    """
    lock = " FOR SHARE" if connection.dialect.name == "postgresql" else ""
    statement = text(f"SELECT token FROM relink_lease WHERE name = :name AND holder IS NOT NULL{lock}")  # noqa: S608
    newest = connection.execute(statement, {"name": token.name}).scalar()
    if newest != token.value:
        raise LeaseLost("another run took over the lock, so this one contacts nobody any more: see `relink runs list`")


class _Clock:
    """The moment of a decision in SQL: the server's on PostgreSQL, the caller's on SQLite."""

    def __init__(self, database: Database, now: Callable[[], float]) -> None:
        self._server = database.kind == "postgresql"
        self._now = now
        slack = f"{CLOCK_SLACK} * :ttl"
        if self._server:
            self.now = "clock_timestamp()"
            self.end = "clock_timestamp() + :ttl * interval '1 second'"
            self.implausible = f"clock_timestamp() + {slack} * interval '1 second'"
            self.left = "extract(epoch FROM expires_at - clock_timestamp())"
        else:
            self.now, self.end, self.implausible = ":now", ":now + :ttl", f":now + {slack}"
            self.left = "(expires_at - :now) / 1000000.0"

    def values(self, ttl_seconds: float) -> dict[str, Any]:
        """The values that the expressions name."""
        if self._server:
            return {"ttl": ttl_seconds}
        return {"now": int(self._now() * 1_000_000), "ttl": int(ttl_seconds * 1_000_000)}


def _row(connection: Connection, clock: _Clock) -> Row[Any] | None:
    columns = f"holder, token, acquired_at, {clock.left} AS left_seconds"
    statement = text(f"SELECT {columns} FROM relink_lease WHERE name = :name")  # noqa: S608
    values = {name: value for name, value in clock.values(0).items() if name == "now"}
    return connection.execute(statement, {"name": LOCK_NAME, **values}).one_or_none()


def _is_held(row: Row[Any]) -> bool:
    holder = from_text(row.holder)
    return holder is not None and 0 < float(row.left_seconds) <= CLOCK_SLACK * holder.ttl_seconds


def _refuse_if_held(row: Row[Any] | None) -> None:
    # Reading needs no lock, so a start that cannot succeed ends at once even while the holder is writing.
    holder = from_text(row.holder) if row is not None and _is_held(row) else None
    if holder is not None and not provably_gone(holder):
        raise _already_running(row)


def _already_running(row: Row[Any] | None) -> AlreadyRunning:
    holder = from_text(row.holder) if row is not None else None
    if row is None or holder is None:
        return AlreadyRunning("another run took the lock first: see `relink runs list`")
    since = row.acquired_at if isinstance(row.acquired_at, datetime) else from_microseconds(row.acquired_at)
    return AlreadyRunning(
        f"another run holds the lock: {holder.describe()}, since {since.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC; "
        "wait for it, or end that process"
    )
