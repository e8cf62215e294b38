"""Customers who are left alone for a while, because they withdrew from a bank."""

from __future__ import annotations

from datetime import date, timedelta

import pandas as pd

from reconcile.classify import business_dates, flags
from reconcile.model import Finding, Holder, RunStamp
from reconcile.policy import RelinkPolicy
from reconcile.request import Row, plain_rows

Bank = tuple[Holder, str | None]
"""A customer at one institution."""


def quiet_customers(
    findings: pd.DataFrame, history: pd.DataFrame, policy: RelinkPolicy, stamp: RunStamp
) -> dict[Bank, date]:
    """Until which business date, itself excluded, each customer is left alone about a bank that they withdrew from.

    An account that is disconnected, or inactive because access was denied, begins such a period where the ledger has it open: a closed
    row says that the merchant ended it. The beginning is as well known as the account's history has it: `inactive_since`, or when its
    last change was seen.

    Args:
        findings: `frames.FINDINGS`.
        history: `frames.HISTORY` with tonight's states in it.
    """
    periods = {
        Finding.DISCONNECTED: policy.quiet_days_after_disconnected,
        Finding.INACTIVE: policy.quiet_days_after_access_denied,
    }
    if not any(periods.values()):
        return {}
    denied = findings["finding"].isin([Finding.INACTIVE, Finding.INACTIVE_PERMANENT]) & (
        findings["cause"] == "access_denied"
    )
    chosen = flags((findings["finding"] == str(Finding.DISCONNECTED)) | denied) & flags(
        findings["ledger_status"] == "open"
    )
    seen = history[["account_id", "observed_at"]]
    rows = findings.loc[chosen].merge(seen, on="account_id", how="left", validate="one_to_one")
    rows["since"] = business_dates(rows["inactive_since"].fillna(rows["observed_at"]), stamp)
    until: dict[Bank, date] = {}
    for row in plain_rows(rows):
        days = periods[Finding.DISCONNECTED if row["finding"] == Finding.DISCONNECTED else Finding.INACTIVE]
        if row["account_holder_id"] is None or row["holder_type"] is None:
            continue
        end = (row["since"] or stamp.business_date) + timedelta(days=days)
        bank = bank_of(row)
        until[bank] = max(until.get(bank, end), end)
    return {bank: end for bank, end in until.items() if end > stamp.business_date}


def bank_of(row: Row) -> Bank:
    """The customer and institution of an account's row."""
    return Holder(row["holder_type"], row["account_holder_id"]), row["institution_name"]
