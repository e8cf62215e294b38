"""What each fault of a POST leaves behind: the state, the row, the exit code, and never a second session."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from jobs.adapters import records
from jobs.nightly import RunResult
from jobs.simulator.world import World
from jobs.work import Work
from tests.jobs.conftest import MakeNights
from tests.jobs.nights import SESSIONS, Nights, assert_ties, outcomes, small_world, table

ATTEMPTS = 3
"""`stripe.max_attempts` of the test settings."""


def requests(result: RunResult) -> dict[str, dict[str, Any]]:
    return {row["authorization_id"]: row for row in table(result, "relink_requests")}


def assert_no_duplicates(nights: Nights) -> None:
    assert set(Counter(effect.idempotency_key for effect in nights.world.effects).values()) <= {1}


def test_every_broken_authorization_is_asked_once(both_nights: Nights) -> None:
    nights = both_nights
    result = nights.run()
    assert result.exit_code == 0
    assert nights.states() == dict.fromkeys(("fcauth_1", "fcauth_2", "fcauth_3"), "created")
    rows = requests(result)
    assert {row["calls"] for row in rows.values()} == {1}
    assert {row["session_id"] for row in rows.values()} == {effect.session_id for effect in nights.world.effects}
    assert result.summary["sent"] == 3
    assert_ties(result)


@pytest.mark.parametrize(
    ("kind", "state", "shown", "exit_code", "sessions"),
    [
        ("error_500_before", "unknown", ("unknown", "api_error", 500, ATTEMPTS), 4, 0),
        ("error_500_after", "unknown", ("unknown", "api_error", 500, ATTEMPTS), 4, 1),
        ("rate_limit", "not_sent", ("not_sent", "rate_limit", 429, ATTEMPTS), 4, 0),
        ("lock_timeout", "not_sent", ("not_sent", "lock_timeout", 429, ATTEMPTS), 4, 0),
        ("error_503", "attempting", ("unknown", "api_error", 503, ATTEMPTS), 4, 0),
        ("error_502", "attempting", ("unknown", None, 502, ATTEMPTS), 4, 0),
        ("reset_before", "attempting", ("unknown", "connection", None, ATTEMPTS), 4, 0),
        ("reset_after", "attempting", ("unknown", "connection", None, ATTEMPTS), 4, 1),
        ("cut_body", "attempting", ("unknown", "cut_body", None, ATTEMPTS), 4, 1),
        ("cut_json", "attempting", ("unknown", "cut_body", 200, ATTEMPTS), 4, 1),
        ("not_json", "attempting", ("unknown", "cut_body", 200, ATTEMPTS), 4, 1),
        ("in_use", "attempting", ("unknown", "idempotency_key_in_use", 409, ATTEMPTS), 4, 0),
        ("redirect", "attempting", ("unknown", None, 307, 1), 4, 0),
    ],
)
def test_a_fault_that_does_not_end(
    nights: Nights, kind: str, state: str, shown: tuple[Any, ...], exit_code: int, sessions: int
) -> None:
    """The first customer's call fails to the end; the others are asked all the same."""
    nights.world.advance(hours=18)
    nights.world.faults.script(kind, method="POST", times=shown[3])
    result = nights.run()
    assert result.exit_code == exit_code
    assert nights.states() == {"fcauth_1": state, "fcauth_2": "created", "fcauth_3": "created"}
    assert nights.world.contacts_by_authorization().get("fcauth_1", 0) == sessions
    assert_no_duplicates(nights)
    row = requests(result)["fcauth_1"]
    assert (row["result"], row["http_status"], row["calls"]) == (shown[0], shown[2], shown[3])
    assert shown[1] in (None, row["error_type"], row["error_code"])
    assert result.complete
    assert_ties(result)
    assert nights.newest_run().state == records.COMPLETE
    # The next night settles what was left open, and nobody is asked twice for one attempt.
    again = nights.next_night(days=0.5)
    assert_ties(again)
    assert_no_duplicates(nights)
    unknown = kind.startswith("error_500")
    assert len(nights.world.effects) == (2 + sessions if unknown else 3)
    assert nights.states()["fcauth_1"] == ("unknown" if unknown else "created")


@pytest.mark.parametrize("kind", ["error_503", "reset_before", "reset_after", "cut_body", "cut_json", "in_use"])
def test_a_fault_that_passes_is_made_good_under_the_same_key(nights: Nights, kind: str) -> None:
    nights.world.faults.script(kind, method="POST")
    result = nights.run()
    assert result.exit_code == 0
    assert requests(result)["fcauth_1"]["calls"] == 2
    posts = [call for call in nights.world.log if call.path == SESSIONS]
    assert posts[0].idempotency_key == posts[1].idempotency_key
    assert len(nights.world.effects) == 3
    assert_ties(result)


