"""Reads from the reports of earlier runs, in place, what a run's page and the trend of any dates tell of the time before."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from reconcile.model import BROUGHT_BACK
from reports.closed_lists import AFFECTED_FINDINGS
from reports.control import count_in, exposure_totals
from reports.past_runs import PastRun, named_run, newest_complete, past_runs, read_columns, runs_between
from reports.summary import ANSWERED

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
    runs = [named_run(root, one.name, one.command, complete=one.complete) for one in chosen.values()]

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
        _ids_where(outcomes, "outcome", BROUGHT_BACK),
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
