"""Reads a page as a person or a program that knows nothing of the code would: its tables, its figures, its tags."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "link", "br", "img", "hr", "input"}


@dataclass
class Seen:
    """One element that was opened, with its attributes."""

    tag: str
    attributes: dict[str, str | None]


@dataclass
class Read(HTMLParser):
    """What a page holds. `figures` are (table, row, name) to value; `row` is the row's words without its figures."""

    elements: list[Seen] = field(default_factory=list)
    figures: dict[tuple[str, str, str], float | None] = field(default_factory=dict)
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._open: list[Seen] = []
        self._row: list[str] = []
        self._row_figures: list[tuple[str, float | None]] = []
        self._number = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        seen = Seen(tag, dict(attrs))
        self.elements.append(seen)
        if tag not in VOID:
            self._open.append(seen)
        name = seen.attributes.get("data-figure")
        if name:
            value = seen.attributes.get("value")
            self._row_figures.append((name, None if value is None else float(value)))
        if tag == "tr":
            self._flush()

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop().tag != tag:
            pass
        if tag in ("tr", "dl", "h3"):
            self._flush()

    def handle_data(self, data: str) -> None:
        tags = [one.tag for one in self._open]
        if "style" in tags:
            return
        self.text += data
        in_cell = any(tag in ("td", "th") for tag in tags)
        hidden = any(
            "data-figure" in one.attributes or one.attributes.get("class") in ("meaning", "hidden")
            for one in self._open
        )
        if in_cell and not hidden and data.strip():
            self._row.append(data.strip())

    def _flush(self) -> None:
        table = next((one.attributes.get("id") or "" for one in reversed(self._open) if one.tag == "table"), "")
        for name, value in self._row_figures:
            self.figures[table.removesuffix("-rest"), " | ".join(self._row), name] = value
        self._row, self._row_figures = [], []


def read_page(html: str) -> Read:
    """Parse a page, or a part of one."""
    reader = Read()
    reader.feed(html)
    reader.close()
    reader._flush()
    return reader
