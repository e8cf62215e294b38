"""Obtain tonight's whole list of accounts from last night's, Stripe's events, and as few pages as prove it; or say why all must be listed.

Whatever does not fit ends in `FullPullNeeded`, never in a guess: the same run then lists everything. Each page that is read shows a hundred accounts
for one that was wanted, and all of them have to be what the records and the events say, in the order of the last list. That is the cross-check;
two pages at places drawn by lot and the newest one are read every night, so that it never rests on the changed accounts alone.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import partial

import pandas as pd

from jobs.crew import Crew
from jobs.events import read_events
from jobs.pages import ACCOUNTS_PER_PAGE, check_page
from jobs.wiring import Merchant
from reconcile.classify import flags
from reconcile.errors import KeyRefused
from reconcile.increment import (
    OVERLAP,
    SESSION_UPDATED,
    Changes,
    changed_ids,
    cover,
    due_by_clock,
    merged,
    read_changes,
)
from reconcile.model import RunStamp
from reconcile.normalize import accounts_frame
from reconcile.policy import RelinkPolicy
from reconcile.records import AccountRecord, AccountsPage, EventRecord, MalformedAnswer, ReadFailed, ReadRejected

logger = logging.getLogger(__name__)

DEAREST_SHARE = 0.5
"""From this share of a full pull's pages on all accounts are listed instead."""

LOTS = 2
"""Pages read at places drawn by lot, for the cross-check."""

_LATE = timedelta(minutes=2)  # an account linked so shortly before the events were read may have its event after


class FullPullNeeded(Exception):
    """Why the increments since the last snapshot prove nothing tonight."""


@dataclass(frozen=True, slots=True)
class Base:
    """The last complete snapshot: its accounts in the order of the list, its business date, and Stripe's time before and after it was read.

    `events_from` is an earlier moment from which the events are wanted, for other reasons.
    """

    accounts: pd.DataFrame
    business_date: date
    server_from: datetime
    server_to: datetime
    events_from: datetime | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What tonight's decisions rest on besides: authorizations of which nothing is taken from an event, and holders to read again."""

    open_authorizations: Collection[str]
    holders: Collection[str]


@dataclass(frozen=True, slots=True)
class Increment:
    """Tonight's whole list, what was read of it by a page, the events, and Stripe's time before the first read and after the last."""

    accounts: pd.DataFrame
    read_ids: frozenset[str]
    events: Sequence[EventRecord]
    told: int
    server_from: datetime
    server_to: datetime


def pull_increment(
    merchant: Merchant,
    base: Base,
    ledger: pd.DataFrame,
    wanted: Wanted,
    policy: RelinkPolicy,
    stamp: RunStamp,
    elapsed_seconds: Callable[[], float],
    page_size: int = ACCOUNTS_PER_PAGE,
) -> Increment:
    """Bring the last snapshot up to now.

    Raises:
        FullPullNeeded: what was read does not prove it.
        KeyRefused, ReadFailed, IncompletePull, ModeMismatch: as for a full pull, which would not fare better.
    """
    return _Night(merchant, base, stamp, page_size).read(ledger, wanted, policy, elapsed_seconds)


