"""The whole way from history to next steps over parts of a world, with the same functions as for the whole and the same result.

Within a part: the account history, findings, and what each authorization's own accounts decide. Over all parts: outages (a set union), brakes
(sums), customers whom the ledger silences, and who is asked, in one order of urgency.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from reconcile.brakes import BrakeTally, tally_brakes
from reconcile.breakages import ShownKinds, shown_kinds
from reconcile.classify import classify
from reconcile.frames import FINDINGS, HISTORY, LEDGER, empty, from_columns
from reconcile.history import HistoryStep, advance_history
from reconcile.model import Holder, Plan, RunStamp
from reconcile.partitions import Part, parts_for, split
from reconcile.plan import Candidate, Crossing, PlanInputs, crossing, give_out, settle_plan, survey
from reconcile.policy import RelinkPolicy


class Shelf(Protocol):
    """Where the findings of parts wait, so that only one part need be in memory."""

    def put(self, part: int, findings: pd.DataFrame) -> None:
        """Keep a part's findings in place of its earlier ones."""

    def take(self, part: int) -> pd.DataFrame:
        """A part's findings as they were put."""


@dataclass(frozen=True, slots=True)
class Overview:
    """What all parts show together, and how many there are."""

    parts: int
    shown: ShownKinds
    tally: BrakeTally
    across: Crossing
    changed_holders: frozenset[Holder]


def advance_large_history(
    previous: pd.DataFrame,
    accounts: pd.DataFrame,
    stamp: RunStamp,
    deactivated_at: Mapping[str, datetime] | None = None,
    parts: int | None = None,
) -> HistoryStep:
    """What `advance_history` says, worked out in parts where there are many accounts, so that its own memory does not grow with them."""
    parts = parts_for(len(accounts)) if parts is None else parts
    if parts == 1:
        return advance_history(previous, accounts, stamp, deactivated_at)
    steps = [
        advance_history(part.history, part.accounts, stamp, deactivated_at, first_run=previous.empty)
        for part in split(accounts, empty(LEDGER), previous, parts)
    ]
    holders = frozenset(holder for step in steps for holder in step.changed_holders)
    latest = _in_order([step.latest for step in steps], HISTORY)
    if all(step.changed is step.latest for step in steps):
        return HistoryStep(latest, latest, holders)
    return HistoryStep(_in_order([step.changed for step in steps], HISTORY), latest, holders)


def classify_large(
    accounts: pd.DataFrame,
    ledger: pd.DataFrame,
    history: pd.DataFrame,
    policy: RelinkPolicy,
    stamp: RunStamp,
    parts: int | None = None,
) -> pd.DataFrame:
    """What `classify` says, worked out in parts where there are many accounts."""
    parts = parts_for(max(len(accounts), len(ledger))) if parts is None else parts
    if parts == 1:
        return classify(accounts, ledger, history, policy, stamp)
    return _in_order([classify(*part, policy, stamp) for part in split(accounts, ledger, history, parts)], FINDINGS)


def _in_order(frames: list[pd.DataFrame], contract: Mapping[str, pa.DataType]) -> pd.DataFrame:
    """The rows of parts as they stand in the whole, by account id; column after column, of which the parts' go meanwhile."""
    whole = pa.concat_tables([pa.Table.from_pandas(frame, preserve_index=False) for frame in frames])
    frames.clear()
    order = pc.sort_indices(whole["account_id"])
    columns = {}
    for name in contract:
        columns[name] = whole[name].take(order).combine_chunks()
        whole = whole.drop_columns(name)
    return from_columns(columns, contract)


def classify_parts(
    parts: Iterable[Part],
    shelf: Shelf,
    policy: RelinkPolicy,
    stamp: RunStamp,
    *,
    first_run: bool,
    successors: Mapping[str, str],
    deactivated_at: Mapping[str, datetime] | None = None,
    advanced: Callable[[HistoryStep], None] = lambda step: None,
) -> Overview:
    """Carry each part's history forward and give each of its accounts a finding, which goes to the shelf.

    Args:
        first_run: whether the job never looked before.
        successors: the new account id by the old, other one.
        advanced: is told each part's step of history.
    """
    count, shown, across = 0, ShownKinds(), Crossing()
    tallies: list[BrakeTally] = []
    holders: set[Holder] = set()
    for count, part in enumerate(parts, start=1):
        step = advance_history(part.history, part.accounts, stamp, deactivated_at, first_run=first_run)
        findings = classify(part.accounts, part.ledger, step.latest, policy, stamp)
        shelf.put(count - 1, findings)
        shown |= shown_kinds(findings, set(successors))
        across |= crossing(findings, successors)
        tallies.append(tally_brakes(findings))
        holders |= step.changed_holders
        advanced(step)
    tally = tallies[0]
    for other in tallies[1:]:
        tally += other
    return Overview(count, shown, tally, across, frozenset(holders))


def plan_parts(
    shelf: Shelf, overview: Overview, inputs: PlanInputs, planned: Callable[[int, pd.DataFrame], None]
) -> Plan:
    """Decide every account's next step and the requests, as `plan.plan` does for the whole.

    Args:
        planned: is told each part's findings with their next steps.
    """
    waiting: list[Candidate] = []
    for part in range(overview.parts):
        waiting += survey(shelf.take(part), inputs, overview.across).candidates
    turns = give_out(waiting, inputs)
    del waiting
    plans: list[Plan] = []
    for part in range(overview.parts):
        findings = shelf.take(part)
        settled, own = settle_plan(findings, survey(findings, inputs, overview.across), turns, inputs)
        planned(part, settled)
        plans.append(own)
    return Plan(
        tuple(
            sorted((one for own in plans for one in own.requests), key=lambda one: turns[one.authorization_id].number)
        ),
        tuple(sorted((one for own in plans for one in own.decisions), key=lambda one: one.authorization_id)),
        tuple(sorted((one for own in plans for one in own.held), key=lambda one: turns[one.authorization_id].number)),
        inputs.twins_in_review,
    )
