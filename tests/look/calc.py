"""Starts LibreOffice Calc without a window, and reads what it took each cell for from the flat XML that it saves."""

from __future__ import annotations

import csv
import io
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

OFFICE, TABLE, TEXT = (f"{{urn:oasis:names:tc:opendocument:xmlns:{name}:1.0}}" for name in ("office", "table", "text"))
QUOTED_IS_TEXT = "--infilter=Text - txt - csv (StarCalc):44,34,76,1,,1033,true,true"
"""How a CSV is opened: comma, double quote, UTF-8, from line 1, English (USA), quoted fields are text, dates are recognised."""

EACH_SHEET_AS_CSV = "csv:Text - txt - csv (StarCalc):44,34,76,1,,1033,true,false,false,false,false,-1"
"""How sheets are saved: the same way, each in a file of its own, cells as they are rather than as they look."""

BOOLEANS = {"of:=TRUE()": "true", "of:=FALSE()": "false"}
"""How LibreOffice itself keeps true and false of a workbook."""

MINUTES = 10

Value = tuple[str, str | float]
"""What a cell is taken for (string, float, date, boolean, percentage) and its value: a float for numbers, else a text."""


def command() -> str | None:
    """LibreOffice's command, if it is here."""
    return os.environ.get("SOFFICE") or shutil.which("soffice")


@dataclass(frozen=True, slots=True)
class Calc:
    """LibreOffice with a profile of its own in a directory that is thrown away."""

    profile: Path

    def version(self) -> str:
        """What it calls itself."""
        return self._run("--version").split("\n")[0].strip()

    def to_flat_xml(self, files: list[Path], out: Path, *, quoted_is_text: bool = False) -> None:
        """Open each file and save it as `out`/NAME.fods."""
        options = [QUOTED_IS_TEXT] if quoted_is_text else []
        self._run(*options, "--convert-to", "fods", "--outdir", str(out), *map(str, files))

    def to_csv(self, file: Path, out: Path, *, quoted_is_text: bool = False) -> None:
        """Open the file and save each sheet as `out`/NAME-SHEET.csv."""
        options = [QUOTED_IS_TEXT] if quoted_is_text else []
        self._run(*options, "--convert-to", EACH_SHEET_AS_CSV, "--outdir", str(out), str(file))

    def _run(self, *arguments: str) -> str:
        started = [str(command()), f"-env:UserInstallation={self.profile.as_uri()}", "--headless", "--norestore"]
        return subprocess.run(
            [*started, *arguments], check=True, capture_output=True, text=True, timeout=60 * MINUTES
        ).stdout


@dataclass(slots=True)
class Document:
    """The sheets of a document, row by row, and every place where something in it could run or lead elsewhere."""

    sheets: dict[str, list[list[Value | None]]] = field(default_factory=dict)
    alive: list[str] = field(default_factory=list)


def read_flat_xml(path: Path) -> Document:
    """Read what LibreOffice saved; empty cells and rows at the end are left out."""
    document = Document()
    name = ""
    for event, element in ElementTree.iterparse(path, events=("start", "end")):
        if event == "start":
            if element.tag == f"{TABLE}table":
                name = str(element.get(f"{TABLE}name"))
                document.sheets[name] = []
            continue
        if element.tag in (f"{TABLE}dde-link", f"{TABLE}cell-range-source", f"{OFFICE}event-listeners"):
            document.alive.append(f"{name}: {element.tag.rpartition('}')[2]}")
        if element.tag == f"{TABLE}table-row":
            cells = _cells(element, f"{name}, row {len(document.sheets[name]) + 1}", document.alive)
            repeated = int(element.get(f"{TABLE}number-rows-repeated", 1))
            document.sheets[name] += [cells] * (repeated if cells else min(repeated, 1))
            element.clear()
    for rows in document.sheets.values():
        while rows and not rows[-1]:
            rows.pop()
    return document


def _cells(row: ElementTree.Element, place: str, alive: list[str]) -> list[Value | None]:
    cells: list[Value | None] = []
    for cell in row:
        if cell.tag not in (f"{TABLE}table-cell", f"{TABLE}covered-table-cell"):
            continue
        kind, formula = cell.get(f"{OFFICE}value-type"), cell.get(f"{TABLE}formula")
        if formula in BOOLEANS:
            value: Value | None = ("boolean", BOOLEANS[formula])
        else:
            value = None if kind is None else (kind, _value(cell, kind))
            if formula is not None:
                alive.append(f"{place}: formula {formula}")
        alive.extend(f"{place}: link {link.attrib}" for link in cell.iter(f"{TEXT}a"))
        # A row ends with thousands of empty cells as one.
        repeated = int(cell.get(f"{TABLE}number-columns-repeated", 1))
        cells += [value] * (repeated if value is not None else min(repeated, 100))
    while cells and cells[-1] is None:
        cells.pop()
    return cells


def _value(cell: ElementTree.Element, kind: str) -> str | float:
    if kind in ("float", "percentage", "currency"):
        return float(str(cell.get(f"{OFFICE}value")))
    if kind in ("date", "boolean", "time"):
        return str(cell.get(f"{OFFICE}{kind}-value"))
    return "\n".join(_words(paragraph) for paragraph in cell.findall(f"{TEXT}p"))


def _words(element: ElementTree.Element) -> str:
    parts = [element.text or ""]
    for child in element:
        if child.tag == f"{TEXT}s":
            parts.append(" " * int(child.get(f"{TEXT}c", 1)))
        elif child.tag == f"{TEXT}tab":
            parts.append("\t")
        elif child.tag == f"{TEXT}line-break":
            parts.append("\n")
        else:
            parts.append(_words(child))
        parts.append(child.tail or "")
    return "".join(parts)


def read_saved_csv(path: Path) -> list[list[str]]:
    """The rows of a CSV that LibreOffice saved."""
    csv.field_size_limit(1 << 20)
    return list(csv.reader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline="")))
