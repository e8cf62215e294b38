"""How customers come to their sessions, end to end: the bodies that Stripe gets, its refusals, and banks that cannot be reached."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl

import pytest

from jobs.nightly import RunResult
from jobs.simulator.behaviour import Behaviour
from jobs.simulator.world import World
from jobs.work import Work
from tests.jobs.conftest import MakeNights
from tests.jobs.nights import Nights, add_customer, assert_ties, small_world, steps, table

BACK = "https://shop.example/back"


def bodies(nights: Nights) -> dict[str, dict[str, str]]:
    """The form fields of each stored request but its permissions, by authorization."""
    return {
        name: {key: value for key, value in parse_qsl(stored.request_body) if not key.startswith("permissions")}
        for name, stored in nights.by_authorization().items()
    }


def requests(result: RunResult) -> dict[str, dict[str, Any]]:
    return {row["authorization_id"]: row for row in table(result, "relink_requests")}


def test_each_delivery_has_the_body_that_stripe_documents(nights: Nights) -> None:
    nights.sections["relink"] = {
        "return_url": BACK,
        "delivery_rules": [
            {"customer": "cus_1", "delivery": "hosted_email"},
            {"customer": "cus_2", "delivery": "hosted_url"},
        ],
    }
    result = nights.run()
    assert result.exit_code == 0

    def common(number: int) -> dict[str, str]:
        return {
            "account_holder[type]": "customer",
            "account_holder[customer]": f"cus_{number}",
            "relink_options[authorization]": f"fcauth_{number}",
            "return_url": BACK,
        }

    assert bodies(nights) == {
        "fcauth_1": {**common(1), "ui_mode": "hosted", "hosted[delivery_method]": "email"},
        "fcauth_2": {**common(2), "ui_mode": "hosted", "hosted[delivery_method]": "url"},
        "fcauth_3": common(3),
    }
    assert {name: row["delivery"] for name, row in requests(result).items()} == {
        "fcauth_1": "hosted_email",
        "fcauth_2": "hosted_url",
        "fcauth_3": "modal",
    }
    assert [effect.delivery_method for effect in nights.world.effects] == ["email", "url", None]


def test_the_first_rule_that_fits_decides_by_institution_reason_and_merchant(make_nights: MakeNights) -> None:
    world = small_world(customers=1, broken=[1])
    for number, bank in ((2, "Oak Bank"), (3, "Oak Bank"), (4, "Elm Bank")):
        world.add_authorization(
            ("customer", f"cus_{number}"),
            institution=bank,
            authorization_id=f"fcauth_{number}",
            accounts=[{"account_id": f"fca_{number}", "permissions": ["balances"]}],
            tokenized=False,
        )
    for number in (2, 4):
        world.break_authorization(f"fcauth_{number}")
    nights = make_nights(world)
    rows = [
        {"account_id": each.id, "account_holder_id": each.holder.id, "required_permissions": "balances,transactions"}
        for each in world.listing
    ]
    nights.load_ledger(rows)
    nights.sections["relink"] = {
        "delivery": "hosted_url",
        "delivery_rules": [
            {"institution": "Oak Bank", "reason": "permissions", "delivery": "modal"},
            {"institution": "Oak Bank", "merchant": "main", "delivery": "hosted_email"},
            {"institution": "Elm Bank", "customer": "cus_1", "delivery": "modal"},
        ],
    }
    result = nights.run()
    assert {name: (row["reason"], row["delivery"]) for name, row in requests(result).items()} == {
        "fcauth_1": ("inactive", "hosted_url"),
        "fcauth_2": ("inactive", "hosted_email"),
        "fcauth_3": ("permissions", "modal"),
        "fcauth_4": ("inactive", "hosted_url"),
    }


@pytest.mark.parametrize(
    ("reading", "parameter", "expected"),
    [
        ("optional", "return_url", "created"),
        ("required", "return_url", "created"),
        ("nested", "hosted[return_url]", "created"),
        ("nested", "return_url", "rejected"),
        ("optional", "hosted[return_url]", "rejected"),
    ],
)
def test_either_reading_of_where_the_return_url_belongs_can_be_served(
    make_nights: MakeNights, reading: str, parameter: str, expected: str
) -> None:
    world = World.empty(seed=11, behaviour=replace(Behaviour.quiet(), hosted_return_url=reading))
    add_customer(world, 1)
    world.break_authorization("fcauth_1")
    nights = make_nights(world)
    nights.sections["relink"] = {"delivery": "hosted_url", "return_url": BACK, "return_url_parameter": parameter}
    nights.run()
    assert nights.states() == {"fcauth_1": expected}


def test_whether_an_address_is_on_file_is_stripes_to_say(nights: Nights) -> None:
    nights.sections["relink"] = {"delivery": "hosted_email"}
    nights.world.set_email("cus_2", None)
    result = nights.run()
    assert result.exit_code == 4
    row = requests(result)["fcauth_2"]
    assert (row["result"], row["http_status"], row["calls"]) == ("rejected", 400, 1)
    assert "has no e-mail address on file" in row["error_message"]
    assert nights.states() == {"fcauth_1": "created", "fcauth_2": "rejected", "fcauth_3": "created"}
    assert_ties(result)
    # A refusal is an attempt; its breakage cools down, and nothing else is sent for it meanwhile.
    assert steps(nights.next_night())["fca_2_1"] == "cooldown"


@pytest.mark.parametrize("delivery", ["hosted_email", "hosted_url"])
def test_a_hosted_session_is_a_contact_from_its_creation(nights: Nights, delivery: str) -> None:
    """Nobody handed it over and the bank recovered by itself: the customer may have been asked all the same."""
    nights.sections["relink"] = {"delivery": delivery}
    nights.run()
    nights.world.heal_authorization("fcauth_1")
    nights.next_night()
    nights.world.break_authorization("fcauth_1")
    assert steps(nights.next_night())["fca_1_1"] == "cooldown"


def test_stripes_own_interval_is_kept_even_where_ours_is_ignored(nights: Nights) -> None:
    """Cancelled and two business dates later, but not 48 hours: Stripe would refuse, so nothing is sent."""
    nights.sections["relink"] = {"delivery": "hosted_email", "cooldown_days": 2}
    nights.world.advance(hours=5)
    nights.run()
    for name, how in (("fcauth_1", "cancelled"), ("fcauth_2", "no_account")):
        nights.world.answer(nights.by_authorization()[name].session_id or "", how)
    again = nights.next_night(days=1)
    assert steps(again)["fca_1_1"] == "cooldown"
    nights.world.advance(hours=22)
    asked = nights.run(Work("request", ignore_cooldown=True))
    # The completed session does not stand in the way (Stripe: "or the previous one completed").
    assert (steps(asked)["fca_1_1"], steps(asked)["fca_2_1"]) == ("cooldown", "request")
    nights.world.advance(hours=2.1)
    later = nights.run(Work("request", ignore_cooldown=True))
    assert steps(later)["fca_1_1"] == "request"
    assert set(nights.states().values()) == {"created"}


def test_the_interval_is_of_the_customer_too_and_leaves_modal_alone(make_nights: MakeNights) -> None:
    world = small_world(customers=2, broken=[1])
    add_customer(world, 3, holder="cus_1")
    nights = make_nights(world)
    nights.sections["relink"] = {"delivery": "hosted_url"}
    nights.run()
    world.break_authorization("fcauth_3")
    world.advance(hours=3)
    soon = nights.run(Work("request", ignore_cooldown=True))
    assert steps(soon)["fca_3_1"] == "cooldown"
    world.advance(hours=1)
    modal = nights.run(Work("request", ignore_cooldown=True), relink={"delivery": "modal"})
    assert steps(modal)["fca_3_1"] == "request"


def banks(make_nights: MakeNights) -> Nights:
    """Six customers of one bank that cannot be reached, two of another."""
    world = World.empty(seed=11)
    for number in range(1, 9):
        world.add_authorization(
            ("customer", f"cus_{number}"),
            institution="Oak Bank" if number <= 6 else "Elm Bank",
            authorization_id=f"fcauth_{number}",
            accounts=[{"account_id": f"fca_{number}"}],
            tokenized=False,
        )
        world.break_authorization(f"fcauth_{number}")
    world.set_unavailable("Oak Bank")
    return make_nights(world)


def test_a_bank_that_cannot_be_reached_is_left_for_the_next_date_without_spending_attempts(
    make_nights: MakeNights,
) -> None:
    nights = banks(make_nights)
    nights.sections["relink"] = {"max_attempts": 1}
    result = nights.run()
    assert result.exit_code == 4
    assert Counter(nights.states().values()) == {"rejected": 3, "not_sent": 3, "created": 2}
    assert nights.posts() == 5
    rows = requests(result)
    assert {row["error_code"] for row in rows.values() if row["result"] == "rejected"} == {
        "financial_connections_institution_unavailable"
    }
    assert all(
        "Oak Bank is unavailable" in row["error_message"] for row in rows.values() if row["result"] == "rejected"
    )
    assert {(row["error_type"], row["calls"]) for row in rows.values() if row["result"] == "not_sent"} == {
        ("institution_unavailable", 0)
    }
    assert_ties(result)
    # The same date asks that bank no more, whoever is left; the next date asks all of them again.
    nights.world.advance(hours=1)
    same_date = nights.run(Work("request"))
    assert {steps(same_date)[f"fca_{number}"] for number in range(1, 7)} == {"cooldown"}
    assert nights.posts() == 5
    nights.world.set_unavailable("Oak Bank", False)
    nights.next_night()
    assert Counter(nights.states().values()) == {"created": 8}
    attempts = Counter(stored.request.attempt for stored in nights.by_authorization().values())
    assert attempts == {1: 5, 2: 3}, "a refused key is never used again, though its attempt is not spent"
    keys = [effect.idempotency_key for effect in nights.world.effects]
    assert len(set(keys)) == len(keys) == 8


def test_weeks_of_an_unreachable_bank_exhaust_nobody(make_nights: MakeNights) -> None:
    nights = banks(make_nights)
    nights.sections["relink"] = {"max_attempts": 2}
    for _ in range(4):
        nights.run()
        nights.world.advance(days=1)
    nights.world.set_unavailable("Oak Bank", False)
    assert {steps(nights.run())[f"fca_{number}"] for number in range(1, 7)} == {"request"}
