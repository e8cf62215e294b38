"""What may be asked for after a relink, and what the answers mean: by cases, and for every answer that Stripe could give."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconcile.model import Scope
from reconcile.refresh import (
    ASKED_WITHIN_DAYS,
    FEATURE_AT_STRIPE,
    READ_ON_DAYS,
    FeatureState,
    RefreshState,
    StoredRefresh,
    accounts_to_refresh,
    choose,
    is_given_up,
    read_due,
    refresh_id,
    refreshes_told,
)
from tests.reconcile.nights import FIRST_NIGHT, request, stamp, stored
from tests.reconcile.test_outcomes import TWO

HOUR = timedelta(hours=1)
ALL = tuple(FEATURE_AT_STRIPE)


def seen(status: str | None, hours: float | None = 1, next_hours: float | None = None) -> FeatureState:
    """A feature's refresh, in hours from the first night."""
    at = None if hours is None else FIRST_NIGHT + hours * HOUR
    return FeatureState(status, at, None if next_hours is None else FIRST_NIGHT + next_hours * HOUR, at)


def asked(**fields: Any) -> StoredRefresh:
    plain: dict[str, Any] = {
        "refresh_id": "refresh-1",
        "request_id": "req_1",
        "account_id": "fca_1",
        "run_id": "run0",
        "business_date": stamp().business_date,
        "state": "asked",
        "features": ("balances", "transactions"),
        "planned_at": FIRST_NIGHT,
        "attempting_at": FIRST_NIGHT,
        "answered_at": FIRST_NIGHT,
        "seen": {},
    }
    return StoredRefresh(**(plain | fields))


@pytest.mark.parametrize(
    ("wanted", "granted", "ask"),
    [
        (ALL, ALL, ("balance", "ownership", "transactions")),
        (("transactions", "balances"), ALL, ("balance", "transactions")),
        (ALL, ("balances", "payment_method"), ("balance",)),
        (("ownership",), ("balances",), ()),
        (ALL, (), ()),
    ],
)
def test_only_what_settings_name_and_the_account_grants_is_asked_for(
    wanted: tuple[str, ...], granted: tuple[str, ...], ask: tuple[str, ...]
) -> None:
    features, choice = choose(wanted, granted, {}, FIRST_NIGHT, FIRST_NIGHT)
    assert choice.ask == ask
    assert set(features) == set(wanted) & set(granted)
    assert (choice.state == RefreshState.NOT_SENT) == (not ask)


def test_what_stripe_does_not_allow_yet_is_waited_for_together() -> None:
    states = {"balances": seen("succeeded", -30, 2), "transactions": seen("failed", -40, -20)}
    _, choice = choose(("balances", "transactions"), ALL, states, FIRST_NIGHT, FIRST_NIGHT)
    assert (choice.ask, choice.state, choice.not_before_at) == ((), RefreshState.PLANNED, FIRST_NIGHT + 2 * HOUR)
    _, choice = choose(("balances", "transactions"), ALL, states, FIRST_NIGHT, FIRST_NIGHT + 2 * HOUR)
    assert choice.ask == ("balance", "transactions")


def test_what_stripe_is_refreshing_is_waited_for_and_is_fresh_after() -> None:
    _, choice = choose(("balances",), ALL, {"balances": seen("pending")}, FIRST_NIGHT, FIRST_NIGHT)
    assert (choice.ask, choice.state) == ((), RefreshState.PLANNED)
    _, choice = choose(("balances",), ALL, {"balances": seen("succeeded", 3, 4)}, FIRST_NIGHT, FIRST_NIGHT + 24 * HOUR)
    assert (choice.ask, choice.state) == ((), RefreshState.FRESH)


STATES = st.builds(
    seen,
    st.sampled_from(["pending", "succeeded", "failed", None, "of another word"]),
    st.one_of(st.none(), st.floats(-48, 48)),
    st.one_of(st.none(), st.floats(-48, 48)),
)


@given(st.sets(st.sampled_from(ALL)), st.sets(st.sampled_from(ALL)), st.dictionaries(st.sampled_from(ALL), STATES))
def test_no_answer_makes_it_ask_too_early_or_for_what_is_not_granted(
    wanted: set[str], granted: set[str], states: dict[str, FeatureState]
) -> None:
    features, choice = choose(sorted(wanted), sorted(granted), states, FIRST_NIGHT, FIRST_NIGHT)
    assert set(features) == wanted & granted
    ours = {stripes: name for name, stripes in FEATURE_AT_STRIPE.items()}
    for name in (ours[one] for one in choice.ask):
        assert name in features
        state = states.get(name)
        assert state is None or (state.status != "pending" and (state.next_available_at or FIRST_NIGHT) <= FIRST_NIGHT)
    assert choice.not_before_at is None or choice.not_before_at > FIRST_NIGHT
    assert bool(choice.ask) + (choice.state != RefreshState.PLANNED) <= 1


