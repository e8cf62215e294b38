"""Parquet: one schema whatever the data, and values as they are."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reports.columns import TABLES
from reports.contract import DATE, FLAG, REAL, SCHEMA_VERSION, TEXT, TEXTS, TIME, WHOLE
from reports.parquet_files import parquet_chunks, read_parquet

CELLS = {
    TEXT: "=1\0 é",
    TEXTS: ["=1", "b;c"],
    WHOLE: -5,
    REAL: 0.1,
    DATE: date(2026, 11, 22),
    TIME: datetime(2026, 11, 22, 3, 30, 0, 123_456, UTC),
    FLAG: True,
}


def of_rows(name: str, kind: str) -> pa.Table:
    contract = TABLES[name]
    cells = {"none": [], "nulls": [None, None], "full": None, "gaps": None}[kind]
    columns = []
    for column in contract.columns:
        values = cells if cells is not None else [CELLS[column.type], None if kind == "gaps" else CELLS[column.type]]
        columns.append(pa.array(values, type=column.type))
    return pa.table(columns, schema=contract.schema)


def put(directory: Path, name: str, table: pa.Table) -> Path:
    path = directory / f"{name}.parquet"
    path.write_bytes(b"".join(parquet_chunks(table, TABLES[name], "20261122T033000Z-ab12")))
    return path


@pytest.mark.parametrize("name", TABLES)
def test_the_schema_does_not_depend_on_the_data(tmp_path: Path, name: str) -> None:
    for kind in ("none", "nulls", "full", "gaps"):
        table = of_rows(name, kind)
        path = put(tmp_path, name, table)
        read = read_parquet(path)
        assert read.schema.equals(TABLES[name].schema), kind
        assert read.to_pylist() == table.to_pylist(), kind
        metadata = pq.read_schema(path).metadata
        assert (metadata[b"schema_version"], metadata[b"table"], metadata[b"run_id"]) == (
            str(SCHEMA_VERSION).encode(),
            name.encode(),
            b"20261122T033000Z-ab12",
        )


def test_the_directories_above_add_no_columns(tmp_path: Path) -> None:
    below = tmp_path / "run_date=2026-11-22" / "run_id=20261122T033000Z-ab12"
    below.mkdir(parents=True)
    assert (
        tuple(read_parquet(put(below, "accounts", of_rows("accounts", "full"))).column_names)
        == TABLES["accounts"].names
    )


def test_pandas_reads_it(tmp_path: Path) -> None:
    frame = pd.read_parquet(put(tmp_path, "accounts", of_rows("accounts", "gaps")))
    assert list(frame["exposure_minor"].dropna()) == [-5]
    assert list(frame["also"].iloc[0]) == ["=1", "b;c"]


def test_data_are_compressed(tmp_path: Path) -> None:
    column = pq.ParquetFile(put(tmp_path, "accounts", of_rows("accounts", "full"))).metadata.row_group(0).column(0)
    assert column.compression == "ZSTD"


def test_another_schema_is_refused() -> None:
    table = of_rows("failure_reasons", "full")
    with pytest.raises(ValueError, match="failure_reasons: columns are"):
        list(parquet_chunks(table.drop_columns(["share"]), TABLES["failure_reasons"], "run"))
