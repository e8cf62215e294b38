"""Finds and removes files of past runs: only names that the job itself gives, and never through a symlink."""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from reports.disk import remove_tree, sync_directory
from reports.files import LAST_ATTEMPT, LATEST, PARTIAL
from reports.manifest import MANIFEST

_RUN = r"(?P<run_id>(?P<day>\d{8})T\d{6}Z-[0-9a-f]{4})"
_SNAPSHOT = re.compile(rf"{_RUN}\.parquet")
_PLAN = re.compile(rf"{_RUN}(?:-[A-Za-z0-9_][A-Za-z0-9._-]{{0,63}})?\.json")
_REPORT = re.compile(rf"run_id={_RUN}")
_REPORT_DATE = re.compile(r"run_date=(?P<day>\d{4}-\d{2}-\d{2})")
_MERCHANT = re.compile(r"merchant=[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class OldFile:
    """A file or report directory of a past run; `day` is its report's business date, else the UTC date of its run id."""

    path: Path
    run_id: str
    day: date


def snapshot_files(directory: Path) -> Iterator[OldFile]:
    """Every snapshot file, on record or not."""
    for merchant in _directories(directory):
        if _MERCHANT.fullmatch(merchant.name):
            yield from _files(merchant, _SNAPSHOT)


def plan_files(directory: Path) -> Iterator[OldFile]:
    """Every plan file that a run or `relink plan` put beside the reports."""
    yield from _files(directory, _PLAN)


def report_directories(root: Path) -> Iterator[OldFile]:
    """Every report directory below a root, oldest first, but for those that the links name."""
    linked = {os.path.realpath(root / name) for name in (LATEST, LAST_ATTEMPT) if (root / name).is_symlink()}
    for parent in _directories(root):
        named = _REPORT_DATE.fullmatch(parent.name)
        day = None if named is None else _day(named["day"])
        for path in _directories(parent) if day is not None else ():
            found = _REPORT.fullmatch(path.name)
            if found is not None and day is not None and os.path.realpath(path) not in linked:
                yield OldFile(path, found["run_id"], day)


def is_ours(report: OldFile) -> bool:
    """Whether a report directory holds exactly plain files that its manifest names, so that removing it takes nothing else along."""
    try:
        named = {*json.loads((report.path / MANIFEST).read_bytes())["files"], MANIFEST}
        with os.scandir(report.path) as entries:
            return all(entry.name in named and entry.is_file(follow_symlinks=False) for entry in entries)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def remove_report(report: OldFile) -> None:
    """Remove a report directory: out of sight first, under a name that the next run clears away if this is cut short.

    Raises:
        OSError: the disk refused.
    """
    hidden = report.path.with_name(f".{report.path.name}.{secrets.token_hex(4)}{PARTIAL}")
    report.path.rename(hidden)
    sync_directory(hidden.parent)
    remove_tree(hidden)
    remove_if_empty(report.path.parent)


def remove_file(old: OldFile) -> None:
    """Remove one file.

    Raises:
        OSError: the disk refused.
    """
    old.path.unlink(missing_ok=True)


def remove_if_empty(directory: Path) -> None:
    """Remove a directory in which nothing is left."""
    try:
        directory.rmdir()
    except OSError:
        return


def _directories(parent: Path) -> list[Path]:
    """The real directories in a real directory, by name."""
    if parent.is_symlink():
        return []
    try:
        with os.scandir(parent) as entries:
            return sorted(Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _files(directory: Path, pattern: re.Pattern[str]) -> Iterator[OldFile]:
    if directory.is_symlink():
        return
    try:
        with os.scandir(directory) as entries:
            names = sorted(entry.name for entry in entries if entry.is_file(follow_symlinks=False))
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in names:
        found = pattern.fullmatch(name)
        day = None if found is None else _day(found["day"])
        if found is not None and day is not None:
            yield OldFile(directory / name, found["run_id"], day)


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None
