"""Faults, rate limits and keys as they look on the wire."""

from __future__ import annotations

import http.client
import json
import socket

import pytest

from jobs.simulator.failures import ApiFailure
from jobs.simulator.faults import KINDS, Faults
from jobs.simulator.limits import RateLimiter, RateLimits
from jobs.simulator.model import Authorization
from jobs.simulator.server import SimulatorServer
from jobs.simulator.world import World
from tests.jobs.simulator.client import ACCOUNTS, SESSIONS, Client, relink_params, wait_for


def test_rate_limit_says_why_and_lock_timeout_does_not(world: World, client: Client) -> None:
    world.faults.script("rate_limit", reason="global-rate", retry_after_seconds=7)
    limited = client.get(ACCOUNTS)
    assert (limited.status, limited.error["code"]) == (429, "rate_limit")
    assert limited.headers["Stripe-Rate-Limited-Reason"] == "global-rate"
    assert limited.headers["Retry-After"] == "7"
    assert "Request-Id" in limited.headers
    world.faults.script("lock_timeout")
    locked = client.get(ACCOUNTS)
    assert (locked.status, locked.error["code"]) == (429, "lock_timeout")
    assert "Stripe-Rate-Limited-Reason" not in locked.headers
    assert "Request-Id" not in locked.headers
    assert "request_log_url" not in locked.error


@pytest.mark.parametrize(("kind", "effects"), [("reset_before", 0), ("reset_after", 1)])
def test_reset_before_and_after_the_effect(
    world: World, authorization: Authorization, client: Client, kind: str, effects: int
) -> None:
    world.faults.script(kind, method="POST")
    with pytest.raises(ConnectionResetError):
        client.post(SESSIONS, relink_params(authorization), key="k")
    assert len(world.effects) == effects
    again = client.post(SESSIONS, relink_params(authorization), key="k")
    assert again.status == 200
    assert ("Idempotent-Replayed" in again.headers) == bool(effects)
    assert len(world.effects) == 1


def test_cut_body_declares_more_than_it_sends(world: World, authorization: Authorization, client: Client) -> None:
    world.faults.script("cut_body", method="POST")
    with pytest.raises(http.client.IncompleteRead):
        client.post(SESSIONS, relink_params(authorization), key="k")
    assert len(world.effects) == 1


@pytest.mark.parametrize("kind", ["cut_json", "not_json"])
def test_unreadable_success(world: World, authorization: Authorization, client: Client, kind: str) -> None:
    world.faults.script(kind, method="POST")
    answer = client.post(SESSIONS, relink_params(authorization), key="k")
    assert answer.status == 200
    with pytest.raises(json.JSONDecodeError):
        json.loads(answer.body)
    assert client.post(SESSIONS, relink_params(authorization), key="k").json["id"] == world.effects[0].session_id


@pytest.mark.parametrize(("kind", "effects"), [("hang_before", 0), ("hang_after", 1)])
def test_hang_ends_by_itself_or_when_released(
    world: World, authorization: Authorization, client: Client, kind: str, effects: int
) -> None:
    world.faults.script(kind, method="POST", seconds=0.05)
    with pytest.raises(http.client.RemoteDisconnected):
        client.post(SESSIONS, relink_params(authorization))
    assert len(world.effects) == effects


def test_closing_the_server_ends_hangs(world: World) -> None:
    world.faults.script("hang_before", seconds=600)
    server = SimulatorServer(world).start()
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=5)
    connection.sendall(
        b"GET " + ACCOUNTS.encode() + b" HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer rk_test_simulator\r\n\r\n"
    )
    wait_for(lambda: bool(world.faults.injected))
    server.close()
    assert connection.recv(100) == b""
    connection.close()


