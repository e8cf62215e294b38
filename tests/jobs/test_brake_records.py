"""What the brakes read from the records and write to them, without a night around it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pandas as pd
import pytest
from sqlalchemy import text

from jobs.adapters import records
from jobs.brake import brake, record_brakes
from jobs.clock import new_stamp
from jobs.night import MerchantNight
from jobs.plan_file import read_plan
from jobs.settings import parse_settings
from jobs.wiring import Wiring, wire
from jobs.work import Work
from reconcile.errors import DecisionNeeded, LeaseLost, ReportError
from reconcile.model import BreakageKey, Plan, Scope
from tests.jobs.adapters.stored_values import AT, DATE, DAY, HOUR, RUN_ID, SCOPE, breakage, held, key, relink_request
from tests.reconcile.broken_accounts import findings

OTHER = Scope("other", SCOPE.mode)
HASH = "the hash of a plan"


@pytest.fixture
def wiring(sqlite_url: str, tmp_path: Path) -> Iterator[Wiring]:
    """Two merchants, of whom nobody is called."""
    named = [{"name": scope.merchant, "api_key_env": scope.merchant} for scope in (SCOPE, OTHER)]
    settings = parse_settings(
        {"merchants": named, "database": {"url": sqlite_url}, "reports": {"directory": str(tmp_path / "reports")}}
    )
    keys = {scope.merchant: f"rk_test_{scope.merchant}" for scope in (SCOPE, OTHER)}
    with wire(settings, keys, clock=lambda: AT) as wired:
        records.start_run(wired.database, RUN_ID, "run", DATE, AT, settings_hash="hash", settings={})
        yield wired


def night_of(wiring: Wiring, work: Work, scope: Scope = SCOPE, accounts: pd.DataFrame | None = None) -> MerchantNight:
    """A night that has come as far as to what is wrong with each account."""
    (merchant,) = (one for one in wiring.merchants if one.scope == scope)
    stamp = replace(new_stamp(work.command, wiring.clock, "UTC"), run_id=RUN_ID)
    return MerchantNight(merchant, work, stamp, findings=findings(3, 10) if accounts is None else accounts)


def hold(wiring: Wiring, scope: Scope = SCOPE) -> records.HeldPlan:
    made = records.HeldPlan(HASH, RUN_ID, scope.merchant, scope.mode, AT - HOUR, DATE, None, (key("fcauth_0"),))
    records.hold_plan(wiring.database, made)
    return made


def affected(wiring: Wiring) -> set[str]:
    return records.known_affected(wiring.database, SCOPE)


RELEASING = Work("run", released_brake=HASH)


def test_of_several_merchants_the_one_whose_plan_it_is_is_released(wiring: Wiring) -> None:
    theirs_held = hold(wiring, OTHER)
    theirs, ours = night_of(wiring, RELEASING, OTHER), night_of(wiring, RELEASING)
    for night in (theirs, ours):
        brake(wiring, night)
    assert (theirs.released, ours.released) == ((key("fcauth_0"),), ())
    record_brakes(wiring, ours)
    assert records.held_plan(wiring.database, HASH) == theirs_held, "it is not spent by another merchant's night"


def test_a_hash_that_nobody_knows_is_refused_where_there_is_one_merchant(wiring: Wiring) -> None:
    """Of several, it may be what another one's dropped accounts wait for."""
    night = night_of(wiring, RELEASING)
    brake(wiring, night)
    assert night.released == ()
    with pytest.raises(DecisionNeeded, match=f"no held plan has the hash {HASH}"):
        brake(replace(wiring, merchants=wiring.merchants[:1]), night)


def test_the_hash_of_a_drop_of_accounts_releases_no_plan(wiring: Wiring) -> None:
    hold(wiring)
    night = night_of(wiring, RELEASING)
    night.drop_released = True
    brake(wiring, night)
    assert night.released == ()


def test_a_plan_holds_for_a_day(wiring: Wiring) -> None:
    made_at = hold(wiring).created_at
    night = night_of(wiring, RELEASING)
    brake(replace(wiring, clock=lambda: made_at + DAY - timedelta(microseconds=1)), night)
    assert night.released == (key("fcauth_0"),)
    with pytest.raises(DecisionNeeded, match="older than 24 hours"):
        brake(replace(wiring, clock=lambda: made_at + DAY), night)


