"""Small worlds for the core: accounts, ledger rows and requests with defaults, and whole nights of the pure stages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd

from reconcile.breakages import BreakageStep, advance_breakages
from reconcile.classify import classify
from reconcile.contacts import sum_up_contacts
from reconcile.frames import HISTORY, empty
from reconcile.history import HistoryStep, advance_history
from reconcile.ledger import LedgerRow
from reconcile.model import (
    Breakage,
    BreakageKey,
    CoveredAccount,
    Holder,
    Plan,
    RelinkRequest,
    RunStamp,
    Scope,
    State,
    StoredRequest,
    Successor,
)
from reconcile.normalize import accounts_frame, ledger_frame
from reconcile.plan import PlanInputs, plan
from reconcile.policy import RelinkPolicy
from reconcile.records import AccountNumber, AccountRecord, SessionRecord
from reconcile.twins import Twins, judge_twins

FIRST_NIGHT = datetime(2026, 11, 2, 3, 30, tzinfo=UTC)
SCOPE = Scope("main", "sandbox")
TOKENIZED = "tokenized_account_number"


def stamp(day: int = 0, timezone: str = "UTC", at: datetime | None = None) -> RunStamp:
    """The stamp of a run so many days after the first night."""
    moment = at or FIRST_NIGHT + timedelta(days=day)
    return RunStamp(f"run{day}", "run", moment, moment.astimezone(ZoneInfo(timezone)).date(), timezone)


def account(account_id: str = "fca_1", authorization_id: str | None = "fcauth_1", **fields: Any) -> AccountRecord:
    """A healthy account of `cus_1`."""
    plain: dict[str, Any] = {
        "account_id": account_id,
        "authorization_id": authorization_id,
        "authorization_key_present": True,
        "holder_type": "customer",
        "account_holder_id": "cus_1",
        "institution_id": "fcinst_1",
        "institution_name": "Bank One",
        "last4": "0001",
        "category": "cash",
        "subcategory": "checking",
        "status": "active",
        "active_action": None,
        "active_cause": None,
        "expected_deactivation_at": None,
        "inactive_action": None,
        "inactive_cause": None,
        "permissions": ("balances", "transactions"),
        "account_numbers": (),
        "last_refreshed_at": None,
        "created_at": None,
        "livemode": False,
    }
    return AccountRecord(**(plain | fields))


def inactive(account_id: str = "fca_1", authorization_id: str | None = "fcauth_1", **fields: Any) -> AccountRecord:
    """An account that a relink would bring back."""
    plain = {"status": "inactive", "inactive_action": "relink_required", "inactive_cause": "access_expired"}
    return account(account_id, authorization_id, **(plain | fields))


def expiring(
    account_id: str = "fca_1", authorization_id: str | None = "fcauth_1", days: float | None = 5, **fields: Any
) -> AccountRecord:
    """An account that stops working so many days after the first night; None: Stripe gives no date."""
    due = None if days is None else FIRST_NIGHT + timedelta(days=days)
    plain = {"active_action": "relink_required", "active_cause": "access_expired", "expected_deactivation_at": due}
    return account(account_id, authorization_id, **(plain | fields))


def number(status: str = "transactable", days: float | None = None, identifier_type: str = TOKENIZED) -> AccountNumber:
    """An account number, with the days from the first night to its expiry."""
    return AccountNumber(identifier_type, status, None if days is None else FIRST_NIGHT + timedelta(days=days))


def row(account_id: str = "fca_1", holder_id: str = "cus_1", **fields: Any) -> LedgerRow:
    """An open ledger row that needs no more than a healthy account grants."""
    return LedgerRow(**({"merchant": "main", "account_id": account_id, "account_holder_id": holder_id} | fields))


@dataclass
class Memory:
    """What the job would remember from night to night."""

    policy: RelinkPolicy = field(default_factory=RelinkPolicy)
    timezone: str = "UTC"
    history: pd.DataFrame = field(default_factory=lambda: empty(HISTORY))
    breakages: tuple[Breakage, ...] = ()
    numbers: dict[tuple[str, str], int] = field(default_factory=dict)
    requests: list[StoredRequest] = field(default_factory=list)
    successors: dict[str, str] = field(default_factory=dict)
    unmatched: frozenset[str] = frozenset()
    past: list[pd.DataFrame] = field(default_factory=list)
    known: list[Successor] = field(default_factory=list)
    looks_for_twins: bool = False


@dataclass
class Decided:
    """What one night decided."""

    findings: pd.DataFrame
    plan: Plan
    breakages: BreakageStep
    history: HistoryStep
    twins: Twins = field(default_factory=Twins)

    def cell(self, account_id: str, column: str) -> Any:
        """One cell of an account's row."""
        chosen = self.findings.loc[self.findings["account_id"] == account_id, column]
        assert len(chosen) == 1
        value = chosen.iloc[0]
        return None if value is pd.NA else value

    def steps(self) -> dict[str, str]:
        """Every account's next step."""
        return dict(zip(self.findings["account_id"], self.findings["next_step"], strict=True))

    @property
    def asked(self) -> list[str]:
        """The authorizations asked about, in sending order."""
        return [request.authorization_id for request in self.plan.requests]