def test_odd_pages(world: World, client: Client) -> None:
    world.add_authorization(("customer", "cus_2"), accounts=10)
    clean = client.get(ACCOUNTS, {"limit": 5}).json
    cursor = {"limit": 5, "starting_after": clean["data"][-1]["id"]}

    def odd(kind: str) -> dict:
        world.faults.script(kind, path="*/accounts")
        return client.get(ACCOUNTS, cursor).json

    empty = odd("empty_page")
    assert (empty["data"], empty["has_more"]) == ([], True)
    assert odd("repeated_page") == clean
    ids = [each["id"] for each in odd("duplicate_id")["data"]]
    assert len(ids) == len(set(ids)) + 1
    assert all("authorization" not in each for each in odd("missing_authorization")["data"])
    assert [each["livemode"] for each in odd("wrong_livemode")["data"]].count(True) == 1
    assert client.get(ACCOUNTS, {"limit": 5}).json == clean


def test_script_order_skip_and_match(world: World, client: Client) -> None:
    world.faults.script("error_503", method="GET", path="*/accounts/fca_2", skip=1, times=2)
    assert [client.get(f"{ACCOUNTS}/fca_2").status for _ in range(4)] == [200, 503, 503, 200]
    world.faults.script("forbidden", method="POST")
    assert client.get(ACCOUNTS).status == 200
    assert [call.fault for call in world.log].count("error_503") == 2


def test_random_faults_depend_on_the_call_and_the_seed_alone() -> None:
    calls = [("GET", ACCOUNTS, f"after={n}") for n in range(200)]

    def drawn(seed: int, order: int) -> dict[str, str | None]:
        faults = Faults(seed)
        faults.at_random(0.2, ["rate_limit", "error_503"])
        found = {}
        for method, path, identity in calls[::order]:
            fault = faults.take(method, path, identity)
            found[identity] = None if fault is None else fault.kind
        return found

    forward = drawn(1, 1)
    assert forward == drawn(1, -1)
    assert forward != drawn(2, 1)
    hit = [kind for kind in forward.values() if kind]
    assert 15 <= len(hit) <= 70
    assert set(hit) == {"rate_limit", "error_503"}


def test_unknown_fault_is_refused() -> None:
    with pytest.raises(ValueError, match="known are"):
        Faults(1).script("explode")
    assert len(KINDS) == len(set(KINDS))


def test_redirect_names_where(world: World, client: Client) -> None:
    world.faults.script("redirect", location="http://elsewhere.example/")
    answer = client.get(ACCOUNTS)
    assert (answer.status, answer.headers["Location"]) == (307, "http://elsewhere.example/")


def test_buckets_refill_with_time_and_name_what_is_full() -> None:
    now = [0.0]
    limiter = RateLimiter(RateLimits(overall_per_second=10, endpoint_per_second=4), lambda: now[0])

    def admitted(endpoint: str, calls: int) -> tuple[int, set[tuple[int, str | None]]]:
        count, reasons = 0, set()
        for _ in range(calls):
            try:
                limiter.admit(endpoint)
                count += 1
            except ApiFailure as failure:
                reasons.add((failure.status, failure.reason))
        return count, reasons

    assert admitted("accounts.list", 6) == (4, {(429, "endpoint-rate")})
    assert admitted("sessions.create", 6) == (4, {(429, "global-rate")})
    now[0] = 0.5
    assert admitted("accounts.list", 3) == (2, {(429, "endpoint-rate")})
    for tick in range(1, 41):
        now[0] = 0.5 + tick * 0.25
        assert admitted("accounts.list", 2)[0] == 1
    now[0] = 100.0
    assert admitted("accounts.list", 5) == (4, {(429, "endpoint-rate")})


def test_modes_have_stripes_limits() -> None:
    assert RateLimits.of_mode(True) == RateLimits(100.0, 25.0)
    assert RateLimits.of_mode(False) == RateLimits(25.0, 25.0)


def test_server_enforces_limits_and_stores_nothing(world: World, authorization: Authorization) -> None:
    with SimulatorServer(world, rate_limits=RateLimits(0.001, 0.001)) as server:
        client = Client(server.port)
        assert client.get(ACCOUNTS).status == 200
        refused = client.post(SESSIONS, relink_params(authorization), key="k")
        assert (refused.status, refused.headers["Stripe-Rate-Limited-Reason"]) == (429, "global-rate")
    assert world.effects == []


