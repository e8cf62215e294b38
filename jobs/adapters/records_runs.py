"""Runs, the merchants each one covered, and which mode a merchant's records belong to."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, Select, select, update

from jobs.adapters.database import Database
from jobs.adapters.tables import merchants, report_facts, run_merchants, runs
from reconcile.errors import DatabaseError, ModeMismatch
from reconcile.model import Scope

RUNNING = "running"
COMPLETE = "complete"
STOPPED = "stopped"
INTERRUPTED = "interrupted"

NIGHT_COMMANDS = ("run", "resume")
"""What does a whole night; `resume` finishes nothing else."""


@dataclass(frozen=True, slots=True)
class RunMerchant:
    """What one run did for one merchant; `complete` means that its pull was complete and its report reached."""

    run_id: str
    merchant: str
    mode: str
    snapshot_id: str | None
    complete: bool
    held: bool
    why: str | None
    counts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A run as recorded; `state` is running, complete, stopped or interrupted, times are aware UTC."""

    run_id: str
    command: str
    business_date: date
    state: str
    stage: str | None
    started_at: datetime
    finished_at: datetime | None
    exit_code: int | None
    why: str | None
    settings_hash: str
    settings: Mapping[str, Any]
    arguments: Mapping[str, Any]
    report_directory: str | None
    resumed_from: str | None
    held: bool
    merchants: tuple[RunMerchant, ...] = field(default=())


class ReportFacts(NamedTuple):
    """What a published report rests on besides the records, as `jobs/report_facts.py` packs it, and the moment whose records it shows."""

    published_at: datetime
    facts: bytes


def stamp_merchant(database: Database, merchant: str, mode: str, stripe_account: str | None, at: datetime) -> None:
    """Record which mode and Stripe account a merchant's records belong to; the first stamp stands.

    Raises:
        ModeMismatch: the records are of the other mode, or of another Stripe account.
    """

    def work(connection: Connection) -> None:
        row = connection.execute(select(merchants).where(merchants.c.merchant == merchant)).one_or_none()
        if row is None:
            values = {
                "merchant": merchant,
                "mode": mode,
                "stripe_account": stripe_account,
                "first_seen_at": at,
            }
            connection.execute(database.insert(merchants).values(values).on_conflict_do_nothing())
            row = connection.execute(select(merchants).where(merchants.c.merchant == merchant)).one()
        if row.mode != mode:
            raise ModeMismatch(
                f"merchant {merchant}: the records in {database.shown} are of mode {row.mode}, the key is {mode}: "
                "use the other key, or another name or database for this mode"
            )
        if row.stripe_account != stripe_account:
            raise ModeMismatch(
                f"merchant {merchant}: the records in {database.shown} belong to stripe_account {row.stripe_account}, the settings "
                f"name {stripe_account}: correct the settings, or use another merchant name"
            )

    database.run(work)


def recorded_mode(database: Database, merchant: str) -> str | None:
    """The mode that a merchant's records belong to, None before its first run."""
    with database.read() as connection:
        mode: str | None = connection.execute(select(merchants.c.mode).where(merchants.c.merchant == merchant)).scalar()
    return mode


def start_run(
    database: Database,
    run_id: str,
    command: str,
    business_date: date,
    started_at: datetime,
    *,
    settings_hash: str,
    settings: Mapping[str, Any],
    arguments: Mapping[str, Any] | None = None,
    report_directory: str | None = None,
    resumed_from: str | None = None,
) -> None:
    """Record that a run began, before it does anything; a run that is taken up again under its id runs once more."""
    values = {
        "run_id": run_id,
        "command": command,
        "business_date": business_date,
        "state": RUNNING,
        "stage": None,
        "started_at": started_at,
        "settings_hash": settings_hash,
        "settings": dict(settings),
        "arguments": dict(arguments or {}),
        "report_directory": report_directory,
        "resumed_from": resumed_from,
        "held": False,
    }

    def work(connection: Connection) -> None:
        known = connection.execute(select(runs.c.state).where(runs.c.run_id == run_id)).scalar()
        if known is None:
            connection.execute(runs.insert().values(values))
        elif known == COMPLETE:
            raise DatabaseError(
                f"run {run_id} is complete and cannot start again: use `relink retry {run_id}`, or start a new run"
            )
        else:
            again = {"state": RUNNING, "finished_at": None, "exit_code": None, "why": None}
            connection.execute(update(runs).where(runs.c.run_id == run_id).values(again))

    database.run(work)


