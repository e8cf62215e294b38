"""Writes the metrics file for Prometheus' textfile collector: the newest run and how things stand, whole or not at all.

The times of the last success and of the last complete run come from the records, so that a run that fails does not lose them. Where the
records cannot be read, they are taken over from the file that is there.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from jobs.adapters import records
from jobs.adapters.database import Database, open_database
from jobs.settings import Settings
from jobs.standing import known_scopes, unfollowed_sessions
from reconcile.errors import RelinkError
from reconcile.model import Scope, StoredRequest
from reports.closed_lists import FINDINGS, OUTCOMES, REASONS, RESULTS
from reports.notice import RunEnd
from reports.request_tables import RESULT_OF_STATE

PREFIX = "relink_"
FILE_MODE = 0o644
"""The collector runs under an account of its own, and nothing in the file is about a customer."""

_KEPT = {
    "last_success_timestamp_seconds": "When a run last ended with exit code 0, as seconds since 1970 UTC.",
    "last_complete_timestamp_seconds": "When a run last pulled all accounts of this merchant and reached its report, as seconds since 1970 UTC.",
}


def write_metrics(settings: Settings, path: Path, end: RunEnd, now: datetime) -> None:
    """Replace the file by the numbers of the run that has just ended.

    Raises:
        OSError: the file cannot be written there.
    """
    registry = CollectorRegistry()
    _run(registry, end, now)
    try:
        with open_database(settings.database.url, create=False, read_only=True, check=False) as database:
            database.ensure_schema(create_new=False)
            _kept_in_records(registry, settings, database)
            _standing(registry, settings, database, end, now)
    except RelinkError:
        registry = CollectorRegistry()
        _run(registry, end, now)
        _kept_in_file(registry, path)
    _replace(path, generate_latest(registry))


def _run(registry: CollectorRegistry, end: RunEnd, now: datetime) -> None:
    _gauge(registry, "last_run_timestamp_seconds", "When the newest run ended, as seconds since 1970 UTC.").set(
        now.timestamp()
    )
    _gauge(registry, "last_run_exit_code", "The exit code of the newest run.").set(end.exit_code)
    durations = end.summary.get("durations_seconds")
    stages = _gauge(registry, "last_run_stage_duration_seconds", "How long each stage of the newest run took.", "stage")
    for stage, seconds in durations.items() if isinstance(durations, dict) else ():
        stages.labels(stage).set(seconds)


def _kept_in_records(registry: CollectorRegistry, settings: Settings, database: Database) -> None:
    success, complete = (_gauge(registry, name, text, "merchant") for name, text in _KEPT.items())
    for name, scope in known_scopes(settings, database):
        if scope is None:
            continue
        last = records.last_successful_run(database, scope)
        if last is not None and last.finished_at is not None:
            success.labels(name).set(last.finished_at.timestamp())
        last = records.last_complete_run(database, scope)
        if last is not None and last.finished_at is not None:
            complete.labels(name).set(last.finished_at.timestamp())


def _kept_in_file(registry: CollectorRegistry, path: Path) -> None:
    with suppress(OSError, ValueError):
        for family in text_string_to_metric_families(path.read_text(encoding="utf-8")):
            name = family.name.removeprefix(PREFIX)
            if name in _KEPT:
                gauge = _gauge(registry, name, _KEPT[name], "merchant")
                for sample in family.samples:
                    gauge.labels(sample.labels["merchant"]).set(sample.value)


def _standing(registry: CollectorRegistry, settings: Settings, database: Database, end: RunEnd, now: datetime) -> None:
    accounts = _gauge(
        registry, "accounts", "Accounts by finding at the merchant's last complete run.", "merchant", "finding"
    )
    requests = _gauge(registry, "requests", "Requests of the newest run.", "merchant", "result", "reason")
    outcomes = _gauge(registry, "outcomes", "Outcomes that the newest run found.", "merchant", "outcome", "reason")
    calls = _gauge(registry, "api_calls", "Calls to Stripe of the newest run.", "merchant", "kind", "purpose")
    retries = _gauge(registry, "api_retries", "Calls of the newest run that were tried again.", "merchant")
    limited = _gauge(registry, "api_rate_limited", "Calls of the newest run that Stripe put off.", "merchant")
    reads = _gauge(registry, "reads_30_days", "Reads in the 30 UTC days that end today.", "merchant")
    purposes = _gauge(registry, "reads_30_days_by_purpose", "The same by what they were for.", "merchant", "purpose")
    drift = _gauge(
        registry,
        "pull_drift_accounts",
        "Accounts of which the newest full pull after increments found what those had missed.",
        "merchant",
    )
    increments = _gauge(
        registry, "pull_days_since_full", "Days from the newest snapshot's full pull to its own date.", "merchant"
    )
    allowed = _gauge(registry, "reads_30_days_allowed", "Reads that Stripe allows in 30 days.", "merchant")
    sessions = _gauge(registry, "open_sessions", "Sessions without an answer.", "merchant")
    unknown = _gauge(registry, "unknown_requests", "Requests of which only a person can find out.", "merchant")
    held = _gauge(registry, "held_requests", "Requests that a person can release now.", "merchant")
    foreign = _gauge(
        registry, "foreign_sessions", "Sessions of our accounts in 30 days that no request follows.", "merchant"
    )
    for name, scope in known_scopes(settings, database):
        if scope is None:
            continue
        for finding, count in _findings(database, scope).items():
            accounts.labels(name, finding).set(count)
        made = [] if end.run_id is None else records.requests_of_run(database, end.run_id, scope)
        _by_pair(requests, name, RESULTS, ((str(RESULT_OF_STATE[one.state]), one.request.reason) for one in made))
        found = [] if end.run_id is None else records.requests_with_outcome_of_run(database, scope, end.run_id)
        _by_pair(outcomes, name, OUTCOMES, (_outcome(one) for one in found))
        spent = [] if end.run_id is None else records.api_calls_of_run(database, end.run_id, scope)
        for one in spent:
            calls.labels(name, one.kind, one.purpose).set(one.calls)
        retries.labels(name).set(sum(one.retries for one in spent))
        limited.labels(name).set(sum(one.rate_limited for one in spent))
        reads.labels(name).set(records.reads_last_30_days(database, scope, now))
        for purpose, count in records.reads_by_purpose_30_days(database, scope, now).items():
            purposes.labels(name, purpose).set(count)
        newest, full = records.last_snapshot(database, scope), records.last_snapshot(database, scope, obtained="full")
        drift.labels(name).set((full.drift or 0) if full is not None else 0)
        if newest is not None:
            increments.labels(name).set((newest.business_date - (newest.full_date or newest.business_date)).days)
        if settings.stripe.monthly_read_allocation is not None:
            allowed.labels(name).set(settings.stripe.monthly_read_allocation)
        sessions.labels(name).set(sum(one.sessions for one in records.open_session_counts(database, scope)))
        unknown.labels(name).set(len(records.unknown_requests(database, scope)))
        foreign.labels(name).set(len(unfollowed_sessions(database, scope, now)))
        held.labels(name).set(sum(len(plan.pairs) for plan in records.list_held_plans(database, now, scope)))


def _findings(database: Database, scope: Scope) -> dict[str, int]:
    last = records.last_complete_run(database, scope)
    covered = (
        []
        if last is None
        else [one for one in last.merchants if (one.merchant, one.mode) == (scope.merchant, scope.mode)]
    )
    counted = covered[0].counts.get("findings", {}) if covered else {}
    return {str(finding): int(counted.get(str(finding), 0)) for finding in FINDINGS}


def _outcome(stored: StoredRequest) -> tuple[str, str]:
    return str(stored.outcome), stored.request.reason


def _by_pair(gauge: Gauge, merchant: str, kinds: Iterable[str], pairs: Iterable[tuple[str, str]]) -> None:
    """Every pair of the closed lists has its line, so that an alert meets a zero and not a gap."""
    counted = Counter(pairs)
    for kind in kinds:
        for reason in REASONS:
            gauge.labels(merchant, str(kind), str(reason)).set(counted[str(kind), str(reason)])


def _gauge(registry: CollectorRegistry, name: str, text: str, *labels: str) -> Gauge:
    return Gauge(PREFIX + name, text, labels, registry=registry)


def _replace(path: Path, content: bytes) -> None:
    """Put the file in place by a rename; the collector reads names that end in .prom alone, so never a half one."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), FILE_MODE)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
