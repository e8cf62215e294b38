"""Customers who link afresh where a relink was due, night after night against the stand-in."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import create_engine

from jobs.adapters.database import open_database
from jobs.history import history
from jobs.selection import Selection
from jobs.simulator.world import World
from jobs.work import Work
from tests.jobs.conftest import MakeNights
from tests.jobs.nights import SCOPE, Nights, add_customer, assert_ties, small_world, steps, table


def test_a_fresh_link_ends_the_asking_and_is_told_everywhere(both_nights: Nights) -> None:
    nights = both_nights
    nights.run()
    assert nights.by_authorization()["fcauth_1"].outcome is None
    nights.world.advance(hours=5)
    nights.world.link_afresh("fcauth_1", ["fca_1_1"])
    result = nights.next_night()
    assert_ties(result)
    [told] = table(result, "account_successors")
    truth = nights.world.lives_on["fca_1_1"]
    assert [told["new_account_id"]] == truth
    assert (told["old_account_id"], told["matched_by"], told["request_id"]) == ("fca_1_1", "twin", None)
    found = steps(result)
    assert (found["fca_1_1"], found["fca_1_2"], found[truth[0]]) == ("replaced", "open_session", "review")
    with open_database(nights.database_url) as database:
        lines = [event.text for event in history(database, SCOPE, "fca_1_1") if event.kind == "successor"]
    assert ["a twin" in line and truth[0] in line for line in lines] == [True]
    # Weeks later the other account of the old login has been asked about, and never the replaced one.
    for _ in range(3):
        result = nights.next_night(5)
    assert result.exit_code == 0
    newest = nights.by_authorization()["fcauth_1"].request
    assert newest.attempt > 1
    assert [one.account_id for one in newest.covered] == ["fca_1_2"]
    assert len(table(result, "account_successors")) == 1
    # The report's SQL, run at the job's own ledger, ends it: the new account is the ledger's, and nothing is left to change.
    assert result.report_directory is not None
    _run_sql(nights.database_url, (result.report_directory / "account_successors.sql").read_text())
    result = nights.next_night()
    assert_ties(result)
    found = steps(result)
    assert (found[truth[0]], "replaced" in found.values()) == ("none", False)
    assert "UPDATE" not in (result.report_directory or nights.reports).joinpath("account_successors.sql").read_text()


def _run_sql(database_url: str, change: str) -> None:
    """Run a file as the database's own client would."""
    with closing(create_engine(database_url).raw_connection()) as connection:
        driver: Any = connection.driver_connection
        if database_url.startswith("sqlite"):
            driver.executescript(change)
        else:
            driver.autocommit = True
            driver.execute(change)


def test_twins_that_nothing_tells_apart_are_a_persons(make_nights: MakeNights) -> None:
    world = small_world(customers=2, broken=(), accounts=1)
    add_customer(world, 3, 1, holder="cus_1")
    _alike(world, "fca_3_1", "fca_1_1")
    nights = make_nights(world)
    nights.run()
    world.break_authorization("fcauth_1")
    result = nights.next_night()
    assert steps(result)["fca_1_1"] == "review"
    assert (nights.posts(), table(result, "account_successors")) == (0, [])
    with open_database(nights.database_url) as database:
        lines = [event.text for event in history(database, SCOPE, "fca_1_1") if event.kind == "decided"]
    assert any("it may be the same account as fca_3_1, which works" in line for line in lines)
    # A person who found out that they are two asks about it by name.
    chosen = Selection(authorizations=frozenset({"fcauth_1"}))
    asked = nights.run(Work("request", selection=chosen, from_stored=True))
    assert (asked.exit_code, nights.posts()) == (0, 1)


def _alike(world: World, one: str, other: str) -> None:
    world.accounts[one].last4 = world.accounts[other].last4
    world.accounts[one].subcategory = world.accounts[other].subcategory


@pytest.mark.parametrize("disconnected", [False, True])
def test_accounts_that_a_relink_carried_over_unasked_are_told_too(make_nights: MakeNights, disconnected: bool) -> None:
    """The request covered one account; the customer linked both of the login under another one."""
    world = small_world(customers=1, broken=())
    nights = make_nights(world)
    nights.run()
    world.break_account("fca_1_1")
    nights.next_night()
    session_id = nights.by_authorization()["fcauth_1"].session_id or ""
    world.advance(hours=2)
    world.answer(
        session_id, "new_authorization", ["fca_1_1", "fca_1_2"], keep_account_ids=False, old_disconnected=disconnected
    )
    told = {row["old_account_id"]: row["matched_by"] for row in table(nights.next_night(), "account_successors")}
    assert told == ({"fca_1_1": "attributes", "fca_1_2": "twin"} if disconnected else {"fca_1_1": "attributes"})
