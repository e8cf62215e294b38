"""What is broken tonight and how long, what is at stake at which institution, what happens to it, and what is lost for good."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from reports.closed_lists import AFFECTED_FINDINGS, FINDINGS, NEXT_STEPS
from reports.page_model import Cell, Grid, Line, count, money, plural, quoted, rate

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
UNDATED_MEANING = "They still work: about to expire, or short of a permission or of a usable account number."
TOP = 12
"""Institutions that are seen before the rest is unfolded."""

LOST = ("disconnected", "inactive_permanent", "not_in_stripe")
"""Findings that no relink can mend."""

BROKEN_ROWS = f"accounts.parquet where finding in {quoted(AFFECTED_FINDINGS)}"
MONEY_ROWS = f"sum of exposure_minor by currency over {BROKEN_ROWS} and ledger_status = 'open'"
UNNAMED = "(no name)"


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
    return Line(label, cells, UNDATED_MEANING if label == UNDATED else "", total=total)


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
