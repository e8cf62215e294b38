"""The customers and accounts of a generated world, and those who link their first account later."""

from __future__ import annotations

import gc

from jobs.simulator.changes import PLAIN_NUMBERS, Due, watch_number
from jobs.simulator.clock import SECONDS_PER_DAY
from jobs.simulator.draws import token, words
from jobs.simulator.model import Account, AccountNumber, Authorization, Holder, Institution
from jobs.simulator.state import State

_RANGE = 2.0**32
_HISTORY_SECONDS = 900 * SECONDS_PER_DAY
_SUBCATEGORIES = (
    ("checking", "checking", "checking", "savings"),
    ("savings", "credit_card", "checking", "savings"),
    ("credit_card", "savings", "line_of_credit", "checking"),
    ("mortgage", "line_of_credit", "savings", "other"),
    ("checking", "credit_card", "other", "savings"),
)
_PERMISSION_SETS = (
    ("balances", "ownership", "payment_method", "transactions"),
    ("balances", "payment_method", "transactions"),
    ("balances", "transactions"),
    ("balances", "payment_method"),
    ("balances", "ownership", "transactions"),
    ("payment_method",),
    ("balances", "ownership", "payment_method"),
    ("balances", "transactions"),
)
_CAUSES = ("access_expired", "access_denied", "institution_requirement", "unspecified")


def populate(state: State, accounts: int) -> None:
    """Fill the world with exactly `accounts` accounts, linked over the 900 days before its start."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        bounds = _share_bounds(state)
        holder: Holder | None = None
        made = 0
        number = 0
        while made < accounts:
            drawn = words(f"{state.seed}:authorization:{number}")
            if holder is None or drawn[0] / _RANGE >= 0.18:
                holder = _holder(state, number, drawn[1])
            size = min(_size(drawn[2]), accounts - made)
            created = state.start - _HISTORY_SECONDS + int(_HISTORY_SECONDS * (made / accounts)) - 60
            _authorization(state, number, holder, _institution(bounds, drawn[3]), size, created, drawn)
            made += size
            number += 1
    finally:
        if was_enabled:
            gc.enable()
    state.first_authorizations = len(state.authorizations)
    if state.behaviour.daily_new_link_rate > 0:
        schedule_new_link(state, 0)


def schedule_trouble(state: State, authorization: Authorization, number: int) -> None:
    """Let the authorization's next trouble come in its own time, whatever happens to it before."""
    behaviour = state.behaviour
    rate = behaviour.daily_break_rate + behaviour.daily_expiring_rate + behaviour.daily_disconnect_rate
    if rate > 0:
        wait = state.draws("trouble", authorization.id, number).waiting_seconds(rate)
        state.schedule(state.now + wait, Due.TROUBLE, authorization.id, number)


def schedule_new_link(state: State, number: int) -> None:
    """Let the next customer link a first account."""
    rate = state.behaviour.daily_new_link_rate * max(1, state.first_authorizations)
    wait = state.draws("new_link", number).waiting_seconds(rate)
    state.schedule(state.now + wait, Due.NEW_LINK, "", number)


def link_new_customer(state: State, number: int) -> Authorization:
    """A customer who links now."""
    drawn = words(f"{state.seed}:new_link:{number}")
    bounds = _share_bounds(state)
    holder = _holder(state, f"new{number}", drawn[1])
    authorization = _authorization(
        state, f"new{number}", holder, _institution(bounds, drawn[3]), _size(drawn[2]), state.now, drawn, healthy=True
    )
    for account in authorization.accounts:
        state.emit("account.created", account)
    return authorization


def _authorization(
    state: State,
    number: int | str,
    holder: Holder,
    institution: Institution,
    size: int,
    created: int,
    drawn: tuple[int, ...],
    healthy: bool = False,
) -> Authorization:
    name = f"{state.seed}:{number}"
    authorization = Authorization("fcauth_1" + token("authorization:" + name, 23), holder, institution, created)
    state.authorizations[authorization.id] = authorization
    permissions = _PERMISSION_SETS[drawn[4] % len(_PERMISSION_SETS)]
    subcategories = _SUBCATEGORIES[drawn[5] % len(_SUBCATEGORIES)]
    for place in range(size):
        _account(state, f"{name}:{place}", authorization, subcategories[place % 4], permissions, healthy)
    if healthy:
        _manner_at_start(state, authorization)
    else:
        _initial_state(state, authorization, drawn)
    schedule_trouble(state, authorization, 0)
    return authorization


def _account(
    state: State,
    name: str,
    authorization: Authorization,
    subcategory: str,
    permissions: tuple[str, ...],
    healthy: bool,
) -> None:
    drawn = words("account:" + name)
    numbers: tuple[AccountNumber, ...] = ()
    cash = subcategory in ("checking", "savings")
    if cash:
        numbers = PLAIN_NUMBERS
    account = Account(
        id=f"fca_1{drawn[0]:08x}{drawn[1]:08x}{drawn[2]:07x}"[:28],
        authorization=authorization,
        holder=authorization.holder,
        last4=f"{drawn[3] % 10_000:04d}",
        subcategory=subcategory,
        permissions=permissions,
        numbers=numbers,
        created=authorization.created,
        refreshed_at=max(authorization.created, state.now - drawn[4] % (20 * SECONDS_PER_DAY)),
        subscribed=drawn[5] % 10 < 3,
    )
    if cash and authorization.institution.tokenized:
        _first_number(state, account, drawn, healthy)
    authorization.accounts.append(account)
    state.index_account(account)


