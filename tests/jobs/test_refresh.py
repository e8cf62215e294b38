"""Fresh data after a relink: asked for once for each account and success, followed to the end, and never the end of a run."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from jobs.adapters.database import open_database
from jobs.adapters.tables import refreshes as refresh_rows
from jobs.history import history
from jobs.nightly import RunResult
from jobs.work import Work
from tests.jobs.conftest import MakeNights
from tests.jobs.nights import SCOPE, Nights, assert_ties, small_world, table

WANTED = {"refresh_after": ["balances", "transactions"]}


@pytest.fixture
def asked(nights: Nights) -> Nights:
    """Three customers were asked and one of them has relinked both accounts; refreshes are wanted."""
    return with_success(nights)


def with_success(nights: Nights) -> Nights:
    nights.sections["relink"] = WANTED
    nights.run()
    nights.world.advance(hours=2)
    nights.world.answer(str(nights.by_authorization()["fcauth_1"].session_id), "whole")
    return nights


def told(result: RunResult) -> dict[str, dict[str, Any]]:
    """The accounts of which a report tells a refresh."""
    return {row["account_id"]: row for row in table(result, "accounts") if row["refresh_status"] is not None}


def statuses(result: RunResult) -> dict[str, str]:
    return {name: row["refresh_status"] for name, row in told(result).items()}


def states(nights: Nights) -> dict[str, str]:
    with open_database(nights.database_url) as database, database.read() as connection:
        return {row.account_id: row.state for row in connection.execute(select(refresh_rows))}


def refresh_posts(nights: Nights) -> list[str]:
    return [call.path.split("/")[-2] for call in nights.world.log if call.method == "POST" and "refresh" in call.path]


def disturb(nights: Nights, kind: str) -> None:
    """From now on let refreshes fail in this way."""
    nights.world.faults.script(kind, method="POST", path="*/refresh", times=1000)


def test_each_account_that_came_back_is_asked_for_once_and_followed_to_its_end(both_nights: Nights) -> None:
    nights = with_success(both_nights)
    first = nights.next_night()
    both = {"fca_1_1", "fca_1_2"}
    assert statuses(first) == dict.fromkeys(both, "pending")
    assert first.exit_code == 0
    assert first.summary["api_calls"]["refreshes"] == 2
    assert first.summary["api_calls"]["reads"]["refresh"] == 2
    assert first.summary["counts"]["refresh_status"]["pending"] == 2
    assert_ties(first)
    second = nights.next_night()
    assert statuses(second) == dict.fromkeys(both, "succeeded")
    for row in told(second).values():
        assert row["balances_as_of"] is not None
        assert row["transactions_through"] >= row["refresh_requested_at"]
        assert row["ownership_as_of"] is None
    third = nights.next_night()
    assert statuses(third) == statuses(second)
    assert "refresh" not in third.summary["api_calls"]["reads"], "an end is not read again"
    assert sorted(refresh_posts(nights)) == sorted(both)
    assert {name for _, name in nights.world.refreshes} == {("balance", "transaction")}
    with open_database(nights.database_url) as database:
        texts = [event.text for event in history(database, SCOPE, "fcauth_1") if event.kind == "refresh"]
    assert any("Stripe was asked (balances, transactions)" in text for text in texts)
    assert any("transactions succeeded" in text for text in texts)


def test_without_the_setting_nothing_is_asked(nights: Nights) -> None:
    with_success(nights).sections["relink"] = {}
    assert statuses(nights.next_night()) == {}
    assert refresh_posts(nights) == []
    assert states(nights) == {}


def test_a_plan_says_what_would_be_read_and_asks_for_nothing(asked: Nights) -> None:
    asked.next_night()
    asked.world.advance(days=1)
    before = asked.knowledge()
    plan = asked.run(Work("plan", dry_run=True))
    assert plan.summary["merchants"][0]["pull"]["expected_reads"]["refresh"] == 2
    assert asked.knowledge() == before
    assert len(refresh_posts(asked)) == 2


def test_successors_are_refreshed_under_their_new_ids(nights: Nights) -> None:
    nights.sections["relink"] = WANTED
    nights.run()
    nights.world.advance(hours=2)
    session_id = str(nights.by_authorization()["fcauth_1"].session_id)
    nights.world.answer(session_id, "new_authorization", keep_account_ids=False)
    result = nights.next_night()
    successors = {row["new_account_id"] for row in table(result, "account_successors")}
    assert len(successors) == 2
    assert set(refresh_posts(nights)) == successors
    assert set(statuses(result)) == successors


def test_only_what_is_granted_is_asked_for(asked: Nights) -> None:
    asked.sections["relink"] = {"refresh_after": ["ownership"]}
    result = asked.next_night()
    assert statuses(result) == {"fca_1_1": "not_sent", "fca_1_2": "not_sent"}
    assert "grants none of ownership" in told(result)["fca_1_1"]["refresh_failure"]
    assert (refresh_posts(asked), result.exit_code) == ([], 0)


def test_what_stripe_does_not_allow_yet_waits_for_the_next_night(asked: Nights) -> None:
    asked.world.advance(hours=22)
    asked.world.accounts["fca_1_1"].refreshed_at = asked.world.now - 1800
    first = asked.run()
    assert statuses(first) == {"fca_1_1": "waiting", "fca_1_2": "pending"}
    assert refresh_posts(asked) == ["fca_1_2"]
    assert statuses(asked.next_night()) == {"fca_1_1": "pending", "fca_1_2": "succeeded"}


def test_a_refresh_that_fails_at_the_bank_is_told_and_not_asked_for_again(asked: Nights) -> None:
    asked.world.accounts["fca_1_1"].refresh_fails = frozenset({"balance"})
    asked.next_night()
    result = asked.next_night()
    assert statuses(result) == {"fca_1_1": "failed", "fca_1_2": "succeeded"}
    row = told(result)["fca_1_1"]
    assert (row["refresh_failure"], row["balances_as_of"]) == ("Stripe could not refresh balances", None)
    assert row["transactions_through"] is not None
    assert result.exit_code == 0
    asked.next_night()
    assert len(refresh_posts(asked)) == 2


@pytest.mark.parametrize(
    ("kind", "state", "again"),
    [
        ("error_500_before", "unknown", 0),
        ("error_500_after", "unknown", 0),
        ("rate_limit", "planned", 2),
        ("not_json", "attempting", 0),
        ("error_503", "attempting", 0),
    ],
)
def test_no_answer_of_stripes_ends_the_run(asked: Nights, kind: str, state: str, again: int) -> None:
    asked.world.advance(days=1)
    disturb(asked, kind)
    result = asked.run()
    assert (result.exit_code, result.complete) == (0, True)
    assert states(asked) == dict.fromkeys(("fca_1_1", "fca_1_2"), state)
    done = len(asked.world.refreshes)
    asked.world.faults.clear()
    after = asked.next_night()
    assert after.exit_code == 0
    assert len(asked.world.refreshes) == done + again
    assert len(asked.world.refreshes) <= 2


@pytest.mark.parametrize(("hours", "state"), [(10, "asked"), (21, "unknown")])
def test_a_lost_answer_is_asked_for_again_under_its_key_while_that_is_young(
    asked: Nights, hours: float, state: str
) -> None:
    asked.world.advance(days=1)
    disturb(asked, "reset_after")
    assert asked.run().exit_code == 0
    assert states(asked) == dict.fromkeys(("fca_1_1", "fca_1_2"), "attempting")
    asked.world.faults.clear()
    asked.world.advance(hours=hours)
    asked.run(Work("resume"))
    assert states(asked) == dict.fromkeys(("fca_1_1", "fca_1_2"), state)
    assert len(asked.world.refreshes) == 2, "each was executed once"


def test_a_key_that_may_not_refresh_is_told_and_asks_on_later(make_nights: MakeNights) -> None:
    nights = with_success(make_nights(small_world()))
    nights.world.advance(days=1)
    disturb(nights, "forbidden")
    result = nights.run()
    assert result.exit_code == 0
    assert "may not refresh accounts" in result.summary["merchants"][0]["refresh_trouble"]
    assert statuses(result) == {"fca_1_1": "waiting", "fca_1_2": "waiting"}
    nights.world.faults.clear()
    assert statuses(nights.next_night()) == {"fca_1_1": "pending", "fca_1_2": "pending"}


def test_what_stripe_is_never_ready_for_is_given_up(asked: Nights) -> None:
    disturb(asked, "rate_limit")
    for _ in range(9):
        result = asked.next_night()
    assert statuses(result) == {"fca_1_1": "not_sent", "fca_1_2": "not_sent"}
    asked.world.faults.clear()
    asked.next_night()
    assert asked.world.refreshes == []


def test_a_grant_that_stripe_shows_and_then_denies_is_a_refusal(asked: Nights) -> None:
    asked.sections["relink"] = {"refresh_after": ["ownership"]}
    for account_id in ("fca_1_1", "fca_1_2"):
        asked.world.override(account_id, {"permissions": ["balances", "transactions", "ownership"]})
    result = asked.next_night()
    assert statuses(result) == dict.fromkeys(("fca_1_1", "fca_1_2"), "rejected")
    assert "does not grant" in told(result)["fca_1_1"]["refresh_failure"]
    assert result.exit_code == 0
    asked.next_night()
    assert len(refresh_posts(asked)) == 2, "a refusal is not tried again"


def test_an_old_failure_is_not_taken_for_the_end_of_a_new_refresh(asked: Nights) -> None:
    """The refresh that noticed the break failed; while Stripe goes on showing that, ours is pending."""
    old = int((asked.now() - timedelta(days=9)).timestamp())
    asked.next_night()
    shown = {"status": "failed", "last_attempted_at": old, "next_refresh_available_at": old}
    asked.world.override("fca_1_1", {"balance_refresh": shown})
    assert statuses(asked.next_night()) == {"fca_1_1": "pending", "fca_1_2": "succeeded"}
