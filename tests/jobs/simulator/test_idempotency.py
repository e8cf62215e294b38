"""Idempotency keys: replay, mismatch, conflict, what is stored, and when it is forgotten."""

from __future__ import annotations

import threading

import pytest

from jobs.simulator.model import Authorization
from jobs.simulator.server import SimulatorServer
from jobs.simulator.world import World
from tests.jobs.simulator.client import SESSIONS, Answer, Client, relink_params, wait_for


def test_replay_returns_the_first_body_and_creates_nothing(
    world: World, authorization: Authorization, client: Client
) -> None:
    first = client.post(SESSIONS, relink_params(authorization), key="k")
    world.answer(first.json["id"], "whole")
    world.advance(hours=23)
    again = client.post(SESSIONS, relink_params(authorization), key="k")
    assert again.body == first.body
    assert again.json["status"] == "pending"
    assert again.headers["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Original-Request"] == first.headers["Request-Id"] != again.headers["Request-Id"]
    assert again.headers["Idempotency-Key"] == "k"
    assert len(world.effects) == 1
    assert world.contacts_by_authorization() == {"fcauth_1": 1}


def test_pruned_key_creates_anew(world: World, authorization: Authorization, client: Client) -> None:
    first = client.post(SESSIONS, relink_params(authorization), key="k").json
    world.advance(hours=24)
    second = client.post(SESSIONS, relink_params(authorization), key="k").json
    assert first["id"] != second["id"]
    assert [effect.idempotency_key for effect in world.effects] == ["k", "k"]


def test_other_parameters_under_a_used_key(world: World, authorization: Authorization, client: Client) -> None:
    client.post(SESSIONS, relink_params(authorization, "balances"), key="k")
    answer = client.post(SESSIONS, relink_params(authorization, "transactions"), key="k")
    assert (answer.status, answer.error["type"]) == (400, "idempotency_error")
    assert len(world.effects) == 1


def test_order_and_spelling_of_lists_do_not_matter(world: World, authorization: Authorization, client: Client) -> None:
    params = relink_params(authorization, "balances")
    client.post(SESSIONS, params, key="k")
    del params["permissions[0]"]
    again = client.post(SESSIONS, {"permissions[]": "balances", **params}, key="k")
    assert again.headers.get("Idempotent-Replayed") == "true"


def test_without_a_key_every_post_is_a_contact(world: World, authorization: Authorization, client: Client) -> None:
    ids = {client.post(SESSIONS, relink_params(authorization)).json["id"] for _ in range(3)}
    assert len(ids) == len(world.effects) == 3


@pytest.mark.parametrize("kind", ["error_500_before", "error_500_after"])
def test_server_errors_are_stored_under_the_key(
    world: World, authorization: Authorization, client: Client, kind: str
) -> None:
    world.faults.script(kind, method="POST")
    assert client.post(SESSIONS, relink_params(authorization), key="k").status == 500
    again = client.post(SESSIONS, relink_params(authorization), key="k")
    assert (again.status, again.headers["Idempotent-Replayed"]) == (500, "true")
    assert len(world.effects) == (kind == "error_500_after")
    world.advance(hours=24)
    assert client.post(SESSIONS, relink_params(authorization), key="k").status == 200


@pytest.mark.parametrize("kind", ["rate_limit", "lock_timeout", "error_503", "error_502", "unauthorized"])
def test_refusals_before_execution_are_not_stored(
    world: World, authorization: Authorization, client: Client, kind: str
) -> None:
    world.faults.script(kind, method="POST")
    assert client.post(SESSIONS, relink_params(authorization), key="k").status >= 400
    answer = client.post(SESSIONS, relink_params(authorization), key="k")
    assert answer.status == 200
    assert "Idempotent-Replayed" not in answer.headers
    assert len(world.effects) == 1


def test_duplicate_in_flight_is_a_conflict(
    world: World, authorization: Authorization, server: SimulatorServer, client: Client
) -> None:
    world.faults.script("slow", method="POST", seconds=10)
    results: list[Answer] = []
    slow = threading.Thread(target=lambda: results.append(client.post(SESSIONS, relink_params(authorization), key="k")))
    slow.start()
    try:
        wait_for(lambda: world.idempotency.is_in_flight("k"))
        conflict = client.post(SESSIONS, relink_params(authorization), key="k")
        assert (conflict.status, conflict.error["code"]) == (409, "idempotency_key_in_use")
        assert conflict.headers["Stripe-Should-Retry"] == "true"
    finally:
        world.faults.release_hanging()
        slow.join(timeout=5)
    assert [each.status for each in results] == [200]
    assert client.post(SESSIONS, relink_params(authorization), key="k").body == results[0].body
    assert len(world.effects) == 1


@pytest.mark.parametrize("key", ["", "k" * 256])
def test_unusable_keys(authorization: Authorization, client: Client, key: str) -> None:
    assert client.post(SESSIONS, relink_params(authorization), key=key).status == 400


def test_longest_key_is_usable(authorization: Authorization, client: Client) -> None:
    assert client.post(SESSIONS, relink_params(authorization), key="k" * 255).status == 200


def test_racing_duplicates_create_one_session(world: World, authorization: Authorization, client: Client) -> None:
    statuses: list[int] = []
    threads = [
        threading.Thread(
            target=lambda: statuses.append(client.post(SESSIONS, relink_params(authorization), key="k").status)
        )
        for _ in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=10)
    assert len(statuses) == 12
    assert set(statuses) <= {200, 409}
    assert len(world.effects) == 1
