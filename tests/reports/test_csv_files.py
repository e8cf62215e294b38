"""CSV bytes: exact, safe in a spreadsheet, and read back without loss."""

from __future__ import annotations

import csv
import io
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reports.columns import TABLES
from reports.contract import DATE, FLAG, REAL, TEXT, TEXTS, TIME, WHOLE, Column, TableContract
from reports.csv_files import ROWS_PER_CHUNK, csv_chunks, read_csv, safe_text
from reports.parquet_files import parquet_chunks

KINDS = TableContract(
    "kinds",
    "one of everything",
    tuple(
        Column(name, kind, "", "")
        for name, kind in (
            ("text", TEXT),
            ("texts", TEXTS),
            ("whole", WHOLE),
            ("real", REAL),
            ("date", DATE),
            ("time", TIME),
            ("flag", FLAG),
        )
    ),
    ("text",),
)

GOLDEN = (
    b"\xef\xbb\xbf"
    b'"text","texts","whole","real","date","time","flag"\r\n'
    b'"caf\xc3\xa9 ""x"", y","a;b",-5,0.25,2026-11-22,2026-11-22T03:30:00Z,true\r\n'
    b'"",,0,-1,1999-12-31,1969-12-31T23:59:59Z,false\r\n'
    b",,,,,,\r\n"
    b'"\'=1+1","\'-a;=b",9223372036854775807,1e-7,,,\r\n'
    b'"two\r\nlines",,,,,,\r\n'
    b'"ab",";",,,,,\r\n'
)


def kinds(*rows: tuple[object, ...]) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else [()] * len(KINDS.columns)
    return pa.table(
        [pa.array(list(cells), type=one.type) for one, cells in zip(KINDS.columns, columns, strict=True)],
        schema=KINDS.schema,
    )


def written(table: pa.Table, contract: TableContract = KINDS) -> bytes:
    return b"".join(csv_chunks(table, contract))


def texts_of(texts: list[str | None]) -> pa.Table:
    return kinds(*((text, [text] if text else None, None, None, None, None, None) for text in texts))


def test_bytes_are_exactly_as_promised() -> None:
    table = kinds(
        ('café "x", y', ["a", "b"], -5, 0.25, date(2026, 11, 22), datetime(2026, 11, 22, 3, 30, 0, 999_999, UTC), True),
        ("", [], 0, -1.0, date(1999, 12, 31), datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC), False),
        (None, None, None, None, None, None, None),
        ("=1+1", ["-a", "=b"], 2**63 - 1, 1e-7, None, None, None),
        ("two\r\nlines", [], None, None, None, None, None),
        ("a\0b", ["", ""], None, None, None, None, None),
    )
    assert written(table) == GOLDEN


def test_no_rows_leave_the_header() -> None:
    assert written(kinds()) == GOLDEN.splitlines(keepends=True)[0]


def test_another_schema_is_refused() -> None:
    with pytest.raises(ValueError, match="kinds: columns are"):
        written(kinds().drop_columns(["flag"]))
    with pytest.raises(ValueError, match="kinds: columns are"):
        written(kinds().set_column(2, "whole", pa.array([], pa.float64())))


def test_rows_of_several_pieces_stay_in_order(tmp_path: Path) -> None:
    count = ROWS_PER_CHUNK * 2 + 3
    table = kinds(*((f"row {number}", [], number, None, None, None, None) for number in range(count)))
    pieces = list(csv_chunks(table, KINDS))
    assert len(pieces) == 4
    path = tmp_path / "kinds.csv"
    path.write_bytes(b"".join(pieces))
    assert read_csv(path, KINDS)["whole"].to_pylist() == list(range(count))


@pytest.mark.parametrize(
    "text",
    [
        "=1",
        "+1",
        "-1",
        "@a",
        "\t=1",
        "\rx",
        "\nx",
        "\0x",
        " =1",
        "\ufeff=1",
        "\u200b=1",
        "\u00a0 @a",
        "＝1",
        "＋1",
        "－1",
        "＠a",
        "\u3000＝1",
    ],
)
def test_a_text_that_a_spreadsheet_would_run_gets_one_apostrophe(text: str) -> None:
    assert safe_text(pa.array([text])).to_pylist() == ["'" + text.replace("\0", "")]


