"""Whether tonight's accounts are listed whole or brought up from the last snapshot, and what a run will read, said before it does.

`full` lists all. `incremental` brings the last snapshot up to now. `auto` lists all as long as Stripe's allocation of reads allows a full pull every
night: `stripe.monthly_read_allocation` is set, and thirty nights like this one, or what was read in the last thirty days, come to 80 % of it or more;
and never where a full pull of the last thirty days found what increments had missed, nor for a list of ten pages or fewer. Whatever is chosen, all are
listed at the first time, every `full_every_days`, with `--full`, after a gap that Stripe's events do not reach over, and where the increments
do not prove themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Literal

from jobs.adapters import records
from jobs.night import MerchantNight
from jobs.pages import ACCOUNTS_PER_PAGE
from jobs.pull import SMALL_LIST_PAGES
from jobs.settings import Settings
from jobs.wiring import Wiring
from reconcile.contacts import is_open
from reconcile.increment import OVERLAP
from reconcile.orphans import EVENTS_KEPT
from reconcile.outcomes import sessions_to_read
from reconcile.refresh import FOLLOWED_DAYS, RefreshState, read_due

NEARING = 0.8
"""The share of the read allocation from which `auto` saves reads."""

_NIGHTS = 30
_DRIFT_DAYS = 30


@dataclass(frozen=True, slots=True)
class PullChoice:
    """How the accounts are obtained, and why in a few words."""

    obtained: Literal["full", "incremental"]
    why: str


def choose_pull(
    settings: Settings,
    *,
    full_asked: bool,
    last: records.SnapshotRecord | None,
    now: datetime,
    business_date: date,
    reads_30_days: int,
    drift_30_days: int,
) -> PullChoice:
    """Decide from the settings and the records alone; a full pull wherever there is a doubt."""
    pull = settings.pull
    if full_asked:
        return PullChoice("full", "--full")
    if pull.mode == "full":
        return PullChoice("full", "pull.mode is full")
    if last is None:
        return PullChoice("full", "the first pull")
    if last.server_from is None or last.server_to is None:
        return PullChoice("full", "the last snapshot does not say up to when Stripe's events are in it")
    if (business_date - (last.full_date or last.business_date)).days >= pull.full_every_days:
        return PullChoice("full", f"the last full pull was {pull.full_every_days} days ago or more")
    if now - last.server_from >= EVENTS_KEPT - timedelta(days=1) - OVERLAP:
        return PullChoice("full", "Stripe's events do not reach back to the last snapshot")
    if pull.mode == "incremental":
        return PullChoice("incremental", "pull.mode is incremental")
    return _auto(settings, last, reads_30_days, drift_30_days)


def _auto(settings: Settings, last: records.SnapshotRecord, reads_30_days: int, drift_30_days: int) -> PullChoice:
    pages, allocation = full_reads(last.accounts), settings.stripe.monthly_read_allocation
    if allocation is None:
        return PullChoice("full", "stripe.monthly_read_allocation is not set")
    if pages <= SMALL_LIST_PAGES:
        return PullChoice("full", f"the list has {pages} pages")
    if drift_30_days:
        return PullChoice("full", "the last full pulls found what increments had missed")
    if max(_NIGHTS * pages, reads_30_days) < NEARING * allocation:
        return PullChoice("full", "the read allocation allows it")
    return PullChoice("incremental", "full pulls every night would near the read allocation")


def full_reads(accounts: int) -> int:
    """What listing so many accounts reads."""
    return max(1, -(-accounts // ACCOUNTS_PER_PAGE))


def expected_reads(wiring: Wiring, night: MerchantNight, choice: PullChoice) -> Mapping[str, int]:
    """What the run will read, by purpose, as far as the records tell: of events and of what they lead to, as much as the newest such run."""
    scope, stamp, database = night.merchant.scope, night.stamp, wiring.database
    last = records.last_snapshot(database, scope)
    before = records.last_snapshot(database, scope, obtained=choice.obtained)
    spent = {} if before is None else _reads_of(wiring, before, night)
    expected: dict[str, int] = {}
    if choice.obtained == "full":
        expected["pull"] = full_reads(len(night.ledger) if last is None else last.accounts)
    else:
        expected["head"] = spent.get("head", 1)
        expected["reread"] = spent.get("reread", 2)
    expected["events"] = spent.get("events", 0 if last is None else 1)
    opened = [one for one in records.open_requests(database, scope) if is_open(one)]
    everything = night.work.collect_everything
    due = opened if everything else sessions_to_read(opened, (), (), stamp, wiring.policy)
    expected["collect"] = max(len(due), 0 if everything else spent.get("collect", 0))
    expected["adopt"] = 0 if night.listed is None or stamp.dry_run else len(night.listed.to_read)
    expected["refresh"] = _refreshes_to_read(wiring, night)
    return {purpose: count for purpose, count in expected.items() if count}


def _refreshes_to_read(wiring: Wiring, night: MerchantNight) -> int:
    """The accounts that are read for refreshes which earlier nights began."""
    scope, stamp, database = night.merchant.scope, night.stamp, wiring.database
    unfinished = records.unfinished_refreshes(database, scope)
    followed = records.followed_refreshes(database, scope, stamp.business_date - timedelta(days=FOLLOWED_DAYS))
    planned = sum(one.state == RefreshState.PLANNED for one in unfinished)
    return planned + sum(read_due(one, stamp) for one in followed)


def _reads_of(wiring: Wiring, snapshot: records.SnapshotRecord, night: MerchantNight) -> dict[str, int]:
    calls = records.api_calls_of_run(wiring.database, snapshot.run_id, night.merchant.scope)
    return {one.purpose: one.calls for one in calls if one.kind == "read"}
