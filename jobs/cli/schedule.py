"""The command that stays up and runs on a schedule."""

from __future__ import annotations

import logging
import sys
from functools import partial
from pathlib import Path

import click

from jobs.cli.common import config_option, say, settings_of

logger = logging.getLogger(__name__)


@click.command()
@config_option
@click.pass_context
def schedule(context: click.Context, config: str | None) -> int:
    """Stay up and run on schedule.cron, for hosts without cron, until SIGTERM or Ctrl-C.

    At start it catches up once if the last scheduled business date has no complete run.
    """
    from datetime import timedelta

    from jobs.clock import system_clock
    from jobs.schedule import Schedule, is_finished, run_in_own_process
    from jobs.ticks import Ticks

    settings = settings_of(context, config)
    chosen = config or context.obj
    ticks = Ticks(settings.schedule.cron, settings.schedule.timezone)
    Schedule(
        ticks=ticks,
        misfire_grace=timedelta(hours=settings.schedule.misfire_grace_hours),
        start=partial(run_in_own_process, ["--config", str(Path(chosen))] if chosen else []),
        is_finished=is_finished(settings, system_clock, ticks),
        announce=_announce,
        clock=system_clock,
    ).serve()


def _announce(text: str) -> None:
    logger.info(text)
    if sys.stdout.isatty():
        say(text)
