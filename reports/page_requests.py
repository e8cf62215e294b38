"""What came of the requests of thirty business dates, and why so many brought nothing back: by institution and by cause."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping

import pyarrow as pa

from reconcile.model import BROUGHT_BACK, OutcomeKind
from reports.page_broken import TOP, UNNAMED
from reports.page_model import Cell, Grid, Line, count, quoted, rate
from reports.summary import UNASKED

FAILURES: Mapping[tuple[str, str | None], str] = {
    ("failed", "no_account"): "did not link the account",
    ("failed", "no_authorization"): "did not log in at the bank",
    ("failed", "other"): "something unexpected",
    ("failed", None): "failed, no reason given",
    ("cancelled", None): "left before the end",
    ("expired", None): "no answer in time",
}
"""What became of requests that brought nothing back, by outcome and Stripe's reason; other reasons are given as they are."""

OUTCOME_COLUMNS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("came back", tuple(map(str, BROUGHT_BACK))),
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
    cells.append((rate(f"{key}.rate", sum(counted[kind] for kind in BROUGHT_BACK), asked),))
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
