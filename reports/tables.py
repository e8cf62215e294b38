"""Builds each report table from the values of the core; pure, so that the same night always gives the same table."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from reconcile.contacts import is_attempt
from reconcile.frames import FINDINGS, check
from reconcile.masking import mask
from reconcile.model import (
    AUTHORIZATION_STEPS,
    BreakageKey,
    Finding,
    NextStep,
    OutcomeKind,
    Result,
    State,
    StoredRequest,
    Successor,
)
from reports.closed_lists import AFFECTED_FINDINGS
from reports.columns import (
    ACCOUNT_SUCCESSORS,
    ACCOUNTS,
    AUTHORIZATIONS,
    FAILURE_REASONS,
    RELINK_OUTCOMES,
    RELINK_REQUESTS,
    TABLES,
    TEXTS,
    TableContract,
    conform,
)

CONTACTED = (State.ATTEMPTING, State.CREATED, State.REJECTED, State.UNKNOWN)
"""States of a request that may have reached Stripe, which is what makes it an attempt."""

RESULT_OF_STATE: Mapping[str, Result] = {
    State.PLANNED: Result.NOT_SENT,
    # A run that is over answers for what it left behind: Stripe may have acted on it, so it is never shown as unsent.
    State.ATTEMPTING: Result.UNKNOWN,
    State.CREATED: Result.CREATED,
    State.REJECTED: Result.REJECTED,
    State.UNKNOWN: Result.UNKNOWN,
    State.NOT_SENT: Result.NOT_SENT,
}

OUTCOME_OF_STATE: Mapping[str, OutcomeKind] = {
    State.PLANNED: OutcomeKind.NOT_SENT,
    State.ATTEMPTING: OutcomeKind.UNKNOWN,
    State.CREATED: OutcomeKind.PENDING,
    State.REJECTED: OutcomeKind.REJECTED,
    State.UNKNOWN: OutcomeKind.UNKNOWN,
    State.NOT_SENT: OutcomeKind.NOT_SENT,
}
"""What stands for a request of which no outcome is recorded yet."""


def accounts_table(merchant: str, findings: pd.DataFrame) -> pa.Table:
    """One row for each account, from `frames.FINDINGS` with `next_step` set."""
    check(findings, FINDINGS, "findings")
    source = pa.Table.from_pandas(findings, preserve_index=False)
    columns: dict[str, object] = {name: source[name] for name in ACCOUNTS.names if name in source.column_names}
    columns["merchant"] = pa.repeat(pa.scalar(merchant, pa.string()), len(findings))
    columns["account_holder_id"] = pc.if_else(
        source["in_stripe"], source["account_holder_id"], source["ledger_holder_id"]
    )
    for name in ("also", "permissions", "missing_permissions"):
        columns[name] = _split(source[name])
    return _table(ACCOUNTS, columns)


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
    accounts_by_authorization = _accounts_in_question(findings)
    attempts: Counter[str] = Counter()
    last_request_at: dict[str, datetime] = {}
    for stored in requests:
        asked_at = _asked_at(stored)
        if stored.state not in CONTACTED:
            continue
        authorization_id = stored.authorization_id
        if is_attempt(stored) and (open_breakages is None or stored.request.breakage in open_breakages):
            attempts[authorization_id] += 1
        if asked_at is not None:
            last_request_at[authorization_id] = max(asked_at, last_request_at.get(authorization_id, asked_at))
    rows = []
    for authorization_id, accounts in accounts_by_authorization.items():
        affected = [account for account in accounts if account["finding"] in AFFECTED_FINDINGS]
        reviewed = [account for account in accounts if account["next_step"] == NextStep.REVIEW]
        money = exposure_by_currency(affected)
        exposure_minor, currency = _single_exposure(money)
        holders = {account["account_holder_id"] for account in accounts if account["in_stripe"]}
        rows.append(
            {
                "merchant": merchant,
                "authorization_id": authorization_id,
                "account_holder_id": holders.pop() if len(holders) == 1 else None,
                "institution_name": next(
                    (one["institution_name"] for one in accounts if one["institution_name"]), None
                ),
                "accounts": sum(bool(account["in_stripe"]) for account in accounts),
                "affected_accounts": len(affected),
                "finding": _first(Finding, (account["finding"] for account in affected or reviewed)),
                "next_step": _authorization_step([account["next_step"] for account in accounts]),
                "attempts": attempts[authorization_id],
                "last_request_at": last_request_at.get(authorization_id),
                "exposure_minor": exposure_minor,
                "currency": currency,
                "exposure_by_currency": [f"{code}:{amount}" for code, amount in money.items()],
                "references": _sorted_once(account["reference"] for account in (*affected, *reviewed)),
            }
        )
    return _table_of_rows(AUTHORIZATIONS, rows)


def relink_requests_table(requests: Iterable[StoredRequest], *, result: Result | None = None) -> pa.Table:
    """One row for each request of a run; `result` stands on every row where it is given, as in a dry run."""
    rows = []
    for stored in requests:
        request = stored.request
        rows.append(
            {
                "merchant": request.merchant,
                "request_id": request.request_id,
                "authorization_id": request.authorization_id,
                "account_id": request.account_id,
                "account_holder_id": request.holder.id,
                "institution_name": request.institution_name,
                "reason": request.reason,
                "covered_accounts": [account.account_id for account in request.covered],
                "permissions": list(request.permissions),
                "widens": request.widens,
                "delivery": request.delivery,
                "attempt": request.attempt,
                "result": str(result or RESULT_OF_STATE[stored.state]),
                "session_id": stored.session_id,
                "error_type": stored.error_type,
                "error_code": stored.error_code,
                "error_message": stored.error_message,
                "http_status": stored.http_status,
                "stripe_request_id": stored.stripe_request_id,
                "calls": stored.calls,
                "requested_at": _asked_at(stored),
                "references": _sorted_once(request.references),
            }
        )
    return _table_of_rows(RELINK_REQUESTS, rows)


def relink_outcomes_table(requests: Iterable[StoredRequest]) -> pa.Table:
    """One row for each request whose outcome changed or is still open."""
    rows = []
    for stored in requests:
        request = stored.request
        exposure_minor, currency = _single_exposure(request.exposure_by_currency)
        requested_at = _asked_at(stored)
        result_authorization_id = stored.result_authorization_id
        rows.append(
            {
                "merchant": request.merchant,
                "request_id": request.request_id,
                "session_id": stored.session_id,
                "authorization_id": request.authorization_id,
                "account_holder_id": request.holder.id,
                "institution_name": request.institution_name,
                "cause": request.cause,
                "outcome": outcome_of(stored),
                "previous_outcome": stored.previous_outcome,
                "failure_reason": stored.failure_reason,
                "session_status": stored.session_status,
                "new_authorization_id": None
                if result_authorization_id == request.authorization_id
                else result_authorization_id,
                "accounts_expected": len(request.covered),
                "accounts_cured": stored.accounts_cured,
                "requested_at": requested_at,
                "outcome_at": stored.outcome_at,
                "outcome_at_basis": stored.outcome_at_basis,
                "hours_to_outcome": _hours_between(requested_at, stored.outcome_at),
                "last_checked_at": stored.last_checked_at,
                "reason": request.reason,
                "attempt": request.attempt,
                "delivery": request.delivery,
                "origin": request.origin,
                "exposure_minor": exposure_minor,
                "currency": currency,
                "references": _sorted_once(request.references),
                "reactivated_unattributed": stored.state == State.UNKNOWN and bool(stored.accounts_cured),
            }
        )
    return _table_of_rows(RELINK_OUTCOMES, rows)


def account_successors_table(merchant: str, successors: Iterable[Successor]) -> pa.Table:
    """One row for each account that was replaced under a new authorization."""
    columns = [name for name in ACCOUNT_SUCCESSORS.names if name != "merchant"]
    rows = [{"merchant": merchant, **{name: getattr(one, name) for name in columns}} for one in successors]
    return _table_of_rows(ACCOUNT_SUCCESSORS, rows)


def failure_reasons_table(requests: Iterable[StoredRequest]) -> pa.Table:
    """The requests of the window, counted by merchant, institution, cause, outcome and failure reason."""
    counts = Counter(
        (
            stored.request.merchant,
            _masked(stored.request.institution_name),
            stored.request.cause,
            outcome_of(stored),
            _masked(stored.failure_reason),
        )
        for stored in requests
    )
    totals: Counter[tuple[str | None, ...]] = Counter()
    for group, count in counts.items():
        totals[group[:3]] += count
    rows = [
        {**dict(zip(FAILURE_REASONS.key, group, strict=True)), "requests": count, "share": count / totals[group[:3]]}
        for group, count in counts.items()
    ]
    return _table_of_rows(FAILURE_REASONS, rows)


def combine(name: str, tables: Iterable[pa.Table]) -> pa.Table:
    """The tables of several merchants as one, in the contract's order of rows; of no tables, an empty one."""
    contract = TABLES[name]
    parts = [conform(table, contract) for table in tables]
    return _sorted(pa.concat_tables(parts), contract) if parts else contract.schema.empty_table()


