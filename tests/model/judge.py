"""What must hold after every step, judged from the sessions that the stand-in really made, the rows and the published files.

Nothing here asks the product's own rules: what is broken, whom nobody may contact and when a customer may be asked again is stated anew.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

from jobs.simulator.model import Account, Authorization, Effect
from reports.verification import verify
from tests.chaos.invariants import FENCE_SECONDS, RENEWAL_SECONDS, Findings, check_leftovers, check_progress
from tests.model.books import Books, Row, read_books
from tests.model.deployment import Deployment, Ended

KINDS = ("connection", "account_number", "permissions")
EXPIRING_WITHIN_DAYS = 14
STALE_SECONDS = 3600
"""From a stored snapshot older than this nobody is asked without another look."""

FOREIGN_KEY = "foreign-"
"""How the keys of sessions begin that something else of the merchant's makes."""

CERTAINLY_NOT_ACTED_ON = (400, 401, 403, 404, 429)
"""Answers after which a key is as good as new: Stripe gives them before it acts, and keeps nothing under the key."""

CODES = {
    "run": (0, 4, 5),
    "release": (0, 4, 5),
    "dry_run": (0, 5),
    "plan_file": (0, 5),
    "apply": (0, 4, 5),
    "request": (0, 2, 4, 5),
    "collect": (0, 4),
    "adopt": (0, 2, 4),
}
"""How a command may end that nothing disturbed."""


@dataclass(slots=True)
class StepFacts:
    """What is known of a step besides what it left behind."""

    name: str
    ended: Ended | None = None
    fate: str | None = None
    pulls: bool = False
    changes_nothing: bool = False
    sends_nothing: bool = False
    ignores_cooldown: bool = False
    resolves: set[str] = field(default_factory=set)
    adopts: bool = False


