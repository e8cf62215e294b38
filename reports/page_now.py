"""What tonight's own tables say: what is still broken and how long, what is at stake, why, and what will break next."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from reconcile.model import OutcomeKind
from reports.closed_lists import AFFECTED_FINDINGS, FINDINGS, NEXT_STEPS
from reports.page_model import CalendarDay, Cell, Figure, Grid, Line, count, money, plural, quoted, rate
from reports.summary import CURED, UNASKED

Row = Mapping[str, Any]

AGES: tuple[tuple[str, int | None], ...] = (
    ("0–7 days", 7),
    ("8–30 days", 30),
    ("31–60 days", 60),
    ("61–90 days", 90),
    ("over 90 days", None),
)
"""Ages of what is still broken, each with the last day that it takes in."""

UNDATED = "not inactive yet"
WEEKS = 5
TOP = 12
"""Institutions that are seen before the rest is unfolded."""

LOST = ("disconnected", "inactive_permanent", "not_in_stripe")
"""Findings that no relink can mend."""

BROKEN_ROWS = f"accounts.parquet where finding in {quoted(AFFECTED_FINDINGS)}"
MONEY_ROWS = f"sum of exposure_minor by currency over {BROKEN_ROWS} and ledger_status = 'open'"
UNNAMED = "(no name)"

FAILURES: Mapping[tuple[str, str | None], str] = {
    ("failed", "no_account"): "did not link the account",
    ("failed", "no_authorization"): "did not log in at the bank",
    ("failed", "other"): "something unexpected",
    ("failed", None): "failed, no reason given",
    ("cancelled", None): "left before the end",
    ("expired", None): "no answer in time",
}
"""What became of requests that brought nothing back, by outcome and Stripe's reason; other reasons are given as they are."""


def affected_rows(accounts: pa.Table) -> list[Row]:
    """The affected accounts, as plain rows."""
    chosen = accounts.filter(pc.is_in(accounts["finding"], pa.array(AFFECTED_FINDINGS)))
    rows: list[Row] = chosen.select(
        [
            *(
                "merchant",
                "account_id",
                "authorization_id",
                "institution_name",
                "ledger_status",
                "finding",
                "next_step",
            ),
            *("days_inactive", "inactive_since_basis", "exposure_minor", "currency"),
        ]
    ).to_pylist()
    return rows


def at_stake(rows: Iterable[Row]) -> dict[str, int]:
    """Money by currency on those of the rows that the ledger has open."""
    amounts: defaultdict[str, int] = defaultdict(int)
    for row in rows:
        if row["ledger_status"] == "open" and row["exposure_minor"] is not None and row["currency"] is not None:
            amounts[row["currency"]] += row["exposure_minor"]
    return dict(amounts)


def ages_grid(affected: Sequence[Row]) -> Grid:
    """How long what is broken has been so, with the money at stake on it."""
    groups: dict[str, list[Row]] = {label: [] for label in (*(label for label, _ in AGES), UNDATED)}
    for row in affected:
        groups[_age(row["days_inactive"])].append(row)
    lines = [_age_line(label, rows) for label, rows in groups.items()]
    return Grid(
        "ages",
        "How long what is still broken has been inactive",
        ("Inactive for", "Accounts", "of them perhaps longer", "Money at stake"),
        (*lines, _age_line("all", affected, total=True)),
        (
            ("Accounts", f"{BROKEN_ROWS}, by days_inactive; “{UNDATED}”: where days_inactive is empty"),
            (
                "of them perhaps longer",
                "the same rows where inactive_since_basis = 'first_run': they were inactive when the job first looked",
            ),
            ("Money at stake", f"{MONEY_ROWS}, by days_inactive"),
        ),
    )


def _age(days: int | None) -> str:
    if days is None:
        return UNDATED
    return next(label for label, last in AGES if last is None or days <= last)


def _age_line(label: str, rows: Sequence[Row], *, total: bool = False) -> Line:
    name = f"ages.{label}"
    least = sum(row["inactive_since_basis"] == "first_run" for row in rows)
    cells: tuple[Cell, ...] = (
        (count(f"{name}.accounts", len(rows)),),
        (count(f"{name}.at_least", least),),
        money(name, at_stake(rows)),
    )
    return Line(label, cells, total=total)


