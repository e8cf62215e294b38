"""Finds the reports of earlier runs and reads in place what they hold, for a run's page and for the trend of any dates.

A run's id begins with its time, so that the reports before it are those of smaller ids, for its own date or earlier ones: they are
the same however often its page is built again.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from reconcile.model import REPORT_WINDOW_DAYS
from reports.closed_lists import AFFECTED_FINDINGS
from reports.columns import TABLES
from reports.contract import SCHEMA_VERSION
from reports.control import count_in, exposure_totals
from reports.summary import ANSWERED, CURED

_DATE_NAME, _RUN_NAME = "run_date=", "run_id="

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
    return [one for one in runs_between(root, first, last) if one.run_id < run_id]


def runs_between(root: Path, first: date, last: date) -> list[PastRun]:
    """The published reports of some business dates, oldest first; dry runs are none."""
    found = []
    for on in (first + timedelta(days=passed) for passed in range((last - first).days + 1)):
        for directory in sorted((root / f"run_date={on.isoformat()}").glob(f"{_RUN_NAME}*")):
            try:
                manifest = json.loads((directory / "manifest.json").read_bytes())
                name, complete = directory.name.removeprefix(_RUN_NAME), manifest["complete"] is True
                found.append(PastRun(directory, name, on, str(manifest["command"]), complete))
            except (OSError, ValueError, KeyError, TypeError):
                continue
    return found


def dates_of(root: Path) -> list[date]:
    """The business dates of which there are reports, in order; dry runs' are none."""
    found = []
    for directory in root.glob(f"{_DATE_NAME}*/"):
        with suppress(ValueError):
            found.append(date.fromisoformat(directory.name.removeprefix(_DATE_NAME)))
    return sorted(found)


Id = tuple[str, str]
"""A merchant and what is told apart within it: an authorization's id or a request's."""


@dataclass(frozen=True, slots=True)
class PastNight:
    """One earlier business date: its newest complete report, how many accounts were broken in it, the money at stake in minor units
    by currency, and the bank logins (merchant, authorization) that were affected, with each one's next step.
    """

    run: PastRun
    broken: int
    at_stake: Mapping[str, int]
    affected: Mapping[Id, str]


@dataclass(frozen=True, slots=True)
class Flows:
    """What all reports of one business date tell of requests (merchant, request id): `created` and `unknown` are results of the call
    to Stripe, `answered` and `came_back` what was learnt on that date of requests of any date.
    """

    created: frozenset[Id] = frozenset()
    unknown: frozenset[Id] = frozenset()
    answered: frozenset[Id] = frozenset()
    came_back: frozenset[Id] = frozenset()

    def __or__(self, other: Flows) -> Flows:
        """Both together, each request counted once."""
        return Flows(
            self.created | other.created,
            self.unknown | other.unknown,
            self.answered | other.answered,
            self.came_back | other.came_back,
        )


@dataclass(frozen=True, slots=True)
class PastOutcome:
    """A row of `relink_outcomes` as a report of some date had it."""

    run: PastRun
    row: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Past:
    """What the reports before a run say. `base` is the last complete one, with its accounts; `unread` names what could not be read,
    `tabled` those whose tables were read.
    """

    runs: Sequence[PastRun] = ()
    nights: Sequence[PastNight] = ()
    outcomes: Sequence[PastOutcome] = ()
    flows: Mapping[date, Flows] = field(default_factory=dict)
    base: PastRun | None = None
    base_accounts: pa.Table | None = None
    unread: Sequence[str] = ()
    tabled: frozenset[str] = frozenset()


class LookedBack(NamedTuple):
    """One of the reports that a page was made with: its name, whose it was, and whether its tables were read and were a night's."""

    name: str
    command: str
    complete: bool
    tabled: bool
    night: bool


def looked_back(past: Past) -> tuple[LookedBack, ...]:
    """The reports that a page was made with: the same ones make the same page again, whatever was published since."""
    nights = {night.run.name for night in past.nights}
    return tuple(
        LookedBack(one.name, one.command, one.complete, one.name in past.tabled, one.name in nights)
        for one in past.runs
    )


ACCOUNT_COLUMNS = ("finding", "ledger_status", "exposure_minor", "currency")
BASE_COLUMNS = ("merchant", "account_id", "authorization_id", *ACCOUNT_COLUMNS)
OUTCOME_COLUMNS = (
    *("merchant", "request_id", "authorization_id", "institution_name", "outcome", "session_status"),
    *("accounts_expected", "accounts_cured", "hours_to_outcome", "outcome_at_basis", "requested_at"),
)
AUTHORIZATION_COLUMNS = ("merchant", "authorization_id", "affected_accounts", "next_step")


def read_past(root: Path, run_id: str, run_date: date, command: str) -> Past:
    """Read what a run's page tells of the time before it, in place; a damaged report is named and left out."""
    return _with_outcomes(past_runs(root, run_id, run_date, command), _from_disk)


def read_past_again(
    root: Path,
    before: Iterable[LookedBack],
    unread: Sequence[str],
    rebuilt: Callable[[PastRun, str], pa.Table | None],
) -> Past:
    """What a page told of the time before it, from the very reports that it was made with.

    Args:
        unread: reports that could not be read even then.
        rebuilt: gives a table, by its name, of a report that is there no more; None where it cannot.
    """
    chosen = {one.name: one for one in before}
    runs = []
    for one in chosen.values():
        on, _, directory = one.name.partition("/")
        run_date = date.fromisoformat(on.removeprefix(_DATE_NAME))
        runs.append(PastRun(root / one.name, directory.removeprefix(_RUN_NAME), run_date, one.command, one.complete))

    def read(run: PastRun, table: str, columns: Sequence[str]) -> pa.Table | None:
        found = _from_disk(run, table, columns)
        if found is None:
            again = rebuilt(run, table)
            found = None if again is None else again.select(list(columns))
        return found

    past = _with_outcomes(runs, read, chosen)
    return replace(past, unread=[*(name for name in unread if name not in past.unread), *past.unread])


