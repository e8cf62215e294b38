"""What can happen to accounts and authorizations, each change with the events that Stripe emits for it."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

from jobs.simulator.clock import SECONDS_PER_DAY
from jobs.simulator.model import Account, AccountNumber, Authorization
from jobs.simulator.state import State

WARNING_SECONDS = 30 * SECONDS_PER_DAY
PLAIN_NUMBERS = (AccountNumber("account_number", "transactable", None),)


class Due(IntEnum):
    """What `timeline` may have to do; the order settles ties."""

    DEACTIVATE = 1
    WARN_DEACTIVATION = 2
    NUMBER_EXPIRY = 3
    NUMBER_WARNING = 4
    NUMBER_READY = 5
    HEAL = 6
    TROUBLE = 7
    NEW_LINK = 8
    ANSWER = 9
    LAGGED_ANSWER = 10
    REFRESHED = 11
    FRESH_LINK = 12


def deactivate(state: State, account: Account, cause: str, action: str) -> None:
    """Make one account inactive; a disconnected one stays as it is."""
    if account.status == "disconnected":
        return
    was_active = account.status == "active"
    account.status = "inactive"
    account.inactive_cause = cause
    account.inactive_action = action
    account.active_action = "none"
    account.active_cause = None
    account.expected_at = None
    account.broken_at = state.now
    if was_active:
        state.emit("account.deactivated", account)


def deactivate_authorization(state: State, authorization: Authorization, cause: str, action: str) -> None:
    """Make an authorization and all its active accounts inactive."""
    if authorization.status == "disconnected":
        return
    authorization.status = "inactive"
    authorization.inactive_action = action
    authorization.active_action = "none"
    authorization.expected_at = None
    for account in authorization.accounts:
        if account.status == "active":
            deactivate(state, account, cause, action)


def reactivate(state: State, account: Account) -> None:
    """Make an inactive or expiring account plainly active again."""
    was_inactive = account.status == "inactive"
    had_date = account.expected_at is not None
    account.status = "active"
    account.inactive_action = None
    account.inactive_cause = None
    account.active_action = "none"
    account.active_cause = None
    account.expected_at = None
    account.refreshed_at = state.now
    if was_inactive:
        state.emit("account.reactivated", account)
    if had_date:
        state.emit("account.expected_deactivation_date_updated", account)


def revive_authorization(authorization: Authorization) -> None:
    """Make the authorization itself plainly active."""
    authorization.status = "active"
    authorization.inactive_action = None
    authorization.active_action = "none"
    authorization.expected_at = None


def expect_deactivation(
    state: State,
    authorization: Authorization,
    accounts: Iterable[Account],
    at: int | None,
    cause: str = "access_expired",
) -> None:
    """Announce that these accounts stop working at `at` unless relinked; None announces it without a date."""
    authorization.active_action = "relink_required"
    authorization.expected_at = at
    state.emit("authorization.expected_deactivation_date_updated", authorization)
    for account in accounts:
        if account.status != "active":
            continue
        account.active_action = "relink_required"
        account.active_cause = cause
        account.expected_at = at
        state.emit("account.expected_deactivation_date_updated", account)
    if at is not None:
        state.schedule(at, Due.DEACTIVATE, authorization.id, at)
        state.schedule(max(state.now, at - WARNING_SECONDS), Due.WARN_DEACTIVATION, authorization.id, at)


def withdraw_expectation(state: State, authorization: Authorization) -> None:
    """Take an announced deactivation back."""
    authorization.active_action = "none"
    authorization.expected_at = None
    state.emit("authorization.expected_deactivation_date_updated", authorization)
    for account in authorization.accounts:
        if account.status == "active" and account.active_action != "none":
            account.active_action = "none"
            account.active_cause = None
            account.expected_at = None
            state.emit("account.expected_deactivation_date_updated", account)


def disconnect(state: State, account: Account) -> None:
    """End the access to an account for good."""
    if account.status == "disconnected":
        return
    account.status = "disconnected"
    account.inactive_action = None
    account.inactive_cause = None
    account.active_action = "none"
    account.active_cause = None
    account.expected_at = None
    state.emit("account.disconnected", account)


def disconnect_authorization(state: State, authorization: Authorization) -> None:
    """End the access to all accounts of an authorization."""
    authorization.status = "disconnected"
    authorization.active_action = "none"
    authorization.inactive_action = None
    authorization.expected_at = None
    for account in authorization.accounts:
        disconnect(state, account)


def has_tokenized_numbers(account: Account) -> bool:
    """Whether this account gets tokenized numbers: a cash account at a bank that issues them."""
    return account.authorization.institution.tokenized and account.subcategory in ("checking", "savings")


def issue_number(state: State, account: Account, announce: bool = True) -> None:
    """Give an account a new tokenized number; those before it no longer work."""
    draws = state.draws("number", account.id, state.now)
    lifetime = state.behaviour.number_lifetime_days
    pending = draws.chance(state.behaviour.number_pending_share)
    expires_at = None if draws.chance(0.15) else state.now + lifetime * SECONDS_PER_DAY
    fresh = AccountNumber("tokenized_account_number", "pending" if pending else "transactable", expires_at)
    old = tuple(
        number if number.status == "expired" else number._replace(status="deactivated")
        for number in account.numbers
        if number.identifier_type == "tokenized_account_number"
    )
    account.numbers = (fresh, *old[:1])
    if pending:
        state.schedule(state.now + SECONDS_PER_DAY, Due.NUMBER_READY, account.id, expires_at or 0)
    if expires_at is not None:
        watch_number(state, account, expires_at)
    if announce:
        state.emit("account.account_numbers_updated", account)


def watch_number(state: State, account: Account, expires_at: int) -> None:
    """Let a tokenized number expire in its time, with a warning 30 days before."""
    state.schedule(expires_at, Due.NUMBER_EXPIRY, account.id, expires_at)
    if expires_at - WARNING_SECONDS >= state.now:
        state.schedule(expires_at - WARNING_SECONDS, Due.NUMBER_WARNING, account.id, expires_at)


def change_numbers(state: State, account: Account, from_status: tuple[str, ...], to_status: str) -> None:
    """Move every number of an account in one of `from_status` to `to_status`."""
    account.numbers = tuple(
        number._replace(status=to_status) if number.status in from_status else number for number in account.numbers
    )
    state.emit("account.account_numbers_updated", account)
