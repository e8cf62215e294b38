"""Removes records that no decision, no guard and no rebuilt report can rest on any more.

Breakages and successors are kept for good: their numbers make the identity of later contacts, and they are few.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from datetime import UTC, date, datetime, time
from itertools import islice
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, delete, exists, func, not_, or_, select, union

from jobs.adapters.database import Database
from jobs.adapters.records_runs import COMPLETE, INTERRUPTED, NIGHT_COMMANDS, RUNNING, STOPPED
from jobs.adapters.records_snapshots import SnapshotRecord
from jobs.adapters.tables import (
    account_history,
    affected_accounts,
    api_calls,
    breakages,
    decisions,
    foreign_sessions,
    outcomes,
    plans,
    refresh_checks,
    refreshes,
    refused_sessions,
    report_facts,
    requests,
    run_merchants,
    runs,
    session_checks,
    snapshots,
    successors,
)
from reconcile.model import OutcomeKind, State
from reconcile.refresh import RefreshState

_IDS_PER_QUERY = 500


class _RolledBack(Exception):
    """Ends a trial."""


def prunable_snapshots(database: Database, before: date) -> list[SnapshotRecord]:
    """Snapshots of business dates before `before`, but for the newest of these of each merchant and those of unfinished runs.

    That newest one is what a date without a snapshot is rebuilt from, and where nothing newer exists the merchant's last one.
    """
    newer = snapshots.alias("newer")
    is_not_newest = exists(
        select(newer.c.snapshot_id).where(
            newer.c.merchant == snapshots.c.merchant,
            newer.c.mode == snapshots.c.mode,
            newer.c.business_date < before,
            newer.c.completed_at > snapshots.c.completed_at,
        )
    )
    statement = (
        select(snapshots)
        .where(snapshots.c.business_date < before, is_not_newest, snapshots.c.run_id.not_in(_unfinished()))
        .order_by(snapshots.c.merchant, snapshots.c.mode, snapshots.c.completed_at)
    )
    with database.read() as connection:
        return [SnapshotRecord(**row._mapping) for row in connection.execute(statement)]


def kept_snapshot_paths(database: Database) -> set[str]:
    """The paths of all snapshots on record, relative to the snapshot directory."""
    with database.read() as connection:
        return set(connection.execute(select(snapshots.c.path)).scalars())


def oldest_snapshot_date(database: Database, but_for: Collection[str] = ()) -> date | None:
    """The business date of the oldest snapshot on record, some left out."""
    statement = select(snapshots.c.snapshot_id, snapshots.c.business_date).order_by(snapshots.c.business_date)
    with database.read() as connection:
        found = connection.execute(statement)
        return next((row.business_date for row in found if row.snapshot_id not in but_for), None)


def unfinished_run_ids(database: Database) -> set[str]:
    """Runs that somebody may still go on with."""
    with database.read() as connection:
        return set(connection.execute(_unfinished()).scalars())


def remove_old_rows(
    database: Database, snapshot_ids: Collection[str], before: date | None, *, dry_run: bool = False
) -> dict[str, int]:
    """Take some snapshots out of the records, and what ended before a business date; a dry run takes it all back.

    Requests go only where their outage is closed and they are answered or settled; account history only where a later row of the account
    is as old, and never that of an open outage; runs only where nothing rests on them. Returns how many rows of each kind.
    """
    removed: dict[str, int] = {}

    def work(connection: Connection) -> None:
        removed.clear()
        removed["snapshots"] = len(snapshot_ids)
        left = iter(sorted(snapshot_ids))
        while chunk := list(islice(left, _IDS_PER_QUERY)):
            connection.execute(delete(snapshots).where(snapshots.c.snapshot_id.in_(chunk)))
        if before is not None:
            removed["account history"] = _remove(connection, account_history, _superseded(before))
            removed["requests"] = _remove_requests(connection, before)
            removed["API calls"] = _remove(connection, api_calls, api_calls.c.day < before)
            removed["held plans"] = _remove(connection, plans, plans.c.business_date < before)
            removed["decisions"] = _remove(connection, decisions, decisions.c.until_date < before)
            removed["accounts known to the brakes"] = _remove(
                connection, affected_accounts, affected_accounts.c.until_date < before
            )
            removed["sessions of others"] = _remove(
                connection, foreign_sessions, foreign_sessions.c.seen_at < _midnight(before)
            )
            removed["refused sessions"] = _remove(
                connection, refused_sessions, refused_sessions.c.refused_at < _midnight(before)
            )
            removed["runs"] = _remove_runs(connection, before)
        if dry_run:
            raise _RolledBack

    with suppress(_RolledBack):
        database.run(work)
    return removed


def _remove(connection: Connection, table: Any, *chosen: ColumnElement[bool]) -> int:
    return int(connection.execute(delete(table).where(*chosen)).rowcount)


def _superseded(before: date) -> ColumnElement[bool]:
    later = account_history.alias("later")
    moment = _midnight(before)
    of_open_breakage = exists(
        select(breakages.c.number).where(
            breakages.c.merchant == account_history.c.merchant,
            breakages.c.mode == account_history.c.mode,
            breakages.c.authorization_id == account_history.c.authorization_id,
            breakages.c.closed_at.is_(None),
        )
    )
    has_later = exists(
        select(later.c.account_id).where(
            later.c.merchant == account_history.c.merchant,
            later.c.mode == account_history.c.mode,
            later.c.account_id == account_history.c.account_id,
            later.c.observed_at > account_history.c.observed_at,
            later.c.observed_at < moment,
        )
    )
    return and_(account_history.c.observed_at < moment, has_later, not_(of_open_breakage))


def _remove_requests(connection: Connection, before: date) -> int:
    moment = _midnight(before)
    closed = exists(
        select(breakages.c.number).where(
            breakages.c.merchant == requests.c.merchant,
            breakages.c.mode == requests.c.mode,
            breakages.c.authorization_id == requests.c.authorization_id,
            breakages.c.kind == requests.c.breakage_kind,
            breakages.c.number == requests.c.breakage_number,
            breakages.c.closed_at < moment,
        )
    )
    newest = outcomes.alias("newest")
    newest_id = select(func.max(newest.c.id)).where(newest.c.request_id == requests.c.request_id).scalar_subquery()
    answered = exists(
        select(outcomes.c.id).where(outcomes.c.id == newest_id, outcomes.c.outcome != str(OutcomeKind.PENDING))
    )
    over = or_(
        and_(requests.c.state == str(State.CREATED), answered),
        requests.c.state.in_([str(State.REJECTED), str(State.NOT_SENT)]),
        and_(requests.c.state == str(State.UNKNOWN), requests.c.resolved_at < moment),
    )
    told_later = exists(
        select(outcomes.c.id).where(outcomes.c.request_id == requests.c.request_id, outcomes.c.business_date >= before)
    )
    read_later = exists(
        select(session_checks.c.id).where(
            session_checks.c.request_id == requests.c.request_id, session_checks.c.checked_at >= moment
        )
    )
    refreshed_later = exists(
        select(refreshes.c.refresh_id).where(
            refreshes.c.request_id == requests.c.request_id,
            or_(
                refreshes.c.business_date >= before,
                refreshes.c.state.in_([str(RefreshState.PLANNED), str(RefreshState.ATTEMPTING)]),
                exists(
                    select(refresh_checks.c.id).where(
                        refresh_checks.c.refresh_id == refreshes.c.refresh_id, refresh_checks.c.checked_at >= moment
                    )
                ),
            ),
        )
    )
    led_on = exists(select(successors.c.request_id).where(successors.c.request_id == requests.c.request_id))
    statement = select(requests.c.request_id).where(
        requests.c.business_date < before,
        closed,
        over,
        or_(requests.c.offered_at.is_(None), requests.c.offered_at < moment),
        not_(told_later),
        not_(read_later),
        not_(refreshed_later),
        not_(led_on),
    )
    ids = list(connection.execute(statement).scalars())
    left = iter(ids)
    while chunk := list(islice(left, _IDS_PER_QUERY)):
        own = select(refreshes.c.refresh_id).where(refreshes.c.request_id.in_(chunk))
        connection.execute(delete(refresh_checks).where(refresh_checks.c.refresh_id.in_(own)))
        for table in (refreshes, session_checks, outcomes, requests):
            connection.execute(delete(table).where(table.c.request_id.in_(chunk)))
    return len(ids)


def _remove_runs(connection: Connection, before: date) -> int:
    needed = union(
        *(
            select(table.c.run_id)
            for table in (
                requests,
                outcomes,
                session_checks,
                refreshes,
                refresh_checks,
                successors,
                snapshots,
                api_calls,
                plans,
                affected_accounts,
            )
        ),
        select(plans.c.released_by_run).where(plans.c.released_by_run.is_not(None)),
        select(breakages.c.opened_run_id).where(breakages.c.closed_at.is_(None)),
        select(runs.c.resumed_from).where(runs.c.resumed_from.is_not(None)),
    )
    statement = select(runs.c.run_id).where(
        runs.c.business_date < before, runs.c.state.in_((COMPLETE, STOPPED)), runs.c.run_id.not_in(needed)
    )
    ids = set(connection.execute(statement).scalars()) - _last_of_each(connection)
    left = iter(sorted(ids))
    while chunk := list(islice(left, _IDS_PER_QUERY)):
        for table in (report_facts, run_merchants, runs):
            connection.execute(delete(table).where(table.c.run_id.in_(chunk)))
    return len(ids)


def _last_of_each(connection: Connection) -> set[str]:
    """The newest run of each merchant, its newest complete one, and its newest complete one that no brake held."""
    joined = runs.join(run_merchants, run_merchants.c.run_id == runs.c.run_id)
    complete = and_(run_merchants.c.complete, runs.c.state == COMPLETE)
    found: set[str] = set()
    for chosen in ((), (complete,), (complete, ~run_merchants.c.held)):
        newest = func.row_number().over(
            partition_by=(run_merchants.c.merchant, run_merchants.c.mode),
            order_by=(runs.c.started_at.desc(), runs.c.run_id.desc()),
        )
        ranked = select(runs.c.run_id, newest.label("place")).select_from(joined).where(*chosen).subquery()
        found |= set(connection.execute(select(ranked.c.run_id).where(ranked.c.place == 1)).scalars())
    return found


def _unfinished() -> Any:
    """Runs that did not end, but for those whose business date a later night has finished: nobody may go on with them any more."""
    later = runs.alias("later")
    finished = exists().where(
        later.c.state == COMPLETE,
        later.c.command.in_(NIGHT_COMMANDS),
        later.c.business_date >= runs.c.business_date,
        later.c.started_at > runs.c.started_at,
    )
    return select(runs.c.run_id).where(runs.c.state.in_((RUNNING, INTERRUPTED)), ~finished)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