def outcome_of(stored: StoredRequest) -> str:
    """The newest recorded outcome, else what the request's state says."""
    return str(stored.outcome or OUTCOME_OF_STATE[stored.state])


def exposure_by_currency(accounts: Iterable[Mapping[str, object]]) -> dict[str, int]:
    """Money at stake in minor units on the accounts that the ledger has open, by currency code in order."""
    money: defaultdict[str, int] = defaultdict(int)
    for account in accounts:
        amount, currency = account["exposure_minor"], account["currency"]
        if account["ledger_status"] == "open" and isinstance(amount, int) and isinstance(currency, str):
            money[currency] += amount
    return dict(sorted(money.items()))


def _accounts_in_question(findings: pd.DataFrame) -> dict[str, list[dict[str, object]]]:
    """All accounts of each authorization that has an affected account or one to review, in order of account id."""
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
        .sort_by("account_id")
    )
    groups: dict[str, list[dict[str, object]]] = {}
    for account in chosen.to_pylist():
        groups.setdefault(account["authorization_id"], []).append(account)
    return groups


def _authorization_step(steps: Sequence[object]) -> str:
    """The step that was decided for the whole authorization, else the first that one of its accounts stands at."""
    decided = [step for step in AUTHORIZATION_STEPS if step in steps]
    return str(decided[0]) if decided else _first(NextStep, (step for step in steps if step != NextStep.NONE))