def test_a_plan_that_another_run_spent_releases_nothing(wiring: Wiring) -> None:
    hold(wiring)
    spent = records.release_plan(wiring.database, HASH, "run_2", AT)
    night = night_of(wiring, RELEASING)
    with pytest.raises(DecisionNeeded, match="was released before"):
        brake(wiring, night)
    night.released = spent.pairs  # somebody else was quicker between the two steps
    with pytest.raises(DecisionNeeded, match="to run run_2, and that holds once"):
        record_brakes(wiring, night)
    assert affected(wiring) == set()


def test_a_run_that_finishes_the_one_that_spent_a_plan_has_it_too(wiring: Wiring) -> None:
    hold(wiring)
    spent = records.release_plan(wiring.database, HASH, "run_2", AT)
    night = night_of(wiring, replace(RELEASING, resumes=("run_2",)))
    brake(wiring, night)
    assert night.released == spent.pairs
    record_brakes(wiring, night)
    assert records.held_plan(wiring.database, HASH) == spent


def test_a_release_is_recorded_with_who_has_it_and_when(wiring: Wiring) -> None:
    waiting = hold(wiring)
    night = night_of(wiring, RELEASING)
    brake(wiring, night)
    record_brakes(wiring, night)
    spent = replace(waiting, released_at=AT, released_by_run=RUN_ID)
    assert records.held_plan(wiring.database, HASH) == spent


def test_a_run_that_was_taken_over_holds_and_releases_nothing(wiring: Wiring) -> None:
    """The other one decides what is held and what is new, and it is the one that the release still waits for."""
    waiting, late = hold(wiring), replace(wiring, lease=held(wiring.database))
    holding, releasing = night_of(late, Work("run")), night_of(late, RELEASING)
    holding.plan, holding.pulled = Plan((), (), held=(relink_request(),)), True
    brake(late, releasing)
    assert releasing.released == waiting.pairs
    with wiring.database.begin() as connection:
        connection.execute(text("UPDATE relink_lease SET token = token + 1"))
    for night in (holding, releasing):
        with pytest.raises(LeaseLost):
            record_brakes(late, night)
    assert records.list_held_plans(wiring.database, AT) == [waiting]
    assert affected(wiring) == set()


def test_what_is_held_is_on_record_as_it_is_in_its_file(wiring: Wiring) -> None:
    night = night_of(wiring, Work("run"))
    asked = (relink_request("req_1"), relink_request("req_2", breakage=key("fcauth_2", "permissions", 3)))
    night.plan = Plan((), (), held=asked)
    record_brakes(wiring, night)
    path = wiring.plan_directory / f"{RUN_ID}-{SCOPE.merchant}.json"
    assert (night.held_plan_file, night.held_plan_hash) == (path, read_plan(path).plan_hash)
    plan = read_plan(path)
    assert (plan.run_id, plan.created_at, plan.business_date) == (RUN_ID, AT, DATE)
    assert [(one.scope, one.settings_hash, one.requests) for one in plan.merchants] == [
        (SCOPE, night.merchant.settings_hash, asked)
    ]
    pairs = (asked[0].breakage, asked[1].breakage)
    stored = records.HeldPlan(plan.plan_hash, RUN_ID, SCOPE.merchant, SCOPE.mode, AT, DATE, str(path), pairs)
    assert records.held_plan(wiring.database, plan.plan_hash) == stored


def test_a_plan_that_cannot_be_written_is_not_on_record(wiring: Wiring) -> None:
    night = night_of(wiring, Work("run"))
    night.plan, night.pulled = Plan((), (), held=(relink_request(),)), True
    wiring.plan_directory.parent.mkdir()
    wiring.plan_directory.touch()
    with pytest.raises(ReportError, match="the plan cannot be written to"):
        record_brakes(wiring, night)
    assert records.list_held_plans(wiring.database, AT) == []
    assert affected(wiring) == set()


def test_only_a_night_that_could_contact_and_pulled_makes_accounts_known(wiring: Wiring) -> None:
    for command, pulled in (("request", True), ("run", False), ("run", True)):
        assert affected(wiring) == set()
        night = night_of(wiring, Work(command))
        night.pulled = pulled
        record_brakes(wiring, night)
    assert affected(wiring) == {"fca_0", "fca_1", "fca_2"}
    assert records.newly_affected_since(wiring.database, SCOPE, DATE - DAY) == set(), "nobody knows when they broke"