def decide(
    accounts: Sequence[AccountRecord],
    ledger: Sequence[LedgerRow],
    memory: Memory | None = None,
    run: RunStamp | None = None,
    *,
    deactivated_at: Mapping[str, datetime] | None = None,
    **inputs: Any,
) -> Decided:
    """One night of the pure stages; `memory` is carried forward but for requests and those successors that are no twins."""
    memory = Memory() if memory is None else memory
    run = stamp(timezone=memory.timezone) if run is None else run
    frame = accounts_frame(accounts)
    history = advance_history(memory.history, frame, run, deactivated_at)
    findings = classify(frame, ledger_frame(ledger, "main"), history.latest, memory.policy, run)
    memory.past.append(history.changed)
    twins = Twins()
    if memory.looks_for_twins:
        twins = judge_twins(findings, history.latest, pd.concat(memory.past, ignore_index=True), memory.known)
        memory.known.extend(twins.successors)
        memory.successors = {
            one.old_account_id: one.new_account_id for one in memory.known if one.old_account_id not in twins.withdrawn
        }
    step = advance_breakages(memory.breakages, memory.numbers, findings, memory.successors, run)
    memory.history, memory.breakages = history.latest, step.open
    memory.numbers |= {(one.key.authorization_id, one.key.kind): one.key.number for one in step.opened}
    contacts = sum_up_contacts(memory.requests, [one.key for one in step.open], run)
    planned, made = plan(
        findings,
        PlanInputs(
            scope=SCOPE,
            stamp=run,
            policy=memory.policy,
            breakages=step.open,
            contacts=contacts,
            successors=memory.successors,
            unmatched_accounts=memory.unmatched,
            twins_in_review=twins.in_review,
            **inputs,
        ),
    )
    return Decided(planned, made, step, history, twins)


def send(memory: Memory, requests: Iterable[RelinkRequest], run: RunStamp, **fields: Any) -> list[StoredRequest]:
    """Remember requests as created tonight and, unless told otherwise, handed over at once."""
    made = []
    for request in requests:
        one = stored(request, run.business_date, run.as_of, session_id=f"fcsess_{len(memory.requests) + 1}", **fields)
        memory.requests.append(one)
        made.append(one)
    return made


def stored(request: RelinkRequest, day: date, at: datetime, **fields: Any) -> StoredRequest:
    """A request whose session was made and handed over."""
    plain: dict[str, Any] = {
        "request": request,
        "run_id": "run",
        "business_date": day,
        "state": str(State.CREATED),
        "planned_at": at,
        "attempting_at": at,
        "requested_at": at,
        "offered_at": at,
        "session_id": "fcsess_1",
    }
    return StoredRequest(**(plain | fields))


def answered(memory: Memory, outcome: str, at: int = -1) -> StoredRequest:
    """Let the newest request, or another, have this outcome."""
    memory.requests[at] = replace(memory.requests[at], outcome=outcome)
    return memory.requests[at]


def request(*covered: CoveredAccount, **fields: Any) -> RelinkRequest:
    """A first request of `cus_1` about `fcauth_1`."""
    plain: dict[str, Any] = {
        "request_id": "req_1",
        "merchant": "main",
        "mode": "sandbox",
        "breakage": BreakageKey("fcauth_1", "connection", 1),
        "attempt": 1,
        "account_id": None,
        "holder": Holder("customer", "cus_1"),
        "institution_name": "Bank One",
        "reason": "inactive",
        "cause": "access_expired",
        "covered": covered or (CoveredAccount("fca_1", "inactive", (), "Bank One", "0001", "checking"),),
        "permissions": ("balances",),
        "widens": False,
        "delivery": "modal",
        "due_date": None,
        "exposure_by_currency": {},
        "references": (),
        "origin": "run",
    }
    return RelinkRequest(**(plain | fields))


def session(status: str | None = "pending", *accounts: AccountRecord, **fields: Any) -> SessionRecord:
    """A session about `fcauth_1` as Stripe shows it."""
    plain: dict[str, Any] = {
        "session_id": "fcsess_1",
        "status": status,
        "has_relink_options": True,
        "requested_authorization": "fcauth_1",
        "requested_account": None,
        "result_present": bool({"result_authorization", "failure_reason"} & set(fields)),
        "result_authorization": None,
        "result_account": None,
        "failure_reason": None,
        "cancelled_reason": None,
        "ui_mode": "modal",
        "delivery_method": None,
        "holder_type": "customer",
        "account_holder_id": "cus_1",
        "permissions": ("balances",),
        "accounts": accounts,
        "livemode": False,
    }
    return SessionRecord(**(plain | fields))
