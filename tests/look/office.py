"""Opens the workbook and every CSV in LibreOffice: what it takes each cell for, that nothing runs, ten thousand texts and back."""

from __future__ import annotations

import random
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.report_cost import tables_of
from reports.closed_lists import ALL_LISTS
from reports.columns import TABLES
from reports.contract import DATE, FLAG, REAL, TEXT, TEXTS, TIME, WHOLE, Column, TableContract
from reports.csv_files import csv_chunks, safe_text
from reports.money import major_units, money_text
from reports.page_numbers import page_numbers
from reports.past_nights import Past
from reports.summary import build_summary
from reports.workbook import GLOSSARY, SHEETS, WORKBOOK, heading_of, workbook_chunks
from reports.workbook_cells import CUT, MOST_CHARACTERS
from tests.look.calc import Calc, Document, Value, command, read_flat_xml, read_saved_csv
from tests.look.texts import HOSTILE, MISTAKEN, fuzzed
from tests.reports.factories import NIGHT, facts, night

TITLE = "The workbook and the CSV files in LibreOffice"
FUZZED, SEED = 10_000, 20_261_122
ACCOUNTS = 100_000
SAMPLES = 60

Tables = Mapping[str, pa.Table]


def missing() -> list[str]:
    """What has to be installed first."""
    return [] if command() else ["LibreOffice Calc: apt-get install libreoffice-calc (or name its soffice in $SOFFICE)"]


def look(directory: Path) -> list[str]:
    """Every fault found, a sentence each."""
    with tempfile.TemporaryDirectory() as made:
        calc = Calc(Path(made) / "profile")
        print(calc.version())
        faults = []
        for name, part in (("types", _types), ("texts", _texts), ("size", _size)):
            began = time.monotonic()
            place = Path(made) / name
            place.mkdir()
            found = [f"{name}: {fault}" for fault in part(calc, place)]
            faults += found[:20]
            print(f"  {name:6} {'wrong' if found else 'fine'}, {time.monotonic() - began:.0f} s")
        return faults


def _types(calc: Calc, made: Path) -> Iterator[str]:
    """Every column of every table, with hostile texts: each cell is what its column says, in the workbook and in the CSV files."""
    tables = {name: _sample(contract) for name, contract in TABLES.items()}
    (made / WORKBOOK).write_bytes(_workbook(tables))
    for name, contract in TABLES.items():
        (made / f"{name}.csv").write_bytes(b"".join(csv_chunks(tables[name], contract)))
    calc.to_flat_xml([made / WORKBOOK], made)
    calc.to_flat_xml([made / f"{name}.csv" for name in TABLES], made, quoted_is_text=True)
    book = read_flat_xml(made / "report.fods")
    yield from _alive(WORKBOOK, book)
    if list(book.sheets) != ["cover", *SHEETS, GLOSSARY]:
        yield f"{WORKBOOK} has the sheets {list(book.sheets)}"
    for name, contract in TABLES.items():
        headings = [heading_of(column).name for column in contract.columns]
        yield from _compare(f"{WORKBOOK} {name}", book.sheets[name], headings, tables[name], contract, _in_workbook)
        opened = read_flat_xml(made / f"{name}.fods")
        yield from _alive(f"{name}.csv", opened)
        (rows,) = opened.sheets.values()
        yield from _compare(f"{name}.csv", rows, list(contract.names), tables[name], contract, _in_csv)


def _alive(file: str, document: Document) -> Iterator[str]:
    """What runs or leads elsewhere, but for the cover's links to the other sheets."""
    for each in document.alive:
        if not re.search(r"^cover, .*link .*\"#'", each):
            yield f"{file} runs or leads elsewhere: {each}"


def _sample(contract: TableContract) -> pa.Table:
    """Rows with a value or none in every column, hostile texts wherever the list of values is not fixed."""
    chance = random.Random(contract.name)
    columns = [[_cell(chance, column) for _ in range(SAMPLES)] for column in contract.columns]
    rows = [dict(zip(contract.names, cells, strict=True)) for cells in zip(*columns, strict=True)]
    for row in rows:
        if "currency" in row:
            row["currency"] = None if row["exposure_minor"] is None else chance.choice(("EUR", "JPY", "KWD"))
    return pa.Table.from_pylist(rows, schema=contract.schema)