class Judge:
    """Looks at a deployment before and after each step."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._world = deployment.world
        self._path = deployment.directory / "relink.db"
        self._books = Books()
        self._judged_effects = 0
        self._judged_calls = 0
        self._first_sent_at: dict[str, int] = {}
        self._step = 0
        self._calm_at: dict[tuple[str, str], int] = {}
        self._opened_at: dict[tuple[str, str, int], int] = {}
        self._affected_at: dict[str, int] = {}
        self._affected_before: set[str] = set()
        self._silenced_before: set[str] = set()
        self._resolved_by_person: set[str] = set()
        self._latest: str | None = None
        self.is_stormy = False
        self.found: Counter[str] = Counter()

    def before(self, facts: StepFacts) -> None:
        """Remember how the world stands."""
        self._step += 1
        self._affected_before = self._look()

    def after(self, facts: StepFacts) -> list[str]:
        """Everything that is wrong after a step, as sentences."""
        self._look()
        before, after = self._books, read_books(self._path)
        findings = Findings()
        check_progress(self._without_found(before, after), after, findings)
        wrong = [*findings.lost, *findings.wrong]
        self._resolved_by_person |= {
            row.request_id
            for name, row in after.requests.items()
            if row.resolved_at is not None
            and (old := before.requests.get(name)) is not None
            and old.resolved_at is None
            and row.authorization_id in facts.resolves
        }
        wrong += self._outages(before, after)
        wrong += self._contacts(facts, before, after)
        wrong += self._posts(after)
        wrong += self._command(facts, before, after)
        self._books = after
        self._judged_effects, self._judged_calls = len(self._world.effects), len(self._world.log)
        return wrong

    def _without_found(self, before: Books, after: Books) -> Books:
        """Without unknown requests that became created, since an event or an operator told of their session.

        That is the very one that its POST had made, or one that something else made about the same authorization, which nothing tells
        from it (see RELIABILITY.md).
        """
        effects = {effect.session_id: effect for effect in self._world.effects}
        rows = {}
        for name, old in before.requests.items():
            new = after.requests.get(name)
            effect = None if new is None or new.state != "created" else effects.get(str(new.session_id))
            if old.state != "unknown" or effect is None:
                rows[name] = old
            elif effect.idempotency_key == old.idempotency_key:
                self.found["its own"] += 1
            elif _is_foreign(effect) and effect.authorization_id == old.authorization_id:
                self.found["another's"] += 1
            else:
                rows[name] = old
        return Books(rows, before.running, before.outages)

    def is_unsettled(self, authorization_id: str) -> bool:
        """Whether a request of an authorization waits for an answer or for a person."""
        return any(
            row.authorization_id == authorization_id
            and (row.state in ("planned", "attempting") or (row.state == "unknown" and row.resolved_at is None))
            for row in self._books.requests.values()
        )

    def sessions_to_adopt(self) -> list[str]:
        """Sessions that the records do not name, but those of requests that the next run asks about itself."""
        known = {row.session_id for row in self._books.requests.values()}
        by_key = {row.idempotency_key: row for row in self._books.requests.values() if row.state != "not_sent"}
        found = []
        for effect in self._world.effects:
            row = by_key.get(effect.idempotency_key)
            if effect.session_id in known:
                continue
            if row is None:
                if not self.is_unsettled(str(effect.authorization_id)):
                    found.append(effect.session_id)
            elif row.state == "unknown" and row.resolved_at is None and self._only_unknown(row):
                found.append(effect.session_id)
        return found

    def _only_unknown(self, row: Row) -> bool:
        rivals = [
            one
            for one in self._books.requests.values()
            if one.authorization_id == row.authorization_id and one.state == "unknown" and one.resolved_at is None
        ]
        return len(rivals) == 1

    # What is true in the world

    def _look(self) -> set[str]:
        """The authorizations that are affected now, with what that says about when an outage was over."""
        affected = set()
        for authorization in self._world.authorizations.values():
            kinds = self._kinds(authorization)
            for kind in KINDS:
                if kind not in kinds:
                    self._calm_at[authorization.id, kind] = self._step
            if kinds:
                affected.add(authorization.id)
                self._affected_at[authorization.id] = self._world.now
        self._silenced_before = self._silenced()
        return affected

    def _kinds(self, authorization: Authorization) -> set[str]:
        rows = {row["account_id"]: row for row in self._deployment.ledger if row["status"] == "open"}
        found = set()
        for account in authorization.accounts:
            row = rows.get(account.id)
            if row is None or account.status == "disconnected":
                continue
            if account.status == "inactive" and account.inactive_action == "none":
                continue
            if account.status == "inactive" or self._is_ending(account):
                found.add("connection")
            if row["purpose"] == "payments" and not self._has_usable_number(account):
                found.add("account_number")
            if not set(str(row["required_permissions"]).split(",")) - {""} <= set(account.permissions):
                found.add("permissions")
        return found

    def _is_ending(self, account: Account) -> bool:
        if account.active_action != "relink_required":
            return False
        return account.expected_at is None or self._days_until(account.expected_at) <= EXPIRING_WITHIN_DAYS

    def _has_usable_number(self, account: Account) -> bool:
        numbers = [one for one in account.numbers if one.identifier_type == "tokenized_account_number"]
        return not numbers or any(
            one.status in ("transactable", "pending")
            and (one.expires_at is None or self._days_until(one.expires_at) > EXPIRING_WITHIN_DAYS)
            for one in numbers
        )

    def _days_until(self, at: int) -> int:
        return (datetime.fromtimestamp(at, UTC).date() - self._deployment.now().date()).days

    def _silenced(self) -> set[str]:
        return {row["account_holder_id"] for row in self._deployment.ledger if row["do_not_contact"]}

    # Outages

    def _outages(self, before: Books, after: Books) -> Iterator[str]:
        for key in after.outages.keys() - before.outages.keys():
            self._opened_at[key] = self._step
            name, kind, number = key
            last = after.outages.get((name, kind, number - 1))
            if number > 1 and last is None:
                yield f"outage {number} of {name} was opened without the one before"
            elif last is not None and not last.is_closed:
                yield f"{name} has two open outages of {kind}"
            elif last is not None and last.closed_reason == "cured":
                since = self._opened_at[name, kind, number - 1]
                if self._calm_at.get((name, kind), -1) < since:
                    yield f"the outage of {name} was counted as over although it never was"

    # Contacts

    def _contacts(self, facts: StepFacts, before: Books, after: Books) -> Iterator[str]:
        rows = list(after.requests.values())
        by_session = {row.session_id: row for row in rows if row.session_id is not None}
        by_key = {row.idempotency_key: row for row in rows if row.state != "not_sent"}
        contacts: dict[tuple[object, ...], str] = {}
        foreign = {effect.session_id for effect in self._world.effects if _is_foreign(effect)}
        for position, effect in enumerate(self._world.effects):
            if effect.session_id in foreign:
                continue
            row = by_session.get(effect.session_id) or by_key.get(effect.idempotency_key)
            if row is None:
                yield f"session {effect.session_id} of {effect.authorization_id} is in no record"
                continue
            contact = (*row.breakage, row.attempt)
            if contact in contacts:
                yield f"contact {contact} was made twice: {contacts[contact]} and {effect.session_id}"
            contacts[contact] = effect.session_id
            if (
                row.session_id != effect.session_id
                and row.session_id not in foreign
                and row.state not in ("unknown", "attempting")
            ):
                yield f"session {effect.session_id} belongs to a record that is {row.state} and names {row.session_id}"
            if position >= self._judged_effects:
                yield from self._new_contact(facts, effect, row, before, rows)
        if facts.changes_nothing or facts.sends_nothing:
            asked = [row for row in rows if row.request_id not in before.requests and not facts.adopts]
            yield from (f"{facts.name} planned request {row.request_id}" for row in asked)

    def _new_contact(self, facts: StepFacts, effect: Effect, row: Row, before: Books, rows: list[Row]) -> Iterator[str]:
        """What a session that was made in this step must keep to."""
        told = f"{row.authorization_id} (attempt {row.attempt} of outage {row.breakage_number})"
        old = before.requests.get(row.request_id)
        if old is not None and old.state != "planned":
            if old.state != "attempting":
                yield f"{told} was asked again although its request was {old.state}"
            return
        if row.state == "planned":
            yield f"{told} was asked by a request that was only planned"
        if row.account_holder_id in self._silenced_before:
            yield f"{row.account_holder_id} was asked although nobody may contact them"
        ledger = {one["account_id"]: one["status"] for one in self._deployment.ledger}
        for account_id in row.covered:
            if ledger.get(account_id) != "open":
                yield f"{told} was asked about {account_id}, which the ledger has as {ledger.get(account_id)}"
        still = self._affected_at.get(row.authorization_id, -1)
        if row.authorization_id not in self._affected_before and (
            facts.pulls or self._world.now - still > STALE_SECONDS
        ):
            yield f"{told} was asked although its accounts work"
        yield from self._guards(facts, row, told, rows)

    def _guards(self, facts: StepFacts, row: Row, told: str, rows: list[Row]) -> Iterator[str]:
        """Attempts, cooldown, open sessions and unknown ones."""
        rules = self._deployment.rules
        others = [one for one in rows if one.request_id != row.request_id and one.planned_at <= row.planned_at]
        attempts = [one for one in others if one.breakage == row.breakage and one.is_attempt]
        if len(attempts) >= rules.max_attempts:
            yield f"{told} was asked after {len(attempts)} of {rules.max_attempts} attempts"
        for other in others:
            same_authorization = other.authorization_id == row.authorization_id
            if same_authorization and other.is_open:
                yield f"{told} was asked while session {other.session_id} is open"
            if same_authorization and other.state == "attempting":
                yield f"{told} was asked while request {other.request_id} is being attempted"
            if other.breakage == row.breakage and other.state == "unknown":
                waited = row.planned_at - (other.attempting_at or row.planned_at)
                if waited < RENEWAL_SECONDS and other.request_id not in self._resolved_by_person:
                    yield f"{told} was asked {waited / 3600:.1f} h after an attempt that is unknown"
            if facts.ignores_cooldown or not other.is_attempt:
                continue
            if other.account_holder_id != row.account_holder_id:
                continue
            if other.state == "rejected" and other.breakage != row.breakage:
                continue
            days = (row.business_date - _contact_date(other)).days
            if days < rules.cooldown_days:
                yield f"{told} was asked {days} days after {other.account_holder_id} was asked about {other.authorization_id}"

    def _posts(self, after: Books) -> Iterator[str]:
        """No POST under a key that may be forgotten; and an unknown request has a reason to be one."""
        log = self._world.log
        for position in range(self._judged_calls, len(log)):
            call = log[position]
            if call.method != "POST" or call.idempotency_key is None:
                continue
            first = self._first_sent_at.get(call.idempotency_key, call.at)
            if call.at - first >= FENCE_SECONDS:
                yield f"a POST went out {(call.at - first) / 3600:.1f} h after its key was first used"
            if call.status not in CERTAINLY_NOT_ACTED_ON:
                self._first_sent_at[call.idempotency_key] = first
        for row in after.requests.values():
            if row.state == "unknown" and row.attempting_at is None:
                yield f"request {row.request_id} is unknown but was never attempted"
            if row.state == "unknown" and row.error_type != "key_expired" and row.http_status not in (500, 400):
                yield f"request {row.request_id} is unknown because of {row.error_type} {row.http_status}"

    # Commands and their reports

    def _command(self, facts: StepFacts, before: Books, after: Books) -> Iterator[str]:
        ended = facts.ended
        if ended is None:
            return
        # A run that is taken over between its last look at the lock and its report may find totals that do not tie.
        if ended.exit_code == 1 and facts.fate != "stop":
            yield f"{facts.name} ended as a bug: {ended.why}"
        if facts.fate is None and not self.is_stormy and ended.exit_code not in CODES[facts.name]:
            yield f"{facts.name} ended with {ended.exit_code}: {ended.why}"
        if facts.changes_nothing and before != after:
            yield f"{facts.name} changed the records"
        if ended.rival is not None and ended.rival.exit_code not in (0, 4, 5, 6, 3):
            yield f"the rival ended with {ended.rival.exit_code}: {ended.rival.why}"
        yield from self._latest_report()
        result = ended.result
        if result is None or result.already_finished is not None:
            return
        if not facts.changes_nothing and after.running:
            yield f"runs {after.running} still count as running"
        totals = result.summary.get("control", [])
        if facts.fate != "stop":
            yield from (f"{one['name']} does not tie" for one in totals if not one["ties"])  # type: ignore[union-attr, index]
        if result.complete and facts.pulls and facts.fate is None:
            yield from self._accounts(facts, result.report_directory, after)
        if result.complete and facts.pulls and not facts.changes_nothing and facts.fate is None:
            findings = Findings()
            check_leftovers(self._deployment.reports, findings)
            yield from findings.wrong

    def _accounts(self, facts: StepFacts, directory: object, after: Books) -> Iterator[str]:
        """Every account key once, with a finding and a next step; and every open outage with something that is done about it."""
        with open(f"{directory}/accounts.csv", encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
        keys = Counter(row["account_id"] for row in rows)
        expected = {*self._world.accounts, *(row["account_id"] for row in self._deployment.ledger)}
        if set(keys) != expected or max(keys.values()) > 1:
            yield f"the report has the accounts {sorted(keys.items())}, not {sorted(expected)} once each"
        yield from (
            f"{row['account_id']} has no next step" for row in rows if not (row["finding"] and row["next_step"])
        )
        if facts.changes_nothing:
            return
        concerned = {row["authorization_id"] for row in rows if row["next_step"] != "none"}
        for outage in after.outages.values():
            if not outage.is_closed and outage.authorization_id not in concerned:
                yield f"the open outage {outage} has no next step"
        for authorization in self._world.authorizations.values():
            for kind in self._kinds(authorization):
                if not any(
                    (one.authorization_id, one.kind, one.is_closed) == (authorization.id, kind, False)
                    for one in after.outages.values()
                ) and not self._is_replaced(authorization, rows):
                    yield f"{authorization.id} is affected ({kind}) and has no open outage"

    def _is_replaced(self, authorization: Authorization, rows: list[dict[str, str]]) -> bool:
        return any(row["authorization_id"] == authorization.id and row["next_step"] == "replaced" for row in rows)

    def _latest_report(self) -> Iterator[str]:
        link = self._deployment.reports / "latest"
        if not link.is_symlink():
            return
        target = str(link.resolve())
        if target != self._latest:
            yield from (f"latest: {fault}" for fault in verify(link.resolve()))
        self._latest = target


def _is_foreign(effect: Effect) -> bool:
    return str(effect.idempotency_key).startswith(FOREIGN_KEY)


def _contact_date(row: Row) -> date:
    """When the customer was asked: at the latest of the request and the handing over."""
    if row.offered_at is None:
        return row.business_date
    return max(row.business_date, (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=row.offered_at)).date())
