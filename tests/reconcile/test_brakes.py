"""When a night looks like a fault: each brake at its edge, and what a person released."""

from __future__ import annotations

import pandas as pd
import pytest

from reconcile.brakes import BrakeInputs, BrakeVerdict, apply_brakes, check_account_drop, decision_hash, tally_brakes
from reconcile.errors import DecisionNeeded
from reconcile.frames import FINDINGS, from_columns
from reconcile.model import Scope
from reconcile.policy import BrakePolicy
from tests.reconcile.broken_accounts import findings

SCOPE = Scope("main", "sandbox")


def judge(frame: pd.DataFrame, policy: BrakePolicy | None = None, **inputs: object) -> BrakeVerdict:
    given: dict[str, object] = {
        "known": (),
        "new_this_week": (),
        "released_authorizations": (),
        "first_run": False,
        "live": False,
        **inputs,
    }
    return apply_brakes(frame, policy or BrakePolicy(institution_share=1.0), BrakeInputs(**given))  # type: ignore[arg-type]


@pytest.mark.parametrize(("broken", "held"), [(25, 0), (26, 26)])
def test_the_share_of_the_night_holds_what_is_above_it(broken: int, held: int) -> None:
    """5% of 500 is 25: just that many pass, one more is held."""
    assert len(judge(findings(broken, 500)).held_authorizations) == held


@pytest.mark.parametrize(("broken", "held"), [(24, 0), (25, 25)])
def test_below_the_minimum_no_share_of_the_whole_counts(broken: int, held: int) -> None:
    assert len(judge(findings(broken, 100)).held_authorizations) == held


def test_what_broke_before_is_not_new() -> None:
    known = [f"fca_{row}" for row in range(30)]
    verdict = judge(findings(40, 500), known=known)
    assert verdict.held_authorizations == frozenset()
    assert verdict.new_accounts == {f"fca_{row}" for row in range(30, 40)}


def test_a_drip_over_the_week_is_held_although_each_night_is_small() -> None:
    """Ten tonight and 41 since last week are above 10% of 500; the other nights' requests are out already."""
    known = [f"fca_{row}" for row in range(10, 51)]
    verdict = judge(findings(10, 500), known=known, new_this_week=known)
    assert verdict.held_authorizations == {f"fcauth_{row}" for row in range(10)}
    assert judge(findings(9, 500), known=known, new_this_week=known).held_authorizations == frozenset()


def test_a_bad_week_holds_nothing_on_a_night_without_news() -> None:
    known = [f"fca_{row}" for row in range(60)]
    verdict = judge(findings(60, 100), known=known, new_this_week=known)
    assert verdict == BrakeVerdict(frozenset(), frozenset(), ())


@pytest.mark.parametrize(("before", "held"), [(23, 0), (24, 1)])
def test_a_week_of_just_the_minimum_counts(before: int, held: int) -> None:
    known = [f"fca_{row}" for row in range(1, before + 1)]
    verdict = judge(findings(1, 100), known=known, new_this_week=known)
    assert (len(verdict.held_authorizations), verdict.new_accounts) == (held, {"fca_0"})


def test_each_institution_above_its_share_is_held_and_named() -> None:
    frames = [findings(5, 20, name, start) for name, start in (("Bank Two", 0), ("Bank Three", 100))]
    verdict = judge(pd.concat([*frames, findings(0, 480, start=1000)], ignore_index=True), BrakePolicy())
    assert verdict.held_authorizations == {f"fcauth_{row}" for row in (*range(5), *range(100, 105))}
    assert len(verdict.reasons) == 2
    assert all(any(name in reason for reason in verdict.reasons) for name in ("Bank Two", "Bank Three"))


def test_every_brake_that_holds_the_whole_is_named() -> None:
    reasons = judge(findings(60, 500), BrakePolicy(institution_share=1.0)).reasons
    assert ["newly_broken_share 0.05" in reasons[0], "newly_broken_share_7d 0.1" in reasons[1]] == [True, True]


def test_one_institution_is_held_alone() -> None:
    frame = pd.concat([findings(5, 20, "Bank Two"), findings(3, 480, "Bank One", start=1000)], ignore_index=True)
    verdict = judge(frame, BrakePolicy())
    assert verdict.held_authorizations == {f"fcauth_{row}" for row in range(5)}
    assert "Bank Two" in verdict.reasons[0]


@pytest.mark.parametrize(("broken", "total"), [(4, 20), (19, 19)])
def test_a_fifth_of_an_institution_or_a_small_one_passes(broken: int, total: int) -> None:
    frame = pd.concat([findings(broken, total, "Bank Two"), findings(0, 480, start=1000)], ignore_index=True)
    assert judge(frame, BrakePolicy()).held_authorizations == frozenset()


