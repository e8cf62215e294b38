"""Progress bars and tables for people at a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from jobs.cli.common import say, shown
from jobs.progress import Step


class _Bar:
    def __init__(self, bars: Bars, task: object) -> None:
        self._bars = bars
        self._task = task

    def advance(self, count: int = 1, total: int | None = None) -> None:
        """Move the bar."""
        self._bars.update(self._task, advance=count, **({} if total is None else {"total": total}))  # type: ignore[arg-type]


class TerminalProgress:
    """A bar with counts and time left for each long step, on stderr."""

    @contextmanager
    def step(self, name: str, total: int | None = None) -> Iterator[Step]:
        """Show one bar."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Bars(*columns, console=Console(stderr=True)) as bars:
            yield _Bar(bars, bars.add_task(name, total=total))


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table on stdout as wide as the terminal, or as its content where there is none; cells are plain text, never markup."""
    table = Table(title=title, title_justify="left", header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text("" if cell is None else shown(str(cell))) for cell in row))
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    # Printed by ourselves: rich ends the program with 1 where nobody reads its output any more.
    with console.capture() as captured:
        console.print(table)
    say(captured.get().rstrip("\n"))
