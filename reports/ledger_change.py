"""The change that replaced accounts ask of the merchant's ledger, as SQL that a person can read and run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from reconcile.model import NextStep, RunStamp

LEDGER_CHANGE = "account_successors.sql"
QUERIED_LEDGER = "your_ledger"
"""Stands for the table behind a ledger query, which only the merchant knows."""

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class LedgerPlace:
    """Where the ledger is: the table of the job's own database, or None for one that a query reads; `merchants` of the settings."""

    table: str | None = "relink_ledger"
    merchants: int = 1

    @property
    def has_merchant(self) -> bool:
        """Whether a row has to name its merchant."""
        return self.table is not None or self.merchants > 1


@dataclass(frozen=True, slots=True)
class _Change:
    merchant: str
    old: str
    new: str
    is_named: bool
    hops: int


def ledger_change(stamp: RunStamp, tables: Mapping[str, pa.Table], place: LedgerPlace) -> tuple[int, bytes]:
    """How many statements, and the file.

    There is one for each open ledger row whose account lives on under another id and does not work tonight. It names the account to which the
    records lead, over several successors if need be; where they lead to two, or the id holds a character that databases quote differently, a person must
    see to it.
    """
    changes, left_out = _changes(tables)
    statements = [_statement(change, place) for change in changes]
    lines = [*_head(stamp, place, changes, left_out, _in_review(tables)), "", "BEGIN;", *statements, "COMMIT;"]
    return len(statements), ("\n".join(lines) + "\n").encode()


def _changes(tables: Mapping[str, pa.Table]) -> tuple[list[_Change], int]:
    accounts = tables["accounts"]
    replaced = accounts.filter(
        pc.and_(
            pc.equal(accounts["next_step"], str(NextStep.REPLACED)),
            pc.fill_null(pc.equal(accounts["ledger_status"], "open"), False),
        )
    )
    after: dict[tuple[str, str], set[str]] = {}
    for row in tables["account_successors"].to_pylist():
        if row["old_account_id"] != row["new_account_id"]:
            after.setdefault((row["merchant"], row["old_account_id"]), set()).add(row["new_account_id"])
    found: list[_Change] = []
    left_out = 0
    if replaced.num_rows:
        new_ids = pa.array(sorted({new for names in after.values() for new in names}), type=pa.string())
        known = accounts.filter(pc.is_in(accounts["account_id"], new_ids)).select(
            ["merchant", "account_id", "ledger_status", "stripe_status"]
        )
        seen: dict[tuple[str, str], Row] = {(row["merchant"], row["account_id"]): row for row in known.to_pylist()}
        for merchant, old in zip(replaced["merchant"].to_pylist(), replaced["account_id"].to_pylist(), strict=True):
            change = _follow(merchant, old, after, seen)
            if change is None or not all(map(_is_plain, (merchant, change.old, change.new))):
                left_out += 1
            else:
                found.append(change)
    found.sort(key=lambda one: (one.merchant, one.new, one.hops, one.old))
    given: set[tuple[str, str]] = set()
    changes = []
    for one in found:  # of two rows that lead to one account, the second finds it named by the first
        named = one.is_named or (one.merchant, one.new) in given
        given.add((one.merchant, one.new))
        changes.append(_Change(one.merchant, one.old, one.new, named, one.hops))
    return changes, left_out


def _follow(
    merchant: str, old: str, after: Mapping[tuple[str, str], set[str]], seen: Mapping[tuple[str, str], Row]
) -> _Change | None:
    """The account to which successors lead from one; None where they lead to two or round in a circle."""
    at, passed = old, {old}
    while names := after.get((merchant, at)):
        row = seen.get((merchant, at))
        if at != old and row is not None and row["stripe_status"] == "active":
            break  # it works: what was said to have come after it did not take its place
        if len(names) > 1:
            return None
        [at] = names
        if at in passed:
            return None
        passed.add(at)
    row = seen.get((merchant, at))
    is_named = row is not None and row["ledger_status"] is not None
    return None if at == old else _Change(merchant, old, at, is_named, len(passed) - 1)


def _in_review(tables: Mapping[str, pa.Table]) -> int:
    steps = tables["accounts"]["next_step"]
    return pc.sum(pc.equal(steps, str(NextStep.REVIEW))).as_py() or 0


def _statement(change: _Change, place: LedgerPlace) -> str:
    table, old, new = place.table or QUERIED_LEDGER, _text(change.old), _text(change.new)
    of_merchant = f" AND merchant = {_text(change.merchant)}" if place.has_merchant else ""
    among = f" AND other.merchant = {_text(change.merchant)}" if place.has_merchant else ""
    exists = f"EXISTS (SELECT 1 FROM {table} AS other WHERE other.account_id = {new}{among})"  # noqa: S608
    if change.is_named:
        return f"UPDATE {table} SET status = 'closed' WHERE account_id = {old}{of_merchant} AND {exists};"  # noqa: S608
    return f"UPDATE {table} SET account_id = {new} WHERE account_id = {old}{of_merchant} AND NOT {exists};"  # noqa: S608


def _head(stamp: RunStamp, place: LedgerPlace, changes: list[_Change], left_out: int, in_review: int) -> Iterator[str]:
    yield f"-- Changes to the ledger that run {stamp.run_id} of {stamp.business_date.isoformat()} asks for: {_many(len(changes), 'row')}."
    yield "-- A row is given the account under which it lives on; where the ledger has a row of that account too, the old row is closed."
    yield "-- Nothing else is changed, and a row only while it still names the old account: to run the file again does nothing."
    yield f"-- Not in here: {_many(in_review, 'account')} in review, for a person to decide, and rows that the ledger has closed."
    if left_out:
        yield f"-- Not in here either: {_many(left_out, 'account')} of which the records name two successors, or whose ids hold unusual characters."
    if place.table is not None:
        yield f"-- Ledger: the table {place.table} of the job's own database. Where you load it from a file, change the file too: the next"
        yield "-- `relink ledger load` would bring the old ids back."
    else:
        yield f"-- Ledger: the one that your query reads. Put its table in place of {QUERIED_LEDGER}, and its own names for account_id and status,"
        yield "-- where they are others; the query's names stand here."


def _many(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _is_plain(text: str) -> bool:
    """Whether every database reads a quoted text alike: none with a backslash or what cannot be printed."""
    return text.isprintable() and "\\" not in text


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
