"""What happens as simulated time passes: breaks, healing, expiry, new customers and answers, in order of time."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from jobs.simulator import answers, changes, population
from jobs.simulator.changes import Due
from jobs.simulator.clock import SECONDS_PER_DAY
from jobs.simulator.model import Authorization
from jobs.simulator.state import State

_SINGLE_ACCOUNT_CAUSES = ("account_unavailable", "account_closed")


def run(state: State, until: int) -> None:
    """Carry out everything due up to and including `until`, and set the world's time to it.

    Each thing happens at its own moment, so one step of five days equals five steps of one.
    """
    due = state.due
    while due and due[0][0] <= until:
        at, kind, key, stamp = heapq.heappop(due)
        state.now = max(state.now, at)
        _HANDLERS[Due(kind)](state, key, stamp)
    state.now = max(state.now, until)
    state.prune_events()


def _deactivate(state: State, authorization_id: str, expected_at: int) -> None:
    authorization = state.authorizations[authorization_id]
    ripe = [
        account
        for account in authorization.accounts
        if account.status == "active" and account.expected_at == expected_at
    ]
    if not ripe:
        return
    authorization.status = "inactive"
    authorization.inactive_action = "relink_required"
    authorization.active_action = "none"
    authorization.expected_at = None
    for account in ripe:
        changes.deactivate(state, account, account.active_cause or "access_expired", "relink_required")


def _warn_deactivation(state: State, authorization_id: str, expected_at: int) -> None:
    authorization = state.authorizations[authorization_id]
    if authorization.expected_at == expected_at:
        state.emit("authorization.upcoming_deactivation", authorization)
    for account in authorization.accounts:
        if account.status == "active" and account.expected_at == expected_at:
            state.emit("account.upcoming_deactivation", account)


def _number_expiry(state: State, account_id: str, expires_at: int) -> None:
    account = state.accounts.get(account_id)
    if account is None or account.status == "disconnected":
        return
    if any(
        number.expires_at == expires_at and number.status in ("transactable", "pending") for number in account.numbers
    ):
        account.numbers = tuple(
            number._replace(status="expired")
            if number.expires_at == expires_at and number.status in ("transactable", "pending")
            else number
            for number in account.numbers
        )
        state.emit("account.account_numbers_updated", account)


def _number_warning(state: State, account_id: str, expires_at: int) -> None:
    account = state.accounts.get(account_id)
    if account is not None and any(
        number.expires_at == expires_at and number.status == "transactable" for number in account.numbers
    ):
        state.emit("account.upcoming_account_number_expiry", account)


def _number_ready(state: State, account_id: str, expires_at: int) -> None:
    account = state.accounts.get(account_id)
    if account is not None and any(
        number.status == "pending" and (number.expires_at or 0) == expires_at for number in account.numbers
    ):
        changes.change_numbers(state, account, ("pending",), "transactable")


def _heal(state: State, account_id: str, broken_at: int) -> None:
    account = state.accounts.get(account_id)
    if account is None or account.status != "inactive" or account.broken_at != broken_at:
        return
    changes.reactivate(state, account)
    if account.authorization.status == "inactive":
        changes.revive_authorization(account.authorization)


def _trouble(state: State, authorization_id: str, number: int) -> None:
    authorization = state.authorizations[authorization_id]
    population.schedule_trouble(state, authorization, number + 1)
    active = [account for account in authorization.accounts if account.status == "active"]
    if authorization.status != "active" or not active:
        return
    draws = state.draws("trouble", authorization_id, number, "what")
    behaviour = state.behaviour
    what = draws.weighted(
        {
            "break": behaviour.daily_break_rate,
            "expiring": behaviour.daily_expiring_rate,
            "disconnect": behaviour.daily_disconnect_rate,
        }
    )
    if what == "disconnect":
        changes.disconnect_authorization(state, authorization)
    elif what == "expiring":
        if authorization.active_action == "none":
            cause = draws.pick(("access_expired", "institution_requirement"))
            at = state.now + int(draws.between(3, 30) * SECONDS_PER_DAY)
            changes.expect_deactivation(state, authorization, active, at, cause)
    else:
        _break(state, authorization, number)


def _break(state: State, authorization: Authorization, number: int) -> None:
    draws = state.draws("break", authorization.id, number)
    behaviour = state.behaviour
    active = [account for account in authorization.accounts if account.status == "active"]
    cause = draws.weighted(behaviour.break_causes)
    action = "none" if cause == "account_closed" or draws.chance(0.02) else "relink_required"
    if cause in _SINGLE_ACCOUNT_CAUSES:
        broken = [draws.pick(active)]
        changes.deactivate(state, broken[0], cause, action)
    else:
        broken = active
        changes.deactivate_authorization(state, authorization, cause, action)
    if action == "relink_required" and draws.chance(behaviour.heal_share):
        delay = int(draws.between(*behaviour.heal_after_days) * SECONDS_PER_DAY)
        for account in broken:
            state.schedule(state.now + delay, Due.HEAL, account.id, account.broken_at)


def _new_link(state: State, _: str, number: int) -> None:
    population.link_new_customer(state, number)
    population.schedule_new_link(state, number + 1)


def _refreshed(state: State, account_id: str, _: int) -> None:
    account = state.accounts.get(account_id)
    if account is None or not account.refreshing:
        return
    features, account.refreshing = account.refreshing, ()
    if account.status != "active":
        return
    for feature in features:
        ended = account.refresh_failed if feature in account.refresh_fails else account.refreshed
        ended[feature] = state.now
        name = "transactions" if feature == "transaction" else feature
        state.emit(f"account.refreshed_{name}", account)


_HANDLERS: dict[Due, Callable[[State, str, int], None]] = {
    Due.DEACTIVATE: _deactivate,
    Due.WARN_DEACTIVATION: _warn_deactivation,
    Due.NUMBER_EXPIRY: _number_expiry,
    Due.NUMBER_WARNING: _number_warning,
    Due.NUMBER_READY: _number_ready,
    Due.HEAL: _heal,
    Due.TROUBLE: _trouble,
    Due.NEW_LINK: _new_link,
    Due.ANSWER: answers.on_due,
    Due.LAGGED_ANSWER: answers.on_lagged,
    Due.REFRESHED: _refreshed,
    Due.FRESH_LINK: answers.on_fresh_link,
}