def _cell(chance: random.Random, column: Column) -> Any:
    short = [text for text in (*HOSTILE, *MISTAKEN) if len(text) < 100]
    texts = list(ALL_LISTS[column.values]) if column.values else short
    if column.name == "exposure_by_currency":
        return chance.choice((None, ["EUR:1250"], ["EUR:-5", "JPY:7"]))
    if chance.random() < 0.2:
        return None
    return {
        TEXT: lambda: chance.choice(texts),
        TEXTS: lambda: chance.choices(texts, k=chance.randint(0, 3)),
        WHOLE: lambda: chance.randint(-5, 10**12),
        REAL: lambda: round(chance.random(), 4),
        DATE: lambda: date(2026, 11, 22) + timedelta(days=chance.randint(-400, 400)),
        TIME: lambda: NIGHT + timedelta(seconds=chance.randint(-(10**7), 10**7)),
        FLAG: lambda: chance.random() < 0.5,
    }[column.type]()


Expected = Callable[[Column, Any, Mapping[str, Any]], Value | None]


def _compare(
    where: str,
    rows: list[list[Value | None]],
    headings: list[str],
    table: pa.Table,
    contract: TableContract,
    expected: Expected,
) -> Iterator[str]:
    if [cell and cell[1] for cell in rows[0]] != headings:
        yield f"{where}: its header is {rows[0]}"
        return
    wide = len(headings)
    found = Counter(tuple(_read(cell) for cell in (*row, *[None] * (wide - len(row)))) for row in rows[1:])
    wanted = Counter(
        tuple(expected(column, row[column.name], row) for column in contract.columns) for row in table.to_pylist()
    )
    lacking, over = list((wanted - found).elements()), list((found - wanted).elements())
    for row in lacking:
        # The row that is most like it shows what the difference is.
        best = max(over, key=lambda one: sum(a == b for a, b in zip(one, row, strict=True)), default=None)
        differ = [
            (column, want, got)
            for column, want, got in zip(headings, row, best or (), strict=bool(best))
            if want != got
        ]
        yield f"{where}: {differ or row}"
    if len(rows) - 1 != table.num_rows:
        yield f"{where}: {len(rows) - 1} rows instead of {table.num_rows}"


def _in_workbook(column: Column, value: Any, row: Mapping[str, Any]) -> Value | None:
    if value is None or value in ("", []):
        return None
    if column.name == "exposure_minor":
        return "float", float(major_units(value, row["currency"]))
    if column.name == "exposure_by_currency":
        amounts = (amount.split(":") for amount in value)
        return "string", "; ".join(money_text(int(amount_minor), currency) for currency, amount_minor in amounts)
    if column.type == TIME:
        return "date", f"{value.astimezone(UTC):%Y-%m-%dT%H:%M:%S}"
    if column.type == TEXTS:
        return _string("; ".join(value))
    return _plain(column, value, "percentage" if column.name == "share" else "float")


def _in_csv(column: Column, value: Any, _row: Mapping[str, Any]) -> Value | None:
    if value is None or value in ("", []):
        return None
    if column.type == TIME:
        return "string", f"{value.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    if column.type in (TEXT, TEXTS):
        return _string(safe_text(pa.array([value if column.type == TEXT else ";".join(value)]))[0].as_py())
    return _plain(column, value, "float")


def _plain(column: Column, value: Any, number: str) -> Value | None:
    if column.type == DATE:
        return "date", value.isoformat()
    if column.type == FLAG:
        return "boolean", str(value).lower()
    return _string(value) if column.type == TEXT else (number, float(value))


def _read(cell: Value | None) -> Value | None:
    """A cell as it is compared: flat XML loses some tabs, which the other part compares."""
    return ("string", _broken(str(cell[1])).replace("\t", "")) if cell is not None and cell[0] == "string" else cell


def _string(text: str) -> Value | None:
    """A text as flat XML can hold it: LibreOffice's own line breaks, and no character that XML has not."""
    kept = re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]", "", _broken(text))
    return ("string", kept.replace("\t", "")) if text else None


