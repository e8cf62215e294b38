"""The command that follows sessions created elsewhere."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime

import click

from jobs.cli.common import (
    config_option,
    json_option,
    log_under,
    print_json,
    progress_for,
    require_printable,
    say,
    settings_of,
)
from reconcile.errors import SettingsError


@click.command()
@click.argument("session_ids", nargs=-1, required=True, metavar="SESSION_ID...")
@click.option(
    "--requested-at", metavar="T", default=None, help="When they were created, as 2026-11-22T03:30:00Z; else now."
)
@config_option
@json_option
@click.pass_context
def adopt(
    context: click.Context, session_ids: Sequence[str], requested_at: str | None, config: str | None, as_json: bool
) -> int:
    """Follow sessions that something else created; each counts as an attempt. Repeating changes nothing."""
    from jobs.nightly import run
    from jobs.wiring import wire
    from jobs.work import Work

    require_printable("SESSION_ID", *session_ids)
    moment = None if requested_at is None else _aware(requested_at)
    settings = settings_of(context, config)
    with wire(settings, os.environ, holder="adopt", progress=progress_for(as_json)) as wiring:
        if moment is not None and moment > wiring.clock():
            raise SettingsError(f"--requested-at {requested_at} lies in the future")
        work = Work(
            command="adopt",
            from_stored=True,
            sends=False,
            adopts=tuple(dict.fromkeys(session_ids)),
            requested_at=moment,
            arguments={"session_ids": list(session_ids), "requested_at": requested_at},
        )
        result = run(wiring, work, log_under(settings))
    told = [
        {"merchant": night.merchant.scope.merchant, "session_id": one.session_id, "result": one.result, "why": one.why}
        for night in result.nights
        for one in night.adoptions
    ]
    if as_json:
        directory = None if result.report_directory is None else str(result.report_directory)
        print_json(
            {"run_id": result.run_id, "report_directory": directory, "exit_code": result.exit_code, "sessions": told}
        )
    else:
        for one in told:
            say(f"{one['session_id']}: {one['result']}" + (f" ({one['why']})" if one["why"] else ""))
        say(f"report: {result.report_directory}")
    return result.exit_code


def _aware(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise SettingsError(f"--requested-at {text!r} is no time; write it as 2026-11-22T03:30:00Z") from None
    if moment.tzinfo is None:
        raise SettingsError(f"--requested-at {text!r} has no time zone; write it as 2026-11-22T03:30:00Z")
    return moment
