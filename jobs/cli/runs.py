"""The commands that look at past runs and at how things stand."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from jobs.cli.common import (
    config_option,
    json_option,
    print_json,
    records_of,
    require_printable,
    say,
    settings_of,
    shown,
)
from reconcile.errors import SettingsError

if TYPE_CHECKING:
    from jobs.adapters.database import Database
    from jobs.adapters.records import StoredRun

_RUNS_SHOWN = 20

_limit_option = click.option(
    "--limit", type=click.IntRange(1, 100_000), default=None, help=f"How many, the newest first; else {_RUNS_SHOWN}."
)


@click.group(invoke_without_command=True)
@_limit_option
@config_option
@json_option
@click.pass_context
def runs(context: click.Context, limit: int | None, config: str | None, as_json: bool) -> int:
    """Past runs: alone, a list of the newest."""
    context.obj = config or context.obj
    return _list(context, limit, None, as_json) if context.invoked_subcommand is None else 0


@runs.command("list")
@_limit_option
@config_option
@json_option
@click.pass_context
def list_command(context: click.Context, limit: int | None, config: str | None, as_json: bool) -> int:
    """The newest runs."""
    given = context.parent.params if context.parent is not None else {}
    return _list(context, limit or given.get("limit"), config, as_json or bool(given.get("as_json")))


@runs.command()
@click.argument("run_id")
@config_option
@json_option
@click.pass_context
def show(context: click.Context, run_id: str, config: str | None, as_json: bool) -> int:
    """All that is recorded of one run."""
    from jobs.adapters import records

    require_printable("RUN_ID", run_id)
    as_json = as_json or bool(context.parent is not None and context.parent.params.get("as_json"))
    with records_of(settings_of(context, config)) as database:
        found = records.run(database, run_id)
        if found is None:
            raise SettingsError(f"no run {shown(run_id)} in {database.shown}: see `relink runs list`")
        plain = _as_plain(database, found)
    if as_json:
        print_json(plain)
    else:
        for line in _lines_of_run(plain):
            say(line)
    return 0


@click.command()
@config_option
@json_option
@click.pass_context
def status(context: click.Context, config: str | None, as_json: bool) -> int:
    """What is open, held, unknown or left behind now; asks the job's own records only."""
    from jobs.clock import system_clock
    from jobs.standing import standing

    settings = settings_of(context, config)
    with records_of(settings) as database:
        found = standing(settings, database, system_clock())
    if as_json:
        print_json(found)
    else:
        for line in _lines_of_status(found):
            say(line)
    return 0


def _list(context: click.Context, limit: int | None, config: str | None, as_json: bool) -> int:
    from jobs.adapters import records
    from jobs.standing import run_brief

    with records_of(settings_of(context, config)) as database:
        found = [
            {**run_brief(run), "report_directory": run.report_directory}
            for run in records.list_runs(database, limit or _RUNS_SHOWN)
        ]
    if as_json:
        print_json(found)
    elif not found:
        say("no runs yet")
    else:
        from jobs.cli.terminal import print_table

        columns = ("run", "command", "business date", "state", "exit", "started (UTC)", "why")
        print_table("Runs", columns, ([*_cells(run)] for run in found))
    return 0


def _cells(run: dict[str, Any]) -> Iterator[object]:
    state = f"{run['state']}, held" if run["held"] else run["state"]
    yield from (run["run_id"], run["command"], run["business_date"], state, run["exit_code"])
    yield from (_minute(run["started_at"]), run["why"])


def _as_plain(database: Database, run: StoredRun) -> dict[str, Any]:
    from jobs.adapters import records
    from jobs.standing import run_brief
    from reconcile.masking import mask

    requests: dict[str, int] = {}
    for stored in records.requests_of_run(database, run.run_id):
        requests[stored.state] = requests.get(stored.state, 0) + 1
    return {
        **run_brief(run),
        "report_directory": run.report_directory,
        "report_exists": run.report_directory is not None and os.path.isdir(run.report_directory),
        "resumed_from": run.resumed_from,
        "settings_hash": run.settings_hash,
        "settings": run.settings,
        "arguments": run.arguments,
        "requests": requests,
        "merchants": [
            {
                "merchant": one.merchant,
                "mode": one.mode,
                "complete": one.complete,
                "held": one.held,
                "why": None if one.why is None else mask(one.why),
                "snapshot_id": one.snapshot_id,
                "counts": one.counts,
            }
            for one in run.merchants
        ],
        "api_calls": [
            {
                "purpose": calls.purpose,
                "kind": calls.kind,
                "calls": calls.calls,
                "retries": calls.retries,
                "rate_limited": calls.rate_limited,
            }
            for calls in records.api_calls_of_run(database, run.run_id)
        ],
    }