def test_a_500_is_not_asked_again_under_a_fresh_key(nights: Nights) -> None:
    nights.world.faults.script("error_500_after", method="POST")
    result = nights.run()
    assert result.exit_code == 4
    keys = {call.idempotency_key for call in nights.world.log if call.path == SESSIONS}
    assert len(keys) == 3
    for _ in range(2):
        nights.world.advance(hours=11)
        nights.run(Work("apply", agreed={"main": [one.request for one in nights.stored()]}))
    assert nights.world.contacts_by_authorization()["fcauth_1"] == 1


def test_one_deleted_customer_is_a_row_and_not_an_end(make_nights: MakeNights) -> None:
    nights = make_nights(small_world(customers=40, broken=range(1, 31)))
    nights.world.delete_customer("cus_7")
    result = nights.run()
    assert result.exit_code == 4
    assert Counter(nights.states().values()) == {"created": 29, "rejected": 1}
    row = requests(result)["fcauth_7"]
    assert (row["result"], row["error_type"], row["error_code"], row["http_status"], row["calls"]) == (
        "rejected",
        "invalid_request_error",
        "resource_missing",
        400,
        1,
    )
    assert row["stripe_request_id"].startswith("req_")
    assert "@" not in row["error_message"]
    assert outcomes(result)["fcauth_7"] == "rejected"
    assert result.complete
    assert_ties(result)


def test_a_holder_who_may_not_be_asked_is_rejected_and_counts_as_an_attempt(nights: Nights) -> None:
    """A bank that Stripe says is beyond repair: the account says relink, the authorization says no."""
    nights.world.heal_authorization("fcauth_2")
    nights.world.break_authorization("fcauth_2", action="none")
    nights.world.override(
        "fca_2_1",
        {"status_details": {"inactive": {"action": "relink_required", "cause": "unspecified"}}},
    )
    result = nights.run()
    assert result.exit_code == 4
    row = requests(result)["fcauth_2"]
    assert (row["result"], row["error_code"]) == ("rejected", "financial_connections_account_inactive")
    nights.world.advance(days=1)
    assert "fcauth_2" not in requests(nights.run()), "a rejected request waits for its cooldown"
    assert_ties(result)


@pytest.mark.parametrize(("kind", "status"), [("unauthorized", 401), ("forbidden", 403)])
def test_a_key_refused_midway_ends_the_sending_at_once(nights: Nights, kind: str, status: int) -> None:
    nights.world.faults.script(kind, method="POST", skip=1, times=100)
    result = nights.run()
    assert result.exit_code == 3
    assert nights.posts() == 2
    assert nights.states() == {"fcauth_1": "created", "fcauth_2": "not_sent", "fcauth_3": "planned"}
    rows = requests(result)
    assert (rows["fcauth_2"]["result"], rows["fcauth_2"]["http_status"], rows["fcauth_2"]["calls"]) == (
        "not_sent",
        status,
        1,
    )
    assert (rows["fcauth_3"]["result"], rows["fcauth_3"]["calls"]) == ("not_sent", 0)
    assert result.summary["sent"] == 1
    assert not result.complete
    assert "refused the key midway" in (result.why or "")
    assert nights.link("latest") is None
    assert_ties(result)
    nights.world.faults.clear()
    nights.world.advance(hours=1)
    again = nights.run()
    assert again.exit_code == 0
    assert set(nights.states().values()) == {"created"}
    assert len(nights.world.effects) == 3


@pytest.mark.parametrize("kind", ["error_500_before", "error_503", "reset_before", "cut_body"])
def test_five_server_failures_in_a_row_stop_the_rest(make_nights: MakeNights, kind: str) -> None:
    nights = make_nights(small_world(customers=10, broken=range(1, 10)))
    nights.world.faults.script(kind, method="POST", skip=1, times=1000)
    result = nights.run()
    assert result.exit_code == 3
    states = Counter(nights.states().values())
    assert states.pop("created") == 1
    assert states.pop("planned") == 3
    assert states.total() == 5
    assert nights.posts() == 1 + 5 * ATTEMPTS
    assert "5 calls in a row failed" in (result.why or "")
    assert result.summary["sent"] == 6
    assert_ties(result)
    nights.world.faults.clear()
    nights.world.advance(hours=1)
    again = nights.run()
    assert_ties(again)
    assert_no_duplicates(nights)
    left = {"unknown"} if kind == "error_500_before" else set()
    assert set(nights.states().values()) == {"created"} | left


