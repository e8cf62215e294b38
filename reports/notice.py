"""Says in a few lines of plain text how a run ended and what that asks of a person; counts and ids only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

from reconcile.masking import mask

WHY_CHARACTERS = 300

MEANINGS = {
    0: ("done", "nothing"),
    1: ("stopped by a fault of the program", "keep the log and summary.json and report it; nothing is lost"),
    2: ("settings or a key are wrong", "mend what the log names; nothing was sent"),
    3: ("stopped by something outside", "mend what the log names, then run again; what was begun is settled first"),
    4: (
        "finished, but some requests were refused, are unknown or were not sent",
        "read relink_requests.csv of the report; unknown ones wait for a person",
    ),
    5: (
        "a person must decide: requests are held, or a plan was refused",
        "read the held plan, then release it or mend the cause",
    ),
    130: ("interrupted", "run it again; what was begun is settled first"),
    143: ("interrupted", "run it again; what was begun is settled first"),
}
"""What each exit code means, and what it asks of a person."""

NEXT_COMMANDS = {
    1: "relink runs show {run_id}",
    2: "relink doctor",
    3: "relink doctor",
    4: "relink status",
    5: "relink status",
}


@dataclass(frozen=True, slots=True)
class Held:
    """Requests of one merchant that a brake holds, and how to release them."""

    merchant: str
    requests: int
    plan_hash: str | None = None


@dataclass(frozen=True, slots=True)
class RunEnd:
    """How a run ended, as far as is known: `summary` is that of its report, empty where there is none."""

    command: str
    exit_code: int
    merchants: Sequence[str]
    run_id: str | None = None
    business_date: date | None = None
    why: str | None = None
    summary: Mapping[str, object] = field(default_factory=dict)
    held: Sequence[Held] = ()
    report_directory: str | None = None


@dataclass(frozen=True, slots=True)
class Notice:
    """What people are told: one line, and a few more."""

    title: str
    text: str
    kind: str
    """success, warning or failure"""


def notice(end: RunEnd) -> Notice:
    """The notice of a run's end, plain text, with no customer's data but counts and ids."""
    meaning, asks = MEANINGS.get(end.exit_code, MEANINGS[1])
    who = ", ".join(end.merchants)
    on = f" of {end.business_date.isoformat()}" if end.business_date is not None else ""
    title = f"relink {end.command}{on} ({who}): {meaning}"
    if end.exit_code:
        title += f" (exit code {end.exit_code})"
    lines = [
        f"run {end.run_id or 'without an id'}{f', business date {end.business_date.isoformat()}' if end.business_date else ''}",
        f"merchants: {who}",
        f"exit code {end.exit_code}: {meaning}",
        f"what to do: {asks}",
        *_next(end),
        *_whys(end),
        *_counts(end.summary),
        *(f"held: {one.requests} requests of {one.merchant}" for one in end.held),
        *([f"report: {end.report_directory}"] if end.report_directory else []),
    ]
    kind = "success" if end.exit_code == 0 else "warning" if end.exit_code in (4, 5) else "failure"
    return Notice(title=mask(title), text="\n".join(lines) + "\n", kind=kind)


def _next(end: RunEnd) -> list[str]:
    released = [one.plan_hash for one in end.held if one.plan_hash]
    if end.exit_code == 5 and released:
        return [f"next: relink run --override-brakes {plan_hash}, within 24 hours" for plan_hash in released]
    if end.exit_code in (130, 143):
        return ["next: relink run"]
    command = NEXT_COMMANDS.get(end.exit_code)
    if command is None or (end.run_id is None and "{run_id}" in command):
        return []
    return [f"next: {command.format(run_id=end.run_id)}"]


def _whys(end: RunEnd) -> list[str]:
    merchants = end.summary.get("merchants")
    each = [one for one in merchants if isinstance(one, dict)] if isinstance(merchants, list) else []
    told = [f"why, {one['merchant']}: {_short(str(one['why']))}" for one in each if one.get("why")]
    return told or ([f"why: {_short(end.why)}"] if end.why else [])


def _short(why: str) -> str:
    """The first line alone: the lines after it go into single rows and cells."""
    first = mask(why).strip().partition("\n")[0].strip()
    return first if len(first) <= WHY_CHARACTERS else f"{first[:WHY_CHARACTERS]}…"


def _counts(summary: Mapping[str, object]) -> list[str]:
    counts = summary.get("counts")
    lines = []
    if isinstance(counts, Mapping):
        names = (("finding", "accounts"), ("next_step", "next steps"), ("result", "requests"), ("outcome", "outcomes"))
        for name, title in names:
            told = ", ".join(f"{count} {value}" for value, count in counts[name].items() if count)
            lines.append(f"{title}: {told or 'none'}")
    if "sent" in summary:
        lines.append(f"requests sent: {summary['sent']}")
    orphans = summary.get("orphans")
    if isinstance(orphans, Mapping) and orphans.get("foreign_sessions"):
        seen = len(orphans["foreign_sessions"])
        lines.append(f"sessions seen that this job does not follow: {seen}; see `relink status`, then `relink adopt`")
    listed = summary.get("sessions_query")
    for one in listed if isinstance(listed, list) else ():
        lines.append(
            f"sessions of ledger.sessions_query for {one['merchant']}: {len(one['adopted'])} adopted, {len(one['refused'])} cannot be followed, "
            f"{one['unread']} not looked at yet"
        )
    return lines
