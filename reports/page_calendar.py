"""What will break next: expected deactivations day by day, with the money that would be at stake."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from reports.page_broken import Row, at_stake
from reports.page_model import CalendarDay, Cell, Figure, Grid, Line, count, money

WEEKS = 5


def calendar(accounts: pa.Table, run_date: date) -> tuple[list[tuple[str, list[CalendarDay], Cell]], Grid]:
    """Expected deactivations: five weeks day by day with each week's money, and in a grid what lies before and after."""
    expected = accounts.filter(
        pc.and_kleene(
            pc.and_kleene(
                pc.is_valid(accounts["expected_deactivation_date"]), pc.equal(accounts["stripe_status"], "active")
            ),
            pc.equal(accounts["ledger_status"], "open"),
        )
    ).select(["expected_deactivation_date", "ledger_status", "exposure_minor", "currency"])
    by_day: defaultdict[date, list[Row]] = defaultdict(list)
    for row in expected.to_pylist():
        by_day[row["expected_deactivation_date"]].append(row)
    monday = run_date - timedelta(days=run_date.weekday())
    end = monday + timedelta(days=7 * WEEKS)
    weeks: list[tuple[str, list[CalendarDay], Cell]] = []
    for week in range(WEEKS):
        days = [monday + timedelta(days=7 * week + day) for day in range(7)]
        rows = [row for day in days if day >= run_date for row in by_day[day]]
        weeks.append(
            (
                days[0].isoformat(),
                [_day(day, by_day, run_date) for day in days],
                money(f"calendar.{days[0]}", at_stake(rows)),
            )
        )
    parts = (
        (
            "past",
            "Expected before tonight, still active",
            [row for day in by_day for row in by_day[day] if day < run_date],
        ),
        (
            "soon",
            f"Expected from tonight to {end - timedelta(days=1)}",
            [row for day in by_day for row in by_day[day] if run_date <= day < end],
        ),
        ("later", "Expected later", [row for day in by_day for row in by_day[day] if day >= end]),
    )
    rows_text = "accounts.parquet where stripe_status = 'active' and ledger_status = 'open' and expected_deactivation_date is not null"
    grid = Grid(
        "expected",
        "Accounts that still work and are expected to stop",
        ("When", "Accounts", "Money at stake"),
        tuple(
            Line(label, ((count(f"expected.{key}.accounts", len(rows)),), money(f"expected.{key}", at_stake(rows))))
            for key, label, rows in parts
        ),
        (
            ("Accounts", f"{rows_text}, by expected_deactivation_date"),
            ("Money at stake", "sum of exposure_minor by currency over the same rows"),
        ),
    )
    return weeks, grid


def lapses_grid(summary: Mapping[str, Any]) -> Grid | None:
    """Logins that lapse soon by how long logins at their bank have lasted; None where nothing lets expect any."""
    told = [(one, each) for one in summary["merchants"] for each in one.get("expected_lapses", ())]
    if not told:
        return None
    several = len(summary["merchants"]) > 1
    lines = []
    ordered = sorted(told, key=lambda pair: (-pair[1]["logins"], pair[1]["institution_name"], pair[0]["merchant"]))
    for number, (one, each) in enumerate(ordered):
        bank, key = each["institution_name"], f"lapses.{number}"
        cells: tuple[Cell, ...] = (
            (count(f"{key}.logins", each["logins"]),),
            (count(f"{key}.accounts", each["accounts"]),),
            money(key, each["exposure_by_currency"]),
            f"{each['lasts_days']} days, as {each['agreeing']} of {each['observed']} did",
        )
        lines.append(Line(f"{bank} ({one['merchant']})" if several else bank, cells))
    rows = "summary.json, merchants[].expected_lapses"
    return Grid(
        "lapses",
        f"Logins expected to lapse within {told[0][1]['within_days']} days, by our own history of their bank",
        ("Bank", "Logins", "Accounts", "Money at stake", "A login lasts"),
        tuple(lines),
        (
            ("Logins", f"{rows}: logins, day by day in logins_by_date"),
            ("Accounts", f"{rows}: accounts, open in the ledger"),
            ("Money at stake", f"{rows}: exposure_by_currency"),
            (
                "A login lasts",
                f"{rows}: lasts_days; the lapses that agreed, of all lapses and of logins that lasted longer",
            ),
        ),
    )


def _day(day: date, by_day: Mapping[date, Sequence[Row]], run_date: date) -> CalendarDay:
    figure: Figure | None = None if day < run_date else count(f"calendar.{day}", len(by_day.get(day, ())))
    return CalendarDay(day.isoformat(), f"{day.day}" if day.day != 1 else f"{day:%b} 1", figure)