def set_stage(database: Database, run_id: str, stage: str) -> None:
    """Record how far a run has come."""
    _update_run(database, run_id, {"stage": stage})


def finish_run(
    database: Database,
    run_id: str,
    state: str,
    finished_at: datetime,
    exit_code: int,
    *,
    why: str | None = None,
    held: bool = False,
    report_directory: str | None = None,
    facts: ReportFacts | None = None,
) -> None:
    """Record how a run ended; `why` says what stopped it, `held` that a brake held something back.

    Args:
        facts: what its report rests on besides the records; kept in the same transaction, so that whatever is complete can be rebuilt.
    """
    values: dict[str, Any] = {
        "state": state,
        "finished_at": finished_at,
        "exit_code": exit_code,
        "why": why,
        "held": held,
    }
    if report_directory is not None:
        values["report_directory"] = report_directory

    def work(connection: Connection) -> None:
        _change_run(connection, database, run_id, values)
        if facts is not None:
            kept = {"published_at": facts.published_at, "facts": facts.facts}
            statement = database.insert(report_facts).values(run_id=run_id, **kept)
            connection.execute(statement.on_conflict_do_update(index_elements=["run_id"], set_=kept))

    database.run(work)


def report_facts_of(database: Database, run_id: str) -> ReportFacts | None:
    """What a run's report rests on besides the records; None where it published none, or by a version that kept none."""
    statement = select(report_facts.c.published_at, report_facts.c.facts).where(report_facts.c.run_id == run_id)
    with database.read() as connection:
        row = connection.execute(statement).one_or_none()
    return None if row is None else ReportFacts(row.published_at, bytes(row.facts))


def record_run_merchant(
    database: Database,
    run_id: str,
    scope: Scope,
    *,
    snapshot_id: str | None,
    complete: bool,
    held: bool = False,
    why: str | None = None,
    counts: Mapping[str, Any] | None = None,
) -> None:
    """Record what a run did for a merchant; a later call replaces the earlier one."""
    values = {
        "snapshot_id": snapshot_id,
        "complete": complete,
        "held": held,
        "why": why,
        "counts": dict(counts or {}),
    }
    key = {"run_id": run_id, "merchant": scope.merchant, "mode": scope.mode}
    statement = (
        database.insert(run_merchants)
        .values({**key, **values})
        .on_conflict_do_update(index_elements=list(key), set_=values)
    )
    database.run(lambda connection: connection.execute(statement))


def run(database: Database, run_id: str) -> StoredRun | None:
    """One run with its merchants, None if there is none of this id."""
    return next(iter(_runs(database, select(runs).where(runs.c.run_id == run_id))), None)


def list_runs(database: Database, limit: int = 50) -> list[StoredRun]:
    """The newest runs, newest first."""
    return _runs(database, select(runs).order_by(runs.c.started_at.desc(), runs.c.run_id.desc()).limit(limit))


def runs_between(database: Database, first: date, last: date, commands: Collection[str]) -> list[StoredRun]:
    """Runs of some commands for the business dates from `first` to `last`, by date and then by their beginning."""
    chosen = runs.c.business_date.between(first, last), runs.c.command.in_(sorted(commands))
    return _runs(database, select(runs).where(*chosen).order_by(runs.c.business_date, runs.c.started_at, runs.c.run_id))


def newest_run_of(
    database: Database, commands: Collection[str], *, complete: bool, until: date | None = None
) -> StoredRun | None:
    """The run of the latest business date, of that date the one that began last; or the latest complete one.

    Args:
        until: no later business date than this.
    """
    statement = select(runs).where(runs.c.command.in_(sorted(commands)))
    if until is not None:
        statement = statement.where(runs.c.business_date <= until)
    if complete:
        statement = statement.where(runs.c.state == COMPLETE)
    order = (runs.c.business_date.desc(), runs.c.started_at.desc(), runs.c.run_id.desc())
    return next(iter(_runs(database, statement.order_by(*order).limit(1))), None)


