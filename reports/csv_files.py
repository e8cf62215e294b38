"""Writes and reads a report table as CSV that a spreadsheet opens safely and a script parses without guessing.

UTF-8 with a byte order mark, CRLF, RFC 4180; text is always quoted, numbers, dates, times, true/false and empty cells never are,
so that an empty text differs from no text. Times are UTC in ISO 8601 to the second; Parquet keeps the microseconds.
"""

from __future__ import annotations

import string
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from reports.contract import TEXT, TEXTS, TIME, TableContract, conform

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
LIST_SEPARATOR = ";"
ROWS_PER_CHUNK = 32_768

# A spreadsheet runs a cell that begins with one of = + - @, and some take a tab or a line break for the start of a new cell (OWASP:
# CSV Injection; ASVS adds NUL). Programs strip blanks and invisible characters first and East Asian input methods fold the
# full-width forms, so both count. A pipe is left alone: it only does harm behind one of these (`=cmd|…`).
RUNNABLE = r"^[\p{Z}\p{Cc}\p{Cf}]*[=+\-@＝＋－＠]|^[\p{Z}\p{Cf}]*[\t\r\n\x00]"


_PLAIN_STARTS = np.zeros(256, dtype=bool)
_PLAIN_STARTS[list(string.ascii_letters.encode() + string.digits.encode())] = True


def csv_chunks(table: pa.Table, contract: TableContract) -> Iterator[bytes]:
    """The file's bytes, in pieces of bounded size."""
    conform(table, contract)
    header = ",".join(f'"{name}"' for name in contract.names)
    yield BYTE_ORDER_MARK + header.encode() + b"\r\n"
    for batch in table.to_batches(max_chunksize=ROWS_PER_CHUNK):
        if batch.num_rows:
            cells = [_cells(column) for column in batch.columns]
            rows = pc.binary_join_element_wise(*cells, ",")
            yield end_to_end(pc.binary_join_element_wise(rows, "\r\n", ""))


def read_csv(path: Path, contract: TableContract) -> pa.Table:
    """Read a file that `csv_chunks` wrote, in the contract's types; texts keep the apostrophe that made them safe."""
    types = {column.name: TEXT if column.type in (TEXTS, TIME) else column.type for column in contract.columns}
    table = pa_csv.read_csv(
        path,
        parse_options=pa_csv.ParseOptions(newlines_in_values=True),
        convert_options=pa_csv.ConvertOptions(
            column_types=types, null_values=[""], strings_can_be_null=True, quoted_strings_can_be_null=False
        ),
    )
    columns = [_restored(table[column.name], column.type) for column in contract.columns]
    return conform(pa.table(columns, schema=contract.schema), contract)


def end_to_end(texts: pa.Array) -> bytes:
    """All texts of an array without nulls, which Arrow keeps one behind the other."""
    _, offsets, content = texts.buffers()
    if content is None:
        return b""
    bounds = np.frombuffer(offsets, dtype=np.int32)[texts.offset : texts.offset + len(texts) + 1]
    return memoryview(content)[bounds[0] : bounds[-1]].tobytes()


def safe_text(texts: pa.Array) -> pa.Array:
    """Take NUL out of each text, and put one apostrophe before each that a spreadsheet would run."""
    runnable = pc.match_substring_regex(texts, RUNNABLE)
    printable = pc.replace_substring(texts, "\x00", "")
    return pc.if_else(runnable, pc.binary_join_element_wise("'", printable, ""), printable)


def _cells(column: pa.Array) -> pa.Array:
    if column.type == TEXT:
        return pc.fill_null(_quoted(column), "")
    if column.type == TEXTS:
        # Of no texts there is nothing to quote: the cell is empty, like any other without a value.
        filled = pc.fill_null(pc.greater(pc.list_value_length(column), 0), False)
        return pc.fill_null(pc.if_else(filled, _quoted(pc.binary_join(column, LIST_SEPARATOR)), ""), "")
    if column.type == TIME:
        whole_seconds = column.cast(pa.timestamp("s", tz="UTC"), safe=False)
        return pc.fill_null(pc.strftime(whole_seconds, format="%Y-%m-%dT%H:%M:%SZ"), "")
    return pc.fill_null(column.cast(TEXT), "")


def _quoted(texts: pa.Array) -> pa.Array:
    safe = texts if _is_plain(texts) else pc.replace_substring(safe_text(texts), '"', '""')
    return pc.binary_join_element_wise('"', safe, '"', "")


def _is_plain(texts: pa.Array) -> bool:
    """Whether every text begins with an ASCII letter or digit and none has a quote or NUL in it, as ids do: nothing of them has to change.

    Looked up in the bytes, at a tenth of what the expression costs.
    """
    _, offsets, content = texts.buffers()
    if content is None:
        return True
    bounds = np.frombuffer(offsets, dtype=np.int32)[texts.offset : texts.offset + len(texts) + 1]
    starts = bounds[:-1][np.diff(bounds) > 0]
    letters = np.frombuffer(content, dtype=np.uint8)
    written = memoryview(content)[bounds[0] : bounds[-1]].tobytes()
    return bool(_PLAIN_STARTS[letters[starts]].all()) and b'"' not in written and b"\x00" not in written


def _restored(texts: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray | pa.Array:
    if kind == TEXTS:
        return pa.array([[] if text is None else text.split(LIST_SEPARATOR) for text in texts.to_pylist()], type=TEXTS)
    if kind == TIME:
        return pc.cast(pc.strptime(texts, format="%Y-%m-%dT%H:%M:%SZ", unit="us"), TIME)
    return texts
