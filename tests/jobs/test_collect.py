"""What comes back from customers: each kind of answer, read as seldom as the rules allow."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.adapters.database import open_database
from jobs.history import history
from jobs.nightly import RunResult
from jobs.work import Work
from tests.jobs.conftest import MakeNights
from tests.jobs.nights import SCOPE, Nights, assert_ties, ledger_of, outcomes, small_world, steps, table


def look(nights: Nights) -> RunResult:
    return nights.run(Work("collect", from_stored=True, collect_everything=True, sends=False))


def session_of(nights: Nights, authorization_id: str) -> str:
    session_id = nights.by_authorization()[authorization_id].session_id
    assert session_id is not None
    return session_id


def row_of(result: RunResult, authorization_id: str) -> dict[str, Any]:
    return {row["authorization_id"]: row for row in table(result, "relink_outcomes")}[authorization_id]


@pytest.mark.parametrize(
    ("how", "options", "outcome", "reason", "cured"),
    [
        ("whole", {}, "relinked", None, 2),
        ("partial", {"accounts": ["fca_1_2"]}, "relinked_partially", None, 1),
        ("whole", {"lag_seconds": 3600}, "pending", None, 0),
        ("new_authorization", {"keep_account_ids": True}, "new_authorization", None, 2),
        ("new_authorization", {"keep_account_ids": False}, "new_authorization", None, 2),
        ("new_authorization", {"keep_account_ids": False, "ambiguous": True}, "review", None, 0),
        ("no_account", {}, "failed", "no_account", 0),
        ("no_authorization", {}, "failed", "no_authorization", 0),
        ("other", {}, "failed", "other", 0),
        ("failed", {}, "failed", None, 0),
        ("cancelled", {}, "cancelled", None, 0),
        ("succeeded_without_result", {}, "review", None, 0),
        ("gone", {}, "review", None, 0),
        ("never", {}, "pending", None, 0),
    ],
)
def test_each_answer_has_its_outcome(
    nights: Nights, how: str, options: dict[str, Any], outcome: str, reason: str | None, cured: int
) -> None:
    nights.run()
    session_id = session_of(nights, "fcauth_1")
    nights.world.advance(hours=2)
    if how == "gone":
        del nights.world.sessions[session_id]
    else:
        nights.world.answer(session_id, how, **options)
    pulls = nights.reads("accounts.list")
    result = look(nights)
    assert result.exit_code == 0
    row = row_of(result, "fcauth_1")
    assert (row["outcome"], row["failure_reason"], row["accounts_cured"] or 0) == (outcome, reason, cured)
    assert row["accounts_expected"] == 2
    assert row["previous_outcome"] in (None, "pending")
    assert nights.reads("sessions.retrieve") == 3
    assert nights.reads("accounts.list") == pulls, "the stored snapshot serves"
    assert nights.posts() == 3
    assert {outcomes(result)[name] for name in ("fcauth_2", "fcauth_3")} == {"pending"}
    assert_ties(result)
    # The next night takes it over and says it once; only what is still open stands there again.
    night = nights.next_night()
    assert_ties(night)
    if outcome == "pending" and how == "whole":
        assert outcomes(night)["fcauth_1"] == "relinked"
    elif outcome == "pending":
        assert outcomes(night)["fcauth_1"] == "pending"
    else:
        assert "fcauth_1" not in {
            row["authorization_id"] for row in table(night, "relink_outcomes") if row["outcome"] == outcome
        }


@pytest.mark.parametrize("keep", [True, False])
def test_a_new_authorization_carries_its_accounts_over(nights: Nights, keep: bool) -> None:
    nights.run()
    nights.world.advance(hours=2)
    nights.world.answer(
        session_of(nights, "fcauth_1"), "new_authorization", keep_account_ids=keep, old_disconnected=False
    )
    result = nights.next_night()
    assert outcomes(result)["fcauth_1"] == "new_authorization"
    found = table(result, "account_successors")
    assert [row["old_account_id"] for row in found] == ["fca_1_1", "fca_1_2"]
    assert {row["matched_by"] for row in found} == {"id" if keep else "attributes"}
    assert (found[0]["old_account_id"] == found[0]["new_account_id"]) == keep
    assert steps(result)["fca_1_1"] == ("none" if keep else "replaced")
    assert_ties(result)
    nights.world.advance(days=5)
    nights.run()
    assert nights.world.contacts_by_authorization()["fcauth_1"] == 1, "the old outage is over"


def test_a_later_answer_replaces_a_provisional_one(nights: Nights) -> None:
    nights.run()
    session_id = session_of(nights, "fcauth_1")
    for _ in range(8):
        result = nights.next_night()
    rows = {row["session_id"]: row["outcome"] for row in table(result, "relink_outcomes")}
    assert rows[session_id] == "expired"
    assert nights.by_authorization()["fcauth_1"].request.attempt == 2, "an offer never taken up is renewed"
    nights.world.answer(session_id, "whole")
    late = nights.next_night()
    rows = [row for row in table(late, "relink_outcomes") if row["session_id"] == session_id]
    assert [(row["outcome"], row["previous_outcome"]) for row in rows] == [("relinked", "expired")]
    assert_ties(late)


def test_reads_are_spent_on_days_1_and_3_and_before_expiry_only(nights: Nights) -> None:
    nights.run()
    spent = []
    for _ in range(9):
        before = nights.reads("sessions.retrieve")
        nights.next_night()
        spent.append(nights.reads("sessions.retrieve") - before)
    # The eighth night finds them expired and asks anew; the ninth is day 1 of those.
    assert spent == [3, 0, 3, 0, 0, 0, 0, 3, 3]


def test_a_session_that_cannot_be_read_stays_open_and_hinders_no_other(nights: Nights) -> None:
    nights.run()
    nights.world.answer(session_of(nights, "fcauth_1"), "cancelled")
    nights.world.answer(session_of(nights, "fcauth_2"), "cancelled")
    nights.world.advance(hours=1)
    nights.world.faults.script("error_503", path=f"*/{session_of(nights, 'fcauth_1')}", times=100)
    result = look(nights)
    assert result.exit_code == 0
    told = outcomes(result)
    assert (told["fcauth_1"], told["fcauth_2"]) == ("pending", "cancelled")
    assert_ties(result)


def test_five_reads_in_a_row_that_fail_stop_the_run(make_nights: MakeNights) -> None:
    nights = make_nights(small_world(customers=8, broken=range(1, 9)))
    nights.run()
    nights.world.advance(hours=1)
    before = nights.knowledge()
    nights.world.faults.script("error_503", path="*/sessions/*", times=1000)
    result = look(nights)
    assert (result.exit_code, nights.knowledge()) == (3, before)


def test_an_account_that_heals_by_itself_is_told_apart_from_a_relink(nights: Nights) -> None:
    nights.run()
    nights.world.heal_authorization("fcauth_1")
    result = nights.next_night()
    assert outcomes(result)["fcauth_1"] == "healed"
    assert steps(result)["fca_1_1"] == "none"
    assert_ties(result)


def test_failure_reasons_count_every_request_of_the_window(nights: Nights) -> None:
    nights.run()
    for name, how in (("fcauth_1", "no_account"), ("fcauth_2", "no_account"), ("fcauth_3", "whole")):
        nights.world.answer(session_of(nights, name), how)
    result = nights.next_night()
    found = {(row["outcome"], row["failure_reason"]): row for row in table(result, "failure_reasons")}
    assert {key: row["requests"] for key, row in found.items()} == {("failed", "no_account"): 2, ("relinked", None): 1}
    assert found["failed", "no_account"]["share"] == pytest.approx(2 / 3)
    assert_ties(result)


def lists_of(result: RunResult, authorization_id: str) -> tuple[list[str], list[str], list[str]]:
    row = row_of(result, authorization_id)
    return row["cured_accounts"], row["uncured_accounts"], row["other_accounts"]


def test_what_was_asked_for_and_what_came_back_are_told_by_id(both_nights: Nights) -> None:
    """Account fca_1_2 is closed in the ledger, so nobody asks for it; the customer of the second login brings back one of two."""
    nights = both_nights
    nights.load_ledger(
        [{**row, "status": "closed" if row["account_id"] == "fca_1_2" else "open"} for row in ledger_of(nights.world)]
    )
    nights.run()
    nights.world.advance(hours=2)
    nights.world.answer(session_of(nights, "fcauth_1"), "whole")
    nights.world.answer(session_of(nights, "fcauth_2"), "partial", accounts=["fca_2_2"])
    nights.world.answer(session_of(nights, "fcauth_3"), "no_account")
    result = nights.next_night()
    assert lists_of(result, "fcauth_1") == (["fca_1_1"], [], ["fca_1_2"])
    assert lists_of(result, "fcauth_2") == (["fca_2_2"], ["fca_2_1"], [])
    assert lists_of(result, "fcauth_3") == ([], ["fca_3_1", "fca_3_2"], [])
    assert result.summary["accounts_compared"] == {"expected": 5, "cured": 2, "others": 1, "requests_with_others": 1}
    with open_database(nights.database_url) as database:
        told = [event.text for event in history(database, SCOPE, "fcauth_1") if event.kind == "outcome"]
        partly = [event.text for event in history(database, SCOPE, "fcauth_2") if event.kind == "outcome"]
    assert "came back though not asked for: fca_1_2" in told[-1]
    assert "not mended fca_2_1" in partly[-1]
