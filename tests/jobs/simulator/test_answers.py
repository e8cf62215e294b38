"""What each answer of a customer does to sessions, accounts and authorizations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import pytest

from jobs.simulator.api import respond
from jobs.simulator.behaviour import Behaviour
from jobs.simulator.limits import RateLimiter
from jobs.simulator.model import Authorization
from jobs.simulator.reply import Call
from jobs.simulator.world import World
from tests.jobs.simulator.client import ACCOUNTS, SESSIONS, Client, relink_params


def start(client: Client, authorization: Authorization, *permissions: str, **more: str) -> str:
    return client.post(SESSIONS, relink_params(authorization, *permissions, **more)).json["id"]


def read(client: Client, session_id: str) -> dict[str, Any]:
    return client.get(f"{SESSIONS}/{session_id}").json


def statuses(client: Client) -> dict[str, str]:
    return {each["id"]: each["status"] for each in client.get(ACCOUNTS, {"limit": 100}).json["data"]}


def test_whole_brings_everything_back_with_the_asked_permissions(
    world: World, authorization: Authorization, client: Client
) -> None:
    world.break_authorization("fcauth_1")
    session_id = start(client, authorization, "balances", "ownership")
    world.answer(session_id, "whole")
    session = read(client, session_id)
    assert session["status"] == "succeeded"
    assert session["relink_result"]["authorization"] == "fcauth_1"
    assert [each["id"] for each in session["accounts"]["data"]] == ["fca_3", "fca_2", "fca_1"]
    assert set(statuses(client).values()) == {"active"}
    assert client.get(f"{ACCOUNTS}/fca_2").json["permissions"] == ["balances", "ownership"]
    assert client.get("/v1/financial_connections/authorizations/fcauth_1").json["status_details"] == {}
    reactivated = [event.object_id for event in world.events if event.type.endswith("account.reactivated")]
    assert sorted(reactivated) == ["fca_1", "fca_2", "fca_3"]


def test_partial_leaves_the_others_inactive(world: World, authorization: Authorization, client: Client) -> None:
    world.break_authorization("fcauth_1")
    session_id = start(client, authorization)
    world.answer(session_id, "partial", accounts=["fca_2"])
    assert statuses(client) == {"fca_1": "inactive", "fca_2": "active", "fca_3": "inactive"}
    session = read(client, session_id)
    assert session["relink_result"]["authorization"] == "fcauth_1"
    assert [each["id"] for each in session["accounts"]["data"]] == ["fca_2"]


@pytest.mark.parametrize("seed", range(6))
def test_drawn_partial_is_a_real_part(seed: int) -> None:
    world = World.empty(seed=seed)
    authorization = world.add_authorization(accounts=4)
    world.break_authorization(authorization.id)
    body = urlencode(relink_params(authorization)).encode()
    headers = {"authorization": "Bearer rk_test_simulator", "stripe-version": "2026-09-30.preview"}
    respond(world, RateLimiter(None), Call("POST", SESSIONS, "", body, headers))
    world.answer(next(iter(world.sessions)), "partial")
    back = [account for account in authorization.accounts if account.status == "active"]
    assert 1 <= len(back) <= 3


@pytest.mark.parametrize("old_disconnected", [True, False])
def test_new_authorization_with_new_ids(
    world: World, authorization: Authorization, client: Client, old_disconnected: bool
) -> None:
    world.break_authorization("fcauth_1")
    session_id = start(client, authorization)
    world.answer(session_id, "new_authorization", keep_account_ids=False, old_disconnected=old_disconnected)
    session = read(client, session_id)
    new_id = session["relink_result"]["authorization"]
    assert new_id != "fcauth_1"
    found = {each["id"]: each for each in client.get(ACCOUNTS, {"limit": 100}).json["data"]}
    assert len(found) == 6
    successors = [each for each in found.values() if each["authorization"] == new_id]
    key = ("last4", "subcategory", "institution_name", "account_holder")
    old = [found[each] for each in ("fca_1", "fca_2", "fca_3")]
    assert sorted(str([each[name] for name in key]) for each in successors) == sorted(
        str([each[name] for name in key]) for each in old
    )
    assert {each["status"] for each in old} == {"disconnected" if old_disconnected else "inactive"}
    assert sorted(each["id"] for each in session["accounts"]["data"]) == sorted(each["id"] for each in successors)


def test_new_authorization_that_keeps_ids(world: World, authorization: Authorization, client: Client) -> None:
    world.break_authorization("fcauth_1")
    session_id = start(client, authorization)
    world.answer(session_id, "new_authorization", keep_account_ids=True, old_disconnected=True)
    new_id = read(client, session_id)["relink_result"]["authorization"]
    found = client.get(ACCOUNTS).json["data"]
    assert {(each["id"], each["authorization"], each["status"]) for each in found} == {
        (name, new_id, "active") for name in ("fca_1", "fca_2", "fca_3")
    }
    old = client.get("/v1/financial_connections/authorizations/fcauth_1").json
    assert old["status"] == "disconnected"


def test_ambiguous_successors_share_their_attributes(
    world: World, authorization: Authorization, client: Client
) -> None:
    session_id = start(client, authorization)
    world.answer(session_id, "new_authorization", keep_account_ids=False, ambiguous=True)
    accounts = read(client, session_id)["accounts"]["data"]
    assert len(accounts) == 6
    assert len({(each["last4"], each["subcategory"]) for each in accounts}) == 3


@pytest.mark.parametrize(
    ("how", "status", "reason"),
    [
        ("no_account", "succeeded", "no_account"),
        ("no_authorization", "failed", "no_authorization"),
        ("other", "failed", "other"),
        ("failed", "failed", None),
        ("cancelled", "cancelled", None),
        ("succeeded_without_result", "succeeded", None),
        ("never", "pending", None),
    ],
)
def test_answers_that_repair_nothing(
    world: World, authorization: Authorization, client: Client, how: str, status: str, reason: str | None
) -> None:
    world.break_authorization("fcauth_1")
    session_id = start(client, authorization)
    world.answer(session_id, how)
    session = read(client, session_id)
    assert session["status"] == status
    assert session["relink_result"] == (None if reason is None else {"authorization": None, "failure_reason": reason})
    assert session["accounts"]["data"] == []
    assert set(statuses(client).values()) == {"inactive"}


def test_lagging_success(world: World, authorization: Authorization, client: Client) -> None:
    world.break_authorization("fcauth_1")
    session_id = start(client, authorization)
    world.answer(session_id, "whole", lag_seconds=3600)
    assert read(client, session_id)["relink_result"]["authorization"] == "fcauth_1"
    assert set(statuses(client).values()) == {"inactive"}
    world.advance(hours=1)
    assert set(statuses(client).values()) == {"active"}


def test_lagging_success_does_not_undo_a_disconnection(
    world: World, authorization: Authorization, client: Client
) -> None:
    world.break_authorization("fcauth_1")
    world.answer(start(client, authorization), "whole", lag_seconds=3600)
    world.disconnect_account("fca_1")
    world.advance(hours=1)
    assert statuses(client) == {"fca_1": "disconnected", "fca_2": "active", "fca_3": "active"}


def test_only_relinkable_accounts_of_the_authorization_can_be_chosen(
    world: World, authorization: Authorization, client: Client
) -> None:
    world.add_authorization(("customer", "cus_2"), accounts=[{"account_id": "fca_foreign"}])
    world.disconnect_account("fca_2")
    session_id = start(client, authorization)
    for account_id in ("fca_2", "fca_foreign"):
        with pytest.raises(ValueError, match=account_id):
            world.answer(session_id, "partial", accounts=[account_id])
    assert read(client, session_id)["status"] == "pending"


def test_closed_and_disconnected_accounts_do_not_come_back(
    world: World, authorization: Authorization, client: Client
) -> None:
    world.break_account("fca_1", cause="account_closed", action="none")
    world.disconnect_account("fca_2")
    world.break_account("fca_3")
    session_id = start(client, authorization)
    world.answer(session_id, "whole")
    assert statuses(client) == {"fca_1": "inactive", "fca_2": "disconnected", "fca_3": "active"}


def test_account_scope_and_subcategory_filter_bound_the_choice(
    world: World, authorization: Authorization, client: Client
) -> None:
    world.break_authorization("fcauth_1")
    scoped = start(client, authorization, **{"relink_options[account]": "fca_1", "limits[accounts]": "1"})
    world.behaviour = replace(Behaviour.quiet(), sibling_reactivated_share=0.0)
    world.answer(scoped, "whole")
    assert read(client, scoped)["relink_result"]["account"] == "fca_1"
    assert statuses(client) == {"fca_1": "active", "fca_2": "inactive", "fca_3": "inactive"}
    narrowed = start(client, authorization, **{"filters[account_subcategories][0]": "savings"})
    world.answer(narrowed, "whole")
    assert statuses(client) == {"fca_1": "active", "fca_2": "active", "fca_3": "inactive"}


def test_siblings_may_come_back_with_one_account(world: World, authorization: Authorization, client: Client) -> None:
    world.behaviour = replace(Behaviour.quiet(), sibling_reactivated_share=1.0)
    world.break_authorization("fcauth_1")
    session_id = start(client, authorization, "balances", **{"relink_options[account]": "fca_1"})
    world.answer(session_id, "whole")
    assert set(statuses(client).values()) == {"active"}
    assert [each["id"] for each in read(client, session_id)["accounts"]["data"]] == ["fca_1"]
    assert client.get(f"{ACCOUNTS}/fca_2").json["permissions"] == ["balances", "transactions"]


def test_relink_renews_a_tokenized_number(world: World, client: Client) -> None:
    authorization = world.add_authorization(
        ("customer", "cus_2"), "Tokenized Account Number", [{"account_id": "fca_t"}]
    )
    before = client.get(f"{ACCOUNTS}/fca_t").json["account_numbers"]
    assert [each["status"] for each in before] == ["transactable"]
    world.expire_number("fca_t")
    world.advance(days=2)
    world.answer(start(client, authorization), "whole")
    after = client.get(f"{ACCOUNTS}/fca_t").json["account_numbers"]
    assert [each["status"] for each in after] == ["transactable", "expired"]
    assert after[0]["identifier_type"] == "tokenized_account_number"


def test_number_expires_in_its_time_with_a_warning(world: World, client: Client) -> None:
    expires_at = world.now_at.replace(year=2027)
    world.add_account(
        "fcauth_1", account_id="fca_t", numbers=[("tokenized_account_number", "transactable", expires_at)]
    )
    world.advance_to(expires_at.replace(month=expires_at.month - 1, day=28))
    assert client.get(f"{ACCOUNTS}/fca_t").json["account_numbers"][0]["status"] == "transactable"
    assert world.events[-1].type == "financial_connections.account.upcoming_account_number_expiry"
    world.advance_to(expires_at)
    assert client.get(f"{ACCOUNTS}/fca_t").json["account_numbers"][0]["status"] == "expired"
    assert world.events[-1].type == "financial_connections.account.account_numbers_updated"


def test_relink_clears_an_announced_deactivation(world: World, authorization: Authorization, client: Client) -> None:
    world.expect_deactivation("fcauth_1", world.now_at.replace(day=20))
    world.answer(start(client, authorization), "whole")
    world.advance(days=60)
    assert set(statuses(client).values()) == {"active"}


@pytest.mark.parametrize(
    ("bank", "days"), [("Immediately Requires Reauthentication", 1), ("Reauthentication Required Eventually", 30)]
)
def test_reauthentication_banks_announce_the_next_end(world: World, client: Client, bank: str, days: int) -> None:
    authorization = world.add_authorization(("customer", "cus_2"), bank, [{"account_id": "fca_r"}])
    world.break_authorization(authorization.id)
    world.answer(start(client, authorization), "whole")
    shown = client.get(f"{ACCOUNTS}/fca_r").json["status_details"]["active"]
    assert shown["expected_deactivation_date"] == world.now + days * 86_400
    world.advance(days=days)
    assert client.get(f"{ACCOUNTS}/fca_r").json["status"] == "inactive"


def test_bank_that_is_down_lets_nobody_in(world: World, client: Client) -> None:
    authorization = world.add_authorization(("customer", "cus_2"), "Down (Error)")
    session_id = start(client, authorization)
    world.answer(session_id, "whole")
    assert read(client, session_id)["relink_result"]["failure_reason"] == "other"


def test_an_answered_session_cannot_be_answered_again(
    world: World, authorization: Authorization, client: Client
) -> None:
    session_id = start(client, authorization)
    world.answer(session_id, "cancelled")
    with pytest.raises(ValueError, match="only a pending one"):
        world.answer(session_id, "whole")
