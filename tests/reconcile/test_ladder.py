"""The ladder: an outage is asked about on its days, never more often, and after the last one it is a person's."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from reconcile.ladder import answer_until, eligible_dates
from reconcile.model import OutcomeKind, State
from reconcile.policy import RelinkPolicy
from tests.reconcile.nights import FIRST_NIGHT, Decided, Memory, answered, decide, inactive, row, send, stamp, stored
from tests.reconcile.nights import request as request_of

LADDER = (0, 4, 11)


def night(memory: Memory, day: int, **inputs: object) -> Decided:
    """One night at the bank of a customer who never answers; sessions expire as the ladder has it."""
    eligible = eligible_dates(memory.breakages, stamp(day))
    for position, one in enumerate(memory.requests):
        if one.outcome is None and stamp(day).business_date > answer_until(one, memory.policy, stamp(day), eligible):
            memory.requests[position] = replace(one, outcome=str(OutcomeKind.EXPIRED))
    decided = decide([inactive()], [row()], memory, stamp(day), eligible_dates=eligible, **inputs)
    if decided.steps()["fca_1"] in ("request", "cooldown", "open_session", "attempts_exhausted"):
        at = FIRST_NIGHT + timedelta(days=day)
        memory.breakages = tuple(replace(one, eligible_at=one.eligible_at or at) for one in memory.breakages)
    send(memory, decided.plan.requests, stamp(day), offered_at=None)
    return decided


def days_asked(memory: Memory) -> list[int]:
    return [(one.business_date - FIRST_NIGHT.date()).days for one in memory.requests]


def test_a_customer_who_never_answers_is_asked_on_the_days_of_the_ladder_and_then_a_person() -> None:
    memory = Memory(RelinkPolicy(ladder_days=LADDER))
    steps = [night(memory, day).steps()["fca_1"] for day in range(40)]
    assert days_asked(memory) == [0, 4, 11]
    assert steps[1:4] == ["open_session"] * 3
    assert steps[12:19] == ["open_session"] * 7
    assert set(steps[19:]) == {"attempts_exhausted"}


def test_an_answer_that_failed_waits_for_the_next_step_and_says_when_it_is_due() -> None:
    memory = Memory(RelinkPolicy(ladder_days=LADDER))
    night(memory, 0)
    answered(memory, OutcomeKind.FAILED)
    assert [night(memory, day).steps()["fca_1"] for day in (1, 2, 3)] == ["cooldown"] * 3
    detail = night(memory, 3).plan.decisions[0].detail
    assert detail == "step 2 of 3 of the ladder is due on 2026-11-06"
    assert night(memory, 4).asked == ["fcauth_1"]


def test_the_days_are_counted_from_when_nothing_held_the_outage_back() -> None:
    memory = Memory(RelinkPolicy(ladder_days=LADDER))
    for day in range(3):
        assert night(memory, day, held_authorizations={"fcauth_1"}).steps()["fca_1"] == "held_by_brake"
    for day in range(3, 30):
        night(memory, day)
    assert days_asked(memory) == [3, 7, 14]


def test_a_step_that_came_late_moves_no_later_one_but_for_the_two_days_between_contacts() -> None:
    memory = Memory(RelinkPolicy(ladder_days=LADDER))
    night(memory, 0)
    for day in range(1, 11):
        night(memory, day, quiet="quiet weekday sunday" if 4 <= day < 10 else None)
    for day in range(11, 30):
        night(memory, day)
    assert days_asked(memory) == [0, 10, 12]


def test_max_attempts_stands_above_a_longer_ladder() -> None:
    memory = Memory(RelinkPolicy(ladder_days=LADDER, max_attempts=2))
    for day in range(30):
        decided = night(memory, day)
    assert days_asked(memory) == [0, 4]
    assert decided.plan.decisions[0].detail == "2 of 2 attempts are spent"


def test_the_other_bank_of_a_customer_is_asked_about_two_days_later_at_the_earliest() -> None:
    memory = Memory(RelinkPolicy(ladder_days=LADDER))
    accounts = [inactive("fca_1", "fcauth_1"), inactive("fca_2", "fcauth_2")]
    ledger = [row("fca_1"), row("fca_2")]
    asked = {}
    for day in range(3):
        decided = decide(accounts, ledger, memory, stamp(day))
        send(memory, decided.plan.requests, stamp(day), outcome=str(OutcomeKind.CANCELLED))
        asked[day] = decided.asked
    assert asked == {0: ["fcauth_1"], 1: [], 2: ["fcauth_2"]}


def test_without_the_date_of_eligibility_the_first_request_begins_the_ladder() -> None:
    policy = RelinkPolicy(ladder_days=LADDER)
    second = stored(replace(request_of(), attempt=2), FIRST_NIGHT.date() + timedelta(days=4), FIRST_NIGHT)
    assert answer_until(second, policy, stamp(), {}) == FIRST_NIGHT.date() + timedelta(days=10)
    third = stored(replace(request_of(), attempt=3), FIRST_NIGHT.date(), FIRST_NIGHT)
    assert answer_until(third, policy, stamp(), {}) == FIRST_NIGHT.date() + timedelta(days=policy.pending_days)


@settings(max_examples=30)
@given(
    st.lists(st.integers(2, 9), min_size=0, max_size=3).flatmap(
        lambda gaps: st.tuples(st.just(gaps), st.lists(st.sampled_from(("", "quiet", "held", "refused")), max_size=45))
    )
)
def test_no_night_of_any_kind_puts_anybody_above_the_ladder(case: tuple[list[int], list[str]]) -> None:
    gaps, kinds = case
    ladder = tuple(sum(gaps[:step]) for step in range(len(gaps) + 1))
    memory = Memory(RelinkPolicy(ladder_days=ladder))
    for day, kind in enumerate(kinds):
        before = len(memory.requests)
        quiet = "quiet date" if kind == "quiet" else None
        night(memory, day, quiet=quiet, held_authorizations={"fcauth_1"} if kind == "held" else ())
        if kind == "refused" and len(memory.requests) > before:
            memory.requests[-1] = replace(memory.requests[-1], state=str(State.REJECTED), session_id=None)
    days = days_asked(memory)
    assert len(days) <= len(ladder)
    assert all(later - earlier >= 2 for earlier, later in pairwise(days))
    assert all(day - days[0] >= due for day, due in zip(days, ladder, strict=False)) or not days
