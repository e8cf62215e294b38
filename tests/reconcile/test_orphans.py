"""Whose a session is that nobody knows: the key of its creation, else everything about it, and only where nothing else fits."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconcile.model import BreakageKey, Holder, StoredRequest
from reconcile.orphans import (
    EVENTS_KEPT,
    OUTAGE_ENDED,
    SessionHint,
    Sighting,
    attribute,
    is_lost,
    session_hints,
    worth_reading,
)
from reconcile.records import EventRecord
from tests.reconcile.nights import request, session, stamp, stored

STAMP = stamp(1)
ASKED_AT = STAMP.as_of - timedelta(hours=23)
OURS = {"fcauth_1", "fcauth_2"}


def lost(number: int = 1, **fields: Any) -> StoredRequest:
    about = {name: fields.pop(name) for name in ("account_id", "delivery", "holder", "breakage") if name in fields}
    unknown = {"state": "unknown", "session_id": None, "offered_at": None, "idempotency_key": f"relink-{number}"}
    return stored(request(request_id=f"req_{number}", **about), STAMP.business_date, ASKED_AT, **(unknown | fields))


def hint(session_id: str = "fcsess_1", hours: float = 1, *keys: str, **fields: Any) -> SessionHint:
    at = ASKED_AT + timedelta(hours=hours)
    plain: dict[str, Any] = {"holder": Holder("customer", "cus_1"), "authorization_id": None}
    return SessionHint(session_id, f"evt_{session_id}", at, at, idempotency_keys=frozenset(keys), **(plain | fields))


def seen(session_id: str = "fcsess_1", hours: float = 1, *keys: str, **fields: Any) -> Sighting:
    about = {"requested_authorization": "fcauth_1", "holder_type": "customer", "account_holder_id": "cus_1"}
    return Sighting(hint(session_id, hours, *keys), session("pending", session_id=session_id, **(about | fields)))


def found(sightings: list[Sighting], requests: list[StoredRequest]) -> dict[str, str]:
    return {
        one.sighting.session.session_id: one.stored.request.request_id
        for one in attribute(sightings, requests, OURS, STAMP).found
    }


def foreign(sightings: list[Sighting], requests: list[StoredRequest]) -> dict[str, str]:
    return {one.session_id: one.why for one in attribute(sightings, requests, OURS, STAMP).foreign}


def test_one_session_that_fits_one_lost_request_is_its_own() -> None:
    assert found([seen()], [lost()]) == {"fcsess_1": "req_1"}
    assert foreign([seen()], [lost()]) == {}


@pytest.mark.parametrize(
    "sighting",
    [
        seen(account_holder_id="cus_2"),
        seen(holder_type="account"),
        seen(requested_account="fca_1"),
        seen(ui_mode="hosted", delivery_method="email"),
        seen(requested_authorization="fcauth_2"),
        seen("fcsess_1", -1),
        seen("fcsess_1", 1, "somebody-elses-key"),
    ],
    ids=["customer", "holder type", "account", "delivery", "authorization", "time", "created under another key"],
)
def test_whatever_differs_makes_it_foreign(sighting: Sighting) -> None:
    assert found([sighting], [lost()]) == {}
    assert list(foreign([sighting], [lost()])) == ["fcsess_1"]


def test_stripes_clock_may_be_a_little_behind_ours() -> None:
    assert found([seen("fcsess_1", -1 / 120)], [lost()]) == {"fcsess_1": "req_1"}
    assert found([seen("fcsess_1", -1 / 30)], [lost()]) == {}


def test_neither_two_sessions_nor_two_requests_are_guessed_about() -> None:
    two = [seen("fcsess_1"), seen("fcsess_2", 2)]
    assert found(two, [lost()]) == {}
    assert foreign(two, [lost()]) == {
        "fcsess_1": "request req_1 may have made it, or session fcsess_2",
        "fcsess_2": "request req_1 may have made it, or session fcsess_1",
    }
    requests = [lost(1), lost(2, breakage=BreakageKey("fcauth_1", "permissions", 1))]
    assert found([seen()], requests) == {}
    assert foreign([seen()], requests) == {"fcsess_1": "it may be what any of the requests req_1, req_2 asked for"}


def test_a_request_that_was_settled_without_its_session_is_a_rival() -> None:
    settled = lost(1, resolved_at=ASKED_AT + timedelta(hours=12), resolved_by="a person")
    assert found([seen()], [settled, lost(2)]) == {}
    assert foreign([seen()], [settled, lost(2)]) == {
        "fcsess_1": "it may be what any of the requests req_1, req_2 asked for"
    }
    assert foreign([seen()], [settled]) == {
        "fcsess_1": "it may be what request req_1 asked for, which was settled by a person"
    }
    assert found([seen("fcsess_1", 1), seen("fcsess_2", 0, "relink-2")], [settled, lost(2)]) == {"fcsess_2": "req_2"}


@pytest.mark.parametrize(
    ("resolved_by", "is_rival"),
    [
        ("event evt_1 read by run r", True),
        ("its own key in event evt_1 read by run r", False),
        ("adopted by run r", False),
        ("the answer of Stripe came late", False),
    ],
)
def test_a_request_whose_session_only_fitted_is_a_rival(resolved_by: str, is_rival: bool) -> None:
    """That session may have been somebody else's; then the one that is seen now is what it made."""
    earlier = lost(1, state="created", session_id="fcsess_9", resolved_at=ASKED_AT, resolved_by=resolved_by)
    assert found([seen()], [earlier, lost(2)]) == ({} if is_rival else {"fcsess_1": "req_2"})


