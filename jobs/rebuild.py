"""Makes the report of a past business date once more: from its snapshot and from the records as they stood then, never from what came later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from jobs.adapters import records
from jobs.past_records import PastRecords, past_records
from jobs.publish import MerchantTold, report_tables
from jobs.recorded import COMMAND, recorded_settings, stamp_of_date, stamp_of_run
from jobs.report_facts import KeptFacts, MerchantFacts, unpack
from jobs.settings import Settings
from jobs.twins import find_twins, moved_accounts
from jobs.wiring import Wiring, brake_policy, ledger_place, relink_policy
from reconcile.brakes import BrakeInputs, apply_brakes
from reconcile.breakages import advance_breakages
from reconcile.classify import classify
from reconcile.contacts import sum_up_contacts
from reconcile.errors import OutsideError
from reconcile.ladder import eligible_dates
from reconcile.model import RunStamp, Scope, State
from reconcile.outcomes import unmatched_accounts
from reconcile.past_accounts import carry_forward
from reconcile.plan import PlanInputs, plan
from reconcile.quiet import quiet_customers
from reports.control import ControlInputs
from reports.files import LINKED_COMMANDS
from reports.past_nights import Past, read_past_again
from reports.past_runs import PastRun
from reports.request_tables import relink_outcomes_table, relink_requests_table
from reports.summary import ApiCalls, Basis, MerchantRun, RunFacts
from reports.tables import combine

if TYPE_CHECKING:
    import pyarrow as pa

    from reports.files import Published

_WEEK_DAYS = 7


class NothingToStandOn(Exception):
    """There is no snapshot from which a report could be made; what is missing is in its text."""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A report that was made again. `basis` and `basis_date` are those of its summary; `as_published` says whether it is byte for byte what was
    published then, None where that is not known, and `why` what differs.
    """

    published: Published
    run_id: str
    basis: Basis | None
    basis_date: date | None
    as_published: bool | None
    why: str | None = None


@dataclass(frozen=True, slots=True)
class _Report:
    """Everything that goes into a report but the page's look back."""

    facts: RunFacts
    told: list[MerchantTold]
    control: Mapping[str, ControlInputs]
    settings: Settings


@dataclass(frozen=True, slots=True)
class _Ground:
    """What a merchant's accounts and ledger are taken from, and its settings of that time."""

    record: records.SnapshotRecord
    accounts: pd.DataFrame
    ledger: pd.DataFrame
    history: pd.DataFrame
    settings: Settings
    moment: datetime


