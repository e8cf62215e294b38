"""Builds `summary.json`: one run in numbers, for people's scripts and for the notification."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, datetime
from enum import StrEnum

import pyarrow as pa
import pyarrow.compute as pc

from reconcile.masking import mask
from reconcile.model import BROUGHT_BACK, OutcomeKind, Result, RunStamp
from reports.closed_lists import AFFECTED_FINDINGS, FINDINGS, NEXT_STEPS, OUTCOMES, REASONS, REFRESH_STATUSES, RESULTS
from reports.control import ControlTotal, count_in, exposure_totals
from reports.table_building import of_merchant
from reports.twins import count_twins

ANSWERED = (*BROUGHT_BACK, OutcomeKind.FAILED, OutcomeKind.CANCELLED, OutcomeKind.REVIEW)
"""Outcomes that the customer brought about by doing something with the session."""

UNASKED = (OutcomeKind.REJECTED, OutcomeKind.NOT_SENT, OutcomeKind.UNKNOWN)
"""Outcomes of requests of which it is not known that a session exists."""


@dataclass(frozen=True, slots=True)
class ApiCalls:
    """What the run asked of Stripe: reads by purpose, sessions (`writes`), refreshes, and of all how many were repeated or slowed down."""

    reads: Mapping[str, int] = field(default_factory=dict)
    writes: int = 0
    retries: int = 0
    rate_limited: int = 0
    refreshes: int = 0


class Basis(StrEnum):
    """What a report's accounts and ledger rows are of: a snapshot of the report's own business date, or of an earlier one."""

    SNAPSHOT = "snapshot"
    EARLIER_SNAPSHOT = "earlier_snapshot"


@dataclass(frozen=True, slots=True)
class PullTold:
    """How a merchant's accounts were obtained tonight: `obtained` full or incremental, and `why`.

    `expected_reads` by purpose is what was said before. `drift` names accounts of which a full pull found what increments before it had missed, the
    first of them; `drift_accounts` counts all, None where the pull before was full or it could not be told.
    """

    obtained: str
    why: str
    expected_reads: Mapping[str, int] = field(default_factory=dict)
    base_snapshot_id: str | None = None
    accounts_read: int = 0
    told_by_events: int = 0
    drift_accounts: int | None = None
    drift: Sequence[str] = ()

    def as_json(self) -> dict[str, object]:
        """As it stands in the summary."""
        return {
            "obtained": self.obtained,
            "why": mask(self.why),
            "expected_reads": dict(sorted(self.expected_reads.items())),
            "base_snapshot_id": self.base_snapshot_id,
            "accounts_read": self.accounts_read,
            "told_by_events": self.told_by_events,
            "drift": None
            if self.drift_accounts is None
            else {"accounts": self.drift_accounts, "account_ids": list(self.drift)},
        }


@dataclass(frozen=True, slots=True)
class LapsesTold:
    """Logins of a bank that by our own history lapse within so many days: they last `lasts_days`, as `agreeing` of `observed` logins say.

    `logins_by_date` has ISO dates; `accounts` and the money, in minor units by currency, are of their open ledger rows.
    """

    institution_name: str
    lasts_days: int
    agreeing: int
    observed: int
    within_days: int
    logins: int
    logins_by_date: Mapping[str, int]
    accounts: int
    exposure_by_currency: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class MerchantRun:
    """How the run went for one merchant; `held` says that a brake holds its requests, which `held_plan_hash` releases.

    `quiet` is why nobody was contacted at that time. `basis_date` is the business date of the snapshot that its accounts are of; None where there was none.
    `pull` says how tonight's was obtained, None where none was. `expected_lapses` are by bank what its schedule lets expect.
    `refresh_trouble` is why fresh data could not all be asked for.
    """

    merchant: str
    mode: str
    snapshot_id: str | None = None
    complete: bool = True
    held: bool = False
    why: str | None = None
    held_plan_hash: str | None = None
    basis_date: date | None = None
    quiet: str | None = None
    pull: PullTold | None = None
    expected_lapses: Sequence[LapsesTold] = ()
    refresh_trouble: str | None = None

    def basis(self, run_date: date) -> Basis | None:
        """What it stands on, seen from the report's business date."""
        if self.basis_date is None:
            return None
        return Basis.SNAPSHOT if self.basis_date >= run_date else Basis.EARLIER_SNAPSHOT


@dataclass(frozen=True, slots=True)
class ForeignSession:
    """A session that asks about an authorization of the merchant's and that belongs to no request; `why` says why not."""

    merchant: str
    session_id: str
    authorization_id: str
    seen_at: datetime
    why: str


