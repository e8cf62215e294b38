"""Verification finds each way in which a published report can have been changed."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from reports.columns import TABLES
from reports.files import ReportDirectory, read_table
from reports.parquet_files import parquet_chunks
from reports.verification import verify
from tests.reports.factories import NIGHT_INPUTS, STAMP, facts, night


@pytest.fixture
def published(tmp_path: Path) -> Path:
    return ReportDirectory(tmp_path).publish(facts(), night(), {"main": NIGHT_INPUTS}).path


def seal(report: Path, name: str, rows: int) -> None:
    """Write a changed file's size, rows and hash into the manifest, as somebody who covers up would."""
    manifest = json.loads((report / "manifest.json").read_text())
    body = (report / name).read_bytes()
    manifest["files"][name] = {"bytes": len(body), "rows": rows, "sha256": hashlib.sha256(body).hexdigest()}
    (report / "manifest.json").write_text(json.dumps(manifest))


def rewrite(report: Path, name: str, table: pa.Table, run_id: str = STAMP.run_id) -> None:
    path = report / f"{name}.parquet"
    path.write_bytes(b"".join(parquet_chunks(table, TABLES[name], run_id)))
    seal(report, path.name, table.num_rows)


@pytest.mark.parametrize("name", TABLES)
def test_a_dropped_row_is_found_even_when_the_manifest_was_changed_with_it(published: Path, name: str) -> None:
    table = read_table(published / f"{name}.parquet")
    rewrite(published, name, table.slice(0, table.num_rows - 1))
    faults = verify(published)
    assert any(fault.startswith(f"{name}.csv: has") for fault in faults)
    assert any("control total does not tie" in fault for fault in faults)


def test_a_dropped_csv_line_is_found(published: Path) -> None:
    path = published / "accounts.csv"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    assert {fault.split(",")[0] for fault in verify(published)} >= {
        "accounts.csv: its SHA-256 is not the manifest's",
        "accounts.csv: has 3 rows",
    }


def test_a_changed_byte_is_found(published: Path) -> None:
    path = published / "authorizations.csv"
    path.write_bytes(path.read_bytes().replace(b"Bank One", b"Bank Two"))
    assert verify(published) == ["authorizations.csv: its SHA-256 is not the manifest's"]


def another_file(report: Path) -> None:
    (report / "notes.txt").write_text("mine")


def missing_file(report: Path) -> None:
    (report / "accounts.csv").unlink()


def cut_parquet(report: Path) -> None:
    path = report / "accounts.parquet"
    path.write_bytes(path.read_bytes()[:100])


def other_run(report: Path) -> None:
    rewrite(report, "accounts", read_table(report / "accounts.parquet"), run_id="20261121T033000Z-zzzz")


def other_summary(report: Path) -> None:
    summary = json.loads((report / "summary.json").read_text())
    summary["control"][0]["left"] += 1
    (report / "summary.json").write_text(json.dumps(summary))
    seal(report, "summary.json", 0)


def other_inputs(report: Path) -> None:
    manifest = json.loads((report / "manifest.json").read_text())
    manifest["control_inputs"]["main"]["accounts_pulled"] += 1
    (report / "manifest.json").write_text(json.dumps(manifest))


def outside_file(report: Path) -> None:
    manifest = json.loads((report / "manifest.json").read_text())
    manifest["files"]["../x"] = {"bytes": 0, "rows": None, "sha256": ""}
    (report / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (another_file, "notes.txt: not in the manifest"),
        (missing_file, "accounts.csv: missing"),
        (cut_parquet, "accounts.parquet: cannot be read"),
        (other_run, "accounts.parquet: was written by another run"),
        (other_summary, "summary.json: does not agree with the files"),
        (other_inputs, "control total does not tie: main: accounts rows with a Stripe status"),
        (outside_file, "../x: the manifest names a file outside the report"),
    ],
)
def test_other_changes_are_named(published: Path, change: Callable[[Path], None], expected: str) -> None:
    change(published)
    assert [fault for fault in verify(published) if fault.startswith(expected)], verify(published)


def test_a_report_under_another_name_is_found(published: Path) -> None:
    moved = published.with_name("run_id=20261122T040000Z-zzzz")
    shutil.move(published, moved)
    assert [fault.split(":")[0] for fault in verify(moved)] == ["manifest.json"]


@pytest.mark.parametrize("content", [None, "", "{}", "[]", '{"files": 3, "complete": true, "control_inputs": {}}'])
def test_without_a_manifest_nothing_is_taken_for_sound(published: Path, content: str | None) -> None:
    (published / "manifest.json").unlink()
    if content is not None:
        (published / "manifest.json").write_text(content)
    assert [fault for fault in verify(published) if "manifest.json is missing or cannot be read" in fault]


def test_a_report_in_csv_alone_is_checked_just_as_well(tmp_path: Path) -> None:
    report = ReportDirectory(tmp_path, formats=("csv",)).publish(facts(), night(), {"main": NIGHT_INPUTS}).path
    assert verify(report) == []
    path = report / "relink_requests.csv"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    seal(report, path.name, 0)
    assert [fault for fault in verify(report) if "control total does not tie" in fault]
