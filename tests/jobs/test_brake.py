"""A night that a brake holds: held until released, once, within a day, and never forgotten by the next."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from jobs.adapters.rate_limiter import RateLimiter
from jobs.adapters.stripe_gateway import StripeGateway
from jobs.nightly import RunResult
from jobs.nightly import run as run_night
from jobs.selection import Selection
from jobs.wiring import wire
from jobs.work import Work
from reconcile.model import Scope
from tests.jobs.conftest import MakeNights
from tests.jobs.nights import Nights, assert_ties, ledger_of, small_world, steps, table

BRAKES: dict[str, Any] = {
    "minimum": 3,
    "newly_broken_share": 0.2,
    "newly_broken_share_7d": 1.0,
    "institution_share": 1.0,
}


@pytest.fixture
def held_nights(make_nights: MakeNights, database_url: str) -> Nights:
    """Ten customers, one broken on the first night; then five more break at once."""
    world = small_world(customers=10, broken=[1], accounts=1)
    nights = make_nights(world, database_url)
    nights.sections["brakes"] = BRAKES
    assert nights.run().exit_code == 0
    world.advance(days=1)
    for number in range(2, 7):
        world.break_authorization(f"fcauth_{number}")
    return nights


def release(nights: Nights, held: RunResult) -> RunResult:
    return nights.run(Work("run", released_brake=held.nights[0].held_plan_hash))


def test_a_held_night_sends_nothing_and_names_the_hash_that_releases_it(held_nights: Nights) -> None:
    held = held_nights.run()
    assert (held.exit_code, held.complete, held_nights.posts()) == (5, True, 1)
    assert [step for name, step in sorted(steps(held).items()) if name in ("fca_2_1", "fca_6_1")] == [
        "held_by_brake"
    ] * 2
    assert_ties(held)
    night = held.nights[0]
    assert night.held_plan_file is not None
    plan = json.loads(night.held_plan_file.read_text())
    assert plan["plan_hash"] == night.held_plan_hash
    assert [one["breakage"]["authorization_id"] for one in plan["merchants"][0]["requests"]] == [
        f"fcauth_{n}" for n in range(2, 7)
    ]
    assert night.held_plan_file.stat().st_mode & 0o777 == 0o600
    merchants: Any = held.summary["merchants"]
    assert merchants[0]["held"] is True
    assert "newly_broken_share" in merchants[0]["why"]


def test_what_is_held_is_still_new_to_the_next_night(held_nights: Nights) -> None:
    held_nights.run()
    again = held_nights.next_night()
    assert (again.exit_code, held_nights.posts()) == (5, 1)
    assert len(again.nights[0].plan.held) == 5


def test_a_release_holds_once_and_only_for_that_plans_pairs(held_nights: Nights) -> None:
    held = held_nights.run()
    held_nights.world.advance(hours=2)
    for number in (7, 8, 9):
        held_nights.world.break_authorization(f"fcauth_{number}")
    released = release(held_nights, held)
    # What is new besides is braked afresh: three of ten are above a fifth.
    assert released.exit_code == 5
    assert sorted(row["authorization_id"] for row in table(released, "relink_requests")) == [
        f"fcauth_{n}" for n in range(2, 7)
    ]
    assert [request.authorization_id for request in released.nights[0].plan.held] == [
        "fcauth_7",
        "fcauth_8",
        "fcauth_9",
    ]
    posts = held_nights.posts()
    second = release(held_nights, held)
    assert (second.exit_code, second.complete, held_nights.posts()) == (5, False, posts)


def test_a_release_after_a_day_is_refused(held_nights: Nights) -> None:
    held = held_nights.run()
    held_nights.world.advance(hours=25)
    late = release(held_nights, held)
    assert (late.exit_code, late.complete, held_nights.posts()) == (5, False, 1)
    assert "24 hours" in str(late.why)


def test_an_unknown_hash_is_refused_before_anything_is_sent(held_nights: Nights) -> None:
    refused = held_nights.run(Work("run", released_brake="0" * 64))
    assert (refused.exit_code, held_nights.posts()) == (5, 1)
    assert "no held plan has the hash" in str(refused.why)


def test_what_a_killed_run_left_of_a_held_plan_goes_and_nothing_else(held_nights: Nights) -> None:
    held = held_nights.run().nights[0].held_plan_file
    assert held is not None
    half, another = held.with_name(f".{held.name}.3d1f1t5q"), held.with_name(".mine.json.old")
    half.write_text("{")
    another.write_text("{}")
    held_nights.next_night()
    assert (half.exists(), another.exists(), held.exists()) == (False, True, True)


def test_released_accounts_are_no_longer_new(held_nights: Nights) -> None:
    held = held_nights.run()
    assert release(held_nights, held).exit_code == 0
    later = held_nights.next_night()
    assert (later.exit_code, later.nights[0].plan.held) == (0, ())


def test_old_outages_are_asked_about_while_new_ones_are_held(held_nights: Nights) -> None:
    """The first night's customer never answers: its session expires and a new attempt is due on a held night."""
    for _ in range(8):
        result = held_nights.next_night()
    assert result.exit_code == 5
    assert "fcauth_1" in {one.authorization_id for one in held_nights.stored() if one.request.attempt == 2}