def recorded_scopes(database: Database) -> list[Scope]:
    """Every merchant that has records, in its mode, by name."""
    with database.read() as connection:
        rows = connection.execute(select(merchants.c.merchant, merchants.c.mode).order_by(merchants.c.merchant))
        return [Scope(row.merchant, row.mode) for row in rows]


def unfinished_runs(database: Database) -> list[StoredRun]:
    """Runs that did not reach an end, oldest first: under the lock, one that is `running` and not this one is dead."""
    statement = select(runs).where(runs.c.state.in_((RUNNING, INTERRUPTED)))
    return _runs(database, statement.order_by(runs.c.started_at, runs.c.run_id))


def complete_run_on(database: Database, business_date: date, until: date | None = None) -> StoredRun | None:
    """The newest complete night, resumed or not, for a business date, or for any from that one until another."""
    statement = (
        select(runs)
        .where(
            runs.c.business_date.between(business_date, until or business_date),
            runs.c.command.in_(NIGHT_COMMANDS),
            runs.c.state == COMPLETE,
        )
        .order_by(runs.c.started_at.desc())
        .limit(1)
    )
    return next(iter(_runs(database, statement)), None)


def last_complete_run(
    database: Database,
    scope: Scope,
    before: datetime | None = None,
    not_held: bool = False,
    on_or_before: date | None = None,
) -> StoredRun | None:
    """The newest run whose pull was complete for this merchant and that reached its report.

    Args:
        before: only runs that started earlier.
        not_held: only runs in which no brake held this merchant's requests.
        on_or_before: only runs of this business date or an earlier one.
    """
    statement = (
        select(runs)
        .join(run_merchants, run_merchants.c.run_id == runs.c.run_id)
        .where(
            run_merchants.c.merchant == scope.merchant,
            run_merchants.c.mode == scope.mode,
            run_merchants.c.complete,
            run_merchants.c.snapshot_id.is_not(None),
            runs.c.state == COMPLETE,
        )
        .order_by(runs.c.started_at.desc(), runs.c.run_id.desc())
        .limit(1)
    )
    if before is not None:
        statement = statement.where(runs.c.started_at < before)
    if not_held:
        statement = statement.where(~run_merchants.c.held)
    if on_or_before is not None:
        statement = statement.where(runs.c.business_date <= on_or_before)
    return next(iter(_runs(database, statement)), None)


def last_successful_run(database: Database, scope: Scope) -> StoredRun | None:
    """The newest night's run of this merchant that ended with exit code 0."""
    statement = (
        select(runs)
        .join(run_merchants, run_merchants.c.run_id == runs.c.run_id)
        .where(
            run_merchants.c.merchant == scope.merchant,
            run_merchants.c.mode == scope.mode,
            runs.c.command.in_(NIGHT_COMMANDS),
            runs.c.state == COMPLETE,
            runs.c.exit_code == 0,
        )
        .order_by(runs.c.finished_at.desc(), runs.c.run_id.desc())
        .limit(1)
    )
    return next(iter(_runs(database, statement)), None)


def _update_run(database: Database, run_id: str, values: Mapping[str, Any]) -> None:
    database.run(lambda connection: _change_run(connection, database, run_id, values))


def _change_run(connection: Connection, database: Database, run_id: str, values: Mapping[str, Any]) -> None:
    changed = connection.execute(update(runs).where(runs.c.run_id == run_id).values(values)).rowcount
    if changed != 1:
        raise DatabaseError(f"run {run_id} is not in {database.shown}: check the run id with `relink runs list`")


def _runs(database: Database, statement: Select[Any]) -> list[StoredRun]:
    with database.read() as connection:
        found: list[Row[Any]] = list(connection.execute(statement))
        ids = [row.run_id for row in found]
        covered: dict[str, list[RunMerchant]] = {run_id: [] for run_id in ids}
        chosen = select(run_merchants).where(run_merchants.c.run_id.in_(ids))
        for row in connection.execute(chosen.order_by(run_merchants.c.merchant, run_merchants.c.mode)) if ids else ():
            covered[row.run_id].append(RunMerchant(**row._mapping))
    return [StoredRun(**row._mapping, merchants=tuple(covered[row.run_id])) for row in found]
