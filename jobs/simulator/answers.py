"""How customers answer relink sessions, and what each answer does to their accounts.

Outcomes follow Stripe's guide to relinking accounts used for data products. Which session status goes with which
`relink_result` is not documented; here `no_account` comes with status succeeded and the other two reasons with failed.
"""

from __future__ import annotations

from collections.abc import Sequence

from jobs.simulator import changes
from jobs.simulator.behaviour import ANSWERS
from jobs.simulator.changes import Due
from jobs.simulator.clock import SECONDS_PER_DAY
from jobs.simulator.draws import Draws, token
from jobs.simulator.model import Account, Authorization, Session
from jobs.simulator.population import schedule_trouble
from jobs.simulator.state import State

_FAILURES = ("no_account", "no_authorization", "other")


def schedule_answer(state: State, session: Session) -> None:
    """Let the customer answer in their own time; how and when follows from the authorization and the attempt alone."""
    if not state.behaviour.automatic_answers or session.authorization_id is None:
        return
    draws = _draws(state, session)
    behaviour = state.behaviour
    if draws.weighted(behaviour.answers) == "never":
        afresh = state.draws("afresh", session.authorization_id)
        if session.attempt == 1 and behaviour.fresh_link_share and afresh.chance(behaviour.fresh_link_share):
            hours = afresh.between(*behaviour.slow_answer_hours)
            state.schedule(session.created + int(hours * 3_600), Due.FRESH_LINK, session.authorization_id)
        return
    mark = draws.unit()
    if mark < behaviour.late_share:
        hours = draws.between(*behaviour.late_answer_hours)
    elif mark < behaviour.late_share + behaviour.slow_share:
        hours = draws.between(*behaviour.slow_answer_hours)
    else:
        hours = draws.between(*behaviour.prompt_answer_hours)
    state.schedule(session.created + max(60, int(hours * 3_600)), Due.ANSWER, session.id)


def on_due(state: State, session_id: str, _: int) -> None:
    """The moment of a scheduled answer; a session answered by hand before stays as it is."""
    session = state.sessions[session_id]
    if session.status == "pending":
        answer(state, session, _draws(state, session).weighted(state.behaviour.answers))


def answer(
    state: State,
    session: Session,
    how: str,
    *,
    accounts: Sequence[str] | None = None,
    keep_account_ids: bool | None = None,
    old_disconnected: bool | None = None,
    ambiguous: bool | None = None,
    lag_seconds: int | None = None,
) -> None:
    """Answer a pending session. What is left None is drawn; `accounts` names those the customer chooses.

    `ambiguous` makes a new authorization's accounts unmatchable by attributes. `lag_seconds` is how long after the
    session's end the accounts come back.
    """
    if how not in ANSWERS:
        raise ValueError(f"unknown answer {how!r}; known are {', '.join(ANSWERS)}")
    if session.status != "pending":
        raise ValueError(f"session {session.id} is {session.status}; only a pending one can be answered")
    if how == "never":
        return
    draws = state.draws("choice", session.authorization_id or session.id, session.attempt)
    how, chosen = _settle(state, session, how, accounts, draws)
    if how in ("whole", "partial", "new_authorization"):
        _succeed(state, session, how, chosen, draws, keep_account_ids, old_disconnected, ambiguous, lag_seconds)
    elif how in _FAILURES:
        session.status = "succeeded" if how == "no_account" else "failed"
        session.result = {"failure_reason": how}
    elif how == "cancelled":
        session.status = "cancelled"
        session.cancelled_reason = "other"
    elif how == "succeeded_without_result":
        session.status = "succeeded"
    else:
        session.status = "failed"
    state.emit("session.updated", session)


def on_lagged(state: State, session_id: str, _: int) -> None:
    """The moment at which a lagging success reaches the accounts."""
    session = state.sessions[session_id]
    authorization = state.authorizations[session.authorization_id or ""]
    still_there = [
        account for account in authorization.accounts if account.id in session.account_ids and account.is_relinkable
    ]
    if still_there and authorization.status != "disconnected":
        _relink(state, session, authorization, still_there)