def _first(order: Iterable[object], values: Iterable[object]) -> str:
    present = set(values)
    return next(str(value) for value in order if value in present)


def _asked_at(stored: StoredRequest) -> datetime | None:
    """When Stripe was asked, or for a request without an answer, when it may have been."""
    return stored.requested_at or (stored.attempting_at if stored.state in CONTACTED else None)


def _hours_between(start: datetime | None, end: datetime | None) -> float | None:
    """Hours to four decimals; a clock that was set back gives zero and never less."""
    return None if start is None or end is None else max(0.0, round((end - start).total_seconds() / 3600, 4))


def _single_exposure(money: Mapping[str, int]) -> tuple[int | None, str | None]:
    """The amount and its currency where there is exactly one, since amounts of several currencies have no sum."""
    if len(money) != 1:
        return None, None
    currency, amount = next(iter(money.items()))
    return amount, currency


def _sorted_once(texts: Iterable[object]) -> list[str]:
    return sorted({text for text in texts if isinstance(text, str) and text})


def _masked(text: str | None) -> str | None:
    return None if text is None else mask(text)


def _table_of_rows(contract: TableContract, rows: Sequence[Mapping[str, object]]) -> pa.Table:
    return _table(contract, {name: [row[name] for row in rows] for name in contract.names})


def _table(contract: TableContract, columns: Mapping[str, object]) -> pa.Table:
    """Give columns the contract's order, types and order of rows, with outside words masked."""
    arrays = []
    for column in contract.columns:
        values = columns[column.name]
        array = values if isinstance(values, (pa.Array, pa.ChunkedArray)) else pa.array(values, type=column.type)
        arrays.append(_mask_texts(array) if column.free_text else array)
    return _sorted(conform(pa.table(arrays, schema=contract.schema), contract), contract)


def _sorted(table: pa.Table, contract: TableContract) -> pa.Table:
    return table.sort_by([(name, "ascending") for name in contract.key]).combine_chunks()


def _mask_texts(array: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Mask a column of texts or of lists of texts, each different text once."""
    flat = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    if flat.type == TEXTS:
        return pa.ListArray.from_arrays(
            flat.offsets, _mask_texts(flat.values), mask=flat.is_null() if flat.null_count else None
        )
    encoded = flat.dictionary_encode()
    masked = pa.array([_masked(text) for text in encoded.dictionary.to_pylist()], type=pa.string())
    return masked.take(encoded.indices)


def _split(joined: pa.ChunkedArray) -> pa.Array:
    """Turn texts joined by `;` into lists: an empty text into an empty list, null into null."""
    encoded = joined.combine_chunks().dictionary_encode()
    lists = [text.split(";") if text else [] for text in encoded.dictionary.to_pylist()]
    return pa.array(lists, type=TEXTS).take(encoded.indices)
