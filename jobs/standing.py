"""How the job stands now: what is open, held, unknown or left behind, from its own records alone."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from jobs.adapters import records
from jobs.adapters.database import Database
from jobs.adapters.lease import holder_of
from jobs.settings import Settings
from jobs.ticks import Ticks
from reconcile.masking import mask
from reconcile.model import PLAN_LIFETIME, UNKNOWN_OFFER_LIFETIME, Scope, StoredRequest
from reconcile.orphans import EVENTS_KEPT, ForeignSession

_SECONDS_PER_HOUR = 3600


def known_scopes(settings: Settings, database: Database) -> Iterator[tuple[str, Scope | None]]:
    """Each merchant of the settings, with the scope of its records; None before its first run."""
    for name in settings.merchant_names:
        mode = records.recorded_mode(database, name)
        yield name, None if mode is None else Scope(name, mode)


def standing(settings: Settings, database: Database, now: datetime) -> dict[str, Any]:
    """All of it as JSON values, times as aware UTC datetimes."""
    schema = database.schema_state()
    return {
        "now": now,
        "database": database.shown,
        "database_exists": not database.ephemeral,
        "schema": {"found": schema.found, "expected": schema.expected, "status": schema.status},
        "lock": _lock(database),
        "next_run": _next_run(settings, now),
        "last_run": next((run_brief(one) for one in records.list_runs(database, 1)), None),
        "held_plans": [_held(plan) for plan in records.list_held_plans(database, now)],
        "merchants": [
            _merchant(settings, database, name, scope, now) for name, scope in known_scopes(settings, database)
        ],
    }


def _next_run(settings: Settings, now: datetime) -> dict[str, Any]:
    """When the schedule of the settings comes due next; whether something waits for that is not known here."""
    ticks = Ticks(settings.schedule.cron, settings.schedule.timezone)
    tick = ticks.next_after(now)
    return {
        "at": tick.at,
        "business_date": tick.business_date.isoformat(),
        "timezone": settings.schedule.timezone,
        "shown": ticks.describe(tick),
    }


def run_brief(run: records.StoredRun) -> dict[str, Any]:
    """What one line about a run says."""
    return {
        "run_id": run.run_id,
        "command": run.command,
        "business_date": run.business_date.isoformat(),
        "state": run.state,
        "stage": run.stage,
        "held": run.held,
        "exit_code": run.exit_code,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
        "why": None if run.why is None else mask(run.why),
    }


def _lock(database: Database) -> dict[str, Any] | None:
    holder = None if database.ephemeral else holder_of(database)
    return None if holder is None else {"holder": holder.name, "host": holder.host, "process": holder.pid}


def _held(plan: records.HeldPlan) -> dict[str, Any]:
    return {
        "plan_hash": plan.plan_hash,
        "merchant": plan.merchant,
        "mode": plan.mode,
        "run_id": plan.run_id,
        "business_date": plan.business_date.isoformat(),
        "created_at": plan.created_at,
        "releasable_until": plan.created_at + PLAN_LIFETIME,
        "requests": len(plan.pairs),
        "plan_file": plan.path,
    }


def _merchant(settings: Settings, database: Database, name: str, scope: Scope | None, now: datetime) -> dict[str, Any]:
    allocation = settings.stripe.monthly_read_allocation
    if scope is None:
        return {
            "merchant": name,
            "mode": None,
            "open_sessions": {"sessions": 0, "oldest_requested_at": None, "by_delivery": {}},
            "planned": 0,
            "attempting": 0,
            "unknown": [],
            "foreign_sessions": [],
            "last_complete_run": None,
            "last_attempt": None,
            "snapshot": None,
            "expected_lapses": [],
            "reads_last_30_days": 0,
            "reads_last_30_days_by_purpose": {},
            "monthly_read_allocation": allocation,
        }
    complete = records.last_complete_run(database, scope)
    attempt_id = records.last_run_id(database, scope)
    attempt = None if attempt_id is None else records.run(database, attempt_id)
    return {
        "merchant": name,
        "mode": scope.mode,
        "open_sessions": _open_sessions(database, scope),
        **records.unfinished_counts(database, scope),
        "unknown": [_unknown(stored, now) for stored in records.unknown_requests(database, scope)],
        "foreign_sessions": _foreign_sessions(database, scope, now),
        "last_complete_run": None if complete is None else run_brief(complete),
        "last_attempt": None if attempt is None else run_brief(attempt),
        "snapshot": _snapshot(database, scope, now),
        "expected_lapses": [] if complete is None else _expected_lapses(complete, scope),
        "reads_last_30_days": records.reads_last_30_days(database, scope, now),
        "reads_last_30_days_by_purpose": records.reads_by_purpose_30_days(database, scope, now),
        "monthly_read_allocation": allocation,
    }


def _expected_lapses(run: records.StoredRun, scope: Scope) -> list[dict[str, Any]]:
    """What the last complete run expected to lapse, by bank; runs of earlier versions expected nothing."""
    return [
        {"business_date": run.business_date.isoformat(), **told}
        for one in run.merchants
        if (one.merchant, one.mode) == (scope.merchant, scope.mode)
        for told in one.counts.get("expected_lapses", ())
    ]


def _open_sessions(database: Database, scope: Scope) -> dict[str, Any]:
    counted = records.open_session_counts(database, scope)
    moments = [one.oldest_requested_at for one in counted if one.oldest_requested_at is not None]
    return {
        "sessions": sum(one.sessions for one in counted),
        "oldest_requested_at": min(moments, default=None),
        "by_delivery": {
            one.delivery: {
                "sessions": one.sessions,
                "handed_over": one.offered,
                "oldest_requested_at": one.oldest_requested_at,
            }
            for one in counted
        },
    }


def _snapshot(database: Database, scope: Scope, now: datetime) -> dict[str, Any] | None:
    newest = records.last_snapshot(database, scope)
    if newest is None:
        return None
    return {
        "snapshot_id": newest.snapshot_id,
        "taken_at": newest.taken_at,
        "age_hours": round((now - newest.taken_at).total_seconds() / _SECONDS_PER_HOUR, 1),
        "accounts": newest.accounts,
        "obtained": newest.obtained,
        "full_date": (newest.full_date or newest.business_date).isoformat(),
    }


def unfollowed_sessions(database: Database, scope: Scope, now: datetime) -> list[ForeignSession]:
    """Sessions that events of 30 days told of and that no request follows."""
    seen = records.foreign_sessions_since(database, scope, now - EVENTS_KEPT)
    followed = records.followed_sessions(database, scope, [one.session_id for one in seen])
    return [one for one in seen if one.session_id not in followed]


def _foreign_sessions(database: Database, scope: Scope, now: datetime) -> list[dict[str, Any]]:
    return [
        {
            "session_id": one.session_id,
            "authorization_id": one.authorization_id,
            "seen_at": one.seen_at,
            "why": mask(one.why),
        }
        for one in unfollowed_sessions(database, scope, now)
    ]


def _unknown(stored: StoredRequest, now: datetime) -> dict[str, Any]:
    request = stored.request
    return {
        "request_id": request.request_id,
        "authorization_id": request.authorization_id,
        "account_holder_id": request.holder.id,
        "since": stored.attempting_at,
        "delivery": request.delivery,
        "error_type": stored.error_type,
        "stripe_request_id": stored.stripe_request_id,
        "idempotency_key": stored.idempotency_key,
        "how_to_settle": how_to_settle(stored, now),
    }


def how_to_settle(stored: StoredRequest, now: datetime) -> str:
    """What a person can do about a request of which nobody knows whether Stripe made a session."""
    search = (
        "look in the request logs of Stripe's Dashboard for its idempotency key; if it made a session, `relink adopt` that, else "
        f"`relink request --authorization {stored.authorization_id} --resolve-unknown` asks again"
    )
    if stored.request.delivery != "modal" or stored.attempting_at is None:
        return f"{search}; nobody is asked again about this outage before that"
    ends_at: datetime = stored.attempting_at + UNKNOWN_OFFER_LIFETIME
    if ends_at <= now:
        return "nothing: it was handed to nobody, and the next run may ask again"
    left: timedelta = ends_at - now
    return f"{search}; or wait: it was handed to nobody, and the next run after {left.total_seconds() / _SECONDS_PER_HOUR:.0f} h may ask again"
