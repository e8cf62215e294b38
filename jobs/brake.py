"""Brakes on tonight's requests: what they hold becomes a plan file that a person can release, once."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from jobs.adapters import records
from jobs.night import MerchantNight
from jobs.plan_file import MerchantPlan, PlanFile, write_plan
from jobs.wiring import Wiring
from reconcile.brakes import BrakeInputs, apply_brakes
from reconcile.classify import flags
from reconcile.errors import DecisionNeeded, ReportError, SettingsError
from reconcile.model import AFFECTED, PLAN_LIFETIME, NextStep, Scope

WEEK_DAYS = 7


def brake(wiring: Wiring, night: MerchantNight) -> None:
    """Say which authorizations are held tonight, what a person released set aside (in memory).

    Raises:
        DecisionNeeded: the hash given is of no plan that can be released now.
    """
    database, scope, stamp = wiring.database, night.merchant.scope, night.stamp
    plan = _released(wiring, night)
    night.released = () if plan is None else plan.pairs
    night.brakes = apply_brakes(
        night.findings,
        wiring.brakes,
        BrakeInputs(
            known=records.known_affected(database, scope),
            new_this_week=records.newly_affected_since(
                database, scope, stamp.business_date - timedelta(days=WEEK_DAYS - 1)
            ),
            released_authorizations=set() if plan is None else _let_go(plan, night),
            first_run=not records.has_base_for_brakes(database, scope),
            live=scope.mode == "live",
        ),
    )


def _let_go(plan: records.HeldPlan, night: MerchantNight) -> set[str]:
    """The authorizations whose request is tonight about what a person let go.

    A released outage that is still open was chosen before all others of its authorization, so it is chosen again, unless another one
    opened since: that one nobody has looked at.
    """
    still_open = () if night.breakages is None else night.breakages.open
    let_go = {one.key.authorization_id for one in still_open if one.key in plan.pairs}
    return let_go - {
        one.key.authorization_id for one in still_open if one.key not in plan.pairs and one.opened_at > plan.created_at
    }


def _released(wiring: Wiring, night: MerchantNight) -> records.HeldPlan | None:
    """The plan whose hash this command was given, if it is this merchant's."""
    plan_hash = night.work.released_brake
    if plan_hash is None or night.drop_released:
        return None
    plan = records.held_plan(wiring.database, plan_hash)
    if plan is None and len(wiring.merchants) > 1:
        return None  # it may be what another merchant's dropped accounts wait for; `nightly` refuses what nobody knows
    if plan is None:
        raise DecisionNeeded(f"no held plan has the hash {plan_hash}: see `relink status` for those that wait")
    if Scope(plan.merchant, plan.mode) != night.merchant.scope:
        return None
    spent = plan.released_at is not None and plan.released_by_run not in night.work.resumes
    if spent or wiring.clock() - plan.created_at >= PLAN_LIFETIME:
        raise DecisionNeeded(
            f"plan {plan_hash} was released before or is older than 24 hours: run again and decide on the new plan"
        )
    return plan


def record_brakes(wiring: Wiring, night: MerchantNight) -> None:
    """Spend the release, keep what is held as a plan file, and remember which accounts are no longer new.

    Raises:
        LeaseLost: another run took over: it decides what is held and what is new, and this one records nothing more.
    """
    if night.released and night.work.released_brake is not None:
        _spend(wiring, night, night.work.released_brake)
    held = _write_held(wiring, night) if night.plan.held and night.work.sends else None

    def work(connection: Any) -> None:
        wiring.require_fence(connection)
        if held is not None:
            records.hold_plan(wiring.database, held)
        if night.pulled and night.stamp.command in records.BRAKED_COMMANDS:
            _remember(wiring, night)

    wiring.database.run(work)


def _spend(wiring: Wiring, night: MerchantNight, plan_hash: str) -> None:
    plan = records.held_plan(wiring.database, plan_hash)
    spent_by = None if plan is None else plan.released_by_run
    # The run that this one finishes may have spent it and not come to send anything.
    run_id = spent_by if spent_by in night.work.resumes and spent_by is not None else night.stamp.run_id
    records.release_plan(wiring.database, plan_hash, run_id, wiring.clock(), wiring.fence)


def _write_held(wiring: Wiring, night: MerchantNight) -> records.HeldPlan:
    """Write the file first: a plan that is on record can be read by whoever has to decide."""
    scope, stamp = night.merchant.scope, night.stamp
    plan = PlanFile(
        run_id=stamp.run_id,
        created_at=stamp.as_of,
        business_date=stamp.business_date,
        merchants=(MerchantPlan(scope, night.merchant.settings_hash, night.plan.held),),
    )
    directory = wiring.plan_directory
    path = directory / f"{stamp.run_id}-{scope.merchant}.json"
    try:
        write_plan(plan, path)
    except SettingsError as error:
        raise ReportError(str(error)) from None
    night.held_plan_hash, night.held_plan_file = plan.plan_hash, path
    return records.HeldPlan(
        plan_hash=plan.plan_hash,
        run_id=stamp.run_id,
        merchant=scope.merchant,
        mode=scope.mode,
        created_at=stamp.as_of,
        business_date=stamp.business_date,
        path=str(path),
        pairs=tuple(request.breakage for request in night.plan.held),
    )


def _remember(wiring: Wiring, night: MerchantNight) -> None:
    """Take in tonight's affected accounts, but not those that are held: they stay new until a person lets them go."""
    database, scope, stamp = wiring.database, night.merchant.scope, night.stamp
    known = records.known_affected(database, scope)
    affected = night.findings.loc[
        flags(night.findings["finding"].isin([str(kind) for kind in AFFECTED]))
        & flags(night.findings["ledger_status"] == "open")
    ]
    held = flags(affected["authorization_id"].isin(list(night.brakes.held_authorizations)))
    held = held | flags(affected["next_step"] == str(NextStep.HELD_BY_BRAKE))
    tonight = set(affected["account_id"])
    newly = set(affected.loc[~held, "account_id"]) - known
    records.advance_affected(
        database,
        scope,
        stamp.run_id,
        stamp.business_date,
        newly=newly,
        ended=known - tonight,
        baseline=not records.has_base_for_brakes(database, scope),
    )
