"""Read the ledger and page all accounts from Stripe; what comes back is proved complete, or the run stops here."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import pandas as pd

from jobs.clock import Clock
from jobs.progress import Progress
from reconcile.errors import IncompletePull, ModeMismatch
from reconcile.model import Scope
from reconcile.normalize import accounts_frame
from reconcile.records import AccountRecord, AccountsPage

logger = logging.getLogger(__name__)

ListPage = Callable[[str | None], AccountsPage]
"""Returns the page of accounts after a cursor, the first one for None."""


@dataclass(frozen=True, slots=True)
class Pulled:
    """All accounts of one Stripe account (`frames.ACCOUNTS`), and when their listing began and ended."""

    accounts: pd.DataFrame
    taken_at: datetime
    completed_at: datetime


def pull_accounts(
    list_page: ListPage, scope: Scope, clock: Clock, progress: Progress, expected: int | None = None
) -> Pulled:
    """List every account.

    Args:
        expected: how many the last snapshot had, for the time left that is shown.

    Raises:
        IncompletePull: a page is not what a complete list can consist of.
        ModeMismatch: an account is of the other mode.
        OutsideError: Stripe cannot be reached, or refuses.
    """
    taken_at = clock()
    records: list[AccountRecord] = []
    seen: set[str] = set()
    cursor: str | None = None
    with progress.step("accounts", expected) as step:
        while True:
            page = list_page(cursor)
            check_page(page, cursor, seen, scope)
            records.extend(page.records)
            step.advance(len(page.records))
            if not page.has_more:
                break
            cursor = page.last_id
    logger.info("pulled %d accounts of merchant %s", len(records), scope.merchant)
    return Pulled(accounts_frame(records), taken_at, clock())


def check_page(page: AccountsPage, cursor: str | None, seen: set[str], scope: Scope) -> None:
    """Refuse a page that a complete list cannot hold, and note its ids as seen.

    Raises:
        IncompletePull: empty with more to come, the cursor repeated, an id twice, or accounts without the key `authorization`.
        ModeMismatch: an account is of the other mode than the key.
    """
    where = f"merchant {scope.merchant}: the page of accounts after {cursor or 'the start'}"
    if page.has_more and not page.records:
        raise IncompletePull(f"{where} is empty although Stripe says there is more; run again later")
    if page.has_more and page.last_id == cursor:
        raise IncompletePull(f"{where} ends where it began; run again later")
    for record in page.records:
        if record.account_id in seen:
            raise IncompletePull(f"{where} repeats account {record.account_id}; run again later")
        seen.add(record.account_id)
        if not record.authorization_key_present:
            raise IncompletePull(
                f"{where} has account {record.account_id} without the key `authorization`: stripe.api_version must be a "
                "preview version that knows it, such as 2026-09-30.preview"
            )
        if record.livemode != (scope.mode == "live"):
            found = "live" if record.livemode else "sandbox"
            raise ModeMismatch(
                f"{where} has account {record.account_id} in {found} mode, but the key is for {scope.mode}: use the key of "
                "the mode that merchants[].mode and the records name"
            )


def vanished_accounts(previous_ids: Sequence[str], accounts: pd.DataFrame) -> list[str]:
    """Ids of the last snapshot that tonight's does not have, in order."""
    return sorted(set(previous_ids) - set(accounts["account_id"]))
