"""What must hold after any kill, judged from what really happened at the stand-in and from the records, not by the product's own rules."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from itertools import pairwise
from pathlib import Path

from jobs.simulator.model import Effect
from jobs.simulator.request_log import LoggedCall
from reports.verification import verify
from tests.chaos.deployment import COOLDOWN_DAYS, MUST_BE_ASKED, PENDING_DAYS, Books, Row, broke_on, ladder_days

HOUR_SECONDS = 3600
FENCE_SECONDS = 20 * HOUR_SECONDS
RENEWAL_SECONDS = 24 * HOUR_SECONDS
LEAST_DAYS = 2
"""Between two contacts of one customer under a ladder."""

FOLLOWERS = {
    "planned": {"planned", "attempting", "not_sent", "created", "rejected", "unknown"},
    "attempting": {"attempting", "created", "rejected", "unknown", "not_sent"},
}
"""Which states may follow one that is not final; a final one stays."""


@dataclass(slots=True)
class Findings:
    """What one trial showed."""

    contacts_twice: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    unknown: Counter[str] = field(default_factory=Counter)
    renewed: int = 0


def check_progress(before: Books, after: Books, findings: Findings) -> None:
    """No row vanished or went back, and no final one changed."""
    for request_id, old in before.requests.items():
        new = after.requests.get(request_id)
        if new is None:
            findings.lost.append(f"request {request_id} of {old.authorization_id} is gone")
        elif new.state not in FOLLOWERS.get(old.state, {old.state}):
            findings.wrong.append(f"request {request_id} went from {old.state} to {new.state}")
        elif old.session_id not in (None, new.session_id):
            findings.wrong.append(f"request {request_id} changed its session")
        elif old.attempting_at is not None and new.attempting_at != old.attempting_at:
            findings.wrong.append(f"request {request_id} changed when it was first attempted")


def check_end(books: Books, effects: Iterable[Effect], log: Iterable[LoggedCall], findings: Findings) -> None:
    """After an undisturbed night: nothing is under way, everything Stripe made is known, and nobody was asked twice or forgotten."""
    rows = list(books.requests.values())
    effects = list(effects)
    for row in rows:
        if row.state in ("planned", "attempting"):
            findings.wrong.append(f"request {row.request_id} is still {row.state} after an undisturbed night")
        if row.breakage_number != 1:
            findings.wrong.append(
                f"the one outage of {row.authorization_id} was counted as number {row.breakage_number}"
            )
    findings.wrong += [f"run {run_id} still counts as running" for run_id in books.running]
    live = Counter((row.authorization_id, row.attempt) for row in rows if row.state != "not_sent")
    findings.wrong += [f"attempt {attempt} of {name} has several rows" for (name, attempt), n in live.items() if n > 1]
    known = _row_of_each(effects, rows)
    _check_contacts(known, effects, findings)
    _check_known(known, effects, findings)
    _check_unknown(rows, findings)
    _check_outcomes(books, findings)
    _check_fence(log, findings)
    for names in MUST_BE_ASKED:
        if not any(row.authorization_id in names and row.state in ("created", "unknown") for row in rows):
            findings.lost.append(f"nobody was asked about {' or '.join(names)}")


def check_collected(books: Books, session_id: str, findings: Findings) -> None:
    """The answer of a session was concluded, and once."""
    known = {row.session_id: row.request_id for row in books.requests.values()}
    concluded = [outcome for outcome, _, _ in books.outcomes.get(known.get(session_id, ""), [])]
    if concluded != ["relinked"]:
        findings.wrong.append(f"the session that was answered has the outcomes {concluded}")


class Reports:
    """The published reports: whatever `latest` names is whole. A report in which no byte can have changed is not read again."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._read = self._state()  # the template's, which its own night has shown to be whole

    def check(self, findings: Findings) -> None:
        """Verify the report that `latest` names."""
        state = self._state()
        if state == self._read:
            return
        self._read = state
        link = self._root / "latest"
        faults = verify(link.resolve()) if link.is_symlink() else ["no such link"]
        findings.wrong += [f"latest: {fault}" for fault in faults]

    def _state(self) -> list[tuple[str, int, int]]:
        """Every file of the report with its size and when it was written; empty where there is none."""
        latest = (self._root / "latest").resolve()
        if not latest.is_dir():
            return []
        files = [(path, path.lstat()) for path in sorted(latest.iterdir())]
        return [(str(path), status.st_size, status.st_mtime_ns) for path, status in files]


def check_leftovers(reports: Path, findings: Findings) -> None:
    """Nothing unfinished is left."""
    findings.wrong += [f"left over: {path.relative_to(reports)}" for path in reports.rglob(".*")]


