"""One page of the list of accounts: how it is asked for, and what a complete list cannot hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from reconcile.errors import IncompletePull, ModeMismatch
from reconcile.model import Scope
from reconcile.records import AccountColumns, AccountsPage

ACCOUNTS_PER_PAGE = 100
"""The most that Stripe puts on one (Stripe API docs: pagination)."""

ListPage = Callable[[str | None], AccountColumns]
"""Returns the page of accounts after a cursor, the first one for None; safe for threads."""


def check_page(page: AccountsPage | AccountColumns, cursor: str | None, seen: set[str], scope: Scope) -> None:
    """Refuse a page that a complete list cannot hold, and note its ids as seen.

    Raises:
        IncompletePull: empty with more to come, the cursor repeated, an id twice, or accounts without the key `authorization`.
        ModeMismatch: an account is of the other mode than the key.
    """
    where = f"merchant {scope.merchant}: the page of accounts after {cursor or 'the start'}"
    if page.has_more and page.last_id is None:
        raise IncompletePull(f"{where} is empty although Stripe says there is more; run again later")
    if page.has_more and page.last_id == cursor:
        raise IncompletePull(f"{where} ends where it began; run again later")
    for account_id, authorization_key_present, livemode in _told(page):
        if account_id in seen:
            raise IncompletePull(f"{where} repeats account {account_id}; run again later")
        seen.add(account_id)
        if not authorization_key_present:
            raise IncompletePull(
                f"{where} has account {account_id} without the key `authorization`: stripe.api_version must be a "
                "preview version that knows it, such as 2026-09-30.preview"
            )
        if livemode != (scope.mode == "live"):
            found = "live" if livemode else "sandbox"
            raise ModeMismatch(
                f"{where} has account {account_id} in {found} mode, but the key is for {scope.mode}: use the key of "
                "the mode that merchants[].mode and the records name"
            )


def _told(page: AccountsPage | AccountColumns) -> Iterable[tuple[str, bool, bool]]:
    if isinstance(page, AccountColumns):
        return zip(page.account_ids, page.authorization_key_present, page.livemode, strict=True)
    return ((one.account_id, one.authorization_key_present, one.livemode) for one in page.records)
