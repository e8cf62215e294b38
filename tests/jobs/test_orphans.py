"""Requests whose answer was lost are found by events, where exactly one fits; what nobody here made is named and not followed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from jobs import orphans
from jobs.adapters.database import open_database
from jobs.history import history
from jobs.nightly import RunResult
from jobs.progress import Quiet, Step
from jobs.simulator.behaviour import Behaviour
from jobs.simulator.model import Holder
from jobs.standing import standing
from jobs.work import Work
from tests.jobs.conftest import MakeNights
from tests.jobs.losing import lose, made_for
from tests.jobs.nights import SCOPE, Nights, assert_ties, make_session, small_world, steps, table


def orphans_of(result: RunResult) -> dict[str, Any]:
    told: Any = result.summary["orphans"]
    return {
        "found": told["found"],
        "unattributed": told["reactivated_unattributed"],
        "foreign": {one["session_id"]: one["why"] for one in told["foreign_sessions"]},
    }


def nothing(**but: Any) -> dict[str, Any]:
    return {"found": 0, "unattributed": 0, "foreign": {}, **but}


def searches(result: RunResult) -> int:
    calls: Any = result.summary["api_calls"]
    return int(calls["reads"].get("orphans", 0))


def row(result: RunResult, authorization_id: str = "fcauth_1") -> dict[str, Any]:
    """The row of the first attempt."""
    return next(
        one
        for one in table(result, "relink_outcomes")
        if (one["authorization_id"], one["attempt"]) == (authorization_id, 1)
    )


def story(nights: Nights, identifier: str) -> str:
    with open_database(nights.database_url) as database:
        return "\n".join(event.text for event in history(database, SCOPE, identifier))


@pytest.mark.parametrize("creation_emits", [False, True], ids=["creation is silent", "creation emits an event"])
def test_a_lost_session_is_found_by_its_customers_answer(
    make_nights: MakeNights, database_url: str, creation_emits: bool
) -> None:
    behaviour = replace(Behaviour.quiet(), session_creation_emits_event=creation_emits)
    nights = make_nights(small_world(behaviour=behaviour), database_url=database_url)
    session_id = lose(nights)
    nights.world.advance(hours=2)
    nights.world.answer(session_id, "whole")
    answered_at = nights.now()
    nights.world.advance(hours=22)
    result = nights.run()
    told = row(result)
    assert (told["outcome"], told["previous_outcome"], told["session_id"]) == ("relinked", "unknown", session_id)
    assert (told["outcome_at"], told["outcome_at_basis"]) == (answered_at, "event")
    assert (told["accounts_cured"], told["reactivated_unattributed"]) == (2, False)
    assert orphans_of(result) == nothing(found=1)
    assert (searches(result), result.exit_code) == (1, 0)
    assert_ties(result)
    stored = nights.by_authorization()["fcauth_1"]
    assert (stored.state, stored.session_id) == ("created", session_id)
    proof = "its own key in event evt_" if creation_emits else "event evt_"
    assert str(stored.resolved_by).startswith(proof)
    assert f"settled by {stored.resolved_by}: created, session {session_id}" in story(nights, "fcauth_1")
    again = nights.next_night()
    assert (orphans_of(again), searches(again)) == (nothing(), 0)
    assert made_for(nights, "fcauth_1") == [session_id]


def test_the_key_of_a_creation_is_enough_and_says_nothing_of_an_answer(make_nights: MakeNights) -> None:
    behaviour = replace(Behaviour.quiet(), session_creation_emits_event=True)
    nights = make_nights(small_world(behaviour=behaviour))
    session_id = lose(nights)
    found = nights.next_night()
    assert orphans_of(found) == nothing(found=1)
    assert (row(found)["outcome"], row(found)["previous_outcome"]) == ("pending", "unknown")
    assert steps(found)["fca_1_1"] == "open_session", "and it is not renewed, though its offer is a day old"
    assert_ties(found)
    nights.world.heal_authorization("fcauth_1")
    healed = nights.next_night()
    assert (row(healed)["outcome"], row(healed)["outcome_at_basis"]) == ("healed", "observed")
    assert made_for(nights, "fcauth_1") == [session_id]


def test_the_creation_of_a_known_session_is_no_hint_of_an_answer(make_nights: MakeNights) -> None:
    nights = make_nights(small_world(behaviour=replace(Behaviour.quiet(), session_creation_emits_event=True)))
    nights.run()
    session_id = made_for(nights, "fcauth_1")[0]
    nights.world.advance(hours=2)
    nights.world.answer(made_for(nights, "fcauth_2")[0], "cancelled")
    del nights.world.sessions[session_id]
    result = nights.next_night()
    assert (row(result)["outcome"], row(result)["outcome_at_basis"]) == ("review", "observed")
    assert row(result, "fcauth_2")["outcome_at_basis"] == "event"


def test_a_session_of_another_customer_is_not_the_requests(nights: Nights) -> None:
    session_id = lose(nights)
    nights.world.advance(hours=2)
    nights.world.answer(session_id, "no_account")
    nights.world.sessions[session_id].holder = Holder("customer", "cus_9")
    result = nights.next_night()
    assert orphans_of(result)["found"] == 0
    assert "customer, account, delivery or time differ" in orphans_of(result)["foreign"][session_id]
    assert [
        one.state for one in nights.stored() if one.request.attempt == 1 and one.authorization_id == "fcauth_1"
    ] == ["unknown"]


def test_of_two_sessions_that_fit_none_is_taken(nights: Nights) -> None:
    lost = lose(nights)
    nights.world.advance(hours=1)
    other = make_session(nights.server.base_url, "cus_1", "fcauth_1")
    for session_id in (lost, other):
        nights.world.answer(session_id, "no_account")
    nights.world.advance(hours=21)
    result = nights.run()
    request_id = nights.by_authorization()["fcauth_1"].request.request_id
    told = orphans_of(result)
    assert told["found"] == 0
    assert told["foreign"] == {
        lost: f"request {request_id} may have made it, or session {other}",
        other: f"request {request_id} may have made it, or session {lost}",
    }
    assert nights.states()["fcauth_1"] == "unknown"
    assert steps(result)["fca_1_1"] == "review"
    # A person decides; the other one is listed on.
    adopted = nights.run(Work("adopt", from_stored=True, sends=False, adopts=(lost,)))
    assert [one.why for night in adopted.nights for one in night.adoptions] == ["it is what an unknown request made"]
    assert list(orphans_of(nights.next_night())["foreign"]) == [other]


def test_a_session_that_nobody_here_made_is_named_and_not_followed(both_nights: Nights) -> None:
    nights = both_nights
    nights.run(relink={"max_requests_per_run": 0})
    nights.world.advance(hours=1)
    session_id = make_session(nights.server.base_url, "cus_1", "fcauth_1")
    plain = make_session(nights.server.base_url, "cus_2", None)
    for name in (session_id, plain):
        nights.world.answer(name, "cancelled")
    result = nights.next_night()
    assert orphans_of(result) == nothing(foreign={session_id: "no request of this job explains it"})
    assert {one.session_id for one in nights.stored()}.isdisjoint({session_id, plain})
    with open_database(nights.database_url) as database:
        (merchant,) = standing(nights.settings(), database, nights.now())["merchants"]
    assert [one["session_id"] for one in merchant["foreign_sessions"]] == [session_id]
    # It is told until somebody follows it, and read once.
    again = nights.next_night()
    assert (list(orphans_of(again)["foreign"]), searches(again)) == ([session_id], 0)
    nights.run(Work("adopt", from_stored=True, sends=False, adopts=(session_id,)))
    assert orphans_of(nights.next_night()) == nothing()


def test_sessions_for_other_purposes_cost_no_read(nights: Nights) -> None:
    """A merchant's customers link accounts all day; nothing is broken at theirs."""
    nights.run()
    nights.world.advance(hours=1)
    for number in (4, 5, 6):
        nights.world.answer(make_session(nights.server.base_url, f"cus_{number}", None), "cancelled")
    result = nights.next_night()
    assert (searches(result), orphans_of(result)) == (0, nothing())


