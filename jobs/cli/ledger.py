"""The commands that load the embedded ledger and check the configured one."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jobs.cli.common import config_option, json_option, print_json, records_of, say, settings_of, shown
from reconcile.errors import LedgerError, SettingsError

if TYPE_CHECKING:
    from jobs.ledger_check import LedgerSummary
    from jobs.settings import Settings
    from reconcile.ledger import LedgerFault


@click.group()
def ledger() -> None:
    """The merchant's ledger: load the embedded one, or check the one that is configured."""


@ledger.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False), metavar="FILE.csv")
@click.option("--merge", is_flag=True, help="Add and update rows; without it, FILE replaces the whole ledger.")
@config_option
@json_option
@click.pass_context
def load(context: click.Context, file: str, merge: bool, config: str | None, as_json: bool) -> int:
    """Replace the embedded ledger by FILE.csv, or merge it in; all of it or, if anything is wrong, nothing."""
    from jobs.adapters.ledger import read_csv
    from jobs.ledger_check import load as load_rows
    from jobs.ledger_check import summarize
    from jobs.wiring import wire
    from reconcile.ledger import check_rows, require_clean

    settings = settings_of(context, config)
    if settings.ledger.url is not None:
        raise SettingsError(
            "ledger.url is set, so runs read that ledger and never the embedded one: load the rows there, or take out ledger.url "
            "and ledger.query"
        )
    try:
        rows = require_clean(check_rows(read_csv(Path(file)), settings.merchant_names))
    except LedgerError as error:
        raise LedgerError(f"nothing was loaded from {shown(file)}: {error}") from None
    with wire(settings, os.environ, holder="ledger load", calls_stripe=False) as wiring:
        change = load_rows(wiring.database, rows, settings.merchant_names, merge=merge)
        total = summarize(rows).rows if not merge else _rows_now(wiring.database)
    if as_json:
        print_json({**change._asdict(), "rows": total, "merged": merge})
    else:
        say(f"{change.added} added, {change.changed} changed, {change.removed} removed; the ledger has {total} rows")
    return 0


@ledger.command()
@config_option
@json_option
@click.pass_context
def check(context: click.Context, config: str | None, as_json: bool) -> int:
    """Read the ledger as the next run would, and say what it holds and everything that is wrong with it."""
    from jobs.ledger_check import check_ledger, summarize

    settings = settings_of(context, config)
    with records_of(settings) as database:
        checked = check_ledger(settings, database)
    if not checked.rows and not checked.faults:
        raise LedgerError(
            "the ledger is empty; load one with `relink ledger load`, or check ledger.query and what it may see"
        )
    summary = summarize(checked.rows)
    sessions = _sessions_yielded(settings)
    if as_json:
        print_json(
            {
                "source": _source(settings),
                "clean": not checked.faults,
                **asdict(summary),
                **({} if sessions is None else {"sessions": sessions}),
                "faults": [_plain_fault(fault) for fault in checked.faults],
            }
        )
    else:
        _print_check(settings, summary, checked.faults)
        if sessions is not None:
            say(f"sessions that ledger.sessions_query yields: {sessions}")
    return LedgerError.exit_code if checked.faults else 0


def _sessions_yielded(settings: Settings) -> int | None:
    """How many sessions made elsewhere the next run would know of, None where no query is set."""
    from jobs.clock import system_clock
    from jobs.merchant_lists import read_sessions

    if settings.ledger.sessions_query is None:
        return None
    return sum(len(sessions) for sessions in read_sessions(settings, system_clock()).values())


def _rows_now(database: Any) -> int:
    from jobs.adapters import records

    return len(records.ledger_rows(database))


def _source(settings: Settings) -> str:
    from jobs.database_url import without_password

    if settings.ledger.url is None:
        return f"the embedded table in {without_password(settings.database.url)}"
    return f"ledger.query at {without_password(settings.ledger.url)}"


def _plain_fault(fault: LedgerFault) -> dict[str, Any]:
    return {"row": fault.row_number, "account_id": fault.key, "column": fault.column, "problem": fault.problem}


def _print_check(settings: Settings, summary: LedgerSummary, faults: list[LedgerFault]) -> None:
    from reconcile.ledger import describe

    say(f"ledger: {_source(settings)}")
    say(f"rows without a fault: {summary.rows}")
    for name, counts in (
        ("status", summary.by_status),
        ("purpose", summary.by_purpose),
        ("merchant", summary.by_merchant),
    ):
        say(f"by {name}: {', '.join(f'{number} {value}' for value, number in counts.items()) or 'none'}")
    money = ", ".join(f"{amount} {currency}" for currency, amount in summary.exposure_by_currency.items())
    say(f"exposure of open rows, in minor units: {money or 'none'}")
    say(f"holders: {summary.holders}, of whom {summary.holders_silenced} must not be contacted")
    if not faults:
        say("faults: none")
        return
    say(f"faults: {len(faults)} (rows counted from 1 after the header); mend them where the ledger is kept:")
    for fault in faults:
        say(f"  {shown(describe(fault))}")