Reader = Callable[[PastRun, str, Sequence[str]], pa.Table | None]
"""Gives some columns of a report's table; None where they cannot be read."""


def _from_disk(run: PastRun, table: str, columns: Sequence[str]) -> pa.Table | None:
    return read_columns(run.path / f"{table}.parquet", columns)


def _with_outcomes(runs: Sequence[PastRun], read: Reader, chosen: Mapping[str, LookedBack] | None = None) -> Past:
    outcomes: list[PastOutcome] = []
    past = _read(runs, outcomes, read, chosen)
    unread = list(past.unread)
    for night in reversed(past.nights):
        accounts = read(night.run, "accounts", BASE_COLUMNS)
        if accounts is not None:
            return replace(past, outcomes=outcomes, base=night.run, base_accounts=accounts, unread=unread)
        unread.append(night.run.name)
    return replace(past, outcomes=outcomes, unread=unread)


def read_dates(root: Path, first: date, last: date) -> Past:
    """Read what the trend tells of some business dates: their runs, nights and flows; a damaged report is named and left out."""
    return _read(runs_between(root, first, last), None, _from_disk)


def _read(
    runs: Sequence[PastRun],
    outcomes: list[PastOutcome] | None,
    read: Reader,
    chosen: Mapping[str, LookedBack] | None = None,
) -> Past:
    """Runs, nights and flows; the rows of outcomes are put into the list where one is given.

    Args:
        chosen: which of the runs are read, and which of them are nights; without it the files tell.
    """
    newest = {id(one) for one in newest_complete(runs)}
    nights: list[PastNight] = []
    flows: defaultdict[date, Flows] = defaultdict(Flows)
    unread: list[str] = []
    tabled: set[str] = set()
    for one in runs:
        has_tables = (one.path / "relink_outcomes.parquet").exists() if chosen is None else chosen[one.name].tabled
        if not has_tables:
            continue  # it stopped, or its formats have no Parquet
        answered = read(one, "relink_outcomes", OUTCOME_COLUMNS)
        requests = read(one, "relink_requests", ("merchant", "request_id", "result"))
        if answered is None or requests is None:
            unread.append(one.name)
            continue
        tabled.add(one.name)
        flows[one.run_date] |= flows_of(requests, answered)
        if outcomes is not None:
            outcomes.extend(PastOutcome(one, row) for row in answered.to_pylist())
        if id(one) in newest if chosen is None else chosen[one.name].night:
            accounts = read(one, "accounts", ACCOUNT_COLUMNS)
            logins = read(one, "authorizations", AUTHORIZATION_COLUMNS)
            if accounts is None or logins is None:
                unread.append(one.name)
            else:
                nights.append(past_night(one, accounts, logins))
    return Past(runs, nights, flows=dict(flows), unread=unread, tabled=frozenset(tabled))


def flows_of(requests: pa.Table, outcomes: pa.Table) -> Flows:
    """What one report tells of requests."""
    return Flows(
        _ids_where(requests, "result", ("created",)),
        _ids_where(requests, "result", ("unknown",)),
        _ids_where(outcomes, "outcome", ANSWERED),
        _ids_where(outcomes, "outcome", CURED),
    )


def _ids_where(table: pa.Table, column: str, values: Iterable[object]) -> frozenset[Id]:
    found = table.filter(pc.is_in(table[column], pa.array([str(value) for value in values])))
    return frozenset(zip(found["merchant"].to_pylist(), found["request_id"].to_pylist(), strict=True))


def past_night(run: PastRun, accounts: pa.Table, logins: pa.Table) -> PastNight:
    """What a night's tables say for the trend and the funnel."""
    affected = logins.filter(pc.greater(logins["affected_accounts"], 0)).select(list(AUTHORIZATION_COLUMNS)).to_pylist()
    return PastNight(
        run,
        count_in(accounts["finding"], AFFECTED_FINDINGS),
        exposure_totals(accounts),
        {(row["merchant"], row["authorization_id"]): row["next_step"] for row in affected},
    )


def newest_complete(runs: Sequence[PastRun]) -> list[PastRun]:
    """For each business date its newest report of a complete run, or a rebuilt one where it had none."""
    chosen: dict[date, PastRun] = {}
    for one in runs:
        before = chosen.get(one.run_date)
        if one.is_base and (before is None or one.command != "backfill" or before.command == "backfill"):
            chosen[one.run_date] = one
    return list(chosen.values())


def read_columns(path: Path, columns: Sequence[str]) -> pa.Table | None:
    """Some columns of a published Parquet table, or None where it is missing or damaged.

    A column that came into the table after the file was written is null throughout.
    """
    try:
        with pq.ParquetFile(path) as file:
            there = set(file.schema_arrow.names)
            table = file.read(columns=[name for name in columns if name in there])
            if not there.issuperset(columns):
                if int((file.schema_arrow.metadata or {})[b"schema_version"]) >= SCHEMA_VERSION:
                    return None
                contract = TABLES[path.stem].schema
                for name in columns:
                    if name not in there:
                        table = table.append_column(name, pa.nulls(table.num_rows, contract.field(name).type))
            return table.select(list(columns))
    except (OSError, ValueError, KeyError):
        return None


def read_summary(directory: Path) -> Mapping[str, object] | None:
    """The summary of a published report, or None where there is none to be read."""
    try:
        summary = json.loads((directory / "summary.json").read_bytes())
    except (OSError, ValueError):
        return None
    return summary if isinstance(summary, dict) else None