def _draws(state: State, session: Session) -> Draws:
    return state.draws("answer", session.authorization_id, session.attempt)


def _settle(
    state: State, session: Session, how: str, accounts: Sequence[str] | None, draws: Draws
) -> tuple[str, list[Account]]:
    """What is possible: a bank that is down or an authorization without usable accounts ends in a failure."""
    if how in ("failed", "cancelled", "succeeded_without_result"):
        return how, []
    if session.authorization_id is None:
        raise ValueError(f"session {session.id} relinks nothing, so it cannot be answered by {how!r}")
    if how in _FAILURES:
        return how, []
    authorization = state.authorizations[session.authorization_id]
    if accounts is not None:
        return how, [_own_account(authorization, account_id) for account_id in accounts]
    if authorization.institution.manner == "down":
        return "other", []
    eligible = _eligible(session, authorization)
    if authorization.status == "disconnected" or not eligible:
        return "no_account", []
    if session.account_limit is not None and len(eligible) > session.account_limit:
        eligible.sort(key=lambda account: (account.status == "active", account.id))
        eligible = eligible[: session.account_limit]
        return ("whole" if how == "partial" else how), eligible
    if how == "partial":
        if len(eligible) < 2:
            return "whole", eligible
        return how, draws.subset(eligible, 1 + draws.word() % (len(eligible) - 1))
    return how, eligible


def _own_account(authorization: Authorization, account_id: str) -> Account:
    for account in authorization.accounts:
        if account.id == account_id and account.is_relinkable:
            return account
    raise ValueError(f"account {account_id} is none of authorization {authorization.id} that could be relinked")


def _eligible(session: Session, authorization: Authorization) -> list[Account]:
    subcategories = session.filters.get("account_subcategories")
    payable = session.filters.get("require_payment_method_support") in ("all", "at_least_one")
    return [
        account
        for account in authorization.accounts
        if account.is_relinkable
        and (session.account_id is None or account.id == session.account_id)
        and (not subcategories or account.subcategory in subcategories)
        and (not payable or account.subcategory in ("checking", "savings"))
    ]


def _succeed(
    state: State,
    session: Session,
    how: str,
    chosen: list[Account],
    draws: Draws,
    keep_account_ids: bool | None,
    old_disconnected: bool | None,
    ambiguous: bool | None,
    lag_seconds: int | None,
) -> None:
    behaviour = state.behaviour
    authorization = state.authorizations[session.authorization_id or ""]
    session.status = "succeeded"
    if how == "new_authorization":
        keep = draws.chance(behaviour.keep_account_ids_share) if keep_account_ids is None else keep_account_ids
        gone = draws.chance(behaviour.old_disconnected_share) if old_disconnected is None else old_disconnected
        unclear = draws.chance(behaviour.ambiguous_share) if ambiguous is None else ambiguous
        successor = _new_authorization(state, session, authorization, chosen, keep, gone, unclear)
        session.result = {"authorization": successor.id}
        session.account_ids = tuple(account.id for account in successor.accounts)
        return
    session.result = {"authorization": authorization.id}
    if session.account_id is not None:
        session.result["account"] = session.account_id
    session.account_ids = tuple(account.id for account in chosen)
    if lag_seconds is None and draws.chance(behaviour.lag_share):
        lag_seconds = int(draws.between(*behaviour.lag_hours) * 3_600)
    if lag_seconds:
        state.schedule(state.now + lag_seconds, Due.LAGGED_ANSWER, session.id)
    else:
        _relink(state, session, authorization, chosen)


