"""The life of a request in both databases: every step once, in order, and only under the lease."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.adapters import records
from jobs.adapters.database import Database
from jobs.adapters.lease import LeaseToken
from reconcile.errors import DatabaseError, LeaseLost
from reconcile.model import CoveredAccount, StoredRequest
from tests.jobs.adapters.stored_values import (
    AT,
    DATE,
    DAY,
    HOUR,
    OTHER_SCOPE,
    RUN_ID,
    SCOPE,
    breakage,
    conclude,
    create,
    held,
    key,
    plan,
    relink_request,
)


@pytest.fixture
def token(database: Database) -> LeaseToken:
    return held(database).token


def test_a_planned_request_is_read_back_whole(database: Database) -> None:
    asked = relink_request(
        account_id="fca_1",
        limit_accounts=1,
        account_subcategories=("checking",),
        return_url="https://shop.example/done",
    )
    plan(database, asked)
    (stored,) = records.planned_requests(database, SCOPE)
    assert stored.request == asked
    assert (stored.run_id, stored.business_date, stored.state, stored.planned_at) == (RUN_ID, DATE, "planned", AT)
    assert (stored.request_body, stored.api_version) == ("permissions[0]=balances", "v.preview")
    assert stored.idempotency_key == asked.idempotency_key
    assert stored.planned_at.tzinfo is not None
    assert (stored.attempting_at, stored.outcome, stored.calls, stored.last_checked_at) == (None, None, 0, None)


words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)
identifiers = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x2FFF, exclude_categories=["Cs"]), min_size=1, max_size=30
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    identifier=identifiers,
    institution=st.none() | words,
    references=st.lists(words, max_size=3).map(tuple),
    exposure=st.dictionaries(st.sampled_from(["EUR", "USD", "JPY"]), st.integers(-(2**63), 2**63 - 1)),
    covered=st.lists(
        st.builds(CoveredAccount, identifiers, words, st.lists(words, max_size=2).map(tuple), st.none() | words),
        max_size=3,
    ).map(tuple),
    widens=st.booleans(),
)
def test_whatever_a_request_holds_comes_back(
    database: Database, identifier: str, institution: str | None, **values: object
) -> None:
    number = len(records.planned_requests(database, SCOPE))
    asked = relink_request(
        f"{number}-{identifier}",
        breakage=key(identifier, number=number + 1),
        institution_name=institution,
        references=values["references"],
        exposure_by_currency=values["exposure"],
        covered=values["covered"],
        widens=values["widens"],
    )
    plan(database, asked)
    (stored,) = records.requests_by_id(database, SCOPE, [asked.request_id])
    assert stored.request == asked


def test_text_that_no_database_holds_does_not_end_a_run(database: Database) -> None:
    plan(database, relink_request(institution_name="Bank\x00 \ud83d of"))
    (stored,) = records.planned_requests(database, SCOPE)
    assert stored.request.institution_name == "Bank\ufffd ? of"


def test_the_steps_of_a_request_leave_its_times_and_answer(database: Database, token: LeaseToken) -> None:
    plan(database, relink_request())
    records.mark_attempting(database, "req_1", AT + HOUR, token)
    (attempting,) = records.attempting_requests(database, SCOPE)
    assert (attempting.state, attempting.attempting_at, attempting.answered_at) == ("attempting", AT + HOUR, None)
    records.record_result(
        database, "req_1", "created", AT + 2 * HOUR, session_id="fcsess_1", calls=2, stripe_request_id="req_x"
    )
    (stored,) = records.open_requests(database, SCOPE)
    assert (stored.state, stored.session_id, stored.calls, stored.stripe_request_id) == (
        "created",
        "fcsess_1",
        2,
        "req_x",
    )
    assert (stored.requested_at, stored.answered_at) == (AT + HOUR, AT + 2 * HOUR)
    assert records.planned_requests(database, SCOPE) == records.attempting_requests(database, SCOPE) == []


def test_a_request_is_attempted_once_unless_replayed(database: Database, token: LeaseToken) -> None:
    plan(database, relink_request())
    with pytest.raises(records.ContactTaken, match="is planned and cannot be sent"):
        records.mark_attempting(database, "req_1", AT, token, replay=True)
    records.mark_attempting(database, "req_1", AT, token)
    with pytest.raises(records.ContactTaken, match=r"fcauth_req_1, connection breakage 1, attempt 1.*is attempting"):
        records.mark_attempting(database, "req_1", AT + HOUR, token)
    records.mark_attempting(database, "req_1", AT + HOUR, token, replay=True)
    (stored,) = records.attempting_requests(database, SCOPE)
    assert stored.attempting_at == AT, "the idempotency key's life counts from the first attempt"


def test_a_result_is_recorded_once_and_may_be_said_again(database: Database, token: LeaseToken) -> None:
    plan(database, relink_request())
    with pytest.raises(records.ContactTaken):
        records.record_result(database, "req_1", "created", AT, session_id="fcsess_1", calls=1)
    records.mark_attempting(database, "req_1", AT, token)
    for _ in range(2):
        records.record_result(
            database, "req_1", "rejected", AT, calls=1, error_type="invalid_request_error", http_status=400
        )
    with pytest.raises(records.ContactTaken, match="already has a result"):
        records.record_result(database, "req_1", "created", AT, session_id="fcsess_1")
    (stored,) = records.requests_of_run(database, RUN_ID)
    assert (stored.state, stored.calls, stored.http_status) == ("rejected", 1, 400)


def test_a_second_session_is_no_repetition_of_the_first(database: Database, token: LeaseToken) -> None:
    create(database, token, relink_request(), "fcsess_1")
    records.record_result(database, "req_1", "created", AT + HOUR, session_id="fcsess_1", calls=1)
    with pytest.raises(records.ContactTaken, match="is created and already has a result"):
        records.record_result(database, "req_1", "created", AT + HOUR, session_id="fcsess_2")
    (stored,) = records.open_requests(database, SCOPE)
    assert (stored.session_id, stored.answered_at, stored.calls) == ("fcsess_1", AT, 1)


def test_stripe_was_asked_when_the_answer_says_else_at_the_first_attempt_and_never_by_what_was_not_sent(
    database: Database, token: LeaseToken
) -> None:
    answers = {"req_1": {"requested_at": AT + DAY}, "req_2": {}, "req_3": {}}
    plan(database, *(relink_request(request_id) for request_id in answers))
    for request_id, said in answers.items():
        records.mark_attempting(database, request_id, AT + HOUR, token)
        state = "not_sent" if request_id == "req_3" else "rejected"
        records.record_result(database, request_id, state, AT + 2 * HOUR, **said)  # type: ignore[arg-type]
    stored = records.requests_by_id(database, SCOPE, list(answers))
    assert [(one.requested_at, one.calls) for one in stored] == [(AT + DAY, 0), (AT + HOUR, 0), (None, 0)]


@pytest.mark.parametrize(
    ("state", "session_id"), [("created", None), ("rejected", "fcsess_1"), ("planned", None), ("nonsense", None)]
)
def test_a_result_that_makes_no_sense_is_a_bug(
    database: Database, token: LeaseToken, state: str, session_id: str | None
) -> None:
    plan(database, relink_request())
    records.mark_attempting(database, "req_1", AT, token)
    with pytest.raises(ValueError):
        records.record_result(database, "req_1", state, AT, session_id=session_id)


def test_an_unsent_request_frees_its_attempt_and_a_sent_one_cannot_be_unsent(
    database: Database, token: LeaseToken
) -> None:
    first = relink_request()
    plan(database, first)
    records.record_not_sent(database, "req_1", AT, error_message="stopped")
    records.record_not_sent(database, "req_1", AT + HOUR, error_message="again")
    again = replace(first, request_id="req_2")
    plan(database, again)
    records.mark_attempting(database, "req_2", AT, token)
    with pytest.raises(records.ContactTaken, match="may have been sent"):
        records.record_not_sent(database, "req_2", AT)
    by_id = {stored.request.request_id: stored for stored in records.requests_of_run(database, RUN_ID)}
    assert (by_id["req_1"].state, by_id["req_1"].answered_at, by_id["req_1"].error_message) == (
        "not_sent",
        AT,
        "stopped",
    )
    assert by_id["req_2"].state == "attempting"


def test_a_clash_stores_none_of_the_requests_and_names_the_pair(database: Database) -> None:
    plan(database, relink_request("req_1"))
    with pytest.raises(records.ContactTaken, match=r"fcauth_req_1, connection breakage 1, attempt 1") as raised:
        plan(database, relink_request("req_3"), relink_request("req_2", breakage=key("fcauth_req_1")))
    assert (raised.value.breakage, raised.value.attempt) == (key("fcauth_req_1"), 1)
    assert [stored.request.request_id for stored in records.planned_requests(database, SCOPE)] == ["req_1"]
    plan(database, relink_request("req_3"))
    plan(database, relink_request("req_2", breakage=key("fcauth_req_1"), attempt=2))
    assert len(records.planned_requests(database, SCOPE)) == 3


def test_the_same_contact_in_another_mode_is_another_contact(database: Database) -> None:
    plan(database, relink_request("req_1"))
    plan(database, relink_request("req_2", breakage=key("fcauth_req_1"), mode=OTHER_SCOPE.mode))
    assert [stored.request.request_id for stored in records.planned_requests(database, SCOPE)] == ["req_1"]
    assert [stored.request.request_id for stored in records.planned_requests(database, OTHER_SCOPE)] == ["req_2"]
    assert records.requests_by_id(database, OTHER_SCOPE, ["req_1"]) == []


def test_of_eight_threads_that_plan_one_contact_one_succeeds(database: Database) -> None:
    start = threading.Barrier(8)
    results: list[str] = []

    def race(number: int) -> None:
        start.wait()
        try:
            plan(database, relink_request(f"req_{number}", breakage=key("fcauth_contested")))
            results.append("stored")
        except records.ContactTaken:
            results.append("taken")

    _run_together(8, race)
    assert sorted(results) == ["stored"] + ["taken"] * 7
    assert len(records.requests_for_authorizations(database, SCOPE, ["fcauth_contested"])) == 1


def test_of_eight_threads_that_attempt_one_request_one_may_send_it(database: Database, token: LeaseToken) -> None:
    plan(database, relink_request())
    start = threading.Barrier(8)
    results: list[str] = []

    def race(_: int) -> None:
        start.wait()
        try:
            records.mark_attempting(database, "req_1", AT, token)
            results.append("sends")
        except records.ContactTaken:
            results.append("does not")

    _run_together(8, race)
    assert sorted(results) == ["does not"] * 7 + ["sends"]


def test_nothing_is_attempted_without_the_newest_lease(database: Database) -> None:
    plan(database, relink_request())
    old = held(database)
    old.release()
    new = held(database)
    with pytest.raises(LeaseLost):
        records.mark_attempting(database, "req_1", AT, old.token)
    assert records.planned_requests(database, SCOPE)[0].state == "planned"
    records.mark_attempting(database, "req_1", AT, new.token)


@pytest.mark.parametrize("state", ["not_sent", "rejected", "unknown"])
def test_nothing_is_ended_without_the_newest_lease_where_it_is_asked_for(
    database: Database, token: LeaseToken, state: str
) -> None:
    plan(database, relink_request())
    records.mark_attempting(database, "req_1", AT, token)
    with pytest.raises(LeaseLost):
        records.record_result(database, "req_1", state, AT, fence=LeaseToken(token.value - 1))
    assert [one.state for one in records.attempting_requests(database, SCOPE)] == ["attempting"]
    records.record_result(database, "req_1", state, AT, fence=token)
    assert [one.state for one in records.requests_by_id(database, SCOPE, ["req_1"])] == [state]


def test_planning_and_attempting_refuse_to_be_part_of_a_larger_transaction(
    database: Database, token: LeaseToken
) -> None:
    plan(database, relink_request())
    with database.begin():
        with pytest.raises(RuntimeError, match="commit by itself"):
            records.mark_attempting(database, "req_1", AT, token)
        with pytest.raises(RuntimeError, match="commit by itself"):
            plan(database, relink_request("req_2"))


def test_a_request_of_another_merchant_is_refused(database: Database) -> None:
    with pytest.raises(ValueError, match="req_1"):
        records.plan_requests(database, OTHER_SCOPE, RUN_ID, DATE, [(relink_request(), "", "")], AT)


def test_an_unknown_run_is_an_error_and_no_clash(database: Database) -> None:
    with pytest.raises(DatabaseError) as raised:
        plan(database, relink_request(), run_id="nonesuch")
    assert not isinstance(raised.value, records.ContactTaken)


def test_a_naive_time_is_refused(database: Database) -> None:
    with pytest.raises(ValueError, match="naive"):
        plan(database, relink_request(), at=AT.replace(tzinfo=None))


def test_the_first_handing_over_stands(database: Database, token: LeaseToken) -> None:
    create(database, token, relink_request(), "fcsess_1")
    assert records.mark_offered(database, SCOPE, "fcsess_1", AT + HOUR) is True
    assert records.mark_offered(database, SCOPE, "fcsess_1", AT + DAY) is False
    stored = records.find_by_session(database, SCOPE, "fcsess_1")
    assert stored is not None
    assert stored.offered_at == AT + HOUR
    assert records.find_by_session(database, OTHER_SCOPE, "fcsess_1") is None
    with database.begin(), pytest.raises(RuntimeError, match="commit by itself"):
        records.mark_offered(database, SCOPE, "fcsess_1", AT)
    with pytest.raises(DatabaseError, match="fcsess_2"):
        records.mark_offered(database, SCOPE, "fcsess_2", AT)
    with pytest.raises(DatabaseError, match="fcsess_1"):
        records.mark_offered(database, OTHER_SCOPE, "fcsess_1", AT)


def test_adopting_twice_changes_nothing(database: Database) -> None:
    adopted = relink_request(origin="adopt")
    assert records.adopt_request(database, SCOPE, RUN_ID, DATE, adopted, "fcsess_9", AT - DAY, AT) is True
    before = records.requests_of_run(database, RUN_ID)
    again = replace(adopted, request_id="req_other", attempt=2)
    assert records.adopt_request(database, SCOPE, RUN_ID, DATE, again, "fcsess_9", AT, AT + HOUR) is False
    assert records.requests_of_run(database, RUN_ID) == before
    assert (before[0].state, before[0].session_id, before[0].requested_at) == ("created", "fcsess_9", AT - DAY)
    assert before[0].offered_at == AT - DAY, "else it would not count as a contact"
    assert (before[0].request_body, before[0].api_version) == ("", "")
    with pytest.raises(records.ContactTaken):
        records.adopt_request(database, SCOPE, RUN_ID, DATE, replace(adopted, request_id="req_2"), "fcsess_10", AT, AT)


def test_an_unknown_is_settled_once(database: Database, token: LeaseToken) -> None:
    plan(database, relink_request())
    records.mark_attempting(database, "req_1", AT, token)
    records.record_result(database, "req_1", "unknown", AT, calls=3, error_type="connection")
    assert [stored.state for stored in records.unknown_requests(database, SCOPE)] == ["unknown"]
    records.resolve_unknown(database, "req_1", AT + DAY, resolved_by="event", state="created", session_id="fcsess_1")
    assert records.unknown_requests(database, SCOPE) == []
    (stored,) = records.open_requests(database, SCOPE)
    assert (stored.resolved_by, stored.resolved_at, stored.error_type) == ("event", AT + DAY, "connection")
    with pytest.raises(records.ContactTaken, match="not an open unknown"):
        records.resolve_unknown(database, "req_1", AT, resolved_by="person", state="not_sent")


def test_an_unknown_may_be_left_as_it_is(database: Database, token: LeaseToken) -> None:
    plan(database, relink_request())
    records.mark_attempting(database, "req_1", AT, token)
    records.record_result(database, "req_1", "unknown", AT)
    records.resolve_unknown(database, "req_1", AT + DAY, resolved_by="person", state="unknown")
    assert records.unknown_requests(database, SCOPE) == []
    assert records.requests_of_run(database, RUN_ID)[0].state == "unknown"
    with pytest.raises(records.ContactTaken):
        plan(database, relink_request("req_2", breakage=key("fcauth_req_1")))


def test_outcomes_open_close_and_replace(database: Database, token: LeaseToken) -> None:
    create(database, token, relink_request("req_1"), "fcsess_1")
    create(database, token, relink_request("req_2"), "fcsess_2")
    conclude(database, "req_1", "pending", AT + DAY)
    assert [stored.outcome for stored in records.open_requests(database, SCOPE)] == ["pending", None]
    conclude(database, "req_1", "expired", AT + 8 * DAY, previous="pending")
    conclude(database, "req_2", "failed", AT + 2 * DAY, failure_reason="no_account", session_status="failed")
    assert records.open_requests(database, SCOPE) == []
    (provisional,) = records.provisional_requests(database, SCOPE, (AT + 8 * DAY).date())
    assert (provisional.request.request_id, provisional.outcome, provisional.previous_outcome) == (
        "req_1",
        "expired",
        "pending",
    )
    assert records.provisional_requests(database, SCOPE, (AT + 9 * DAY).date()) == []
    conclude(database, "req_1", "relinked", AT + 9 * DAY, previous="expired", at=AT + 9 * DAY, accounts_cured=2)
    assert records.provisional_requests(database, SCOPE, AT.date()) == []
    (stored,) = records.requests_by_id(database, SCOPE, ["req_1"])
    assert (stored.outcome, stored.outcome_at, stored.outcome_run_id, stored.accounts_cured) == (
        "relinked",
        AT + 9 * DAY,
        RUN_ID,
        2,
    )
    assert [outcome.kind for _, _, outcome in records.outcomes_of(database, "req_1")] == [
        "pending",
        "expired",
        "relinked",
    ]
    assert {found.request.request_id for found in records.requests_with_outcome_of_run(database, SCOPE, RUN_ID)} == {
        "req_1",
        "req_2",
    }


def test_the_newest_look_at_a_session_is_known(database: Database, token: LeaseToken) -> None:
    create(database, token, relink_request(), "fcsess_1")
    for hours in (3, 1):
        records.add_session_checks(database, RUN_ID, [("req_1", "pending")], AT + hours * HOUR)
    assert records.open_requests(database, SCOPE)[0].last_checked_at == AT + 3 * HOUR


def test_requests_stand_at_a_past_moment_as_they_then_stood(database: Database, token: LeaseToken) -> None:
    plan(database, relink_request(), at=AT)
    records.mark_attempting(database, "req_1", AT + HOUR, token)
    records.record_result(database, "req_1", "unknown", AT + 2 * HOUR, calls=3, error_type="connection")
    records.resolve_unknown(
        database, "req_1", AT + 3 * HOUR, resolved_by="event", state="created", session_id="fcsess_1"
    )
    records.mark_offered(database, SCOPE, "fcsess_1", AT + 4 * HOUR)
    records.add_session_checks(database, RUN_ID, [("req_1", "pending")], AT + 5 * HOUR)
    conclude(database, "req_1", "pending", AT + 5 * HOUR)
    conclude(database, "req_1", "relinked", AT + 6 * HOUR, previous="pending", accounts_cured=1)

    def seen(hours: float) -> list[tuple[object, ...]]:
        found = records.requests_as_of(database, SCOPE, AT + timedelta(hours=hours))
        return [
            (s.state, s.session_id, s.error_type, s.offered_at is not None, s.last_checked_at is not None, s.outcome)
            for s in found
        ]

    assert seen(-0.5) == []
    assert seen(0) == [("planned", None, None, False, False, None)]
    assert seen(1) == [("attempting", None, None, False, False, None)]
    assert seen(2) == [("unknown", None, "connection", False, False, None)]
    assert seen(3) == [("created", "fcsess_1", "connection", False, False, None)]
    assert seen(4) == [("created", "fcsess_1", "connection", True, False, None)]
    assert seen(5) == [("created", "fcsess_1", "connection", True, True, "pending")]
    assert seen(6) == [("created", "fcsess_1", "connection", True, True, "relinked")]
    assert records.requests_as_of(database, SCOPE, AT + DAY) == records.requests_of_run(database, RUN_ID, SCOPE)


def test_planning_sees_every_request_that_a_guard_rests_on(database: Database, token: LeaseToken) -> None:
    long_ago = AT - 40 * DAY
    old = {"at": long_ago, "day": long_ago.date()}
    records.open_breakage(database, SCOPE, breakage(key=key("fcauth_open")), breakage(key=key("fcauth_shut")))
    records.close_breakage(database, SCOPE, key("fcauth_shut"), at=AT, run_id=RUN_ID, reason="cured")
    placed = {
        "open_breakage": relink_request("open_breakage", breakage=key("fcauth_open")),
        "shut_breakage": relink_request("shut_breakage", breakage=key("fcauth_shut")),
        "offered_late": relink_request("offered_late"),
    }
    for name, request in placed.items():
        create(database, token, request, f"fcsess_{name}", **old)
        conclude(database, name, "expired", long_ago + 8 * DAY)
    records.mark_offered(database, SCOPE, "fcsess_offered_late", AT - DAY)
    create(database, token, relink_request("open_session"), "fcsess_open", **old)
    plan(database, relink_request("in_flight"), **old)
    create(database, token, relink_request("recent"), "fcsess_recent", at=AT - 2 * DAY, day=(AT - 2 * DAY).date())
    conclude(database, "recent", "relinked", AT - DAY)
    # A night that died long ago and was resumed the day before yesterday keeps its business date.
    create(database, token, relink_request("resumed"), "fcsess_resumed", at=AT - 2 * DAY, day=long_ago.date())
    conclude(database, "resumed", "relinked", AT - DAY)
    found = {
        stored.request.request_id
        for stored in records.all_requests_for_planning(database, SCOPE, (AT - 4 * DAY).date())
    }
    assert found == {"open_breakage", "offered_late", "open_session", "in_flight", "recent", "resumed"}
    assert records.all_requests_for_planning(database, OTHER_SCOPE, long_ago.date()) == []


def test_requests_are_found_by_many_ids(database: Database) -> None:
    asked = [relink_request(f"req_{number}") for number in range(520)]
    plan(database, *asked)
    found = records.requests_for_authorizations(
        database, SCOPE, [request.authorization_id for request in asked] + ["nonesuch"]
    )
    assert len(found) == 520
    assert len(records.requests_for_holders(database, SCOPE, ["cus_req_7", "cus_req_8"])) == 2
    assert len(records.requests_since(database, SCOPE, DATE)) == 520
    assert records.requests_since(database, SCOPE, (AT + DAY).date()) == []


def _run_together(count: int, work: Callable[[int], None]) -> None:
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(work, range(count)))


def test_nothing_is_planned_without_the_newest_lease(database: Database, token: LeaseToken) -> None:
    planned = [(relink_request(), "", "")]
    with pytest.raises(LeaseLost):
        records.plan_requests(database, SCOPE, RUN_ID, DATE, planned, AT, LeaseToken(token.value - 1))
    assert records.planned_requests(database, SCOPE) == []
    records.plan_requests(database, SCOPE, RUN_ID, DATE, planned, AT, token)
    assert len(records.planned_requests(database, SCOPE)) == 1


def test_a_request_whose_contact_is_taken_is_stored_with_the_reason(database: Database) -> None:
    first = relink_request()
    second = relink_request("req_2", breakage=first.breakage)
    plan(database, first)
    records.plan_taken(database, SCOPE, RUN_ID, DATE, second, AT + HOUR, "recorded already")
    (stored,) = records.requests_by_id(database, SCOPE, ["req_2"])
    told = {"error_type": "contact_taken", "error_message": "recorded already", "answered_at": AT + HOUR}
    key_of_both = first.idempotency_key
    assert stored == StoredRequest(second, RUN_ID, DATE, "not_sent", AT + HOUR, idempotency_key=key_of_both, **told)
    with pytest.raises(records.ContactTaken, match="fcauth_req_1, connection breakage 1, attempt 1"):
        records.plan_taken(database, SCOPE, RUN_ID, DATE, second, AT + HOUR, "recorded already")


def test_why_there_is_no_answer_is_told_by_the_newest_try_and_all_calls_are_counted(
    database: Database, token: LeaseToken
) -> None:
    plan(database, relink_request(), relink_request("req_2"))
    for request_id in ("req_1", "req_2"):
        records.mark_attempting(database, request_id, AT, token)
    told = {"error_type": "server", "error_code": "busy", "error_message": "later", "http_status": 503}
    records.record_no_answer(database, "req_1", calls=3, **told, stripe_request_id="req_x")
    (first,) = records.requests_by_id(database, SCOPE, ["req_1"])
    assert (first.state, first.calls, first.stripe_request_id) == ("attempting", 3, "req_x")
    assert told == {name: getattr(first, name) for name in told}
    records.record_no_answer(database, "req_1", calls=2, error_type="connection")
    (first, second) = records.requests_by_id(database, SCOPE, ["req_1", "req_2"])
    assert (first.calls, first.error_type, first.error_code, first.http_status) == (5, "connection", None, None)
    assert (first.error_message, first.stripe_request_id) == (None, None)
    assert (second.calls, second.error_type) == (0, None)
    records.record_result(database, "req_1", "unknown", AT + HOUR, error_type="key_expired")
    records.record_no_answer(database, "req_1", calls=1, error_type="late")
    assert records.requests_by_id(database, SCOPE, ["req_1"])[0].error_type == "key_expired"


def test_a_session_that_was_found_is_its_requests_own_also_once_nobody_waited_for_it(
    database: Database, token: LeaseToken
) -> None:
    plan(database, relink_request(), relink_request("req_2"))
    for request_id in ("req_1", "req_2"):
        records.mark_attempting(database, request_id, AT, token)
        records.record_result(database, request_id, "unknown", AT + HOUR)
    records.resolve_unknown(database, "req_1", AT + HOUR, resolved_by="a person", state="unknown")
    records.record_found(database, "req_1", AT + DAY, session_id="fcsess_9", resolved_by="event evt_1")
    (found,) = records.open_requests(database, SCOPE)
    assert (found.request.request_id, found.state, found.session_id) == ("req_1", "created", "fcsess_9")
    assert (found.resolved_at, found.resolved_by, found.answered_at) == (AT + DAY, "event evt_1", AT + HOUR)
    assert [one.request.request_id for one in records.unknown_requests(database, SCOPE)] == ["req_2"]
    with pytest.raises(records.ContactTaken, match="is created and was settled meanwhile"):
        records.record_found(database, "req_1", AT + DAY, session_id="fcsess_8", resolved_by="event evt_2")
