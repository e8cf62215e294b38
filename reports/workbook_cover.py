"""Writes the workbook's first sheet: whether anything is wrong, what needs a person, what there is, and whether it ties."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from xlsxwriter.format import Format
from xlsxwriter.worksheet import Worksheet

from reports.columns import TABLES
from reports.page_model import Figure, Page
from reports.page_numbers import STATES
from reports.urgency import WORDS, Urgency
from reports.workbook_cells import CellValue, Formats, text_cell, write_cell

_STATE_URGENCY = {"complete": Urgency.GOOD, "dry": Urgency.WAITING}
_WIDTHS = (46, 30, 16, 70, 60)


@dataclass(frozen=True, slots=True)
class SheetNote:
    """What the cover says of a table's sheet: its rows in all, those that the sheet has, and those that need a person."""

    name: str
    rows: int
    rows_shown: int
    needing_person: int


class _Lines:
    """Writes one row after the other, since finished rows cannot be gone back to."""

    def __init__(self, sheet: Worksheet, formats: Formats) -> None:
        self.sheet = sheet
        self.formats = formats
        self.row = 0

    def add(self, *cells: CellValue | datetime, shown: Sequence[Format | None] = ()) -> None:
        """One row; `shown` are the formats of its cells, None or missing for the usual one."""
        for place, value in enumerate(cells):
            chosen = shown[place] if place < len(shown) else None
            if isinstance(value, datetime):
                self.sheet.write_datetime(self.row, place, value, self.formats.moment)
            elif isinstance(value, str) and chosen is not None:
                self.sheet.write_string(self.row, place, value, chosen)
            else:
                write_cell(self.sheet, self.row, place, value, self.formats, chosen or self.formats.count)
        self.row += 1

    def said(self, *texts: str | None, shown: Sequence[Format | None] = ()) -> None:
        """One row of texts from wherever they come."""
        self.add(*map(text_cell, texts), shown=shown)

    def section(self, title: str, *heads: str) -> None:
        """An empty row, a title, and the heads of the columns beside it."""
        self.row += 1
        self.add(title, *heads, shown=[self.formats.section] * (1 + len(heads)))


def write_cover(sheet: Worksheet, page: Page, sheets: Sequence[SheetNote], as_of: datetime, formats: Formats) -> None:
    """The whole cover; `as_of` is UTC without saying so, as a spreadsheet has it."""
    for place, width in enumerate(_WIDTHS):
        sheet.set_column(place, place, width)
    sheet.hide_gridlines(2)
    sheet.set_landscape()
    sheet.fit_to_pages(1, 0)
    lines = _Lines(sheet, formats)
    _write_run(lines, page, as_of)
    _write_needs(lines, page)
    _write_figures(lines, page)
    _write_merchants(lines, page)
    _write_sheets(lines, sheets)
    _write_control(lines, page)


def _write_run(lines: _Lines, page: Page, as_of: datetime) -> None:
    formats, run = lines.formats, page.run
    lines.add(f"relink report, business date {run['run_date']}", shown=[formats.title])
    state = formats.urgency[_STATE_URGENCY.get(page.state, Urgency.PERSON)]
    lines.add("state", STATES[page.state], shown=[formats.label, state])
    lines.add("Is anything wrong?", page.verdict, shown=[formats.label])
    for notice in page.notices:
        lines.said(notice.text, notice.detail, shown=[formats.urgency[Urgency.PERSON] if notice.bad else None])
    lines.section("the run")
    for label, value in (
        ("run id", run["run_id"]),
        ("business date", run["run_date"]),
        ("command", run["command"]),
        ("mode", run["mode"]),
        ("merchants", run["merchants"]),
    ):
        write_cell(lines.sheet, lines.row, 0, label, formats, formats.count)
        write_cell(lines.sheet, lines.row, 1, text_cell(value), formats, formats.count)
        lines.row += 1
    lines.add("as of", as_of)
    lines.add("requests that may have reached Stripe", int(run["sent"].replace(",", "")))


def _write_needs(lines: _Lines, page: Page) -> None:
    formats = lines.formats
    lines.section("what needs a person", "cases", "", "what to do", "command")
    if not page.needs:
        lines.add("nothing", shown=[formats.urgency[Urgency.GOOD]])
    for need in page.needs:
        command = need.command or (need.tasks[0].command if need.tasks else "")
        lines.add(
            text_cell(need.title),
            need.count.value,
            None,
            text_cell(need.sentence),
            text_cell(command),
        )


def _write_figures(lines: _Lines, page: Page) -> None:
    lines.section("in short", "", "", "")
    for key in page.keys:
        lines.add(key.label, *_shown(key.figures), None, text_cell(key.remark))


def _write_merchants(lines: _Lines, page: Page) -> None:
    """A line for each merchant and one for all, where there are several."""
    grid = page.grids.get("merchants")
    if grid is None:
        return
    lines.section("merchants", *(head.lower() for head in grid.head[1:]))
    for line in grid.lines:
        cells = [cell if isinstance(cell, str) else next(_shown(cell)) for cell in line.cells]
        lines.add(text_cell(line.label), *cells, shown=[lines.formats.label] if line.total else [])


def _shown(figures: Sequence[Figure]) -> Iterator[CellValue]:
    """Counts as numbers; money, which may be of several currencies, as the page writes it."""
    one = figures[0] if len(figures) == 1 else None
    if one is not None and isinstance(one.value, int) and one.text == f"{one.value:,}":
        yield one.value
    else:
        yield text_cell("; ".join(figure.text for figure in figures))


def _write_sheets(lines: _Lines, sheets: Sequence[SheetNote]) -> None:
    formats = lines.formats
    lines.section("sheets, what needs a person first", "rows", WORDS[Urgency.PERSON], "a row is")
    for note in sorted(sheets, key=lambda one: not one.needing_person):
        lines.sheet.write_url(lines.row, 0, f"internal:'{note.name}'!A1", formats.link, note.name)
        left_out = ""
        if note.rows_shown < note.rows:
            left_out = (
                f" Only the first {note.rows_shown:,} of {note.rows:,} rows are here, the most urgent. "
                f"{note.name}.csv and {note.name}.parquet have all."
            )
        red = formats.urgency[Urgency.PERSON] if note.needing_person else None
        lines.add(
            None,
            note.rows,
            note.needing_person,
            text_cell(f"{TABLES[note.name].row}.{left_out}"),
            shown=[None, None, red],
        )
    lines.sheet.write_url(lines.row, 0, "internal:'glossary'!A1", formats.link, "glossary")
    lines.add(None, None, None, "what every column and every value means")


def _write_control(lines: _Lines, page: Page) -> None:
    formats = lines.formats
    lines.section("control totals: counted in the files, and where it came from", "left", "right", "check")
    if not page.control.lines:
        lines.add("this run has none")
    for line in page.control.lines:
        left, right = (cell[0].value for cell in line.cells[:2] if not isinstance(cell, str))
        check = str(line.cells[2])
        painted = formats.urgency[Urgency.GOOD if check == "ties" else Urgency.PERSON]
        lines.add(text_cell(line.label), left, right, check, shown=[None, None, None, painted])