@dataclass(frozen=True, slots=True)
class Orphans:
    """Requests and sessions that lost each other: how many unknown requests were `found` tonight, of how many the accounts came back
    though no known session explains it, and which sessions nobody here made.
    """

    found: int = 0
    reactivated_unattributed: int = 0
    foreign: Sequence[ForeignSession] = ()


@dataclass(frozen=True, slots=True)
class RefusedTold:
    """A session of the merchant's list that is not followed, and why."""

    session_id: str
    why: str


@dataclass(frozen=True, slots=True)
class ListedTold:
    """What became of the sessions that `ledger.sessions_query` yields for a merchant: how many are followed already, which were `adopted` tonight,
    which are `refused`, and how many nobody has looked at yet.
    """

    merchant: str
    yielded: int
    followed_already: int
    adopted: Sequence[str] = ()
    refused: Sequence[RefusedTold] = ()
    unread: int = 0


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What the tables do not say about a run: `sent` counts requests that may have reached Stripe, `why` is for one that stopped."""

    stamp: RunStamp
    complete: bool
    sent: int
    merchants: Sequence[MerchantRun]
    why: str | None = None
    api_calls: ApiCalls = field(default_factory=ApiCalls)
    orphans: Orphans = field(default_factory=Orphans)
    listed: Sequence[ListedTold] = ()
    durations_seconds: Mapping[str, float] = field(default_factory=dict)


def build_summary(
    facts: RunFacts, tables: Mapping[str, pa.Table] | None, control: Sequence[ControlTotal] = ()
) -> dict[str, object]:
    """The summary as plain JSON values.

    `tables` holds every report table of a run that reached its report, or is None for one that stopped: its counts, funnel and
    money are null then, since a zero would read as nothing found.
    """
    stamp = facts.stamp
    dated = [one for one in facts.merchants if one.basis_date is not None]
    oldest = min(dated, key=lambda one: one.basis_date or date.max, default=None)
    return {
        "run_id": stamp.run_id,
        "run_date": stamp.business_date.isoformat(),
        "command": stamp.command,
        "resumed_from": stamp.resumed_from[0] if stamp.resumed_from else None,
        "complete": facts.complete,
        "dry_run": stamp.dry_run,
        "basis": None if oldest is None else oldest.basis(stamp.business_date),
        "basis_date": None if oldest is None or oldest.basis_date is None else oldest.basis_date.isoformat(),
        "drift": _drift(facts.merchants),
        "sent": facts.sent,
        "why": None if facts.why is None else mask(facts.why),
        "merchants": [
            _merchant(one, stamp.business_date, tables) for one in sorted(facts.merchants, key=lambda one: one.merchant)
        ],
        "counts": None if tables is None else _counts(tables),
        "funnel": None if tables is None else _funnel(tables),
        "money_at_stake_minor": None if tables is None else exposure_totals(tables["accounts"]),
        "twins": None if tables is None else count_twins(tables),
        "api_calls": {
            "reads": dict(sorted(facts.api_calls.reads.items())),
            "writes": facts.api_calls.writes,
            "refreshes": facts.api_calls.refreshes,
            "retries": facts.api_calls.retries,
            "rate_limited": facts.api_calls.rate_limited,
        },
        "orphans": _orphans(facts.orphans),
        **({"sessions_query": [_listed(one) for one in facts.listed]} if facts.listed else {}),
        "accounts_compared": None if tables is None else _compared(tables["relink_outcomes"]),
        "durations_seconds": {stage: round(seconds, 3) for stage, seconds in sorted(facts.durations_seconds.items())},
        "control": [total.as_json() for total in control],
    }


def _drift(merchants: Sequence[MerchantRun]) -> int | None:
    """How many accounts increments had missed, of all merchants of which that could be told tonight; None where of none."""
    told = [
        one.pull.drift_accounts for one in merchants if one.pull is not None and one.pull.drift_accounts is not None
    ]
    return sum(told) if told else None


def _merchant(one: MerchantRun, run_date: date, tables: Mapping[str, pa.Table] | None) -> dict[str, object]:
    """One merchant's part: of one that stopped before its report nothing is counted, since a zero would read as nothing found."""
    own = None
    if tables is not None:
        own = of_merchant(tables, one.merchant)
        own = own if one.complete or own["accounts"].num_rows else None
    return {
        "merchant": one.merchant,
        "mode": one.mode,
        "snapshot_id": one.snapshot_id,
        "basis": one.basis(run_date),
        "basis_date": None if one.basis_date is None else one.basis_date.isoformat(),
        "complete": one.complete,
        "held": one.held,
        "held_plan_hash": one.held_plan_hash,
        "why": None if one.why is None else mask(one.why),
        "quiet": one.quiet,
        "pull": None if one.pull is None else one.pull.as_json(),
        "expected_lapses": [asdict(each) for each in one.expected_lapses],
        "refresh_trouble": None if one.refresh_trouble is None else mask(one.refresh_trouble),
        "counts": None if own is None else _counts(own),
        "funnel": None if own is None else _funnel(own),
        "money_at_stake_minor": None if own is None else exposure_totals(own["accounts"]),
        "twins": None if own is None else count_twins(own),
    }