def institutions_grid(accounts: pa.Table, affected: Sequence[Row]) -> Grid:
    """How much of each institution's accounts in use is broken."""
    used = pc.and_kleene(pc.is_valid(accounts["stripe_status"]), pc.equal(accounts["ledger_status"], "open"))
    names = accounts.filter(used)["institution_name"]
    in_use = {one["values"] or UNNAMED: one["counts"] for one in pc.value_counts(names).to_pylist()}
    broken: defaultdict[str, list[Row]] = defaultdict(list)
    for row in affected:
        if row["ledger_status"] == "open":
            broken[row["institution_name"] or UNNAMED].append(row)
    order = sorted(broken, key=lambda name: (-len(broken[name]), name))
    lines = []
    for number, name in enumerate(order, start=1):
        key, rows, whole = f"institutions.{number}", broken[name], in_use.get(name, 0)
        cells: tuple[Cell, ...] = (
            (count(f"{key}.broken", len(rows)),),
            (count(f"{key}.in_use", whole),),
            (rate(f"{key}.share", len(rows), whole),),
            money(key, at_stake(rows)),
        )
        lines.append(Line(name, cells))
    return Grid(
        "institutions",
        "What is broken and at stake at each institution",
        ("Institution", "Broken", "Accounts in use", "Share broken", "Money at stake"),
        tuple(lines),
        (
            ("Broken", f"{BROKEN_ROWS} and ledger_status = 'open', by institution_name"),
            ("Accounts in use", "accounts.parquet where stripe_status is not null and ledger_status = 'open'"),
            ("Money at stake", f"{MONEY_ROWS}, by institution_name"),
        ),
        shown=TOP,
        empty="Nothing is broken at any institution.",
    )


def steps_grid(affected: Sequence[Row]) -> Grid:
    """What is done about the affected accounts, or why nothing is."""
    by_step: defaultdict[str, list[Row]] = defaultdict(list)
    for row in affected:
        by_step[row["next_step"]].append(row)
    lines = [
        Line(
            step,
            ((count(f"steps.{step}.accounts", len(by_step[step])),), money(f"steps.{step}", at_stake(by_step[step]))),
            NEXT_STEPS[step],
        )
        for step in map(str, NEXT_STEPS)
        if by_step[step]
    ]
    return Grid(
        "steps",
        "What happens to the broken accounts",
        ("Next step", "Accounts", "Money at stake"),
        tuple(lines),
        (("Accounts", f"{BROKEN_ROWS}, by next_step"), ("Money at stake", f"{MONEY_ROWS}, by next_step")),
        empty="No account is broken.",
    )


def lost_grid(accounts: pa.Table) -> Grid:
    """Accounts that no relink can bring back."""
    found = Counter(accounts["finding"].to_pylist())
    return Grid(
        "lost",
        "What no relink can bring back",
        ("Finding", "Accounts"),
        tuple(Line(kind, ((count(f"lost.{kind}", found[kind]),),), FINDINGS[kind]) for kind in LOST if found[kind]),
        (("Accounts", f"accounts.parquet where finding in {quoted(LOST)}, by finding"),),
        empty="Nothing is lost for good.",
    )


OUTCOME_COLUMNS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("came back", tuple(map(str, CURED))),
    ("failed", ("failed",)),
    ("left", ("cancelled",)),
    ("no answer", ("expired",)),
    ("waiting", ("pending",)),
    ("healed alone", ("healed",)),
    ("for a person", ("review",)),
    ("not asked", tuple(map(str, UNASKED))),
)
"""Groups of outcomes as the page shows them."""


def outcomes_grid(window: pa.Table) -> Grid:
    """What came of the requests of thirty business dates, by institution."""
    counted: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row in window.to_pylist():
        counted[row["institution_name"] or UNNAMED][row["outcome"]] += row["requests"]
    order = sorted(counted, key=lambda name: (-counted[name].total(), name))
    lines = [_outcome_line(f"outcomes.{n}", name, counted[name]) for n, name in enumerate(order, start=1)]
    if lines:
        lines.append(_outcome_line("outcomes.all", "all", sum(counted.values(), Counter()), total=True))
    return Grid(
        "outcomes",
        "What came of the requests of 30 business dates, by institution",
        ("Institution", "Requests", *(label for label, _ in OUTCOME_COLUMNS), "Came back, of those asked"),
        tuple(lines),
        (
            ("Requests", "sum of requests over failure_reasons.parquet, by institution_name"),
            *((label, f"the same where outcome in {quoted(kinds)}") for label, kinds in OUTCOME_COLUMNS),
            ("Came back, of those asked", f"“came back” by requests where outcome not in {quoted(UNASKED)}"),
        ),
        shown=TOP,
        empty="Nobody was asked within 30 business dates.",
    )


def _outcome_line(key: str, name: str, counted: Counter[str], *, total: bool = False) -> Line:
    asked = counted.total() - sum(counted[kind] for kind in UNASKED)
    cells: list[Cell] = [(count(f"{key}.requests", counted.total()),)]
    for label, kinds in OUTCOME_COLUMNS:
        cells.append((count(f"{key}.{label}", sum(counted[kind] for kind in kinds)),))
    cells.append((rate(f"{key}.rate", sum(counted[kind] for kind in CURED), asked),))
    return Line(name, tuple(cells), total=total)


