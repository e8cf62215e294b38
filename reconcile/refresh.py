"""Fresh data after a relink: what may be asked of Stripe for which account, and what the answers say."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum

from reconcile.model import BROUGHT_BACK, OutcomeKind, RunStamp, Scope, StoredRequest, Successor

FEATURE_AT_STRIPE: Mapping[str, str] = {
    "balances": "balance",
    "ownership": "ownership",
    "transactions": "transactions",
}
"""What Stripe calls a feature when asked to refresh it; the permission has our name (Stripe API docs: refresh an account)."""

ASKED_WITHIN_DAYS = 7
"""So many dates after a success its refresh is given up, if Stripe was not ready for it or could not be reached until then."""

CLOCK_DIFFERENCE = timedelta(minutes=5)
"""By so much Stripe's clock may be behind this machine's."""

READ_ON_DAYS = (1, 3, 7)
"""The dates after a refresh was asked for on which a pending one is read again, since reads are rationed by Stripe."""

FOLLOWED_DAYS = ASKED_WITHIN_DAYS + 2 * READ_ON_DAYS[-1]
"""So many dates after a success nothing of its refresh can be left to read, missed nights included."""


class RefreshState(StrEnum):
    """How far the asking has come. `planned` is provably unasked, `attempting` may have reached Stripe; `fresh` needed no asking."""

    PLANNED = "planned"
    ATTEMPTING = "attempting"
    ASKED = "asked"
    FRESH = "fresh"
    REJECTED = "rejected"
    UNKNOWN = "unknown"
    NOT_SENT = "not_sent"


class RefreshStatus(StrEnum):
    """What a report says of an account's refresh."""

    WAITING = "waiting"
    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    UNFINISHED = "unfinished"
    REJECTED = "rejected"
    UNKNOWN = "unknown"
    NOT_SENT = "not_sent"


@dataclass(frozen=True, slots=True)
class FeatureState:
    """The last refresh of one feature as Stripe tells it; `through_at` is up to when the data of a successful one are."""

    status: str | None
    last_attempted_at: datetime | None = None
    next_available_at: datetime | None = None
    through_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class StoredRefresh:
    """The refresh of one account after one success, as recorded; `seen` is what was last seen of each feature."""

    refresh_id: str
    request_id: str
    account_id: str
    run_id: str
    business_date: date
    state: str
    features: tuple[str, ...]
    planned_at: datetime
    not_before_at: datetime | None = None
    attempting_at: datetime | None = None
    answered_at: datetime | None = None
    last_checked_at: datetime | None = None
    idempotency_key: str = ""
    request_body: str = ""
    api_version: str = ""
    calls: int = 0
    error_type: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    http_status: int | None = None
    stripe_request_id: str | None = None
    seen: Mapping[str, FeatureState] | None = None


def refresh_id(scope: Scope, request_id: str, account_id: str) -> str:
    """The identity of one account's refresh after one success; there is never a second one."""
    parts = (scope.merchant, scope.mode, request_id, account_id)
    joined = "\x1f".join(f"{len(part)}:{part}" for part in parts)
    return "refresh-" + hashlib.sha256(joined.encode()).hexdigest()


def accounts_to_refresh(stored: StoredRequest, successors: Iterable[Successor]) -> list[str]:
    """The accounts that a request brought back, by the ids under which they live on, sorted; none where it brought none back."""
    if stored.outcome == OutcomeKind.NEW_AUTHORIZATION:
        return sorted({one.new_account_id for one in successors if one.request_id == stored.request.request_id})
    if stored.outcome not in BROUGHT_BACK:
        return []
    if stored.cured_accounts is None and stored.outcome == OutcomeKind.RELINKED:
        return sorted(account.account_id for account in stored.request.covered)
    return sorted(stored.cured_accounts or ())


@dataclass(frozen=True, slots=True)
class Choice:
    """What to do about a planned refresh: ask for `ask` (Stripe's words), or, where that is empty, go to `state`, which is `planned` for waiting."""

    ask: tuple[str, ...] = ()
    state: RefreshState = RefreshState.PLANNED
    not_before_at: datetime | None = None
    why: str | None = None


def choose(
    wanted: Sequence[str],
    permissions: Sequence[str],
    seen: Mapping[str, FeatureState],
    since_at: datetime,
    now: datetime,
) -> tuple[tuple[str, ...], Choice]:
    """The features that the account allows, and what to do about them.

    What was refreshed since it was planned is fresh. What Stripe is refreshing, or does not let be refreshed yet, is waited for, all features
    together, so that one account is asked for once.

    Args:
        wanted: balances, ownership, transactions, as the settings name them.
        since_at: when it was planned.
    """
    allowed = tuple(name for name in FEATURE_AT_STRIPE if name in wanted and name in permissions)
    if not allowed:
        return (), Choice(state=RefreshState.NOT_SENT, why=f"the account grants none of {', '.join(sorted(wanted))}")
    stale = [name for name in allowed if not is_fresh(seen.get(name), since_at)]
    if not stale:
        return allowed, Choice(state=RefreshState.FRESH)
    busy = [name for name in stale if name in seen and seen[name].status == "pending"]
    later = [at for name in stale if name in seen and (at := seen[name].next_available_at) is not None and at > now]
    if later:
        return allowed, Choice(not_before_at=max(later), why="Stripe allows no refresh before that")
    if busy:
        return allowed, Choice(why=f"Stripe is refreshing {', '.join(busy)}")
    return allowed, Choice(ask=tuple(FEATURE_AT_STRIPE[name] for name in stale))


