"""Creating and reading sessions: every refusal, and what the two kinds of API version show."""

from __future__ import annotations

import pytest

from jobs.simulator.model import Authorization
from jobs.simulator.world import World
from tests.jobs.simulator.client import SESSIONS, STABLE, Client, relink_params

HOSTED = {"ui_mode": "hosted", "hosted[delivery_method]": "email"}

REFUSALS = [
    # changed or removed parameters (None removes), param of the error, code of the error
    ({"permissions[0]": None, "permissions[1]": None}, "permissions", "parameter_missing"),
    ({"permissions[1]": "identity"}, "permissions[1]", None),
    ({"permissions[1]": "balances"}, "permissions", None),
    ({"account_holder[type]": None}, "account_holder[type]", "parameter_missing"),
    ({"account_holder[type]": "person"}, "account_holder[type]", None),
    ({"account_holder[type]": "account"}, "account_holder[customer]", None),
    ({"account_holder[customer]": None}, "account_holder[customer]", "parameter_missing"),
    ({"account_holder[customer]": "cus_404"}, "account_holder[customer]", "resource_missing"),
    ({"account_holder[customer]": "cus_2"}, "account_holder", None),
    ({"account_holder[account]": "acct_1"}, "account_holder[account]", None),
    ({"relink_options[authorization]": "fca_1"}, "relink_options[authorization]", "resource_missing"),
    ({"relink_options[authorization]": ""}, "relink_options[authorization]", "parameter_invalid_empty"),
    ({"relink_options[authorization]": "fcauth_live"}, "relink_options[authorization]", "livemode_mismatch"),
    ({"relink_options[account]": "fca_other"}, "relink_options[account]", None),
    ({"relink_options[account]": "fca_404"}, "relink_options[account]", "resource_missing"),
    ({"relink_options[reason]": "x"}, "relink_options[reason]", "parameter_unknown"),
    ({"limits[accounts]": "0"}, "limits[accounts]", "parameter_invalid_integer"),
    ({"limits[accounts]": "-1"}, "limits[accounts]", "parameter_invalid_integer"),
    ({"limits[accounts]": "one"}, "limits[accounts]", "parameter_invalid_integer"),
    ({"filters[account_subcategories][0]": "gold"}, "filters[account_subcategories][0]", None),
    ({"filters[institution]": "fcinst_404"}, "filters[institution]", "resource_missing"),
    ({"prefetch[0]": "payment_method"}, "prefetch[0]", None),
    ({"manual_entry[mode]": "always"}, "manual_entry[mode]", None),
    ({"return_url": "ftp://x"}, "return_url", "url_invalid"),
    ({"ui_mode": "popup"}, "ui_mode", None),
    ({"ui_mode": "hosted"}, "hosted[delivery_method]", "parameter_missing"),
    (HOSTED | {"hosted[delivery_method]": "sms"}, "hosted[delivery_method]", None),
    (HOSTED | {"hosted[return_url]": "https://x.example"}, "hosted[return_url]", "parameter_unknown"),
    (HOSTED | {"relink_options[authorization]": None}, "hosted[delivery_method]", None),
    ({"hosted[delivery_method]": "url"}, "hosted", None),
    ({"metadata[a]": "b"}, "metadata", "parameter_unknown"),
    ({"permission": "balances"}, "permission", "parameter_unknown"),
]


@pytest.mark.parametrize(("change", "param", "code"), REFUSALS)
def test_what_stripe_refuses_is_refused_and_creates_nothing(
    world: World, authorization: Authorization, client: Client, change: dict, param: str, code: str | None
) -> None:
    world.add_authorization(("customer", "cus_2"), accounts=[{"account_id": "fca_other"}])
    world.add_other_mode_id("fcauth_live")
    params = relink_params(authorization, "balances", "transactions") | change
    answer = client.post(SESSIONS, {name: value for name, value in params.items() if value is not None}, key="k1")
    assert (answer.status, answer.error.get("param"), answer.error.get("code")) == (400, param, code)
    assert answer.error["type"] == "invalid_request_error"
    assert world.effects == []
    # Nothing was executed, so the key is free for the corrected request.
    assert client.post(SESSIONS, relink_params(authorization), key="k1").status == 200


def test_deleted_customer_is_refused_by_name(world: World, authorization: Authorization, client: Client) -> None:
    world.delete_customer("cus_1")
    answer = client.post(SESSIONS, relink_params(authorization))
    assert (answer.status, answer.error["code"]) == (400, "resource_missing")
    assert "kim.doe@customer.example" in answer.error["message"]
    assert "kim.doe@customer.example" in world.secrets_issued


