"""Held plans and API calls in both databases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from sqlalchemy import update

from jobs.adapters import records
from jobs.adapters.database import Database
from jobs.adapters.lease import LeaseToken
from jobs.adapters.tables import plans
from reconcile.errors import DecisionNeeded, LeaseLost
from reconcile.model import Scope
from tests.jobs.adapters.stored_values import AT, DATE, DAY, HOUR, OTHER_SCOPE, RUN_ID, SCOPE, held, key
from tests.jobs.adapters.waiting import until_blocked

OTHER_MERCHANT = replace(SCOPE, merchant="other")


def held_plan(plan_hash: str = "hash_1", created_at: datetime = AT, scope: Scope = SCOPE) -> records.HeldPlan:
    return records.HeldPlan(
        plan_hash,
        RUN_ID,
        scope.merchant,
        scope.mode,
        created_at,
        DATE,
        "plan.json",
        (key(), key("fcauth_2", "permissions", 3)),
    )


def test_a_held_plan_is_released_once_and_within_a_day(database: Database) -> None:
    records.hold_plan(database, held_plan())
    records.hold_plan(database, held_plan("hash_2", scope=OTHER_SCOPE))
    assert records.held_plan(database, "hash_1") == held_plan()
    assert [plan.plan_hash for plan in records.list_held_plans(database, AT + HOUR)] == ["hash_1", "hash_2"]
    assert [plan.plan_hash for plan in records.list_held_plans(database, AT + HOUR, SCOPE)] == ["hash_1"]
    assert records.list_held_plans(database, AT + DAY) == []
    with pytest.raises(DecisionNeeded, match="last 24 hours"):
        records.release_plan(database, "hash_1", "run_2", AT + DAY)
    with pytest.raises(DecisionNeeded, match="last 24 hours"):
        records.release_plan(database, "hash_1", "run_2", AT - HOUR)
    released = records.release_plan(database, "hash_1", "run_2", AT + HOUR)
    assert (released.pairs, released.released_at, released.released_by_run) == (held_plan().pairs, AT + HOUR, "run_2")
    assert records.release_plan(database, "hash_1", "run_2", AT + 2 * HOUR) == released
    with pytest.raises(DecisionNeeded, match="run_2"):
        records.release_plan(database, "hash_1", "run_3", AT + 2 * HOUR)
    records.hold_plan(database, held_plan())
    with pytest.raises(DecisionNeeded, match="holds once"):
        records.release_plan(database, "hash_1", "run_3", AT + 2 * HOUR)
    with pytest.raises(DecisionNeeded, match="nonesuch"):
        records.release_plan(database, "nonesuch", "run_2", AT)


def test_waiting_plans_are_listed_oldest_first_without_those_that_were_released_and_by_merchant(
    database: Database,
) -> None:
    for plan_hash, at, scope in (
        ("hash_b", AT + HOUR, SCOPE),
        ("hash_d", AT, SCOPE),
        ("hash_c", AT, SCOPE),
        ("hash_a", AT + HOUR, OTHER_MERCHANT),
        ("hash_e", AT, SCOPE),
    ):
        records.hold_plan(database, held_plan(plan_hash, at, scope))
    records.release_plan(database, "hash_e", "run_2", AT + HOUR)
    waiting = records.list_held_plans(database, AT + 2 * HOUR)
    assert [plan.plan_hash for plan in waiting] == ["hash_c", "hash_d", "hash_a", "hash_b"]
    assert [plan.plan_hash for plan in records.list_held_plans(database, AT + 2 * HOUR, OTHER_MERCHANT)] == ["hash_a"]


def test_a_release_is_committed_when_it_returns(database: Database) -> None:
    """Else a run that dies after it asked could be followed by another one with the same release."""
    records.hold_plan(database, held_plan())
    with database.begin(), pytest.raises(RuntimeError):
        records.release_plan(database, "hash_1", "run_2", AT + HOUR)


def test_of_eight_runs_one_gets_a_held_plan(database: Database) -> None:
    records.hold_plan(database, held_plan())

    def release(number: int) -> bool:
        try:
            return (
                records.release_plan(database, "hash_1", f"run {number}", AT + HOUR).released_by_run == f"run {number}"
            )
        except DecisionNeeded:
            return False

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(release, range(8))) == [False] * 7 + [True]


def test_a_release_that_waited_for_another_one_finds_the_plan_taken(database: Database) -> None:
    """On PostgreSQL it has read the plan as free before; on SQLite it begins after the other one's end."""
    records.hold_plan(database, held_plan())
    with ThreadPoolExecutor(1) as pool:
        with database.begin() as connection:
            connection.execute(update(plans).values(released_at=AT, released_by_run="run_2"))
            late = pool.submit(records.release_plan, database, "hash_1", "run_3", AT + HOUR)
            until_blocked(database, late)
        with pytest.raises(DecisionNeeded, match="holds once"):
            late.result()
    assert records.held_plan(database, "hash_1") == replace(held_plan(), released_at=AT, released_by_run="run_2")