def _lines_of_run(run: dict[str, Any]) -> Iterator[str]:
    stage = f" at stage {run['stage']}" if run["state"] != "complete" and run["stage"] else ""
    exit_code = "" if run["exit_code"] is None else f", exit code {run['exit_code']}"
    held = ", a brake held requests" if run["held"] else ""
    yield f"run {run['run_id']} ({run['command']}) of business date {run['business_date']}: {run['state']}{stage}{exit_code}{held}"
    yield f"started {_minute(run['started_at'])} UTC, finished {_minute(run['finished_at']) or 'never'}{' UTC' if run['finished_at'] else ''}"
    if run["why"]:
        yield f"why: {shown(run['why'])}"
    if run["resumed_from"]:
        yield f"resumed from: {run['resumed_from']}"
    gone = "" if run["report_exists"] or not run["report_directory"] else " (not there any more; see `relink prune`)"
    yield f"report: {run['report_directory'] or 'none'}{gone}"
    yield f"requests: {_counts(run['requests'])}"
    for one in run["merchants"]:
        held = ", held by a brake" if one["held"] else ""
        yield f"merchant {one['merchant']} ({one['mode']}): {'complete' if one['complete'] else 'not complete'}{held}"
        for name, value in sorted(one["counts"].items()):
            yield f"  {name.replace('_', ' ')}: {_counts(value) if isinstance(value, dict) else value}"
        if one["why"]:
            yield f"  why: {shown(one['why'])}"
        if one["snapshot_id"]:
            yield f"  snapshot: {one['snapshot_id']}"
    for calls in run["api_calls"]:
        more = [f"{calls[name]} {name.replace('_', ' ')}" for name in ("retries", "rate_limited") if calls[name]]
        yield f"Stripe calls, {calls['kind']} for {calls['purpose']}: {', '.join([str(calls['calls']), *more])}"
    given = {name: value for name, value in run["arguments"].items() if value not in (None, False, [])}
    yield f"arguments: {', '.join(f'{name}={shown(str(value))}' for name, value in given.items()) or 'none'}"
    yield f"settings: hash {run['settings_hash']} (all of them with --json)"


def _lines_of_status(found: dict[str, Any]) -> Iterator[str]:
    schema = found["schema"]
    missing = "" if found["database_exists"] else " (not created yet)"
    yield f"database: {found['database']}{missing}, schema {schema['found']} ({schema['status']})"
    lock = found["lock"]
    yield (
        "lock: free"
        if lock is None
        else f"lock: held by {lock['holder']} (process {lock['process']} on {lock['host']})"
    )
    died = lock is None and found["last_run"] is not None and found["last_run"]["state"] == "running"
    yield f"last run: {_run_line(found['last_run'])}{'; it died, since nothing holds the lock' if died else ''}"
    yield f"next run by the schedule: {found['next_run']['shown']}"
    for one in found["merchants"]:
        yield f"merchant {one['merchant']} ({one['mode'] or 'no run yet'})"
        yield from (f"  {line}" for line in _lines_of_merchant(one, running=lock is not None))
    if not found["held_plans"]:
        yield "held plans: none"
    for plan in found["held_plans"]:
        yield (
            f"held plan of merchant {plan['merchant']}: {plan['requests']} requests since {_minute(plan['created_at'])} UTC, to be released "
            f"until {_minute(plan['releasable_until'])} UTC: read {plan['plan_file'] or 'its report'}, then "
            f"`relink run --override-brakes {plan['plan_hash']}`"
        )


def _lines_of_merchant(one: dict[str, Any], *, running: bool) -> Iterator[str]:
    sessions = one["open_sessions"]
    if sessions["sessions"]:
        by_delivery = ", ".join(
            f"{each['sessions']} {delivery} ({each['handed_over']} handed over)"
            for delivery, each in sessions["by_delivery"].items()
        )
        yield f"open sessions: {sessions['sessions']}, the oldest of {_minute(sessions['oldest_requested_at'])} UTC: {by_delivery}"
    else:
        yield "open sessions: none"
    if one["planned"] or one["attempting"]:
        whose = "of the run that is going on" if running else "left by a run that died; the next run settles them first"
        yield f"unfinished: {one['planned']} planned, {one['attempting']} being attempted, {whose}"
    yield f"unknown: {len(one['unknown']) or 'none'}"
    for each in one["unknown"]:
        yield (
            f"  authorization {each['authorization_id']}, request {each['request_id']}, since {_minute(each['since'])} UTC, key "
            f"{each['idempotency_key']}: {each['how_to_settle']}"
        )
    for each in one["foreign_sessions"]:
        yield (
            f"session {each['session_id']} of authorization {each['authorization_id']}, seen {_minute(each['seen_at'])} UTC, is not followed: "
            f"{shown(each['why'])}; to follow it: `relink adopt {each['session_id']}`"
        )
    yield f"last complete run: {_run_line(one['last_complete_run'])}"
    yield f"last attempt: {_run_line(one['last_attempt'])}"
    snapshot = one["snapshot"]
    yield (
        "snapshot: none"
        if snapshot is None
        else f"snapshot: {snapshot['accounts']} accounts, {snapshot['age_hours']} hours old, {snapshot['obtained']}, all listed on {snapshot['full_date']}"
    )
    for each in one["expected_lapses"]:
        yield (
            f"{shown(each['institution_name'])}: {each['logins']} logins expected to lapse within {each['within_days']} days of "
            f"{each['business_date']}: they last {each['lasts_days']} days, by our own history of {each['agreeing']} of {each['observed']}"
        )
    allocation = one["monthly_read_allocation"]
    of = "no allocation set" if allocation is None else f"of {allocation} allowed"
    purposes = ", ".join(f"{count} {purpose}" for purpose, count in one["reads_last_30_days_by_purpose"].items())
    yield f"reads in the last 30 days: {one['reads_last_30_days']} ({of}){f': {purposes}' if purposes else ''}"


def _run_line(run: dict[str, Any] | None) -> str:
    if run is None:
        return "none"
    exit_code = "" if run["exit_code"] is None else f", exit code {run['exit_code']}"
    why = f" ({shown(run['why'])})" if run["why"] else ""
    return f"{run['run_id']} ({run['command']}) of {run['business_date']}: {run['state']}{exit_code}{why}"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in counts.items() if number) or "none"


def _minute(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment:%Y-%m-%d %H:%M}"
