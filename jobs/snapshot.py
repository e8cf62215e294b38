"""Obtain the night's snapshot: the ledger and a complete pull, kept together, or the newest one that is kept."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import pandas as pd

from jobs.adapters import records
from jobs.events import UNREADABLE, hints_from, hints_of, read_events, read_hints
from jobs.increment import Base, FullPullNeeded, Wanted, pull_increment
from jobs.ledger_check import read_ledger
from jobs.listed_sessions import read_listed
from jobs.merchant_lists import read_suppressed
from jobs.missing import with_missing
from jobs.night import DRIFT_SHOWN, Hints, MerchantNight, PullFacts
from jobs.pull import Pulled, cuts_of_ledger, cuts_of_list, pull_accounts, vanished_accounts
from jobs.pull_choice import PullChoice, choose_pull, expected_reads
from jobs.settings import settings_for_record
from jobs.wiring import Wiring
from reconcile.brakes import check_account_drop
from reconcile.classify import flags
from reconcile.errors import LedgerError, OutsideError
from reconcile.frames import HISTORY, empty, values_of
from reconcile.increment import OVERLAP, drifted, read_changes
from reconcile.model import PLAN_LIFETIME, Scope
from reconcile.orphans import EVENTS_KEPT
from reconcile.outcomes import age_days
from reconcile.partitioned import advance_large_history

logger = logging.getLogger(__name__)

DRIFT_REMEMBERED = timedelta(days=30)
"""For so long after a full pull found what increments had missed, `auto` does without them."""


def obtain_snapshot(wiring: Wiring, night: MerchantNight) -> None:
    """Fill in the accounts, the ledger and the account history.

    The ledger is read first: it costs no read at Stripe, and a faulty one stops the run before any is spent.

    Raises:
        LedgerError: the ledger, or a list of whom never to contact or of sessions made elsewhere, cannot be read or breaks its contract.
        IncompletePull: Stripe's pages are not a complete list.
        DecisionNeeded: too many accounts vanished since the last snapshot.
    """
    scope = night.merchant.scope
    night.ledger = read_ledger(wiring.settings, wiring.database).of_merchant(scope.merchant)
    if night.ledger.empty:
        raise LedgerError(
            f"the ledger has no row for merchant {scope.merchant}: correct the query or the column `merchant`"
        )
    night.suppressed_ids = read_suppressed(wiring.settings).get(scope.merchant, frozenset())
    read_listed(wiring, night)
    resumed = _snapshot_to_resume(wiring, night)
    stored = records.last_snapshot(wiring.database, scope) if night.work.from_stored else resumed
    if stored is not None:
        night.accounts = wiring.snapshots.read(stored.path, stored.sha256).accounts
        night.snapshot_id, night.taken_at = stored.snapshot_id, stored.taken_at
        night.snapshot_date = stored.business_date
        # What an increment took over unread is read again before anybody is asked.
        night.read_ids = frozenset() if stored.obtained == "incremental" else None
        night.history = records.latest_history(wiring.database, scope)
        logger.info("took the stored snapshot of %s", stored.taken_at.isoformat())
        if resumed is not None:
            _take_over(wiring, night)
        return
    _pull(wiring, night)


def _snapshot_to_resume(wiring: Wiring, night: MerchantNight) -> records.SnapshotRecord | None:
    """The complete snapshot of the run that this one finishes, unless only a new one may be acted on.

    That is so where it is old, and where another run that did not finish took a newer one: by the older one, outages that opened since
    would count as over, and their unknown requests as settled.
    """
    newest = records.last_snapshot(wiring.database, night.merchant.scope)
    for run_id in night.work.resumes:
        stored = records.snapshot(wiring.database, snapshot_id_of(run_id, night.merchant.scope))
        if stored is not None and stored == newest and wiring.clock() - stored.taken_at < PLAN_LIFETIME:
            return stored
    return None


def _take_over(wiring: Wiring, night: MerchantNight) -> None:
    """Go on from the snapshot as the run did that took it.

    Its accounts, outcomes and breakages were committed together with it, so that all of them are decided again with the same end. Only
    what came after that commit may be missing: the brakes' memory and the requests.
    """
    night.pulled = True
    night.history_changed = empty(HISTORY)
    released = night.work.released_brake
    # A hash that no held plan has was that of the vanished accounts, and the run that pulled has let them pass.
    night.drop_released = released is not None and records.held_plan(wiring.database, released) is None


def snapshot_id_of(run_id: str, scope: Scope) -> str:
    """The id of the snapshot that a run takes of a merchant."""
    return f"{run_id}-{scope.merchant}"


@dataclass(frozen=True, slots=True)
class _Obtained:
    """Tonight's accounts, whichever way; `read_ids` are those that a page showed tonight, None for all, the server's times are Stripe's own."""

    accounts: pd.DataFrame
    taken_at: datetime
    completed_at: datetime
    facts: PullFacts
    server_from: datetime | None
    server_to: datetime | None
    read_ids: frozenset[str] | None = None