def _first_number(state: State, account: Account, drawn: tuple[int, ...], healthy: bool) -> None:
    lifetime = state.behaviour.number_lifetime_days * SECONDS_PER_DAY
    if not healthy and drawn[6] / _RANGE < state.behaviour.initial_expired_number_share:
        expired_at = state.start - drawn[7] % (60 * SECONDS_PER_DAY)
        status = "deactivated" if drawn[8] % 5 == 0 else "expired"
        account.numbers = (AccountNumber("tokenized_account_number", status, expired_at),)
        return
    expires_at = None if drawn[9] % 6 == 0 else state.now + 3_600 + drawn[7] % lifetime
    account.numbers = (AccountNumber("tokenized_account_number", "transactable", expires_at),)
    if expires_at is not None:
        watch_number(state, account, expires_at)


def _manner_at_start(state: State, authorization: Authorization) -> None:
    manner = authorization.institution.manner
    if manner == "inactive":
        _set_inactive(authorization, state.now, "access_expired", "relink_required")
    elif manner == "immediate":
        _set_expiring(state, authorization, state.now + SECONDS_PER_DAY // 24)
    elif manner == "eventual":
        _set_expiring(state, authorization, state.now + 30 * SECONDS_PER_DAY)


def _initial_state(state: State, authorization: Authorization, drawn: tuple[int, ...]) -> None:
    """What already is wrong when the world starts. No events: they were long ago."""
    behaviour = state.behaviour
    manner = authorization.institution.manner
    broken_at = state.start - 3_600 - drawn[7] % (40 * SECONDS_PER_DAY)
    if manner in ("inactive", "immediate"):
        _set_inactive(authorization, broken_at, "access_expired", "relink_required")
        return
    if manner == "eventual":
        _set_expiring(state, authorization, state.start + 3_600 + drawn[7] % (30 * SECONDS_PER_DAY))
        return
    mark = drawn[6] / _RANGE
    mark -= behaviour.initial_disconnected_share
    if mark < 0:
        authorization.status = "disconnected"
        for account in authorization.accounts:
            account.status = "disconnected"
        return
    mark -= behaviour.initial_inactive_share
    if mark < 0:
        cause = _CAUSES[drawn[8] % len(_CAUSES)]
        if drawn[9] % 4 == 0:
            _set_account_inactive(authorization.accounts[0], broken_at, "account_unavailable", "relink_required")
        else:
            _set_inactive(authorization, broken_at, cause, "relink_required")
        return
    mark -= behaviour.initial_permanent_share
    if mark < 0:
        if drawn[9] % 3 == 0:
            _set_inactive(authorization, broken_at, "access_denied", "none")
        else:
            _set_account_inactive(authorization.accounts[-1], broken_at, "account_closed", "none")
        return
    mark -= behaviour.initial_expiring_share
    if mark < 0:
        _set_expiring(state, authorization, state.start + 3_600 + drawn[7] % (28 * SECONDS_PER_DAY))


def _set_account_inactive(account: Account, at: int, cause: str, action: str) -> None:
    account.status = "inactive"
    account.inactive_cause = cause
    account.inactive_action = action
    account.broken_at = max(at, account.created)


def _set_inactive(authorization: Authorization, at: int, cause: str, action: str) -> None:
    authorization.status = "inactive"
    authorization.inactive_action = action
    for account in authorization.accounts:
        _set_account_inactive(account, at, cause, action)


def _set_expiring(state: State, authorization: Authorization, at: int) -> None:
    authorization.active_action = "relink_required"
    authorization.expected_at = at
    for account in authorization.accounts:
        account.active_action = "relink_required"
        account.active_cause = "access_expired"
        account.expected_at = at
    state.schedule(at, Due.DEACTIVATE, authorization.id, at)


def _holder(state: State, number: int | str, drawn: int) -> Holder:
    part = token(f"{state.seed}:holder:{number}", 14)
    share = drawn % 100
    if share < 92:
        holder = Holder("customer", "cus_" + part)
    elif share < 96:
        holder = Holder("customer_account", "acct_1" + part)
    else:
        holder = Holder("account", "acct_1" + part)
    state.holders[holder.id] = holder
    return holder


def _size(drawn: int) -> int:
    share = drawn / _RANGE
    return 1 + (share >= 0.45) + (share >= 0.73) + (share >= 0.88) + (share >= 0.96)


def _share_bounds(state: State) -> list[tuple[float, Institution]]:
    total = sum(state.institution_shares.values())
    bounds: list[tuple[float, Institution]] = []
    mark = 0.0
    for name, share in state.institution_shares.items():
        mark += share / total
        bounds.append((mark, state.institutions[name]))
    return bounds


def _institution(bounds: list[tuple[float, Institution]], drawn: int) -> Institution:
    mark = drawn / _RANGE
    for bound, institution in bounds:
        if mark < bound:
            return institution
    return bounds[-1][1]
