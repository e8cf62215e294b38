"""The command `relink`: finds the command family's module only when it is called, so that help answers at once."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

import click

from jobs.cli.common import fail, open_closed_streams
from jobs.logs import disable_core_dumps, install_excepthook
from jobs.signals import end_in_time, interrupt_again_where_ignored, interrupt_once

COMMANDS = {
    "run": ("jobs.cli.run:run", "The nightly job: pull, collect, decide, ask, report."),
    "plan": ("jobs.cli.run:plan", "The same decision as a file; sends nothing."),
    "apply": ("jobs.cli.run:apply", "Carry out a plan file."),
    "request": ("jobs.cli.run:request", "Ask for a selection of customers, under the same guards."),
    "resume": ("jobs.cli.again:resume", "Finish a night that was interrupted or stopped."),
    "retry": ("jobs.cli.again:retry", "Try again what was refused or not sent in a finished run."),
    "collect": ("jobs.cli.run:collect", "Look up every open session now, and report."),
    "adopt": ("jobs.cli.adopt:adopt", "Follow sessions that something else created."),
    "backfill": ("jobs.cli.backfill:backfill", "Rebuild the reports of past business dates; asks nobody."),
    "runs": ("jobs.cli.runs:runs", "Past runs."),
    "status": ("jobs.cli.runs:status", "What is open, held or unknown now."),
    "history": ("jobs.cli.history:history", "All that is known of one account, authorization, customer or session."),
    "prune": ("jobs.cli.prune:prune", "Remove what is older than the settings keep; every night does it, too."),
    "report": ("jobs.cli.report:report", "Show a run's report on the terminal or in the browser."),
    "ledger": ("jobs.cli.ledger:ledger", "Load the embedded ledger, or check the configured one."),
    "schedule": ("jobs.cli.schedule:schedule", "Stay up and run on the schedule of the settings."),
    "doctor": ("jobs.cli.doctor:doctor", "Check settings, key, Stripe, database, ledger and reports."),
    "db": ("jobs.cli.database:db", "Migrate the job's own tables."),
    "demo": ("jobs.cli.demo:demo", "Several simulated nights of the real job; no key, no network."),
    "simulator": ("jobs.cli.simulator:simulator", "The local stand-in for Stripe, for people who build against it."),
}


class _LazyGroup(click.Group):
    """Knows its commands by name and imports one only to call it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config", type=click.Path(), default=None, help="Settings file; else $RELINK_CONFIG, else ./config.yaml."
)
@click.version_option(package_name="fc-relink", prog_name="relink")
@click.pass_context
def relink(context: click.Context, config: str | None) -> None:
    """Find broken bank connections, get their customers asked to relink, and report what came back."""
    context.obj = config


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; the only place where an error becomes one."""
    disable_core_dumps()
    if arguments is None:
        open_closed_streams()
        install_excepthook()
        end_in_time()
        interrupt_again_where_ignored()
    interrupt_once()
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        # Not through click's own `main`, which hides which signal came, and where a pipe broke.
        with relink.make_context("relink", list(given)) as context:
            code = relink.invoke(context)
    except BaseException as error:
        return fail(error, asks_json="--json" in given)
    return code if isinstance(code, int) else 0
