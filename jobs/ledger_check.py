"""The ledger looked at by itself: every fault of it, what it holds, and what a load would leave in the embedded table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from jobs.adapters import records
from jobs.adapters.database import Database
from jobs.adapters.ledger import read_chunks, read_query
from jobs.settings import Settings
from reconcile.errors import LedgerError
from reconcile.ledger import LedgerCheck, LedgerRow, check_rows

if TYPE_CHECKING:
    from reconcile.ledger_columns import LedgerColumns


@dataclass(frozen=True, slots=True)
class LedgerSummary:
    """What a clean ledger holds; `exposure_by_currency` is integer money in minor units, over open rows."""

    rows: int
    by_status: dict[str, int] = field(default_factory=dict)
    by_purpose: dict[str, int] = field(default_factory=dict)
    by_merchant: dict[str, int] = field(default_factory=dict)
    exposure_by_currency: dict[str, int] = field(default_factory=dict)
    holders: int = 0
    holders_silenced: int = 0


def check_ledger(settings: Settings, database: Database | None) -> LedgerCheck:
    """Check the ledger that the next run would read: the configured query's rows, or the embedded table of a database.

    Raises:
        LedgerError: it cannot be read at all.
    """
    chosen = settings.ledger
    if chosen.url is None or chosen.query is None:
        if database is None:
            raise ValueError("the embedded ledger is looked for without a database")
        return check_stored(records.ledger_rows(database), settings.merchant_names)
    return check_rows(read_query(chosen.url, chosen.query), settings.merchant_names)


def read_ledger(settings: Settings, database: Database) -> LedgerColumns:
    """The same ledger and the same check, in columns: what a night needs of millions of rows.

    Raises:
        LedgerError: it cannot be read at all.
    """
    from reconcile.ledger_columns import check_columns

    chosen = settings.ledger
    if chosen.url is None or chosen.query is None:
        return check_columns(records.ledger_chunks(database), settings.merchant_names)
    return check_columns(read_chunks(chosen.url, chosen.query), settings.merchant_names)


def check_stored(rows: Iterable[LedgerRow], merchants: tuple[str, ...]) -> LedgerCheck:
    """Check rows of the embedded table again, since the settings may have changed since they were loaded."""
    return check_rows((_as_mapping(row) for row in rows), merchants)


def summarize(rows: Iterable[LedgerRow]) -> LedgerSummary:
    """Count what a clean ledger holds."""
    statuses: Counter[str] = Counter()
    purposes: Counter[str] = Counter()
    merchants: Counter[str] = Counter()
    exposure: Counter[str] = Counter()
    holders: set[tuple[str, str]] = set()
    silenced: set[tuple[str, str]] = set()
    for row in rows:
        statuses[row.status] += 1
        purposes[row.purpose] += 1
        merchants[row.merchant] += 1
        holders.add((row.merchant, row.account_holder_id))
        if row.do_not_contact:
            silenced.add((row.merchant, row.account_holder_id))
        if row.status == "open" and row.currency is not None and row.exposure_minor is not None:
            exposure[row.currency] += row.exposure_minor
    return LedgerSummary(
        rows=statuses.total(),
        by_status=dict(sorted(statuses.items())),
        by_purpose=dict(sorted(purposes.items())),
        by_merchant=dict(sorted(merchants.items())),
        exposure_by_currency=dict(sorted(exposure.items())),
        holders=len(holders),
        holders_silenced=len(silenced),
    )


def load(database: Database, rows: list[LedgerRow], merchants: tuple[str, ...], *, merge: bool) -> records.LedgerChange:
    """Put clean rows into the embedded table, all or none; with `merge` only where the whole is clean afterwards.

    Raises:
        LedgerError: a row that stays would be a fault in the next run; nothing was changed.
    """

    def work(_connection: object) -> records.LedgerChange:
        change = records.load_ledger(database, rows, merge=merge)
        if merge:
            _refuse_stale_rows(check_stored(records.ledger_rows(database), merchants))
        return change

    return database.run(work)


def _refuse_stale_rows(check: LedgerCheck) -> None:
    if not check.faults:
        return
    first = check.faults[0]
    raise LedgerError(
        f"nothing was merged: the ledger of before has rows that are faults now, such as account {first.key}, column {first.column}: "
        f"{first.problem}. Load the whole ledger without --merge"
    )


def _as_mapping(row: LedgerRow) -> dict[str, object]:
    required = row.required_permissions
    values = {name: getattr(row, name) for name in LedgerRow.__slots__}
    return {**values, "required_permissions": None if required is None else ",".join(required)}
