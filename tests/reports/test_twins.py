"""What a report says of accounts that may be one and the same."""

from __future__ import annotations

from typing import Any

from reports.columns import ACCOUNT_SUCCESSORS, ACCOUNTS
from reports.table_building import table_of_rows
from reports.twins import count_twins, twin_groups
from tests.reports.test_ledger_change import account, successor

SAME = {"account_holder_id": "cus_1", "institution_name": "Bank One", "last4": "0001", "subcategory": "checking"}


def of(number: int, next_step: str = "none", **fields: Any) -> dict[str, Any]:
    return account(f"fca_{number}", next_step, **(SAME | {"authorization_id": f"fcauth_{number}"} | fields))


def test_only_accounts_that_agree_in_all_under_several_logins_are_a_group() -> None:
    rows = [
        of(1, "replaced"),
        of(2, finding="ok"),
        of(3, "review", last4="0002"),
        of(4, last4="0002", finding="ok", authorization_id="fcauth_3"),
        of(5, last4=None),
        of(6, last4=None),
        of(7, merchant="second"),
        of(8, "review", subcategory="savings"),
        of(9, subcategory="savings"),
        of(10, subcategory="savings", stripe_status=None),
    ]
    tables = {
        "accounts": table_of_rows(ACCOUNTS, rows),
        "account_successors": table_of_rows(ACCOUNT_SUCCESSORS, [successor("fca_1", "fca_2")]),
    }
    groups = [[row["account_id"] for row in group] for group in twin_groups(tables["accounts"])]
    assert groups == [["fca_1", "fca_2"], ["fca_8", "fca_9"]]
    assert count_twins(tables) == {"groups": 2, "accounts": 4, "replaced": 1, "in_review": 1}