def test_after_thirty_days_no_event_tells_any_more(nights: Nights) -> None:
    session_id = lose(nights)
    nights.world.advance(hours=2)
    nights.world.answer(session_id, "no_account")
    nights.world.advance(days=31)
    result = nights.run()
    assert (orphans_of(result), searches(result)) == (nothing(), 0)
    first = next(one for one in nights.stored() if one.authorization_id == "fcauth_1")
    assert (first.state, first.session_id) == ("unknown", None)


def test_events_that_could_not_be_read_are_read_by_the_next_night(nights: Nights) -> None:
    session_id = lose(nights)
    nights.world.advance(hours=2)
    nights.world.answer(session_id, "whole")
    nights.world.faults.script("error_503", path="/v1/events", times=3)
    blind = nights.next_night()
    # The accounts came back, and that is all that is known.
    assert orphans_of(blind) == nothing(unattributed=1)
    told = row(blind)
    assert (told["outcome"], told["reactivated_unattributed"], told["accounts_cured"]) == ("unknown", True, 2)
    assert_ties(blind)
    assert "no known session explains it" in story(nights, "fcauth_1")
    assert "the outage ended" in str(nights.by_authorization()["fcauth_1"].resolved_by)
    seeing = nights.next_night()
    assert orphans_of(seeing) == nothing(found=1)
    told = row(seeing)
    assert (told["outcome"], told["previous_outcome"], told["reactivated_unattributed"]) == (
        "relinked",
        "unknown",
        False,
    )
    assert_ties(seeing)
    assert "before that: the outage ended" in str(nights.by_authorization()["fcauth_1"].resolved_by)


