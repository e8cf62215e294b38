"""Turns a table's columns into cells as a spreadsheet should hold them: real dates and numbers, ids as text, money in major units.

A spreadsheet's number has 15 certain digits and its dates begin in March 1900 (before that programs disagree): whatever does not
fit is written as text rather than changed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from math import isfinite

import pyarrow as pa
import pyarrow.compute as pc
from xlsxwriter import Workbook
from xlsxwriter.format import Format
from xlsxwriter.worksheet import Worksheet

from reports.contract import DATE, TEXT, TEXTS, TIME, Column
from reports.csv_files import RUNNABLE
from reports.money import exponent, major_units, money_text
from reports.urgency import Urgency

MOST_CHARACTERS = 32_767
"""UTF-16 units that a cell holds (Microsoft: Excel specifications and limits)."""

CUT = " [cut: the CSV and Parquet files have all of it]"
LARGEST_WHOLE = 10**15 - 1

_EPOCH_SERIAL = 25_569
_FIRST_SERIAL, _LAST_SERIAL = 61, 2_958_465
_DAY_MICROSECONDS = 86_400_000_000
_CURRENCY_CODE = re.compile(r"[A-Z]{3}")


@dataclass(frozen=True, slots=True)
class Runnable:
    """A text that a spreadsheet would run if it were typed in."""

    text: str


@dataclass(frozen=True, slots=True)
class Money:
    """An amount in major units, and the currency whose decimals it is shown with."""

    amount: float
    currency: str


CellValue = str | int | float | bool | Runnable | Money | None

COLOURS: Mapping[Urgency, tuple[str, str]] = {
    Urgency.PERSON: ("#9C0006", "#FFC7CE"),
    Urgency.LOST: ("#7F3F00", "#FCE4D6"),
    Urgency.WAITING: ("#1F3864", "#DDEBF7"),
    Urgency.LEFT_ALONE: ("#404040", "#EDEDED"),
    Urgency.GOOD: ("#006100", "#C6EFCE"),
}
"""Letters and ground of each urgency; the word in the cell says the same."""


class Formats:
    """The formats of one workbook, each made once."""

    def __init__(self, book: Workbook) -> None:
        self._book = book
        self._money: dict[str, Format] = {}
        self.text = book.add_format({"num_format": "@"})
        self.runnable = book.add_format({"num_format": "@", "quote_prefix": True})
        self.whole = book.add_format({"num_format": "0"})
        self.date = book.add_format({"num_format": "yyyy-mm-dd"})
        self.time = book.add_format({"num_format": "yyyy-mm-dd hh:mm:ss"})
        self.header = book.add_format(
            {"bold": True, "bg_color": "#1F3864", "font_color": "#FFFFFF", "text_wrap": True, "valign": "top"}
        )
        self.title = book.add_format({"bold": True, "font_size": 16})
        self.section = book.add_format({"bold": True, "font_size": 12, "bottom": 1})
        self.label = book.add_format({"bold": True, "valign": "top"})
        self.wrapped = book.add_format({"num_format": "@", "text_wrap": True, "valign": "top"})
        self.count = book.add_format({"num_format": "#,##0", "valign": "top", "align": "left"})
        self.moment = book.add_format({"num_format": 'yyyy-mm-dd hh:mm:ss "UTC"', "align": "left"})
        self.link = book.add_format({"font_color": "#0563C1", "underline": 1, "valign": "top"})
        self.urgency = {
            urgency: book.add_format({"font_color": letters, "bg_color": ground})
            for urgency, (letters, ground) in COLOURS.items()
        }
        self._of_column = {
            "share": book.add_format({"num_format": "0.0%"}),
            "hours_to_outcome": book.add_format({"num_format": "0.00"}),
        }

    def of_column(self, column: Column) -> Format:
        """How a column's numbers are shown."""
        if column.type in (DATE, TIME):
            return self.date if column.type == DATE else self.time
        return self._of_column.get(column.name, self.whole)

    def money(self, currency: str) -> Format:
        """An amount with the decimals of its currency and, where it is a plain code, the code."""
        if currency not in self._money:
            decimals = exponent(currency)
            digits = "#,##0" + ("." + "0" * decimals if decimals else "")
            # Only letters: a code is data, and must not become part of a number format's own signs.
            code = f' "{currency}"' if _CURRENCY_CODE.fullmatch(currency) else ""
            self._money[currency] = self._book.add_format({"num_format": digits + code})
        return self._money[currency]


