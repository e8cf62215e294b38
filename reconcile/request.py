"""What one request asks of Stripe: for which accounts, with which permissions, and how urgently."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import pandas as pd

from reconcile.delivery import hosted_parameters
from reconcile.frames import values_of
from reconcile.model import AFFECTED, HOLDER_TYPES, CoveredAccount, RelinkRequest, RunStamp
from reconcile.normalize import split_words
from reconcile.policy import RelinkPolicy

AFFECTED_NAMES = [str(kind) for kind in AFFECTED]

Row = Mapping[str, Any]
"""One account of a `frames.FINDINGS` frame by column name, null as None."""

REQUEST_COLUMNS = (
    "account_id",
    "authorization_id",
    "holder_type",
    "account_holder_id",
    "institution_name",
    "last4",
    "subcategory",
    "stripe_status",
    "permissions",
    "required_permissions",
    "purpose",
    "ledger_status",
    "exposure_minor",
    "currency",
    "reference",
    "cause",
    "finding",
    "days_inactive",
    "expected_deactivation_date",
)
"""What a request rests on: a third of all columns, so that a third of all cells become Python values."""


def plain_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a small frame as plain values, null as None: far cheaper to walk than a frame for each authorization."""
    names = list(frame.columns)  # walking the frame's own index for every row takes as long as all the rest
    columns = [_plain_values(frame[name]) for name in names]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def _plain_values(column: pd.Series) -> list[Any]:
    if isinstance(column.dtype, pd.ArrowDtype):
        # One object for each text, not for each cell: of millions of accounts those who wait keep their bank, cause and reason.
        seen: dict[Any, Any] = {}
        return [seen.setdefault(value, value) for value in values_of(column)]
    return column.astype(object).where(column.notna(), None).tolist()


def covered_accounts(rows: Iterable[Row], replaced: set[str]) -> list[Row]:
    """The affected accounts with an open ledger row that have no successor yet, of one authorization's accounts."""
    return [
        row
        for row in rows
        if row["finding"] in AFFECTED_NAMES and row["ledger_status"] == "open" and row["account_id"] not in replaced
    ]


def requested_permissions(rows: Iterable[Row]) -> tuple[str, ...]:
    """The union of what the ledger requires of the authorization's open accounts, healthy ones too.

    Only where a cell is empty does the account's current grant stand in, so that a relink never asks for less than today.
    """
    wanted: set[str] = set()
    for row in rows:
        if row["ledger_status"] == "open":
            required = row["required_permissions"]
            wanted.update(split_words(row["permissions"] if required is None else required))
    return tuple(sorted(wanted))


def widens(rows: Iterable[Row], permissions: tuple[str, ...], account_id: str | None) -> bool:
    """Whether an account that the session reaches is asked for more than it grants and needs."""
    return any(
        not {*split_words(row["permissions"]), *_needs(row)}.issuperset(permissions)
        for row in rows
        if row["stripe_status"] != "disconnected" and account_id in (None, row["account_id"])
    )


def _needs(row: Row) -> tuple[str, ...]:
    """What the ledger needs of an account; a closed row needs nothing."""
    return split_words(row["required_permissions"]) if row["ledger_status"] == "open" else ()


FILTERABLE_SUBCATEGORIES = frozenset({"checking", "credit_card", "line_of_credit", "mortgage", "savings"})
"""What a session can be narrowed to (Stripe API: financial_connections sessions create, filters[account_subcategories])."""


def covered_at_once(covered: Sequence[Row]) -> list[Sequence[Row]]:
    """The covered accounts as requests may take them up: those used for payments one after the other, since such a session is for one.

    Where one is used for data, one request covers them all: only a session without a limit brings a whole authorization back.
    """
    if any(row["purpose"] != "payments" for row in covered):
        return [covered]
    return [[row] for row in covered]


def subcategory_filter(covered: Iterable[Row]) -> tuple[str, ...]:
    """The subcategories to narrow a session to; none where an account has one that Stripe does not filter by, which would leave it out."""
    wanted = {row["subcategory"] for row in covered}
    return tuple(sorted(wanted)) if wanted <= FILTERABLE_SUBCATEGORIES else ()


def single_account(covered: Sequence[Row]) -> str | None:
    """The one account that a payments request is limited to."""
    if len(covered) == 1 and covered[0]["purpose"] == "payments":
        return str(covered[0]["account_id"])
    return None


def due_date(covered: Iterable[Row], stamp: RunStamp) -> date | None:
    """The earliest date on which one of the accounts broke or will: `inactive_since`, else the expected deactivation."""
    dates = [
        row["expected_deactivation_date"]
        if row["days_inactive"] is None
        else stamp.business_date - timedelta(days=row["days_inactive"])
        for row in covered
    ]
    return min((day for day in dates if day is not None), default=None)


def exposure_by_currency(rows: Iterable[Row]) -> dict[str, int]:
    """Integer money in minor units at stake, by currency code in order."""
    totals: dict[str, int] = {}
    for row in rows:
        if row["exposure_minor"] is not None and row["currency"] is not None:
            totals[row["currency"]] = totals.get(row["currency"], 0) + int(row["exposure_minor"])
    return dict(sorted(totals.items()))


def describe_covered(covered: Iterable[Row]) -> tuple[CoveredAccount, ...]:
    """The covered accounts as they stand when asked, ordered by id."""
    return tuple(
        CoveredAccount(
            account_id=row["account_id"],
            finding=row["finding"],
            required_permissions=split_words(row["required_permissions"]),
            institution_name=row["institution_name"],
            last4=row["last4"],
            subcategory=row["subcategory"],
        )
        for row in sorted(covered, key=lambda row: str(row["account_id"]))
    )


def session_parameters(request: RelinkRequest, policy: RelinkPolicy) -> dict[str, object]:
    """The body of the session that Stripe is asked to create (Stripe API: financial_connections sessions create).

    Args:
        policy: only what is said of the wire there; whom and what the request is for it holds itself.

    Raises:
        ValueError: the holder type is none that Stripe names.
    """
    if request.holder.type not in HOLDER_TYPES:
        raise ValueError(f"holder type {request.holder.type!r} cannot be sent to Stripe")
    kind = "account" if request.holder.type == "account" else "customer"
    options: dict[str, object] = {"authorization": request.authorization_id}
    parameters: dict[str, object] = {
        "account_holder": {"type": kind, request.holder.type: request.holder.id},
        "permissions": list(request.permissions),
        "relink_options": options,
    }
    if request.account_id is not None:
        options["account"] = request.account_id
    if request.limit_accounts is not None:
        parameters["limits"] = {"accounts": request.limit_accounts}
    filters: dict[str, object] = {}
    if request.account_subcategories:
        filters["account_subcategories"] = list(request.account_subcategories)
    if request.limit_accounts is not None and policy.require_payment_method_support is not None:
        filters["require_payment_method_support"] = policy.require_payment_method_support
    if filters:
        parameters["filters"] = filters
    return parameters | hosted_parameters(request, policy)
