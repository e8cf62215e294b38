"""Publishes a run's report as one directory that appears whole or not at all.

Layout: `<root>/run_date=YYYY-MM-DD/run_id=<RUN_ID>/`, for dry runs below `<root>/dry_run=true/`; the symlinks `latest` and
`last_attempt` in the root. Names that begin with a dot are unfinished or replaced and never to be read.
"""

from __future__ import annotations

import grp
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from reconcile.errors import ReportError
from reconcile.model import RunStamp
from reports.columns import TABLES
from reports.control import ControlInputs, control_totals
from reports.csv_files import csv_chunks, read_csv
from reports.disk import (
    Access,
    exchange,
    give_directory,
    make_directories,
    owned,
    point_link,
    remove_tree,
    reporting,
    sync_directory,
    write_file,
)
from reports.ledger_change import LEDGER_CHANGE, LedgerPlace, ledger_change
from reports.manifest import MANIFEST, SUMMARY, as_json, holds, is_complete, manifest_of, refuse_strangers
from reports.parquet_files import parquet_chunks, read_parquet
from reports.past_nights import Past
from reports.summary import RunFacts, build_summary

LATEST = "latest"
LAST_ATTEMPT = "last_attempt"
LINKED_COMMANDS = ("run", "apply", "resume")
"""Commands whose reports the symlinks may name; the others publish beside them."""

PARTIAL = ".partial"
REPLACED = ".replaced"

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,119}")
_TARGET = re.compile(r"run_date=(\d{4}-\d{2}-\d{2})/run_id=([^/]+)")


@dataclass(frozen=True, slots=True)
class Published:
    """Where a report lies, and its summary.

    `files` are the SHA-256 of everything in it by name, none where an earlier report of the run was left as it is; `past` is what its page
    told of the time before it, None where there is no page. `changed` is False where the same report lay there already.
    """

    path: Path
    summary: Mapping[str, object]
    files: Mapping[str, str] = field(default_factory=dict)
    past: Past | None = None
    changed: bool = True


def _ignore(_step: str) -> None:
    """Nobody is told how far publishing has come."""