@pytest.mark.parametrize(
    ("states", "status", "through"),
    [
        ({}, "pending", (None, None)),
        ({"balances": seen("pending"), "transactions": seen("succeeded")}, "pending", (None, 1)),
        ({"balances": seen("succeeded"), "transactions": seen("succeeded", 2)}, "succeeded", (1, 2)),
        ({"balances": seen("failed"), "transactions": seen("succeeded")}, "failed", (None, 1)),
        ({"balances": seen("failed", -5), "transactions": seen("succeeded")}, "pending", (None, 1)),
        ({"balances": seen("succeeded", -5), "transactions": seen("succeeded")}, "pending", (None, 1)),
        ({"balances": seen("succeeded", None), "transactions": seen("of another word")}, "pending", (None, None)),
    ],
)
def test_a_report_says_how_it_ended_and_up_to_when_the_data_are(
    states: dict[str, FeatureState], status: str, through: tuple[int | None, int | None]
) -> None:
    told = refreshes_told([asked(seen=states)], stamp(1))["fca_1"]
    assert told.refresh_status == status
    expected = [None if hours is None else FIRST_NIGHT + hours * HOUR for hours in through]
    assert [told.balances_as_of, told.transactions_through] == expected
    assert told.ownership_as_of is None
    assert (told.refresh_failure is not None) == (status == "failed")


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"state": "planned", "attempting_at": None, "answered_at": None}, "waiting"),
        ({"state": "attempting", "answered_at": None}, "unknown"),
        ({"state": "unknown"}, "unknown"),
        ({"state": "rejected", "error_code": "x", "error_message": "no"}, "rejected"),
        ({"state": "not_sent"}, "not_sent"),
    ],
)
def test_what_was_not_taken_on_is_told_as_it_is(fields: dict[str, Any], status: str) -> None:
    told = refreshes_told([asked(**fields)], stamp(1))["fca_1"]
    assert (told.refresh_status, told.balances_as_of) == (status, None)
    assert told.refresh_failure == ("x: no" if status == "rejected" else None)


def test_a_pending_one_is_read_on_its_dates_and_then_given_up() -> None:
    reads, one = [], asked(seen={"balances": seen("pending")}, last_checked_at=FIRST_NIGHT)
    for day in range(12):
        if read_due(one, stamp(day)):
            reads.append(day)
            one = asked(seen=one.seen, last_checked_at=FIRST_NIGHT + timedelta(days=day))
    assert tuple(reads) == READ_ON_DAYS
    assert refreshes_told([one], stamp(6))["fca_1"].refresh_status == "pending"
    assert refreshes_told([one], stamp(7))["fca_1"].refresh_status == "unfinished"
    assert read_due(asked(last_checked_at=FIRST_NIGHT), stamp(30)), "missed dates are made up for"
    done = {"balances": seen("succeeded"), "transactions": seen("failed")}
    assert not any(read_due(asked(seen=done, last_checked_at=FIRST_NIGHT), stamp(day)) for day in range(12))


def test_one_that_was_never_asked_for_is_given_up() -> None:
    one = asked(state="planned")
    assert [is_given_up(one, stamp(day)) for day in (0, ASKED_WITHIN_DAYS, ASKED_WITHIN_DAYS + 1)] == [
        False,
        False,
        True,
    ]


def test_the_newest_refresh_of_an_account_is_told() -> None:
    later: datetime = FIRST_NIGHT + timedelta(days=3)
    both = [asked(refresh_id="b", planned_at=later, state="rejected"), asked(refresh_id="a")]
    assert refreshes_told(both, stamp(4))["fca_1"].refresh_status == "rejected"


def test_its_identity_is_the_account_and_the_success() -> None:
    scope = Scope("main", "sandbox")
    ids = {refresh_id(one, r, a) for one in (scope, Scope("main", "live")) for r in ("r1", "r2") for a in ("a", "b")}
    assert len(ids) == 8
    assert refresh_id(scope, "r1", "a") in ids
    assert all(len("relink-" + one) <= 255 for one in ids)


@pytest.mark.parametrize(
    ("outcome", "cured", "accounts"),
    [
        ("relinked", ("fca_1", "fca_2"), ["fca_1", "fca_2"]),
        ("relinked", None, ["fca_1", "fca_2"]),
        ("relinked_partially", ("fca_2",), ["fca_2"]),
        ("relinked_partially", None, []),
        ("failed", (), []),
        ("healed", ("fca_1", "fca_2"), []),
        ("new_authorization", ("fca_1",), []),
        (None, None, []),
    ],
)
def test_accounts_that_a_success_brought_back(
    outcome: str | None, cured: tuple[str, ...] | None, accounts: list[str]
) -> None:
    one = stored(request(*TWO), stamp().business_date, FIRST_NIGHT, outcome=outcome, cured_accounts=cured)
    assert accounts_to_refresh(one, ()) == accounts
