"""Tries whether reports can be written, and clears away what runs that died left unfinished."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from reconcile.errors import ReportError
from reports.disk import Access, owned, remove_tree, reporting, sync_directory, write_file
from reports.files import LAST_ATTEMPT, LATEST, PARTIAL, REPLACED


def check_writable(root: Path, access: Access | None = None) -> None:
    """Try whether reports can be written with their mode and group, without leaving anything behind.

    Raises:
        ReportError: naming the path and how to mend it.
    """
    with reporting(root):
        above = root
        while not os.path.lexists(above) and above != above.parent:
            above = above.parent
        probe = above / f".check.{secrets.token_hex(4)}"
        try:
            write_file(probe, [b"can be written\n"], access or Access())
        finally:
            if above.is_dir():
                probe.unlink(missing_ok=True)
    for name in (LATEST, LAST_ATTEMPT):
        link = root / name
        if os.path.lexists(link) and not link.is_symlink():
            raise ReportError(f"{link} is not the symlink that the job makes there: move it away")


def clean_leftovers(root: Path) -> list[Path]:
    """Remove what runs that died left unfinished, and put back a report that one had set aside; return what was dealt with.

    What another process is still writing is left alone.
    """
    dealt_with = []
    with reporting(root):
        for link in (*root.glob(f".{LATEST}.*"), *root.glob(f".{LAST_ATTEMPT}.*"), *root.glob(".check.*")):
            link.unlink(missing_ok=True)
            dealt_with.append(link)
        for dates in (root, root / "dry_run=true"):
            # What was set aside comes first, so that a final name that is missing is mended before anything is removed.
            for pattern in (f"run_date=*/.run_id=*{REPLACED}", f"run_date=*/.run_id=*{PARTIAL}"):
                for leftover in sorted(dates.glob(pattern)):
                    if not leftover.parent.is_symlink() and _settle(leftover):
                        dealt_with.append(leftover)
    return dealt_with


def _settle(leftover: Path) -> bool:
    with owned(leftover) as free:
        if not free:
            return False
        final = leftover.with_name(leftover.name[1:].rsplit(".", 2)[0])
        if leftover.name.endswith(REPLACED) and not os.path.lexists(final):
            leftover.rename(final)
        elif not remove_tree(leftover):
            return False
        sync_directory(leftover.parent)
        return True
