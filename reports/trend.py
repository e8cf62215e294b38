"""The trend: business date by business date what was broken, at stake, asked and answered. The page and `relink report trend` show it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from reconcile.model import AUTHORIZATION_STEPS, BROUGHT_BACK, NextStep
from reports.closed_lists import AFFECTED_FINDINGS
from reports.page_model import SMALLEST_GROUP, Cell, Grid, Line, count, money, quoted, rate
from reports.past_nights import Flows, Past, PastNight
from reports.past_runs import COMPLETE_COMMANDS
from reports.summary import ANSWERED

ELIGIBLE = tuple(map(str, AUTHORIZATION_STEPS))
"""Next steps of a bank login that may be asked about: nothing but time, a limit or a person stands between it and a request."""

NO_REPORT = "no report"
STOPPED = "stopped"
OTHER_COMMANDS = "no nightly run"
NOT_READABLE = "not readable"
"""Why a business date has no night: nothing was published, its runs stopped, other commands alone reported, its Parquet files are missing or damaged."""


@dataclass(frozen=True, slots=True)
class TrendNight:
    """One business date. `night` is its newest complete run; where there is none, `why` says so.

    `flows` is of all its runs, None where none of them left tables.
    """

    on: date
    night: PastNight | None
    flows: Flows | None
    why: str = ""

    @property
    def eligible(self) -> int | None:
        """Bank logins that may be asked about; None without a complete run."""
        return None if self.night is None else sum(step in ELIGIBLE for step in self.night.affected.values())

    @property
    def held(self) -> int | None:
        """Bank logins whose requests a brake holds; None without a complete run."""
        return (
            None if self.night is None else sum(step == NextStep.HELD_BY_BRAKE for step in self.night.affected.values())
        )


def trend_nights(past: Past, last: date, first: date | None = None) -> list[TrendNight]:
    """Every business date from the first of which there is a report, or the one given, to the last one."""
    start = first or min((one.run_date for one in past.runs), default=last)
    nights = {night.run.run_date: night for night in past.nights}
    days = [start + timedelta(days=passed) for passed in range((last - start).days + 1)]
    return [TrendNight(on, nights.get(on), past.flows.get(on), "" if on in nights else _why(past, on)) for on in days]


def _why(past: Past, on: date) -> str:
    runs = [one for one in past.runs if one.run_date == on]
    if any(one.is_base for one in runs):
        return NOT_READABLE
    if any(one.command in COMPLETE_COMMANDS for one in runs):
        return STOPPED
    return OTHER_COMMANDS if runs else NO_REPORT


def all_flows(nights: Sequence[TrendNight]) -> Flows:
    """The requests of all the dates, each counted once."""
    together = Flows()
    for one in nights:
        together |= one.flows or Flows()
    return together


SOURCES: tuple[tuple[str, str], ...] = (
    (
        "Broken accounts",
        f"accounts.parquet of each date's newest complete run where finding in {quoted(AFFECTED_FINDINGS)}",
    ),
    (
        "May be asked",
        f"bank logins: authorizations.parquet of the same run where affected_accounts > 0 and next_step in {quoted(ELIGIBLE)}",
    ),
    ("Held", "the same where next_step = 'held_by_brake'"),
    (
        "Sessions created, Unknown",
        "distinct merchant, request_id over relink_requests.parquet of all runs of the date where result = 'created', 'unknown'",
    ),
    (
        "Answered",
        f"distinct merchant, request_id over relink_outcomes.parquet of all runs of the date where outcome in {quoted(ANSWERED)}: what was "
        "learnt on that date, of requests of any date",
    ),
    ("Came back", f"the same where outcome in {quoted(BROUGHT_BACK)}"),
    ("Share of answers", "Came back by Answered"),
    ("Money at stake", "sum of exposure_minor by currency over the broken accounts where ledger_status = 'open'"),
    ("all", "each request of the dates shown once; what holds at a moment has no sum"),
)


def trend_grid(nights: Sequence[TrendNight], caption: str, newest: int | None = None) -> Grid:
    """A line for each business date, those without a complete run included, and what was asked and came back in all.

    Where `newest` is given, the newest dates come first and the lines after so many are folded away.
    """
    lines = [_line(one) for one in (nights if newest is None else reversed(nights))]
    if lines:
        lines.append(Line("all", ("", "", "", *_flow_cells("all", all_flows(nights)), ""), total=True))
    return Grid(
        "trend",
        caption,
        (
            *("Date", "Broken accounts", "May be asked", "Held", "Sessions created", "Unknown"),
            *("Answered", "Came back", "Share of answers", "Money at stake"),
        ),
        tuple(lines) if any(one.night or one.flows for one in nights) else (),
        SOURCES,
        shown=newest,
        empty="No run left tables on these dates.",
    )


def _line(one: TrendNight) -> Line:
    flows: tuple[Cell, ...] = ("",) * 5 if one.flows is None else _flow_cells(str(one.on), one.flows)
    night, key = one.night, f"trend.{one.on}"
    if night is None:
        return Line(str(one.on), (one.why, "", "", *flows, ""))
    cells: tuple[Cell, ...] = (
        (count(f"{key}.broken", night.broken),),
        (count(f"{key}.eligible", one.eligible or 0),),
        (count(f"{key}.held", one.held or 0),),
        *flows,
        money(key, night.at_stake),
    )
    return Line(str(one.on), cells)


def _flow_cells(on: str, flows: Flows) -> tuple[Cell, ...]:
    key = f"trend.{on}"
    return (
        (count(f"{key}.created", len(flows.created)),),
        (count(f"{key}.unknown", len(flows.unknown)),),
        (count(f"{key}.answered", len(flows.answered)),),
        (count(f"{key}.came_back", len(flows.came_back)),),
        (rate(f"{key}.share", len(flows.came_back), len(flows.answered)),),
    )


def plain_trend(nights: Sequence[TrendNight]) -> dict[str, Any]:
    """The trend as JSON values; money in minor units, null where there is no complete run or, for a share, too few answers."""
    return {
        "nights": [_plain_night(one) for one in nights],
        "all": _plain_flows(all_flows(nights)),
        "counted_from": dict(SOURCES),
    }


def _plain_night(one: TrendNight) -> dict[str, Any]:
    night = one.night
    return {
        "business_date": one.on.isoformat(),
        "run_id": None if night is None else night.run.run_id,
        "complete": night is not None,
        "why": one.why or None,
        "affected": None if night is None else night.broken,
        "eligible": one.eligible,
        "held": one.held,
        **_plain_flows(one.flows),
        "money_at_stake_minor": None if night is None else dict(night.at_stake),
    }


def _plain_flows(flows: Flows | None) -> Mapping[str, int | float | None]:
    if flows is None:
        return dict.fromkeys(("asked", "unknown", "answered", "relinked", "share"))
    answered, relinked = len(flows.answered), len(flows.came_back)
    return {
        "asked": len(flows.created),
        "unknown": len(flows.unknown),
        "answered": answered,
        "relinked": relinked,
        "share": None if answered < SMALLEST_GROUP else round(relinked / answered, 6),
    }
