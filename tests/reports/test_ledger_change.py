"""The SQL that gives the ledger its change, run against real databases."""

from __future__ import annotations

import sqlite3
from typing import Any

import pyarrow as pa
import pytest
from sqlalchemy import create_engine

from reports.columns import ACCOUNT_SUCCESSORS, ACCOUNTS
from reports.ledger_change import QUERIED_LEDGER, LedgerPlace, ledger_change
from reports.table_building import table_of_rows
from tests.reports.factories import STAMP

Ledger = dict[str, tuple[str, str]]


def account(
    account_id: str, next_step: str = "replaced", ledger_status: str | None = "open", **fields: Any
) -> dict[str, Any]:
    empty = {column.name: [] if pa.types.is_list(column.type) else None for column in ACCOUNTS.columns}
    plain = {"merchant": "main", "stripe_status": "inactive", "finding": "inactive"}
    return empty | plain | {"account_id": account_id, "next_step": next_step, "ledger_status": ledger_status} | fields


def successor(old: str, new: str, merchant: str = "main", by: str = "twin") -> dict[str, Any]:
    return {
        "merchant": merchant,
        "old_account_id": old,
        "new_account_id": new,
        "old_authorization_id": "fcauth_1",
        "new_authorization_id": "fcauth_2",
        "matched_by": by,
        "request_id": None,
    }


def sql(
    accounts: list[dict[str, Any]], successors: list[dict[str, Any]], place: LedgerPlace | None = None
) -> tuple[int, str]:
    tables = {
        "accounts": table_of_rows(ACCOUNTS, accounts),
        "account_successors": table_of_rows(ACCOUNT_SUCCESSORS, successors),
    }
    count, content = ledger_change(STAMP, tables, place or LedgerPlace())
    return count, content.decode()


def after(change: str, rows: list[tuple[str, str, str]], database_url: str, table: str = "relink_ledger") -> Ledger:
    """What a real ledger of (merchant, account id, status) holds after the file was run, twice, by that database's own client."""
    make = f"CREATE TABLE {table} (merchant TEXT, account_id TEXT, status TEXT, PRIMARY KEY (merchant, account_id))"
    read = f"SELECT merchant, account_id, status FROM {table}"
    if database_url.startswith("sqlite"):
        with sqlite3.connect(":memory:", isolation_level=None) as plain:
            plain.execute(make)
            plain.executemany(f"INSERT INTO {table} VALUES (?, ?, ?)", rows)
            for _ in range(2):
                plain.executescript(change)
            return {account_id: (merchant, status) for merchant, account_id, status in plain.execute(read)}
    engine = create_engine(database_url)
    try:
        with engine.connect() as connection:
            driver: Any = connection.connection.driver_connection
            driver.autocommit = True
            driver.execute(f"DROP TABLE IF EXISTS {table}")
            driver.execute(make)
            with driver.cursor() as cursor:
                cursor.executemany(f"INSERT INTO {table} VALUES (%s, %s, %s)", rows)
            for _ in range(2):
                driver.execute(change)
            found = {account_id: (merchant, status) for merchant, account_id, status in driver.execute(read)}
            driver.execute(f"DROP TABLE {table}")
            return found
    finally:
        engine.dispose()


def test_the_ledger_names_the_successors_afterwards(database_url: str) -> None:
    count, change = sql(
        [
            account("fca_old"),
            account("fca_o'ld", merchant="second"),
            account("fca_named"),
            account("fca_new_2", "none", "open", stripe_status="active"),
            account("fca_chain"),
            account("fca_works_again", "none", stripe_status="active"),
            account("fca_closed", "ledger_closed", "closed"),
            account("fca_review", "review"),
        ],
        [
            successor("fca_old", "fca_new'; DROP TABLE relink_ledger; --"),
            successor("fca_o'ld", "fca_new_1", "second"),
            successor("fca_named", "fca_new_2"),
            successor("fca_chain", "fca_link"),
            successor("fca_link", "fca_last", by="attributes"),
            successor("fca_works_again", "fca_new_3"),
            successor("fca_closed", "fca_new_4"),
            successor("fca_kept", "fca_kept", by="id"),
        ],
    )
    ids = ("old", "named", "new_2", "chain", "works_again", "closed", "review")
    rows = [("main", f"fca_{name}", "closed" if name == "closed" else "open") for name in ids]
    ledger = after(change, [*rows, ("second", "fca_o'ld", "open")], database_url)
    assert count == 4
    assert ledger == {
        "fca_new'; DROP TABLE relink_ledger; --": ("main", "open"),
        "fca_new_1": ("second", "open"),
        "fca_named": ("main", "closed"),
        "fca_new_2": ("main", "open"),
        "fca_last": ("main", "open"),
        "fca_works_again": ("main", "open"),
        "fca_closed": ("main", "closed"),
        "fca_review": ("main", "open"),
    }


def test_of_two_rows_that_lead_to_one_account_one_names_it_and_the_other_is_closed(database_url: str) -> None:
    pairs = [successor("fca_1", "fca_2"), successor("fca_2", "fca_3")]
    count, change = sql([account("fca_1"), account("fca_2")], pairs)
    assert count == 2
    ledger = after(change, [("main", "fca_1", "open"), ("main", "fca_2", "open")], database_url)
    assert ledger == {"fca_1": ("main", "closed"), "fca_3": ("main", "open")}


def test_a_ledger_that_changed_meanwhile_is_left_as_it_is(database_url: str) -> None:
    _, change = sql([account("fca_1")], [successor("fca_1", "fca_2")])
    rows = [("main", "fca_1", "open"), ("main", "fca_2", "open"), ("other", "fca_9", "open")]
    assert after(change, rows, database_url) == {
        "fca_1": ("main", "open"),
        "fca_2": ("main", "open"),
        "fca_9": ("other", "open"),
    }


def test_a_queried_ledger_has_a_place_to_fill_in() -> None:
    for merchants, named in ((1, False), (2, True)):
        _, change = sql([account("fca_1")], [successor("fca_1", "fca_2")], LedgerPlace(None, merchants))
        [statement] = [line for line in change.splitlines() if line.startswith("UPDATE")]
        assert statement.startswith(f"UPDATE {QUERIED_LEDGER} SET account_id = 'fca_2' WHERE account_id = 'fca_1'")
        assert ("merchant = 'main'" in statement) is named


@pytest.mark.parametrize("odd", ["fca_1\n2", "fca_\\", "fca_\x00"])
def test_what_cannot_be_quoted_everywhere_or_is_not_one_to_one_is_left_out_and_said_so(odd: str) -> None:
    pairs = [
        successor("fca_1", odd),
        successor("fca_2", "fca_3"),
        successor("fca_2", "fca_4"),
        successor("fca_5", "fca_6"),
        successor("fca_6", "fca_5"),
    ]
    count, change = sql([account("fca_1"), account("fca_2"), account("fca_5")], pairs)
    assert count == 0
    assert all(line.startswith("--") for line in change.splitlines() if line not in ("", "BEGIN;", "COMMIT;"))
    assert "Not in here either: 3 accounts" in change


def test_the_head_says_how_many_and_that_review_is_not_in_it() -> None:
    count, change = sql([account("fca_1"), account("fca_9", "review")], [successor("fca_1", "fca_2")])
    head = change.split("BEGIN;")[0]
    assert count == 1
    assert f"run {STAMP.run_id}" in head
    assert ": 1 row." in head
    assert "1 account in review" in head
    assert "relink_ledger" in head
