"""The command that removes what is too old."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from jobs.cli.common import config_option, json_option, print_json, records_of, say, settings_of
from reconcile.errors import SettingsError

if TYPE_CHECKING:
    from jobs.prune import Pruned


@click.command()
@click.option("--dry-run", is_flag=True, help="Remove nothing; say what would be removed.")
@config_option
@json_option
@click.pass_context
def prune(context: click.Context, dry_run: bool, config: str | None, as_json: bool) -> int:
    """Remove snapshots, reports, plan files and records that are older than `retention` keeps.

    Never what an open outage, a request without an answer, a guard or a kept snapshot still needs.
    """
    from jobs.prune import prune as remove
    from jobs.wiring import wire

    settings = settings_of(context, config)
    with records_of(settings) as database:
        if database.ephemeral:
            raise SettingsError(f"there are no records in {database.shown} yet, so nothing is known to be old")
    # Under the lock in a dry run, too, so that what it says is what a pruning would find.
    with wire(settings, os.environ, holder="prune", calls_stripe=False, create=False) as wiring:
        pruned = remove(settings, wiring.database, wiring.clock(), dry_run=dry_run)
    if as_json:
        print_json(_as_plain(pruned, dry_run))
    else:
        for line in _lines(pruned, dry_run):
            say(line)
    return 0


def _as_plain(pruned: Pruned, dry_run: bool) -> dict[str, Any]:
    return {
        "dry_run": dry_run,
        "snapshots": [str(path) for path in pruned.snapshots],
        "reports": [str(path) for path in pruned.reports],
        "dry_run_reports": [str(path) for path in pruned.dry_runs],
        "plan_files": [str(path) for path in pruned.plans],
        "records": pruned.rows,
        "kept": [str(path) for path in pruned.kept],
    }


def _lines(pruned: Pruned, dry_run: bool) -> Iterator[str]:
    verb = "would remove" if dry_run else "removed"
    for paths in (pruned.snapshots, pruned.reports, pruned.dry_runs, pruned.plans):
        yield from (f"{verb} {path}" for path in paths)
    for what, number in pruned.rows.items():
        if number:
            yield f"{verb} {number} records: {what}"
    for path in pruned.kept:
        yield f"kept {path}: it holds something that its manifest does not name"
    if not any((pruned.snapshots, pruned.reports, pruned.dry_runs, pruned.plans, any(pruned.rows.values()))):
        yield "nothing is too old"