def test_the_key_decides_and_leaves_the_rest_to_the_others() -> None:
    requests = [lost(1), lost(2, breakage=BreakageKey("fcauth_1", "permissions", 1))]
    assert found([seen("fcsess_1", 0, "relink-2"), seen("fcsess_2")], requests) == {
        "fcsess_1": "req_2",
        "fcsess_2": "req_1",
    }


def test_what_still_waits_for_its_answer_is_left_to_the_replay() -> None:
    waiting = lost(state="attempting")
    assert attribute([seen(), seen("fcsess_2", 0, "relink-1")], [waiting], OURS, STAMP).found == ()
    assert foreign([seen(), seen("fcsess_2", 0, "relink-1")], [waiting]) == {}


def test_only_sessions_that_relink_ours_are_spoken_of() -> None:
    others = [seen(requested_authorization="fcauth_9"), seen("fcsess_2", requested_authorization=None)]
    plain = seen("fcsess_3", has_relink_options=False)
    assert foreign([*others, plain], []) == {}
    assert foreign([seen()], []) == {"fcsess_1": "no request of this job explains it"}


def test_a_request_that_a_person_settled_is_not_changed_behind_their_back() -> None:
    settled = lost(resolved_at=STAMP.as_of, resolved_by="ada", delivery="hosted_email")
    assert not is_lost(settled, STAMP)
    by_key = seen("fcsess_1", 0, "relink-1", ui_mode="hosted", delivery_method="email")
    assert found([by_key], [settled]) == {}
    assert foreign([by_key], [settled]) == {"fcsess_1": "it is what request req_1 asked for, which was settled by ada"}
    renewed = lost(resolved_at=STAMP.as_of, resolved_by="renewed by run 1")
    assert foreign([seen("fcsess_1", 0, "relink-1")], [renewed]) == {}, (
        "an offer that nobody had, and that is made anew"
    )


def test_one_whose_accounts_came_back_is_still_looked_for() -> None:
    assert is_lost(lost(resolved_at=STAMP.as_of, resolved_by=f"{OUTAGE_ENDED}, run 1"), STAMP)
    assert not is_lost(lost(attempting_at=STAMP.as_of - EVENTS_KEPT - timedelta(seconds=1)), STAMP)
    assert not is_lost(lost(session_id="fcsess_1"), STAMP)
    assert not is_lost(lost(state="rejected"), STAMP)