def test_four_failures_and_a_success_stop_nothing(make_nights: MakeNights) -> None:
    nights = make_nights(small_world(customers=12, broken=range(1, 11)))
    for skip in range(2):
        nights.world.faults.script("error_503", method="POST", skip=skip, times=4 * ATTEMPTS)
    # 4 fail, 1 passes (the skipped call), 4 fail, the last passes.
    result = nights.run()
    assert result.exit_code == 4
    assert Counter(nights.states().values()) == {"created": 2, "attempting": 8}


def test_a_customer_who_was_asked_under_other_parameters_is_unknown(nights: Nights) -> None:
    """Somebody used the key before: whether that made a session cannot be known."""
    planned = nights.run(Work("plan", dry_run=True))
    key = planned.nights[0].plan.requests[0].idempotency_key
    nights.world.idempotency.begin(key, "another request", nights.world.now)
    from jobs.simulator.reply import Reply

    nights.world.idempotency.finish(key, Reply(200, b"{}", {}))
    result = nights.run()
    assert result.exit_code == 4
    row = requests(result)["fcauth_1"]
    assert (row["result"], row["error_type"], row["http_status"]) == ("unknown", "idempotency_error", 400)
    assert nights.states() == {"fcauth_1": "unknown", "fcauth_2": "created", "fcauth_3": "created"}
    assert_ties(result)


def test_an_unknown_offer_is_renewed_after_a_day_and_not_before(nights: Nights) -> None:
    nights.world.faults.script("error_500_before", method="POST", times=ATTEMPTS)
    nights.run()
    assert nights.states()["fcauth_1"] == "unknown"
    nights.world.advance(hours=22)
    early = nights.run()
    assert early.stamp.business_date == nights.stored()[0].business_date.replace(day=3)
    assert "fcauth_1" not in requests(early)
    nights.world.advance(hours=3)
    late = nights.run(Work("apply", agreed={"main": [one.request for one in nights.stored()][:1]}))
    assert late.exit_code == 0
    assert nights.posts() == ATTEMPTS + 2, "the unknown attempt itself is never sent again"


def test_an_unknown_offer_is_renewed_by_the_night_after(nights: Nights) -> None:
    nights.world.faults.script("error_500_before", method="POST", times=ATTEMPTS)
    nights.run()
    result = nights.next_night(days=1.05)
    rows = requests(result)
    assert {name: row["attempt"] for name, row in rows.items()} == {"fcauth_1": 2}
    assert rows["fcauth_1"]["result"] == "created"


def test_nothing_is_sent_without_a_committed_intent(nights: Nights) -> None:
    """Where the records cannot say that a request is about to be sent, it is not."""
    import sqlite3

    path = nights.database_url.removeprefix("sqlite:///")
    with sqlite3.connect(path) as connection:
        connection.execute(
            "CREATE TRIGGER full BEFORE UPDATE OF state ON relink_requests WHEN NEW.state = 'attempting' "
            "BEGIN SELECT RAISE(ABORT, 'no room'); END"
        )
    stopped = nights.run()
    assert (stopped.exit_code, stopped.complete, nights.posts()) == (3, False, 0)
    assert nights.last_attempt()["complete"] is False


def test_a_customer_with_two_broken_banks_is_asked_about_one(make_nights: MakeNights) -> None:
    from tests.jobs.nights import add_customer

    world: World = small_world(customers=2, broken=(1,))
    add_customer(world, 3, holder="cus_1")
    world.break_authorization("fcauth_3")
    nights = make_nights(world)
    result = nights.run()
    assert list(requests(result)) == ["fcauth_1"]
    found = {row["authorization_id"]: row["next_step"] for row in table(result, "authorizations")}
    assert found == {"fcauth_1": "request", "fcauth_3": "cooldown"}
    assert "fcauth_3" not in requests(nights.next_night()), "asked yesterday"


def test_the_cap_holds_for_the_date_and_not_for_the_run(nights: Nights) -> None:
    nights.sections["relink"] = {"max_requests_per_run": 2}
    first = nights.run()
    assert len(requests(first)) == 2
    nights.world.break_authorization("fcauth_4")
    nights.world.advance(hours=1)
    more = nights.run(Work("request", from_stored=True, selection=everything()))
    assert requests(more) == {}
    assert len(requests(nights.next_night())) == 2


def everything() -> Any:
    from jobs.selection import Selection

    return Selection(institutions=frozenset({"Alderbrook Mutual"}))