def test_a_session_that_could_not_be_read_is_read_by_the_next_night(nights: Nights) -> None:
    session_id = lose(nights)
    nights.world.advance(hours=2)
    nights.world.answer(session_id, "no_account")
    nights.world.advance(hours=20)
    nights.world.faults.script("error_503", path=f"*/{session_id}", times=3)
    assert orphans_of(nights.run()) == nothing()
    assert nights.states()["fcauth_1"] == "unknown"
    found = nights.next_night()
    assert (orphans_of(found), row(found)["outcome"]) == (nothing(found=1), "failed")


def test_what_events_told_while_a_request_still_waited_for_stripe_is_not_forgotten(nights: Nights) -> None:
    """The night in between reads the event, but may not say yet whose session it is: the request may still be answered."""
    nights.world.advance(hours=18 - nights.now().hour)
    nights.world.faults.script("reset_after", method="POST", times=3)
    nights.run()
    session_id = made_for(nights, "fcauth_1")[0]
    nights.world.advance(hours=2)
    nights.world.answer(session_id, "no_account")
    nights.world.advance(hours=10)
    nights.world.faults.script("reset_before", method="POST", times=3)
    assert orphans_of(nights.run()) == nothing()
    assert nights.states()["fcauth_1"] == "attempting"
    found = nights.next_night()
    assert (orphans_of(found), row(found)["outcome"]) == (nothing(found=1), "failed")


def test_accounts_that_came_back_without_a_known_session_are_said_once(nights: Nights) -> None:
    nights.world.faults.script("error_500_before", method="POST", times=3)
    nights.run()
    nights.world.heal_account("fca_1_1")
    nights.world.advance(hours=22)
    first = nights.run()
    assert (orphans_of(first)["unattributed"], row(first)["accounts_cured"]) == (1, 1)
    assert_ties(first)
    nights.world.heal_authorization("fcauth_1")
    both = [one for one in table(nights.next_night(), "relink_outcomes") if one["reactivated_unattributed"]]
    assert [one["accounts_cured"] for one in both] in ([], [2]), "the request may have been renewed meanwhile"
    assert orphans_of(nights.next_night()) == nothing()


