"""A pull that is not proved complete ends the run before it decides anything."""

from __future__ import annotations

import socket

import pytest

from jobs.adapters import records
from jobs.adapters.database import open_database
from jobs.simulator.world import World
from tests.jobs.conftest import MakeNights
from tests.jobs.dying import die_at_page
from tests.jobs.nights import ACCOUNTS, SCOPE, Nights, assert_ties, small_world, table


def paged_world() -> World:
    """240 accounts, so three pages."""
    return small_world(customers=60, broken=(1, 2, 3), accounts=4)


def stops(nights: Nights, message: str, **sections: dict[str, object]) -> None:
    """A run ends with 3, says why, and leaves everything as it was."""
    before, latest, posts = nights.knowledge(), nights.link("latest"), nights.posts()
    effects = len(nights.world.effects)
    result = nights.run(**sections)
    assert result.exit_code == 3
    assert not result.complete
    assert result.why is not None
    assert message in result.why
    assert nights.posts() == posts
    assert len(nights.world.effects) == effects
    assert nights.knowledge() == before
    assert nights.link("latest") == latest
    attempt = nights.last_attempt()
    assert (attempt["run_id"], attempt["complete"], attempt["sent"]) == (result.run_id, False, 0)
    assert message in attempt["why"]
    assert attempt["counts"] is None
    assert (nights.reports / "last_attempt" / "manifest.json").exists()
    run = nights.newest_run()
    assert (run.state, run.exit_code, run.report_directory) == (records.STOPPED, 3, str(result.report_directory))


@pytest.mark.parametrize(
    ("kind", "skip", "message"),
    [
        ("empty_page", 1, "is empty although Stripe says there is more"),
        ("empty_page", 0, "is empty although Stripe says there is more"),
        ("repeated_page", 1, "ends where it began"),
        ("repeated_page", 2, "repeats account fca_"),
        ("duplicate_id", 0, "repeats account fca_"),
        ("duplicate_id", 2, "repeats account fca_"),
        ("missing_authorization", 0, "without the key `authorization`: stripe.api_version"),
        ("missing_authorization", 2, "without the key `authorization`: stripe.api_version"),
        ("wrong_livemode", 1, "in live mode, but the key is for sandbox"),
    ],
)
def test_an_odd_page_stops_the_run(make_nights: MakeNights, kind: str, skip: int, message: str) -> None:
    nights = make_nights(paged_world())
    first = nights.run()
    assert first.exit_code == 0
    nights.world.advance(days=1)
    nights.world.break_authorization("fcauth_9")
    nights.world.faults.script(kind, path=ACCOUNTS, skip=skip)
    stops(nights, message)
    assert nights.world.faults.injected[kind] == 1


@pytest.mark.parametrize(
    ("kind", "page"),
    [
        ("cut_body", 0),
        ("cut_body", 1),
        ("cut_body", 2),
        ("cut_json", 2),
        ("error_500_before", 1),
        ("reset_before", 2),
        ("forbidden", 1),
        ("not_json", 0),
    ],
)
def test_a_page_that_never_comes_whole_stops_the_run(make_nights: MakeNights, kind: str, page: int) -> None:
    nights = make_nights(paged_world())
    nights.world.faults.script(kind, path=ACCOUNTS, skip=page, times=50)
    stops(nights, "GET /v1/financial_connections/accounts")
    assert nights.link("latest") is None


def test_a_page_that_comes_whole_at_the_second_try_is_no_trouble(make_nights: MakeNights) -> None:
    nights = make_nights(paged_world())
    nights.world.faults.script("cut_body", path=ACCOUNTS, skip=1)
    result = nights.run()
    assert (result.exit_code, len(table(result, "accounts"))) == (0, 240)
    assert_ties(result)


def test_the_last_snapshot_stays_current_after_a_failed_pull(both_nights: Nights) -> None:
    nights = both_nights
    nights.run()
    with open_database(nights.database_url) as database:
        before = records.last_snapshot(database, SCOPE)
    nights.world.advance(days=1)
    nights.world.break_authorization("fcauth_5")
    nights.world.faults.script("empty_page", path=ACCOUNTS)
    stops(nights, "is empty although")
    with open_database(nights.database_url) as database:
        assert records.last_snapshot(database, SCOPE) == before
    again = nights.run()
    assert again.exit_code == 0
    assert nights.link("latest") is not None
    assert nights.states()["fcauth_5"] == "created"