def _pull(wiring: Wiring, night: MerchantNight) -> None:
    scope, stamp = night.merchant.scope, night.stamp
    previous = records.latest_history(wiring.database, scope)
    before = values_of(previous.loc[flags(previous["present"]), "account_id"])
    last = records.last_snapshot(wiring.database, scope)
    choice = _choose(wiring, night, last)
    pulled = None
    if choice.obtained == "incremental" and last is not None:
        try:
            pulled = _increment(wiring, night, last, before, choice)
        except FullPullNeeded as needed:
            logger.warning("merchant %s: all accounts are listed after all: %s", scope.merchant, needed)
            choice = PullChoice("full", str(needed))
    if pulled is None:
        pulled = _full(wiring, night, last, before, choice)
    facts = pulled.facts
    vanished = vanished_accounts(before, pulled.accounts)
    night.drop_released = check_account_drop(scope, before, vanished, wiring.brakes, night.work.released_brake)
    pulled = replace(pulled, accounts=with_missing(wiring, night, previous, vanished, pulled.accounts))
    night.pull, night.read_ids = facts, pulled.read_ids
    step = advance_large_history(previous, pulled.accounts, stamp, night.hints.deactivated_at)
    night.pulled = True
    night.accounts, night.taken_at = pulled.accounts, pulled.taken_at
    night.snapshot_date = stamp.business_date
    night.history, night.history_changed, night.changed_holders = step.latest, step.changed, step.changed_holders
    if stamp.dry_run:
        return
    night.snapshot_id = snapshot_id_of(stamp.run_id, scope)
    kept = wiring.snapshots.write(
        scope,
        stamp.run_id,
        night.accounts,
        night.ledger,
        snapshot_id=night.snapshot_id,
        taken_at=pulled.taken_at,
        completed_at=pulled.completed_at,
        settings=settings_for_record(wiring.settings),
    )
    # It becomes the current one together with what is concluded from it, so that a run that stops before leaves the last one current.
    night.new_snapshot = records.SnapshotRecord(
        snapshot_id=night.snapshot_id,
        run_id=stamp.run_id,
        merchant=scope.merchant,
        mode=scope.mode,
        taken_at=pulled.taken_at,
        completed_at=pulled.completed_at,
        business_date=stamp.business_date,
        accounts=len(night.accounts),
        ledger_rows=len(night.ledger),
        path=kept.path,
        sha256=kept.sha256,
        bytes=kept.bytes,
        obtained=facts.obtained,
        base_snapshot_id=facts.base_snapshot_id,
        full_date=stamp.business_date
        if facts.obtained == "full" or last is None
        else last.full_date or last.business_date,
        server_from=pulled.server_from,
        server_to=pulled.server_to,
        drift=None if facts.drift is None else len(facts.drift),
    )


def _choose(wiring: Wiring, night: MerchantNight, last: records.SnapshotRecord | None) -> PullChoice:
    scope, stamp, database = night.merchant.scope, night.stamp, wiring.database
    choice = choose_pull(
        wiring.settings,
        full_asked=night.work.full,
        last=last,
        now=stamp.as_of,
        business_date=stamp.business_date,
        reads_30_days=records.reads_last_30_days(database, scope, stamp.as_of),
        drift_30_days=records.drift_since(database, scope, stamp.business_date - DRIFT_REMEMBERED),
    )
    night.expected_reads = expected_reads(wiring, night, choice)
    allocation = wiring.settings.stripe.monthly_read_allocation
    logger.info(
        "merchant %s: a %s pull (%s); expected reads: %s; in the last 30 days: %d of %s",
        scope.merchant,
        choice.obtained,
        choice.why,
        ", ".join(f"{count} {purpose}" for purpose, count in night.expected_reads.items()) or "none",
        records.reads_last_30_days(database, scope, stamp.as_of),
        "an allocation that is not set" if allocation is None else allocation,
    )
    return choice


def _increment(
    wiring: Wiring, night: MerchantNight, last: records.SnapshotRecord, before: Sequence[str], choice: PullChoice
) -> _Obtained:
    """The last snapshot brought up to now.

    Raises:
        FullPullNeeded: that cannot be proved.
    """
    taken_at = wiring.clock()
    base = _base(wiring, night, last)
    if set(before) != set(base.accounts["account_id"]):
        raise FullPullNeeded("the last snapshot and the account history do not name the same accounts")
    increment = pull_increment(
        night.merchant,
        base,
        night.ledger,
        _wanted(wiring, night),
        wiring.policy,
        night.stamp,
        wiring.elapsed_seconds,
    )
    night.hints = hints_of(increment.events, last.taken_at, taken_at)
    facts = PullFacts(
        obtained="incremental",
        why=choice.why,
        expected_reads=night.expected_reads,
        base_snapshot_id=last.snapshot_id,
        accounts_read=len(increment.read_ids),
        told_by_events=increment.told,
    )
    return _Obtained(
        increment.accounts,
        taken_at,
        wiring.clock(),
        facts,
        increment.server_from,
        increment.server_to,
        increment.read_ids,
    )


