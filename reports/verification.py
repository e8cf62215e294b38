"""Checks a published report against its own manifest and control totals."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa

from reports.columns import TABLES
from reports.contract import conform
from reports.control import ControlInputs, control_totals
from reports.files import read_table
from reports.manifest import MANIFEST, SUMMARY

PIECE_BYTES = 1 << 20


def verify(directory: Path) -> list[str]:
    """Recompute hashes, sizes, rows and control totals; return one sentence for each thing that is wrong, none if nothing is."""
    try:
        manifest = json.loads((directory / MANIFEST).read_bytes())
        files, complete = dict(manifest["files"]), manifest["complete"]
        inputs = {
            merchant: ControlInputs.from_json(numbers) for merchant, numbers in manifest["control_inputs"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return [f"{directory}: {MANIFEST} is missing or cannot be read"]
    faults = list(_file_faults(directory, files))
    faults.extend(_name_faults(directory, manifest))
    tables: dict[str, pa.Table] = {}
    for name in sorted(files, key=lambda name: not name.endswith(".parquet")):
        if Path(name).suffix in (".csv", ".parquet"):
            faults.extend(_table_faults(directory / name, files[name], str(manifest.get("run_id")), tables))
    if complete and tables:
        faults.extend(_total_faults(directory, manifest, tables, inputs))
    return faults


def _file_faults(directory: Path, files: Mapping[str, Mapping[str, object]]) -> Iterator[str]:
    try:
        present = {path.name for path in directory.iterdir()}
    except OSError as error:
        yield f"{directory}: cannot be listed: {error.strerror}"
        return
    for name in sorted(present - {MANIFEST} - files.keys()):
        yield f"{name}: not in the manifest"
    if SUMMARY not in files:
        yield f"{SUMMARY}: not in the manifest"
    for name, entry in sorted(files.items()):
        if Path(name).name != name:
            yield f"{name}: the manifest names a file outside the report"
        elif name not in present:
            yield f"{name}: missing"
        else:
            sha256, size = _digest(directory / name)
            if size != entry.get("bytes"):
                yield f"{name}: has {size} bytes, the manifest says {entry.get('bytes')}"
            if sha256 != entry.get("sha256"):
                yield f"{name}: its SHA-256 is not the manifest's"


def _name_faults(directory: Path, manifest: Mapping[str, object]) -> Iterator[str]:
    path = directory.resolve()
    if (path.parent.name, path.name) != (f"run_date={manifest.get('run_date')}", f"run_id={manifest.get('run_id')}"):
        yield f"{MANIFEST}: belongs to run {manifest.get('run_id')} of {manifest.get('run_date')}, not to {path.parent.name}/{path.name}"


def _table_faults(path: Path, entry: Mapping[str, object], run_id: str, tables: dict[str, pa.Table]) -> Iterator[str]:
    """Read one table, keep the first form of each for the totals, and compare its rows and the run that it names."""
    try:
        table = read_table(path)
        conform(table, TABLES[path.stem])
    except (OSError, ValueError) as error:
        yield f"{path.name}: cannot be read: {str(error).splitlines()[0]}"
        return
    if table.num_rows != entry.get("rows"):
        yield f"{path.name}: has {table.num_rows} rows, the manifest says {entry.get('rows')}"
    if table.num_rows != tables.setdefault(path.stem, table).num_rows:
        yield f"{path.name}: has {table.num_rows} rows, the Parquet file has {tables[path.stem].num_rows}"
    metadata = table.schema.metadata or {}
    if path.suffix == ".parquet" and metadata.get(b"run_id") != run_id.encode():
        yield f"{path.name}: was written by another run"


def _total_faults(
    directory: Path, manifest: Mapping[str, object], tables: Mapping[str, pa.Table], inputs: Mapping[str, ControlInputs]
) -> Iterator[str]:
    totals = control_totals(tables, inputs)
    for total in totals:
        if not total.ties:
            yield f"control total does not tie: {total.name}: {total.left} and {total.right}"
    counted = [total.as_json() for total in totals]
    if counted != manifest.get("control"):
        yield f"{MANIFEST}: its control totals are not those of the files"
    try:
        summary = json.loads((directory / SUMMARY).read_bytes())
        if summary.get("control") != counted or summary.get("run_id") != manifest.get("run_id"):
            yield f"{SUMMARY}: does not agree with the files"
    except (OSError, ValueError, AttributeError):
        yield f"{SUMMARY}: cannot be read"


def _digest(path: Path) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            digest.update(piece)
            size += len(piece)
    return digest.hexdigest(), size