def test_a_run_that_is_killed_at_any_page_leaves_the_last_snapshot_current_and_sends_nothing(
    make_nights: MakeNights,
) -> None:
    nights = make_nights(paged_world())
    nights.run()
    with open_database(nights.database_url) as database:
        before = records.last_snapshot(database, SCOPE)
    nights.world.advance(days=1)
    nights.world.break_authorization("fcauth_9")
    known, latest, posts = nights.knowledge(), nights.link("latest"), nights.posts()
    for page in (1, 2, 3):
        pages = nights.reads("accounts.list")
        die_at_page(nights, page)
        assert nights.reads("accounts.list") == pages + page
        with open_database(nights.database_url) as database:
            assert records.last_snapshot(database, SCOPE) == before
        assert (nights.knowledge(), nights.link("latest"), nights.posts()) == (known, latest, posts)
    again = nights.run()
    assert (again.exit_code, nights.states()["fcauth_9"], nights.posts()) == (0, "created", posts + 1)
    assert_ties(again)


def test_a_wrong_api_version_stops_the_run(nights: Nights) -> None:
    stops(nights, "without the key `authorization`", stripe={"api_version": "2025-12-15.preview"})


def test_a_revoked_key_stops_the_run_and_is_not_tried_again(nights: Nights) -> None:
    nights.world.revoke_key("rk_test_simulator")
    calls = len(nights.world.log)
    stops(nights, "it was revoked")
    assert len(nights.world.log) == calls + 1


def test_a_key_that_may_not_list_accounts_stops_the_run(nights: Nights) -> None:
    nights.world.add_key("rk_test_narrow", denied=["accounts.list"])
    nights.environment["STRIPE_API_KEY"] = "rk_test_narrow"
    stops(nights, "may not do this")


def test_a_server_that_cannot_be_reached_stops_the_run(nights: Nights) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    stops(nights, "Stripe or the network did not answer", stripe={"api_base": f"http://127.0.0.1:{port}"})


def test_events_that_cannot_be_read_stop_nothing(nights: Nights) -> None:
    """They only date things."""
    nights.run()
    nights.world.advance(days=1)
    nights.world.break_authorization("fcauth_5")
    nights.world.faults.script("forbidden", path="/v1/events")
    result = nights.run()
    assert result.exit_code == 0
    broken = {row["account_id"]: row for row in table(result, "accounts")}["fca_5_1"]
    assert (broken["finding"], broken["inactive_since_basis"]) == ("inactive", "observed")


# The account_drop brake


def drop(nights: Nights, accounts: int) -> None:
    nights.world.advance(days=1)
    for account in list(nights.world.listing)[:accounts]:
        nights.world.remove_account(account.id)


BRAKE = {"minimum": 5, "account_drop": 0.1, "newly_broken_share": 1.0, "newly_broken_share_7d": 1.0}


@pytest.mark.parametrize(
    ("customers", "vanished", "minimum", "stopped"),
    [
        (30, 4, 5, False),  # 4 of 60: below the minimum
        (30, 6, 5, False),  # 6 of 60: exactly the share
        (30, 7, 5, True),
        (30, 7, 8, False),
        (30, 8, 8, True),
        (3, 6, 1000, True),  # all of them, however few
    ],
)
def test_accounts_that_vanish_stop_the_run(
    make_nights: MakeNights, customers: int, vanished: int, minimum: int, stopped: bool
) -> None:
    nights = make_nights(small_world(customers=customers, broken=()))
    nights.sections["brakes"] = BRAKE | {"minimum": minimum}
    nights.run()
    drop(nights, vanished)
    if vanished < customers * 2:
        nights.world.break_authorization(f"fcauth_{customers}")
    before, posts = nights.knowledge(), nights.posts()
    result = nights.run()
    if not stopped:
        assert result.exit_code == 0
        assert nights.posts() == posts + 1
        return
    assert result.exit_code == 5
    assert f"{vanished} of {customers * 2} accounts of the last snapshot are gone" in (result.why or "")
    assert nights.posts() == posts
    assert nights.knowledge() == before
    assert nights.last_attempt()["complete"] is False
    assert nights.newest_run().exit_code == 5


def test_only_the_hash_of_this_very_drop_releases_it(make_nights: MakeNights) -> None:
    from jobs.work import Work

    nights = make_nights(small_world(customers=30, broken=()))
    nights.sections["brakes"] = BRAKE
    nights.run()
    drop(nights, 8)
    nights.world.break_authorization("fcauth_30")
    held = nights.run()
    assert held.why is not None
    plan_hash = held.why.split("--override-brakes ")[1].strip("`")
    assert nights.run(Work("run", released_brake="0" * len(plan_hash))).exit_code == 5
    assert nights.posts() == 0
    nights.world.remove_account(nights.world.listing[0].id)
    assert nights.run(Work("run", released_brake=plan_hash)).exit_code == 5, "one more account vanished since"
    assert nights.posts() == 0
    held = nights.run()
    assert held.why is not None
    released = nights.run(Work("run", released_brake=held.why.split("--override-brakes ")[1].strip("`")))
    assert (released.exit_code, nights.posts()) == (0, 1)
    assert nights.next_night().exit_code == 0, "a drop that was accepted is no drop the night after"
