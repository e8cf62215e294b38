"""Renders a run's page: one self-contained HTML file, its top part as the body of a mail, and a copy for people outside.

Everything that comes from outside is escaped by Jinja; nothing on the page runs or is fetched, and its own policy forbids both.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from reports.closed_lists import ALL_LISTS
from reports.glossary import TERMS, about_value
from reports.page_model import SMALLEST_GROUP, Grid, Page
from reports.page_numbers import STATES, page_numbers, redacted
from reports.past_nights import Past, read_past

PAGE = "index.html"
OPENLY_LISTED = 5
"""Cases of one kind that are seen before the rest is unfolded."""

LISTS = ("finding", "next_step", "outcome", "result", "cause", "failure_reason")
"""Lists whose values stand in the page's glossary."""


def page_html(page: Page) -> str:
    """The whole page, the same bytes for the same numbers."""
    return _render("page.html.j2", page)


def mail_body(page: Page) -> str:
    """The top of the page as a fragment for a mail: banner, key figures and what waits for a person.

    Styles are inline, there is no drawing, and nothing in it names a customer, a login, an account or a session.
    """
    return _render("mail.html.j2", redacted(page))


def page_of(root: Path, summary: Mapping[str, Any], tables: Mapping[str, pa.Table] | None) -> Page:
    """The numbers of a run, with those of the reports below `root` that were there before it."""
    return page_numbers(summary, tables, past_before(root, summary))


def past_before(root: Path, summary: Mapping[str, Any]) -> Past:
    """What the reports below `root` say that were there before a run."""
    return read_past(root, summary["run_id"], date.fromisoformat(summary["run_date"]), summary["command"])


def _render(template: str, page: Page) -> str:
    return (
        _environment()
        .get_template(template)
        .render(
            page=page,
            state_name=STATES[page.state],
            ties=all(line.cells[-1] == "ties" for line in page.control.lines),
            key_sources=[(key.label, key.rows) for key in page.keys],
            smallest=SMALLEST_GROUP,
            listed=OPENLY_LISTED,
            terms=TERMS.items(),
            lists=[(name, ALL_LISTS[name]) for name in LISTS],
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(day=_day, words=_words, meaning=_meaning, is_number=_is_number)
    environment.filters.update(coded=_coded, drawing=Markup)
    return environment


def _day(text: str) -> str:
    on = date.fromisoformat(text)
    return f"{on.day} {on:%B} {on.year}"


def _words(text: str) -> str:
    """Words from outside without the characters that no page may hold."""
    return "".join(" " if unicodedata.category(each) in ("Cc", "Cs") else each for each in text)


def _coded(text: str) -> Markup:
    """A sentence of ours, with what stands between backticks set as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped just before


def _meaning(text: str, name: str) -> str | None:
    return about_value(name, text) if name else None


def _is_number(grid: Grid, column: int) -> bool:
    """Whether a column of a grid holds figures; its first column never does."""
    return column > 0 and any(not isinstance(line.cells[column - 1], str) for line in grid.lines)
