"""Builds each report table from the values of the core; pure, so that the same night always gives the same table."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import datetime

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from reconcile.contacts import is_attempt
from reconcile.frames import FINDINGS, check
from reconcile.model import (
    AUTHORIZATION_STEPS,
    BreakageKey,
    Finding,
    NextStep,
    StoredRequest,
)
from reconcile.refresh import AccountRefresh
from reports.closed_lists import AFFECTED_FINDINGS
from reports.columns import (
    ACCOUNTS,
    AUTHORIZATIONS,
    TABLES,
)
from reports.contract import conform
from reports.request_tables import CONTACTED, time_of_asking
from reports.table_building import build_table, in_order, single_exposure, sorted_once, split_lists, table_of_rows

_ROWS_AT_ONCE = 10_000

_FINDING_RANKS: Mapping[object, int] = {str(finding): rank for rank, finding in enumerate(Finding)}
_STEP_RANKS: Mapping[object, int] = {str(step): rank for rank, step in enumerate(NextStep)}


def accounts_table(
    merchant: str, findings: pd.DataFrame, refreshed: Mapping[str, AccountRefresh] | None = None
) -> pa.Table:
    """One row for each account, from `frames.FINDINGS` with `next_step` set, and what is known of its refresh."""
    check(findings, FINDINGS, "findings")
    source = pa.Table.from_pandas(findings, preserve_index=False)
    columns: dict[str, object] = {name: source[name] for name in ACCOUNTS.names if name in source.column_names}
    columns["merchant"] = pa.repeat(pa.scalar(merchant, pa.string()), len(findings))
    columns["account_holder_id"] = pc.if_else(
        source["in_stripe"], source["account_holder_id"], source["ledger_holder_id"]
    )
    for name in ("also", "permissions", "missing_permissions"):
        columns[name] = split_lists(source[name])
    places = pc.index_in(source["account_id"], value_set=pa.array(list(refreshed or ()), pa.string()))
    for column in fields(AccountRefresh):
        told = [getattr(one, column.name) for one in (refreshed or {}).values()]
        kind = ACCOUNTS.schema.field(column.name).type
        columns[column.name] = pa.array(told, kind).take(places.combine_chunks())
    return build_table(ACCOUNTS, columns)


def authorizations_table(
    merchant: str,
    findings: pd.DataFrame,
    requests: Sequence[StoredRequest],
    *,
    open_breakages: Collection[BreakageKey] | None = None,
) -> pa.Table:
    """One row for each authorization with an affected account or one to review.

    `requests` are all that is known of these authorizations; of them, `attempts` counts those of `open_breakages`, or all where
    that is None.
    """
    check(findings, FINDINGS, "findings")
    attempts: Counter[str] = Counter()
    last_request_at: dict[str, datetime] = {}
    for stored in requests:
        asked_at = time_of_asking(stored)
        if stored.state not in CONTACTED:
            continue
        authorization_id = stored.authorization_id
        if is_attempt(stored) and (open_breakages is None or stored.request.breakage in open_breakages):
            attempts[authorization_id] += 1
        if asked_at is not None:
            last_request_at[authorization_id] = max(asked_at, last_request_at.get(authorization_id, asked_at))
    parts = []
    for accounts_by_authorization in _accounts_in_question(findings):
        rows = [
            _authorization_row(merchant, name, accounts, attempts[name], last_request_at.get(name))
            for name, accounts in accounts_by_authorization.items()
        ]
        parts.append(table_of_rows(AUTHORIZATIONS, rows))
    return in_order(pa.concat_tables(parts), AUTHORIZATIONS) if parts else table_of_rows(AUTHORIZATIONS, [])


def _authorization_row(
    merchant: str,
    authorization_id: str,
    accounts: Sequence[Mapping[str, object]],
    attempts: int,
    last_request_at: datetime | None,
) -> dict[str, object]:
    affected = [account for account in accounts if account["finding"] in AFFECTED_FINDINGS]
    reviewed = [account for account in accounts if account["next_step"] == NextStep.REVIEW]
    money = exposure_by_currency(affected)
    exposure_minor, currency = single_exposure(money)
    holders = {account["account_holder_id"] for account in accounts if account["in_stripe"]}
    return {
        "merchant": merchant,
        "authorization_id": authorization_id,
        "account_holder_id": holders.pop() if len(holders) == 1 else None,
        "institution_name": next((one["institution_name"] for one in accounts if one["institution_name"]), None),
        "accounts": sum(bool(account["in_stripe"]) for account in accounts),
        "affected_accounts": len(affected),
        "finding": _first(_FINDING_RANKS, (account["finding"] for account in affected or reviewed)),
        "next_step": _authorization_step([account["next_step"] for account in accounts]),
        "attempts": attempts,
        "last_request_at": last_request_at,
        "exposure_minor": exposure_minor,
        "currency": currency,
        "exposure_by_currency": [f"{code}:{amount}" for code, amount in money.items()],
        "references": sorted_once(account["reference"] for account in (*affected, *reviewed)),
    }


def combine(name: str, tables: Iterable[pa.Table]) -> pa.Table:
    """The tables of several merchants as one, in the contract's order of rows; of no tables, an empty one."""
    contract = TABLES[name]
    parts = [conform(table, contract) for table in tables]
    return in_order(pa.concat_tables(parts), contract) if parts else contract.schema.empty_table()