@dataclass(frozen=True, slots=True)
class ReportDirectory:
    """The root of all reports, and how files are written there.

    `ledger` is where the change that replaced accounts ask for is to be made. `formats` are of csv, parquet, xlsx and html. `reached` is told
    each step of publishing by name, so that a test can end the process there; `swap` exchanges two directories in one step, or says False
    where that cannot be done.
    """

    root: Path
    formats: tuple[str, ...] = ("csv", "parquet")
    file_mode: int = 0o600
    group: str | None = None
    ledger: LedgerPlace = field(default_factory=LedgerPlace)
    reached: Callable[[str], None] = field(default=_ignore, repr=False)
    swap: Callable[[Path, Path], bool] = field(default=exchange, repr=False)

    def publish(
        self, facts: RunFacts, tables: Mapping[str, pa.Table], control_inputs: Mapping[str, ControlInputs] | None = None
    ) -> Published:
        """Publish every file of a run that reached its report, and move the links if it is their run.

        Raises:
            ReportError: the disk refused; the reports that were there before are untouched.
            ValueError: a table is missing or breaks its contract.
        """
        missing = [name for name in TABLES if name not in tables]
        if missing:
            raise ValueError(f"report tables missing: {', '.join(missing)}")
        inputs = dict(control_inputs or {})
        summary = build_summary(facts, tables, control_totals(tables, inputs))
        return self._publish(facts, tables, summary, inputs)

    def rebuild(
        self,
        facts: RunFacts,
        tables: Mapping[str, pa.Table],
        control_inputs: Mapping[str, ControlInputs],
        past: Past | None = None,
    ) -> Published:
        """Publish the report of a past run once more: what lies there already in the same bytes stays, and no link moves.

        Args:
            past: what its page told of the time before it; None for the reports that lie there.

        Raises:
            ReportError: the disk refused, or something else than the report's own files lies in its directory.
        """
        summary = build_summary(facts, tables, control_totals(tables, control_inputs))
        final = self.path_of(facts.stamp)
        access = self.access
        with reporting(final):
            self._refuse_links(final)
            refuse_strangers(final)
            make_directories(final.parent, access)
            chosen = self._past(summary) if past is None else past
            files, changed = self._put(final, access, facts, tables, summary, control_inputs, chosen, keep_equal=True)
        return Published(final, summary, files, chosen, changed)

    def publish_stopped(self, facts: RunFacts) -> Published:
        """Publish only the summary and the manifest of a run that stopped; a complete report of the same run stays as it is."""
        return self._publish(facts, {}, build_summary(facts, None), {})

    def path_of(self, stamp: RunStamp) -> Path:
        """Where the report of a run lies or will lie.

        Raises:
            ReportError: the run id could name something outside.
        """
        if not _SAFE_NAME.fullmatch(stamp.run_id):
            raise ReportError(
                f"run id {stamp.run_id!r} is no name for a directory: use letters, digits, dot, dash and underscore"
            )
        root = self.root / "dry_run=true" if stamp.dry_run else self.root
        return root / f"run_date={stamp.business_date.isoformat()}" / f"run_id={stamp.run_id}"

    def _publish(
        self,
        facts: RunFacts,
        tables: Mapping[str, pa.Table],
        summary: Mapping[str, object],
        inputs: Mapping[str, ControlInputs],
    ) -> Published:
        final = self.path_of(facts.stamp)
        access = self.access
        files: Mapping[str, str] = {}
        past = None
        with reporting(final):
            if facts.complete or not is_complete(final):
                self._refuse_links(final)
                make_directories(final.parent, access)
                past = self._past(summary)
                files, _ = self._put(final, access, facts, tables, summary, inputs, past)
            self._move_links(facts, final)
        return Published(final, summary, files, past)

    def _past(self, summary: Mapping[str, object]) -> Past | None:
        if not {"html", "xlsx"} & set(self.formats):
            return None
        # Imported here: other formats need neither Jinja nor the drawing library.
        from reports.page import past_before

        return past_before(self.root, summary)

    def _put(
        self,
        final: Path,
        access: Access,
        facts: RunFacts,
        tables: Mapping[str, pa.Table],
        summary: Mapping[str, object],
        inputs: Mapping[str, ControlInputs],
        past: Past | None,
        *,
        keep_equal: bool = False,
    ) -> tuple[Mapping[str, str], bool]:
        """Write a temporary sibling and give it the final name, in place of what had it; return the files and whether that was done.

        With `keep_equal`, what has the name and is the same stays there.
        """
        temporary = final.with_name(f".{final.name}.{secrets.token_hex(4)}{PARTIAL}")
        temporary.mkdir(mode=0o700)
        try:
            give_directory(temporary, access)
            with owned(temporary):
                self.reached("temporary made")
                entries = {}
                for name, rows, chunks in self._contents(facts.stamp, tables, summary, past, temporary):
                    self.reached(f"before {name}")
                    sha256, size = write_file(temporary / name, self._told(name, chunks), access)
                    entries[name] = {"sha256": sha256, "bytes": size, "rows": rows}
                    self.reached(f"after {name}")
                manifest = as_json(manifest_of(facts, summary, inputs, entries))
                own, _ = write_file(temporary / MANIFEST, [manifest], access)
                files = {MANIFEST: own, **{name: str(entry["sha256"]) for name, entry in entries.items()}}
                self.reached(f"after {MANIFEST}")
                if keep_equal and holds(final, files):
                    return files, False
                sync_directory(temporary)
                self.reached("temporary on disk")
                self._take_over(temporary, final)
        finally:
            # Holds what could not be finished, or the report that was replaced.
            remove_tree(temporary)
        self.reached("old report removed")
        return files, True

    def _told(self, name: str, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            yield chunk
            self.reached(f"part of {name}")

    def _take_over(self, temporary: Path, final: Path) -> None:
        if not os.path.lexists(final):
            temporary.rename(final)
        elif not self.swap(temporary, final):
            self._set_aside(temporary, final)
        self.reached("renamed")
        sync_directory(final.parent)
        self.reached("name on disk")

    def _set_aside(self, temporary: Path, final: Path) -> None:
        """Replace where the system cannot swap names; a crash between the two renames is mended by `clean_leftovers`."""
        aside = final.with_name(f".{final.name}.{secrets.token_hex(4)}{REPLACED}")
        with owned(final):
            final.rename(aside)
            self.reached("old report set aside")
            try:
                temporary.rename(final)
            except OSError:
                aside.rename(final)
                raise
        remove_tree(aside)

    def _contents(
        self,
        stamp: RunStamp,
        tables: Mapping[str, pa.Table],
        summary: Mapping[str, object],
        past: Past | None,
        temporary: Path,
    ) -> Iterator[tuple[str, int | None, Iterable[bytes]]]:
        """Name, rows and bytes of every file but the manifest; rows are None where a file has none.

        `temporary` takes what a writer has to put aside, so that nothing of a customer ever lies outside the reports.
        """
        for name, contract in TABLES.items():
            if name not in tables:
                continue
            table = tables[name]
            if "csv" in self.formats:
                yield f"{name}.csv", table.num_rows, csv_chunks(table, contract)
            if "parquet" in self.formats:
                yield f"{name}.parquet", table.num_rows, parquet_chunks(table, contract, stamp.run_id)
        if "account_successors" in tables:
            statements, change = ledger_change(stamp, tables, self.ledger)
            yield LEDGER_CHANGE, statements, [change]
        yield SUMMARY, None, [as_json(summary)]
        if past is None:
            return
        # Imported here: other formats need neither Jinja nor the drawing library nor the spreadsheet's.
        from reports.page import PAGE, page_html
        from reports.page_numbers import page_numbers
        from reports.workbook import WORKBOOK, workbook_chunks

        page = page_numbers(summary, tables or None, past)
        if "html" in self.formats:
            yield PAGE, None, [page_html(page).encode()]
        if "xlsx" in self.formats and tables:
            yield WORKBOOK, None, workbook_chunks(page, tables, stamp.as_of, temporary)

    def _move_links(self, facts: RunFacts, final: Path) -> None:
        stamp = facts.stamp
        if stamp.dry_run or stamp.command not in LINKED_COMMANDS:
            return
        target = f"{final.parent.name}/{final.name}"
        self.reached("before links")
        for name in (LAST_ATTEMPT, *([LATEST] if facts.complete else [])):
            link = self.root / name
            if not _names_newer(link, target):
                point_link(link, target)
            self.reached(f"{name} moved")

    def restore_link(self, name: str, stamp: RunStamp) -> bool:
        """Let a link name the report of a run, unless the report is not there, or the link names it or a later one; tell whether it moved.

        Unlike publishing, this never leads to an earlier report, not even where the later one is lost.
        """
        final, link = self.path_of(stamp), self.root / name
        target = f"{final.parent.name}/{final.name}"
        if not (final / MANIFEST).is_file() or (link.is_symlink() and not _names_older(link, target)):
            return False
        with reporting(link):
            point_link(link, target)
        return True

    def _refuse_links(self, final: Path) -> None:
        """A symlink on the way would let whoever made it choose where reports are written."""
        for path in (self.root / "dry_run=true", final.parent, final):
            if path.is_symlink():
                raise ReportError(f"reports cannot be written at {path}: it is a symlink; remove it")

    @property
    def access(self) -> Access:
        """Who may read what is published.

        Raises:
            ReportError: the group is gone.
        """
        if self.group is None:
            return Access(self.file_mode)
        try:
            return Access(self.file_mode, grp.getgrnam(self.group).gr_gid)
        except KeyError:
            raise ReportError(f"reports.group: there is no group {self.group!r}; create it or name another") from None


def read_table(path: Path) -> pa.Table:
    """Read one published table, `.parquet` or `.csv`, in the types of its contract.

    Raises:
        ValueError: the file is named after no table, or does not hold what its name says.
        OSError: it cannot be read.
    """
    contract = TABLES.get(path.stem)
    if contract is None or path.suffix not in (".csv", ".parquet"):
        raise ValueError(f"{path.name} is no report table")
    return read_parquet(path) if path.suffix == ".parquet" else read_csv(path, contract)


def _names_newer(link: Path, target: str) -> bool:
    """Whether a link already names a report of a later date, or of a later run on the same date."""
    if not link.is_symlink() or not link.exists():
        return False
    current, wanted = _TARGET.fullmatch(os.readlink(link)), _TARGET.fullmatch(target)
    return current is not None and wanted is not None and current.groups() > wanted.groups()


def _names_older(link: Path, target: str) -> bool:
    """Whether what a link says is an earlier report than the wanted one, or none of ours."""
    current, wanted = _TARGET.fullmatch(os.readlink(link)), _TARGET.fullmatch(target)
    return current is None or (wanted is not None and current.groups() < wanted.groups())