class _Night:
    def __init__(self, merchant: Merchant, base: Base, stamp: RunStamp, page_size: int) -> None:
        self._merchant = merchant
        self._base = base
        self._stamp = stamp
        self._page_size = page_size
        self._ids: list[str] = base.accounts["account_id"].tolist()
        self._places = pd.Index(self._ids)
        self._full_pages = -(-len(self._ids) // page_size)
        self._reads = 0

    def read(
        self, ledger: pd.DataFrame, wanted: Wanted, policy: RelinkPolicy, elapsed_seconds: Callable[[], float]
    ) -> Increment:
        if not self._ids:
            raise FullPullNeeded("the last snapshot is empty")
        began = elapsed_seconds()
        events = self._events_since(
            min(self._base.events_from or self._base.server_from, self._base.server_from - OVERLAP)
        )
        server_from = self._server_now() - timedelta(seconds=elapsed_seconds() - began)
        base = self._base.accounts
        changes = read_changes(events, base, self._base.server_to + OVERLAP, wanted.open_authorizations)
        of_holders = flags(base["account_holder_id"].isin(list(wanted.holders)))
        due = due_by_clock(base, ledger, policy, self._stamp, self._base.business_date)
        to_read = changes.to_read | due | set(base.loc[of_holders, "account_id"])
        new, known_pages = self._newest()
        self._check_new(new, changes, server_from)
        known_pages += self._pages_with(to_read, start=sum(len(page) for page in known_pages))
        read = accounts_frame([record for page in known_pages for record in page])
        self._cross_check(read, changes, server_from)
        accounts = merged(base, accounts_frame(new), read, changes.told)
        read_ids = frozenset(read["account_id"]) | {one.account_id for one in new}
        logger.info(
            "brought %d accounts of merchant %s up to now: %d events, %d pages, %d accounts read, %d taken from events",
            len(accounts),
            self._merchant.scope.merchant,
            len(events),
            len(known_pages),
            len(read_ids),
            len(changes.told),
        )
        return Increment(accounts, read_ids, events, len(changes.told), server_from, self._server_now())

    def _server_now(self) -> datetime:
        now = self._merchant.gateway.server_now()
        if now is None:
            raise FullPullNeeded("Stripe's answers carry no time")
        return now

    def _spend(self, reads: int) -> None:
        """Go on only while that stays well below what a full pull costs."""
        self._reads += reads
        if self._reads > max(2, DEAREST_SHARE * self._full_pages):
            raise FullPullNeeded(f"it would take over {self._reads} reads, and listing all takes {self._full_pages}")

    def _events_since(self, since: datetime) -> list[EventRecord]:
        try:
            events = read_events(self._merchant, since, self._spend)
        except (KeyRefused, ReadRejected, MalformedAnswer, ReadFailed) as failed:
            raise FullPullNeeded(f"the events could not be read: {failed}") from None
        for event in events:
            if event.object_id is None and event.event_type != SESSION_UPDATED:
                raise FullPullNeeded(f"event {event.event_id} does not say what it is about")
        return events

    def _page(self, cursor: str | None, purpose: str) -> AccountsPage:
        try:
            page = self._merchant.gateway.list_accounts_page(cursor, limit=self._page_size, purpose=purpose)
        except ReadRejected as refused:
            if cursor is None:
                raise
            raise FullPullNeeded(f"account {cursor} vanished: {refused}") from None
        check_page(page, cursor, set(), self._merchant.scope)
        return page

    def _newest(self) -> tuple[list[AccountRecord], list[list[AccountRecord]]]:
        """The accounts linked since, and the known ones that stand on the last of their pages."""
        new: list[AccountRecord] = []
        cursor: str | None = None
        while True:
            self._spend(1)
            page = self._page(cursor, "head")
            for place, record in enumerate(page.records):
                if record.account_id in self._places:
                    known = list(page.records[place:])
                    self._in_place(known, 0, page.has_more)
                    return new, [known]
                new.append(record)
            if not page.has_more:
                raise FullPullNeeded("none of the known accounts is listed any more")
            cursor = page.last_id

    def _pages_with(self, to_read: Collection[str], start: int) -> list[list[AccountRecord]]:
        """Pages that together have all these accounts and those drawn by lot; the first `start` places of the list are read already."""
        lots = random.Random(self._stamp.run_id)  # noqa: S311 - a sample, no secret
        places = {int(place) for place in self._places.get_indexer(pd.Index(sorted(to_read)))}
        if start < len(self._ids):
            places |= {lots.randrange(start, len(self._ids)) for _ in range(LOTS)}
        starts = cover((place for place in places if place >= start), self._page_size)
        self._spend(len(starts))
        crew: Crew[tuple[int, AccountsPage]] = Crew("reread")
        try:
            for first in starts:
                crew.hand_or_make(partial(self._page_at, first))
            pages = dict(crew.hear() for _ in starts)
        finally:
            crew.dismiss()
        on_pages: set[int] = set()
        for first, page in pages.items():
            self._in_place(page.records, first, page.has_more)
            on_pages.update(range(first, first + len(page.records)))
        missing = {place for place in places if place >= start} - on_pages
        if missing:
            raise FullPullNeeded(
                f"account {self._ids[min(missing)]} is not on its page, which is shorter than asked for"
            )
        return [list(pages[first].records) for first in starts]

    def _page_at(self, first: int) -> tuple[int, AccountsPage]:
        return first, self._page(self._ids[first - 1], "reread")

    def _in_place(self, records: Sequence[AccountRecord], first: int, has_more: bool) -> None:
        """The accounts of a page stand as they stood in the last list: none came between, none is gone, and it ends where it ended."""
        found = [record.account_id for record in records]
        if found != self._ids[first : first + len(found)] or has_more != (first + len(found) < len(self._ids)):
            raise FullPullNeeded(f"the list is not as it was around account {self._ids[first]}, and no event says so")

    def _check_new(self, new: Sequence[AccountRecord], changes: Changes, server_from: datetime) -> None:
        """Each new account has its event and each event its account: else the events are not all there."""
        found = {record.account_id for record in new}
        missing = changes.created - found
        if missing:
            raise FullPullNeeded(f"account {min(missing)} has events and is not among the newest")
        for record in new:
            surprising = record.created_at is None or record.created_at < server_from - _LATE
            if record.account_id not in changes.created and surprising:
                raise FullPullNeeded(f"account {record.account_id} is new and no event says so")

    def _cross_check(self, read: pd.DataFrame, changes: Changes, server_from: datetime) -> None:
        before = self._base.accounts.iloc[self._places.get_indexer(pd.Index(read["account_id"]))]
        unexplained = set(changed_ids(before, read)) - changes.explained
        if not unexplained:
            return
        # Something may have happened since the events were read.
        late = read_changes(
            self._events_since(server_from - OVERLAP), self._base.accounts, self._base.server_to, ()
        ).explained
        unexplained -= late
        if unexplained:
            raise FullPullNeeded(f"account {min(unexplained)} is not as the records and the events say")
