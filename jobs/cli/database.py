"""The command that migrates the job's own tables."""

from __future__ import annotations

from contextlib import ExitStack

import click

from jobs.cli.common import config_option, json_option, print_json, say, settings_of


@click.group()
def db() -> None:
    """The job's own database."""


@db.command()
@config_option
@json_option
@click.pass_context
def upgrade(context: click.Context, config: str | None, as_json: bool) -> int:
    """Bring the job's own tables to this program's version, or make them; no run may be going on."""
    from jobs.adapters.database import open_database

    settings = settings_of(context, config)
    with ExitStack() as stack:
        database = stack.enter_context(open_database(settings.database.url))
        if database.schema_state().status == "older":
            from jobs.adapters.lease import acquire

            stack.enter_context(acquire(database, "db upgrade"))
        before, after = database.upgrade()
        shown = database.shown
    if as_json:
        print_json({"database": shown, "from": before, "to": after, "changed": before != after})
    elif before == after:
        say(f"database {shown} is of version {after} already")
    else:
        say(f"database {shown}: from {before or 'no tables'} to {after}")
    return 0
