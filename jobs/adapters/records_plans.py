"""Plans that a brake held, and how many calls to Stripe each run spent."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Select, func, select, update

from jobs.adapters.database import Database
from jobs.adapters.lease import LeaseToken, require_token
from jobs.adapters.tables import api_calls, plans
from reconcile.errors import DecisionNeeded
from reconcile.model import PLAN_LIFETIME, BreakageKey, Scope

READ_WINDOW_DAYS = 30
"""Stripe averages reads over a rolling 30 days (Stripe documentation: "Rate limits", API read requests allocation)."""


@dataclass(frozen=True, slots=True)
class HeldPlan:
    """A plan that waits for a person; `pairs` are the outages it may ask about, `path` is its file."""

    plan_hash: str
    run_id: str
    merchant: str
    mode: str
    created_at: datetime
    business_date: date
    path: str | None
    pairs: tuple[BreakageKey, ...]
    released_at: datetime | None = None
    released_by_run: str | None = None


@dataclass(frozen=True, slots=True)
class ApiCalls:
    """Calls of one purpose: `kind` is read or write, `retries` and `rate_limited` are among `calls`."""

    purpose: str
    kind: str
    calls: int
    retries: int = 0
    rate_limited: int = 0


def hold_plan(database: Database, plan: HeldPlan) -> None:
    """Store a held plan; the very same plan held again stays as it was first, and is not released a second time."""
    values = {name: getattr(plan, name) for name in HeldPlan.__slots__}
    values["pairs"] = [[key.authorization_id, str(key.kind), key.number] for key in plan.pairs]
    database.run(lambda connection: connection.execute(database.insert(plans).values(values).on_conflict_do_nothing()))


def held_plan(database: Database, plan_hash: str) -> HeldPlan | None:
    """One held plan."""
    return next(iter(_plans(database, select(plans).where(plans.c.plan_hash == plan_hash))), None)


def list_held_plans(database: Database, now: datetime, scope: Scope | None = None) -> list[HeldPlan]:
    """Plans that can still be released, oldest first."""
    statement = select(plans).where(plans.c.released_at.is_(None), plans.c.created_at > now - PLAN_LIFETIME)
    if scope is not None:
        statement = statement.where(plans.c.merchant == scope.merchant, plans.c.mode == scope.mode)
    return _plans(database, statement.order_by(plans.c.created_at, plans.c.plan_hash))


def plans_holding(
    database: Database, scope: Scope, authorization_id: str, first: datetime, before: datetime | None
) -> list[HeldPlan]:
    """Plans made from a moment on, and before another if one is given, that hold a request for an authorization; oldest first."""
    chosen = [plans.c.merchant == scope.merchant, plans.c.mode == scope.mode, plans.c.created_at >= first]
    if before is not None:
        chosen.append(plans.c.created_at < before)
    found = _plans(database, select(plans).where(*chosen).order_by(plans.c.created_at, plans.c.plan_hash))
    return [plan for plan in found if any(key.authorization_id == authorization_id for key in plan.pairs)]


def release_plan(
    database: Database, plan_hash: str, run_id: str, at: datetime, fence: LeaseToken | None = None
) -> HeldPlan:
    """Release a held plan to a run: once, and within 24 hours. The same run may ask again.

    Args:
        fence: the lease, proved in the same transaction: a run that was taken over must not spend what the other one was given.

    Raises:
        DecisionNeeded: there is no such plan, it is too old, or another run has it already.
        LeaseLost: the fence's lease was taken over.
    """

    def work(connection: Connection) -> None:
        if fence is not None:
            require_token(connection, fence)
        row = connection.execute(select(plans).where(plans.c.plan_hash == plan_hash)).one_or_none()
        if row is None:
            raise DecisionNeeded(f"no held plan has the hash {plan_hash}: see `relink status` for those that wait")
        if row.released_by_run == run_id:
            return
        if row.released_at is not None:
            raise DecisionNeeded(
                f"plan {plan_hash} was released at {row.released_at:%Y-%m-%d %H:%M} UTC to run {row.released_by_run}, and that holds once"
            )
        if not row.created_at <= at < row.created_at + PLAN_LIFETIME:
            raise DecisionNeeded(
                f"plan {plan_hash} of {row.created_at:%Y-%m-%d %H:%M} UTC is not of the last 24 hours: run again and decide on the new plan"
            )
        statement = update(plans).where(plans.c.plan_hash == plan_hash, plans.c.released_at.is_(None))
        if connection.execute(statement.values(released_at=at, released_by_run=run_id)).rowcount != 1:
            raise DecisionNeeded(f"plan {plan_hash} was released to another run just now, and that holds once")

    database.run(work, durable=True)
    released = held_plan(database, plan_hash)
    assert released is not None
    return released


def add_api_calls(database: Database, run_id: str, scope: Scope, day: date, spent: Iterable[ApiCalls]) -> None:
    """Add a run's calls of a UTC day to those already recorded."""
    key = {"run_id": run_id, "merchant": scope.merchant, "mode": scope.mode, "day": day}
    counted = ("calls", "retries", "rate_limited")
    rows = [{**key, **{name: getattr(calls, name) for name in ApiCalls.__slots__}} for calls in spent]
    statement = database.insert(api_calls)
    summed = statement.on_conflict_do_update(
        index_elements=[*key, "purpose", "kind"],
        set_={name: api_calls.c[name] + statement.excluded[name] for name in counted},
    )
    if rows:
        database.run(lambda connection: connection.execute(summed, rows))


