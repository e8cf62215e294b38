"""The commands that show reports to people."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
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

if TYPE_CHECKING:
    from reports.page_model import Cell, Grid, Page

ESSENTIAL = ("changes", "funnel", "steps", "ages", "expected")
"""Tables of the page that a terminal shows; the others are in the page and the files."""

LONGEST_TREND_DAYS = 3_660

_DATE = click.DateTime(formats=["%Y-%m-%d"])

_redact_option = click.option(
    "--redact",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    help="Write the page without any customer's ids to this new file.",
)


@click.group()
@config_option
@click.pass_context
def report(context: click.Context, config: str | None) -> None:
    """Look at a run's report."""
    context.obj = config or context.obj


@report.command()
@click.argument("run_id", required=False)
@click.option("--mail", is_flag=True, help="Print the page's top part as HTML for a mail; it names no customer.")
@_redact_option
@config_option
@json_option
@click.pass_context
def show(
    context: click.Context, run_id: str | None, mail: bool, redact: Path | None, config: str | None, as_json: bool
) -> int:
    """The essential page of a run on the terminal; alone, of the newest attempt."""
    from reports.page import mail_body
    from reports.page_numbers import redacted

    _, page = _page(context, run_id, config)
    if redact is not None:
        _write_copy(page, redact)
        page = redacted(page)
    if mail:
        say(mail_body(page).rstrip("\n"))
    elif as_json:
        print_json(_as_plain(page))
    else:
        _print(page)
    return 0


@report.command("open")
@click.argument("run_id", required=False)
@_redact_option
@config_option
@click.pass_context
def open_command(context: click.Context, run_id: str | None, redact: Path | None, config: str | None) -> int:
    """Open a run's page in the browser, or say where it lies; alone, of the newest attempt."""
    from reconcile.errors import ReportError
    from reports.page import PAGE

    directory, page = _page(context, run_id, config)
    path = directory / PAGE
    if redact is not None:
        _write_copy(page, redact)
        path = redact.resolve()
    if not path.is_file():
        raise ReportError(f"{directory} has no {PAGE}: add html to reports.formats, or use `relink report show`")
    say(str(path))
    if _has_screen():
        import webbrowser

        webbrowser.open(path.as_uri())
    return 0


@report.command("verify")
@click.argument("run_id", required=False)
@config_option
@json_option
@click.pass_context
def verify_command(context: click.Context, run_id: str | None, config: str | None, as_json: bool) -> int:
    """Whether a report is what its run wrote: files, manifest, control totals and records; alone, the newest attempt's."""
    from jobs.verify import verify_report
    from reconcile.errors import ReportError

    settings = settings_of(context, config)
    directory = _directory(settings.reports.directory, run_id)
    with records_of(settings) as database:
        found = verify_report(database, directory)
    if as_json:
        faults = [shown(fault) for fault in found.faults]
        print_json({"report_directory": str(directory), "recorded": found.recorded, "faults": faults})
    else:
        for fault in found.faults:
            say(shown(fault))
        beside = "" if found.recorded else "; the records have nothing to compare it with"
        say(f"{directory}: {len(found.faults) or 'nothing'} wrong{beside}")
    return ReportError.exit_code if found.faults else 0


@report.command()
@click.option(
    "--from", "first", type=_DATE, default=None, help="First business date; else 29 days before the last one."
)
@click.option(
    "--to", "last", type=_DATE, default=None, help="Last business date; else the newest of which there is a report."
)
@config_option
@json_option
@click.pass_context
def trend(
    context: click.Context, first: datetime | None, last: datetime | None, config: str | None, as_json: bool
) -> int:
    """Past nights side by side: broken, at stake, asked, answered, came back. Read from their Parquet files in place."""
    from jobs.cli.terminal import print_table
    from reconcile.errors import ReportError
    from reconcile.model import REPORT_WINDOW_DAYS
    from reports.past_nights import read_dates
    from reports.past_runs import dates_of
    from reports.trend import plain_trend, trend_grid, trend_nights

    root = settings_of(context, config).reports.directory
    dates = dates_of(root)
    if not dates:
        raise ReportError(f"no report in {root} yet: `relink run` writes the first")
    end = dates[-1] if last is None else last.date()
    start = max(end - timedelta(days=REPORT_WINDOW_DAYS - 1), dates[0]) if first is None else first.date()
    if first is None and start > end:
        start = end
    if start > end:
        raise click.UsageError(f"--from {start} comes after --to {end}")
    if (end - start).days > LONGEST_TREND_DAYS:
        raise click.UsageError(f"from {start} to {end} is over {LONGEST_TREND_DAYS:,} days: narrow it")
    past = read_dates(root, start, end)
    nights = trend_nights(past, end, start)
    if as_json:
        print_json(
            {
                "from": start.isoformat(),
                "to": end.isoformat(),
                "newest_report": dates[-1].isoformat(),
                "unread": list(past.unread),
                **plain_trend(nights),
            }
        )
        return 0
    grid = trend_grid(nights, f"Night by night, {start} to {end}")
    if grid.lines:
        print_table(grid.caption, grid.head, ([line.label, *map(_text, line.cells)] for line in grid.lines))
    else:
        say(f"{grid.caption}: {grid.empty}")
    for name in past.unread:
        say(f"An earlier report could not be read and is left out: {name}.")
    return 0


