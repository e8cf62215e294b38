"""Every session accounted for: in the records, with an outcome that is what its customer did; and successors that are the truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from jobs.simulator.model import Effect, Session
from jobs.simulator.world import World
from tests.forty_nights.customers import Customers
from tests.forty_nights.evidence import Evidence
from tests.forty_nights.truth import Successors, successors_of
from tests.model.books import Row

WAITING = ("pending", "expired", "healed")
SILENT_STEPS = ("ledger_closed", "do_not_contact", "none", None)
"""Steps of an old account about which nobody needs to know its successor: its row is closed, silenced, gone, or it works."""


@dataclass(slots=True)
class SessionJudge:
    """Follows sessions and successors over the nights. `told_successors` are those that reports have shown, by old account."""

    world: World
    customers: Customers
    told_successors: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    _outcomes: dict[str, str | None] = field(default_factory=dict)

    def is_told_to_live_on(self, account_id: str) -> bool:
        """Whether a report has shown another account in its place."""
        return any(new != account_id for new, _ in self.told_successors.get(account_id, []))

    def rows_of(self, effects: Iterable[Effect], evidence: Evidence) -> dict[str, Row]:
        """The row that knows each session: the one that names it, else the one that has its key."""
        rows = [row for row in evidence.books.requests.values() if row.state != "not_sent"]
        by_session = {row.session_id: row for row in rows if row.session_id is not None}
        by_key = {row.idempotency_key: row for row in rows}
        found = {
            one.session_id: by_session.get(one.session_id) or by_key.get(str(one.idempotency_key)) for one in effects
        }
        return {name: row for name, row in found.items() if row is not None}

    def after(self, evidence: Evidence, new: Sequence[Effect], figures: Counter[str]) -> Iterator[str]:
        """Judge a run's sessions and successors."""
        known = self.rows_of(self.world.effects, evidence)
        figures["sessions unaccounted"] = 0
        shown = {row["request_id"]: row for row in evidence.tables.get("relink_outcomes", [])}
        for effect in self.world.effects:
            row = known.get(effect.session_id)
            if row is None:
                figures["sessions unaccounted"] += 1
                yield f"session {effect.session_id} is in no record"
            elif row.state == "created" and evidence.is_complete and row.is_open and row.request_id not in shown:
                figures["sessions unaccounted"] += 1
                yield f"session {effect.session_id} is open and the report has no row for it"
            elif row.state not in ("created", "unknown", "attempting"):
                figures["sessions unaccounted"] += 1
                yield f"session {effect.session_id} exists and its request is {row.state}"
        yield from self._changes(evidence)
        yield from self._successors(evidence, figures)

    def _changes(self, evidence: Evidence) -> Iterator[str]:
        """An outcome that a run concluded is what the session's customer had done by then."""
        for row in evidence.books.requests.values():
            if self._outcomes.get(row.request_id) == row.outcome:
                continue
            self._outcomes[row.request_id] = row.outcome
            session = self.world.sessions.get(row.session_id or "")
            if session is not None and row.outcome is not None:
                possible = self._possible(session, row)
                if row.outcome not in possible:
                    yield f"session {session.id} is {session.status} {session.result} and its outcome {row.outcome}, not {possible}"

    def _possible(self, session: Session, row: Row) -> set[str]:
        """The outcomes that a session may have, by what its customer did and by the accounts."""
        active = [name for name in row.covered if (one := self.world.accounts.get(name)) and one.status == "active"]
        result = session.result or {}
        if "failure_reason" in result or session.status == "failed":
            return {"failed"}
        if session.status == "cancelled":
            return {"cancelled"}
        if "authorization" in result and result["authorization"] != session.authorization_id:
            return {"new_authorization", "review", "pending"}
        if "authorization" in result:
            cured = set(active) | set(session.account_ids) & set(row.covered)
            return {*WAITING, "relinked_partially"} | ({"relinked"} if cured >= set(row.covered) else set())
        if session.status == "succeeded":
            return {"review"}
        return {"pending", "expired"} | ({"healed"} if len(active) == len(row.covered) else set())

    def _truth(self) -> Successors:
        return successors_of(self.world, self.customers.moved)

    def _successors(self, evidence: Evidence, figures: Counter[str]) -> Iterator[str]:
        truth = self._truth()
        for row in evidence.tables.get("account_successors", []):
            old, new, under = row["old_account_id"], row["new_account_id"], row["new_authorization_id"]
            told = self.told_successors.setdefault(old, [])
            if (new, under) in told:
                continue
            told.append((new, under))
            if truth.is_true(old, new, under):
                figures["successors right"] += 1
            else:
                figures["successors wrong"] += 1
                yield f"{old} is said to live on as {new} of {under}, and {dict(truth.by_old.get(old, {}))} is true"

    def at_the_end(self, evidence: Evidence, figures: Counter[str]) -> Iterator[str]:
        """After a last look at everything: each session's outcome is final and true, each replaced account known or in review."""
        known = self.rows_of(self.world.effects, evidence)
        steps = {row["account_id"]: row["next_step"] for row in evidence.tables["accounts"]}
        truth = self._truth()
        for effect in self.world.effects:
            row, session = known.get(effect.session_id), self.world.sessions[effect.session_id]
            figures[f"outcome: {'unknown' if row is None or row.state == 'unknown' else row.outcome or 'pending'}"] += 1
            if row is None or row.state != "created":
                continue
            if (
                session.status != "pending"
                and row.outcome in (None, *WAITING)
                and not self._came_to_nothing(session, row)
            ):
                figures["sessions unaccounted"] += 1
                yield f"session {session.id} was answered ({session.status} {session.result}) and its outcome is {row.outcome}"
            if row.outcome in ("new_authorization", "review"):
                yield from self._replaced(session, row, truth, steps, figures)

    def _came_to_nothing(self, session: Session, row: Row) -> bool:
        """Whether an answered session cured nothing that it was to cure, so that it is rightly waited for and then over."""
        result = session.result or {}
        if result.get("authorization") != session.authorization_id:
            return False
        here = [self.world.accounts[name] for name in row.covered if name in session.account_ids]
        return not here or any(account.status != "active" or account.broken_at > session.created for account in here)

    def _replaced(
        self, session: Session, row: Row, truth: Successors, steps: Mapping[str, str], figures: Counter[str]
    ) -> Iterator[str]:
        under = (session.result or {}).get("authorization")
        if under is None:
            return
        for old in row.covered:
            true = truth.by_old.get(old, {}).get(under)
            told = [new for new, told_under in self.told_successors.get(old, []) if told_under == under]
            if true is None or told:
                continue
            if row.outcome == "review" or steps.get(old) == "review":
                figures["successors in review"] += 1
            elif steps.get(old) in SILENT_STEPS:
                figures["successors of silent accounts"] += 1
            else:
                figures["successors missing"] += 1
                yield f"{old} lives on as {sorted(true)} and is {steps.get(old)}, its request {row.outcome}"