def reads_last_30_days(database: Database, scope: Scope, now: datetime) -> int:
    """Reads of a merchant in the 30 UTC days that end with today's."""
    first = now.date() - timedelta(days=READ_WINDOW_DAYS - 1)
    statement = select(func.coalesce(func.sum(api_calls.c.calls), 0)).where(
        api_calls.c.merchant == scope.merchant,
        api_calls.c.mode == scope.mode,
        api_calls.c.kind == "read",
        api_calls.c.day >= first,
    )
    with database.read() as connection:
        return int(connection.execute(statement).scalar_one())


def reads_by_purpose_30_days(database: Database, scope: Scope, now: datetime) -> dict[str, int]:
    """The same by purpose, the most first."""
    total = func.sum(api_calls.c.calls)
    statement = (
        select(api_calls.c.purpose, total)
        .where(
            api_calls.c.merchant == scope.merchant,
            api_calls.c.mode == scope.mode,
            api_calls.c.kind == "read",
            api_calls.c.day >= now.date() - timedelta(days=READ_WINDOW_DAYS - 1),
        )
        .group_by(api_calls.c.purpose)
        .order_by(total.desc(), api_calls.c.purpose)
    )
    with database.read() as connection:
        return {purpose: int(calls) for purpose, calls in connection.execute(statement)}


def api_calls_of_run(database: Database, run_id: str, scope: Scope | None = None) -> list[ApiCalls]:
    """A run's calls by purpose and kind, over all its days."""
    pair = (api_calls.c.purpose, api_calls.c.kind)
    sums = (func.sum(api_calls.c[name]).label(name) for name in ("calls", "retries", "rate_limited"))
    statement = select(*pair, *sums).where(api_calls.c.run_id == run_id).group_by(*pair).order_by(*pair)
    if scope is not None:
        statement = statement.where(api_calls.c.merchant == scope.merchant, api_calls.c.mode == scope.mode)
    with database.read() as connection:
        rows = connection.execute(statement)
        return [
            ApiCalls(row.purpose, row.kind, int(row.calls), int(row.retries), int(row.rate_limited)) for row in rows
        ]


def _plans(database: Database, statement: Select[Any]) -> list[HeldPlan]:
    with database.read() as connection:
        return [HeldPlan(**{**row, "pairs": _keys(row["pairs"])}) for row in connection.execute(statement).mappings()]


def _keys(stored: Collection[list[Any]]) -> tuple[BreakageKey, ...]:
    return tuple(BreakageKey(*pair) for pair in stored)
