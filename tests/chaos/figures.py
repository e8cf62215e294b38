"""The figures of a campaign: sums over trials, and tables of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tests.chaos.scenarios import SCENARIOS
from tests.chaos.trials import GAPS_HOURS, Catalogue

DATABASES = ("sqlite", "postgresql")


def summed_up(
    outcomes: Sequence[dict[str, Any]], seconds: float, catalogues: Mapping[str, Catalogue]
) -> dict[str, Any]:
    """The figures, by database and gap and by what was killed, and every trial that shows something wrong."""
    done = [one for one in outcomes if "broken" not in one]
    rows = []
    for database in DATABASES:
        for gap in GAPS_HOURS:
            mine = [one for one in done if (one["database"], one["gap"]) == (database, gap)]
            if mine:
                rows.append({"database": database, "gap": gap, **_figures(mine)})
    suspicious = [one for one in done if one["contacts_twice"] or one["lost"] or one["wrong"]]
    return {
        "figures": {**_figures(done), "seconds": round(seconds, 1), "trials_a_second": round(len(done) / seconds, 1)},
        "rows": rows,
        "scenarios": {
            name: _figures([one for one in done if one["scenario"] == name]) for name in SCENARIOS if name in catalogues
        },
        "moments": len({name for one in catalogues.values() for name in (*one.first, *one.recovery)}),
        "moments_killed_at": len({one["moment"] for one in done if one["moment"] and one["kills"]}),
        "broken": [one for one in outcomes if "broken" in one],
        "suspicious": suspicious,
    }


def _figures(outcomes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    unknown: Counter[str] = Counter()
    for one in outcomes:
        unknown.update(one["unknown"])
    return {
        "trials": len(outcomes),
        "kills": sum(one["kills"] for one in outcomes),
        "second_kills": sum(one["second_kills"] for one in outcomes),
        "contacts_twice": sum(len(one["contacts_twice"]) for one in outcomes),
        "lost": sum(len(one["lost"]) for one in outcomes),
        "wrong": sum(len(one["wrong"]) for one in outcomes),
        "unknown": dict(unknown),
        "renewed": sum(one["renewed"] for one in outcomes),
    }


def as_table(summary: dict[str, Any]) -> str:
    """The figures as two Markdown tables: by database and gap, and by what was killed."""
    rows = [([row["database"], row["gap"]], row) for row in summary["rows"]]
    scenarios = [([name], figures) for name, figures in summary["scenarios"].items()]
    return "\n\n".join(
        [
            _table(["database", "gap"], [*rows, (["all", ""], summary["figures"])]),
            _table(["killed"], scenarios),
        ]
    )


def _table(heads: Sequence[str], rows: Sequence[tuple[list[str], dict[str, Any]]]) -> str:
    names = ("trials", "kills", "second_kills", "contacts_twice", "lost", "wrong")
    titles = (
        "trials",
        "kills",
        "of these while recovering",
        "asked twice",
        "lost",
        "other faults",
        "unknown",
        "renewed offers",
    )
    lines = [f"| {' | '.join([*heads, *titles])} |", "|---" * (len(heads) + len(titles)) + "|"]
    for first, row in rows:
        unknown = "; ".join(f"{number} {reason}" for reason, number in sorted(row["unknown"].items())) or "0"
        cells = [*first, *(f"{row[name]:,}" for name in names), unknown, f"{row['renewed']:,}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
