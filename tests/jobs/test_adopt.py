"""Sessions that something else created are followed as attempts, or refused by name."""

from __future__ import annotations

from datetime import timedelta

import pytest

from jobs.nightly import RunResult
from jobs.work import Work
from tests.jobs.nights import Nights, assert_ties, make_session, outcomes, steps, table


def foreign_session(nights: Nights, authorization_id: str | None = "fcauth_1", **more: str) -> str:
    """A session that a colleague's script made, without our records knowing."""
    number = (authorization_id or "fcauth_1").removeprefix("fcauth_")
    return make_session(nights.server.base_url, f"cus_{number}", authorization_id, **more)


def adopt(nights: Nights, *session_ids: str, **more: object) -> RunResult:
    return nights.run(Work("adopt", from_stored=True, sends=False, adopts=session_ids, **more))  # type: ignore[arg-type]


def told(result: RunResult) -> dict[str, tuple[str, str]]:
    return {one.session_id: (one.result, one.why) for night in result.nights for one in night.adoptions}


@pytest.fixture
def waiting(both_nights: Nights) -> Nights:
    """A night that asked nobody."""
    both_nights.run(relink={"max_requests_per_run": 0})
    both_nights.world.advance(seconds=600)
    return both_nights


def test_a_foreign_session_is_followed_to_its_outcome(waiting: Nights) -> None:
    nights = waiting
    session_id = foreign_session(nights)
    result = adopt(nights, session_id)
    assert (result.exit_code, told(result)) == (0, {session_id: ("adopted", "")})
    assert_ties(result)
    stored = nights.by_authorization()["fcauth_1"]
    assert (stored.state, stored.request.attempt, stored.request.origin) == ("created", 1, "adopt")
    assert [one.account_id for one in stored.request.covered] == ["fca_1_1", "fca_1_2"]
    assert stored.offered_at is not None
    night = nights.next_night()
    assert steps(night)["fca_1_1"] == "open_session"
    assert nights.world.contacts_by_authorization()["fcauth_1"] == 1
    nights.world.answer(session_id, "no_account")
    answered = nights.next_night()
    row = {one["authorization_id"]: one for one in table(answered, "relink_outcomes")}["fcauth_1"]
    assert (row["outcome"], row["failure_reason"], row["origin"]) == ("failed", "no_account", "adopt")
    assert_ties(answered)
    assert steps(answered)["fca_1_1"] == "cooldown", "whoever asked, the customer was asked"
    nights.world.advance(days=2)
    nights.run()
    assert nights.by_authorization()["fcauth_1"].request.attempt == 2, "the adopted one counts"


def test_repeating_changes_nothing(waiting: Nights) -> None:
    session_id = foreign_session(waiting)
    adopt(waiting, session_id)
    before = waiting.knowledge()
    waiting.world.advance(seconds=60)
    again = adopt(waiting, session_id)
    assert (again.exit_code, told(again)[session_id][0]) == (0, "already followed")
    assert waiting.knowledge() == before


def test_a_session_of_our_own_is_followed_already(nights: Nights) -> None:
    nights.run()
    session_id = nights.by_authorization()["fcauth_1"].session_id or ""
    assert told(adopt(nights, session_id)) == {session_id: ("already followed", "")}


def test_what_cannot_be_followed_is_refused_by_name_and_hinders_no_other(nights: Nights) -> None:
    nights.run(relink={"max_requests_per_run": 0})
    plain, good = foreign_session(nights, None), foreign_session(nights, "fcauth_2")
    nights.world.add_authorization(("customer", "cus_9"), authorization_id="fcauth_9")
    unknown = foreign_session(nights, "fcauth_9")
    result = adopt(nights, plain, unknown, "fcsess_none", "../../x", good)
    assert result.exit_code == 2
    assert told(result) == {
        plain: ("refused", "it has no relink_options, so it repairs nothing"),
        unknown: ("refused", "its authorization fcauth_9 is not known; run `relink run` first"),
        "fcsess_none": ("refused", "Stripe has no such session"),
        "../../x": ("refused", "Stripe has no such session"),
        good: ("adopted", ""),
    }
    assert list(nights.states()) == ["fcauth_2"]
    assert_ties(result)


