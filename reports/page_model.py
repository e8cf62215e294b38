"""What the page is made of: figures with their values, in grids, with the rows that they count."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from reports.money import money_text

SMALLEST_GROUP = 5
"""Rates and times of fewer requests or accounts than this are not shown: they say more about single customers than about a bank."""

NOT_SHOWN = "\N{EN DASH}"


@dataclass(frozen=True, slots=True)
class Figure:
    """One number: its name on the page, its exact value (None where it is not shown) and how it is written."""

    name: str
    value: int | float | None
    text: str


Cell = str | tuple[Figure, ...]


@dataclass(frozen=True, slots=True)
class Line:
    """One row of a grid: what it is about, its cells, and what its label means where that needs a sentence."""

    label: str
    cells: tuple[Cell, ...]
    meaning: str = ""
    total: bool = False


@dataclass(frozen=True, slots=True)
class Grid:
    """One table of the page. `sources` say for each column, or group of columns, which rows of which file it counts.

    The lines after the first `shown` are folded away.
    """

    name: str
    caption: str
    head: tuple[str, ...]
    lines: tuple[Line, ...]
    sources: tuple[tuple[str, str], ...]
    shown: int | None = None
    empty: str = "None."

    @property
    def first(self) -> tuple[Line, ...]:
        """The lines that are always seen: the uppermost and the total."""
        return self.lines[: self.shown] + tuple(line for line in self.rest_of_all if line.total)

    @property
    def rest(self) -> tuple[Line, ...]:
        """The lines that are folded away."""
        return tuple(line for line in self.rest_of_all if not line.total)

    @property
    def rest_of_all(self) -> tuple[Line, ...]:
        """Everything after the first `shown` lines."""
        return () if self.shown is None else self.lines[self.shown :]


@dataclass(frozen=True, slots=True)
class KeyFigure:
    """One of the few numbers at the top: what it is, its figures, a short remark, and the rows that it counts."""

    label: str
    figures: tuple[Figure, ...]
    remark: str
    rows: str


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing to know about the run itself; `bad` where it is wrong rather than merely worth knowing."""

    text: str
    bad: bool = True
    command: str = ""
    detail: str = ""
    """Words from outside the job, which may name a customer: left out where the page is shared."""


@dataclass(frozen=True, slots=True)
class Task:
    """One case for a person: whom it is about, why, and the command that goes on with it."""

    subject: str
    sentence: str
    command: str


@dataclass(frozen=True, slots=True)
class Need:
    """All cases of one kind that wait for a person, the first of them in full."""

    name: str
    title: str
    sentence: str
    count: Figure
    rows: str
    tasks: tuple[Task, ...] = ()
    command: str = ""

    @property
    def files(self) -> str:
        """The tables that hold all of them, by name."""
        return ", ".join(dict.fromkeys(re.findall(r"(\w+)\.parquet", self.rows)))


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawing as SVG, and in words what it shows."""

    svg: str
    words: str


@dataclass(frozen=True, slots=True)
class CalendarDay:
    """One day of the calendar; `figure` is None before the first and after the last day that it covers."""

    date: str
    day: str
    figure: Figure | None


@dataclass(frozen=True, slots=True)
class Page:
    """Everything on the page, in the order of its questions."""

    run: Mapping[str, str]
    state: str
    verdict: str
    notices: tuple[Notice, ...]
    keys: tuple[KeyFigure, ...]
    control: Grid
    needs: tuple[Need, ...] = ()
    grids: Mapping[str, Grid] = field(default_factory=dict)
    calendar: Sequence[tuple[str, Sequence[CalendarDay], Cell]] = ()
    pictures: Mapping[str, Picture] = field(default_factory=dict)
    redacted: bool = False

    @property
    def waiting(self) -> int:
        """How many cases wait for a person."""
        return sum(int(need.count.value or 0) for need in self.needs)


def count(name: str, number: int) -> Figure:
    """A whole number."""
    return Figure(name, number, f"{number:,}")


def rate(name: str, part: int, whole: int) -> Figure:
    """A share in percent, unless the whole is too small a group to show one."""
    if whole < SMALLEST_GROUP:
        return Figure(name, None, NOT_SHOWN)
    return Figure(name, round(part / whole, 6), f"{part / whole:.1%}")


def money(name: str, amounts: Mapping[str, int]) -> tuple[Figure, ...]:
    """An amount of each currency, never added up; `name` is followed by the currency's code."""
    return tuple(
        Figure(f"{name}.{currency}", amount, money_text(amount, currency))
        for currency, amount in sorted(amounts.items())
    )


def quoted(values: Iterable[object]) -> str:
    """The values as a list in SQL, for saying which rows are counted."""
    return "(" + ", ".join(f"'{value}'" for value in values) + ")"


def plural(number: int, one: str, many: str = "") -> str:
    """A number with its noun."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
