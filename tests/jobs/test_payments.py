"""Payments accounts end to end: one session for each, in turn; another account where any will do; narrowing against the stand-in."""

from __future__ import annotations

from itertools import product
from typing import Any
from urllib.parse import parse_qsl

import pytest

from jobs.simulator.world import World
from tests.jobs.conftest import MakeNights
from tests.jobs.nights import Nights, assert_ties, outcomes, steps, table


def payments_world(subcategories: tuple[str, ...] = ("checking", "savings", "checking")) -> World:
    """One customer whose accounts under one authorization are used for payments, all broken; siblings stay as they are."""
    world = World.empty(seed=11)
    world.add_authorization(
        ("customer", "cus_1"),
        authorization_id="fcauth_1",
        accounts=[
            {"account_id": f"fca_{n}", "subcategory": kind, "permissions": ["balances", "payment_method"]}
            for n, kind in enumerate(subcategories, 1)
        ],
        tokenized=False,
    )
    for account in world.listing:
        world.break_account(account.id)
    return world


def nights_of(make_nights: MakeNights, world: World, **relink: Any) -> Nights:
    nights = make_nights(world)
    nights.load_ledger(
        {
            "account_id": each.id,
            "account_holder_id": each.holder.id,
            "purpose": "payments",
            "exposure_minor": 100 * n,
            "currency": "usd",
        }
        for n, each in enumerate(world.listing, 1)
    )
    nights.sections["relink"] = {"cooldown_days": 2, **relink}
    return nights


def newest_body(nights: Nights) -> dict[str, str]:
    newest = max(nights.stored(), key=lambda stored: stored.planned_at)
    return {name: value for name, value in parse_qsl(newest.request_body) if not name.startswith("account_holder")}


def test_each_account_is_relinked_by_a_session_of_its_own_most_urgent_first(make_nights: MakeNights) -> None:
    world = payments_world()
    nights = nights_of(make_nights, world, require_payment_method_support="all")
    asked = []
    for _ in range(3):
        result = nights.run()
        assert result.exit_code == 0
        assert_ties(result)
        (row,) = table(result, "relink_requests")
        asked.append(row["account_id"])
        assert row["covered_accounts"] == [row["account_id"]]
        assert newest_body(nights) == {
            "permissions[0]": "balances",
            "permissions[1]": "payment_method",
            "relink_options[authorization]": "fcauth_1",
            "relink_options[account]": row["account_id"],
            "limits[accounts]": "1",
            "filters[require_payment_method_support]": "all",
        }
        session = nights.world.sessions[row["session_id"]]
        world.answer(session.id, "whole", accounts=[row["account_id"]])
        # Stripe says that siblings may come back by themselves; here they do not.
        for other in world.listing:
            if other.id not in asked and other.status == "active":
                world.break_account(other.id)
        world.advance(days=2)
    assert asked == ["fca_3", "fca_2", "fca_1"]
    last = nights.run()
    assert set(steps(last).values()) == {"none"}
    assert outcomes(last) == {"fcauth_1": "relinked"}
    attempts = sorted(stored.request.attempt for stored in nights.stored())
    assert attempts == [1, 2, 3]
    assert {stored.request.breakage.number for stored in nights.stored()} == {1}


def test_every_kind_of_customer_is_asked_for_one_account_by_every_delivery(make_nights: MakeNights) -> None:
    world = World.empty(seed=11)
    cases = list(product(("customer", "account", "customer_account"), ("modal", "hosted_url", "hosted_email")))
    for n, (kind, _) in enumerate(cases):
        world.add_authorization(
            (kind, f"holder_{n}"),
            authorization_id=f"fcauth_{n}",
            accounts=[{"account_id": f"fca_{n}", "permissions": ["payment_method"]}],
            tokenized=False,
        )
        world.set_email(f"holder_{n}", f"holder{n}@customer.example")
        world.break_authorization(f"fcauth_{n}")
    rules = [{"customer": f"holder_{n}", "delivery": delivery} for n, (_, delivery) in enumerate(cases)]
    nights = nights_of(make_nights, world, delivery_rules=rules)
    result = nights.run()
    assert result.exit_code == 0
    hosted = {"hosted_url": "url", "hosted_email": "email"}
    for n, (kind, delivery) in enumerate(cases):
        expected = {
            "account_holder[type]": "account" if kind == "account" else "customer",
            f"account_holder[{kind}]": f"holder_{n}",
            "permissions[0]": "payment_method",
            "relink_options[authorization]": f"fcauth_{n}",
            "relink_options[account]": f"fca_{n}",
            "limits[accounts]": "1",
        }
        if delivery in hosted:
            expected |= {"ui_mode": "hosted", "hosted[delivery_method]": hosted[delivery]}
        assert dict(parse_qsl(nights.by_authorization()[f"fcauth_{n}"].request_body)) == expected
    for effect in list(world.effects):
        world.answer(effect.session_id, "whole", lag_seconds=0)
    assert set(outcomes(nights.next_night()).values()) == {"relinked"}
    assert {world.sessions[effect.session_id].result["account"] for effect in world.effects} == {  # type: ignore[index]
        f"fca_{n}" for n in range(len(cases))
    }


def test_another_account_linked_where_any_will_do_is_for_a_person(make_nights: MakeNights) -> None:
    world = payments_world(("checking", "savings"))
    world.heal_account("fca_2")
    nights = nights_of(make_nights, world, payments_account="any_eligible")
    (row,) = table(nights.run(), "relink_requests")
    assert "relink_options[account]" not in newest_body(nights)
    assert newest_body(nights)["limits[accounts]"] == "1"
    assert (row["account_id"], row["covered_accounts"]) == (None, ["fca_1"])
    session_id = row["session_id"]
    world.answer(session_id, "whole", accounts=["fca_2"])
    world.break_account("fca_1")
    result = nights.next_night()
    assert outcomes(result) == {"fcauth_1": "review"}
    assert steps(result) == {"fca_1": "review", "fca_2": "none"}
    # The customer has done what was asked of them, so nobody asks again before a person has mended the ledger.
    for _ in range(6):
        assert steps(nights.next_night())["fca_1"] == "review"
    assert len(world.effects) == 1
    nights.load_ledger(
        [
            {"account_id": "fca_1", "account_holder_id": "cus_1", "purpose": "payments", "status": "closed"},
            {"account_id": "fca_2", "account_holder_id": "cus_1", "purpose": "payments"},
        ]
    )
    assert steps(nights.next_night()) == {"fca_1": "ledger_closed", "fca_2": "none"}


@pytest.mark.parametrize(("kind", "expected"), [("savings", "savings"), ("other", None)])
def test_a_kind_that_stripe_cannot_filter_by_is_not_left_out(
    make_nights: MakeNights, kind: str, expected: str | None
) -> None:
    nights = nights_of(make_nights, payments_world((kind,)), narrow_to_subcategories=True)
    assert nights.run().exit_code == 0
    assert newest_body(nights).get("filters[account_subcategories][0]") == expected