@pytest.mark.parametrize("text", ["", "a=1", "1-2", "Bank - One", "|a", "'=1", "a\n=1", " a", "Ａ＝"])
def test_any_other_text_is_left_alone(text: str) -> None:
    assert safe_text(pa.array([text])).to_pylist() == [text]


TRIGGERS = tuple("=+-@\t\r\n\0＝＋－＠")
any_text = st.text(
    alphabet=st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from([*TRIGGERS, *" \"',;\ufeff\u200b"]))
)


@settings(max_examples=300, deadline=None)
@given(st.lists(any_text, min_size=3, max_size=6))
def test_every_text_comes_back_whole_and_none_would_run(drawn: list[str]) -> None:
    """More than ten thousand: each that is drawn as it is and behind each trigger. Parquet, which nothing runs, has them as they were."""
    texts = [None, *(first + text for text in drawn for first in ("", *TRIGGERS))]
    body = written(texts_of(texts))
    parsed = list(csv.reader(io.StringIO(body.decode("utf-8-sig"), newline="")))[1:]
    assert len(parsed) == len(texts)
    for row, text in zip(parsed, texts, strict=True):
        original = (text or "").replace("\0", "")
        assert row[0] in (original, "'" + original)
        assert row[1] == row[0]
        visible = row[0].lstrip().lstrip("\ufeff\u200b\u200c\u200d\u2060 ")
        assert not row[0].startswith(TRIGGERS)
        assert not visible.startswith(TRIGGERS)
    assert raw(texts_of(texts)).to_pylist() == texts_of(texts).to_pylist()


def raw(table: pa.Table) -> pa.Table:
    """A table written as Parquet and read again."""
    return pq.ParquetFile(io.BytesIO(b"".join(parquet_chunks(table, KINDS, "run")))).read(use_threads=False)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.none() | st.text(alphabet="ab", max_size=3),
            st.lists(st.text(alphabet="ab", max_size=3), max_size=3),
            st.none() | st.integers(-(2**63), 2**63 - 1),
            st.none() | st.floats(allow_nan=False, allow_infinity=False),
            st.none() | st.dates(date(1900, 1, 1), date(2200, 1, 1)),
            st.none()
            | st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1)).map(
                lambda at: at.replace(microsecond=0, tzinfo=UTC)
            ),
            st.none() | st.booleans(),
        ),
        max_size=20,
    )
)
def test_values_of_every_type_come_back_equal(rows: list[tuple[object, ...]]) -> None:
    table = kinds(*rows)
    assert read_csv_bytes(written(table)).to_pylist() == table.to_pylist()


def read_csv_bytes(body: bytes) -> pa.Table:
    import tempfile

    with tempfile.NamedTemporaryFile(suffix=".csv") as file:
        file.write(body)
        file.flush()
        return read_csv(Path(file.name), KINDS)


def test_numbers_never_get_an_apostrophe() -> None:
    line = written(kinds(("a", [], -5, -0.5, None, None, None))).splitlines()[1]
    assert line == b'"a",,-5,-0.5,,,'


def test_a_large_table_is_written_in_good_time() -> None:
    """The report of 100,000 accounts is written within the two seconds that a night allows it, with room for a slow machine."""
    import time

    contract = TABLES["accounts"]
    cells = {
        TEXT: "Bank of somewhere",
        TEXTS: ["balances", "transactions"],
        WHOLE: 12345,
        DATE: date(2026, 11, 22),
        TIME: datetime(2026, 11, 22, tzinfo=UTC) + timedelta(seconds=1),
    }
    table = pa.table(
        [pa.repeat(pa.scalar(cells[one.type], one.type), 100_000) for one in contract.columns], schema=contract.schema
    )
    started = time.process_time()
    size = len(written(table, contract))
    assert size > 20_000_000
    assert time.process_time() - started < 6
