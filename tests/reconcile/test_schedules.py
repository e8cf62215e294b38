"""A bank has a schedule only where enough of its logins say the same; what is told by it is true of the logins that are left."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from statistics import median_low
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconcile.frames import ACCOUNTS, FINDINGS, HISTORY, from_columns
from reconcile.model import RunStamp
from reconcile.schedules import (
    AGREEING_SHARE,
    MINIMUM_LAPSES,
    SHORTEST_DAYS,
    WINDOW_DAYS,
    Lapse,
    Lifetimes,
    Schedule,
    expected_lapses,
    learn,
    lifetimes,
)

TODAY = date(2026, 11, 2)
STAMP = RunStamp("run", "run", datetime(2026, 11, 2, 3, tzinfo=UTC), TODAY, "UTC")
BANK = "Alderbrook Mutual"


def at(on: date) -> datetime:
    return datetime.combine(on, time(3), UTC)


def frame(contract: Any, rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    return from_columns({name: [row.get(name) for row in rows] for name in contract}, contract)


def account(number: int, created: date, **more: Any) -> dict[str, Any]:
    made = {"account_id": f"fca_{number}", "authorization_id": f"fcauth_{number}", "institution_name": BANK}
    return made | {"stripe_status": "active", "created_at": at(created)} | more


def seen(number: int, on: date, status: str, **more: Any) -> dict[str, Any]:
    made = {"account_id": f"fca_{number}", "authorization_id": f"fcauth_{number}", "institution_name": BANK}
    made |= {"observed_at": at(on), "present": True, "stripe_status": status}
    if status == "inactive":
        made |= {"cause": "access_expired", "inactive_since": at(on), "inactive_since_basis": "observed"}
    return made | more


def of(history: Sequence[dict[str, Any]], accounts: Sequence[dict[str, Any]]) -> Lifetimes:
    return lifetimes(frame(HISTORY, history), frame(ACCOUNTS, accounts), STAMP)


def lapses(days: Iterable[int], bank: str = BANK, apart_days: int = 3) -> tuple[Lapse, ...]:
    """Lapses after so many days, on different dates."""
    ends = ((number, lasted, TODAY - timedelta(days=apart_days * number)) for number, lasted in enumerate(days))
    return tuple(Lapse(bank, f"gone_{number}", end - timedelta(days=lasted), end) for number, lasted, end in ends)


def learnt(told: Sequence[Lapse], ages: Sequence[int] = ()) -> Schedule | None:
    since = {f"works_{number}": TODAY - timedelta(days=age) for number, age in enumerate(ages)}
    return learn(Lifetimes(tuple(told), since), dict.fromkeys(since, BANK), STAMP).get(BANK)


def test_a_login_lasts_from_its_link_to_its_lapse_and_from_its_return_to_the_next() -> None:
    linked, first, back, second = (TODAY - timedelta(days=days) for days in (300, 210, 200, 110))
    history = [
        seen(1, linked, "active"),
        seen(1, first, "inactive"),
        seen(1, back, "active"),
        seen(1, second, "inactive"),
    ]
    known = of(history, [account(1, linked, stripe_status="inactive")])
    assert [(one.days, one.ended_on) for one in known.lapses] == [(90, first), (90, second)]
    assert known.working_since == {}


@pytest.mark.parametrize(
    "change",
    [{"cause": "access_denied"}, {"cause": "institution_requirement"}, {"inactive_since_basis": "first_run"}],
    ids=lambda change: next(iter(change.values())),
)
def test_only_what_time_ended_and_was_seen_to_end_counts(change: dict[str, str]) -> None:
    linked = TODAY - timedelta(days=100)
    assert of([seen(1, TODAY, "inactive", **change)], [account(1, linked, stripe_status="inactive")]).lapses == ()


def test_consent_is_counted_from_a_relink_before_the_end_and_from_another_authorization() -> None:
    linked, warned, renewed = (TODAY - timedelta(days=days) for days in (200, 110, 100))
    history = [
        seen(1, warned, "active", action="relink_required"),
        seen(1, renewed, "active", action="none"),
        seen(2, warned, "active", action="relink_required"),
        seen(2, renewed, "active", action="relink_required", authorization_id="fcauth_9"),
    ]
    accounts = [account(1, linked), account(2, linked, authorization_id="fcauth_9"), account(3, linked)]
    assert of(history, accounts).working_since == {"fcauth_1": renewed, "fcauth_9": renewed, "fcauth_3": linked}


def test_of_several_accounts_of_a_login_the_last_consent_counts_once() -> None:
    linked, added, end = TODAY - timedelta(days=90), TODAY - timedelta(days=80), TODAY - timedelta(days=1)
    login = {"authorization_id": "fcauth_1"}
    history = [seen(1, end, "inactive"), seen(2, end, "inactive", **login)]
    known = of(
        history, [account(1, linked, stripe_status="inactive"), account(2, added, stripe_status="inactive", **login)]
    )
    assert [(one.authorization_id, one.days) for one in known.lapses] == [("fcauth_1", 79)]
    assert of([], [account(1, linked), account(2, added, **login)]).working_since == {"fcauth_1": added}


def test_a_sharp_mode_among_other_lapses_is_a_schedule() -> None:
    told = lapses([180] * 15 + [181] * 10 + [178] * 2 + [30, 45, 100, 333])
    assert learnt(told) == Schedule(BANK, 180, 27, 31)


@pytest.mark.parametrize(
    ("told", "ages"),
    [
        (lapses([90] * (MINIMUM_LAPSES - 1)), ()),
        (lapses(range(60, 60 + 3 * MINIMUM_LAPSES)), ()),
        (lapses([90] * MINIMUM_LAPSES, apart_days=0), ()),
        (lapses([90] * MINIMUM_LAPSES), [200] * MINIMUM_LAPSES),
        (lapses([5] * MINIMUM_LAPSES), ()),
    ],
    ids=["too few", "spread out", "one bad night", "most outlive it", "too short"],
)
def test_what_is_no_schedule(told: tuple[Lapse, ...], ages: Sequence[int]) -> None:
    assert learnt(told, ages) is None


near = st.one_of(st.integers(86, 94), st.integers(0, 400))


@given(st.lists(near, max_size=60), st.lists(near, max_size=30))
def test_a_schedule_is_what_the_rule_says_of_it(days: list[int], ages: list[int]) -> None:
    found = learnt(lapses(days), ages)
    windows = [[each for each in days if low <= each < low + WINDOW_DAYS] for low in sorted(days)]
    fullest = max(windows, key=len, default=[])
    outlived = sum(age >= min(fullest) + WINDOW_DAYS for age in ages) if fullest else 0
    enough = len(fullest) >= MINIMUM_LAPSES and len(fullest) >= AGREEING_SHARE * (len(days) + outlived)
    if enough and min(fullest) >= SHORTEST_DAYS:
        assert found == Schedule(BANK, median_low(fullest), len(fullest), len(days) + outlived)
    else:
        assert found is None


@given(st.permutations(range(31)))
def test_the_order_of_lapses_tells_nothing(order: list[int]) -> None:
    told = lapses([180] * 15 + [181] * 10 + [178] * 2 + [30, 45, 100, 333])
    assert learnt([told[number] for number in order]) == learnt(told)


def finding(number: int, **more: Any) -> dict[str, Any]:
    made = account(number, TODAY) | {"ledger_status": "open", "exposure_minor": 100, "currency": "usd"}
    return made | more


def test_logins_that_come_near_the_schedule_are_counted_by_date_with_their_money() -> None:
    schedule = Schedule(BANK, 90, 40, 42)
    ages = {1: 80, 2: 80, 3: 90, 4: 92, 5: 94, 6: 60, 7: 85, 8: 85, 9: 85, 10: 85}
    known = Lifetimes((), {f"fcauth_{number}": TODAY - timedelta(days=age) for number, age in ages.items()})
    findings = [
        *(finding(number) for number in range(1, 7)),
        finding(11, authorization_id="fcauth_1", currency="eur", exposure_minor=7),
        finding(12, authorization_id="fcauth_2", ledger_status="closed"),
        finding(7, ledger_status="closed"),
        finding(8, expected_deactivation_at=at(TODAY)),
        finding(9, active_action="relink_required"),
        finding(10, institution_name="Eastmarrow Trust"),
    ]
    (found,) = expected_lapses({BANK: schedule}, known, frame(FINDINGS, findings), STAMP, 14)
    assert found.logins_by_date == {TODAY: 2, TODAY + timedelta(days=10): 2}
    assert (found.logins, found.accounts) == (4, 5)
    assert found.exposure_by_currency == {"eur": 7, "usd": 400}


def test_a_login_with_an_account_that_is_already_told_is_left_out() -> None:
    known = Lifetimes((), {"fcauth_1": TODAY - timedelta(days=85)})
    rows = [finding(1), finding(2, authorization_id="fcauth_1", stripe_status="inactive")]
    assert expected_lapses({BANK: Schedule(BANK, 90, 40, 42)}, known, frame(FINDINGS, rows), STAMP, 14) == ()
