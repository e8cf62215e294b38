"""A sheet in which every text stands as it is, and that takes whole rows at once.

XlsxWriter makes the workbook; only the XML of a table's rows is made here (ECMA-376: sheetData), because cell by cell most of the time
that writing the formats takes went into checks that none of our cells needs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from xlsxwriter.format import Format
from xlsxwriter.utility import xl_col_to_name
from xlsxwriter.worksheet import Worksheet

from reports.workbook_cells import CellValue, Formats, Money, Runnable

_UNPRINTABLE = "[\x00-\x08\x0b-\x1f\ufffe\uffff]"
_NEEDS_ESCAPE = re.compile(f"{_UNPRINTABLE}|_(?=x[0-9A-Fa-f]{{1,4}}(?:_|{_UNPRINTABLE}))")
"""What has to be written as `_xHHHH_` (ECMA-376: ST_Xstring): what XML cannot hold, and an underscore with which such an escape would begin;
LibreOffice takes one of fewer digits for an escape, too."""

_SPECIAL = re.compile(f"[&<>]|{_NEEDS_ESCAPE.pattern}")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


class TextSheet(Worksheet):  # type: ignore[misc] # the package has no types
    """A sheet in which no text is read as an escape, as XML, or as anything but itself."""

    @staticmethod
    def _escape_control_characters(data: object) -> object:
        # Numbers of comments come here as well.
        return _NEEDS_ESCAPE.sub(_escape, data) if isinstance(data, str) else data

    def _xml_rich_inline_string(self, string: str, attributes: list[tuple[str, object]]) -> None:
        # What begins and ends like XlsxWriter's own finished XML is somebody's text: nothing here is written as rich text.
        self._xml_inline_string(string, True, attributes)

    def write_rows(
        self, first: int, columns: Sequence[Sequence[CellValue]], numbers: Sequence[Format], formats: Formats
    ) -> int:
        """Write rows below all that were written so far, and return the number of the next one.

        `columns` are the cells of each column, equally many; `numbers` say how each column's numbers are shown. The workbook has to be
        made with `constant_memory`.
        """
        last = first + len(columns[0]) - 1
        if last < first:
            return first
        self._check_dimensions(last, len(columns) - 1)
        # Whatever was begun is written out, and nothing is left to be written for these rows.
        self._write_single_row(last + 1)
        cells = [
            _cells_xml(xl_col_to_name(place), first + 1, values, shown, formats)
            for place, (values, shown) in enumerate(zip(columns, numbers, strict=True))
        ]
        rows = (
            f'<row r="{number}">{"".join(row)}</row>' for number, row in enumerate(zip(*cells, strict=True), first + 1)
        )
        self.row_data_fh.write("".join(rows))
        return last + 1


def _cells_xml(letters: str, first: int, values: Sequence[CellValue], number: Format, formats: Formats) -> list[str]:
    """Each cell of a column as XML; an empty one is none."""
    plain, runnable, shown = (one._get_xf_index() for one in (formats.text, formats.runnable, number))
    known: dict[str, str] = {}
    cells = []
    for row, value in enumerate(values, first):
        kind = type(value)
        if value is None:
            cells.append("")
        elif kind is str:
            text = known.get(value)  # type: ignore[arg-type] # it is a str
            if text is None:
                text = known[value] = _text_xml(value)  # type: ignore[index, arg-type]
            cells.append(f'<c r="{letters}{row}" s="{plain}" t="inlineStr">{text}</c>')
        elif isinstance(value, Runnable):
            cells.append(f'<c r="{letters}{row}" s="{runnable}" t="inlineStr">{_text_xml(value.text)}</c>')
        elif isinstance(value, Money):
            money = formats.money(value.currency)._get_xf_index()
            cells.append(f'<c r="{letters}{row}" s="{money}"><v>{value.amount:.16G}</v></c>')
        elif kind is bool:
            cells.append(f'<c r="{letters}{row}" t="b"><v>{value:d}</v></c>')
        else:
            cells.append(f'<c r="{letters}{row}" s="{shown}"><v>{value:.16G}</v></c>')
    return cells


def _text_xml(text: str) -> str:
    escaped = _SPECIAL.sub(_escape, text)
    space = ' xml:space="preserve"' if text[0].isspace() or text[-1].isspace() else ""
    return f"<is><t{space}>{escaped}</t></is>"


def _escape(found: re.Match[str]) -> str:
    return _ENTITIES.get(found[0]) or f"_x{ord(found[0]):04X}_"