def test_calls_add_up_and_reads_count_for_thirty_days(database: Database) -> None:
    reads, sessions = records.ApiCalls("pull", "read", 100, 2, 1), records.ApiCalls("sessions", "write", 7)
    for _ in range(2):
        records.add_api_calls(database, RUN_ID, SCOPE, DATE, [reads, sessions])
    records.add_api_calls(database, RUN_ID, SCOPE, (AT - 29 * DAY).date(), [records.ApiCalls("collect", "read", 10)])
    records.add_api_calls(database, RUN_ID, SCOPE, (AT - 30 * DAY).date(), [records.ApiCalls("collect", "read", 1000)])
    records.add_api_calls(database, RUN_ID, OTHER_SCOPE, DATE, [records.ApiCalls("pull", "read", 5)])
    assert records.reads_last_30_days(database, SCOPE, AT) == 210
    assert records.reads_last_30_days(database, Scope("nobody", "live"), AT) == 0
    assert records.api_calls_of_run(database, RUN_ID, SCOPE) == [
        records.ApiCalls("collect", "read", 1010),
        records.ApiCalls("pull", "read", 200, 4, 2),
        records.ApiCalls("sessions", "write", 14),
    ]
    assert sum(calls.calls for calls in records.api_calls_of_run(database, RUN_ID)) == 1229
    assert records.api_calls_of_run(database, RUN_ID, OTHER_MERCHANT) == []
    assert records.reads_last_30_days(database, OTHER_MERCHANT, AT) == 0


def test_reads_are_told_by_purpose_the_most_first(database: Database) -> None:
    spent = [records.ApiCalls(purpose, "read", calls) for purpose, calls in (("b", 5), ("a", 5), ("c", 6), ("d", 2))]
    records.add_api_calls(database, RUN_ID, SCOPE, DATE, [*spent, records.ApiCalls("c", "write", 50)])
    records.add_api_calls(database, RUN_ID, SCOPE, (AT - 29 * DAY).date(), [records.ApiCalls("d", "read", 9)])
    records.add_api_calls(database, RUN_ID, SCOPE, (AT - 30 * DAY).date(), [records.ApiCalls("d", "read", 1000)])
    for other in (OTHER_SCOPE, OTHER_MERCHANT):
        records.add_api_calls(database, RUN_ID, other, DATE, spent)
    told = records.reads_by_purpose_30_days(database, SCOPE, AT)
    assert list(told.items()) == [("d", 11), ("c", 6), ("a", 5), ("b", 5)]


def test_a_run_that_was_taken_over_releases_nothing(database: Database) -> None:
    records.hold_plan(database, held_plan())
    token = held(database).token
    with pytest.raises(LeaseLost):
        records.release_plan(database, "hash_1", "run_2", AT, LeaseToken(token.value - 1))
    assert records.held_plan(database, "hash_1") == held_plan()
    assert records.release_plan(database, "hash_1", "run_2", AT, token).released_by_run == "run_2", (
        "as soon as it is made"
    )


def test_the_plans_that_held_an_authorization_are_found_by_when_they_were_made(database: Database) -> None:
    for plan_hash, at, scope in (
        ("before", AT - timedelta(microseconds=1), SCOPE),
        ("second", AT + HOUR, SCOPE),
        ("first_b", AT, SCOPE),
        ("first_a", AT, SCOPE),
        ("last", AT + DAY, SCOPE),
        ("of_another_mode", AT, OTHER_SCOPE),
        ("of_another_merchant", AT, OTHER_MERCHANT),
    ):
        records.hold_plan(database, held_plan(plan_hash, at, scope))
    records.hold_plan(database, replace(held_plan("without", AT), pairs=(key("fcauth_3"),)))

    def holding(before: datetime | None, authorization_id: str = "fcauth_2") -> list[str]:
        found = records.plans_holding(database, SCOPE, authorization_id, AT, before)
        return [plan.plan_hash for plan in found]

    assert holding(None) == ["first_a", "first_b", "second", "last"]
    assert holding(AT + DAY) == ["first_a", "first_b", "second"]
    assert holding(None, "fcauth_3") == ["without"]
    assert holding(None, "fcauth_4") == []
