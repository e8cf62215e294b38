"""`relink demo`: several nights of the real job, told to a person who has never seen it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jobs.cli.common import json_option, print_json, say

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

    from jobs.demo import Demo, DemoNight
    from jobs.progress import Progress, Step

_FAULTS = {
    "rate_limit": "rate limits (429)",
    "reset_after": "connection lost after Stripe had acted",
    "error_500_before": "internal error (500)",
}


@click.command()
@click.option("--accounts", type=click.IntRange(min=20), default=2000, show_default=True, help="Bank accounts.")
@click.option("--nights", type=click.IntRange(1, 90), default=5, show_default=True, help="Nights, a day apart.")
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("demo"),
    show_default=True,
    help="A directory for it all: new, empty, or of an earlier demo, which is replaced.",
)
@json_option
def demo(accounts: int, nights: int, directory: Path, as_json: bool) -> int:
    """Run the real job for several simulated nights against a stand-in for Stripe on this machine.

    Needs no key, no network and no settings. Exits 0 when every night did what it should.
    """
    from jobs.demo import Demo
    from jobs.demo_directory import prepare

    shown = Demo(prepare(directory), accounts, _progress(as_json))
    told: list[DemoNight] = []
    with _logging_to(shown.directory.log):
        if not as_json:
            _tell_beginning(shown, directory, nights)
        for night in shown.play(nights):
            told.append(night)
            if not as_json:
                _tell_night(night)
    exit_code = 1 if any(night.unexpected for night in told) else 0
    if as_json:
        print_json(_as_plain(shown, told, exit_code))
    else:
        _tell_end(shown, told, directory)
    return exit_code


class _Bar:
    def __init__(self, bars: Bars, name: str, total: int | None) -> None:
        self._bars = bars
        self._task = bars.add_task(name, total=total)

    def advance(self, count: int = 1, total: int | None = None) -> None:
        """Move the bar; where more came than was expected, that is the total."""
        task = self._bars.tasks[0]
        known = task.total if total is None else total
        done = task.completed + count
        self._bars.update(self._task, completed=done, total=None if known is None else max(known, done))


class _PassingBars:
    """A bar for each long step that is gone when the step is: what stays is the story of the nights."""

    @contextmanager
    def step(self, name: str, total: int | None = None) -> Iterator[Step]:
        """Show one bar."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
            yield _Bar(bars, name, total)


def _progress(as_json: bool) -> Progress:
    from jobs.progress import Quiet

    return Quiet() if as_json or not sys.stderr.isatty() else _PassingBars()


@contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    """Keep what the job logs beside its database, so that a demo shows results and not log lines."""
    from jobs.logs import configure_logging

    with path.open("a", encoding="utf-8") as stream:
        configure_logging("text", "info", stream=stream)
        try:
            yield
        finally:
            configure_logging("auto", "warning")


def _tell_beginning(shown: Demo, directory: Path, nights: int) -> None:
    say(
        f"{shown.accounts:,} bank accounts of {shown.customers:,} customers at a stand-in for Stripe on this machine, and a "
        f"merchant's ledger of {shown.ledger_rows:,} rows."
    )
    say(
        f"{nights} nights of the real job follow, a day apart by a simulated clock; customers answer in between. "
        f"It all lies in {directory}/.\n"
    )


def _tell_night(night: DemoNight) -> None:
    answers = sum(
        count
        for outcome, count in night.outcomes.items()
        if outcome in ("relinked", "relinked_partially", "new_authorization")
    )
    say(
        f"night {night.number}, {night.run_date}: {night.affected} of {night.accounts:,} accounts need their customer, "
        f"{night.requests} requests, {answers} relinked ({night.seconds:.1f} s)"
    )
    if night.would_request is not None:
        say(f"  before it, a dry run: it would make {night.would_request} requests; nothing was sent or recorded")
        trouble = [f"{count} x {_FAULTS.get(kind, kind)}" for kind, count in night.faults.items()]
        if night.customer_deleted:
            trouble.append("a customer deleted at Stripe")
        say(f"  in it, trouble made on purpose: {', '.join(trouble) or 'none, nobody had to be asked'}")
    if night.retries:
        say(f"  {night.retries} calls were repeated, each write under its own idempotency key: nobody was asked twice")
    if night.unfinished:
        say(f"  exit code {night.exit_code}: the night is finished, but {_unfinished(night)}; a person should look")
    if night.posts_of_second_run is not None:
        say(f"  at once again: the night is finished already, {night.posts_of_second_run} requests sent")
    for problem in night.unexpected:
        say(f"  NOT AS IT SHOULD BE: {problem}")