def cells_of(batch: pa.RecordBatch, column: Column) -> list[CellValue]:
    """One column's cells, in order; None for an empty one."""
    array = batch.column(column.name)
    if column.name == "exposure_minor":
        return _amounts(array, batch.column("currency"))
    if column.name == "exposure_by_currency":
        return _texts(pa.array([_money_texts(amounts) for amounts in array.to_pylist()], type=TEXT))
    if array.type == TEXTS:
        return _texts(pc.binary_join(array, "; "))
    if array.type == TEXT:
        return _texts(array)
    if array.type == DATE:
        return [_serial(days, None) for days in array.cast(pa.int32()).to_pylist()]
    if array.type == TIME:
        return [_serial(None, microseconds) for microseconds in array.cast(pa.int64()).to_pylist()]
    return [_number(value) for value in array.to_pylist()]


def write_cell(sheet: Worksheet, row: int, column: int, value: CellValue, formats: Formats, number: Format) -> None:
    """Write one cell; `number` is how a plain number is shown. Nothing is ever taken for a formula, a link or a number."""
    kind = type(value)
    if value is None:
        return
    if kind is str:
        sheet.write_string(row, column, value, formats.text)
    elif isinstance(value, Runnable):
        sheet.write_string(row, column, value.text, formats.runnable)
    elif isinstance(value, Money):
        sheet.write_number(row, column, value.amount, formats.money(value.currency))
    elif isinstance(value, bool):
        sheet.write_boolean(row, column, value)
    else:
        sheet.write_number(row, column, value, number)


def text_cell(text: str | None) -> CellValue:
    """One text as a cell."""
    return _texts(pa.array([text], type=TEXT))[0]


def _texts(texts: pa.Array) -> list[CellValue]:
    """Texts as they are, but for those too long, which end with a remark, and those that would run. No text is an empty cell."""
    runnable = pc.match_substring_regex(texts, RUNNABLE)
    odd = pc.or_(runnable, pc.greater(pc.binary_length(texts), MOST_CHARACTERS))
    values: list[CellValue] = [text or None for text in texts.to_pylist()]
    for place in pc.indices_nonzero(pc.fill_null(odd, False)).to_pylist():
        text = values[place]
        assert isinstance(text, str)
        values[place] = Runnable(_cut(text)) if runnable[place].as_py() else _cut(text)
    return values


def _cut(text: str) -> str:
    units = text.encode("utf-16-le")
    if len(units) <= 2 * MOST_CHARACTERS:
        return text
    # A character of two units is left out whole.
    return units[: 2 * (MOST_CHARACTERS - len(CUT))].decode("utf-16-le", "ignore") + CUT


def _amounts(amounts: pa.Array, currencies: pa.Array) -> list[CellValue]:
    return [
        None if amount is None else _amount(amount, currency or "")
        for amount, currency in zip(amounts.to_pylist(), currencies.to_pylist(), strict=True)
    ]


def _amount(amount_minor: int, currency: str) -> CellValue:
    if abs(amount_minor) > LARGEST_WHOLE:
        return str(major_units(amount_minor, currency))
    return Money(float(major_units(amount_minor, currency)), currency)


def _money_texts(amounts: Iterable[str] | None) -> str | None:
    parts = (amount.rpartition(":") for amount in amounts or ())
    return "; ".join(money_text(int(amount_minor), currency) for currency, _, amount_minor in parts)


def _number(value: float | bool | None) -> CellValue:
    if isinstance(value, float) and not isfinite(value):
        return str(value)
    return str(value) if isinstance(value, int) and abs(value) > LARGEST_WHOLE else value


def _serial(days: int | None, microseconds: int | None) -> CellValue:
    """The day number that a spreadsheet shows as a date or time, or the ISO text of one that it cannot."""
    if days is None and microseconds is None:
        return None
    serial = _EPOCH_SERIAL + (days if days is not None else (microseconds or 0) / _DAY_MICROSECONDS)
    if _FIRST_SERIAL <= serial < _LAST_SERIAL + 1:
        return serial
    if days is not None:
        return date.fromordinal(days + date(1970, 1, 1).toordinal()).isoformat()
    return str(pa.scalar(microseconds, TIME).cast(TEXT).as_py())