def test_authorizations_that_cannot_come_back_are_refused(
    world: World, authorization: Authorization, client: Client
) -> None:
    world.break_authorization("fcauth_1", cause="access_denied", action="none")
    assert client.post(SESSIONS, relink_params(authorization)).status == 400
    world.heal_authorization("fcauth_1")
    assert client.post(SESSIONS, relink_params(authorization)).status == 200
    world.disconnect_authorization("fcauth_1")
    assert client.post(SESSIONS, relink_params(authorization)).status == 400


def test_account_scoped_session_for_a_closed_account_is_refused(
    world: World, authorization: Authorization, client: Client
) -> None:
    params = relink_params(authorization, **{"relink_options[account]": "fca_2", "limits[accounts]": "1"})
    assert client.post(SESSIONS, params).json["relink_options"] == {"authorization": "fcauth_1", "account": "fca_2"}
    world.break_account("fca_2", cause="account_closed", action="none")
    assert client.post(SESSIONS, params).error["param"] == "relink_options[account]"


def test_stable_version_knows_no_relink(world: World, authorization: Authorization, client: Client) -> None:
    client.version = STABLE
    answer = client.post(SESSIONS, relink_params(authorization))
    assert (answer.error["code"], answer.error["param"]) == ("parameter_unknown", "relink_options")
    fresh = relink_params(authorization)
    del fresh["relink_options[authorization]"]
    session = client.post(SESSIONS, fresh).json
    assert not {"status", "relink_result", "relink_options", "ui_mode", "created", "metadata"} & session.keys()


def test_session_shows_its_secret_at_creation_and_retrieval(
    world: World, authorization: Authorization, client: Client
) -> None:
    made = client.post(SESSIONS, relink_params(authorization, "transactions", "balances")).json
    read = client.get(f"{SESSIONS}/{made['id']}").json
    assert made == read
    assert made["client_secret"] in world.secrets_issued
    assert made["status"] == "pending"
    assert made["relink_result"] is None
    assert made["account_holder"] == {"customer": "cus_1", "type": "customer"}
    assert made["permissions"] == ["balances", "transactions"]


def test_hosted_session_has_a_url_while_pending_and_no_secret(
    world: World, authorization: Authorization, client: Client
) -> None:
    made = client.post(SESSIONS, relink_params(authorization) | HOSTED).json
    assert "client_secret" not in made
    assert made["url"] in world.secrets_issued
    assert made["hosted"]["delivery_method"] == "email"
    world.answer(made["id"], "cancelled")
    read = client.get(f"{SESSIONS}/{made['id']}").json
    assert "url" not in read
    assert read["status_details"] == {"cancelled": {"reason": "other"}}


def test_hosted_email_needs_an_address_on_file(world: World, authorization: Authorization, client: Client) -> None:
    world.set_email("cus_1", None)
    assert client.post(SESSIONS, relink_params(authorization) | HOSTED).status == 400
    by_url = HOSTED | {"hosted[delivery_method]": "url"}
    assert client.post(SESSIONS, relink_params(authorization) | by_url).status == 200


def test_embedded_accounts_are_a_list_of_ten_and_the_rest_is_paged(world: World, client: Client) -> None:
    large = world.add_authorization(("customer", "cus_1"), accounts=23)
    session = client.post(SESSIONS, relink_params(large)).json
    world.answer(session["id"], "whole")
    read = client.get(f"{SESSIONS}/{session['id']}").json
    assert (len(read["accounts"]["data"]), read["accounts"]["has_more"]) == (10, True)
    paged = [
        account["id"]
        for page in client.pages("/v1/financial_connections/accounts", {"session": session["id"], "limit": 7})
        for account in page
    ]
    assert paged == [account.id for account in reversed(large.accounts)]
    assert paged[:10] == [account["id"] for account in read["accounts"]["data"]]


def test_holder_of_each_kind_must_match(world: World, client: Client) -> None:
    for kind, holder_id in (("account", "acct_9"), ("customer_account", "acct_v2")):
        authorization = world.add_authorization((kind, holder_id))
        assert client.post(SESSIONS, relink_params(authorization)).json["account_holder"] == {
            kind: holder_id,
            "type": "account" if kind == "account" else "customer",
        }
        wrong = relink_params(authorization)
        del wrong[f"account_holder[{kind}]"]
        assert client.post(SESSIONS, wrong | {"account_holder[customer]": holder_id}).status == 400


def test_json_bodies_are_refused(client: Client) -> None:
    answer = client.send("POST", SESSIONS, b"{}", {"Content-Type": "application/json"})
    assert answer.status == 400


def test_missing_session_is_404(client: Client) -> None:
    answer = client.get(f"{SESSIONS}/fcsess_404")
    assert (answer.status, answer.error["code"]) == (404, "resource_missing")
