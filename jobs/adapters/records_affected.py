"""Which accounts the brakes know as broken already, so that what is new tonight can be told from what is not."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date

from sqlalchemy import ColumnElement, Connection, or_, select, update

from jobs.adapters.bulk import insert_all
from jobs.adapters.database import Database
from jobs.adapters.records_runs import COMPLETE
from jobs.adapters.tables import affected_accounts as table
from jobs.adapters.tables import run_merchants, runs
from reconcile.model import Scope

BRAKED_COMMANDS = ("run", "apply", "resume")
"""Commands that look at a whole night and may contact whoever broke in it."""


def known_affected(database: Database, scope: Scope, on: date | None = None) -> set[str]:
    """Accounts that were affected at the last complete run that did not hold them, now or at the end of a past business date."""
    chosen: list[ColumnElement[bool]] = [table.c.until_date.is_(None)]
    if on is not None:
        chosen = [table.c.since_date <= on, or_(*chosen, table.c.until_date > on)]
    statement = select(table.c.account_id).where(*_in(scope), *chosen)
    with database.read() as connection:
        return set(connection.execute(statement).scalars())


def newly_affected_since(database: Database, scope: Scope, since: date, until: date | None = None) -> set[str]:
    """Accounts that became affected on a business date from `since` on, also those that are well again; none of the first run's."""
    statement = select(table.c.account_id).where(*_in(scope), table.c.since_date >= since, table.c.baseline.is_(False))
    if until is not None:
        statement = statement.where(table.c.since_date <= until)
    with database.read() as connection:
        return set(connection.execute(statement).scalars())


def has_base_for_brakes(database: Database, scope: Scope) -> bool:
    """Whether any complete run that could contact customers was not held, so that there is a night to compare with."""
    statement = (
        select(run_merchants.c.run_id)
        .join(runs, runs.c.run_id == run_merchants.c.run_id)
        .where(
            run_merchants.c.merchant == scope.merchant,
            run_merchants.c.mode == scope.mode,
            run_merchants.c.complete,
            run_merchants.c.held.is_(False),
            runs.c.state == COMPLETE,
            runs.c.command.in_(BRAKED_COMMANDS),
        )
        .limit(1)
    )
    with database.read() as connection:
        return connection.execute(statement).first() is not None


def advance_affected(
    database: Database,
    scope: Scope,
    run_id: str,
    business_date: date,
    *,
    newly: Collection[str],
    ended: Collection[str],
    baseline: bool,
) -> None:
    """Record accounts that are affected now and were not before, and those that no longer are.

    Args:
        baseline: this is the first run, whose accounts did not become affected tonight as far as anybody knows.
    """
    rows = [
        {
            "merchant": scope.merchant,
            "mode": scope.mode,
            "account_id": account_id,
            "since_date": business_date,
            "baseline": baseline,
            "run_id": run_id,
        }
        for account_id in sorted(newly)
    ]

    def work(connection: Connection) -> None:
        for account_id in sorted(ended):
            chosen = (*_in(scope), table.c.account_id == account_id, table.c.until_date.is_(None))
            connection.execute(update(table).where(*chosen).values(until_date=business_date))
        if rows:
            again = database.insert(table).on_conflict_do_update(
                index_elements=["merchant", "mode", "account_id", "since_date"], set_={"until_date": None}
            )
            insert_all(connection, again, rows)

    database.run(work)


def _in(scope: Scope) -> tuple[ColumnElement[bool], ...]:
    return (table.c.merchant == scope.merchant, table.c.mode == scope.mode)