class Rebuilder:
    """Makes past reports again; it asks nobody anything, and records nothing."""

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._tables: dict[str, Mapping[str, pa.Table] | None] = {}

    def has_snapshots_of(self, run: records.StoredRun) -> bool:
        """Whether every snapshot that a run took or was made from is still on record."""
        taken = [one.snapshot_id for one in run.merchants if one.snapshot_id is not None]
        return all(records.snapshot(self._wiring.database, one) is not None for one in taken)

    def rebuild_run(self, run: records.StoredRun) -> Rebuilt:
        """The report of a complete run, under its own id.

        Raises:
            NothingToStandOn: its snapshot was removed, and so were all before it.
            OutsideError: its snapshot is missing or damaged.
        """
        kept = self._kept(run.run_id)
        report = self._of_run(run, kept)
        past = None
        if kept is not None and kept.before:
            past = read_past_again(self._root, kept.before, kept.unread, self._past_table)
        rebuilt = self._put(report, past)
        if kept is None or not kept.files or rebuilt.basis is not Basis.SNAPSHOT:
            return rebuilt
        now = rebuilt.published.files
        others = sorted(name for name in {*now, *kept.files} if now.get(name) != kept.files.get(name))
        if not others:
            return replace(rebuilt, as_published=True)
        why = f"other bytes than were published then in {', '.join(others)}"
        if past is not None and len(past.unread) > len(kept.unread):
            why += "; its page looks back on reports that are lost"
        return replace(rebuilt, as_published=False, why=why)

    def rebuild_date(self, on: date) -> Rebuilt:
        """The report of a past date that no run completed: the nearest earlier snapshot, and what the records say of that date's end.

        Raises:
            NothingToStandOn: there is no earlier snapshot.
            OutsideError: the snapshot is missing or damaged.
        """
        return self._put(self._of_date(on), None)

    @property
    def _root(self) -> Path:
        return self._wiring.settings.reports.directory

    def _put(self, report: _Report, past: Past | None) -> Rebuilt:
        directory = replace(
            self._wiring.reports, formats=report.settings.reports.formats, ledger=ledger_place(report.settings)
        )
        published = directory.rebuild(report.facts, report_tables(report.told), report.control, past)
        stamp = report.facts.stamp
        oldest = min(one.basis_date for one in report.facts.merchants if one.basis_date is not None)
        basis = Basis.SNAPSHOT if oldest >= stamp.business_date else Basis.EARLIER_SNAPSHOT
        return Rebuilt(published, stamp.run_id, basis, oldest, None)

    def _kept(self, run_id: str) -> KeptFacts | None:
        stored = records.report_facts_of(self._wiring.database, run_id)
        return None if stored is None else unpack(stored)

    # A run that completed

    def _of_run(self, run: records.StoredRun, kept: KeptFacts | None) -> _Report:
        settings = recorded_settings(run.settings)
        facts = kept.run if kept is not None else self._facts_of(run, settings)
        moment = kept.published_at if kept is not None else run.finished_at or run.started_at
        told: list[MerchantTold] = []
        control: dict[str, ControlInputs] = {}
        merchants = {one.merchant: one for one in facts.merchants}
        for one in run.merchants:
            scope = Scope(one.merchant, one.mode)
            own = None if kept is None else kept.merchants.get(one.merchant)
            if (kept is not None and own is None) or one.snapshot_id is None:
                continue  # it stopped before its report
            ground = self._ground(scope, run.business_date, facts.stamp.as_of, one.snapshot_id, settings)
            then = self._then(scope, facts.stamp, settings, moment, own)
            findings = self._findings(ground, facts.stamp)
            decided = None if own is None else own.decided.put_on(findings)
            is_own = ground.record.snapshot_id == one.snapshot_id
            if decided is None and is_own and own is not None:
                raise OutsideError(
                    f"run {run.run_id}: its snapshot {ground.record.path} and what was decided on it are of different accounts: restore "
                    "the database and the snapshots from the same backup"
                )
            if decided is None:
                decided = self._plan_again(scope, facts.stamp, ground, then, findings)
            told.append(_told(scope, decided, then, facts.stamp))
            given = ControlInputs() if own is None else own.control
            control[one.merchant] = given if is_own and own is not None else _recounted(given, ground, then)
            merchants[one.merchant] = replace(
                merchants[one.merchant], snapshot_id=ground.record.snapshot_id, basis_date=ground.record.business_date
            )
        if not told:
            raise NothingToStandOn(f"run {run.run_id} has no snapshot on record")
        facts = replace(facts, merchants=[merchants[one.merchant] for one in facts.merchants])
        return _Report(facts, told, control, settings)

    def _facts_of(self, run: records.StoredRun, settings: Settings) -> RunFacts:
        """The run in numbers as far as the records tell, for one that a version published which kept no more."""
        calls = records.api_calls_of_run(self._wiring.database, run.run_id)
        sent = (State.ATTEMPTING, State.CREATED, State.REJECTED, State.UNKNOWN)
        requests = records.requests_of_run(self._wiring.database, run.run_id)
        writes = [one for one in calls if one.kind == "write" and one.purpose != "refresh"]
        refreshes = [one for one in calls if one.kind == "write" and one.purpose == "refresh"]
        return RunFacts(
            stamp=stamp_of_run(run, settings.schedule.timezone),
            complete=True,
            sent=sum(one.state in sent for one in requests),
            merchants=[
                MerchantRun(one.merchant, one.mode, one.snapshot_id, one.complete, one.held, one.why)
                for one in run.merchants
            ],
            why=run.why,
            api_calls=ApiCalls(
                {one.purpose: one.calls for one in calls if one.kind == "read"},
                sum(one.calls for one in writes),
                sum(one.retries for one in calls),
                sum(one.rate_limited for one in calls),
                sum(one.calls for one in refreshes),
            ),
        )

    # A date that no run completed

    def stamp_of(self, on: date) -> RunStamp:
        """The stamp of a date that no run completed, in the time zone of the snapshot that it is made from.

        Raises:
            NothingToStandOn: there is no such snapshot.
        """
        _, record = self._nearest(on)[0]
        run = records.run(self._wiring.database, record.run_id)
        settings = self._wiring.settings if run is None else recorded_settings(run.settings)
        return stamp_of_date(on, settings.schedule.timezone)

    def _nearest(self, on: date) -> list[tuple[Scope, records.SnapshotRecord]]:
        """The newest snapshot of a date or an earlier one, of each merchant that its night would have covered."""
        database = self._wiring.database
        scopes = records.recorded_scopes(database)
        covered = records.newest_run_of(database, LINKED_COMMANDS, complete=True, until=on)
        if covered is not None:
            names = {one.merchant for one in covered.merchants}
            scopes = [scope for scope in scopes if scope.merchant in names]
        found = [(scope, records.last_snapshot(database, scope, on_or_before=on)) for scope in scopes]
        chosen = [(scope, record) for scope, record in found if record is not None]
        if not chosen:
            raise NothingToStandOn("there is no snapshot of this date or an earlier one")
        return chosen

    def _of_date(self, on: date) -> _Report:
        stamp = self.stamp_of(on)
        told: list[MerchantTold] = []
        control: dict[str, ControlInputs] = {}
        merchants: list[MerchantRun] = []
        settings: Settings | None = None
        for scope, record in self._nearest(on):
            ground = self._ground(scope, on, stamp.as_of, None, None)
            settings = settings or ground.settings
            then = self._then(scope, stamp, ground.settings, stamp.as_of, None)
            findings = self._plan_again(scope, stamp, ground, then, self._findings(ground, stamp))
            told.append(_told(scope, findings, then, stamp))
            control[scope.merchant] = _recounted(ControlInputs(), ground, then)
            merchants.append(
                MerchantRun(scope.merchant, scope.mode, record.snapshot_id, basis_date=record.business_date)
            )
        assert settings is not None  # there is no date without a merchant
        return _Report(RunFacts(stamp, complete=True, sent=0, merchants=merchants), told, control, settings)

    # Both

    def _ground(
        self, scope: Scope, on: date, moment: datetime, snapshot_id: str | None, settings: Settings | None
    ) -> _Ground:
        """The snapshot of a run, or, where that is there no more or there was no run, the nearest one before, carried on to the moment."""
        database = self._wiring.database
        record = None if snapshot_id is None else records.snapshot(database, snapshot_id)
        is_own = record is not None
        if record is None:
            record = records.last_snapshot(database, scope, on_or_before=on)
        if record is None:
            raise NothingToStandOn(
                f"merchant {scope.merchant}: its snapshot and all earlier ones were removed; see `retention.snapshots_days`"
            )
        snapshot = self._wiring.snapshots.read(record.path, record.sha256)
        history = records.latest_history(database, scope, moment)
        accounts = snapshot.accounts if is_own else carry_forward(snapshot.accounts, history, record.taken_at)
        # A run's own settings; for a date without one, those that the snapshot was taken under.
        settings = settings or recorded_settings(snapshot.metadata.settings)
        return _Ground(record, accounts, snapshot.ledger, history, settings, moment)

    def _then(
        self, scope: Scope, stamp: RunStamp, settings: Settings, moment: datetime, own: MerchantFacts | None
    ) -> PastRecords:
        return past_records(
            self._wiring.database,
            scope,
            stamp,
            relink_policy(settings),
            moment,
            settled=() if own is None else own.settled,
            taken_over=() if own is None else own.taken_over,
            unanswered={} if own is None else own.unanswered,
        )

    def _findings(self, ground: _Ground, stamp: RunStamp) -> pd.DataFrame:
        return classify(ground.accounts, ground.ledger, ground.history, relink_policy(ground.settings), stamp)

    def _plan_again(
        self,
        scope: Scope,
        stamp: RunStamp,
        ground: _Ground,
        then: PastRecords,
        findings: pd.DataFrame,
    ) -> pd.DataFrame:
        """The next steps as they would have been decided then; nothing is requested."""
        twins = find_twins(self._wiring.database, scope, findings, ground.history, then.successors, until=ground.moment)
        successors = moved_accounts([*then.successors, *twins.successors], twins)
        moved = {old: new for old, new in successors.items() if old != new}
        step = advance_breakages(then.open_before, then.highest_before, findings, set(moved), stamp)
        gone = {key for key, _ in step.closed}
        # What is made again from an earlier snapshot closes no outage: that takes a complete new one.
        breakages = (*step.open, *(one for one in then.open_before if one.key in gone))
        keys = {one.key for one in breakages}
        on = stamp.business_date
        verdict = apply_brakes(
            findings,
            brake_policy(ground.settings),
            BrakeInputs(
                known=records.known_affected(self._wiring.database, scope, on),
                new_this_week=records.newly_affected_since(
                    self._wiring.database, scope, on - timedelta(days=_WEEK_DAYS - 1), on
                ),
                released_authorizations=(),
                first_run=False,
                live=scope.mode == "live",
            ),
        )
        inputs = PlanInputs(
            scope=scope,
            stamp=stamp,
            policy=relink_policy(ground.settings),
            breakages=breakages,
            contacts=sum_up_contacts(then.contacts, keys, stamp),
            successors=moved,
            unmatched_accounts=unmatched_accounts(
                [one for one in then.contacts if one.request.breakage in keys], successors
            ),
            held_authorizations=verdict.held_authorizations,
            quiet_until=quiet_customers(findings, ground.history, relink_policy(ground.settings), stamp),
            eligible_dates=eligible_dates(breakages, stamp),
            twins_in_review=twins.in_review,
        )
        planned, _ = plan(findings, inputs)
        return planned

    # What the page looks back on

    def _past_table(self, run: PastRun, table: str) -> pa.Table | None:
        """A table of a report that is there no more; None where it cannot be made again."""
        whole = table in ("accounts", "authorizations")
        key = f"{run.name} {'whole' if whole else 'asked'}"
        if key not in self._tables:
            try:
                self._tables[key] = self._whole(run) if whole else self._asked(run)
            except (NothingToStandOn, OutsideError):
                self._tables[key] = None
        tables = self._tables[key]
        return None if tables is None else tables.get(table)

    def _whole(self, past: PastRun) -> Mapping[str, pa.Table] | None:
        if past.command == COMMAND:
            report = self._of_date(past.run_date)
            return report_tables(report.told) if report.facts.stamp.run_id == past.run_id else None
        run = records.run(self._wiring.database, past.run_id)
        return None if run is None else report_tables(self._of_run(run, self._kept(past.run_id)).told)

    def _asked(self, past: PastRun) -> Mapping[str, pa.Table] | None:
        """The requests and outcomes that a report told of, which need no snapshot."""
        if past.command == COMMAND:
            return self._whole(past)
        run, kept = records.run(self._wiring.database, past.run_id), self._kept(past.run_id)
        if run is None or kept is None:
            return None
        settings = recorded_settings(run.settings)
        then = [
            self._then(Scope(one.merchant, one.mode), kept.run.stamp, settings, kept.published_at, own)
            for one in run.merchants
            if (own := kept.merchants.get(one.merchant)) is not None
        ]
        return {
            "relink_outcomes": combine("relink_outcomes", [relink_outcomes_table(one.followed) for one in then]),
            "relink_requests": combine("relink_requests", [relink_requests_table(one.requests) for one in then]),
        }


def _told(scope: Scope, findings: pd.DataFrame, then: PastRecords, stamp: RunStamp) -> MerchantTold:
    contacts = {one.request.request_id: one for one in (*then.contacts, *then.requests)}
    return MerchantTold(
        merchant=scope.merchant,
        stamp=stamp,
        findings=findings,
        contacts=list(contacts.values()),
        requests=then.requests,
        followed=then.followed,
        window=then.window,
        successors=then.successors,
        open_breakages=then.open_after,
        refreshes=then.refreshes,
    )


def _recounted(given: ControlInputs, ground: _Ground, then: PastRecords) -> ControlInputs:
    """The other side of the totals where the accounts are not those of the run's own snapshot, or nothing of it was kept."""
    accounts, ledger = ground.accounts["account_id"], ground.ledger["account_id"]
    return replace(
        given,
        accounts_pulled=len(accounts),
        ledger_rows=len(ledger),
        ids_in_both=len(set(accounts) & set(ledger)),
        plan_requests=None,
        window_requests=len(then.window) if given.window_requests is None else given.window_requests,
    )
