"""List all accounts of one Stripe account; what comes back is proved complete, or the run stops here."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

import pandas as pd

from jobs.clock import Clock
from jobs.crew import AT_ONCE
from jobs.pages import ACCOUNTS_PER_PAGE, ListPage
from jobs.progress import Progress
from jobs.segments import walk
from reconcile.frames import values_of
from reconcile.model import Scope

logger = logging.getLogger(__name__)

SEGMENTS_PER_WORKER = 4
"""More segments than workers, so that one whose accounts answer slowly delays nobody."""

SHORTEST_SEGMENT_PAGES = 4
SMALL_LIST_PAGES = 10
"""A list as short as this is walked by one cursor."""

_SHORTEST_UNORDERED_PAGES = 8  # cut points in no order cost half a page each


@dataclass(frozen=True, slots=True)
class Pulled:
    """All accounts of one Stripe account (`frames.ACCOUNTS`) in the order of Stripe's list, and when their listing began and ended.

    `server_at` is Stripe's own time when the first of all pages was answered.
    """

    accounts: pd.DataFrame
    taken_at: datetime
    completed_at: datetime
    server_at: datetime | None = None


def pull_accounts(
    list_page: ListPage,
    scope: Scope,
    clock: Clock,
    progress: Progress,
    expected: int | None = None,
    cuts: Sequence[str] = (),
) -> Pulled:
    """List every account.

    Args:
        expected: how many the last snapshot had, for the time left that is shown.
        cuts: ids of accounts between which several cursors may walk at once, see `segments`; none walks by one.

    Raises:
        IncompletePull: a page is not what a complete list can consist of.
        ModeMismatch: an account is of the other mode.
        OutsideError: Stripe cannot be reached, or refuses.
    """
    taken_at = clock()
    with progress.step("accounts", expected) as step:
        walked = walk(list_page, scope, cuts, step.advance)
    logger.info("pulled %d accounts of merchant %s", len(walked.accounts), scope.merchant)
    return Pulled(walked.accounts, taken_at, clock(), walked.server_at)


def cuts_of_list(account_ids: Sequence[str]) -> list[str]:
    """Cut points out of the last snapshot's ids, in the order of its list: each the last of a page, so that none costs a read more."""
    pages = -(-len(account_ids) // ACCOUNTS_PER_PAGE)
    segments = _segments(pages, SHORTEST_SEGMENT_PAGES)
    bounds = [round(number * pages / segments) for number in range(1, segments)]
    return [account_ids[bound * ACCOUNTS_PER_PAGE - 1] for bound in bounds]


def cuts_of_ledger(account_ids: Sequence[str]) -> list[str]:
    """Cut points for a pull without a snapshot: ledger ids, by a hash, so that they lie evenly all over the list.

    Stripe lists from the newest, and cannot be asked for the oldest, from which one could walk the other way. Any account that is known can
    serve; how far apart they lie, and whether Stripe has them, shows.
    """
    pages = len(account_ids) // ACCOUNTS_PER_PAGE
    segments = _segments(pages, _SHORTEST_UNORDERED_PAGES)
    return sorted(account_ids, key=lambda one: sha256(one.encode()).digest())[: segments - 1]


def _segments(pages: int, shortest_pages: int) -> int:
    return 1 if pages <= SMALL_LIST_PAGES else min(SEGMENTS_PER_WORKER * AT_ONCE, pages // shortest_pages)


def vanished_accounts(previous_ids: Sequence[str], accounts: pd.DataFrame) -> list[str]:
    """Ids of the last snapshot that tonight's does not have, in order."""
    return sorted(set(previous_ids).difference(values_of(accounts["account_id"])))