def is_fresh(seen: FeatureState | None, since_at: datetime) -> bool:
    """Whether a feature was refreshed since a moment."""
    return seen is not None and seen.status == "succeeded" and _is_since(seen, since_at)


def _is_since(seen: FeatureState, since_at: datetime) -> bool:
    return seen.last_attempted_at is not None and seen.last_attempted_at >= since_at - CLOCK_DIFFERENCE


def _has_ended(seen: FeatureState | None, since_at: datetime) -> bool:
    """Whether a feature's refresh is over; a failure from before the relink, as of the one that noticed the break, is none of ours."""
    return seen is not None and seen.status in ("succeeded", "failed") and _is_since(seen, since_at)


def is_given_up(stored: StoredRefresh, stamp: RunStamp) -> bool:
    """Whether a refresh that was never asked for is not asked for any more."""
    return (stamp.business_date - stored.business_date).days > ASKED_WITHIN_DAYS


def is_pending(stored: StoredRefresh) -> bool:
    """Whether Stripe was asked and has not said of every feature how it ended."""
    seen = stored.seen or {}
    if stored.state not in (RefreshState.ASKED, RefreshState.FRESH):
        return False
    return not all(_has_ended(seen.get(name), stored.planned_at) for name in stored.features)


def read_due(stored: StoredRefresh, stamp: RunStamp) -> bool:
    """Whether a pending refresh is worth a read tonight; a missed date is made up for."""
    if not is_pending(stored) or stored.answered_at is None:
        return False
    asked_on = stamp.date_of(stored.answered_at)
    age = (stamp.business_date - asked_on).days
    read_on = asked_on if stored.last_checked_at is None else stamp.date_of(stored.last_checked_at)
    return any((read_on - asked_on).days < day <= age for day in READ_ON_DAYS)


def status_of(stored: StoredRefresh, on: date, date_of_answer: date | None) -> RefreshStatus:
    """What a report of a business date says."""
    if stored.state == RefreshState.PLANNED:
        return RefreshStatus.WAITING
    if stored.state == RefreshState.ATTEMPTING:
        return RefreshStatus.UNKNOWN
    if stored.state in (RefreshState.REJECTED, RefreshState.UNKNOWN, RefreshState.NOT_SENT):
        return RefreshStatus(str(stored.state))
    if is_pending(stored):
        over = date_of_answer is not None and (on - date_of_answer).days >= READ_ON_DAYS[-1]
        return RefreshStatus.UNFINISHED if over else RefreshStatus.PENDING
    seen = stored.seen or {}
    failed = any(seen[name].status == "failed" for name in stored.features)
    return RefreshStatus.FAILED if failed else RefreshStatus.SUCCEEDED


def through_at(stored: StoredRefresh, feature: str) -> datetime | None:
    """Up to when the data of a feature are known by this refresh; None where it did not succeed."""
    seen = (stored.seen or {}).get(feature)
    return seen.through_at if seen is not None and is_fresh(seen, stored.planned_at) else None


@dataclass(frozen=True, slots=True)
class AccountRefresh:
    """What a report says of the newest refresh of an account; `failure` is why it failed or was refused."""

    refresh_status: str
    refresh_requested_at: datetime | None
    refresh_failure: str | None
    balances_as_of: datetime | None
    ownership_as_of: datetime | None
    transactions_through: datetime | None


def refreshes_told(stored: Iterable[StoredRefresh], stamp: RunStamp) -> dict[str, AccountRefresh]:
    """What a report says of each account that was brought back, by account id."""
    newest: dict[str, StoredRefresh] = {}
    for one in sorted(stored, key=lambda one: (one.planned_at, one.refresh_id)):
        newest[one.account_id] = one
    return {
        account_id: AccountRefresh(
            refresh_status=str(status_of(one, stamp.business_date, _date_of(one.answered_at, stamp))),
            refresh_requested_at=one.attempting_at,
            refresh_failure=_failure(one),
            balances_as_of=through_at(one, "balances"),
            ownership_as_of=through_at(one, "ownership"),
            transactions_through=through_at(one, "transactions"),
        )
        for account_id, one in newest.items()
    }


def _date_of(moment: datetime | None, stamp: RunStamp) -> date | None:
    return None if moment is None else stamp.date_of(moment)


def _failure(stored: StoredRefresh) -> str | None:
    if stored.state in (RefreshState.REJECTED, RefreshState.UNKNOWN, RefreshState.NOT_SENT):
        return (
            ": ".join(part for part in (stored.error_code or stored.error_type, stored.error_message) if part) or None
        )
    seen = stored.seen or {}
    failed = [
        name
        for name in stored.features
        if name in seen and seen[name].status == "failed" and _has_ended(seen[name], stored.planned_at)
    ]
    return f"Stripe could not refresh {', '.join(failed)}" if failed and not is_pending(stored) else None
