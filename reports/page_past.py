"""What tonight's tables say together with earlier nights': what changed, how far requests came, how long answers took."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import quantiles
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from reconcile.model import BROUGHT_BACK
from reports.closed_lists import AFFECTED_FINDINGS
from reports.page_broken import LOST, TOP, UNNAMED, at_stake
from reports.page_model import NOT_SHOWN, SMALLEST_GROUP, Cell, Figure, Grid, Line, count, money, quoted
from reports.past_nights import Id, Past, PastNight, PastOutcome
from reports.past_runs import PastRun
from reports.summary import ANSWERED, UNASKED
from reports.trend import ELIGIBLE

Row = Mapping[str, Any]
WINDOW = "the reports of the 30 business dates up to tonight"


def changes(
    accounts: pa.Table, outcomes: Sequence[PastOutcome], past: Past
) -> tuple[Grid, dict[str, list[Row]]] | None:
    """What became broken and what came back since the last complete run, as a bridge that ties; None on a first run.

    Only merchants that both reports tell of are compared.
    """
    if past.base is None or past.base_accounts is None:
        return None
    merchants = set(pc.unique(accounts["merchant"]).to_pylist()) & set(
        pc.unique(past.base_accounts["merchant"]).to_pylist()
    )
    before, tonight = _in_question(past.base_accounts, merchants), _in_question(accounts, merchants)
    broken_before = {key for key, row in before.items() if row["finding"] in AFFECTED_FINDINGS}
    broken_now = {key for key, row in tonight.items() if row["finding"] in AFFECTED_FINDINGS}
    gone = broken_before - broken_now
    now = {**_rows_of(accounts, {account_id for _, account_id in gone}), **tonight}
    cured = {
        (one.row["merchant"], one.row["authorization_id"])
        for one in outcomes
        if one.row["outcome"] in BROUGHT_BACK and _after(one.run, past.base)
    }
    groups: dict[str, list[Row]] = {name: [] for name in ("new", "recovered", "healed", "lost", "other")}
    groups["new"] = [tonight[key] for key in sorted(broken_now - broken_before)]
    for key in sorted(gone):
        row = now.get(key)
        if row is None or row["finding"] in LOST:
            groups["lost"].append(before[key] if row is None else row)
        elif (key[0], before[key]["authorization_id"]) in cured:
            groups["recovered"].append(row)
        elif row["finding"] == "ok":
            groups["healed"].append(row)
        else:
            groups["other"].append(row)
    return _changes_grid(past.base, len(broken_before), len(broken_now), groups), groups


def _changes_grid(base: PastRun, before: int, now: int, groups: Mapping[str, Sequence[Row]]) -> Grid:
    words = {
        "new": ("new", "Broken tonight and not then."),
        "recovered": ("recovered", "Broken then, no longer; its customer relinked."),
        "healed": ("healed", "Broken then, sound tonight, without an answer from its customer."),
        "lost": ("lost", "Broken then; now disconnected, inactive for good or gone from Stripe."),
        "other": ("otherwise", "Broken then; now something else is in question, such as its holder."),
    }
    lines = [Line(f"broken on {base.run_date}", ((count("changes.before", before),), ()), total=True)]
    for key, (label, meaning) in words.items():
        sign = "+" if key == "new" else "\N{MINUS SIGN}"
        number = len(groups[key])
        figure = Figure(f"changes.{key}", number, f"{sign}{number:,}" if number else "0")
        lines.append(Line(label, ((figure,), money(f"changes.{key}", at_stake(groups[key]))), meaning))
    lines.append(Line("broken tonight", ((count("changes.now", now),), ()), total=True))
    broken = f"finding in {quoted(AFFECTED_FINDINGS)}"
    return Grid(
        "changes",
        f"What changed since the last complete run, {base.run_id}",
        ("What", "Accounts", "Money on them"),
        tuple(lines),
        (
            (f"broken on {base.run_date}", f"{base.name}/accounts.parquet where {broken}"),
            ("new", f"accounts.parquet where {broken}, less those account_ids"),
            (
                "recovered",
                f"those account_ids less accounts.parquet where {broken}, whose authorization_id then has outcome in {quoted(BROUGHT_BACK)} in a "
                "relink_outcomes.parquet since",
            ),
            ("healed", "of the remaining, accounts.parquet where finding = 'ok'"),
            (
                "lost",
                f"of those no longer broken, accounts.parquet where finding in {quoted(LOST)}, or no row (counted before the others)",
            ),
            ("Money on them", "sum of exposure_minor by currency over the same rows where ledger_status = 'open'"),
        ),
    )


def _in_question(accounts: pa.Table, merchants: Iterable[str]) -> dict[Id, Row]:
    wanted = pc.and_(
        pc.is_in(accounts["finding"], pa.array([*AFFECTED_FINDINGS, *LOST])),
        pc.is_in(accounts["merchant"], pa.array(sorted(merchants), type=pa.string())),
    )
    return _by_id(accounts.filter(wanted))


def _rows_of(accounts: pa.Table, account_ids: Iterable[str]) -> dict[Id, Row]:
    return _by_id(accounts.filter(pc.is_in(accounts["account_id"], pa.array(sorted(account_ids), type=pa.string()))))


def _by_id(accounts: pa.Table) -> dict[Id, Row]:
    columns = ["merchant", "account_id", "authorization_id", "finding", "ledger_status", "exposure_minor", "currency"]
    return {(row["merchant"], row["account_id"]): row for row in accounts.select(columns).to_pylist()}


def _after(run: PastRun, base: PastRun) -> bool:
    return (run.run_date, run.run_id) > (base.run_date, base.run_id)


def newest(outcomes: Sequence[PastOutcome]) -> dict[Id, Row]:
    """The newest row of each request; `outcomes` are oldest first."""
    return {(one.row["merchant"], one.row["request_id"]): one.row for one in outcomes}


def funnel_grid(nights: Sequence[PastNight], requests: Iterable[Row]) -> Grid:
    """How far the bank logins came that were affected at any time within 30 business dates, each counted once."""
    affected: set[Id] = {login for night in nights for login in night.affected}
    eligible = {login for night in nights for login, step in night.affected.items() if step in ELIGIBLE}
    steps: dict[str, set[Id]] = {name: set() for name in ("asked", "answered", "relinked", "active")}
    for row in requests:
        login = (row["merchant"], row["authorization_id"])
        if login not in eligible or row["outcome"] in UNASKED:
            continue
        steps["asked"].add(login)
        succeeded = row["outcome"] == "pending" and row["session_status"] == "succeeded"
        if row["outcome"] in ANSWERED or succeeded:
            steps["answered"].add(login)
        if row["outcome"] in BROUGHT_BACK or succeeded:
            steps["relinked"].add(login)
        if row["outcome"] in BROUGHT_BACK and (row["accounts_cured"] or 0) >= row["accounts_expected"]:
            steps["active"].add(login)
    counted = {"affected": len(affected), "eligible": len(eligible), **{name: len(one) for name, one in steps.items()}}
    words = {
        "affected": ("affected", "Bank logins with an account that a relink would mend."),
        "eligible": ("eligible", "Nothing but time, a limit or a person stands between them and a request."),
        "asked": ("asked", "A session was created for the customer."),
        "answered": ("answered", "The customer did something with the session."),
        "relinked": ("relinked", "Stripe says that the customer relinked, under the same or another login."),
        "active": ("active again", "Every account that was to come back shows as working."),
    }
    lines = []
    for name, (label, meaning) in words.items():
        lines.append(Line(label, ((count(f"funnel.{name}", counted[name]),), _part(name, counted)), meaning))
        if name == "asked":
            lines.append(
                Line(
                    "saw it",
                    ("not observable", ""),
                    "Whether the customer read the mail or opened the window, Stripe does not tell.",
                )
            )
    rows = "distinct merchant, authorization_id over"
    step = f"those with a row in {WINDOW}, the newest of each request in relink_outcomes.parquet, where"
    return Grid(
        "funnel",
        "How far the bank logins came that were affected within 30 business dates",
        ("Step", "Bank logins", "of affected"),
        tuple(lines),
        (
            ("affected", f"{rows} authorizations.parquet of each date's complete run where affected_accounts > 0"),
            ("eligible", f"the same and next_step in {quoted(ELIGIBLE)} on any date"),
            ("asked", f"{step} outcome not in {quoted(UNASKED)}"),
            (
                "answered",
                f"{step} outcome in {quoted(ANSWERED)}, or outcome = 'pending' and session_status = 'succeeded'",
            ),
            (
                "relinked",
                f"{step} outcome in {quoted(BROUGHT_BACK)}, or outcome = 'pending' and session_status = 'succeeded'",
            ),
            ("active again", f"{step} outcome in {quoted(BROUGHT_BACK)} and accounts_cured >= accounts_expected"),
        ),
    )


def _part(name: str, counted: Mapping[str, int]) -> Cell:
    whole = counted["affected"]
    if whole < SMALLEST_GROUP:
        return (Figure(f"funnel.{name}.share", None, NOT_SHOWN),)
    return (Figure(f"funnel.{name}.share", round(counted[name] / whole, 6), f"{counted[name] / whole:.0%}"),)


def times_grid(requests: Iterable[Row]) -> Grid:
    """Hours from the request to the relink, median and 90th percentile by institution."""
    hours: defaultdict[str, list[float]] = defaultdict(list)
    bounds: Counter[str] = Counter()
    for row in requests:
        if row["outcome"] in BROUGHT_BACK and row["hours_to_outcome"] is not None:
            name = row["institution_name"] or UNNAMED
            hours[name].append(row["hours_to_outcome"])
            bounds[name] += row["outcome_at_basis"] != "event"
    order = sorted(hours, key=lambda name: (-len(hours[name]), name))
    lines = [_time_line(f"times.{n}", name, hours[name], bounds[name]) for n, name in enumerate(order, start=1)]
    if lines:
        every = [one for each in hours.values() for one in each]
        lines.append(_time_line("times.all", "all", every, bounds.total(), total=True))
    chosen = f"outcome in {quoted(BROUGHT_BACK)} and hours_to_outcome is not null"
    return Grid(
        "times",
        "Hours from the request to the relink, by institution",
        ("Institution", "Relinked", "of them perhaps sooner", "Median hours", "90th percentile"),
        tuple(lines),
        (
            (
                "Relinked",
                f"the newest row of each request in relink_outcomes.parquet over {WINDOW} where {chosen}, by institution_name",
            ),
            (
                "of them perhaps sooner",
                "the same rows where outcome_at_basis is not 'event': the job saw it later than it happened",
            ),
            (
                "Median hours, 90th percentile",
                "quantiles 0.5 and 0.9 of hours_to_outcome over the same rows, interpolated",
            ),
        ),
        shown=TOP,
        empty="Nobody relinked within 30 business dates.",
    )


def _time_line(key: str, name: str, hours: Sequence[float], bounds: int, *, total: bool = False) -> Line:
    cells: tuple[Cell, ...] = (
        (count(f"{key}.relinked", len(hours)),),
        (count(f"{key}.bounds", bounds),),
        (_quantile(f"{key}.median", hours, 5),),
        (_quantile(f"{key}.p90", hours, 9),),
    )
    return Line(name, cells, total=total)


def _quantile(name: str, hours: Sequence[float], tenth: int) -> Figure:
    if len(hours) < SMALLEST_GROUP:
        return Figure(name, None, NOT_SHOWN)
    value = quantiles(hours, n=10, method="inclusive")[tenth - 1]
    return Figure(name, round(value, 4), f"{value:,.1f}")
