"""Findings, requests and whole reports with defaults that a test overrides where it matters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime

import pandas as pd
import pyarrow as pa

from reconcile.frames import FINDINGS, from_columns
from reconcile.model import BreakageKey, CoveredAccount, Holder, RelinkRequest, RunStamp, StoredRequest, Successor
from reports.control import ControlInputs
from reports.request_tables import (
    account_successors_table,
    failure_reasons_table,
    relink_outcomes_table,
    relink_requests_table,
)
from reports.summary import ApiCalls, MerchantRun, RunFacts
from reports.tables import accounts_table, authorizations_table

NIGHT = datetime(2026, 11, 22, 3, 30, tzinfo=UTC)

STAMP = RunStamp("20261122T033000Z-ab12", "run", NIGHT, date(2026, 11, 22), "UTC")


def account(account_id: str, **columns: object) -> dict[str, object]:
    """One row of findings: an open, healthy account of its own authorization."""
    row: dict[str, object] = dict.fromkeys(FINDINGS)
    row.update(
        account_id=account_id,
        authorization_id="fcauth_1",
        holder_type="customer",
        account_holder_id="cus_1",
        institution_name="Bank One",
        last4="0001",
        subcategory="checking",
        stripe_status="active",
        permissions="balances;transactions",
        ledger_holder_id="cus_1",
        purpose="data",
        ledger_status="open",
        do_not_contact=False,
        in_stripe=True,
        in_ledger=True,
        finding="ok",
        also="",
        missing_permissions="",
        shared_accounts=1,
        shared_affected=0,
        next_step="none",
    )
    row.update(columns)
    return row


def broken(account_id: str, **columns: object) -> dict[str, object]:
    """An inactive account that is to be asked about."""
    return account(
        account_id, **{"stripe_status": "inactive", "finding": "inactive", "next_step": "request", **columns}
    )


def findings(*rows: Mapping[str, object]) -> pd.DataFrame:
    """The rows as the contracted frame."""
    return from_columns({name: [row[name] for row in rows] for name in FINDINGS}, FINDINGS)


def request(request_id: str = "req_1", **fields: object) -> RelinkRequest:
    """A request for one account of one authorization."""
    plain = RelinkRequest(
        request_id=request_id,
        merchant="main",
        mode="sandbox",
        breakage=BreakageKey("fcauth_1", "connection", 1),
        attempt=1,
        account_id=None,
        holder=Holder("customer", "cus_1"),
        institution_name="Bank One",
        reason="inactive",
        cause="access_expired",
        covered=(CoveredAccount("fca_1", "inactive"),),
        permissions=("balances",),
        widens=False,
        delivery="modal",
        due_date=None,
        exposure_by_currency={"EUR": 1250},
        references=("loan 1",),
        origin="run",
    )
    return replace(plain, **fields)  # type: ignore[arg-type]


def stored(request_id: str = "req_1", *, of: Mapping[str, object] | None = None, **fields: object) -> StoredRequest:
    """A request that Stripe made a session for; `of` changes the request itself."""
    plain = StoredRequest(
        request=request(request_id, **(of or {})),
        run_id=STAMP.run_id,
        business_date=STAMP.business_date,
        state="created",
        planned_at=NIGHT,
        attempting_at=NIGHT,
        session_id=f"fcsess_{request_id}",
        calls=1,
        http_status=200,
        requested_at=NIGHT,
    )
    return replace(plain, **fields)  # type: ignore[arg-type]


def tables(
    frame: pd.DataFrame | None = None,
    requests: tuple[StoredRequest, ...] = (),
    outcomes: tuple[StoredRequest, ...] = (),
    successors: tuple[Successor, ...] = (),
) -> dict[str, pa.Table]:
    """Every table of one merchant's night."""
    frame = findings() if frame is None else frame
    return {
        "accounts": accounts_table("main", frame),
        "authorizations": authorizations_table("main", frame, requests),
        "relink_requests": relink_requests_table(requests),
        "relink_outcomes": relink_outcomes_table(outcomes),
        "account_successors": account_successors_table("main", successors),
        "failure_reasons": failure_reasons_table(requests),
    }


def night() -> dict[str, pa.Table]:
    """A small night: one account sent, one to review, one healthy, one only in the ledger; and an earlier success."""
    frame = findings(
        broken("fca_1", exposure_minor=1250, currency="EUR", reference="loan 1", authorization_id="fcauth_1"),
        account("fca_2", authorization_id="fcauth_1"),
        account(
            "fca_3",
            authorization_id="fcauth_3",
            ledger_status=None,
            in_ledger=False,
            finding="not_in_ledger",
            next_step="review",
        ),
        account(
            "fca_4",
            authorization_id=None,
            account_holder_id=None,
            ledger_holder_id="cus_4",
            stripe_status=None,
            in_stripe=False,
            finding="not_in_stripe",
            next_step="not_relinkable",
            permissions=None,
            missing_permissions=None,
        ),
    )
    sent = stored()
    successor = Successor("fca_8", "fca_9", "fcauth_8", "fcauth_9", "id", "req_0")
    return tables(frame, (sent,), (sent,), (successor,))


NIGHT_INPUTS = ControlInputs(
    accounts_pulled=3,
    ledger_rows=3,
    ids_in_both=2,
    plan_requests=1,
    keys_posted=1,
    sessions_recorded=1,
    open_before=2,
    answered=2,
    open_after=1,
    outcome_requests=1,
    successors_recorded=1,
    window_requests=1,
)
"""The other side of `night`."""


def facts(**fields: object) -> RunFacts:
    """A complete run of one merchant that sent one request."""
    plain = RunFacts(
        stamp=STAMP,
        complete=True,
        sent=1,
        merchants=[MerchantRun("main", "sandbox", "snap_1")],
        api_calls=ApiCalls({"pull": 1}, writes=1),
        durations_seconds={"pull": 1.25},
    )
    return replace(plain, **fields)  # type: ignore[arg-type]