def exposure_by_currency(accounts: Iterable[Mapping[str, object]]) -> dict[str, int]:
    """Money at stake in minor units on the accounts that the ledger has open, by currency code in order."""
    money: defaultdict[str, int] = defaultdict(int)
    for account in accounts:
        amount, currency = account["exposure_minor"], account["currency"]
        if account["ledger_status"] == "open" and isinstance(amount, int) and isinstance(currency, str):
            money[currency] += amount
    return dict(sorted(money.items()))


def _accounts_in_question(findings: pd.DataFrame) -> Iterator[dict[str, list[dict[str, object]]]]:
    """All accounts of each authorization that has an affected account or one to review, in order of account id; some authorizations at a time.

    As Python values they take ten times the memory that they have as columns.
    """
    source = pa.Table.from_pandas(findings, preserve_index=False)
    in_question = pc.or_kleene(
        pc.is_in(source["finding"], pa.array(AFFECTED_FINDINGS)), pc.equal(source["next_step"], str(NextStep.REVIEW))
    )
    wanted = pc.unique(source.filter(in_question)["authorization_id"]).drop_null()
    columns = [
        "authorization_id",
        "account_id",
        "account_holder_id",
        "institution_name",
        "in_stripe",
        "finding",
        "next_step",
        "ledger_status",
        "exposure_minor",
        "currency",
        "reference",
    ]
    chosen = (
        source.select(columns)
        .filter(pc.is_in(source["authorization_id"], wanted, skip_nulls=True))
        .sort_by([("authorization_id", "ascending"), ("account_id", "ascending")])
    )
    groups: dict[str, list[dict[str, object]]] = {}
    for batch in chosen.to_batches(max_chunksize=_ROWS_AT_ONCE):
        cells = (column.to_pylist() for column in batch.columns)
        for values in zip(*cells, strict=True):
            account = dict(zip(columns, values, strict=True))
            name = account["authorization_id"]
            if name not in groups and len(groups) >= _ROWS_AT_ONCE:
                yield groups
                groups = {}
            groups.setdefault(name, []).append(account)
    if groups:
        yield groups


def _authorization_step(steps: Sequence[object]) -> str:
    """The step that was decided for the whole authorization, else the first that one of its accounts stands at."""
    decided = [step for step in AUTHORIZATION_STEPS if step in steps]
    return str(decided[0]) if decided else _first(_STEP_RANKS, (step for step in steps if step != NextStep.NONE))


def _first(ranks: Mapping[object, int], values: Iterable[object]) -> str:
    return str(min(values, key=ranks.__getitem__))