def _relink(state: State, session: Session, authorization: Authorization, chosen: list[Account]) -> None:
    changes.revive_authorization(authorization)
    for account in chosen:
        _renew(state, session, account)
    if session.account_id is not None or session.account_limit is not None:
        # Relinking one account may bring its siblings back (Stripe's relink guide); their permissions stay.
        share = state.behaviour.sibling_reactivated_share
        if state.draws("siblings", authorization.id, session.attempt).chance(share):
            for sibling in authorization.accounts:
                if sibling not in chosen and sibling.status == "inactive" and sibling.is_relinkable:
                    changes.reactivate(state, sibling)
    _apply_manner(state, authorization, chosen)
    dates = [account.expected_at for account in authorization.accounts if account.expected_at is not None]
    if dates:
        authorization.active_action = "relink_required"
        authorization.expected_at = min(dates)


def _renew(state: State, session: Session, account: Account) -> None:
    account.permissions = session.permissions
    changes.reactivate(state, account)
    if changes.has_tokenized_numbers(account):
        changes.issue_number(state, account)


def _apply_manner(state: State, authorization: Authorization, accounts: list[Account]) -> None:
    """Two test institutions announce the next deactivation at each reactivation (Stripe docs: testing)."""
    days = {"immediate": 1, "eventual": 30}.get(authorization.institution.manner)
    if days is not None:
        changes.expect_deactivation(state, authorization, accounts, state.now + days * SECONDS_PER_DAY)


def _new_authorization(
    state: State,
    session: Session,
    old: Authorization,
    chosen: list[Account],
    keep_account_ids: bool,
    old_disconnected: bool,
    ambiguous: bool,
) -> Authorization:
    name = f"{state.seed}:{old.id}:{session.attempt}:{session.id}"
    new = Authorization("fcauth_1" + token("successor:" + name, 23), old.holder, old.institution, state.now)
    state.authorizations[new.id] = new
    if keep_account_ids:
        for account in chosen:
            old.accounts.remove(account)
            account.authorization = new
            new.accounts.append(account)
            _renew(state, session, account)
    else:
        for account in chosen:
            _successor(state, session, new, account, name, ambiguous)
    if old_disconnected:
        changes.disconnect_authorization(state, old)
    _apply_manner(state, new, new.accounts)
    schedule_trouble(state, new, 0)
    return new


def _successor(state: State, session: Session, new: Authorization, old: Account, name: str, ambiguous: bool) -> None:
    copies = 2 if ambiguous else 1
    for copy in range(copies):
        _copy(state, old, new, "fca_1" + token(f"account:{name}:{old.id}:{copy}", 23), session.permissions)


def link_afresh(state: State, authorization: Authorization, chosen: Sequence[Account]) -> Authorization:
    """Let the customer link accounts once more as if for the first time, with no session of the merchant's for it; what was there stays as it is."""
    name = f"{state.seed}:afresh:{authorization.id}:{state.now}"
    new = Authorization("fcauth_1" + token(name, 23), authorization.holder, authorization.institution, state.now)
    state.authorizations[new.id] = new
    for account in chosen:
        _copy(state, account, new, "fca_1" + token(f"{name}:{account.id}", 23), account.permissions)
    _apply_manner(state, new, new.accounts)
    schedule_trouble(state, new, 0)
    return new


def on_fresh_link(state: State, authorization_id: str, _: int) -> None:
    """The moment at which a customer who never answers links afresh, unless the accounts work again by then."""
    authorization = state.authorizations[authorization_id]
    broken = [account for account in authorization.accounts if account.status != "active"]
    if broken and authorization.institution.manner != "down":
        link_afresh(state, authorization, broken)


def _copy(state: State, old: Account, new: Authorization, account_id: str, permissions: tuple[str, ...]) -> None:
    account = Account(
        id=account_id,
        authorization=new,
        holder=old.holder,
        last4=old.last4,
        subcategory=old.subcategory,
        permissions=permissions,
        numbers=() if old.subcategory not in ("checking", "savings") else changes.PLAIN_NUMBERS,
        created=state.now,
        refreshed_at=state.now,
    )
    new.accounts.append(account)
    state.lives_on.setdefault(old.id, []).append(account.id)
    state.index_account(account)
    if changes.has_tokenized_numbers(account):
        account.numbers = ()
        changes.issue_number(state, account, announce=False)
    state.emit("account.created", account)
