"""The command that rebuilds the reports of past business dates."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import click

from jobs.cli.common import (
    config_option,
    json_option,
    log_under,
    print_json,
    progress_for,
    records_of,
    say,
    settings_of,
    shown,
)
from reconcile.errors import SettingsError

if TYPE_CHECKING:
    from jobs.backfill import Backfilled, RebuiltDate
    from jobs.nightly import RunResult
    from jobs.wiring import Wiring

LONGEST_DAYS = 3_660

_DATE = click.DateTime(formats=["%Y-%m-%d"])


@click.command()
@click.option("--from", "first", type=_DATE, required=True, help="First business date.")
@click.option("--to", "last", type=_DATE, required=True, help="Last business date.")
@click.option(
    "--only",
    type=click.Choice(["missing", "failed", "all"]),
    default="missing",
    show_default=True,
    help="Dates without a whole report of a complete run, dates whose last attempt did not complete, or all.",
)
@click.option(
    "--collect", "collects", is_flag=True, help="First look up the open sessions of these dates; recorded as of today."
)
@config_option
@json_option
@click.pass_context
def backfill(
    context: click.Context,
    first: datetime,
    last: datetime,
    only: str,
    collects: bool,
    config: str | None,
    as_json: bool,
) -> int:
    """Rebuild each date's last complete run (run, apply, resume) from its snapshot and the records as they stood then.

    Asks no customer and, without --collect, nobody at all. May be stopped at any moment and started again.
    """
    from jobs.backfill import Only
    from jobs.backfill import backfill as rebuild
    from jobs.wiring import wire

    settings = settings_of(context, config)
    start, end = first.date(), last.date()
    if start > end:
        raise click.UsageError(f"--from {start} comes after --to {end}")
    if (end - start).days >= LONGEST_DAYS:
        raise click.UsageError(f"from {start} to {end} is over {LONGEST_DAYS:,} days: narrow it")
    with records_of(settings) as database:
        if database.ephemeral:
            raise SettingsError(f"there are no records in {database.shown} yet, so there is nothing to rebuild from")
    with wire(
        settings,
        os.environ,
        holder="backfill",
        progress=progress_for(as_json),
        calls_stripe=collects,
        create=False,
    ) as wiring:
        _refuse_future(wiring, end)
        collected = _collect(wiring, start, end) if collects else None
        done = rebuild(wiring, start, end, Only(only), _tell, collected)
    if as_json:
        print_json({"from": start.isoformat(), "to": end.isoformat(), "only": only, **_as_plain(done)})
    else:
        for line in _lines(done):
            say(line)
    return done.exit_code


def _refuse_future(wiring: Wiring, last: date) -> None:
    from jobs.backfill import today_of

    today = today_of(wiring)
    if last > today:
        raise SettingsError(f"--to {last} is in the future: the business date is {today}")


def _collect(wiring: Wiring, first: date, last: date) -> RunResult | None:
    from jobs.backfill import collect_range, sessions_to_collect

    reads = sessions_to_collect(wiring, first, last)
    click.echo(f"{reads} open sessions: {reads} reads, and more where a session has over 10 accounts", err=True)
    return collect_range(wiring, first, last, log_under(wiring.settings)) if reads else None


def _tell(one: RebuiltDate) -> None:
    """A line for each date as it is done."""
    click.echo(f"{one.on}: {_words(one)}", err=True)


def _words(one: RebuiltDate) -> str:
    run = "" if one.run_id is None else f", run {one.run_id}"
    if one.basis_date is not None and one.basis_date < one.on:
        run += f", from the snapshot of {one.basis_date}"
    return f"{one.result}{run}" + ("" if one.why is None else f": {shown(one.why)}")


def _lines(done: Backfilled) -> Iterator[str]:
    counts = Counter(str(one.result) for one in done.dates)
    yield f"{len(done.dates)} dates: " + ", ".join(f"{number} {result}" for result, number in sorted(counts.items()))
    earlier = [one for one in done.dates if one.basis_date is not None and one.basis_date < one.on]
    for one in (
        *earlier,
        *(each for each in done.dates if each.result in ("nothing", "failed") or each.as_published is False),
    ):
        yield f"{one.on}: {_words(one)}"
    for name in done.links:
        yield f"{name} is there again"
    if done.collected is not None:
        yield f"sessions looked up by run {done.collected.run_id}: exit code {done.collected.exit_code}; report: {done.collected.report_directory}"


def _as_plain(done: Backfilled) -> dict[str, Any]:
    collected = done.collected
    return {
        "exit_code": done.exit_code,
        "counts": dict(Counter(str(one.result) for one in done.dates)),
        "links_restored": list(done.links),
        "collected": None
        if collected is None
        else {
            "run_id": collected.run_id,
            "report_directory": None if collected.report_directory is None else str(collected.report_directory),
            "exit_code": collected.exit_code,
        },
        "dates": [
            {
                "run_date": one.on.isoformat(),
                "result": str(one.result),
                "run_id": one.run_id,
                "report_directory": None if one.directory is None else str(one.directory),
                "basis": one.basis,
                "basis_date": None if one.basis_date is None else one.basis_date.isoformat(),
                "as_published": one.as_published,
                "why": None if one.why is None else shown(one.why),
            }
            for one in done.dates
        ],
    }
