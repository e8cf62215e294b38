"""What `resume` and `retry` take up again, and which runs they refuse to."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date

from jobs.adapters import records
from jobs.adapters.database import Database
from jobs.work import Work
from reconcile.errors import SettingsError
from reconcile.model import State

RETRIED = (State.REJECTED, State.NOT_SENT, State.PLANNED)
"""What `retry` tries again; a planned request is one that a refused key left behind."""


def work_to_resume(
    database: Database, run_id: str, merchants: Collection[str] | None = None, *, dry_run: bool = False
) -> Work:
    """The rest of a night that did not reach its report, for its own business date.

    Only under the lock: a run that still counts as running is dead then.

    Args:
        merchants: those of the settings, which have to be the run's.

    Raises:
        SettingsError: there is no such run, it is complete or no night, it is of other merchants, or another one has decided since.
    """
    run = _run(database, run_id, merchants)
    if run.state == records.COMPLETE:
        raise SettingsError(f"run {run_id} is complete: `relink retry {run_id}` tries again what it could not send")
    if run.command not in records.NIGHT_COMMANDS:
        raise SettingsError(
            f"run {run_id} was `relink {run.command}`, not a night: call that command again; whoever it asked is not asked twice"
        )
    later = records.complete_run_on(database, run.business_date, until=date.max)
    if later is not None and later.started_at > run.started_at:
        raise SettingsError(
            f"run {later.run_id} has finished business date {later.business_date} since: nothing is left of run {run_id} to do"
        )
    chain = _chain(database, run)
    return Work(
        command="resume",
        dry_run=dry_run,
        business_date=run.business_date,
        resumes=tuple(one.run_id for one in chain),
        released_brake=run.arguments.get("override_brakes"),
        arguments={"run_id": run_id, "override_brakes": run.arguments.get("override_brakes")},
    )


def work_to_retry(
    database: Database, run_id: str, merchants: Collection[str] | None = None, *, dry_run: bool = False
) -> Work | None:
    """The requests of a finished run that Stripe refused or that were not sent; None where there is none.

    For that run's business date, or for today's where a later night has been finished since, so that no contact of that night lies in the
    future of what is decided now.

    Raises:
        SettingsError: there is no such run, it did not finish, or it is of other merchants.
    """
    run = _run(database, run_id, merchants)
    if run.state != records.COMPLETE:
        raise SettingsError(f"run {run_id} did not finish: `relink resume {run_id}` finishes it")
    made = [stored for one in _chain(database, run) for stored in records.requests_of_run(database, one.run_id)]
    asked = {stored.authorization_id for stored in made if stored.state not in RETRIED}
    retries = {
        stored.request.request_id: stored.authorization_id
        for stored in made
        if stored.state in RETRIED and stored.outcome is None and stored.authorization_id not in asked
    }
    if not retries:
        return None
    newest = records.complete_run_on(database, run.business_date, until=date.max)
    superseded = newest is not None and newest.business_date > run.business_date
    return Work(
        command="retry",
        dry_run=dry_run,
        from_stored=True,
        retries=retries,
        business_date=None if superseded else run.business_date,
        arguments={"run_id": run_id},
    )


def _chain(database: Database, run: records.StoredRun) -> list[records.StoredRun]:
    """A run and those that it finished, the newest first: its report tells of the requests of all of them."""
    chain = [run]
    while (before := chain[-1].resumed_from) is not None and (earlier := records.run(database, before)) is not None:
        chain.append(earlier)
    return chain


def _run(database: Database, run_id: str, merchants: Collection[str] | None) -> records.StoredRun:
    run = records.run(database, run_id)
    if run is None:
        raise SettingsError(f"there is no run {run_id}: `relink runs` lists them")
    covered = {str(one["name"]) for one in run.settings.get("merchants", ())}
    if merchants is not None and covered != set(merchants):
        raise SettingsError(
            f"run {run_id} is of merchant {', '.join(sorted(covered))}, the settings name {', '.join(sorted(merchants))}: use the settings that "
            "it was made with"
        )
    return run