def _unfinished(night: DemoNight) -> str:
    meanings = {
        "rejected": "was rejected by Stripe",
        "unknown": "is unknown (Stripe may have made it, so it was not tried under another key)",
        "not_sent": "was not sent",
    }
    return ", ".join(f"{night.results[name]} {meaning}" for name, meaning in meanings.items() if night.results[name])


def _tell_end(shown: Demo, told: Sequence[DemoNight], directory: Path) -> None:
    from jobs.cli.terminal import print_table

    say("")
    print_table("Night by night", ["", *(f"{night.run_date:%d %b}" for night in told)], _rows(told))
    reports, relink = directory / "reports", f"{_own_name()} --config {directory / 'config.yaml'}"
    say(f"\nReports: {reports}/, one directory a night. Open first, in {reports / 'latest'}/:")
    say("  index.html           the night on one page")
    say("  authorizations.csv   whom to ask, about what, and what comes next")
    say("  relink_outcomes.csv  what came of the requests")
    say("  failure_reasons.csv  where and why relinking fails")
    say(f"What the job logged: {directory / 'var' / shown.directory.log.name}")
    say("\nLook further, without any network:")
    say(f"  {relink} status")
    if shown.example_id is not None:
        say(f"  {relink} history {shown.example_id}")
    troubled = [f"night {night.number}" for night in told if night.unexpected]
    say(
        f"\nNOT AS IT SHOULD BE: {', '.join(troubled)}; see above." if troubled else "\nEvery night did what it should."
    )


def _rows(told: Sequence[DemoNight]) -> Iterator[list[str]]:
    """One row a measure, one column a night; measures that are zero in every night are left out, save the plain totals."""

    def row(title: str, value: Callable[[DemoNight], int]) -> list[str]:
        return [title, *(f"{value(night):,}" for night in told)]

    def rows_of(titles: Mapping[str, str], values: Callable[[DemoNight], Mapping[str, int]]) -> Iterator[list[str]]:
        for name, title in titles.items():
            if any(values(night).get(name) for night in told):
                yield row(title, lambda night, name=name: values(night).get(name, 0))  # type: ignore[misc]

    def named(values: Callable[[DemoNight], Mapping[str, int]]) -> list[str]:
        return sorted({name for night in told for name in values(night)})

    yield row("accounts", lambda night: night.accounts)
    yield row("affected", lambda night: night.affected)
    yield from rows_of(
        {
            "inactive": "  inactive",
            "expiring": "  expiring soon",
            "account_number": "  account number expired",
            "permissions": "  permission missing",
        },
        lambda night: night.findings,
    )
    for currency in named(lambda night: night.money_at_stake_minor):
        yield [
            f"at stake, {currency.upper()}",
            *(_amount(night.money_at_stake_minor.get(currency, 0)) for night in told),
        ]
    yield row("requests", lambda night: night.requests)
    yield from rows_of(
        {name: f"  {name.replace('_', ' ')}" for name in ("rejected", "unknown", "not_sent")},
        lambda night: night.results,
    )
    yield from rows_of(
        {
            "relinked": "relinked",
            "relinked_partially": "relinked partially",
            "new_authorization": "new authorization",
            "failed": "failed",
        },
        lambda night: night.outcomes,
    )
    reasons = named(lambda night: night.failed_by_reason)
    yield from rows_of({name: f"  {name}" for name in reasons}, lambda night: night.failed_by_reason)
    yield from rows_of(
        {name: name for name in ("cancelled", "healed", "expired", "review")}, lambda night: night.outcomes
    )
    yield row("no answer yet", lambda night: night.outcomes.get("pending", 0))
    yield row("reads", lambda night: night.reads)
    yield row("writes", lambda night: night.writes)
    yield row("repeated calls", lambda night: night.retries)
    yield row("exit code", lambda night: night.exit_code)


def _amount(minor: int) -> str:
    """Whole units of money; the stand-in's ledger has none but currencies of two decimals."""
    return f"{minor // 100:,}"


def _own_name() -> str:
    """How this command was called, so that what is printed can be typed."""
    import os
    import shutil

    called = Path(sys.argv[0])
    found = shutil.which("relink")
    if called.name != "relink" or (found is not None and os.path.realpath(found) == os.path.realpath(called)):
        return "relink"
    return os.path.relpath(called)


def _as_plain(shown: Demo, told: Sequence[DemoNight], exit_code: int) -> dict[str, Any]:
    """The demo as JSON values; run and report are those of the last night."""
    return {
        "run_id": told[-1].run_id,
        "report_directory": told[-1].report_directory,
        "directory": shown.directory.path,
        "config": shown.directory.config,
        "accounts": shown.accounts,
        "ledger_rows": shown.ledger_rows,
        "example_authorization_id": shown.example_id,
        "exit_code": exit_code,
        "nights": [{**asdict(night), "affected": night.affected, "requests": night.requests} for night in told],
    }
