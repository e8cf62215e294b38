"""What lies beside the tables of a report to tell what it is: the manifest, and how a report is known by it."""

from __future__ import annotations

import json
import platform
import zlib
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path

from reconcile.errors import ReportError
from reports.columns import TABLES
from reports.contract import SCHEMA_VERSION
from reports.control import ControlInputs
from reports.disk import sha256_of
from reports.ledger_change import LEDGER_CHANGE
from reports.summary import RunFacts

MANIFEST = "manifest.json"
SUMMARY = "summary.json"


def manifest_of(
    facts: RunFacts,
    summary: Mapping[str, object],
    inputs: Mapping[str, ControlInputs],
    entries: Mapping[str, Mapping[str, object]],
) -> dict[str, object]:
    """What a report says of itself: its run, its control totals with their other side, its files and the versions that made them."""
    return {
        **{name: summary[name] for name in ("run_id", "run_date", "command", "complete", "dry_run", "why", "control")},
        "schema_version": SCHEMA_VERSION,
        "versions": dict(_versions()),
        "snapshots": {one.merchant: one.snapshot_id for one in facts.merchants},
        "control_inputs": {merchant: numbers.as_json() for merchant, numbers in inputs.items()},
        "files": entries,
    }


@cache
def _versions() -> Mapping[str, str]:
    """Of everything that the bytes of a report depend on: the same versions make the same bytes of the same values."""
    libraries = {
        name: version(name) for name in ("fc-relink", "Jinja2", "matplotlib", "pandas", "pyarrow", "XlsxWriter")
    }
    return {**libraries, "python": platform.python_version(), "zlib": zlib.ZLIB_RUNTIME_VERSION}


def as_json(value: Mapping[str, object]) -> bytes:
    """Plain values as a JSON file, the same bytes for the same values."""
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def is_complete(directory: Path) -> bool:
    """Whether a directory says of itself that it is the report of a complete run."""
    try:
        return json.loads((directory / MANIFEST).read_bytes())["complete"] is True
    except (OSError, ValueError, KeyError, TypeError):
        return False


def is_whole(directory: Path) -> bool:
    """Whether a directory is the report of a complete run with every file as its manifest says."""
    try:
        entries = json.loads((directory / MANIFEST).read_bytes())["files"]
        files = {str(name): str(entry["sha256"]) for name, entry in entries.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    return is_complete(directory) and SUMMARY in files and holds(directory, files)


def holds(directory: Path, files: Mapping[str, str]) -> bool:
    """Whether a directory holds these files, by their SHA-256."""
    try:
        return all(sha256_of(directory / name) == sha256 for name, sha256 in files.items())
    except OSError:
        return False


def refuse_strangers(final: Path) -> None:
    """Replacing a report would take along what somebody else put beside its files.

    Raises:
        ReportError: naming it.
    """
    if not final.is_dir():
        return
    ours = {
        MANIFEST,
        SUMMARY,
        "index.html",
        "report.xlsx",
        LEDGER_CHANGE,
        *(f"{name}.{kind}" for name in TABLES for kind in ("csv", "parquet")),
    }
    strange = sorted(path.name for path in final.iterdir() if path.name not in ours)
    if strange:
        raise ReportError(f"{final} holds {', '.join(strange)}, which is no part of the report: move it away")
