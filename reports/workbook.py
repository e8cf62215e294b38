"""Writes `report.xlsx`: a cover that says what the page's top says, a sheet for each table with what needs a person first, a glossary.

XlsxWriter keeps one row at a time and puts finished ones in files of the directory that it is given; nothing in the workbook depends on
the clock.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from xlsxwriter import Workbook
from xlsxwriter.utility import xl_rowcol_to_cell
from xlsxwriter.worksheet import Worksheet

from reports.closed_lists import CLOSED_LISTS
from reports.columns import TABLES
from reports.contract import DATE, TEXT, TEXTS, TIME, Column, TableContract, conform
from reports.glossary import about_column, entries
from reports.page_model import Page
from reports.urgency import URGENCIES, Urgency, most_urgent_first, needing_person
from reports.workbook_cells import Formats, cells_of, text_cell, write_cell
from reports.workbook_cover import SheetNote, write_cover
from reports.workbook_rows import TextSheet

WORKBOOK = "report.xlsx"
GLOSSARY = "glossary"
ROWS_PER_SHEET = 1_048_575
"""Rows below the header that a sheet holds (Microsoft: Excel specifications and limits)."""

ROWS_SHOWN = 100_000
"""Rows of a sheet, unless more need a person: writing a row costs a spreadsheet many times what it costs CSV, and nobody reads more."""

SHEETS = ("authorizations", "relink_requests", "relink_outcomes", "accounts", "account_successors", "failure_reasons")
"""The tables in the order of their sheets: who is in question, what was done, what came of it, then what there is in all."""

_ROWS_AT_ONCE = 4_096
_PIECE_BYTES = 1 << 20
_WIDEST = 44


@dataclass(frozen=True, slots=True)
class _Heading:
    """How a column is called in the workbook, and what its note says."""

    name: str
    note: str


def workbook_chunks(
    page: Page,
    tables: Mapping[str, pa.Table],
    as_of: datetime,
    directory: Path | None = None,
    rows_per_sheet: int = ROWS_PER_SHEET,
    rows_shown: int = ROWS_SHOWN,
) -> Iterator[bytes]:
    """The file's bytes, the same for the same report; `directory` is where rows wait, None for the system's own.

    A sheet has the first `rows_shown` rows, and more where more need a person, up to `rows_per_sheet`.
    """
    file = io.BytesIO()
    options = {
        "constant_memory": True,
        "use_zip64": True,
        "tmpdir": directory,
        **dict.fromkeys(("strings_to_formulas", "strings_to_urls", "strings_to_numbers"), False),
    }
    book = Workbook(file, options)
    moment = as_of.astimezone(UTC).replace(tzinfo=None)
    book.set_properties({"title": f"relink report {page.run['run_id']}", "created": moment})
    formats = Formats(book)
    cover = book.add_worksheet("cover", TextSheet)
    sheets = {name: book.add_worksheet(name, TextSheet) for name in SHEETS}
    notes = []
    for name in SHEETS:
        rows, urgent = tables[name].num_rows, needing_person(name, tables[name])
        notes.append(SheetNote(name, rows, min(rows, rows_per_sheet, max(rows_shown, urgent)), urgent))
    write_cover(cover, page, notes, moment, formats)
    for note in notes:
        _write_table(sheets[note.name], TABLES[note.name], tables[note.name], formats, note.rows_shown)
        sheets[note.name].set_tab_color("#C00000" if note.needing_person else "#1F3864")
    _write_glossary(book.add_worksheet(GLOSSARY, TextSheet), formats)
    book.close()
    view = file.getbuffer()
    for start in range(0, len(view), _PIECE_BYTES):
        yield bytes(view[start : start + _PIECE_BYTES])


def heading_of(column: Column) -> _Heading:
    """A column's name for people; its note says what it means and what may stand in it."""
    note = about_column(column)
    if column.values is not None and column.values in CLOSED_LISTS:
        note += f" One of: {', '.join(CLOSED_LISTS[column.values])}; see the glossary."
    if column.name == "exposure_minor":
        return _Heading("exposure", f"{column.meaning} In major units of the currency beside it.")
    if column.name == "exposure_by_currency":
        return _Heading(column.name, f"{column.meaning} In major units.")
    return _Heading(f"{column.name} (UTC)" if column.type == TIME else column.name, note)


def _write_table(sheet: TextSheet, contract: TableContract, table: pa.Table, formats: Formats, rows: int) -> None:
    ordered = most_urgent_first(conform(table, contract), contract).slice(0, rows)
    _dress(sheet, contract, ordered, formats)
    for place, column in enumerate(contract.columns):
        heading = heading_of(column)
        sheet.write_string(0, place, heading.name, formats.header)
        sheet.write_comment(0, place, heading.note, {"x_scale": 2.4, "y_scale": 1 + len(heading.note) / 160})
    shown = [formats.of_column(column) for column in contract.columns]
    row = 1
    for batch in ordered.to_batches(max_chunksize=_ROWS_AT_ONCE):
        row = sheet.write_rows(row, [cells_of(batch, column) for column in contract.columns], shown, formats)


def _dress(sheet: Worksheet, contract: TableContract, table: pa.Table, formats: Formats) -> None:
    """Widths, filter, frozen header, colours and how it prints."""
    last_row, last_column = table.num_rows, len(contract.columns) - 1
    for place, column in enumerate(contract.columns):
        sheet.set_column(place, place, _width(column, table[column.name]))
        if column.values is not None and column.values in URGENCIES and column.type == TEXT and last_row:
            cell = xl_rowcol_to_cell(1, place)
            for urgency in Urgency:
                words = [f'{cell}="{value}"' for value, one in URGENCIES[column.values].items() if one is urgency]
                if words:
                    rule = {
                        "type": "formula",
                        "criteria": f"=OR({','.join(words)})",
                        "format": formats.urgency[urgency],
                    }
                    sheet.conditional_format(1, place, last_row, place, rule)
    sheet.set_row(0, 32)
    sheet.freeze_panes(1, 2)
    sheet.autofilter(0, 0, last_row, last_column)
    sheet.ignore_errors({"number_stored_as_text": f"A1:{xl_rowcol_to_cell(max(last_row, 1), last_column)}"})
    sheet.set_landscape()
    sheet.repeat_rows(0)
    sheet.fit_to_pages(1, 0)


def _width(column: Column, values: pa.ChunkedArray) -> float:
    """Room for the heading with its filter, and for the longest value within reason."""
    heading = len(heading_of(column).name) * 0.6 + 4
    if column.type == TEXT:
        return min(max(heading, (pc.max(pc.utf8_length(values)).as_py() or 0) + 2), _WIDEST)
    if column.type == TEXTS:
        return max(heading, 28)
    return max(heading, {DATE: 12, TIME: 20}.get(column.type, 18 if column.name == "exposure_minor" else 10))


def _write_glossary(sheet: Worksheet, formats: Formats) -> None:
    for place, (name, width) in enumerate((("where", 22), ("word", 28), ("meaning", 110))):
        sheet.write_string(0, place, name, formats.header)
        sheet.set_column(place, place, width)
    row = 0
    for row, entry in enumerate(entries(), start=1):
        for place, text in enumerate((entry.where, entry.term, entry.meaning)):
            write_cell(sheet, row, place, text_cell(text), formats, formats.whole)
    sheet.freeze_panes(1, 0)
    sheet.autofilter(0, 0, row, 2)
