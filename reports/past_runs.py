"""Finds the reports that were there before a run, and reads what they hold; the same ones however often its page is built again.

A run's id begins with its time, so that the reports before it are those of smaller ids, for its own date or earlier ones.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from reconcile.model import REPORT_WINDOW_DAYS
from reports.closed_lists import AFFECTED_FINDINGS
from reports.control import count_in, exposure_totals

_RUN_NAME = "run_id="

COMPLETE_COMMANDS = ("run", "apply", "resume", "backfill")
"""Commands whose complete reports describe every account of a business date."""


@dataclass(frozen=True, slots=True)
class PastRun:
    """One published report of an earlier moment; `path` is its directory."""

    path: Path
    run_id: str
    run_date: date
    command: str
    complete: bool

    @property
    def is_base(self) -> bool:
        """Whether it describes a whole business date, so that a later one can be compared with it."""
        return self.complete and self.command in COMPLETE_COMMANDS

    @property
    def name(self) -> str:
        """Its place below the reports directory."""
        return f"{self.path.parent.name}/{self.path.name}"


def past_runs(root: Path, run_id: str, run_date: date, command: str) -> list[PastRun]:
    """The reports of the 30 business dates up to a run that were published before it, oldest first; dry runs are none.

    A backfill looks at earlier dates only, since its own date's first report is what it rebuilds. What is no report of ours, or
    has no readable manifest, is passed over.
    """
    first = run_date - timedelta(days=REPORT_WINDOW_DAYS - 1)
    last = run_date - timedelta(days=1) if command == "backfill" else run_date
    found = []
    for on in (first + timedelta(days=passed) for passed in range((last - first).days + 1)):
        for directory in sorted((root / f"run_date={on.isoformat()}").glob(f"{_RUN_NAME}*")):
            name = directory.name.removeprefix(_RUN_NAME)
            if name >= run_id:
                continue
            try:
                manifest = json.loads((directory / "manifest.json").read_bytes())
                found.append(PastRun(directory, name, on, str(manifest["command"]), manifest["complete"] is True))
            except (OSError, ValueError, KeyError, TypeError):
                continue
    return found


@dataclass(frozen=True, slots=True)
class PastNight:
    """One earlier business date: its newest complete report, how many accounts were broken in it, the money at stake in minor units
    by currency, and the bank logins (merchant, authorization) that were affected, with each one's next step.
    """

    run: PastRun
    broken: int
    at_stake: Mapping[str, int]
    affected: Mapping[tuple[str, str], str]


@dataclass(frozen=True, slots=True)
class PastOutcome:
    """A row of `relink_outcomes` as a report of some date had it."""

    run: PastRun
    row: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Past:
    """What the reports before a run say. `base` is the last complete one, with its accounts; `unread` names what could not be read.

    `created` are the requests (merchant, request id) for which each date made a session.
    """

    nights: Sequence[PastNight] = ()
    outcomes: Sequence[PastOutcome] = ()
    created: Mapping[date, frozenset[tuple[str, str]]] = field(default_factory=dict)
    base: PastRun | None = None
    base_accounts: pa.Table | None = None
    unread: Sequence[str] = ()


BASE_COLUMNS = ("merchant", "account_id", "authorization_id", "finding", "ledger_status", "exposure_minor", "currency")
OUTCOME_COLUMNS = (
    *("merchant", "request_id", "authorization_id", "institution_name", "outcome", "session_status"),
    *("accounts_expected", "accounts_cured", "hours_to_outcome", "outcome_at_basis", "requested_at"),
)
AUTHORIZATION_COLUMNS = ("merchant", "authorization_id", "affected_accounts", "next_step")


def read_past(root: Path, run_id: str, run_date: date, command: str) -> Past:
    """Read what a run's page tells of the time before it, in place; a damaged report is named and left out."""
    runs = past_runs(root, run_id, run_date, command)
    chosen = {id(one) for one in _newest_complete(runs)}
    nights: list[PastNight] = []
    outcomes: list[PastOutcome] = []
    created: dict[date, set[tuple[str, str]]] = {}
    unread: list[str] = []
    base: PastRun | None = None
    base_accounts: pa.Table | None = None
    for one in runs:
        if not (one.path / "relink_outcomes.parquet").exists():
            continue  # it stopped, or its formats have no Parquet
        answered = read_columns(one.path / "relink_outcomes.parquet", OUTCOME_COLUMNS)
        requests = read_columns(one.path / "relink_requests.parquet", ("merchant", "request_id", "result"))
        if answered is None or requests is None:
            unread.append(one.name)
            continue
        outcomes.extend(PastOutcome(one, row) for row in answered.to_pylist())
        created.setdefault(one.run_date, set()).update(created_in(requests))
        if id(one) in chosen:
            accounts = read_columns(one.path / "accounts.parquet", BASE_COLUMNS)
            logins = read_columns(one.path / "authorizations.parquet", AUTHORIZATION_COLUMNS)
            if accounts is None or logins is None:
                unread.append(one.name)
                continue
            nights.append(past_night(one, accounts, logins))
            base, base_accounts = one, accounts
    by_date = {on: frozenset(requests) for on, requests in created.items()}
    return Past(nights, outcomes, by_date, base, base_accounts, unread)


def created_in(requests: pa.Table) -> frozenset[tuple[str, str]]:
    """The requests (merchant, request id) for which Stripe made a session."""
    made = requests.filter(pc.equal(requests["result"], "created"))
    return frozenset(zip(made["merchant"].to_pylist(), made["request_id"].to_pylist(), strict=True))


def past_night(run: PastRun, accounts: pa.Table, logins: pa.Table) -> PastNight:
    """What a night's tables say for the trend and the funnel."""
    affected = logins.filter(pc.greater(logins["affected_accounts"], 0)).select(list(AUTHORIZATION_COLUMNS)).to_pylist()
    return PastNight(
        run,
        count_in(accounts["finding"], AFFECTED_FINDINGS),
        exposure_totals(accounts),
        {(row["merchant"], row["authorization_id"]): row["next_step"] for row in affected},
    )


def _newest_complete(runs: Sequence[PastRun]) -> list[PastRun]:
    """For each business date its newest report of a complete run, or a rebuilt one where it had none."""
    chosen: dict[date, PastRun] = {}
    for one in runs:
        before = chosen.get(one.run_date)
        if one.is_base and (before is None or one.command != "backfill" or before.command == "backfill"):
            chosen[one.run_date] = one
    return list(chosen.values())


def read_columns(path: Path, columns: Sequence[str]) -> pa.Table | None:
    """Some columns of a published Parquet table, or None where it is missing, damaged or of a version without them."""
    try:
        with pq.ParquetFile(path) as file:
            return file.read(columns=list(columns)).select(list(columns))
    except (OSError, ValueError, KeyError):
        return None


def read_summary(directory: Path) -> Mapping[str, object] | None:
    """The summary of a published report, or None where there is none to be read."""
    try:
        summary = json.loads((directory / "summary.json").read_bytes())
    except (OSError, ValueError):
        return None
    return summary if isinstance(summary, dict) else None