def _base(wiring: Wiring, night: MerchantNight, last: records.SnapshotRecord) -> Base:
    try:
        stored = wiring.snapshots.read(last.path, last.sha256)
    except OutsideError as error:
        raise FullPullNeeded(str(error)) from None
    if stored.metadata.settings.get("stripe", {}).get("api_version") != wiring.settings.stripe.api_version:
        raise FullPullNeeded("the last snapshot was taken under another stripe.api_version")
    if last.server_from is None or last.server_to is None:
        raise FullPullNeeded("the last snapshot does not say up to when Stripe's events are in it")
    hints_since = hints_from(night, last.taken_at, records.events_read_to(wiring.database, night.merchant.scope))
    since = min(last.server_from - OVERLAP, hints_since)
    return Base(stored.accounts, last.business_date, last.server_from, last.server_to, since)


def _wanted(wiring: Wiring, night: MerchantNight) -> Wanted:
    """What is open: outages, and customers who were asked; those whose answer has not reached all accounts, or who are about to be given up, are read."""
    scope, database = night.merchant.scope, wiring.database
    waiting = records.open_requests(database, scope)
    outages = {breakage.key.authorization_id for breakage in records.open_breakages(database, scope)}
    holders = {
        stored.request.holder.id
        for stored in waiting
        if stored.session_status == "succeeded" or age_days(stored, night.stamp) >= wiring.policy.pending_days
    }
    return Wanted(frozenset(outages | {stored.authorization_id for stored in waiting}), frozenset(holders))


def _full(
    wiring: Wiring,
    night: MerchantNight,
    last: records.SnapshotRecord | None,
    before: Sequence[str],
    choice: PullChoice,
) -> _Obtained:
    gateway, scope = night.merchant.gateway, night.merchant.scope
    base = None if last is None else _before(wiring, last)
    known = [] if base is None else values_of(base["account_id"])
    cuts = cuts_of_list(known) if base is not None else cuts_of_ledger(values_of(night.ledger["account_id"]))
    pulled = pull_accounts(
        gateway.list_account_columns, scope, wiring.clock, wiring.progress, len(before) or None, cuts
    )
    drift = None
    if last is None:
        night.hints = Hints(read_to=_began(pulled))
    else:
        drift = _look_back(wiring, night, last, base, pulled)
    facts = PullFacts("full", choice.why, night.expected_reads, accounts_read=len(pulled.accounts), drift=drift)
    return _Obtained(
        pulled.accounts, pulled.taken_at, pulled.completed_at, facts, pulled.server_at, gateway.server_now()
    )


def _began(pulled: Pulled) -> datetime:
    """When the pull began, by Stripe's clock where this machine's is ahead of it: events are dated by Stripe."""
    return min(pulled.taken_at, pulled.server_at or pulled.taken_at)


def _before(wiring: Wiring, last: records.SnapshotRecord) -> pd.DataFrame | None:
    """The last snapshot's accounts: their ids cut the list for several cursors, and after increments all of them are compared."""
    try:
        if last.obtained == "incremental":
            return wiring.snapshots.read(last.path, last.sha256).accounts
        return pd.DataFrame({"account_id": wiring.snapshots.account_ids(last.path, last.sha256)})
    except OutsideError as error:
        logger.warning("the accounts are listed without the last snapshot's help: %s", error)
        return None


def _look_back(
    wiring: Wiring, night: MerchantNight, last: records.SnapshotRecord, base: pd.DataFrame | None, pulled: Pulled
) -> tuple[str, ...] | None:
    """Take in what the events since the last snapshot tell; after increments, return what those had missed, None where it cannot be told."""
    scope = night.merchant.scope
    read_to = records.events_read_to(wiring.database, scope)
    if last.obtained != "incremental" or base is None or last.server_from is None or last.server_to is None:
        night.hints = read_hints(night, last.taken_at, read_to, _began(pulled))
        return None
    hints_since, oldest = hints_from(night, last.taken_at, read_to), night.stamp.as_of - EVENTS_KEPT
    try:
        events = read_events(night.merchant, max(oldest, min(last.server_from - OVERLAP, hints_since)))
    except UNREADABLE as failed:
        logger.warning("events could not be read, so dates are upper bounds tonight and drift is not known: %s", failed)
        night.hints = Hints(read_to=hints_since)
        return None
    night.hints = hints_of(events, last.taken_at, _began(pulled))
    if last.server_from - OVERLAP < oldest:
        return None
    drift = tuple(drifted(base, pulled.accounts, read_changes(events, base, last.server_to, ())))
    if drift:
        shown = ", ".join(drift[:DRIFT_SHOWN])
        logger.error("merchant %s: increments had missed %d accounts: %s", scope.merchant, len(drift), shown)
    return drift
