"""What it costs to reconcile two stored nights, at once and in parts: `python -m benchmarks.reconcile_cost [--accounts N] [--ways parts,whole]`.

The snapshots are made first, from `benchmarks/world.py` and divided by customer, in a directory that is removed afterwards. Then each way is a
process of its own, whose time, CPU time and peak memory the system counts: the history of the first night, findings, outages, brakes, the
plan and the tables `accounts` and `authorizations` of the second, written as Parquet. What the ways found is compared.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.night import machine
from benchmarks.world import (
    ACCOUNTS_PER_LOGIN,
    FIRST_NIGHT,
    INSTITUTIONS,
    PERMISSION_SETS,
    STATES,
    SUBCATEGORIES,
    World,
)
from jobs.adapters.snapshots import SnapshotStore, StoredPart
from reconcile.brakes import BrakeInputs, BrakeTally, apply_brakes, judge_brakes
from reconcile.breakages import advance_breakages, step_breakages
from reconcile.classify import classify
from reconcile.contacts import Contacts
from reconcile.frames import ACCOUNTS, HISTORY, LEDGER, TEXT, empty, from_columns
from reconcile.history import advance_history
from reconcile.model import BreakageKey, Plan, RunStamp, Scope
from reconcile.partitioned import classify_parts, plan_parts
from reconcile.partitions import ROWS_PER_PART, Part, part_numbers
from reconcile.plan import PlanInputs, plan
from reconcile.policy import BrakePolicy, RelinkPolicy
from reports.tables import accounts_table, authorizations_table

SCOPE = Scope("main", "sandbox")
LOGINS_AT_ONCE = 250_000
NIGHTS = (1, 2)


def main() -> None:
    """Make the snapshots, run each way, print a Markdown table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.reconcile_cost",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--accounts", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ways", default="parts,whole", help="%(default)s; whole needs some 2 GiB a million accounts")
    parser.add_argument("--rows-per-part", type=int, default=ROWS_PER_PART)
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--directory", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.way:
        sys.stdout.write(json.dumps(_reconcile(Path(given.directory), given.way)))
        return
    with tempfile.TemporaryDirectory(prefix="relink-bench-") as directory:
        _make(Path(directory), given.accounts, given.seed, given.rows_per_part)
        parts = -(-given.accounts // given.rows_per_part)
        sys.stdout.write(f"{given.accounts:,} accounts, {parts} parts; {machine()}\n\n")
        sys.stdout.write("| way | wall s | CPU s | CPU µs an account | peak MiB |\n|---|---|---|---|---|\n")
        found = {}
        for way in given.ways.split(","):
            wall, cpu, peak, found[way] = _run(Path(directory), way)
            figures = f"{wall:.1f} | {cpu:.1f} | {cpu / given.accounts * 1e6:.1f} | {peak:.0f}"
            sys.stdout.write(f"| {way} | {figures} |\n")
            sys.stdout.flush()
    if len({json.dumps(one, sort_keys=True) for one in found.values()}) > 1:
        raise SystemExit(f"the ways differ: {found}")
    sys.stdout.write(f"\nfound: {json.dumps(next(iter(found.values())))}\n")


def _run(directory: Path, way: str) -> tuple[float, float, float, dict[str, Any]]:
    command = [sys.executable, "-m", "benchmarks.reconcile_cost", "--way", way, "--directory", str(directory)]
    answer = directory / f"{way}.json"
    started = time.monotonic()
    with answer.open("wb") as file:
        process = subprocess.Popen(command, stdout=file)  # noqa: S603 - our own module
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{way} ended with {process.returncode}")
    wall = time.monotonic() - started
    return wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, json.loads(answer.read_bytes())


def _stamp(night: int) -> RunStamp:
    at = FIRST_NIGHT + timedelta(days=night - 1)
    return RunStamp(f"night{night}", "run", at, at.date(), "UTC")


def _make(directory: Path, accounts: int, seed: int, rows_per_part: int) -> None:
    """Write both nights' snapshots, of which one part at a time is in memory."""
    store = SnapshotStore(directory)
    kept = []
    for night in NIGHTS:
        stored = store.write_parts(
            SCOPE,
            f"night{night}",
            _parts(World(accounts, seed, night), directory, -(-accounts // rows_per_part)),
            snapshot_id=f"night{night}",
            taken_at=_stamp(night).as_of,
            completed_at=_stamp(night).as_of,
            settings={},
        )
        kept.append((stored.path, stored.sha256))
    (directory / "snapshots.json").write_text(json.dumps(kept))


def _parts(world: World, directory: Path, parts: int) -> Iterator[StoredPart]:
    """Divide the world as it comes, through a file for each part."""
    pieces = directory / "pieces"
    pieces.mkdir()
    for start in range(0, world.logins, LOGINS_AT_ONCE):
        accounts, ledger = _frames(world, start, min(start + LOGINS_AT_ONCE, world.logins))
        numbers = part_numbers(accounts, parts)
        for number in range(parts):
            chosen = numbers == number
            for name, frame in (("accounts", accounts), ("ledger", ledger)):
                table = pa.Table.from_pandas(frame.loc[chosen], preserve_index=False)
                pq.write_table(table, pieces / f"{number}-{name}-{start}.parquet", compression="lz4")
    first = {"accounts": 0, "ledger": 0}
    for number in range(parts):
        frames, rows = {}, {}
        for name, contract in (("accounts", ACCOUNTS), ("ledger", LEDGER)):
            files = sorted(pieces.glob(f"{number}-{name}-*.parquet"))
            table = pa.concat_tables([pq.read_table(file) for file in files])
            frames[name] = from_columns({column: table[column] for column in contract}, contract)
            rows[name] = pa.array(range(first[name], first[name] + len(table)))
            first[name] += len(table)
        yield StoredPart(frames["accounts"], frames["ledger"], rows["accounts"], rows["ledger"])
    shutil.rmtree(pieces)


def _frames(world: World, start: int, end: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Accounts and ledger of some logins, a ledger row for each account."""
    states = np.repeat(world.states()[start:end], ACCOUNTS_PER_LOGIN)
    numbers = np.arange(start * ACCOUNTS_PER_LOGIN, end * ACCOUNTS_PER_LOGIN)[
        : world.accounts - start * ACCOUNTS_PER_LOGIN
    ]
    states, logins = states[: len(numbers)], numbers // ACCOUNTS_PER_LOGIN
    rows = len(numbers)

    def words(choices: list[str | None], places: Any) -> pa.Array:
        return pa.array(choices, pa.string()).take(pa.array(places))

    def in_state(values: dict[str, Any], kind: pa.DataType = TEXT) -> pa.Array:
        return pa.array([values.get(state) for state in STATES], kind).take(pa.array(states))

    soon, late = datetime(2026, 12, 1, tzinfo=UTC), datetime(2027, 6, 1, tzinfo=UTC)
    expiring = {"expiring": "relink_required", "expiring_late": "relink_required"}
    status = {"expiring": "active", "expiring_late": "active", "inactive_permanent": "inactive"}
    account_ids = pa.array([f"fca_1Bn{number:017d}" for number in numbers.tolist()])
    holders = pa.array([f"cus_1Bn{login:011d}" for login in logins.tolist()])
    granted = words([";".join(sorted(names)) for names in PERMISSION_SETS], logins % len(PERMISSION_SETS))
    accounts = {
        **{name: pa.nulls(rows, kind) for name, kind in ACCOUNTS.items()},
        "account_id": account_ids,
        "authorization_id": pa.array([f"fcauth_1Bn{login:017d}" for login in logins.tolist()]),
        "holder_type": words(["customer"], np.zeros(rows, int)),
        "account_holder_id": holders,
        "institution_name": words([f"Bank of Town {number}" for number in range(INSTITUTIONS)], logins % INSTITUTIONS),
        "last4": words([f"{number:04d}" for number in range(10_000)], numbers % 10_000),
        "category": words(["cash"], np.zeros(rows, int)),
        "subcategory": words(list(SUBCATEGORIES), numbers % len(SUBCATEGORIES)),
        "stripe_status": in_state({state: status.get(state, state) for state in STATES}),
        "active_action": in_state(expiring),
        "active_cause": in_state(dict.fromkeys(expiring, "access_expired")),
        "inactive_action": in_state({"inactive": "relink_required", "inactive_permanent": "none"}),
        "inactive_cause": in_state({"inactive": "access_denied", "inactive_permanent": "unspecified"}),
        "expected_deactivation_at": in_state({"expiring": soon, "expiring_late": late}, pa.timestamp("us", "UTC")),
        "permissions": granted,
        "tokenized_numbers": pa.array(np.zeros(rows, bool)),
        "usable_number_unlimited": pa.array(np.zeros(rows, bool)),
    }
    ledger = {
        **{name: pa.nulls(rows, kind) for name, kind in LEDGER.items()},
        "account_id": account_ids,
        "ledger_holder_id": holders,
        "required_permissions": granted,
        "purpose": words(["data"], np.zeros(rows, int)),
        "ledger_status": words(["open", "closed"], (numbers % 50 == 0).astype(int)),
        "do_not_contact": pa.array(numbers % 331 == 0),
        "exposure_minor": pa.array(numbers * 7919 % 2_000_000),
        "currency": words(["USD", "EUR"], (numbers % 5 == 0).astype(int)),
    }
    return from_columns(accounts, ACCOUNTS), from_columns(ledger, LEDGER)


class _Shelf:
    """Findings of parts as files."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def put(self, part: int, findings: pd.DataFrame) -> None:
        table = pa.Table.from_pandas(findings, preserve_index=False)
        pq.write_table(table, self._directory / f"{part}.parquet", compression="lz4")

    def take(self, part: int) -> pd.DataFrame:
        table = pq.read_table(self._directory / f"{part}.parquet")
        return table.to_pandas(types_mapper=pd.ArrowDtype)


class _Written:
    """The tables as they are written, and what was found, in numbers and in hashes that do not depend on the order of rows."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._writers: dict[str, pq.ParquetWriter] = {}
        self.findings: Counter[str] = Counter()
        self.steps: Counter[str] = Counter()
        self.rows: Counter[str] = Counter()
        self.sums: dict[str, int] = {}

    def add(self, findings: pd.DataFrame, open_breakages: set[BreakageKey]) -> None:
        self.findings.update(findings["finding"].value_counts().to_dict())
        self.steps.update(findings["next_step"].value_counts().to_dict())
        self._write("accounts", accounts_table(SCOPE.merchant, findings))
        self._write("authorizations", authorizations_table(SCOPE.merchant, findings, (), open_breakages=open_breakages))

    def _write(self, name: str, table: pa.Table) -> None:
        if name not in self._writers:
            self._writers[name] = pq.ParquetWriter(
                self._directory / f"{name}.parquet", table.schema, compression="zstd"
            )
        self._writers[name].write_table(table)
        self.rows[name] += table.num_rows
        for column in ("exposure_minor", "shared_affected", "affected_accounts"):
            if column in table.column_names:
                self.sums[f"{name}.{column}"] = self.sums.get(f"{name}.{column}", 0) + sum(
                    chunk.to_pandas().sum().item() for chunk in table[column].drop_null().chunks
                )

    def close(self, made: Plan) -> dict[str, Any]:
        for writer in self._writers.values():
            writer.close()
        requests = json.dumps([(one.request_id, one.authorization_id, one.permissions) for one in made.requests])
        return {
            "findings": dict(sorted(self.findings.items())),
            "next_steps": dict(sorted(self.steps.items())),
            "rows": dict(self.rows),
            "sums": {name: int(total) for name, total in sorted(self.sums.items())},
            "decisions": len(made.decisions),
            "requests": hashlib.sha256(requests.encode()).hexdigest()[:16],
        }


def _inputs(breakages: Any, held: frozenset[str]) -> PlanInputs:
    return PlanInputs(SCOPE, _stamp(2), RelinkPolicy(), breakages, Contacts(), held_authorizations=held)


def _reconcile(directory: Path, way: str) -> dict[str, Any]:
    store = SnapshotStore(directory)
    snapshots = json.loads((directory / "snapshots.json").read_text())
    place = directory / way
    place.mkdir()
    result = (_whole if way == "whole" else _in_parts)(store, snapshots, place)
    shutil.rmtree(place)
    return result


def _brake_inputs(known: set[str]) -> BrakeInputs:
    return BrakeInputs(known, (), (), first_run=False, live=False)


def _whole(store: SnapshotStore, snapshots: list[tuple[str, str]], place: Path) -> dict[str, Any]:
    before, now = (store.read(*one) for one in snapshots)
    history = advance_history(empty(HISTORY), before.accounts, _stamp(1)).latest
    del before
    step = advance_history(history, now.accounts, _stamp(2))
    findings = classify(now.accounts, now.ledger, step.latest, RelinkPolicy(), _stamp(2))
    outages = advance_breakages((), {}, findings, (), _stamp(2))
    verdict = apply_brakes(findings, BrakePolicy(), _brake_inputs(_affected_in(findings)))
    planned, made = plan(findings, _inputs(outages.open, verdict.held_authorizations))
    written = _Written(place)
    written.add(planned, {one.key for one in outages.open})
    return written.close(made)


def _in_parts(store: SnapshotStore, snapshots: list[tuple[str, str]], place: Path) -> dict[str, Any]:
    pairs = zip(*(store.read_parts(*one) for one in snapshots), strict=True)
    parts = (
        Part(
            now.accounts, now.ledger, advance_history(empty(HISTORY), before.accounts, _stamp(1), first_run=True).latest
        )
        for before, now in pairs
    )
    shelf = _Shelf(place)
    overview = classify_parts(parts, shelf, RelinkPolicy(), _stamp(2), first_run=False, successors={})
    outages = step_breakages((), {}, overview.shown, _stamp(2))
    verdict = judge_brakes(overview.tally, BrakePolicy(), _brake_inputs(_affected(overview.tally)))
    written, keys = _Written(place), {one.key for one in outages.open}
    made = plan_parts(
        shelf,
        overview,
        _inputs(outages.open, verdict.held_authorizations),
        lambda part, findings: written.add(findings, keys),
    )
    return written.close(made)


def _affected(tally: BrakeTally) -> set[str]:
    return set(tally.affected["account_id"])


def _affected_in(findings: pd.DataFrame) -> set[str]:
    from reconcile.brakes import tally_brakes

    return _affected(tally_brakes(findings))


if __name__ == "__main__":
    main()