class _DiesAt(Quiet):
    """Ends the process where a step would begin."""

    def __init__(self, name: str) -> None:
        self._name = name

    @contextmanager
    def step(self, name: str, total: int | None = None) -> Iterator[Step]:
        if name == self._name:
            os._exit(0)
        with super().step(name, total) as step:
            yield step


@pytest.mark.parametrize("where", ["open sessions", "relink requests"])
def test_a_run_that_dies_between_finding_and_the_end_loses_and_repeats_nothing(both_nights: Nights, where: str) -> None:
    nights = both_nights
    session_id = lose(nights)
    nights.world.advance(hours=2)
    nights.world.answer(session_id, "no_account")
    nights.world.break_authorization("fcauth_5")
    nights.world.advance(hours=22)
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(60)
            nights.run(progress=_DiesAt(where))
        finally:
            os._exit(99)
    _, status = os.waitpid(child, 0)
    assert status == 0
    recorded = nights.states()["fcauth_1"]
    assert recorded == ("unknown" if where == "open sessions" else "created")
    nights.world.advance(hours=1)
    result = nights.run()
    assert result.exit_code == 0
    stored = [one for one in nights.stored() if one.authorization_id == "fcauth_1"]
    assert [(one.state, one.session_id, one.outcome) for one in stored] == [("created", session_id, "failed")]
    assert_ties(result)
    assert made_for(nights, "fcauth_1") == [session_id]


def test_a_dry_run_says_it_and_records_nothing(nights: Nights) -> None:
    session_id = lose(nights)
    nights.world.advance(hours=2)
    nights.world.answer(session_id, "whole")
    nights.world.advance(hours=22)
    before = nights.knowledge()
    result = nights.run(Work("run", dry_run=True))
    assert orphans_of(result) == nothing(found=1)
    assert row(result)["outcome"] == "relinked"
    assert nights.knowledge() == before
    assert orphans_of(nights.run()) == nothing(found=1)


def test_what_is_too_much_for_one_night_waits_for_the_next(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orphans, "MOST_READS", 1)
    nights.run(relink={"max_requests_per_run": 0})
    made = []
    for number in (1, 2, 3):
        nights.world.advance(hours=1)
        made.append(make_session(nights.server.base_url, f"cus_{number}", f"fcauth_{number}"))
        nights.world.answer(made[-1], "cancelled")
    seen = []
    for _ in made:
        result = nights.next_night()
        assert searches(result) == 1
        seen.append(set(orphans_of(result)["foreign"]))
    assert seen == [set(made[:1]), set(made[:2]), set(made)]


@pytest.mark.parametrize("keeps_ids", [False, True])
def test_a_lost_session_is_found_although_a_new_authorization_took_the_accounts_over(
    make_nights: MakeNights, keeps_ids: bool
) -> None:
    behaviour = replace(Behaviour.quiet(), session_creation_emits_event=True)
    nights = make_nights(small_world(behaviour=behaviour, customers=2, broken=[1]))
    session_id = lose(nights)
    nights.world.advance(hours=2)
    nights.world.answer(session_id, "new_authorization", keep_account_ids=keeps_ids)
    nights.world.advance(hours=22)
    assert orphans_of(nights.run())["found"] == 1
    assert nights.by_authorization()["fcauth_1"].session_id == session_id


@pytest.mark.parametrize("hours_ahead", [-6, 0, 6])
def test_no_event_is_passed_over_because_our_clock_was_wrong_for_a_night(
    make_nights: MakeNights, hours_ahead: float
) -> None:
    nights = make_nights(small_world(customers=2, broken=[1]))
    nights.sections["relink"] = {"delivery": "hosted_email", "return_url": "https://example.com/back"}
    session_id = lose(nights, days=1)
    nights.run(clock=lambda: nights.now() + timedelta(hours=hours_ahead))
    nights.world.advance(hours=2)
    nights.world.answer(session_id, "whole")
    nights.world.advance(hours=22)
    nights.run()
    assert nights.states()["fcauth_1"] == "created"
