"""Sessions that something else created are followed as attempts, or refused by name."""

from __future__ import annotations

import urllib.parse
import urllib.request
from datetime import timedelta

import pytest

from jobs.nightly import RunResult
from jobs.work import Work
from tests.jobs.nights import KEY, SESSIONS, Nights, assert_ties, outcomes, steps, table


def foreign_session(nights: Nights, authorization_id: str | None = "fcauth_1", **more: str) -> str:
    """A session that a colleague's script made, without our records knowing."""
    import json

    number = (authorization_id or "fcauth_1").removeprefix("fcauth_")
    fields = {
        "account_holder[type]": "customer",
        "account_holder[customer]": f"cus_{number}",
        "permissions[0]": "balances",
        "permissions[1]": "transactions",
    }
    if authorization_id is not None:
        fields["relink_options[authorization]"] = authorization_id
    request = urllib.request.Request(
        nights.server.base_url + SESSIONS,
        urllib.parse.urlencode(fields | more).encode(),
        {"Authorization": f"Bearer {KEY}", "Stripe-Version": "2026-09-30.preview"},
    )
    with urllib.request.urlopen(request) as answer:
        session_id: str = json.loads(answer.read())["id"]
    return session_id


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