def _row_of_each(effects: Iterable[Effect], rows: Iterable[Row]) -> dict[str, Row]:
    """The row that knows each session, by the session's id: the one that names it, else the one that has its key."""
    by_session = {row.session_id: row for row in rows if row.session_id is not None}
    by_key: dict[str | None, Row] = {}
    for row in rows:
        if row.idempotency_key is not None and (row.state != "not_sent" or row.idempotency_key not in by_key):
            by_key[row.idempotency_key] = row
    found = {
        effect.session_id: by_session.get(effect.session_id) or by_key.get(effect.idempotency_key) for effect in effects
    }
    return {session_id: row for session_id, row in found.items() if row is not None}


def _check_contacts(known: Mapping[str, Row], effects: Iterable[Effect], findings: Findings) -> None:
    """Two sessions for one outage need two attempts, and between them what the rules ask for."""
    of_authorization: dict[str, list[Effect]] = defaultdict(list)
    of_customer: dict[str, list[Effect]] = defaultdict(list)
    for effect in effects:
        of_authorization[str(effect.authorization_id)].append(effect)
        of_customer[effect.account_holder_id].append(effect)
    for name, made in of_authorization.items():
        attempts = 0
        for first, second in pairwise(made):
            row = known.get(first.session_id)
            hours = (second.at - first.at) / HOUR_SECONDS
            attempts += row is not None and row.state == "created"
            same_key = first.idempotency_key == second.idempotency_key
            if row is None or same_key or not _may_renew(row, first, second, attempts):
                state = "unrecorded" if row is None else row.state
                findings.contacts_twice.append(f"{name} was asked again after {hours:.1f} h, the first being {state}")
            else:
                findings.renewed += 1
    for customer, made in of_customer.items():
        for first, second in pairwise(made):
            row = known.get(first.session_id)
            if first.authorization_id == second.authorization_id or row is None or row.state == "unknown":
                continue
            if _days(first, second) < (COOLDOWN_DAYS if ladder_days() is None else LEAST_DAYS):
                findings.contacts_twice.append(
                    f"{customer} was asked about two banks within {_days(first, second)} days"
                )


def _may_renew(row: Row, first: Effect, second: Effect, attempts: int) -> bool:
    """A modal offer may be renewed once it was pending for its days, or once nobody can know of it and a day is over; a hosted
    session, of which a mail may have gone out, only once it was pending for its days. Under a ladder its next day must have come.
    """
    if row.state == "unknown" and row.attempting_at is not None:
        if row.delivery != "modal":
            return False
        return second.at - row.attempting_at >= RENEWAL_SECONDS
    ladder = ladder_days()
    if row.state != "created" or ladder is None:
        return row.state == "created" and _days(first, second) > PENDING_DAYS
    days_broken = (_date(second) - broke_on(str(second.authorization_id))).days
    return attempts < len(ladder) and days_broken >= ladder[attempts] and _days(first, second) >= LEAST_DAYS


def _days(first: Effect, second: Effect) -> int:
    return (_date(second) - _date(first)).days


def _date(effect: Effect) -> date:
    return datetime.fromtimestamp(effect.at, UTC).date()


def _check_known(known: Mapping[str, Row], effects: Iterable[Effect], findings: Findings) -> None:
    """Every session that Stripe made is in the records, or its request is there as unknown."""
    for effect in effects:
        row = known.get(effect.session_id)
        if row is None or (row.state != "unknown" and row.session_id != effect.session_id):
            state = "no record" if row is None else f"a record that is {row.state}"
            findings.lost.append(f"session {effect.session_id} of {effect.authorization_id} has {state}")


def _check_unknown(rows: Iterable[Row], findings: Findings) -> None:
    """An unknown request was attempted, and has one of the reasons that make one."""
    for row in rows:
        if row.state != "unknown":
            continue
        if row.attempting_at is None:
            findings.wrong.append(f"request {row.request_id} is unknown but was never attempted")
        elif row.error_type == "key_expired":
            findings.unknown["key too old"] += 1
            if row.answered_at is None or row.answered_at - row.attempting_at < FENCE_SECONDS:
                findings.wrong.append(f"request {row.request_id} was given up although its key was young")
        elif row.http_status == 500:
            findings.unknown["Stripe answered 500"] += 1
        else:
            findings.wrong.append(f"request {row.request_id} is unknown because of {row.error_type} {row.http_status}")


def _check_outcomes(books: Books, findings: Findings) -> None:
    """No outcome was concluded twice."""
    for request_id, concluded in books.outcomes.items():
        findings.wrong += [
            f"outcome {first} of request {request_id} was recorded twice"
            for first, second in pairwise(concluded)
            if first == second
        ]


def _check_fence(log: Iterable[LoggedCall], findings: Findings) -> None:
    """No POST under a key that Stripe acted on 20 hours ago or more."""
    acted: dict[str, int] = {}
    for call in log:
        if call.method != "POST" or call.idempotency_key is None:
            continue
        key, at = call.idempotency_key, call.at
        if key in acted and at - acted[key] >= FENCE_SECONDS:
            findings.wrong.append(
                f"a POST went out {(at - acted[key]) / HOUR_SECONDS:.1f} h after its key was first used"
            )
        if call.status in (200, 500) and call.fault != "reset_before":
            acted.setdefault(key, at)
