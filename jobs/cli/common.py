"""What every command shares: its options, how errors end it, and how results are printed."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from traceback import walk_tb
from typing import TYPE_CHECKING, Any, TypeVar

import click

from jobs.signals import exit_code_of
from reconcile.errors import RelinkError, SettingsError

if TYPE_CHECKING:
    from jobs.adapters.database import Database
    from jobs.progress import Progress
    from jobs.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])


def config_option(command: F) -> F:
    """`--config` after the command, as well as before it."""
    return click.option(
        "--config", type=click.Path(), default=None, help="Settings file, if not given before the command."
    )(command)


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


@contextmanager
def records_of(settings: Settings) -> Iterator[Database]:
    """The job's records, to look at only: nothing is created, and where there is nothing yet they are empty.

    Raises:
        SchemaOutdated: the tables are of another version.
        DatabaseError: the database cannot be reached or trusted.
    """
    from jobs.adapters.database import open_database

    # Reading a large file through for damage is left to the commands that write, and to `relink doctor`.
    with open_database(settings.database.url, create=False, read_only=True, check=False) as database:
        database.ensure_schema(create_new=False)
        yield database


def log_under(settings: Settings) -> Callable[[str], None]:
    """What a run calls with its id, so that every line of its log carries it."""

    def name_run(run_id: str) -> None:
        from jobs.logs import configure_logging

        configure_logging(settings.log.format, settings.log.level, run_id)

    return name_run


def progress_for(as_json: bool) -> Progress:
    """Progress on a terminal, nothing elsewhere."""
    if as_json or not sys.stderr.isatty():
        from jobs.progress import Quiet

        return Quiet()
    from jobs.cli.terminal import TerminalProgress

    return TerminalProgress()


def print_json(value: Mapping[str, Any] | list[Any]) -> None:
    """One JSON value on stdout; times are ISO 8601 in UTC."""
    say(json.dumps(value, indent=2, sort_keys=True, default=_as_text, ensure_ascii=False))


def say(text: str) -> None:
    """A result on stdout. Whoever stops reading has seen enough: what the command did and its exit code stay as they are."""
    try:
        click.echo(text)
    except BrokenPipeError:
        silence_stdout()


def shown(text: str) -> str:
    """Text from outside as a person may see it: masked, and on one line."""
    from jobs.logs import one_line
    from reconcile.masking import mask

    return one_line(mask(text))


def require_printable(what: str, *texts: str) -> None:
    """Refuse what no id or name can be and some databases cannot hold: control characters and broken Unicode.

    Raises:
        SettingsError: naming the text, with such characters written out.
    """
    from jobs.logs import one_line
    from reconcile.masking import looks_sensitive

    for text in texts:
        if one_line(text) != text:
            raise SettingsError(f"{what}: {shown(text)} holds a control character; check where it was copied from")
        if looks_sensitive(text):
            raise SettingsError(
                f"{what}: {shown(text)} looks like an e-mail address, a link or a secret; give Stripe's id"
            )


def silence_stdout() -> None:
    """Drop whatever is still to be printed, so that Python does not stumble over it while it ends."""
    with open(os.devnull, "w") as nowhere:
        try:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        except (OSError, ValueError):  # stdout is no file, as under a test
            sys.stdout = io.StringIO()


def _as_text(value: object) -> str:
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else str(value)


def open_closed_streams() -> None:
    """Let what is said on a stream that was closed before the start go nowhere, as under `relink run 2>&-`.

    The lowest free descriptor is the closed stream's own, so that no file that is opened later (the database) gets what is meant for it.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115


def fail(error: BaseException, *, asks_json: bool = False) -> int:
    """Say what ended a command and return its exit code; a fault of ours shows its (masked) traceback."""
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, click.ClickException):
        # click repeats what was given, which may be a key that belongs elsewhere.
        text = shown(error.format_message())
        masked = (
            click.UsageError(text, error.ctx) if isinstance(error, click.UsageError) else click.ClickException(text)
        )
        with suppress(OSError):
            masked.show()
        return 2
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        _complain("interrupted")
        return exit_code_of(error) if isinstance(error, KeyboardInterrupt) else 130
    if isinstance(error, RelinkError):
        from reconcile.masking import mask

        text = mask(str(error))
        _complain(f"relink: {text}")
        if asks_json:
            print_json({"error": text, "exit_code": error.exit_code})
        return error.exit_code
    if isinstance(error, BrokenPipeError) and _came_from_printing(error):
        silence_stdout()
        return 0
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    from jobs.logs import print_masked_traceback

    print_masked_traceback(error)
    return 1


def _complain(text: str) -> None:
    """A line on stderr, if anybody still reads it; the exit code says it as well."""
    with suppress(OSError):
        click.echo(text, err=True)


def _came_from_printing(error: BrokenPipeError) -> bool:
    """Whether nobody reads stdout any more, rather than some other connection having broken."""
    return any(
        frame.f_code is click.echo.__code__ and not frame.f_locals["err"] for frame, _ in walk_tb(error.__traceback__)
    )
