"""What every command shares: its options, how errors end it, and how results are printed."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from jobs.signals import Terminated
from reconcile.errors import RelinkError

if TYPE_CHECKING:
    from jobs.progress import Progress
    from jobs.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])


def config_option(command: F) -> F:
    """`--config` after the command, as well as before it."""
    return click.option("--config", type=click.Path(), default=None, help="Settings file, if not given before the command.")(
        command
    )


def json_option(command: F) -> F:
    """`--json`: the result as one JSON value on stdout."""
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(command)


def settings_of(context: click.Context, config: str | None) -> Settings:
    """Load the settings that the command line names, and set logging up as they say.

    Raises:
        SettingsError: naming every fault at once.
    """
    from jobs.logs import configure_logging
    from jobs.settings import load_settings

    chosen = config or context.obj
    settings = load_settings(Path(chosen) if chosen else None, os.environ)
    configure_logging(settings.log.format, settings.log.level)
    return settings


def progress_for(as_json: bool) -> Progress:
    """Progress on a terminal, nothing elsewhere."""
    if as_json or not sys.stderr.isatty():
        from jobs.progress import Quiet

        return Quiet()
    from jobs.cli.terminal import TerminalProgress

    return TerminalProgress()


def print_json(value: Mapping[str, Any] | list[Any]) -> None:
    """One JSON value on stdout."""
    click.echo(json.dumps(value, indent=2, sort_keys=True, default=str, ensure_ascii=False))


def fail(error: BaseException, *, asks_json: bool = False) -> int:
    """Say what ended a command and return its exit code; a fault of ours shows its (masked) traceback."""
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, click.ClickException):
        error.show()
        return 2
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        code = 143 if isinstance(error, Terminated) else 130
        click.echo("interrupted", err=True)
        return code
    if isinstance(error, RelinkError):
        from reconcile.masking import mask

        text = mask(str(error))
        click.echo(f"relink: {text}", err=True)
        if asks_json:
            print_json({"error": text, "exit_code": error.exit_code})
        return error.exit_code
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    if isinstance(error, BrokenPipeError):
        # Whoever read the result has seen enough; nothing is lost but text.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        return 0
    from jobs.logs import print_masked_traceback

    print_masked_traceback(error)
    return 1