def test_a_first_live_run_is_held_and_a_first_sandbox_run_is_not() -> None:
    held = judge(findings(1, 500), first_run=True, live=True)
    assert (held.held_authorizations, held.new_accounts) == ({"fcauth_0"}, {"fca_0"})
    assert judge(findings(400, 500), first_run=True, live=False).held_authorizations == frozenset()


def test_what_is_released_of_a_first_live_run_is_braked_as_any_other_night() -> None:
    released = [f"fcauth_{row}" for row in range(30)]
    first = {"first_run": True, "live": True, "released_authorizations": released}
    assert judge(findings(55, 500), **first).reasons == ()
    assert judge(findings(56, 500), **first).held_authorizations == {f"fcauth_{row}" for row in range(30, 56)}


def test_a_first_live_run_without_news_holds_nothing() -> None:
    assert judge(findings(0, 500), first_run=True, live=True).reasons == ()


def test_all_accounts_are_the_sum_of_their_parts() -> None:
    parts = [findings(5, 20, "Bank Two"), findings(7, 30, "Bank One", 100), findings(1, 20, "Bank Two", 200)]
    whole = tally_brakes(pd.concat(parts, ignore_index=True))
    first, *others = (tally_brakes(part) for part in parts)
    added = sum(others, first)
    assert (added.present, added.present_by_institution) == (70, {"Bank One": 30, "Bank Two": 40})
    assert (whole.present, whole.present_by_institution) == (70, {"Bank One": 30, "Bank Two": 40})
    pd.testing.assert_frame_equal(added.affected, whole.affected)
    assert list(whole.affected["account_id"]) == [f"fca_{row}" for row in (*range(5), *range(100, 107), 200)]


def test_a_release_lets_its_pairs_go_and_brakes_the_rest_afresh() -> None:
    released = [f"fcauth_{row}" for row in range(100)]
    assert judge(findings(110, 500), released_authorizations=released).held_authorizations == frozenset()
    verdict = judge(findings(126, 500), released_authorizations=released)
    assert verdict.held_authorizations == {f"fcauth_{row}" for row in range(100, 126)}


def test_closed_rows_neither_brake_nor_count() -> None:
    frame = findings(30, 60)
    frame["ledger_status"] = from_columns(
        {**{n: [None] * 60 for n in FINDINGS}, "ledger_status": ["closed"] * 60}, FINDINGS
    )["ledger_status"]
    verdict = judge(frame, BrakePolicy())
    assert (verdict.held_authorizations, verdict.new_accounts) == (frozenset(), frozenset())


@pytest.mark.parametrize(
    ("before", "vanished", "stops"),
    [
        (1000, 20, False),
        (1300, 26, False),
        (1000, 24, False),
        (1000, 25, True),
        (3, 3, True),
        (3, 2, False),
        (3, 0, False),
        (0, 0, False),
    ],
)
def test_an_account_drop_stops_above_its_share_and_minimum_or_when_all_are_gone(
    before: int, vanished: int, stops: bool
) -> None:
    ids = [f"fca_{row}" for row in range(before)]
    if not stops:
        assert check_account_drop(SCOPE, ids, ids[:vanished], BrakePolicy(), None) is False
        return
    with pytest.raises(DecisionNeeded) as stopped:
        check_account_drop(SCOPE, ids, ids[:vanished], BrakePolicy(), "another hash")
    digest = decision_hash("account_drop", SCOPE, ids[:vanished])
    assert digest in str(stopped.value)
    assert "the first is fca_0." in str(stopped.value)
    assert check_account_drop(SCOPE, ids, ids[:vanished], BrakePolicy(), digest) is True
    with pytest.raises(DecisionNeeded):
        check_account_drop(
            SCOPE, ids, ids[: vanished - 1] or ids, BrakePolicy(minimum=1), digest if vanished > 1 else None
        )


def test_a_hash_stays_what_it_is_from_one_version_to_the_next() -> None:
    """A person copies it from tonight's message into tomorrow's command, and an upgrade may lie between."""
    assert decision_hash("account_drop", SCOPE, ["fca_1", "fca_2"]) == "810677d9b3ead5826cf34ce7"
    others = {
        decision_hash("other", SCOPE, ["fca_1", "fca_2"]),
        decision_hash("account_drop", Scope("main", "live"), ["fca_1", "fca_2"]),
        decision_hash("account_drop", Scope("other", "sandbox"), ["fca_1", "fca_2"]),
        decision_hash("account_drop", SCOPE, ["fca_1"]),
        decision_hash("account_drop", SCOPE, ["fca_1,fca_2"]),
    }
    assert len(others) == 5