def failures_by_cause(window: pa.Table) -> Grid:
    """Why requests brought nothing back, by the cause for which the customer was asked."""
    counted: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row in window.to_pylist():
        reason = failure(row["outcome"], row["failure_reason"])
        if reason is not None:
            counted[row["cause"] or "none given"][reason] += row["requests"]
    known = [label for label in FAILURES.values() if any(label in reasons for reasons in counted.values())]
    others = sorted({reason for reasons in counted.values() for reason in reasons} - set(known))
    columns = [*known, *others]
    order = sorted(counted, key=lambda cause: (-counted[cause].total(), cause))
    lines = [
        Line(
            cause,
            (
                (count(f"causes.{n}.requests", counted[cause].total()),),
                *((count(f"causes.{n}.{column}", counted[cause][column]),) for column in columns),
            ),
        )
        for n, cause in enumerate(order, start=1)
    ]
    return Grid(
        "causes",
        "Why requests of 30 business dates brought nothing back, by cause",
        ("Cause", "Requests", *columns),
        tuple(lines),
        (
            ("Requests", f"sum of requests over failure_reasons.parquet where {FAILED_ROWS}, by cause"),
            ("the reasons", "the same by outcome and failure_reason; an empty cause is “none given”"),
        ),
        empty="No request of 30 business dates failed, was left or went unanswered.",
    )


FAILED_ROWS = f"outcome in {quoted((OutcomeKind.FAILED, OutcomeKind.CANCELLED, OutcomeKind.EXPIRED))}"


def failure(outcome: str, reason: str | None) -> str | None:
    """The words for a request that brought nothing back; None for one that did, or may yet."""
    if outcome not in (OutcomeKind.FAILED, OutcomeKind.CANCELLED, OutcomeKind.EXPIRED):
        return None
    return FAILURES.get((outcome, reason), reason)


def failures_grid(window: pa.Table) -> Grid:
    """Why requests brought nothing back, by institution and cause."""
    groups: Counter[tuple[str, str]] = Counter()
    counted: Counter[tuple[str, str, str]] = Counter()
    for row in window.to_pylist():
        group = (row["institution_name"] or UNNAMED, row["cause"] or "none given")
        groups[group] += row["requests"]
        reason = failure(row["outcome"], row["failure_reason"])
        if reason is not None:
            counted[*group, reason] += row["requests"]
    order = sorted(counted, key=lambda key: (-counted[key], key))
    lines = []
    for n, (name, cause, reason) in enumerate(order, start=1):
        number, whole = counted[name, cause, reason], groups[name, cause]
        cells: tuple[Cell, ...] = (
            cause,
            reason,
            (count(f"failures.{n}.requests", number),),
            (rate(f"failures.{n}.share", number, whole),),
        )
        lines.append(Line(name, cells))
    return Grid(
        "failures",
        "Why requests of 30 business dates brought nothing back, by institution and cause",
        ("Institution", "Cause", "Reason", "Requests", "Share"),
        tuple(lines),
        (
            ("Requests", f"failure_reasons.parquet where {FAILED_ROWS}, by institution_name, cause and reason"),
            ("Share", "by all requests of that institution_name and cause, unanswered ones included"),
        ),
        shown=TOP,
        empty="No request of 30 business dates failed, was left or went unanswered.",
    )


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


def merchants_grid(accounts: pa.Table, affected: Sequence[Row]) -> Grid | None:
    """Each merchant on its own, with a total where one can be made; None where there is but one."""
    names = sorted(pc.unique(accounts["merchant"]).to_pylist())
    if len(names) < 2:
        return None
    in_all = {one["values"]: one["counts"] for one in pc.value_counts(accounts["merchant"]).to_pylist()}
    lines = []
    for n, name in enumerate([*names, None], start=1):
        rows = [row for row in affected if name is None or row["merchant"] == name]
        key = f"merchants.{'all' if name is None else n}"
        number = accounts.num_rows if name is None else in_all[name]
        cells: tuple[Cell, ...] = (
            (count(f"{key}.accounts", number),),
            (count(f"{key}.broken", len(rows)),),
            money(key, at_stake(rows)),
        )
        lines.append(Line(name or "all", cells, total=name is None))
    return Grid(
        "merchants",
        f"The {plural(len(names), 'merchant')} of this run",
        ("Merchant", "Accounts", "Broken", "Money at stake"),
        tuple(lines),
        (
            ("Accounts", "accounts.parquet, by merchant"),
            ("Broken", f"{BROKEN_ROWS}, by merchant"),
            ("Money at stake", f"{MONEY_ROWS}, by merchant"),
        ),
    )