def _page(context: click.Context, run_id: str | None, config: str | None) -> tuple[Path, Page]:
    from reports.published_page import published_page

    root = settings_of(context, config).reports.directory
    directory = _directory(root, run_id)
    return directory, published_page(root, directory)


def _directory(root: Path, run_id: str | None) -> Path:
    from reports.published_page import find_report

    if run_id is not None:
        require_printable("RUN_ID", run_id)
    return find_report(root, run_id)


def _write_copy(page: Page, path: Path) -> None:
    from reports.disk import Access, reporting, write_file
    from reports.page import page_html
    from reports.page_numbers import redacted

    with reporting(path):
        write_file(path, [page_html(redacted(page)).encode()], Access())


def _has_screen() -> bool:
    return sys.platform == "darwin" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def _print(page: Page) -> None:
    from jobs.cli.terminal import print_table
    from reports.page_numbers import STATES

    say(
        f"{STATES[page.state]}: run {page.run['run_id']} ({page.run['command']}) of business date {page.run['run_date']}"
    )
    say(f"Is anything wrong? {page.verdict}")
    for notice in page.notices:
        say(f"  {shown(notice.text)} {shown(notice.detail)}".rstrip())
    if page.keys:
        rows = [(key.label, ", ".join(one.text for one in key.figures), key.remark) for key in page.keys]
        print_table("In short", ("", "", ""), rows)
    for name in ESSENTIAL:
        if name in page.grids and page.grids[name].lines:
            grid = page.grids[name]
            print_table(grid.caption, grid.head, ([line.label, *map(_text, line.cells)] for line in grid.lines))
    if page.needs:
        print_table("What must I do?", ("cases", "what", "command"), _needs(page))


def _needs(page: Page) -> Iterator[Sequence[str]]:
    for need in page.needs:
        first = need.tasks[0].command if need.tasks else ""
        more = f"{first} (and so on: see the page)" if len(need.tasks) > 1 else first
        yield need.count.text, need.title, need.command or more


def _text(cell: Cell) -> str:
    return cell if isinstance(cell, str) else ", ".join(one.text for one in cell)


def _as_plain(page: Page) -> dict[str, Any]:
    return {
        "run": dict(page.run),
        "state": page.state,
        "verdict": page.verdict,
        "notices": [{"text": shown(one.text), "detail": shown(one.detail), "wrong": one.bad} for one in page.notices],
        "figures": {
            one.name: one.value
            for cells in (
                *([key.figures] for key in page.keys),
                *(line.cells for grid in (page.control, *page.grids.values()) for line in grid.lines),
            )
            for cell in cells
            if not isinstance(cell, str)
            for one in cell
        },
        "tables": {name: _plain_grid(grid) for name, grid in page.grids.items()},
        "needs": [
            {
                "title": need.title,
                "cases": need.count.value,
                "what_to_do": need.sentence,
                "command": need.command or None,
                "rows": need.rows,
                "first_cases": [
                    {"subject": shown(task.subject), "why": shown(task.sentence), "command": task.command}
                    for task in need.tasks
                ],
            }
            for need in page.needs
        ],
    }


def _plain_grid(grid: Grid) -> dict[str, Any]:
    return {
        "caption": grid.caption,
        "columns": list(grid.head),
        "rows": [[shown(line.label), *(_plain_cell(cell) for cell in line.cells)] for line in grid.lines],
        "counted_from": dict(grid.sources),
    }


def _plain_cell(cell: Cell) -> Any:
    return shown(cell) if isinstance(cell, str) else {one.name: one.value for one in cell}
