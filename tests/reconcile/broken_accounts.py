"""Accounts of which some are broken, as the brakes find them."""

from __future__ import annotations

import pandas as pd

from reconcile.frames import FINDINGS, from_columns


def findings(broken: int, total: int, institution: str = "Bank One", start: int = 0) -> pd.DataFrame:
    """So many open ledger accounts of one institution, one authorization each; the first ones inactive."""
    rows = range(start, start + total)
    columns: dict[str, list[object]] = {name: [None] * total for name in FINDINGS}
    columns["account_id"] = [f"fca_{row}" for row in rows]
    columns["authorization_id"] = [f"fcauth_{row}" for row in rows]
    columns["institution_name"] = [institution] * total
    columns["in_stripe"] = columns["in_ledger"] = [True] * total
    columns["ledger_status"] = ["open"] * total
    columns["finding"] = ["inactive" if row - start < broken else "ok" for row in rows]
    columns["also"] = columns["missing_permissions"] = [""] * total
    return from_columns(columns, FINDINGS)
