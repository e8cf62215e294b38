"""What will break next: expected deactivations day by day, with the money that would be at stake."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import date, timedelta

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


def _day(day: date, by_day: Mapping[date, Sequence[Row]], run_date: date) -> CalendarDay:
    figure: Figure | None = None if day < run_date else count(f"calendar.{day}", len(by_day.get(day, ())))
    return CalendarDay(day.isoformat(), f"{day.day}" if day.day != 1 else f"{day:%b} 1", figure)