def _broken(text: str) -> str:
    """The text with every kind of line break as LibreOffice has it."""
    return re.sub("\r\n|\n\r|\r", "\n", text)


def _texts(calc: Calc, made: Path) -> Iterator[str]:
    """Ten thousand texts through both kinds of file and back: the same but for what the README says."""
    texts = fuzzed(FUZZED, SEED)
    contract = TABLES["accounts"]
    place = contract.names.index("reference")
    plain = dict.fromkeys(contract.names) | {"merchant": "main", "finding": "ok", "next_step": "none"}
    rows = [{**plain, "account_id": f"fca_{n:06d}", "reference": text} for n, text in enumerate(texts)]
    table = pa.Table.from_pylist(rows, schema=contract.schema)
    (made / "accounts.csv").write_bytes(b"".join(csv_chunks(table, contract)))
    (made / WORKBOOK).write_bytes(_workbook({**_empty(), "accounts": table}))
    for file, quoted, written in ((WORKBOOK, False, _cut), ("accounts.csv", True, _safe)):
        calc.to_flat_xml([made / file], made, quoted_is_text=quoted)
        opened = read_flat_xml(made / f"{Path(file).stem}.fods")
        yield from _alive(file, opened)
        cells = (row[place] for row in opened.sheets["accounts"][1:] if len(row) > place)
        kinds = Counter(cell[0] for cell in cells if cell)
        if set(kinds) != {"string"} or kinds["string"] < len(texts) - texts.count(""):
            yield f"{file}: texts were taken for {dict(kinds)}"
        calc.to_csv(made / file, made / "back", quoted_is_text=quoted)
        saved = read_saved_csv(made / "back" / f"{Path(file).stem}-accounts.csv")
        back = {row[1]: row[place] for row in saved[1:]}
        for n, text in enumerate(texts):
            if (got := back.get(f"fca_{n:06d}")) is None or _broken(got) != _broken(written(text)):
                yield f"{file}: {text[:60]!r} came back as {got and got[:60]!r}"
    print(f"  {len(texts):,} texts (seed {SEED}), {len(set(texts)):,} of them different")


def _safe(text: str) -> str:
    """As a CSV holds a text: an apostrophe before what would run, and no NUL."""
    return str(safe_text(pa.array([text]))[0].as_py())


def _cut(text: str) -> str:
    """As a workbook holds a text: with a remark where it is too long."""
    units = text.encode("utf-16-le")
    if len(units) <= 2 * MOST_CHARACTERS:
        return text
    return units[: 2 * (MOST_CHARACTERS - len(CUT))].decode("utf-16-le", "ignore") + CUT


def _size(calc: Calc, made: Path) -> Iterator[str]:
    """A workbook and a CSV of 100,000 accounts open; the time is until each sheet is saved again, LibreOffice's own start included."""
    tables = tables_of(ACCOUNTS)
    (made / WORKBOOK).write_bytes(_workbook(tables))
    (made / "accounts.csv").write_bytes(b"".join(csv_chunks(tables["accounts"], TABLES["accounts"])))
    for file, quoted in ((WORKBOOK, False), ("accounts.csv", True)):
        began = time.monotonic()
        calc.to_csv(made / file, made / "back", quoted_is_text=quoted)
        spent = time.monotonic() - began
        saved = read_saved_csv(made / "back" / f"{Path(file).stem}-accounts.csv")
        print(f"  {file}: {ACCOUNTS:,} accounts opened and saved in {spent:.0f} s")
        if (rows := len(saved) - 1) != ACCOUNTS:
            yield f"{file}: {rows:,} rows of {ACCOUNTS:,} came back"
        last4 = Counter(row[5] for row in saved[1:])
        if last4 != Counter(tables["accounts"]["last4"].to_pylist()):
            yield f"{file}: last digits lost their zeros"


def _empty() -> dict[str, pa.Table]:
    return {name: contract.schema.empty_table() for name, contract in TABLES.items()}


def _workbook(tables: Tables) -> bytes:
    about = night()
    page = page_numbers(build_summary(facts(), about), about, Past())
    return b"".join(workbook_chunks(page, tables, datetime(2026, 11, 22, 3, 30, tzinfo=UTC)))
