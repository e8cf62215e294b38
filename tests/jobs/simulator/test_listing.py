"""Pages, cursors, filters, and what each API version shows of an account."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from jobs.simulator.server import SimulatorServer
from jobs.simulator.world import World
from tests.jobs.simulator.client import ACCOUNTS, SESSIONS, STABLE, Client, relink_params


def test_pages_are_newest_first_and_complete() -> None:
    world = World.generate(1234, seed=3)
    with SimulatorServer(world) as server:
        client = Client(server.port)
        found = [account for page in client.pages(ACCOUNTS, {"limit": 100}) for account in page]
        first = client.get(ACCOUNTS).json["data"]
    assert len(first) == 10
    assert [account["id"] for account in found] == [account.id for account in reversed(world.listing)]
    assert len({account["id"] for account in found}) == 1234
    times = [account["created"] for account in found]
    assert times == sorted(times, reverse=True)
    assert max(times) <= world.start


def test_ending_before_gives_the_page_just_newer(world: World, client: Client) -> None:
    world.add_authorization(("customer", "cus_2"), accounts=20)
    order = [account.id for account in reversed(world.listing)]
    page = client.get(ACCOUNTS, {"ending_before": order[10], "limit": 4}).json
    assert [account["id"] for account in page["data"]] == order[6:10]
    assert page["has_more"] is True
    newest = client.get(ACCOUNTS, {"ending_before": order[2], "limit": 4}).json
    assert [account["id"] for account in newest["data"]] == order[:2]
    assert newest["has_more"] is False
    exact = client.get(ACCOUNTS, {"ending_before": order[4], "limit": 4}).json
    assert [account["id"] for account in exact["data"]] == order[:4]
    assert exact["has_more"] is False


def test_cursor_beyond_the_last_account_is_an_empty_page(world: World, client: Client) -> None:
    assert client.get(ACCOUNTS, {"starting_after": world.listing[0].id}).json["data"] == []


@pytest.mark.parametrize(
    ("params", "param", "code"),
    [
        ({"limit": 0}, "limit", "parameter_invalid_integer"),
        ({"limit": 101}, "limit", "parameter_invalid_integer"),
        ({"limit": "ten"}, "limit", "parameter_invalid_integer"),
        ({"status": "inactive"}, "status", "parameter_unknown"),
        ({"authorization": "fcauth_1"}, "authorization", "parameter_unknown"),
        ({"created[gte]": 1}, "created", "parameter_unknown"),
        ({"account_holder[name]": "x"}, "account_holder[name]", "parameter_unknown"),
        ({"starting_after": "fca_404"}, "starting_after", "resource_missing"),
        ({"starting_after": "fca_1", "ending_before": "fca_2"}, "starting_after", None),
        ({"session": "fcsess_404"}, "session", "resource_missing"),
        ({"expand[]": "data.ownership.x"}, "expand", None),
    ],
)
def test_bad_list_parameters(client: Client, params: dict, param: str, code: str | None) -> None:
    answer = client.get(ACCOUNTS, params)
    assert (answer.status, answer.error["param"], answer.error.get("code")) == (400, param, code)


def test_filter_by_holder_pages_within_the_holder(world: World, client: Client) -> None:
    mine = world.add_authorization(("customer", "cus_2"), accounts=5)
    world.add_authorization(("customer", "cus_1"), accounts=5)
    world.add_account(mine.id, account_id="fca_late")
    params = {"account_holder[customer]": "cus_2", "limit": 2}
    found = [account["id"] for page in client.pages(ACCOUNTS, params) for account in page]
    assert found == [account.id for account in reversed(mine.accounts)]
    assert client.get(ACCOUNTS, {"account_holder[customer]": "cus_404"}).status == 400
    foreign = {"account_holder[customer]": "cus_2", "starting_after": "fca_1"}
    assert client.get(ACCOUNTS, foreign).error["code"] == "resource_missing"


def test_vanished_account_is_gone_from_list_and_cursor(world: World, client: Client) -> None:
    world.remove_account("fca_2")
    assert [account["id"] for account in client.get(ACCOUNTS).json["data"]] == ["fca_3", "fca_1"]
    assert client.get(f"{ACCOUNTS}/fca_2").status == 404
    assert client.get(ACCOUNTS, {"starting_after": "fca_2"}).status == 400
    assert [each["id"] for each in client.get(ACCOUNTS, {"starting_after": "fca_3"}).json["data"]] == ["fca_1"]


def test_preview_shows_what_stable_hides(world: World, client: Client) -> None:
    world.break_account("fca_1", cause="account_unavailable")
    preview = client.get(f"{ACCOUNTS}/fca_1").json
    assert preview["authorization"] == "fcauth_1"
    assert preview["status_details"] == {"inactive": {"action": "relink_required", "cause": "account_unavailable"}}
    assert client.get("/v1/financial_connections/authorizations/fcauth_1").json["status"] == "active"
    for version in (STABLE, None, "2025-12-15.preview"):
        client.version = version
        stable = client.get(f"{ACCOUNTS}/fca_1").json
        assert stable["status"] == "inactive"
        assert "authorization" not in stable
        assert stable["status_details"] == {}
        assert client.get("/v1/financial_connections/authorizations/fcauth_1").status == 404


@pytest.mark.parametrize("version", ["latest", "2026-13-01.preview", "2026-09-30.preview; beta=v1", "20260930", ""])
def test_malformed_version_is_refused(client: Client, version: str) -> None:
    client.version = version
    assert client.get(ACCOUNTS).status == 400


def test_old_versions_have_no_account_numbers(world: World, client: Client) -> None:
    world.add_account("fcauth_1", account_id="fca_9", numbers=[("tokenized_account_number", "expired", None)])
    shown = {}
    for version in ("2025-06-30.basil", "2026-03-25.dahlia", STABLE):
        client.version = version
        shown[version] = client.get(f"{ACCOUNTS}/fca_9").json.get("account_numbers")
    assert shown["2025-06-30.basil"] is None
    assert shown["2026-03-25.dahlia"][0]["status"] == "deactivated"
    assert shown[STABLE][0]["status"] == "expired"


def test_events_are_rendered_at_the_default_version_and_filtered(world: World, client: Client) -> None:
    world.break_account("fca_1")
    world.advance(hours=1)
    world.break_account("fca_2")
    broken_at = world.now
    world.advance(hours=1)
    world.heal_account("fca_1")
    every = client.get("/v1/events").json["data"]
    assert [event["type"].rpartition(".")[2] for event in every] == ["reactivated", "deactivated", "deactivated"]
    assert all("authorization" not in event["data"]["object"] for event in every)
    assert every[1]["data"]["object"]["status"] == "inactive"
    assert every[1]["data"]["object"]["status_details"] == {}
    # The object is as it was: fca_1 is active again, its first event still shows it inactive.
    assert every[2]["data"]["object"]["status"] == "inactive"

    def count(**params: object) -> int:
        return len(
            client.get(
                "/v1/events",
                {name.replace("__", "[") + ("]" if "__" in name else ""): value for name, value in params.items()},
            ).json["data"]
        )

    assert count(type="financial_connections.account.deactivated") == 2
    assert count(type="financial_connections.*") == 3
    assert count(created__gt=broken_at) == 1
    assert count(created__gte=broken_at) == 2
    assert count(created__lt=broken_at) == 1
    assert count(created__lte=broken_at) == 2
    assert count(types__0="financial_connections.account.reactivated") == 1
    both = {"type": "x", "types[]": "y"}
    assert client.get("/v1/events", both).status == 400
    assert client.get("/v1/events", {f"types[{n}]": f"a{n}" for n in range(21)}).status == 400
    paged = [event["id"] for page in client.pages("/v1/events", {"limit": 1}) for event in page]
    assert paged == [event["id"] for event in every]


def test_events_end_after_thirty_days(world: World, client: Client) -> None:
    world.break_account("fca_1")
    event_id = world.events[0].id
    world.advance(days=30)
    assert len(client.get("/v1/events").json["data"]) == 1
    world.advance(seconds=1)
    assert client.get("/v1/events").json["data"] == []
    assert client.get(f"/v1/events/{event_id}").status == 404


def test_session_event_and_the_switch_for_creation(world: World, client: Client) -> None:
    session = client.post(SESSIONS, relink_params(world.authorizations["fcauth_1"]), key="key-1").json
    assert client.get("/v1/events").json["data"] == []
    world.answer(session["id"], "no_authorization")
    event = client.get("/v1/events", {"type": "financial_connections.session.updated"}).json["data"][0]
    assert event["data"]["object"]["id"] == session["id"]
    assert "relink_result" not in event["data"]["object"]
    assert event["request"] == {"id": None, "idempotency_key": None}


def test_creation_may_emit_an_event_with_its_key(world: World, client: Client) -> None:
    world.behaviour = replace(world.behaviour, session_creation_emits_event=True)
    made = client.post(SESSIONS, relink_params(world.authorizations["fcauth_1"]), key="key-1")
    event = client.get("/v1/events").json["data"][0]
    assert event["type"] == "financial_connections.session.updated"
    assert event["data"]["object"]["id"] == made.json["id"]
    assert event["request"] == {"id": made.headers["Request-Id"], "idempotency_key": "key-1"}


def test_expected_deactivation_is_announced_and_happens(world: World, client: Client) -> None:
    at = datetime.fromtimestamp(world.now, UTC) + timedelta(days=40)
    world.expect_deactivation("fcauth_1", at, cause="institution_requirement")
    shown = client.get(f"{ACCOUNTS}/fca_1").json
    assert shown["status_details"]["active"] == {
        "action": "relink_required",
        "cause": "institution_requirement",
        "expected_deactivation_date": int(at.timestamp()),
    }
    world.advance(days=11)
    types = {event.type for event in world.events}
    assert "financial_connections.account.upcoming_deactivation" in types
    assert "financial_connections.authorization.upcoming_deactivation" in types
    world.advance(days=28)
    assert client.get(f"{ACCOUNTS}/fca_1").json["status"] == "active"
    world.advance(days=1)
    assert client.get(f"{ACCOUNTS}/fca_1").json["status_details"]["inactive"]["cause"] == "institution_requirement"


def test_withdrawn_expectation_does_not_happen(world: World, client: Client) -> None:
    world.expect_deactivation("fcauth_1", datetime.fromtimestamp(world.now, UTC) + timedelta(days=3))
    world.withdraw_expectation("fcauth_1")
    world.advance(days=5)
    assert client.get(f"{ACCOUNTS}/fca_1").json["status"] == "active"


def test_expanded_fields(world: World, client: Client) -> None:
    params = [("expand[]", "account_holder.customer"), ("expand[]", "institution")]
    shown = client.get(f"{ACCOUNTS}/fca_1", params).json
    assert shown["account_holder"]["customer"]["email"] in world.secrets_issued
    assert shown["institution"]["name"] == "Alderbrook Mutual"


def test_overridden_fields_reach_the_wire(world: World, client: Client) -> None:
    world.override("fca_1", {"status": "frozen", "account_holder": None})
    shown = client.get(f"{ACCOUNTS}/fca_1").json
    assert (shown["status"], shown["account_holder"]) == ("frozen", None)


def test_refresh_takes_effect_later_and_needs_an_active_account(world: World, client: Client) -> None:
    world.advance(hours=2)
    answer = client.post(f"{ACCOUNTS}/fca_1/refresh", {"features[0]": "balance"}).json
    assert answer["balance_refresh"]["status"] == "pending"
    world.advance(seconds=61)
    after = client.get(f"{ACCOUNTS}/fca_1").json["balance_refresh"]
    assert after["status"] == "succeeded"
    assert world.events[-1].type == "financial_connections.account.refreshed_balance"
    world.break_account("fca_1")
    refused = client.post(f"{ACCOUNTS}/fca_1/refresh", {"features[0]": "balance"})
    assert refused.error["code"] == "financial_connections_account_inactive"
    assert client.get(f"{ACCOUNTS}/fca_1").json["balance_refresh"]["status"] == "failed"


def test_a_refresh_is_refused_while_one_is_pending_and_for_an_hour_after(world: World, client: Client) -> None:
    path, asked = f"{ACCOUNTS}/fca_1/refresh", {"features[0]": "balance"}
    assert client.post(path, asked).error["param"] == "features", "it was linked just now"
    world.advance(hours=2)
    world.accounts["fca_1"].refresh_fails = frozenset({"balance"})
    assert client.post(path, asked).json["balance_refresh"]["next_refresh_available_at"] is None
    assert client.post(path, asked).error["param"] == "features"
    world.advance(seconds=61)
    shown = client.get(f"{ACCOUNTS}/fca_1").json["balance_refresh"]
    assert (shown["status"], shown["next_refresh_available_at"]) == ("failed", shown["last_attempted_at"] + 3600)
    assert client.post(path, asked).error["param"] == "features"
    world.advance(hours=1)
    assert client.post(path, asked).json["balance_refresh"]["status"] == "pending"
    assert world.refreshes == [("fca_1", ("balance",))] * 2


def test_institutions(client: Client) -> None:
    found = {each["name"]: each for page in client.pages("/v1/financial_connections/institutions", {}) for each in page}
    assert found["Down (Scheduled)"]["status"] == "inactive"
    assert found["Invalid Payment Accounts"]["features"]["payment_method"]["supported"] is False
    one = found["Bank (OAuth)"]
    assert client.get(f"/v1/financial_connections/institutions/{one['id']}").json == one
