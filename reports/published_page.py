"""Builds the page of a published report once more from its own files, to be shown, mailed or shared."""

from __future__ import annotations

import json
from pathlib import Path

from reconcile.errors import ReportError
from reports.columns import TABLES
from reports.files import LAST_ATTEMPT, read_table
from reports.manifest import SUMMARY
from reports.page import page_of
from reports.page_model import Page


def find_report(root: Path, run_id: str | None) -> Path:
    """The directory of a run's report, or of the newest attempt where no run is named.

    Raises:
        ReportError: there is none.
    """
    if run_id is None:
        link = root / LAST_ATTEMPT
        if not link.exists():
            raise ReportError(f"no report in {root} yet: `relink run` writes the first, or name a run of `relink runs`")
        return link.resolve()
    for dates in (root, root / "dry_run=true"):
        for day in sorted(dates.glob("run_date=*")):
            directory = day / f"run_id={run_id}"
            if directory.parent == day and directory.is_dir():
                return directory
    raise ReportError(f"no report of run {run_id} in {root}: see `relink runs list`")


def published_page(root: Path, directory: Path) -> Page:
    """The numbers of a published report, counted again from its summary and tables.

    Raises:
        ReportError: a file is missing or cannot be read.
    """
    try:
        summary = json.loads((directory / SUMMARY).read_bytes())
        if summary["counts"] is None:
            return page_of(root, summary, None)
        tables = {}
        for name in TABLES:
            path = directory / f"{name}.parquet"
            tables[name] = read_table(path if path.exists() else directory / f"{name}.csv")
        return page_of(root, summary, tables)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ReportError(f"the report in {directory} cannot be read: {str(error).splitlines()[0]}") from error
