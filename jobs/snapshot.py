"""Obtain the night's snapshot: the ledger and a complete pull, kept together, or the newest one that is kept."""

from __future__ import annotations

import logging

from jobs.adapters import records
from jobs.events import read_hints
from jobs.ledger_check import read_ledger
from jobs.merchant_lists import read_suppressed
from jobs.night import Hints, MerchantNight
from jobs.pull import cuts_of_ledger, cuts_of_list, pull_accounts, vanished_accounts
from jobs.settings import settings_for_record
from jobs.wiring import Wiring
from reconcile.brakes import check_account_drop
from reconcile.classify import flags
from reconcile.errors import LedgerError, OutsideError
from reconcile.frames import HISTORY, empty, values_of
from reconcile.model import PLAN_LIFETIME, Scope
from reconcile.partitioned import advance_large_history

logger = logging.getLogger(__name__)


def obtain_snapshot(wiring: Wiring, night: MerchantNight) -> None:
    """Fill in the accounts, the ledger and the account history.

    The ledger is read first: it costs no read at Stripe, and a faulty one stops the run before any is spent.

    Raises:
        LedgerError: the ledger, or a list of whom never to contact, cannot be read or breaks its contract.
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
    resumed = _snapshot_to_resume(wiring, night)
    stored = records.last_snapshot(wiring.database, scope) if night.work.from_stored else resumed
    if stored is not None:
        night.accounts = wiring.snapshots.read(stored.path, stored.sha256).accounts
        night.snapshot_id, night.taken_at = stored.snapshot_id, stored.taken_at
        night.snapshot_date = stored.business_date
        night.history = records.latest_history(wiring.database, scope)
        logger.info("took the stored snapshot of %s", stored.taken_at.isoformat())
        if resumed is not None:
            _take_over(wiring, night)
        return
    _pull(wiring, night)


def _snapshot_to_resume(wiring: Wiring, night: MerchantNight) -> records.SnapshotRecord | None:
    """The complete snapshot of the run that this one finishes, unless it is so old that only a new one may be acted on."""
    for run_id in night.work.resumes:
        stored = records.snapshot(wiring.database, snapshot_id_of(run_id, night.merchant.scope))
        if stored is not None and wiring.clock() - stored.taken_at < PLAN_LIFETIME:
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


def _pull(wiring: Wiring, night: MerchantNight) -> None:
    scope, stamp, gateway = night.merchant.scope, night.stamp, night.merchant.gateway
    previous = records.latest_history(wiring.database, scope)
    before = values_of(previous.loc[flags(previous["present"]), "account_id"])
    last = records.last_snapshot(wiring.database, scope)
    cuts = _cut_points(wiring, night, last)
    pulled = pull_accounts(gateway.list_accounts_page, scope, wiring.clock, wiring.progress, len(before) or None, cuts)
    night.drop_released = check_account_drop(
        scope, before, vanished_accounts(before, pulled.accounts), wiring.brakes, night.work.released_brake
    )
    if last is None:
        night.hints = Hints(read_to=pulled.taken_at)
    else:
        read_to = records.events_read_to(wiring.database, scope)
        night.hints = read_hints(night, last.taken_at, read_to, pulled.taken_at)
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
    )


def _cut_points(wiring: Wiring, night: MerchantNight, last: records.SnapshotRecord | None) -> list[str]:
    """Accounts between which the list can be walked at several places at once; they decide the pace alone."""
    if last is not None:
        try:
            return cuts_of_list(wiring.snapshots.account_ids(last.path, last.sha256))
        except OutsideError as error:
            logger.warning("the accounts are listed without the last snapshot's help: %s", error)
    return cuts_of_ledger(values_of(night.ledger["account_id"]))
