"""Puts together all that the page says, from a run's summary, its tables and the reports before it; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa

from reports import page_broken, page_past, page_requests
from reports.control import exposure_totals
from reports.page_broken import BROKEN_ROWS, MONEY_ROWS, UNDATED
from reports.page_calendar import calendar, lapses_grid
from reports.page_model import Cell, Figure, Grid, KeyFigure, Line, Notice, Page, count, money, plural
from reports.page_people import needs, notices
from reports.page_pictures import bars, stacked, trend
from reports.past_nights import Flows, Past, PastOutcome, flows_of, past_night
from reports.past_runs import PastRun
from reports.trend import trend_grid, trend_nights

STATES: Mapping[str, str] = {
    "complete": "Complete",
    "held": "Complete, requests held",
    "dry": "Dry run",
    "incomplete": "Not complete",
    "stopped": "Stopped",
}
"""What the banner calls each state of a run."""


TREND = "The last 30 business dates, night by night"
NEWEST = 10
"""Nights that are seen before the rest is unfolded."""


def page_numbers(summary: Mapping[str, Any], tables: Mapping[str, pa.Table] | None, past: Past) -> Page:
    """Everything on the page; `summary` is that of the same run, `tables` None for one that stopped before its report."""
    state = _state(summary)
    found = tuple(notices(summary, past))
    page = Page(
        run=_run(summary),
        state=state,
        verdict=_verdict(summary, state, found),
        notices=found,
        keys=(),
        control=_control_grid(summary),
    )
    return _stopped(page, past) if tables is None else _reported(page, summary, tables, past)


def _reported(page: Page, summary: Mapping[str, Any], tables: Mapping[str, pa.Table], past: Past) -> Page:
    accounts, window = tables["accounts"], tables["failure_reasons"]
    run_date = date.fromisoformat(summary["run_date"])
    tonight = PastRun(Path(), summary["run_id"], run_date, summary["command"], summary["complete"])
    outcomes = [*past.outcomes, *(PastOutcome(tonight, row) for row in tables["relink_outcomes"].to_pylist())]
    nights = [
        *(night for night in past.nights if night.run.run_date != run_date),
        past_night(tonight, accounts, tables["authorizations"]),
    ]
    requests = list(page_past.newest(outcomes).values())
    flows = {**past.flows}
    flows[run_date] = flows.get(run_date, Flows()) | flows_of(tables["relink_requests"], tables["relink_outcomes"])
    affected = page_broken.affected_rows(accounts)
    changed = page_past.changes(accounts, outcomes, past)
    weeks, expected = calendar(accounts, run_date)
    grids: dict[str, Grid] = {
        "funnel": page_past.funnel_grid(nights, requests),
        "outcomes": page_requests.outcomes_grid(window),
        "causes": page_requests.failures_by_cause(window),
        "failures": page_requests.failures_grid(window),
        "times": page_past.times_grid(requests),
        "ages": page_broken.ages_grid(affected),
        "institutions": page_broken.institutions_grid(accounts, affected),
        "steps": page_broken.steps_grid(affected),
        "lost": page_broken.lost_grid(accounts),
        "expected": expected,
        "trend": trend_grid(
            trend_nights(replace(past, nights=nights, flows=flows, runs=[*past.runs, tonight]), run_date), TREND, NEWEST
        ),
    }
    merchants = page_broken.merchants_grid(accounts, affected)
    if merchants is not None:
        grids["merchants"] = merchants
    lapses = lapses_grid(summary)
    if lapses is not None:
        grids["lapses"] = lapses
    if changed is not None:
        grids["changes"] = changed[0]
    waiting = tuple(needs(summary, tables, requests))
    keys = _keys(
        summary,
        tables,
        affected,
        None if changed is None else changed[1],
        sum(int(one.count.value or 0) for one in waiting),
        expected,
    )
    page = replace(page, grids=grids, calendar=weeks, needs=waiting, keys=keys)
    return replace(page, pictures=_pictures(grids))


def _keys(
    summary: Mapping[str, Any],
    tables: Mapping[str, pa.Table],
    affected: Sequence[page_broken.Row],
    changed: Mapping[str, Sequence[page_broken.Row]] | None,
    waiting: int,
    expected: Grid,
) -> tuple[KeyFigure, ...]:
    accounts = tables["accounts"]
    stake = exposure_totals(accounts)
    soon = next(line for line in expected.lines if line.label.startswith("Expected from"))
    came_back = [] if changed is None else [*changed["recovered"], *changed["healed"]]
    results = tables["relink_requests"]["result"].to_pylist()
    working = sum(row["days_inactive"] is None for row in affected)
    asked = "would_request" if summary["dry_run"] else "created"
    return (
        KeyFigure(
            "Broken now",
            (count("key.broken", len(affected)),),
            f"of {plural(accounts.num_rows, 'account')}; {working:,} {UNDATED}",
            f"{BROKEN_ROWS}; all: every row; {UNDATED}: those where days_inactive is empty",
        ),
        KeyFigure(
            "Came back",
            (Figure("key.came_back", None, "\N{EN DASH}"),)
            if changed is None
            else (count("key.came_back", len(came_back)),),
            "no earlier run to compare with"
            if changed is None
            else f"{plural(len(changed['recovered']), 'account')} by a relink, {len(changed['healed']):,} alone; {len(changed['new']):,} newly broken",
            "recovered and healed under “What came back”",
        ),
        KeyFigure(
            "At stake",
            money("key.at_stake", stake) or (Figure("key.at_stake", 0, "none"),),
            "on broken accounts in use",
            MONEY_ROWS,
        ),
        KeyFigure(
            "Would be asked" if summary["dry_run"] else "Asked tonight",
            (count("key.asked", results.count(asked)),),
            f"customer{'' if results.count(asked) == 1 else 's'}, one session each",
            f"relink_requests.parquet where result = '{asked}'",
        ),
        KeyFigure(
            "Will break",
            tuple(replace(one, name="key.expected") for one in soon.cells[0] if isinstance(one, Figure)),
            "still working, expected to stop within five weeks",
            "accounts.parquet where stripe_status = 'active' and ledger_status = 'open' and expected_deactivation_date lies in the five weeks shown",
        ),
        KeyFigure(
            "For a person", (count("key.waiting", waiting),), "listed at the end", "all cases under “What must I do”"
        ),
    )


def _stopped(page: Page, past: Past) -> Page:
    """The page of a run that stopped: what the last complete run knew, and named as that."""
    if past.base is None or past.base_accounts is None:
        return page
    base, accounts = past.base, past.base_accounts
    run_date = date.fromisoformat(page.run["run_date"])
    days = (run_date - base.run_date).days
    old = f"as of {base.run_date}, {'the same date' if not days else plural(days, 'day') + ' before'}"
    night = next(one for one in past.nights if one.run == base)
    keys = (
        KeyFigure(
            "Broken then",
            (count("key.broken", night.broken),),
            f"of {plural(accounts.num_rows, 'account')}, {old}",
            f"{base.name}/{BROKEN_ROWS}",
        ),
        KeyFigure(
            "At stake then",
            money("key.at_stake", night.at_stake) or (Figure("key.at_stake", 0, "none"),),
            old,
            f"{base.name}/accounts.parquet: {MONEY_ROWS}",
        ),
    )
    tonight = PastRun(Path(), page.run["run_id"], run_date, page.run["command"], complete=False)
    grids = {"trend": trend_grid(trend_nights(replace(past, runs=[*past.runs, tonight]), run_date), TREND, NEWEST)}
    stale = Notice(
        f"Stale: the figures below are of the last complete run, {base.run_id}, {old}. What broke or came back since is not known."
    )
    return replace(page, keys=keys, grids=grids, pictures=_pictures(grids), notices=(*page.notices, stale))


def _pictures(grids: Mapping[str, Grid]) -> dict[str, Any]:
    drawn = {
        "trend": trend(
            "trend",
            grids["trend"],
            "Line chart: broken accounts, sessions created and requests that came back on each date; the numbers stand in the table.",
        ),
    }
    if "funnel" in grids:
        reasons = grids["causes"].head[2:]
        drawn |= {
            "funnel": bars(
                "funnel",
                grids["funnel"],
                1,
                "Bar chart of the steps from affected to active again; the numbers stand in the table.",
            ),
            "ages": bars(
                "ages", grids["ages"], 3, "Bar chart of broken accounts by age; the numbers stand in the table."
            ),
            "outcomes": stacked(
                "outcomes",
                grids["outcomes"],
                [label for label, _ in page_requests.OUTCOME_COLUMNS],
                (2, 3, 5, 6, 7, 4, 1, 8),
                "Bar chart of the outcomes of requests at each institution; the numbers stand in the table.",
            ),
            "causes": stacked(
                "causes",
                grids["causes"],
                reasons,
                [(3, 4, 5, 1, 8, 7)[number % 6] for number in range(len(reasons))],
                "Bar chart of the reasons why requests brought nothing back, for each cause; the numbers stand in the table.",
            ),
        }
    return {name: picture for name, picture in drawn.items() if picture is not None}


def _state(summary: Mapping[str, Any]) -> str:
    if summary["counts"] is None:
        return "stopped"
    if not summary["complete"]:
        return "incomplete"
    if summary["dry_run"]:
        return "dry"
    return "held" if any(one["held"] for one in summary["merchants"]) else "complete"


def _verdict(summary: Mapping[str, Any], state: str, found: Sequence[Notice]) -> str:
    bad = sum(notice.bad for notice in found)
    if state == "stopped":
        return "Yes: the run stopped, and nothing below is of tonight."
    if bad:
        return f"Yes: {plural(bad, 'thing needs', 'things need')} your attention."
    totals = len(summary["control"])
    tie = f" and all {totals} control totals tie" if totals else ""
    return f"No: the run is {'a complete dry run' if state == 'dry' else 'complete'}{tie}."


def _run(summary: Mapping[str, Any]) -> dict[str, str]:
    modes = sorted({one["mode"] for one in summary["merchants"]})
    names = [one["merchant"] for one in summary["merchants"]]
    return {
        "run_id": summary["run_id"],
        "run_date": summary["run_date"],
        "command": summary["command"],
        "mode": ", ".join(modes),
        "merchants": ", ".join(names),
        "sent": f"{summary['sent']:,}",
    }


def _control_grid(summary: Mapping[str, Any]) -> Grid:
    lines = []
    for number, total in enumerate(summary["control"], start=1):
        cells: tuple[Cell, ...] = (
            (count(f"control.{number}.left", total["left"]),),
            (count(f"control.{number}.right", total["right"]),),
            "ties" if total["ties"] else "DOES NOT TIE",
        )
        lines.append(Line(total["name"], cells))
    return Grid(
        "control",
        "Control totals: each counted in the files and where it came from",
        ("Total", "Left", "Right", "Check"),
        tuple(lines),
        (
            (
                "Left, Right",
                "control in summary.json and manifest.json",
            ),
        ),
        empty="This run has no control totals.",
    )


def redacted(page: Page) -> Page:
    """The same page for people outside: no customer, login, account or session is named, nor words that could name one."""
    return replace(
        page,
        redacted=True,
        needs=tuple(replace(need, tasks=(), command="") for need in page.needs),
        notices=tuple(replace(notice, detail="") for notice in page.notices),
    )
