"""What the records tell of accounts that may be the same as another."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime

import pandas as pd

from jobs.adapters import records
from jobs.adapters.database import Database
from reconcile.classify import flags
from reconcile.model import Scope, Successor
from reconcile.twins import Twins, accounts_alike, judge_twins


def find_twins(
    database: Database,
    scope: Scope,
    findings: pd.DataFrame,
    history: pd.DataFrame,
    known: Iterable[Successor],
    *,
    named: Collection[str] = (),
    until: datetime | None = None,
) -> Twins:
    """Judge the twins among a merchant's accounts by all that was ever recorded of them.

    Args:
        history: the newest state of every account, tonight's included.
        named: authorizations that a person named to be asked about.
        until: the moment up to which the records count; None for all.
    """
    alike = accounts_alike(findings, history)
    if not alike:
        return Twins()
    past = records.history_of(database, scope, account_ids=alike)
    if until is not None:
        past = past.loc[flags(past["observed_at"] <= pd.Timestamp(until))]
    return judge_twins(findings, history, past, known, named)


def moved_accounts(matched: Iterable[Successor], twins: Twins) -> Mapping[str, str]:
    """The new account id by the old one, of matched accounts but for twins that proved to be none."""
    return {one.old_account_id: one.new_account_id for one in matched if one.old_account_id not in twins.withdrawn}
