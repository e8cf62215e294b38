"""A story that a support agent can read aloud, whichever id it is asked by."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from jobs.account_story import account_events
from jobs.adapters import records
from jobs.adapters.database import open_database
from jobs.simulator.server import SimulatorServer
from tests.jobs.cli.conftest import Relink, deployed
from tests.jobs.conftest import MakeNights
from tests.jobs.nights import SCOPE, Nights, small_world


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["kind"] for event in events]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nights]:
    """Customer 1 is asked, is offered the session, relinks; customer 2 comes back under a new authorization; 3 does not answer."""
    directory = tmp_path_factory.mktemp("story")
    world = small_world()
    with SimulatorServer(world) as server:
        nights = Nights(world, server, directory, f"sqlite:///{directory / 'relink.db'}")
        nights.run()
        with open_database(nights.database_url) as database:
            records.mark_offered(database, SCOPE, session_of(nights, 1), nights.now())
        world.advance(hours=1)
        world.answer(session_of(nights, 1), "whole")
        world.answer(session_of(nights, 2), "new_authorization", keep_account_ids=False, old_disconnected=False)
        nights.next_night()
        yield nights


@pytest.fixture
def told(story: Nights, relink: Relink, monkeypatch: pytest.MonkeyPatch) -> Relink:
    """The command where that story was recorded."""
    return deployed(story, relink, monkeypatch)


def session_of(nights: Nights, number: int) -> str:
    return str(nights.by_authorization()[f"fcauth_{number}"].session_id)


def test_the_whole_story_in_order_of_time(told: Relink, story: Nights) -> None:
    events = told("history", "fcauth_1", "--json").json
    assert [event["at"] for event in events] == sorted(event["at"] for event in events)
    seen = kinds(events)
    assert seen[:2] == ["account", "account"]
    assert seen[2:7] == ["outage_opened", "decided", "planned", "answered", "offered"]
    assert seen.count("outcome") >= 1
    assert seen[-1] == "outage_closed"
    assert {event["authorization_id"] for event in events} == {"fcauth_1"}
    planned = events[4]
    assert (planned["request_id"], planned["command"]) == (
        story.by_authorization()["fcauth_1"].request.request_id,
        "run",
    )
    assert "attempt 1" in planned["text"]
    assert "because inactive" in planned["text"]
    assert "cus_1" in planned["text"]
    assert session_of(story, 1) in events[5]["text"]


def test_people_read_a_line_for_each_event(told: Relink, story: Nights) -> None:
    ended = told("history", "fca_1_1")
    lines = ended.out.splitlines()
    assert len(lines) == len(told("history", "fca_1_1", "--json").json)
    assert all(line.startswith("2026-11-0") for line in lines)
    assert lines[0].startswith("2026-11-02 03:00 UTC  account fca_1_1 first seen: inactive (")
    assert "since 2026-11-02 03:00 UTC at least, when this job first looked" in lines[0]
    assert any("became active, after it was inactive" in line for line in lines)
    assert any("outcome of" in line and "relinked" in line for line in lines)
    assert "nothing of it is broken any more" in lines[-1]


def test_every_id_leads_to_its_own_part(told: Relink, story: Nights) -> None:
    request_id = story.by_authorization()["fcauth_1"].request.request_id
    by_session = told("history", session_of(story, 1), "--json").json
    assert by_session == told("history", request_id, "--json").json
    assert {event["kind"] for event in by_session} >= {"planned", "answered", "offered", "outcome", "outage_opened"}
    assert "account" not in kinds(by_session)
    of_customer = told("history", "cus_1", "--json").json
    assert {event["account_id"] for event in of_customer if event["kind"] == "account"} == {"fca_1_1", "fca_1_2"}
    assert "planned" in kinds(of_customer)
    of_account = told("history", "fca_1_2", "--json").json
    assert {event["account_id"] for event in of_account if event["kind"] == "account"} == {"fca_1_2"}
    assert "planned" in kinds(of_account)


def test_a_new_authorization_is_told_from_both_sides(told: Relink, story: Nights) -> None:
    [new] = {
        event["text"].split(" lives on as ")[1].split(" of ")[1].split(",")[0]
        for event in _successors(told, "fcauth_2")
    }
    assert new != "fcauth_2"
    assert len(_successors(told, new)) == 2
    assert len(_successors(told, "fca_2_1")) == 1
    assert len(_successors(told, session_of(story, 2))) == 2
    assert any(
        "live on under a new authorization" in event["text"] for event in told("history", "fcauth_2", "--json").json
    )


def _successors(told: Relink, identifier: str) -> list[dict[str, Any]]:
    return [event for event in told("history", identifier, "--json").json if event["kind"] == "successor"]


def test_an_open_request_is_told_without_an_end(told: Relink, story: Nights) -> None:
    seen = kinds(told("history", "fcauth_3", "--json").json)
    assert "outage_opened" in seen
    assert "outage_closed" not in seen


@pytest.mark.parametrize("identifier", ["fca_nobody", "fca_1", "", " ", "%", "fca_1_1' OR '1'='1"])
def test_an_unknown_id_is_a_fault_of_usage(told: Relink, identifier: str) -> None:
    ended = told("history", identifier, "--json")
    assert ended.code == 2
    assert "nothing is known of" in ended.json["error"]


def test_an_id_that_looks_like_an_address_is_not_repeated(told: Relink) -> None:
    ended = told("history", "kim.doe@customer.example")
    assert ended.code == 2
    assert "kim.doe" not in ended.err + ended.out


def test_what_came_from_a_bank_can_neither_forge_lines_nor_show_an_address(
    make_nights: MakeNights, relink: Relink, monkeypatch: pytest.MonkeyPatch, postgres_url: str
) -> None:
    nights = make_nights(database_url=postgres_url)
    nights.world.override(
        "fca_1_1", {"institution_name": "Bank\n2026-01-01 00:00 UTC  all is well \x1b[2J of kim@bank.example"}
    )
    nights.run()
    at = deployed(nights, relink, monkeypatch)
    shown = at("history", "fca_1_1").out
    assert "\x1b" not in shown
    assert "kim@bank.example" not in shown
    assert all(line.startswith("2026-11-02 03:00 UTC  ") for line in shown.splitlines())
    assert at("history", "cus_1", "--json").code == 0


def test_a_state_is_told_by_what_changed() -> None:
    from datetime import UTC, datetime, timedelta

    start = datetime(2026, 11, 2, 3, tzinfo=UTC)
    base: dict[str, Any] = {
        "account_id": "fca_1",
        "observed_at": start,
        "present": True,
        "authorization_id": "fcauth_1",
        "holder_type": "customer",
        "account_holder_id": "cus_1",
        "institution_name": "Bank",
        "last4": "4242",
        "subcategory": "checking",
        "stripe_status": "active",
        "action": "none",
        "cause": None,
        "permissions": "balances",
        "expected_deactivation_at": None,
        "number_state": None,
        "inactive_since": None,
        "inactive_since_basis": None,
    }
    inactive = {
        "stripe_status": "inactive",
        "action": "relink_required",
        "cause": "access_expired",
        "inactive_since": start + timedelta(hours=5),
        "inactive_since_basis": "event",
    }
    states = [
        base,
        {**base, "observed_at": start + timedelta(days=1), **inactive},
        {**base, "observed_at": start + timedelta(days=2), **inactive, "permissions": "balances,ownership"},
        {**base, "observed_at": start + timedelta(days=3), **inactive, "present": False},
        {**base, "observed_at": start + timedelta(days=4), "authorization_id": "fcauth_2"},
        {**base, "account_id": "fca_2", "observed_at": start},
    ]
    texts = [event.text for event in account_events("main", states)]
    assert texts == [
        "account fca_1 first seen: active (action none); Bank, checking, ending in 4242; authorization fcauth_1; holder cus_1",
        "account fca_1 became inactive (cause access_expired, action relink_required) since 2026-11-02 08:00 UTC by Stripe's event, "
        "after it was active",
        "account fca_1 permissions changed from balances to balances,ownership",
        "account fca_1 is no longer listed by Stripe",
        "account fca_1 is listed by Stripe again; became active (action none), after it was inactive; "
        "authorization changed from fcauth_1 to fcauth_2",
        "account fca_2 first seen: active (action none); Bank, checking, ending in 4242; authorization fcauth_1; holder cus_1",
    ]
