"""Tell which logins will lapse soon, by how long logins at their bank have lasted; nothing is decided by it."""

from __future__ import annotations

import pandas as pd

from jobs.adapters import records
from jobs.night import MerchantNight
from jobs.wiring import Wiring
from reconcile.classify import flags
from reconcile.frames import HISTORY, values_of
from reconcile.schedules import ExpectedLapses, Lifetimes, expected_lapses, learn, lifetimes, possible_banks


def expect_lapses(wiring: Wiring, night: MerchantNight) -> tuple[ExpectedLapses, ...]:
    """By bank, the logins that its schedule lets expect to lapse; none where the settings turn it off."""
    chosen = wiring.settings.forecast
    if not chosen.enabled:
        return ()
    troubled, findings, stamp = _troubled(wiring, night), night.findings, night.stamp
    # Few accounts ever were in trouble, and few banks have many lapses: of a million accounts most are never looked at.
    ended = lifetimes(troubled, _rows(findings, "account_id", troubled["account_id"].array), stamp)
    banks = possible_banks(ended)
    if not banks:
        return ()
    own = _rows(findings, "institution_name", sorted(banks))
    known = lifetimes(troubled, own, stamp)
    logins = zip(values_of(own["authorization_id"]), values_of(own["institution_name"]), strict=True)
    bank_of = {login: bank for login, bank in logins if login is not None}
    schedules = learn(Lifetimes(ended.lapses, known.working_since), bank_of, stamp)
    return expected_lapses(schedules, known, own, stamp, chosen.within_days) if schedules else ()


def _rows(findings: pd.DataFrame, column: str, values: object) -> pd.DataFrame:
    return findings.loc[flags(findings[column].isin(values))]  # type: ignore[arg-type]


def _troubled(wiring: Wiring, night: MerchantNight) -> pd.DataFrame:
    """The history of accounts that ever were in trouble, with tonight's changes, which are not recorded yet."""
    recorded, tonight = records.troubled_history(wiring.database, night.merchant.scope), night.history_changed
    if tonight.empty:
        return recorded
    # In a first night all accounts are new, most of them never were in trouble, and one row of such an account tells nothing.
    ever = flags(tonight["stripe_status"] == "inactive") | flags(tonight["action"] == "relink_required")
    ever |= flags(tonight["account_id"].isin(recorded["account_id"].array))
    rows = pd.concat([recorded, tonight.loc[ever, list(HISTORY)]], ignore_index=True)
    rows = rows.drop_duplicates(["account_id", "observed_at"], keep="last")
    return rows.sort_values(["account_id", "observed_at"], ignore_index=True)
