"""The commands that decide and ask: run, plan, apply, request, collect."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jobs.cli.common import (
    config_option,
    json_option,
    log_under,
    print_json,
    progress_for,
    require_printable,
    settings_of,
)
from reconcile.errors import AlreadyRunning, SettingsError

if TYPE_CHECKING:
    from jobs.nightly import RunResult
    from jobs.settings import Settings
    from jobs.wiring import Wiring
    from jobs.work import Work


@click.command()
@click.option("--dry-run", is_flag=True, help="Change nothing and send nothing; report what would be asked.")
@click.option("--full", is_flag=True, help="List all accounts, whatever pull.mode says.")
@click.option("--override-brakes", metavar="PLAN_HASH", default=None, help="Release what a brake held, once.")
@click.option("--business-date", type=click.DateTime(["%Y-%m-%d"]), default=None, hidden=True)
@config_option
@json_option
@click.pass_context
def run(
    context: click.Context,
    dry_run: bool,
    full: bool,
    override_brakes: str | None,
    business_date: datetime | None,
    config: str | None,
    as_json: bool,
) -> int:
    """Do tonight's run: pull, snapshot, collect, classify, plan, relink, report.

    A second run of a finished business date sends nothing.
    """
    from jobs.work import Work

    require_printable("--override-brakes", override_brakes or "")
    work = Work(
        command="run",
        dry_run=dry_run,
        full=full,
        released_brake=override_brakes,
        business_date=None if business_date is None else business_date.date(),
        arguments={"full": full, "override_brakes": override_brakes},
    )
    return _command(context, config, as_json, work)


@click.command()
@click.option(
    "--out",
    type=click.Path(dir_okay=False),
    default=None,
    help="Where to write the plan; else beside the reports, in _plans.",
)
@config_option
@json_option
@click.pass_context
def plan(context: click.Context, out: str | None, config: str | None, as_json: bool) -> int:
    """Decide as a run would, and write the decision as a file that `relink apply` carries out."""
    from jobs.plan_file import MerchantPlan, PlanFile, write_plan
    from jobs.wiring import wire
    from jobs.work import Work

    settings = settings_of(context, config)
    with wire(settings, os.environ, progress=progress_for(as_json), create=False) as wiring:
        result = perform(wiring, Work(command="plan", dry_run=True))
        if result.report_directory is None or not result.complete:
            print_run(result, as_json)
            return result.exit_code
        decided = PlanFile(
            run_id=result.stamp.run_id,
            created_at=result.stamp.as_of,
            business_date=result.stamp.business_date,
            merchants=tuple(
                MerchantPlan(night.merchant.scope, night.merchant.settings_hash, night.plan.requests)
                for night in result.nights
            ),
        )
        path = Path(out) if out else wiring.plan_directory / f"{result.run_id}.json"
        write_plan(decided, path)
    print_run(result, as_json, {"plan_file": str(path), "plan_hash": decided.plan_hash})
    return result.exit_code


@click.command()
@click.argument("file", type=click.Path(dir_okay=False))
@config_option
@json_option
@click.pass_context
def apply(context: click.Context, file: str, config: str | None, as_json: bool) -> int:
    """Carry out a plan FILE: what changed since it was made is skipped and listed."""
    from jobs.plan_file import check_applicable, read_plan
    from jobs.work import Work

    agreed = read_plan(Path(file))
    settings = settings_of(context, config)
    leave_if_running(settings)
    from jobs.wiring import wire

    with wire(settings, os.environ, holder="apply", progress=progress_for(as_json)) as wiring:
        check_applicable(agreed, {one.scope: one.settings_hash for one in wiring.merchants}, wiring.clock())
        work = Work(
            command="apply",
            agreed={one.scope.merchant: one.requests for one in agreed.merchants},
            arguments={"plan_hash": agreed.plan_hash},
        )
        result = perform(wiring, work)
    print_run(result, as_json, {"plan_hash": agreed.plan_hash})
    return result.exit_code


@click.command()
@click.option(
    "--authorization", "authorizations", multiple=True, metavar="ID", help="An authorization; may be repeated."
)
@click.option(
    "--customer", "customers", multiple=True, metavar="ID", help="A customer or account holder; may be repeated."
)
@click.option("--institution", "institutions", multiple=True, metavar="NAME", help="Every customer of a bank.")
@click.option("--file", type=click.Path(dir_okay=False), default=None, metavar="CSV", help="A CSV file of ids.")
@click.option("--ignore-cooldown", is_flag=True, help="Ask although the customer was asked lately.")
@click.option(
    "--resolve-unknown", is_flag=True, help="Ask although it is unknown whether an earlier request arrived; recorded."
)
@click.option("--dry-run", is_flag=True, help="Change nothing and send nothing; report what would be asked.")
@config_option
@json_option
@click.pass_context
def request(
    context: click.Context,
    authorizations: Sequence[str],
    customers: Sequence[str],
    institutions: Sequence[str],
    file: str | None,
    ignore_cooldown: bool,
    resolve_unknown: bool,
    dry_run: bool,
    config: str | None,
    as_json: bool,
) -> int:
    """Ask for a selection of customers now, with the same guards, records and reports as a night.

    Works from the newest snapshot; accounts are read again where it is over an hour old.
    """
    from jobs.selection import Selection, read_selection_file
    from jobs.work import Work

    chosen = Selection(frozenset(authorizations), frozenset(customers), frozenset(), frozenset(institutions))
    given = [bool(authorizations), bool(customers), bool(institutions), file is not None]
    if sum(given) != 1:
        raise SettingsError("select by one of --authorization, --customer, --institution or --file")
    if file is not None:
        chosen = read_selection_file(Path(file))
    require_printable(
        "the selection", *chosen.authorizations, *chosen.customers, *chosen.accounts, *chosen.institutions
    )
    work = Work(
        command="request",
        dry_run=dry_run,
        from_stored=True,
        selection=chosen,
        ignore_cooldown=ignore_cooldown,
        unknowns_resolved_by=_this_person() if resolve_unknown else None,
        arguments={
            "authorizations": sorted(chosen.authorizations),
            "customers": sorted(chosen.customers),
            "accounts": sorted(chosen.accounts),
            "institutions": sorted(chosen.institutions),
            "ignore_cooldown": ignore_cooldown,
            "resolve_unknown": resolve_unknown,
        },
    )
    return _command(context, config, as_json, work)


@click.command()
@config_option
@json_option
@click.pass_context
def collect(context: click.Context, config: str | None, as_json: bool) -> int:
    """Look up every open session now, and report; sends nothing."""
    settings = settings_of(context, config)
    leave_if_running(settings)
    from jobs.adapters import records
    from jobs.wiring import wire
    from jobs.work import Work

    with wire(settings, os.environ, holder="collect", progress=progress_for(as_json)) as wiring:
        reads = sum(len(records.open_requests(wiring.database, one.scope)) for one in wiring.merchants)
        click.echo(f"{reads} open sessions: {reads} reads, and more where a session has over 10 accounts", err=True)
        result = perform(wiring, Work(command="collect", from_stored=True, collect_everything=True, sends=False))
    print_run(result, as_json, {"open_sessions_read": reads})
    return result.exit_code


def leave_if_running(settings: Settings) -> None:
    """Look at the lock before the heavy imports, so that a second starter leaves at once; taking it is what decides.

    Raises:
        AlreadyRunning: another process holds it.
    """
    from jobs.adapters.lock_probe import probe_lock

    holder = probe_lock(settings.database.url)
    if holder is not None:
        raise AlreadyRunning(f"another run holds the lock: {holder.describe()}; wait for it, or end that process")


def _this_person() -> str:
    """Who decides, for the record: the account and host that the command runs under."""
    import getpass
    import socket

    try:
        person = getpass.getuser()
    except (KeyError, OSError):  # an account number without a name, as in many containers
        person = f"user {os.getuid()}"
    return f"{person} on {socket.gethostname()}"


def _command(context: click.Context, config: str | None, as_json: bool, work: Work) -> int:
    settings = settings_of(context, config)
    holder = None if work.dry_run else work.command
    from jobs.watch import watched

    with watched(settings, os.environ, work.command, dry_run=work.dry_run) as watch:
        if holder is not None:
            leave_if_running(settings)
        from jobs.wiring import wire

        with wire(
            settings, os.environ, holder=holder, progress=progress_for(as_json), create=not work.dry_run
        ) as wiring:
            result = watch.ended(perform(wiring, work, watch.began))
    print_run(result, as_json)
    return result.exit_code


def perform(wiring: Wiring, work: Work, *told: Callable[[str], None]) -> RunResult:
    """Do a run, its id on every line of the log."""
    from jobs.nightly import run as run_night
    from jobs.watch import then

    return run_night(wiring, work, then(log_under(wiring.settings), *told))


def print_run(result: RunResult, as_json: bool, more: dict[str, Any] | None = None) -> None:
    """Print how a run ended, as words or as JSON."""
    from jobs.cli.results import as_plain, print_result

    if as_json:
        print_json({**as_plain(result), **(more or {})})
    else:
        print_result(result, more or {})
