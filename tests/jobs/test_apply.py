"""A plan file is carried out as it was agreed, or not at all."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from jobs.nightly import RunResult
from jobs.plan_file import MerchantPlan, PlanFile, check_applicable, read_plan, write_plan
from jobs.work import Work
from reconcile.errors import DecisionNeeded, SettingsError
from reconcile.model import Scope
from tests.jobs.nights import Nights, add_customer, assert_ties, ledger_of, steps, table


def make_plan(nights: Nights) -> PlanFile:
    result = nights.run(Work("plan", dry_run=True))
    assert result.exit_code == 0
    return PlanFile(
        result.stamp.run_id,
        result.stamp.as_of,
        result.stamp.business_date,
        tuple(MerchantPlan(one.merchant.scope, one.merchant.settings_hash, one.plan.requests) for one in result.nights),
    )


def carry_out(nights: Nights, plan: PlanFile) -> RunResult:
    return nights.run(Work("apply", agreed={one.scope.merchant: one.requests for one in plan.merchants}))


def skipped(result: RunResult) -> dict[str, str]:
    return {name: why for night in result.nights for name, why in night.skipped}


def test_an_unchanged_plan_sends_exactly_its_rows(both_nights: Nights) -> None:
    nights = both_nights
    plan = make_plan(nights)
    assert nights.stored() == []
    nights.world.break_authorization("fcauth_5")
    nights.world.advance(hours=2)
    result = carry_out(nights, plan)
    assert result.exit_code == 0
    assert set(nights.world.contacts_by_authorization()) == {"fcauth_1", "fcauth_2", "fcauth_3"}
    assert skipped(result) == {}
    assert steps(result)["fca_5_1"] == "capped", "broken since, and not in the plan"
    assert_ties(result)
    assert nights.link("latest") is not None


def test_carrying_a_plan_out_twice_sends_nothing_more(nights: Nights) -> None:
    plan = make_plan(nights)
    carry_out(nights, plan)
    nights.world.advance(hours=1)
    again = carry_out(nights, plan)
    assert (again.exit_code, nights.posts()) == (0, 3)
    assert set(skipped(again)) == {"fcauth_1", "fcauth_2", "fcauth_3"}
    assert all("open_session" in why for why in skipped(again).values())
    assert_ties(again)


def test_what_changed_since_is_skipped_and_listed(nights: Nights) -> None:
    for number in (7, 8):
        add_customer(nights.world, number)
        nights.world.break_authorization(f"fcauth_{number}")
    nights.load_ledger()
    plan = make_plan(nights)
    nights.world.heal_authorization("fcauth_1")
    nights.world.heal_account("fca_2_2")
    nights.world.break_account("fca_2_1")
    for account in ("fca_3_1", "fca_3_2"):
        nights.world.set_holder(account, ("customer", "cus_9"))
    nights.load_ledger(
        [
            row
            | ({"account_holder_id": "cus_9"} if str(row["account_id"]).startswith("fca_3") else {})
            | ({"required_permissions": "balances"} if str(row["account_id"]).startswith("fca_7") else {})
            for row in ledger_of(nights.world)
        ]
    )
    nights.world.advance(hours=1)
    result = carry_out(nights, plan)
    assert result.exit_code == 0
    assert set(nights.world.contacts_by_authorization()) == {"fcauth_8"}
    assert skipped(result) == {
        "fcauth_1": "it needs no relink any more",
        "fcauth_2": "its accounts changed",
        "fcauth_3": "its holder changed",
        "fcauth_7": "the permissions to ask for changed",
    }
    assert len(table(result, "relink_requests")) == 1
    assert_ties(result)


def test_a_plan_whose_attempt_was_made_meanwhile_is_skipped(nights: Nights) -> None:
    plan = make_plan(nights)
    nights.run()
    for effect in list(nights.world.effects):
        nights.world.answer(effect.session_id, "no_authorization")
    nights.world.advance(hours=20)
    nights.sections["relink"] = {"cooldown_days": 2}
    result = carry_out(nights, plan)
    assert nights.posts() == 3
    assert set(skipped(result)) == {"fcauth_1", "fcauth_2", "fcauth_3"}
    assert_ties(result)


def test_a_plan_survives_its_file(nights: Nights, tmp_path: Path) -> None:
    plan = make_plan(nights)
    write_plan(plan, tmp_path / "plan.json")
    assert (tmp_path / "plan.json").stat().st_mode & 0o777 == 0o600
    assert read_plan(tmp_path / "plan.json") == plan
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".plan")] == []


@pytest.mark.parametrize(
    "edit",
    [
        lambda content: content["merchants"][0]["requests"].pop(),
        lambda content: content["merchants"][0]["requests"][0]["permissions"].append("ownership"),
        lambda content: content["merchants"][0]["requests"][0].update(attempt=2),
        lambda content: content.update(created_at="2026-11-20T00:00:00+00:00"),
        lambda content: content.update(created_at="2026-11-20T00:00:00"),
        lambda content: content["merchants"][0].update(mode="live"),
        lambda content: content.pop("plan_hash"),
        lambda content: content.update(plan_hash="0" * 64),
    ],
)
def test_an_edited_plan_is_refused(nights: Nights, tmp_path: Path, edit: object) -> None:
    path = tmp_path / "plan.json"
    write_plan(make_plan(nights), path)
    content = json.loads(path.read_text())
    edit(content)  # type: ignore[operator]
    path.write_text(json.dumps(content))
    with pytest.raises(DecisionNeeded, match="was changed since it was written"):
        read_plan(path)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"format": 1}', '{"format": 99}', '{"format":1,"run_id":"x"}', "\x00"]
)
def test_what_is_no_plan_is_told_apart(tmp_path: Path, text: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(text)
    with pytest.raises(SettingsError, match="is not a plan"):
        read_plan(path)


def test_a_plan_of_other_settings_mode_merchant_or_age_is_refused(nights: Nights) -> None:
    plan = make_plan(nights)
    (mine,) = plan.merchants
    now = plan.created_at
    expected = {mine.scope: mine.settings_hash}
    check_applicable(plan, expected, now + timedelta(hours=24))
    for other, at, why in (
        ({mine.scope: "other"}, now, "settings changed"),
        ({Scope("main", "live"): mine.settings_hash}, now, "sandbox mode"),
        ({Scope("other", "sandbox"): mine.settings_hash}, now, "merchant main"),
        (expected, now + timedelta(hours=24, seconds=1), "more than 24 hours"),
    ):
        with pytest.raises(DecisionNeeded, match=why):
            check_applicable(plan, other, at)
    nights.sections["relink"] = {"cooldown_days": 9}
    changed = make_plan(nights)
    with pytest.raises(DecisionNeeded, match="settings changed"):
        check_applicable(changed, expected, now)
    assert replace(plan, run_id="x").plan_hash != plan.plan_hash
