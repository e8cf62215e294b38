"""How the result of a run is told on stdout: as JSON for scripts, in a few lines for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from jobs.cli.common import say, shown
from jobs.nightly import RunResult
from reconcile.masking import mask


def as_plain(result: RunResult) -> dict[str, Any]:
    """The result as JSON values."""
    summary = result.summary
    return {
        "run_id": result.run_id,
        "report_directory": None if result.report_directory is None else str(result.report_directory),
        "run_date": result.stamp.business_date.isoformat(),
        "command": result.stamp.command,
        "dry_run": result.stamp.dry_run,
        "complete": result.complete,
        "exit_code": result.exit_code,
        "already_finished": result.already_finished is not None,
        "why": None if result.why is None else _shown_lines(result.why),
        "sent": summary.get("sent", 0),
        "counts": summary.get("counts"),
        "api_calls": summary.get("api_calls"),
        "skipped": skipped(result),
        "held": held(result),
    }


def held(result: RunResult) -> list[dict[str, Any]]:
    """What a brake holds until a person releases it, by merchant."""
    return [
        {
            "merchant": night.merchant.scope.merchant,
            "requests": len(night.plan.held),
            "why": [shown(reason) for reason in night.brakes.reasons],
            "plan_hash": night.held_plan_hash,
            "plan_file": None if night.held_plan_file is None else str(night.held_plan_file),
        }
        for night in result.nights
        if night.plan.held
    ]


def skipped(result: RunResult) -> list[dict[str, str]]:
    """What was left out and why, by merchant."""
    return [
        {"merchant": night.merchant.scope.merchant, "authorization_id": shown(authorization_id), "why": shown(why)}
        for night in result.nights
        for authorization_id, why in night.skipped
    ]


def _shown_lines(text: str) -> str:
    """As `shown`, line by line: a faulty ledger is told with a line for each fault."""
    return "\n".join(shown(line) for line in mask(text).split("\n"))


def print_result(result: RunResult, more: Mapping[str, Any]) -> None:
    """A few lines that say whether anything is wrong, what was found, what was sent and where the report lies."""
    for line in _lines(result):
        say(line)
    for name, value in more.items():
        say(f"{name.replace('_', ' ')}: {value}")


def _reads(result: RunResult) -> Iterator[str]:
    """How the accounts were obtained, and what the run was expected to read and read."""
    for night in result.nights:
        if night.pull is None:
            continue
        expected = ", ".join(f"{count} {purpose}" for purpose, count in night.pull.expected_reads.items()) or "none"
        spent = night.merchant.gateway.meter.counts().reads
        read = ", ".join(f"{count} {purpose}" for purpose, count in sorted(spent.items())) or "none"
        yield f"{night.merchant.scope.merchant}: {night.pull.obtained} pull ({night.pull.why}); reads expected: {expected}; made: {read}"
        if night.pull.drift:
            yield f"drift: increments had missed {len(night.pull.drift)} accounts, the first is {night.pull.drift[0]}"


def _lines(result: RunResult) -> Iterator[str]:
    stamp = result.stamp
    if result.already_finished is not None:
        yield f"business date {stamp.business_date} was finished by run {result.already_finished}; nothing was sent"
        yield f"report: {result.report_directory}"
        return
    state = "complete" if result.complete else "stopped"
    dry = ", dry run" if stamp.dry_run else ""
    yield f"run {stamp.run_id} of business date {stamp.business_date}: {state}{dry}"
    if result.why is not None:
        yield f"why: {_shown_lines(result.why)}"
    yield from _reads(result)
    counts = result.summary.get("counts")
    if isinstance(counts, dict):
        for name, title in (
            ("finding", "accounts"),
            ("next_step", "next steps"),
            ("result", "requests"),
            ("outcome", "outcomes"),
        ):
            told = ", ".join(f"{count} {value}" for value, count in counts[name].items() if count)
            yield f"{title}: {told or 'none'}"
    for one in skipped(result):
        yield f"skipped {one['authorization_id']}: {one['why']}"
    for one in held(result):
        yield f"held by a brake: {one['requests']} requests of {one['merchant']}: {'; '.join(one['why'])}"
        if one["plan_hash"] is not None:
            yield f"  read {one['plan_file']}; release it within 24 hours with `relink run --override-brakes {one['plan_hash']}`"
    yield f"report: {result.report_directory}"
