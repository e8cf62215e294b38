"""A world judged in parts is the world judged at once: every finding, step, outage, brake, request and report table."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconcile.brakes import BrakeInputs, apply_brakes, judge_brakes
from reconcile.breakages import advance_breakages, step_breakages
from reconcile.classify import classify
from reconcile.contacts import sum_up_contacts
from reconcile.frames import HISTORY, empty
from reconcile.history import advance_history
from reconcile.normalize import accounts_frame, ledger_frame
from reconcile.partitioned import advance_large_history, classify_large, classify_parts, plan_parts
from reconcile.partitions import part_numbers, split
from reconcile.plan import PlanInputs, plan
from reconcile.policy import BrakePolicy, RelinkPolicy
from reports.tables import accounts_table, authorizations_table, combine
from tests.reconcile.nights import SCOPE, Memory, account, decide, row, send, stamp
from tests.reconcile.test_properties import World, policies, worlds

TABLES = ("accounts", "authorizations")
BRAKES = BrakePolicy(minimum=1, newly_broken_share=0.9, newly_broken_share_7d=0.95)


class InMemory(dict[int, pd.DataFrame]):
    """A shelf without a disk."""

    put = dict.__setitem__
    take = dict.__getitem__


@settings(max_examples=12)
@given(worlds(), worlds(), policies, st.integers(1, 5), st.integers(0, 2), st.booleans(), st.integers(0, 12))
def test_parts_say_what_the_whole_says(
    first: World, second: World, policy: RelinkPolicy, parts: int, nights_between: int, moved: bool, known: int
) -> None:
    """On a second night, after one whose requests were sent, with changed accounts and, it may be, a replaced one."""
    memory, before = Memory(policy), stamp(0)
    asked = decide(*first, memory, before)
    memory.requests += send(memory, asked.plan.requests, before)
    successors = {"fca_01": "fca_02", "fca_03": "fca_99"} if moved else {}
    tonight = stamp(1 + nights_between)
    accounts, ledger = accounts_frame(second[0]), ledger_frame(second[1], "main")
    brake_inputs = BrakeInputs(
        known={f"fca_{number:02d}" for number in range(known)},
        new_this_week=(),
        released_authorizations=(),
        first_run=False,
        live=False,
    )

    def inputs(breakages: Any, held: frozenset[str]) -> PlanInputs:
        contacts = sum_up_contacts(memory.requests, [one.key for one in breakages], tonight)
        return PlanInputs(SCOPE, tonight, policy, breakages, contacts, successors, ["fca_04"], held)

    whole_history = advance_history(memory.history, accounts, tonight)
    whole = classify(accounts, ledger, whole_history.latest, policy, tonight)
    outages = advance_breakages(memory.breakages, memory.numbers, whole, set(successors), tonight)
    verdict = apply_brakes(whole, BRAKES, brake_inputs)
    large = advance_large_history(memory.history, accounts, tonight, parts=parts)
    assert large.latest.equals(whole_history.latest)
    assert large.changed.equals(whole_history.changed)
    assert large.changed_holders == whole_history.changed_holders
    assert classify_large(accounts, ledger, large.latest, policy, tonight, parts=parts).equals(whole)
    whole, whole_plan = plan(whole, inputs(outages.open, verdict.held_authorizations))

    steps, shelf, settled = [], InMemory(), {}
    overview = classify_parts(
        split(accounts, ledger, memory.history, parts),
        shelf,
        policy,
        tonight,
        first_run=memory.history.empty,
        successors=successors,
        advanced=steps.append,
    )
    assert step_breakages(memory.breakages, memory.numbers, overview.shown, tonight) == outages
    assert judge_brakes(overview.tally, BRAKES, brake_inputs) == verdict
    assert overview.changed_holders == whole_history.changed_holders
    own = plan_parts(shelf, overview, inputs(outages.open, verdict.held_authorizations), settled.__setitem__)

    assert own == whole_plan
    assert in_order(list(settled.values())).equals(whole)
    for name in ("latest", "changed"):
        assert in_order([getattr(step, name) for step in steps]).equals(getattr(whole_history, name))
    keys = {one.key for one in outages.open}
    expected = [
        accounts_table("main", whole),
        authorizations_table("main", whole, memory.requests, open_breakages=keys),
    ]
    pieces = [
        [accounts_table("main", part) for part in settled.values()],
        [authorizations_table("main", part, memory.requests, open_breakages=keys) for part in settled.values()],
    ]
    for name, table, found in zip(TABLES, expected, pieces, strict=True):
        assert combine(name, found).equals(combine(name, [table]))


def in_order(parts: list[pd.DataFrame]) -> pd.DataFrame:
    filled = [part for part in parts if len(part)] or parts[:1]
    return pd.concat(filled, ignore_index=True).sort_values("account_id", ignore_index=True)


def test_accounts_of_one_authorization_stay_together_whatever_customers_they_name() -> None:
    accounts = accounts_frame(
        [account(f"fca_{number}", f"fcauth_{number // 4}", account_holder_id=f"cus_{number}") for number in range(400)]
    )
    numbers = part_numbers(accounts, 8)
    parts = pd.DataFrame({"authorization": accounts["authorization_id"], "part": numbers})
    assert parts.groupby("authorization")["part"].nunique().eq(1).all()
    assert set(numbers) >= {0, 1, 2, 3}


def test_customers_spread_evenly_over_parts() -> None:
    accounts = accounts_frame(
        [
            account(f"fca_{number}", f"fcauth_{number}", account_holder_id=f"cus_{number:014d}")
            for number in range(4_000)
        ]
    )
    counts = pd.Series(part_numbers(accounts, 8)).value_counts()
    assert len(counts) == 8
    assert counts.min() > 350


@pytest.mark.parametrize("holder", [None, "", "é", "cus_1"])
def test_any_customer_has_a_part_and_its_ledger_row_and_history_follow(holder: str | None) -> None:
    accounts = accounts_frame([account("fca_1", None, account_holder_id=holder)])
    ledger = ledger_frame([row("fca_1", "cus_other"), row("fca_2", "cus_gone")], "main")
    history = advance_history(empty(HISTORY), accounts, stamp()).latest
    parts = list(split(accounts, ledger, history, 7))
    home = next(part for part in parts if len(part.accounts))
    assert "fca_1" in set(home.ledger["account_id"])
    assert home.history["account_id"].tolist() == ["fca_1"]
    assert sum(len(part.ledger) for part in parts) == 2
