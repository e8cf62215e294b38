"""The commands that take a run up again: resume, retry."""

from __future__ import annotations

import os

import click

from jobs.cli.common import (
    config_option,
    json_option,
    print_json,
    progress_for,
    records_of,
    require_printable,
    settings_of,
)
from jobs.cli.run import leave_if_running, perform, print_run


@click.command()
@click.argument("run_id")
@click.option("--dry-run", is_flag=True, help="Change nothing and send nothing; report what would be asked.")
@config_option
@json_option
@click.pass_context
def resume(context: click.Context, run_id: str, dry_run: bool, config: str | None, as_json: bool) -> int:
    """Finish the night RUN_ID, which was interrupted or stopped.

    Goes on from its snapshot if that is complete and less than a day old, and reads every account again before its customer is asked.
    """
    from jobs.watch import watched

    require_printable("RUN_ID", run_id)
    settings = settings_of(context, config)
    if not dry_run:
        leave_if_running(settings)
    from jobs.resumption import work_to_resume

    with records_of(settings) as database:
        # Before anybody is told that a run begins: a wrong id is no failed night.
        work_to_resume(database, run_id, settings.merchant_names)
    with watched(settings, os.environ, "resume", dry_run=dry_run) as watch:
        from jobs.wiring import wire

        holder = None if dry_run else "resume"
        with wire(settings, os.environ, holder=holder, progress=progress_for(as_json), create=False) as wiring:
            work = work_to_resume(wiring.database, run_id, settings.merchant_names, dry_run=dry_run)
            result = watch.ended(perform(wiring, work, watch.began))
    print_run(result, as_json)
    return result.exit_code


@click.command()
@click.argument("run_id")
@click.option("--dry-run", is_flag=True, help="Change nothing and send nothing; report what would be asked.")
@config_option
@json_option
@click.pass_context
def retry(context: click.Context, run_id: str, dry_run: bool, config: str | None, as_json: bool) -> int:
    """Try again what Stripe refused or what was not sent in the finished run RUN_ID.

    Under the same guards, but nobody waits for a refusal to cool down. What is unknown is never tried again by this.
    """
    require_printable("RUN_ID", run_id)
    settings = settings_of(context, config)
    if not dry_run:
        leave_if_running(settings)
    from jobs.resumption import work_to_retry
    from jobs.wiring import wire

    holder = None if dry_run else "retry"
    with wire(settings, os.environ, holder=holder, progress=progress_for(as_json), create=not dry_run) as wiring:
        work = work_to_retry(wiring.database, run_id, settings.merchant_names, dry_run=dry_run)
        if work is None:
            if as_json:
                print_json({"run_id": None, "retries": run_id, "requests": 0})
            else:
                click.echo(f"run {run_id} has no request to try again")
            return 0
        result = perform(wiring, work)
    print_run(result, as_json)
    return result.exit_code
