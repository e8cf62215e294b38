"""What a night decided, as few rows as say it all: one an authorization, and one an account that fares otherwise than its authorization."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from reconcile.model import Finding, NextStep, Plan

if TYPE_CHECKING:
    import pandas as pd

_RANK = {str(finding): rank for rank, finding in enumerate(Finding)}


class Decision(NamedTuple):
    """One decision; `account_id` is empty where it holds for the authorization, `authorization_id` where the account has none."""

    authorization_id: str
    account_id: str
    finding: str
    next_step: str
    detail: str


def decisions_of(findings: pd.DataFrame, plan: Plan) -> set[Decision]:
    """Every decision of a night but `none`, from planned `frames.FINDINGS`."""
    # Only here, so that commands which look at the records start without pandas.
    from reconcile.classify import flags
    from reconcile.frames import values_of

    of_authorization = {one.authorization_id: one for one in plan.decisions}
    chosen = findings.loc[flags(findings["next_step"] != str(NextStep.NONE))]
    columns = (values_of(chosen[name]) for name in ("account_id", "authorization_id", "finding", "next_step"))
    first: dict[str, str] = {}
    found: set[Decision] = set()
    for account_id, authorization_id, finding, step in zip(*columns, strict=True):
        if not isinstance(authorization_id, str):
            found.add(Decision("", account_id, finding, step, ""))
            continue
        decided = of_authorization.get(authorization_id)
        if decided is None or decided.next_step != step:
            detail = plan.account_details.get(account_id, "") if step == NextStep.REVIEW else ""
            found.add(Decision(authorization_id, account_id, finding, step, detail))
            continue
        standing = first.get(authorization_id)
        if standing is None or _RANK[finding] < _RANK[standing]:
            first[authorization_id] = finding
    for authorization_id, finding in first.items():
        decided = of_authorization[authorization_id]
        found.add(Decision(authorization_id, "", finding, decided.next_step, decided.detail))
    return found