def test_an_account_is_known_from_its_first_night_until_it_is_well(wiring: Wiring) -> None:
    records.record_run_merchant(wiring.database, RUN_ID, SCOPE, snapshot_id="snap", complete=True)
    records.finish_run(wiring.database, RUN_ID, records.COMPLETE, AT, 0)
    for days, broken in ((0, 3), (1, 4), (2, 2)):
        night = night_of(
            replace(wiring, clock=lambda days=days: AT + days * DAY), Work("run"), accounts=findings(broken, 10)
        )
        night.pulled = True
        record_brakes(wiring, night)
    on = [records.known_affected(wiring.database, SCOPE, DATE + days * DAY) for days in (0, 1, 2)]
    assert [sorted(one) for one in on] == [[f"fca_{row}" for row in range(broken)] for broken in (3, 4, 2)]
    since = [records.newly_affected_since(wiring.database, SCOPE, DATE + days * DAY) for days in (0, 1, 2)]
    assert since == [{"fca_0", "fca_1", "fca_2", "fca_3"}, {"fca_3"}, set()]


def test_what_is_held_or_not_the_ledgers_stays_new(wiring: Wiring) -> None:
    """Held by its authorization, or since the plan says so; in no ledger, or closed in it."""
    accounts = findings(7, 10)
    accounts.loc[0, "next_step"] = "held_by_brake"
    accounts.loc[1, "next_step"] = "request"
    accounts.loc[2, "ledger_status"] = None
    accounts.loc[3, "ledger_status"] = "closed"
    accounts.loc[4, "authorization_id"] = None
    night = night_of(wiring, Work("run"), accounts=accounts)
    night.pulled = True
    night.brakes = replace(night.brakes, held_authorizations=frozenset({"fcauth_5"}))
    record_brakes(wiring, night)
    assert affected(wiring) == {"fca_1", "fca_4", "fca_6"}


def test_the_base_of_the_brakes_is_what_other_nights_told(wiring: Wiring) -> None:
    """Known accounts are not new; what broke six dates ago counts for the week, a date more and it does not."""
    named = {"newly_broken_share": 1.0, "institution_share": 1.0, "minimum": 3, "newly_broken_share_7d": 0.2}
    wired = replace(wiring, brakes=replace(wiring.brakes, **named))
    records.record_run_merchant(wiring.database, RUN_ID, SCOPE, snapshot_id="snap", complete=True)
    records.finish_run(wiring.database, RUN_ID, records.COMPLETE, AT, 0)
    for days, account in ((6, "fca_0"), (7, "fca_elsewhere"), (1, "fca_1")):
        on = DATE - days * DAY
        records.advance_affected(wiring.database, SCOPE, RUN_ID, on, newly=[account], ended=[], baseline=False)
    night = night_of(wired, Work("run"))
    brake(wired, night)
    assert night.brakes.new_accounts == {"fca_2"}
    assert night.brakes.held_authorizations == {"fcauth_2"}
    assert "3 of 10 accounts broke within seven days" in night.brakes.reasons[0]


@pytest.mark.parametrize(
    ("open_now", "is_let_go"),
    [
        ([("connection", 1, -2)], True),
        ([("connection", 2, 0)], False),
        ([("connection", 1, -2), ("permissions", 1, -2)], True),
        ([("connection", 1, -2), ("permissions", 1, -1)], True),
        ([("connection", 1, -2), ("permissions", 1, 0)], False),
    ],
    ids=["as held", "a later one", "beside an older one", "beside one of the same night", "beside a newer one"],
)
def test_a_release_is_for_outages_that_still_are_and_none_that_came_since(
    wiring: Wiring, open_now: list[tuple[str, int, int]], is_let_go: bool
) -> None:
    from reconcile.breakages import BreakageStep

    named = {"newly_broken_share": 0.1, "institution_share": 1.0, "minimum": 1, "newly_broken_share_7d": 1.0}
    wired = replace(wiring, brakes=replace(wiring.brakes, **named))
    records.record_run_merchant(wiring.database, RUN_ID, SCOPE, snapshot_id="snap", complete=True)
    records.finish_run(wiring.database, RUN_ID, records.COMPLETE, AT, 0)
    hold(wiring)
    night = night_of(wired, RELEASING)
    outages = [
        breakage(key=BreakageKey("fcauth_0", kind, number), opened_at=AT + hours * HOUR)
        for kind, number, hours in open_now
    ]
    night.breakages = BreakageStep(open=tuple(outages), opened=(), closed=())
    brake(wired, night)
    assert ("fcauth_0" in night.brakes.held_authorizations) is not is_let_go
    assert {"fcauth_1", "fcauth_2"} <= night.brakes.held_authorizations
