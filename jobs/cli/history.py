"""The command that tells all that is known of one account, authorization, customer, session or request."""

from __future__ import annotations

from dataclasses import asdict
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
    from jobs.event_line import Event
    from jobs.settings import Settings


@click.command()
@click.argument("identifier", metavar="ID")
@config_option
@json_option
@click.pass_context
def history(context: click.Context, identifier: str, config: str | None, as_json: bool) -> int:
    """All that is known of ID, oldest first: an account, authorization, customer, session or request."""
    require_printable("ID", identifier)
    settings = settings_of(context, config)
    with records_of(settings) as database:
        events = _events(settings, database, identifier.strip())
        commands = _commands(database, events)
        where = database.shown
    if not events:
        raise SettingsError(
            f"nothing is known of {shown(identifier)} in {where}: give the whole id of an account (fca_…), authorization (fcauth_…), "
            "customer, session (fcsess_…) or request; what Stripe made after the last run is not known yet"
        )
    if as_json:
        print_json([_plain(event, commands) for event in events])
        return 0
    several = len({event.merchant for event in events}) > 1
    for event in events:
        whose = f" [{event.merchant}]" if several else ""
        run = f" (run {event.run_id}, {commands[event.run_id]})" if event.run_id in commands else ""
        say(f"{event.at:%Y-%m-%d %H:%M} UTC{whose}  {shown(event.text)}{run}")
    return 0


def _events(settings: Settings, database: Database, identifier: str) -> list[Event]:
    from jobs.history import history as history_of
    from jobs.standing import known_scopes

    events: list[Event] = []
    for _, scope in known_scopes(settings, database):
        if scope is not None and identifier:
            events += history_of(database, scope, identifier)
    return sorted(events, key=lambda event: event.at)


def _commands(database: Database, events: list[Event]) -> dict[str | None, str]:
    """Which command each run was."""
    from jobs.adapters import records

    found = {run_id: records.run(database, run_id) for run_id in {event.run_id for event in events} if run_id}
    return {run_id: run.command for run_id, run in found.items() if run is not None}


def _plain(event: Event, commands: dict[str | None, str]) -> dict[str, Any]:
    return {**asdict(event), "text": shown(event.text), "command": commands.get(event.run_id)}
