"""The `stripe` package as the client, unchanged: its stable types, and preview versions through raw requests."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
import stripe

from jobs.simulator.model import Authorization
from jobs.simulator.server import SimulatorServer
from jobs.simulator.world import World
from tests.jobs.simulator.client import ACCOUNTS, PREVIEW, SESSIONS


@pytest.fixture
def sdk(server: SimulatorServer) -> stripe.StripeClient:
    return stripe.StripeClient("rk_test_simulator", base_addresses={"api": server.base_url}, max_network_retries=0)


def preview(sdk: stripe.StripeClient, method: str, path: str, **params: Any) -> dict[str, Any]:
    return json.loads(sdk.raw_request(method, path, stripe_version=PREVIEW, **params).body)


def test_typed_listing_at_the_stable_version(world: World, sdk: stripe.StripeClient) -> None:
    world.add_authorization(("customer", "cus_2"), accounts=25)
    found = list(sdk.v1.financial_connections.accounts.list({"limit": 10}).auto_paging_iter())
    assert [account.id for account in found] == [account.id for account in reversed(world.listing)]
    assert not hasattr(found[0], "authorization")
    assert world.log[-1].api_version == stripe.api_version


def test_typed_retrieval_and_event_types(world: World, sdk: stripe.StripeClient) -> None:
    world.break_account("fca_1")
    account = sdk.v1.financial_connections.accounts.retrieve("fca_1")
    assert account.status == "inactive"
    event = sdk.v1.events.list({"types": ["financial_connections.account.deactivated"]}).data[0]
    assert event.data.object.id == "fca_1"


def test_typed_session_without_relink(world: World, sdk: stripe.StripeClient) -> None:
    session = sdk.v1.financial_connections.sessions.create(
        {"account_holder": {"type": "customer", "customer": "cus_1"}, "permissions": ["balances"]}
    )
    assert session.client_secret in world.secrets_issued
    assert sdk.v1.financial_connections.sessions.retrieve(session.id).permissions == ["balances"]


def test_relink_through_raw_requests(world: World, authorization: Authorization, sdk: stripe.StripeClient) -> None:
    world.break_authorization("fcauth_1")
    shown = preview(sdk, "get", f"{ACCOUNTS}/fca_1")
    session = preview(
        sdk,
        "post",
        SESSIONS,
        account_holder=shown["account_holder"],
        permissions=["balances", "ownership"],
        relink_options={"authorization": shown["authorization"]},
        limits={"accounts": ""},
        idempotency_key="key-1",
    )
    assert session["status"] == "pending"
    assert world.effects[0].idempotency_key == "key-1"
    world.answer(session["id"], "whole")
    read = preview(sdk, "get", f"{SESSIONS}/{session['id']}")
    assert read["relink_result"]["authorization"] == "fcauth_1"
    assert {account["status"] for account in read["accounts"]["data"]} == {"active"}


def test_stable_version_refuses_relink_options(authorization: Authorization, sdk: stripe.StripeClient) -> None:
    with pytest.raises(stripe.InvalidRequestError) as caught:
        sdk.raw_request(
            "post",
            SESSIONS,
            account_holder={"type": "customer", "customer": "cus_1"},
            permissions=["balances"],
            relink_options={"authorization": "fcauth_1"},
        )
    assert (caught.value.code, caught.value.param) == ("parameter_unknown", "relink_options")
    assert caught.value.request_id.startswith("req_")


@pytest.mark.parametrize(
    ("kind", "error", "code"),
    [
        ("rate_limit", stripe.RateLimitError, "rate_limit"),
        ("lock_timeout", stripe.RateLimitError, "lock_timeout"),
        ("error_500_before", stripe.APIError, None),
        ("error_503", stripe.APIError, None),
        ("unauthorized", stripe.AuthenticationError, None),
        ("forbidden", stripe.PermissionError, None),
        ("reset_before", stripe.APIConnectionError, None),
        ("cut_body", stripe.APIConnectionError, None),
        ("cut_json", stripe.APIError, None),
    ],
)
def test_faults_become_the_sdks_errors(
    world: World, sdk: stripe.StripeClient, kind: str, error: type[stripe.StripeError], code: str | None
) -> None:
    world.faults.script(kind)
    with pytest.raises(error) as caught:
        sdk.v1.financial_connections.accounts.retrieve("fca_1")
    if code is not None:
        assert caught.value.error.code == code


def test_key_mismatch_and_unknown_key(server: SimulatorServer, sdk: stripe.StripeClient) -> None:
    options = {"idempotency_key": "same"}
    holder = {"type": "customer", "customer": "cus_1"}
    sdk.v1.financial_connections.sessions.create({"account_holder": holder, "permissions": ["balances"]}, options)
    with pytest.raises(stripe.IdempotencyError):
        sdk.v1.financial_connections.sessions.create({"account_holder": holder, "permissions": ["ownership"]}, options)
    stranger = stripe.StripeClient("rk_test_stranger", base_addresses={"api": server.base_url})
    with pytest.raises(stripe.AuthenticationError):
        stranger.v1.financial_connections.accounts.list()
    with pytest.raises(stripe.PermissionError):
        sdk.v1.customers.list({"limit": 1})


def test_the_bare_sdk_leaks_what_the_world_issued(
    world: World, sdk: stripe.StripeClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, logger="stripe"):
        sdk.v1.financial_connections.sessions.create(
            {"account_holder": {"type": "customer", "customer": "cus_1"}, "permissions": ["balances"]}
        )
    assert [secret for secret in world.secrets_issued if secret in caplog.text]
