"""Accounts that a complete list leaves out: only Stripe's word for each that it is gone ends what is open about it."""

from __future__ import annotations

import pytest

from jobs.nightly import RunResult
from jobs.simulator.model import Account
from tests.jobs.nights import Nights, table

BOTH = ("fca_1_1", "fca_1_2")


def findings(result: RunResult) -> dict[str, tuple[str, str]]:
    return {row["account_id"]: (row["finding"], row["next_step"]) for row in table(result, "accounts")}


def hide(nights: Nights) -> list[Account]:
    hidden = [nights.world.accounts[name] for name in BOTH]
    for name in BOTH:
        nights.world.hide_account(name)
    return hidden


def test_an_outage_goes_on_although_its_accounts_are_left_out_of_the_list(nights: Nights) -> None:
    nights.run()
    hidden = hide(nights)
    left_out = nights.next_night()
    assert left_out.exit_code == 0
    assert nights.reads("accounts.retrieve") == 2
    assert {findings(left_out)[name] for name in BOTH} == {("inactive", "open_session")}
    nights.world.listing.extend(hidden)
    nights.world.renumber()
    back = nights.next_night()
    assert {findings(back)[name] for name in BOTH} == {("inactive", "open_session")}
    assert [one.request.breakage.number for one in nights.stored() if one.authorization_id == "fcauth_1"] == [1]


def test_what_stripe_does_not_have_is_gone(nights: Nights) -> None:
    nights.run()
    for name in BOTH:
        nights.world.remove_account(name)
    result = nights.next_night()
    assert result.exit_code == 0
    assert nights.reads("accounts.retrieve") == 2
    assert {findings(result)[name] for name in BOTH} == {("not_in_stripe", "not_relinkable")}


def test_of_accounts_without_anything_open_nothing_is_asked(nights: Nights) -> None:
    nights.run()
    nights.world.hide_account("fca_5_1")
    result = nights.next_night()
    assert nights.reads("accounts.retrieve") == 0
    assert findings(result)["fca_5_1"] == ("not_in_stripe", "not_relinkable")


@pytest.mark.parametrize("kind", ["error_503", "unauthorized"])
def test_a_night_that_cannot_learn_it_stops_before_it_acts(nights: Nights, kind: str) -> None:
    nights.run()
    hide(nights)
    nights.world.break_authorization("fcauth_5")
    before = nights.knowledge()
    nights.world.faults.script(kind, path=f"/v1/financial_connections/accounts/{BOTH[0]}", times=10)
    posts = nights.posts()
    result = nights.next_night()
    assert result.exit_code == 3
    assert (nights.knowledge(), nights.posts()) == (before, posts)
