"""How things stand now, counted by the database, so that the answer comes at once however long the history is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select

from jobs.adapters.database import Database
from jobs.adapters.records_contacts import no_answer
from jobs.adapters.tables import outcomes, requests, run_merchants, runs
from reconcile.model import Scope, State


@dataclass(frozen=True, slots=True)
class OpenSessions:
    """Sessions of one delivery that nobody has answered yet; `offered` of them were handed over or sent to their customers."""

    delivery: str
    sessions: int
    offered: int
    oldest_requested_at: datetime | None


def open_session_counts(database: Database, scope: Scope) -> list[OpenSessions]:
    """The open sessions of a merchant by delivery: those of `open_requests`, counted."""
    newest = outcomes.alias("newest")
    newest_id = select(func.max(newest.c.id)).where(newest.c.request_id == requests.c.request_id).scalar_subquery()
    statement = (
        select(
            requests.c.delivery,
            func.count().label("sessions"),
            func.count(requests.c.offered_at).label("offered"),
            func.min(requests.c.requested_at).label("oldest_requested_at"),
        )
        .select_from(requests.outerjoin(outcomes, outcomes.c.id == newest_id))
        .where(
            requests.c.merchant == scope.merchant,
            requests.c.mode == scope.mode,
            requests.c.state == str(State.CREATED),
            no_answer(),
        )
        .group_by(requests.c.delivery)
        .order_by(requests.c.delivery)
    )
    with database.read() as connection:
        return [OpenSessions(**row) for row in connection.execute(statement).mappings()]


def unfinished_counts(database: Database, scope: Scope) -> dict[str, int]:
    """How many requests are planned and how many are being attempted; without a running job, a dead one left them."""
    states = [str(State.PLANNED), str(State.ATTEMPTING)]
    statement = (
        select(requests.c.state, func.count())
        .where(requests.c.merchant == scope.merchant, requests.c.mode == scope.mode, requests.c.state.in_(states))
        .group_by(requests.c.state)
    )
    with database.read() as connection:
        counted = {row[0]: int(row[1]) for row in connection.execute(statement)}
    return {state: counted.get(state, 0) for state in states}


def last_run_id(database: Database, scope: Scope) -> str | None:
    """The newest run that got as far as recording something for this merchant, whatever became of it."""
    statement = (
        select(runs.c.run_id)
        .join(run_merchants, run_merchants.c.run_id == runs.c.run_id)
        .where(run_merchants.c.merchant == scope.merchant, run_merchants.c.mode == scope.mode)
        .order_by(runs.c.started_at.desc(), runs.c.run_id.desc())
        .limit(1)
    )
    with database.read() as connection:
        run_id: str | None = connection.execute(statement).scalar()
    return run_id
