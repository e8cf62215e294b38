"""Draws the page's pictures as SVG whose colours the page chooses, so that they follow its light and dark dress."""

from __future__ import annotations

import io
import re
import unicodedata
import warnings
from collections.abc import Callable, Sequence
from datetime import date
from math import nan
from typing import TYPE_CHECKING

from reports.page_model import Grid, Line, Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SERIES = tuple(f"#a1b2{number:02x}" for number in range(1, 9))
"""Stand-ins for the page's series colours `--series-1` to `--series-8`."""

INK, SOFT, LINE = "#a1b3f1", "#a1b3f2", "#a1b3f3"
"""Stand-ins for `--ink`, `--soft` and `--line`."""

_VARIABLES = {
    **{color: f"var(--series-{number})" for number, color in enumerate(SERIES, start=1)},
    INK: "var(--ink)",
    SOFT: "var(--soft)",
    LINE: "var(--line)",
}
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "relink",
    "font.family": ["DejaVu Sans"],
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": SOFT,
    "xtick.color": SOFT,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.spines.bottom": False,
    "text.parse_math": False,
    "legend.frameon": False,
    "axes.unicode_minus": False,
}
WIDTH_INCHES = 7.6
LABEL_CHARACTERS = 24
BARS = 12


def stacked(name: str, grid: Grid, columns: Sequence[str], colors: Sequence[int], words: str) -> Picture | None:
    """A horizontal bar for each line, made of the given columns; None where there is nothing to draw.

    `colors` are the numbers of the page's series colours, one for each column.
    """
    lines = [line for line in grid.lines if not line.total][:BARS]
    places = [grid.head.index(column) - 1 for column in columns]
    used = [n for n, place in enumerate(places) if any(_value(line, place) for line in lines)]
    if not lines or not used:
        return None

    def draw(axes: Axes) -> None:
        starts = [0.0] * len(lines)
        for n in used:
            values = [_value(line, places[n]) for line in lines]
            axes.barh(
                range(len(lines)), values, left=starts, height=0.62, color=SERIES[colors[n] - 1], label=columns[n]
            )
            starts = [start + value for start, value in zip(starts, values, strict=True)]
        for row, total in enumerate(starts):
            axes.text(total, row, f"\N{NO-BREAK SPACE}{total:,.0f}", va="center", ha="left", color=INK)
        axes.set_yticks(range(len(lines)), [label(line.label) for line in lines])
        axes.set_xlim(0, max(starts) * 1.12 or 1)
        axes.set_ylim(len(lines) - 0.5, -0.5)
        axes.legend(loc="lower left", bbox_to_anchor=(-0.36, 1.0), ncols=4, handlelength=0.9, columnspacing=1.4)

    return Picture(_svg(name, 0.75 + 0.27 * len(lines), draw, top_inches=0.3 + 0.2 * ((len(used) + 3) // 4)), words)


def bars(name: str, grid: Grid, color: int, words: str) -> Picture | None:
    """A horizontal bar for each line that has a number in the first column."""
    lines = [line for line in grid.lines if not line.total and not isinstance(line.cells[0], str)]
    if not any(_value(line, 0) for line in lines):
        return None

    def draw(axes: Axes) -> None:
        values = [_value(line, 0) for line in lines]
        axes.barh(range(len(lines)), values, height=0.62, color=SERIES[color - 1])
        for row, value in enumerate(values):
            axes.text(value, row, f"\N{NO-BREAK SPACE}{value:,.0f}", va="center", ha="left", color=INK)
        axes.set_yticks(range(len(lines)), [label(line.label) for line in lines])
        axes.set_xlim(0, max(values) * 1.12)
        axes.set_ylim(len(lines) - 0.5, -0.5)

    return Picture(_svg(name, 0.3 + 0.27 * len(lines), draw), words)


def trend(name: str, grid: Grid, words: str) -> Picture | None:
    """Broken accounts, sessions created and requests that came back of each date; None before the second date that has any.

    A line is broken where a date has no number.
    """
    lines = sorted((line for line in grid.lines if not line.total), key=lambda line: line.label)
    drawn = (("Broken accounts", 1), ("Sessions created", 4), ("Came back", 2))
    places = {column: grid.head.index(column) - 1 for column, _ in drawn}
    if (
        sum(
            any(line.cells[place] and not isinstance(line.cells[place], str) for place in places.values())
            for line in lines
        )
        < 2
    ):
        return None
    from matplotlib.ticker import MaxNLocator

    days = [float(date.fromisoformat(line.label).toordinal()) for line in lines]

    def draw(axes: Axes) -> None:
        for column, color in drawn:
            values = [
                nan if isinstance(line.cells[places[column]], str) else _value(line, places[column]) for line in lines
            ]
            axes.plot(
                days, values, color=SERIES[color - 1], linewidth=1.8, marker="o", markersize=3, label=column.lower()
            )
        step = max(1, len(days) // 8)
        axes.set_xticks(days[::step], [line.label[5:] for line in lines[::step]])
        axes.set_xlim(days[0] - 0.5, days[-1] + 0.5)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        axes.grid(axis="y", color=LINE, linewidth=0.6)
        axes.tick_params(axis="y", colors=SOFT)
        axes.legend(loc="lower left", bbox_to_anchor=(-0.1, 1.0), ncols=3, handlelength=1.2)

    return Picture(_svg(name, 2.7, draw, left=0.09, top_inches=0.35, keep_x=True), words)


def _value(line: Line, place: int) -> float:
    cell = line.cells[place]
    return 0.0 if isinstance(cell, str) or not cell else float(cell[0].value or 0)


def label(text: str) -> str:
    """A name as a picture can bear it: short, and without characters that no text may hold."""
    plain = "".join(" " if unicodedata.category(each)[0] == "C" else each for each in text)
    return plain if len(plain) <= LABEL_CHARACTERS else plain[: LABEL_CHARACTERS - 1] + "…"


def _svg(
    name: str,
    height_inches: float,
    draw: Callable[[Axes], None],
    *,
    left: float = 0.26,
    top_inches: float = 0.1,
    keep_x: bool = False,
) -> str:
    # Imported here: it takes about a second, which a run that writes no page need not spend.
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():  # type: ignore[arg-type]
        warnings.simplefilter(
            "ignore"
        )  # a letter that the measuring font lacks; the reader's browser has its own fonts
        figure = Figure(figsize=(WIDTH_INCHES, height_inches), facecolor="none")
        FigureCanvasSVG(figure)
        bottom = 0.28 if keep_x else 0.06
        height = 1 - (top_inches + bottom) / height_inches
        axes = figure.add_axes((left, bottom / height_inches, 0.98 - left, height), facecolor="none")
        axes.tick_params(length=0)
        if not keep_x:
            axes.set_xticks([])
        draw(axes)
        if not keep_x:
            axes.set_xticks([])
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    return _inlined(name, buffer.getvalue())


def _inlined(name: str, svg: str) -> str:
    """The drawing as a part of the page: no header, its own ids, colours by name, decoration hidden from screen readers."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(xlink:href="|url\()#', rf"\1#{name}-", svg)
    view = re.search(r'viewBox="[^"]*"', svg)
    assert view is not None
    svg = re.sub(
        r"<svg[^>]*>",
        f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" {view[0]} aria-hidden="true" focusable="false">',
        svg,
        count=1,
    )
    for color, variable in _VARIABLES.items():
        svg = svg.replace(color, variable)
    return svg.strip()