def event(hours: float, key: str | None = None, **fields: Any) -> EventRecord:
    plain: dict[str, Any] = {
        "event_id": f"evt_{hours}",
        "event_type": "financial_connections.session.updated",
        "created_at": ASKED_AT + timedelta(hours=hours),
        "object_type": "financial_connections.session",
        "object_id": "fcsess_1",
        "authorization_id": None,
        "holder_type": "customer",
        "account_holder_id": "cus_1",
        "request_idempotency_key": key,
        "livemode": False,
    }
    return EventRecord(**(plain | fields))


def test_an_event_of_the_creation_dates_no_answer() -> None:
    (created,) = session_hints([event(1, "relink-1")])
    assert (created.updated_at, created.first_at) == (None, ASKED_AT + timedelta(hours=1))
    (answered,) = session_hints([event(3), event(1, "relink-1"), event(2)])
    assert (answered.updated_at, answered.event_id) == (ASKED_AT + timedelta(hours=3), "evt_3")
    assert (answered.idempotency_keys, answered.first_at) == (frozenset({"relink-1"}), ASKED_AT + timedelta(hours=1))
    assert session_hints([event(1, object_id=None)]) == ()


def test_an_older_rendering_without_holder_is_read_only_for_a_lost_request() -> None:
    nameless = hint(holder=None)
    assert worth_reading([nameless], (), [lost()], (), OURS, STAMP) == [nameless]
    assert worth_reading([nameless], (), [], (), OURS, STAMP) == []


def test_lost_requests_come_first_and_what_is_explained_costs_nothing() -> None:
    other, own = hint("fcsess_1", 1, holder=Holder("customer", "cus_2")), hint("fcsess_2", 2)
    named = hint("fcsess_3", 3, holder=Holder("customer", "cus_3"), authorization_id="fcauth_2")
    plain = hint("fcsess_4", 4, holder=Holder("customer", "cus_4"))
    hints = [other, own, named, plain]
    troubled = {Holder("customer", "cus_2")}
    assert worth_reading(hints, (), [lost()], troubled, OURS, STAMP) == [own, other, named]
    assert worth_reading(hints, {"fcsess_1", "fcsess_2"}, [lost()], troubled, OURS, STAMP) == [named]


@given(
    st.lists(st.tuples(st.sampled_from(["cus_1", "cus_2"]), st.sampled_from(["fcauth_1", "fcauth_2"])), max_size=4),
    st.lists(st.tuples(st.sampled_from(["cus_1", "cus_2"]), st.sampled_from(["fcauth_1", "fcauth_2"])), max_size=4),
)
def test_no_session_and_no_request_is_given_away_twice(
    sessions: list[tuple[str, str]], requests: list[tuple[str, str]]
) -> None:
    sightings = [
        seen(f"fcsess_{number}", account_holder_id=holder, requested_authorization=authorization)
        for number, (holder, authorization) in enumerate(sessions)
    ]
    unknown = [
        lost(number, holder=Holder("customer", holder), breakage=BreakageKey(authorization, "connection", number))
        for number, (holder, authorization) in enumerate(requests)
    ]
    result = attribute(sightings, unknown, OURS, STAMP)
    taken = [one.stored.request.request_id for one in result.found]
    assert len(taken) == len(set(taken))
    named = [one.sighting.session.session_id for one in result.found] + [one.session_id for one in result.foreign]
    assert sorted(named) == sorted(sighting.session.session_id for sighting in sightings)
    for one in result.found:
        same = (one.stored.request.holder.id, one.stored.authorization_id)
        assert sessions.count(same) == requests.count(same) == 1


def test_what_is_attributed_does_not_hang_on_the_order_of_events() -> None:
    sightings = [seen("fcsess_1"), seen("fcsess_2", 2, requested_authorization="fcauth_2")]
    requests = [lost(1), replace(lost(2, breakage=BreakageKey("fcauth_2", "connection", 1)))]
    assert found(sightings, requests) == found(sightings[::-1], requests[::-1])
