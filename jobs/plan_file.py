"""A plan as a file that a person can read, keep and carry out later, with a hash that stands for exactly this plan."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from reconcile.errors import DecisionNeeded, SettingsError
from reconcile.model import PLAN_LIFETIME, BreakageKey, CoveredAccount, Holder, RelinkRequest, Scope

FORMAT = 1
CLOCK_DIFFERENCE = timedelta(minutes=5)
"""How far the host that made a plan may be ahead of the one that applies it."""

_UNFINISHED = ".[0-9]*Z-*-*.json.*"
"""Held plans, which are named by run and merchant; one that a person makes just now is named by its run alone."""


@dataclass(frozen=True, slots=True)
class MerchantPlan:
    """What would be asked of one merchant's customers, under which settings."""

    scope: Scope
    settings_hash: str
    requests: tuple[RelinkRequest, ...]


@dataclass(frozen=True, slots=True)
class PlanFile:
    """All merchants' plans of one moment."""

    run_id: str
    created_at: datetime
    business_date: date
    merchants: tuple[MerchantPlan, ...]

    @property
    def plan_hash(self) -> str:
        """A hash of everything in the plan."""
        text = json.dumps(_content(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def write_plan(plan: PlanFile, path: Path) -> None:
    """Write a plan with mode 0600, whole or not at all.

    Raises:
        SettingsError: the file cannot be written there.
    """
    import contextlib
    import os
    import tempfile

    content = {"plan_hash": plan.plan_hash, **_content(plan)}
    temporary = ""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=2, sort_keys=True)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise SettingsError(
            f"the plan cannot be written to {path}: {error.strerror}; name another file with --out"
        ) from None


def remove_leftovers(directory: Path) -> None:
    """Remove what killed runs left of held plans that they were writing; under the lock nobody else is writing one."""
    if directory.is_symlink():
        return
    for leftover in directory.glob(_UNFINISHED):
        leftover.unlink(missing_ok=True)


def read_plan(path: Path) -> PlanFile:
    """Read a plan back.

    Raises:
        SettingsError: there is no such file, or it is not a plan of this version.
        DecisionNeeded: the file was changed since it was written.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise SettingsError(f"{path} is not a plan of this version; make one with `relink plan --out {path.name}`")
        plan = PlanFile(
            run_id=content["run_id"],
            created_at=datetime.fromisoformat(content["created_at"]),
            business_date=date.fromisoformat(content["business_date"]),
            merchants=tuple(_merchant_plan(merchant) for merchant in content["merchants"]),
        )
    except OSError as error:
        raise SettingsError(f"the plan {path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise SettingsError(f"{path} is not a plan ({type(error).__name__}); make one with `relink plan`") from None
    if plan.plan_hash != content.get("plan_hash"):
        raise DecisionNeeded(f"{path} was changed since it was written: its hash does not match; make a new plan")
    return plan


def check_applicable(plan: PlanFile, expected: Mapping[Scope, str], now: datetime) -> None:
    """Refuse a plan of another merchant, mode or settings, or one that is too old.

    Args:
        expected: the settings hash of each merchant and mode that this deployment has.

    Raises:
        DecisionNeeded: naming what differs.
    """
    age = now - plan.created_at
    if not -CLOCK_DIFFERENCE <= age <= PLAN_LIFETIME:
        raise DecisionNeeded(
            f"the plan was made at {plan.created_at.isoformat()}, more than 24 hours from now; make a new one with `relink plan`"
        )
    for merchant in plan.merchants:
        if merchant.scope not in expected:
            raise DecisionNeeded(
                f"the plan is for merchant {merchant.scope.merchant} in {merchant.scope.mode} mode, which the settings do not "
                "have; use the settings that it was made with"
            )
        if expected[merchant.scope] != merchant.settings_hash:
            raise DecisionNeeded(
                f"merchant {merchant.scope.merchant}: the settings changed since the plan was made; make a new one with `relink plan`"
            )


def _content(plan: PlanFile) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "run_id": plan.run_id,
        "created_at": plan.created_at.isoformat(),
        "business_date": plan.business_date.isoformat(),
        "merchants": [
            {
                "merchant": merchant.scope.merchant,
                "mode": merchant.scope.mode,
                "settings_hash": merchant.settings_hash,
                "requests": [_as_plain(request) for request in merchant.requests],
            }
            for merchant in plan.merchants
        ],
    }


def _as_plain(request: RelinkRequest) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(asdict(request), default=str))
    return plain


def _merchant_plan(plain: Mapping[str, Any]) -> MerchantPlan:
    return MerchantPlan(
        scope=Scope(plain["merchant"], plain["mode"]),
        settings_hash=plain["settings_hash"],
        requests=tuple(_request(request) for request in plain["requests"]),
    )


def _request(plain: Mapping[str, Any]) -> RelinkRequest:
    values = dict(plain)
    values["breakage"] = BreakageKey(**values["breakage"])
    values["holder"] = Holder(**values["holder"])
    values["covered"] = tuple(
        CoveredAccount(**{**one, "required_permissions": tuple(one["required_permissions"])})
        for one in values["covered"]
    )
    values["due_date"] = None if values["due_date"] is None else date.fromisoformat(values["due_date"])
    for name in ("permissions", "references", "account_subcategories"):
        values[name] = tuple(values[name])
    return RelinkRequest(**values)