def test_the_time_of_asking_decides_cooldown_and_expiry(nights: Nights) -> None:
    nights.run(relink={"max_requests_per_run": 0})
    session_id = foreign_session(nights)
    asked_at = nights.now() - timedelta(days=3)
    adopt(nights, session_id, requested_at=asked_at)
    stored = nights.by_authorization()["fcauth_1"]
    assert (stored.requested_at, stored.offered_at, stored.business_date) == (asked_at, asked_at, asked_at.date())
    nights.world.advance(days=4)
    assert outcomes(nights.run())["fcauth_1"] == "pending"
    told_of = {row["session_id"]: row["outcome"] for row in table(nights.next_night(), "relink_outcomes")}
    assert told_of[session_id] == "expired"
    assert nights.by_authorization()["fcauth_1"].request.attempt == 2


def test_a_session_for_one_account_covers_that_account(nights: Nights) -> None:
    nights.run(relink={"max_requests_per_run": 0})
    session_id = foreign_session(nights, "fcauth_1", **{"relink_options[account]": "fca_1_2"})
    adopt(nights, session_id)
    stored = nights.by_authorization()["fcauth_1"].request
    assert (stored.account_id, [one.account_id for one in stored.covered]) == ("fca_1_2", ["fca_1_2"])


def test_one_for_accounts_that_work_is_followed_too(nights: Nights) -> None:
    nights.run()
    session_id = foreign_session(nights, "fcauth_5")
    result = adopt(nights, session_id)
    assert told(result)[session_id][0] == "adopted"
    assert_ties(result)
    nights.world.answer(session_id, "whole")
    assert outcomes(nights.next_night())["fcauth_5"] == "relinked"


def test_a_session_is_not_taken_for_a_second_one_while_an_answer_is_still_waited_for(nights: Nights) -> None:
    """The answer to our own POST was lost; the session that a person finds may be the very one, so it is not counted twice."""
    nights.world.faults.script("reset_after", method="POST", times=1000)
    nights.run()
    made = {one.authorization_id: one.session_id for one in nights.world.effects}
    nights.world.advance(seconds=600)
    refused = adopt(nights, made["fcauth_1"])
    assert refused.exit_code in (2, 3)
    nights.world.faults.clear()
    nights.world.advance(seconds=600)
    settled = adopt(nights, made["fcauth_1"])
    assert told(settled) == {made["fcauth_1"]: ("already followed", "")}
    assert nights.run().exit_code == 0
    assert {one.session_id for one in nights.stored()} == set(made.values())


def test_a_session_of_a_healthy_login_takes_no_part_in_its_next_outage(nights: Nights) -> None:
    nights.run()
    nights.world.advance(seconds=600)
    assert adopt(nights, foreign_session(nights, "fcauth_5")).exit_code == 0
    nights.world.advance(days=9)
    nights.run()
    nights.world.break_authorization("fcauth_5")
    broken = nights.next_night()
    assert steps(broken)["fca_5_1"] == "request"
    assert broken.exit_code == 0
    newest = nights.by_authorization()["fcauth_5"]
    assert (newest.request.breakage.number, newest.request.attempt) == (2, 1)


def test_an_unknown_request_is_settled_by_the_session_that_a_person_found(nights: Nights) -> None:
    nights.world.faults.script("error_500_after", method="POST", times=3)
    nights.run()
    assert nights.states()["fcauth_1"] == "unknown"
    (session_id,) = [one.session_id for one in nights.world.effects if one.authorization_id == "fcauth_1"]
    nights.world.advance(seconds=600)
    assert adopt(nights, session_id).exit_code == 0
    stored = [one for one in nights.stored() if one.authorization_id == "fcauth_1"]
    assert [(one.state, one.session_id, one.request.attempt) for one in stored] == [("created", session_id, 1)]