def test_keys(world: World, client: Client) -> None:
    assert client.get("/v1/customers", {"limit": 1}).status == 403
    assert client.get("/v1/charges", {"limit": 1}).status == 403
    world.add_key("sk_test_everything")
    client.key = "sk_test_everything"
    assert client.get("/v1/customers", {"limit": 1}).json["data"] == []
    client.key = "rk_test_unknown_key_12345"
    unknown = client.get(ACCOUNTS)
    assert (unknown.status, unknown.error["type"]) == (401, "invalid_request_error")
    assert "rk_test_unknown_key_12345" not in unknown.body.decode()
    client.key = "rk_live_simulator"
    assert client.get(ACCOUNTS).status == 401
    client.key = "rk_test_simulator"
    world.revoke_key("rk_test_simulator")
    assert client.get(ACCOUNTS).status == 401


def test_a_key_may_lack_an_endpoint(world: World, authorization: Authorization, client: Client) -> None:
    world.add_key("rk_test_readonly", denied=["sessions.create"])
    client.key = "rk_test_readonly"
    assert client.get(ACCOUNTS).status == 200
    assert client.post(SESSIONS, relink_params(authorization)).status == 403


def test_keys_must_be_of_the_worlds_mode() -> None:
    with pytest.raises(ValueError, match="rk_test_"):
        World.empty(api_keys=["rk_live_x"])


def test_basic_auth_and_no_auth(client: Client) -> None:
    basic = {"Authorization": "Basic cmtfdGVzdF9zaW11bGF0b3I6"}
    assert client.send("GET", ACCOUNTS, None, basic).status == 200
    assert client.send("GET", ACCOUNTS, None, {"Authorization": ""}).status == 401


def test_live_world_is_live_throughout() -> None:
    world = World.generate(200, seed=2, livemode=True)
    with SimulatorServer(world) as server:
        client = Client(server.port, key="rk_live_simulator")
        data = client.get(ACCOUNTS, {"limit": 100}).json["data"]
    assert {each["livemode"] for each in data} == {True}
    assert not {each["institution_name"] for each in data} & {"Inactive Accounts", "Bank (OAuth)", "Test Institution"}


def test_unknown_urls_and_foreign_stripe_accounts(world: World, client: Client) -> None:
    assert client.get("/v1/financial_connections/nothing").status == 404
    assert client.send("DELETE", f"{ACCOUNTS}/fca_1").status == 404
    assert client.get(ACCOUNTS, None, **{"Stripe-Account": world.stripe_account}).status == 200
    assert client.get(ACCOUNTS, None, **{"Stripe-Account": "acct_other"}).status == 403


def test_one_server_for_several_stripe_accounts(world: World) -> None:
    other = World.empty(api_keys=["rk_test_other"], stripe_account="acct_other")
    other.add_authorization(accounts=[{"account_id": "fca_other"}])
    with SimulatorServer(world, other_worlds=[other]) as server:
        assert Client(server.port).get(f"{ACCOUNTS}/fca_other").status == 404
        assert Client(server.port, key="rk_test_other").get(f"{ACCOUNTS}/fca_other").status == 200


def test_log_and_counts_hold_no_secret(world: World, authorization: Authorization, client: Client) -> None:
    client.post(SESSIONS, relink_params(authorization), key="k")
    client.get(f"{SESSIONS}/{world.effects[0].session_id}", {"expand[]": "x"})
    assert world.calls == {"sessions.create": 1, "sessions.retrieve": 1}
    created = world.log[0]
    assert (created.method, created.path, created.idempotency_key, created.status) == ("POST", SESSIONS, "k", 200)
    assert (created.api_version, created.at) == ("2026-09-30.preview", world.now)
    text = repr(world.log)
    assert not [secret for secret in world.secrets_issued if secret in text]


def test_date_header_is_simulated(world: World, client: Client) -> None:
    assert client.get(ACCOUNTS).headers["Date"] == "Mon, 02 Nov 2026 03:00:00 GMT"
    world.advance(days=1)
    assert client.get(ACCOUNTS).headers["Date"] == "Tue, 03 Nov 2026 03:00:00 GMT"
