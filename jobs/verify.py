"""Whether a published report still is what its run wrote: by itself, and by what the records kept of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from jobs.adapters import records
from jobs.adapters.database import Database
from jobs.report_facts import unpack
from reports.manifest import MANIFEST
from reports.verification import verify


@dataclass(frozen=True, slots=True)
class Verified:
    """What is wrong with a report, a sentence each; `recorded` says whether the records had something to compare it with."""

    faults: tuple[str, ...]
    recorded: bool


def verify_report(database: Database, directory: Path) -> Verified:
    """Compare a report with its manifest and control totals, and its manifest with the hashes that the run recorded.

    A stopped run and a dry run leave nothing in the records, nor did versions before there were such hashes.

    Raises:
        DatabaseError: the records cannot be read.
    """
    faults = verify(directory)
    try:
        content = (directory / MANIFEST).read_bytes()
        manifest = json.loads(content)
        run_id = str(manifest["run_id"])
        written = {name: str(entry["sha256"]) for name, entry in manifest["files"].items()}
        written[MANIFEST] = hashlib.sha256(content).hexdigest()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Verified(tuple(faults), recorded=False)
    stored = records.report_facts_of(database, run_id)
    published = {} if stored is None else unpack(stored).files
    if published:
        faults.extend(_differences(written, published))
    return Verified(tuple(faults), recorded=bool(published))


def _differences(written: Mapping[str, str], published: Mapping[str, str]) -> Iterator[str]:
    for name in sorted({*written, *published}):
        if name not in published:
            yield f"{name}: the run published no such file"
        elif name not in written:
            yield f"{name}: was published, and the manifest does not name it"
        elif written[name] != published[name]:
            yield f"{name}: is not what the run published; `relink backfill` writes it anew from the records"