def _orphans(orphans: Orphans) -> dict[str, object]:
    return {
        "found": orphans.found,
        "reactivated_unattributed": orphans.reactivated_unattributed,
        "foreign_sessions": [
            {
                "merchant": one.merchant,
                "session_id": one.session_id,
                "authorization_id": one.authorization_id,
                "seen_at": one.seen_at.isoformat(),
                "why": mask(one.why),
                "command": f"relink adopt {shlex.quote(one.session_id)}",
            }
            for one in sorted(orphans.foreign, key=lambda one: (one.merchant, one.seen_at, one.session_id))
        ],
    }


def _listed(one: ListedTold) -> dict[str, object]:
    refused = [{"session_id": each.session_id, "why": mask(each.why)} for each in one.refused]
    return {**asdict(one), "adopted": list(one.adopted), "refused": refused}


def _compared(outcomes: pa.Table) -> dict[str, int]:
    """What tonight's answers brought back, laid beside what was asked for."""
    answered = outcomes.filter(pc.is_in(outcomes["outcome"], pa.array([str(outcome) for outcome in ANSWERED])))
    with_others = pc.greater(pc.list_value_length(answered["other_accounts"]), 0)
    return {
        "expected": pc.sum(answered["accounts_expected"]).as_py() or 0,
        "cured": pc.sum(answered["accounts_cured"]).as_py() or 0,
        "others": pc.sum(pc.list_value_length(answered["other_accounts"])).as_py() or 0,
        "requests_with_others": pc.sum(with_others).as_py() or 0,
    }


def _counts(tables: Mapping[str, pa.Table]) -> dict[str, dict[str, int]]:
    """Accounts by finding and next step, requests by result and reason, outcomes by kind; every closed value is there."""
    return {
        "finding": _count_each(tables["accounts"]["finding"], FINDINGS),
        "next_step": _count_each(tables["accounts"]["next_step"], NEXT_STEPS),
        "result": _count_each(tables["relink_requests"]["result"], RESULTS),
        "reason": _count_each(tables["relink_requests"]["reason"], REASONS),
        "outcome": _count_each(tables["relink_outcomes"]["outcome"], OUTCOMES),
        "refresh_status": _count_each(tables["accounts"]["refresh_status"], REFRESH_STATUSES),
    }


def _count_each(column: pa.ChunkedArray, values: Mapping[str, str]) -> dict[str, int]:
    counted = {entry["values"]: entry["counts"] for entry in pc.value_counts(column).to_pylist()}
    return {str(value): counted.get(str(value), 0) for value in values}


def _funnel(tables: Mapping[str, pa.Table]) -> dict[str, dict[str, int]]:
    """From all accounts down to tonight's requests, and from the requests of 30 business dates down to those that cured."""
    accounts, authorizations, requests = tables["accounts"], tables["authorizations"], tables["relink_requests"]
    window = tables["failure_reasons"]
    in_both = pc.and_(pc.is_valid(accounts["stripe_status"]), pc.is_valid(accounts["ledger_status"]))
    return {
        "tonight": {
            "accounts": accounts.num_rows,
            "accounts_in_both": pc.sum(in_both).as_py() or 0,
            "affected_accounts": count_in(accounts["finding"], AFFECTED_FINDINGS),
            "affected_authorizations": pc.sum(pc.greater(authorizations["affected_accounts"], 0)).as_py() or 0,
            "requests": requests.num_rows,
            "created": count_in(requests["result"], (Result.CREATED,)),
        },
        "thirty_days": {
            "requests": pc.sum(window["requests"]).as_py() or 0,
            "asked": _requests_with(window, [kind for kind in OutcomeKind if kind not in UNASKED]),
            "answered": _requests_with(window, ANSWERED),
            "cured": _requests_with(window, BROUGHT_BACK),
        },
    }


def _requests_with(window: pa.Table, outcomes: Sequence[OutcomeKind]) -> int:
    chosen = window.filter(pc.is_in(window["outcome"], pa.array([str(outcome) for outcome in outcomes])))
    return pc.sum(chosen["requests"]).as_py() or 0