def test_a_manual_request_does_not_go_around_the_brake(held_nights: Nights) -> None:
    held_nights.run()
    chosen = Selection(authorizations=frozenset({f"fcauth_{number}" for number in range(2, 7)}))
    asked = held_nights.run(Work("request", from_stored=True, selection=chosen))
    assert (asked.exit_code, held_nights.posts()) == (5, 1)


def test_a_dry_run_shows_the_hold_and_stores_no_plan(held_nights: Nights) -> None:
    dry = held_nights.run(Work("run", dry_run=True))
    assert (dry.exit_code, dry.nights[0].held_plan_file) == (5, None)
    assert not (held_nights.reports / "_plans").exists()


RunLive = Callable[[Work], RunResult]


@pytest.fixture
def live(make_nights: MakeNights) -> tuple[Nights, RunLive]:
    """A stand-in never meets a live key through the settings, so the merchant is made live behind them."""
    world = small_world(customers=4, broken=[1, 2], accounts=1, livemode=True)
    nights = make_nights(world)
    nights.sections["brakes"] = BRAKES
    world.add_key("rk_live_simulator")
    limiter = RateLimiter(requests_per_second=5000, endpoint_requests_per_second=5000)
    gateway = StripeGateway(
        "rk_live_simulator", api_base=nights.server.base_url, api_version="2026-09-30.preview", limiter=limiter
    )

    def run_live(work: Work) -> RunResult:
        holder = None if work.dry_run else work.command
        with wire(
            nights.settings(), nights.environment, holder=holder, clock=nights.now, sleep=lambda _: None
        ) as wiring:
            merchants = tuple(replace(one, scope=Scope("main", "live"), gateway=gateway) for one in wiring.merchants)
            return run_night(replace(wiring, merchants=merchants), work)

    return nights, run_live


def test_a_first_live_run_is_held_until_released(live: tuple[Nights, RunLive]) -> None:
    nights, run_live = live
    first = run_live(Work("run"))
    assert (first.exit_code, nights.posts()) == (5, 0)
    nights.world.advance(days=1)
    second = run_live(Work("run"))
    assert (second.exit_code, nights.posts()) == (5, 0)
    released = run_live(Work("run", released_brake=second.nights[0].held_plan_hash))
    assert nights.posts() == 2
    assert released.summary["sent"] == 2


def test_a_plan_that_is_carried_out_first_lifts_no_hold_of_a_first_live_run(live: tuple[Nights, RunLive]) -> None:
    """The plan of a first live run is empty, since all is held, and to carry that out decides nothing about anybody."""
    nights, run_live = live
    planned = run_live(Work("plan", dry_run=True))
    assert planned.nights[0].plan.requests == ()
    assert run_live(Work("apply", agreed={"main": planned.nights[0].plan.requests})).exit_code == 0
    nights.world.advance(days=1)
    assert (run_live(Work("run")).exit_code, nights.posts()) == (5, 0)


@pytest.fixture
def two_merchants(make_nights: MakeNights) -> Nights:
    """Two merchants with ten customers each; on a finished date the first one's five that broke at once are held."""
    world = small_world(customers=10, broken=[], accounts=1)
    nights = make_nights(world)
    nights.sections["brakes"] = BRAKES
    nights.merchants = [{"name": "one"}, {"name": "two", "api_key_env": "KEY_TWO"}]
    world.add_key("rk_test_two")
    nights.environment |= {"KEY_TWO": "rk_test_two"}
    theirs = [row for row in ledger_of(world, "two") if row["account_id"] not in {f"fca_{n}_1" for n in range(2, 7)}]
    nights.load_ledger([*ledger_of(world, "one"), *theirs])
    assert nights.run().exit_code == 0
    world.advance(days=1)
    for number in range(2, 7):
        world.break_authorization(f"fcauth_{number}")
    return nights


