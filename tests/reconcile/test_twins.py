"""Accounts that may be one and the same at the bank: what proves it, what refutes it, and who is asked where neither does."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from itertools import combinations
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from reconcile.ledger import LedgerRow
from reconcile.model import AFFECTED, Successor
from reconcile.records import AccountRecord
from tests.reconcile.nights import FIRST_NIGHT, Decided, Memory, account, decide, inactive, row, stamp

LONG_AGO = {"created_at": FIRST_NIGHT - timedelta(days=300)}


def linked(hours: float) -> dict[str, Any]:
    """Linked so many hours after the first night."""
    return {"created_at": FIRST_NIGHT + timedelta(hours=hours)}


def nights(*each: Sequence[AccountRecord], ledger: Sequence[LedgerRow], memory: Memory | None = None) -> Decided:
    """Night after night with these accounts; what the last one decided."""
    memory = memory or Memory()
    memory.looks_for_twins = True
    decided = None
    for day, accounts in enumerate(each):
        decided = decide(accounts, ledger, memory, stamp(day))
    assert decided is not None
    return decided


def moved(decided: Decided) -> dict[str, str]:
    return {one.old_account_id: one.new_account_id for one in decided.twins.successors}


OLD, NEW = ("fca_1", "fcauth_1"), ("fca_2", "fcauth_2")
WELL = account(*OLD, **LONG_AGO)
BROKEN = inactive(*OLD, **LONG_AGO)
BOTH = [row("fca_1"), row("fca_2")]


def test_a_link_after_the_break_takes_the_place_of_the_broken_account() -> None:
    fresh = account(*NEW, **linked(30))
    found = nights([WELL], [BROKEN], [BROKEN, fresh], ledger=[row("fca_1")])
    assert found.twins.successors == (Successor("fca_1", "fca_2", "fcauth_1", "fcauth_2", "twin", ""),)
    assert found.steps() == {"fca_1": "replaced", "fca_2": "review"}, "the ledger does not name the new one yet"
    assert found.asked == []
    assert found.breakages.closed[0][1] == "replaced"


def test_once_proven_it_stays_so_and_is_not_told_twice() -> None:
    fresh, memory = account(*NEW, **linked(30)), Memory()
    found = nights([WELL], [BROKEN], [BROKEN, fresh], [BROKEN, fresh], ledger=BOTH, memory=memory)
    assert found.twins.successors == ()
    assert found.steps() == {"fca_1": "replaced", "fca_2": "none"}
    assert len(memory.known) == 1


def test_a_break_and_a_new_link_of_one_day_are_seen_in_one_night() -> None:
    assert moved(nights([WELL], [BROKEN, account(*NEW, **linked(20))], ledger=BOTH)) == {"fca_1": "fca_2"}


def test_what_was_disconnected_is_linked_afresh_too() -> None:
    gone = account(*OLD, status="disconnected", **LONG_AGO)
    assert moved(nights([WELL], [gone, account(*NEW, **linked(20))], ledger=BOTH)) == {"fca_1": "fca_2"}


def test_the_living_one_is_asked_about_when_it_needs_it() -> None:
    fresh = account(*NEW, **linked(20))
    found = nights([WELL], [BROKEN, fresh], [BROKEN, inactive(*NEW, **linked(20))], ledger=BOTH)
    assert found.steps() == {"fca_1": "replaced", "fca_2": "request"}


def assert_only_reviewed(found: Decided, account_id: str = "fca_1") -> None:
    assert found.twins.successors == ()
    assert found.steps()[account_id] == "review"
    assert not any(one.account_id == account_id for request in found.plan.requests for one in request.covered)


def test_accounts_that_a_bank_ever_showed_under_one_login_are_two() -> None:
    """The wrong successors of a month of simulated nights were such pairs."""
    joint = account("fca_2", "fcauth_1", **LONG_AGO)
    apart = account(*NEW, **LONG_AGO)
    found = nights([WELL, joint], [WELL, apart], [BROKEN, apart], ledger=BOTH)
    assert found.twins.successors == ()
    assert found.steps() == {"fca_1": "request", "fca_2": "none"}
    fresh = account("fca_3", "fcauth_3", **linked(20))
    both = nights([WELL, joint], [BROKEN, inactive("fca_2", "fcauth_1", **LONG_AGO), fresh], ledger=BOTH)
    assert_only_reviewed(both, "fca_1")
    assert_only_reviewed(both, "fca_2")
    one = nights([WELL, joint], [BROKEN, joint, fresh], ledger=BOTH)
    assert_only_reviewed(one)


def test_accounts_that_once_worked_side_by_side_are_for_a_person() -> None:
    beside = account(*NEW, **linked(-100))
    found = nights([WELL, beside], [BROKEN, beside], ledger=BOTH)
    assert_only_reviewed(found)
    assert found.twins.in_review == {
        "fca_1": "it may be the same account as fca_2, which works: same customer, bank, last digits and kind"
    }


def test_a_successful_refresh_after_the_new_link_refutes_it() -> None:
    refreshed = {"last_refreshed_at": FIRST_NIGHT + timedelta(hours=21)}
    assert_only_reviewed(
        nights([WELL], [inactive(*OLD, **LONG_AGO, **refreshed), account(*NEW, **linked(20))], ledger=BOTH)
    )


def test_what_was_broken_at_the_first_look_may_have_worked_beside_the_other() -> None:
    assert_only_reviewed(nights([BROKEN, account(*NEW, **linked(-24))], ledger=BOTH))
    assert moved(nights([BROKEN], [BROKEN, account(*NEW, **linked(5))], ledger=BOTH)) == {"fca_1": "fca_2"}


def test_a_long_time_without_a_night_proves_nothing() -> None:
    memory = Memory(looks_for_twins=True)
    decide([WELL], BOTH, memory, stamp(0))
    assert_only_reviewed(decide([BROKEN, account(*NEW, **linked(20))], BOTH, memory, stamp(40)))


def test_the_older_of_two_never_takes_the_place_of_the_newer() -> None:
    newer = inactive(*OLD, **linked(10))
    found = nights([], [newer], [newer, account(*NEW, **LONG_AGO)], ledger=BOTH)
    assert_only_reviewed(found)


def test_one_trait_that_differs_or_is_missing_makes_no_twins() -> None:
    for change in (
        {"last4": "0002"},
        {"institution_name": "Bank Two"},
        {"subcategory": "savings"},
        {"account_holder_id": "cus_2"},
        {"holder_type": "customer_account"},
        {"last4": None},
        {"last4": ""},
    ):
        other = account(*NEW, **(linked(20) | change))
        ledger = [row("fca_1"), row("fca_2", other.account_holder_id or "")]
        assert nights([WELL], [BROKEN, other], ledger=ledger).steps()["fca_1"] == "request", change


def test_two_that_could_be_it_are_for_a_person() -> None:
    fresh = [account("fca_2", "fcauth_2", **linked(20)), account("fca_3", "fcauth_3", **linked(21))]
    assert_only_reviewed(nights([WELL], [BROKEN, *fresh], ledger=[*BOTH, row("fca_3")]))
    again = [account("fca_2", "fcauth_2", **linked(20)), account("fca_3", "fcauth_2", **linked(20))]
    assert_only_reviewed(nights([WELL], [BROKEN, *again], ledger=[*BOTH, row("fca_3")]))


def test_one_that_two_could_have_become_is_for_a_person() -> None:
    others = [WELL, account("fca_3", "fcauth_3", **LONG_AGO)]
    broken = [BROKEN, inactive("fca_3", "fcauth_3", **LONG_AGO)]
    found = nights(others, [*broken, account(*NEW, **linked(20))], ledger=[*BOTH, row("fca_3")])
    assert_only_reviewed(found, "fca_1")
    assert_only_reviewed(found, "fca_3")


def test_an_account_that_stripe_lists_no_more_could_have_become_it_too() -> None:
    vanished = account("fca_3", "fcauth_3", **LONG_AGO)
    assert_only_reviewed(nights([WELL, vanished], [BROKEN, account(*NEW, **linked(20))], ledger=BOTH))


def test_a_chain_of_links_is_told_link_by_link() -> None:
    memory = Memory()
    second = inactive(*NEW, **linked(20))
    third = account("fca_3", "fcauth_3", **linked(60))
    ledger = [*BOTH, row("fca_3")]
    found = nights(
        [WELL],
        [BROKEN, account(*NEW, **linked(20))],
        [BROKEN, second],
        [BROKEN, second, third],
        ledger=ledger,
        memory=memory,
    )
    assert memory.successors == {"fca_1": "fca_2", "fca_2": "fca_3"}
    assert found.steps() == {"fca_1": "replaced", "fca_2": "replaced", "fca_3": "none"}


def test_a_proof_is_withdrawn_when_the_old_account_works_again_beside_the_new_one() -> None:
    fresh = account(*NEW, **linked(20))
    found = nights([WELL], [BROKEN, fresh], [WELL, fresh], [BROKEN, fresh], ledger=BOTH)
    assert found.twins.withdrawn == {"fca_1"}
    assert_only_reviewed(found)


def test_an_account_closed_at_the_bank_lives_on_nowhere() -> None:
    closed = inactive(*OLD, inactive_action="none", inactive_cause="account_closed", **LONG_AGO)
    found = nights([WELL], [closed, account(*NEW, **linked(20))], ledger=BOTH)
    assert (moved(found), found.steps()["fca_1"]) == ({}, "not_relinkable")


def test_of_several_broken_ones_only_one_is_asked_about() -> None:
    broken = [BROKEN, inactive(*NEW, **linked(-50))]
    found = nights(broken, ledger=BOTH)
    assert found.steps() == {"fca_1": "review", "fca_2": "request"}, "the one linked last"
    found = nights(broken, ledger=[row("fca_1")])
    assert found.steps() == {"fca_1": "request", "fca_2": "review"}, "the ledger's"
    found = nights(broken, ledger=[row("fca_1"), row("fca_2", status="closed")])
    assert found.steps() == {"fca_1": "request", "fca_2": "ledger_closed"}, "the one in use"


def test_of_two_that_work_the_one_that_needs_nothing_stands_for_both() -> None:
    short = account(*OLD, permissions=("balances",), **LONG_AGO)
    ledger = [
        row("fca_1", required_permissions=("transactions",)),
        row("fca_2", required_permissions=("transactions",)),
    ]
    assert_only_reviewed(nights([short, account(*NEW, **linked(-5))], ledger=ledger))
    found = nights([short, account(*NEW, permissions=("balances",), **linked(-5))], ledger=ledger)
    assert found.steps() == {"fca_1": "review", "fca_2": "request"}


def test_the_others_of_the_login_are_asked_about_without_the_twin() -> None:
    sibling = inactive("fca_3", "fcauth_1", last4="0003", **LONG_AGO)
    well = account("fca_3", "fcauth_1", last4="0003", **LONG_AGO)
    beside = account(*NEW, **linked(-100))
    found = nights([WELL, well, beside], [BROKEN, sibling, beside], ledger=[*BOTH, row("fca_3")])
    assert found.steps() == {"fca_1": "review", "fca_2": "none", "fca_3": "request"}
    assert [one.account_id for one in found.plan.requests[0].covered] == ["fca_3"]


State = tuple[str, int]


@st.composite
def stories(draw: st.DrawFn) -> list[list[AccountRecord]]:
    """Five nights of up to five accounts of one customer whose traits all agree, under logins that may change."""
    count = draw(st.integers(2, 5))
    first = [draw(st.integers(0, 3)) for _ in range(count)]
    login = [draw(st.integers(0, 3)) for _ in range(count)]
    story = []
    for night in range(5):
        accounts = []
        for number in range(count):
            if draw(st.integers(0, 9)) == 0:
                login[number] = draw(st.integers(0, 3))
            status = draw(st.sampled_from(["active", "inactive", "inactive", "disconnected"]))
            if night < first[number]:
                continue
            made = {"created_at": FIRST_NIGHT + timedelta(days=first[number], hours=-5 - number)}
            make = inactive if status == "inactive" else account
            accounts.append(make(f"fca_{number}", f"fcauth_{login[number]}", **({"status": status} | made)))
        story.append(accounts)
    return story


@settings(max_examples=15, deadline=None)
@given(stories())
def test_twins_are_never_both_asked_about_nor_ever_two_that_a_bank_showed_together(
    story: list[list[AccountRecord]],
) -> None:
    memory = Memory(looks_for_twins=True)
    ledger = [row(f"fca_{number}") for number in range(5)]
    logins: dict[str, set[str | None]] = {}
    worked: set[tuple[str, str]] = set()
    for day, accounts in enumerate(story):
        for one in accounts:
            logins.setdefault(one.account_id, set()).add(one.authorization_id)
        active = [one.account_id for one in accounts if one.status == "active"]
        worked |= {pair for one, other in combinations(active, 2) for pair in ((one, other), (other, one))}
        found = decide(accounts, ledger, memory, stamp(day))
        status = {one.account_id: one.status for one in accounts}
        for one in found.twins.successors:
            old, new = one.old_account_id, one.new_account_id
            assert logins[old].isdisjoint(logins[new])
            assert (old, new) not in worked
            assert (status[old], status[new]) == (status[old], "active")
            assert status[old] != "active"
        heirs = [one.new_account_id for one in memory.known]
        assert len(heirs) == len(set(heirs)), "one to one"
        asked = [one.account_id for request in found.plan.requests for one in request.covered]
        for left, right in combinations(asked, 2):
            assert not logins[left].isdisjoint(logins[right]), "two that may be one are asked about in one night"
        for account_id in asked:
            alike = [each for each in status if each != account_id and logins[each].isdisjoint(logins[account_id])]
            living = [each for each in alike if status[each] == "active" and each not in memory.successors]
            assert not living, "another one works"
        assert all(found.cell(one, "finding") in {str(kind) for kind in AFFECTED} for one in found.twins.in_review)
