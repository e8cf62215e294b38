"""Writes and reads a report table as Parquet: raw values under a schema that never changes with the data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from reports.contract import SCHEMA_VERSION, TableContract, conform
from reports.glossary import described


def parquet_chunks(table: pa.Table, contract: TableContract, run_id: str) -> Iterator[bytes]:
    """The file's bytes; its metadata say the schema version, the table and the run, and of each column what it means."""
    metadata = {"schema_version": str(SCHEMA_VERSION), "table": contract.name, "run_id": run_id}
    sink = pa.BufferOutputStream()
    schema = described(contract).with_metadata(metadata)
    pq.write_table(pa.table(conform(table, contract).columns, schema=schema), sink, compression="zstd")
    yield memoryview(sink.getvalue()).tobytes()


def read_parquet(path: Path) -> pa.Table:
    """Read one file as it was written; the `run_date=…` directories above it add no columns."""
    with pq.ParquetFile(path) as file:
        return file.read()