def test_a_release_on_a_finished_date_asks_nobody_of_another_merchant(two_merchants: Nights) -> None:
    held = two_merchants.run()
    assert (held.exit_code, two_merchants.posts()) == (5, 0)
    two_merchants.world.break_authorization("fcauth_8")
    released = release(two_merchants, held)
    asked = [(row["merchant"], row["authorization_id"]) for row in table(released, "relink_requests")]
    assert [one for one in asked if one[0] == "two"] == []
    assert {("one", f"fcauth_{number}") for number in range(2, 7)} <= set(asked)
    two_merchants.world.advance(days=1)
    asked = [(row["merchant"], row["authorization_id"]) for row in table(two_merchants.run(), "relink_requests")]
    assert ("two", "fcauth_8") in asked


@pytest.mark.parametrize("slip", ["0" * 64, "0" * 24, "none"])
def test_a_hash_that_nothing_has_does_not_run_a_finished_date_once_more(two_merchants: Nights, slip: str) -> None:
    two_merchants.run()
    two_merchants.world.break_authorization("fcauth_8")
    refused = two_merchants.run(Work("run", released_brake=slip))
    assert (refused.exit_code, two_merchants.posts()) == (5, 0)
    assert f"has the hash {slip}" in str(refused.why)


def test_what_broke_since_a_plan_was_held_is_not_released_with_it(held_nights: Nights) -> None:
    """Five lack permissions and are held; then their logins break, which nobody has looked at."""
    for number in range(2, 7):
        held_nights.world.heal_authorization(f"fcauth_{number}")
        held_nights.world.set_permissions(f"fca_{number}_1", ["balances"])
    rows = [row | {"required_permissions": "balances,transactions"} for row in ledger_of(held_nights.world)]
    held_nights.load_ledger(rows)
    held = held_nights.run()
    assert {str(one.breakage.kind) for one in held.nights[0].plan.held} == {"permissions"}
    held_nights.world.advance(hours=1)
    for number in range(2, 7):
        held_nights.world.break_authorization(f"fcauth_{number}")
    released = release(held_nights, held)
    assert (released.exit_code, held_nights.posts()) == (5, 1)
    assert {str(one.breakage.kind) for one in released.nights[0].plan.held} == {"connection"}


def test_a_release_is_for_its_outage_and_not_for_the_next_one(held_nights: Nights) -> None:
    """The outage that was held heals and another one comes: the old hash lets nothing go."""
    held = held_nights.run()
    for number in range(2, 7):
        held_nights.world.heal_authorization(f"fcauth_{number}")
    held_nights.world.advance(hours=1)
    held_nights.run(Work("apply", agreed={}))
    for number in range(2, 7):
        held_nights.world.break_authorization(f"fcauth_{number}")
    held_nights.world.advance(hours=1)
    again = release(held_nights, held)
    assert (again.exit_code, held_nights.posts()) == (5, 1)


def test_a_command_that_sends_nothing_neither_holds_nor_ends_with_five(held_nights: Nights) -> None:
    held_nights.run()
    looked = held_nights.run(Work("collect", from_stored=True, collect_everything=True, sends=False))
    assert (looked.exit_code, looked.nights[0].held_plan_hash) == (0, None)


def drip(nights: Nights, days: int) -> list[RunResult]:
    """One login breaks on each of two nights and a third one `days` business dates after the night before them, with a run on each."""
    world, results = nights.world, []
    for number in (2, 3):
        world.advance(days=1)
        world.break_authorization(f"fcauth_{number}")
        results.append(nights.run())
    world.advance(days=days - 1)
    world.break_authorization("fcauth_4")
    return [*results, nights.run()]


@pytest.mark.parametrize(("days", "code"), [(6, 5), (7, 0)])
def test_the_week_of_the_brake_has_seven_business_dates_tonight_included(
    make_nights: MakeNights, days: int, code: int
) -> None:
    """Three of ten within seven dates are too many, though one a night is not; on the eighth the first no longer counts."""
    nights = make_nights(small_world(customers=10, broken=[], accounts=1))
    nights.sections["brakes"] = {**BRAKES, "newly_broken_share": 1.0, "newly_broken_share_7d": 0.2}
    assert nights.run().exit_code == 0
    results = drip(nights, days)
    assert [one.exit_code for one in results] == [0, 0, code]
    assert_ties(results[-1])
