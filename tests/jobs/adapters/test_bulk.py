"""Rows written by one statement lie there as SQLAlchemy writes them, in both databases."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from jobs.adapters import tables
from jobs.adapters.bulk import insert_all
from jobs.adapters.database import Database
from tests.jobs.adapters.stored_values import AT, DATE, DAY, RUN_ID, SCOPE

DECISION: dict[str, Any] = {
    "merchant": SCOPE.merchant,
    "mode": SCOPE.mode,
    "account_id": "",
    "decided_at": AT,
    "since_date": DATE,
    "until_date": None,
    "finding": "inactive",
    "next_step": "capped",
    "run_id": RUN_ID,
}
DECISIONS = [
    DECISION | {"authorization_id": "fcauth_1", "detail": "an odd \x00 name, Zoë"},
    DECISION | {"authorization_id": "fcauth_2", "detail": "", "until_date": DATE + DAY},
    DECISION | {"authorization_id": "fcauth_3", "detail": "", "decided_at": AT + timedelta(microseconds=1)},
]
AFFECTED = [
    {"merchant": SCOPE.merchant, "mode": SCOPE.mode, "account_id": name, "since_date": DATE, "run_id": RUN_ID}
    | {"until_date": ended, "baseline": baseline}
    for name, ended, baseline in (("fca_1", None, True), ("fca_2", DATE + DAY, False))
]


@pytest.mark.parametrize(("table", "rows"), [(tables.decisions, DECISIONS), (tables.affected_accounts, AFFECTED)])
def test_rows_are_stored_as_one_at_a_time(database: Database, table: Any, rows: list[dict[str, Any]]) -> None:
    found = []
    for write in (insert_all, lambda connection, statement, each: connection.execute(statement, each)):
        with database.begin() as connection:
            write(connection, table.insert(), rows)
            found.append(connection.execute(select(table).order_by(*table.primary_key)).mappings().all())
            connection.execute(table.delete())
    assert found[0] == found[1]
    assert len(found[0]) == len(rows)


def test_what_a_conflict_sets_is_set_and_no_rows_are_no_statement(database: Database) -> None:
    table = tables.affected_accounts
    again = database.insert(table).on_conflict_do_update(
        index_elements=["merchant", "mode", "account_id", "since_date"], set_={"until_date": None}
    )
    with database.begin() as connection:
        insert_all(connection, again, AFFECTED)
        insert_all(connection, again, AFFECTED)
        insert_all(connection, again, [])
        assert connection.execute(select(table.c.until_date)).scalars().all() == [None, None]


def test_a_naive_time_is_a_fault_of_ours(database: Database) -> None:
    naive = DECISIONS[0] | {"decided_at": AT.replace(tzinfo=None)}
    with pytest.raises(ValueError, match="naive"), database.begin() as connection:
        insert_all(connection, tables.decisions.insert(), [naive])
