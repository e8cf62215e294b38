"""One merchant's part of a run: what is known so far, filled in stage by stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path

import pandas as pd

from jobs.adapters.records import SnapshotRecord
from jobs.wiring import Merchant
from jobs.work import Work
from reconcile.brakes import BrakeVerdict
from reconcile.breakages import BreakageStep
from reconcile.listed_sessions import ListedSession
from reconcile.model import BreakageKey, Holder, Outcome, Plan, RunStamp, StoredRequest, Successor
from reconcile.orphans import ForeignSession, SessionHint
from reconcile.outcomes import Look
from reconcile.schedules import ExpectedLapses
from reconcile.twins import Twins


@dataclass(frozen=True, slots=True)
class Hints:
    """What Stripe's events told: the newest time of each kind, by account or session id, and up to when they need not be read again."""

    deactivated_at: Mapping[str, datetime] = field(default_factory=dict)
    session_updated_at: Mapping[str, datetime] = field(default_factory=dict)
    sessions: tuple[SessionHint, ...] = ()
    read_to: datetime | None = None


DRIFT_SHOWN = 20
"""So many of the accounts that increments had missed are named."""


@dataclass(frozen=True, slots=True)
class PullFacts:
    """How tonight's accounts were obtained and why so; `expected_reads` by purpose was said before.

    Of an increment: the snapshot it rests on, how many accounts were read by a page and how many rows were taken from events. Of a full pull after
    increments: the ids of the accounts that they had missed, None where that could not be told.
    """

    obtained: str
    why: str
    expected_reads: Mapping[str, int] = field(default_factory=dict)
    base_snapshot_id: str | None = None
    accounts_read: int = 0
    told_by_events: int = 0
    drift: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Counted:
    """How many accounts Stripe listed, how many rows the ledger has, and how many ids they share, all counted before the join."""

    accounts: int = 0
    ledger_rows: int = 0
    ids_in_both: int = 0


@dataclass(frozen=True, slots=True)
class Found:
    """A lost request as it stands with the session that it made, and how that session looks."""

    stored: StoredRequest
    look: Look


@dataclass(frozen=True, slots=True)
class Adoption:
    """What became of one session id that was to be followed: adopted, already followed, or refused and why.

    A `lasting` refusal stays true, for as long as the `authorization_id` that the session asks about is not known, if that is why.
    """

    session_id: str
    result: str
    why: str = ""
    lasting: bool = False
    authorization_id: str | None = None


@dataclass(frozen=True, slots=True)
class Listed:
    """What `ledger.sessions_query` yields tonight: how many are `known` already, those `to_read`, how many stay `unread` until the next night,
    and those `refused_before`. `results` are of tonight, once they were read."""

    ids: frozenset[str]
    known: int
    to_read: tuple[ListedSession, ...]
    unread: int
    refused_before: tuple[tuple[ListedSession, Adoption], ...]
    results: tuple[Adoption, ...] = ()


@dataclass(slots=True)
class MerchantNight:
    """What one run has learnt and done for one merchant; a stage reads what earlier ones filled in. `only` are the authorizations that the
    command is about, None for all. `silence` is why nobody of the merchant is asked by this run, whatever the time. Of a million accounts each frame takes some 200 MiB, so one that no later stage reads is dropped: `accounts`,
    `ledger` and `history` hold nothing once `findings` do, and `history_changed` nothing once it is recorded."""

    merchant: Merchant
    work: Work
    stamp: RunStamp
    snapshot_id: str | None = None
    snapshot_date: date | None = None
    new_snapshot: SnapshotRecord | None = None
    taken_at: datetime | None = None
    pulled: bool = False
    pull: PullFacts | None = None
    read_ids: frozenset[str] | None = None
    expected_reads: Mapping[str, int] = field(default_factory=dict)
    accounts: pd.DataFrame = field(default_factory=pd.DataFrame)
    ledger: pd.DataFrame = field(default_factory=pd.DataFrame)
    suppressed_ids: frozenset[str] = frozenset()
    silence: str | None = None
    quiet: str | None = None
    history: pd.DataFrame = field(default_factory=pd.DataFrame)
    history_changed: pd.DataFrame = field(default_factory=pd.DataFrame)
    changed_holders: frozenset[Holder] = frozenset()
    hints: Hints = field(default_factory=Hints)
    events_read_to: datetime | None = None
    found: list[Found] = field(default_factory=list)
    foreign: list[ForeignSession] = field(default_factory=list)
    newly_foreign: list[ForeignSession] = field(default_factory=list)
    unattributed: list[StoredRequest] = field(default_factory=list)
    settled: list[str] = field(default_factory=list)
    open_before: int = 0
    looked_at: list[StoredRequest] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    successors: list[Successor] = field(default_factory=list)
    twins: Twins = field(default_factory=Twins)
    checked: list[tuple[str, str | None]] = field(default_factory=list)
    contacts: list[StoredRequest] = field(default_factory=list)
    only: frozenset[str] | None = None
    breakages: BreakageStep | None = None
    counted: Counted = field(default_factory=Counted)
    findings: pd.DataFrame = field(default_factory=pd.DataFrame)
    expected_lapses: tuple[ExpectedLapses, ...] = ()
    drop_released: bool = False
    released: tuple[BreakageKey, ...] = ()
    brakes: BrakeVerdict = field(default_factory=lambda: BrakeVerdict(frozenset(), frozenset(), ()))
    held_plan_hash: str | None = None
    held_plan_file: Path | None = None
    plan: Plan = field(default_factory=lambda: Plan((), ()))
    unknown_names: list[str] = field(default_factory=list)
    resolved_unknowns: list[str] = field(default_factory=list)
    adoptions: list[Adoption] = field(default_factory=list)
    listed: Listed | None = None
    replays: int = 0
    created: int = 0
    answered: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)
    why: str | None = None
    refresh_trouble: str | None = None
    calls_recorded: bool = False
    complete: bool = False
