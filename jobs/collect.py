"""Look up open sessions, as few as the rules allow, and conclude what came of each request."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import date, timedelta
from functools import partial
from typing import Any

from jobs.adapters import records
from jobs.crew import FAILURES_IN_A_ROW
from jobs.night import MerchantNight
from jobs.reading import read_in_order
from jobs.wiring import Merchant, Wiring
from reconcile.classify import flags
from reconcile.comparison import PastStates, accounts_reached
from reconcile.contacts import is_open
from reconcile.ladder import eligible_dates
from reconcile.model import BROUGHT_BACK, PROVISIONAL_DAYS, Outcome, OutcomeKind, StoredRequest
from reconcile.outcomes import (
    AccountStates,
    Look,
    account_states,
    conclude,
    is_cured,
    is_provisional,
    sessions_to_read,
)
from reconcile.records import SessionRecord
from reconcile.request import plain_rows

logger = logging.getLogger(__name__)


def collect(wiring: Wiring, night: MerchantNight) -> None:
    """Read the sessions that are due and conclude outcomes and successors; nothing is recorded yet.

    Raises:
        OutsideError: Stripe refused the key, or several reads in a row failed.
    """
    scope, stamp, policy = night.merchant.scope, night.stamp, wiring.policy
    since = stamp.business_date - timedelta(days=PROVISIONAL_DAYS)
    waiting = records.open_requests(wiring.database, scope)
    found = [one.stored for one in night.found]
    night.open_before = len(waiting) + len(found)
    followed = waiting + [
        stored
        for stored in records.provisional_requests(wiring.database, scope, since)
        if is_provisional(stored, stamp)
    ]
    eligible = eligible_dates(records.open_breakages(wiring.database, scope), stamp)
    if night.work.collect_everything:
        due = [stored for stored in followed if is_open(stored) and _is_meant(stored, night.work.collect_between)]
    else:
        updated = night.hints.session_updated_at
        due = sessions_to_read(followed, night.changed_holders, updated, stamp, policy, eligible)
    looks = _read(wiring, night, due) | {one.stored.request.request_id: one.look for one in night.found}
    followed = found + followed
    lost = _lost(wiring, night)
    states = _states_of_customers(night, followed + lost)
    past = _past_states(wiring, night, looks, states)
    checked = {request_id for request_id, _ in night.checked}
    for stored in followed:
        conclusion = conclude(stored, looks.get(stored.request.request_id), states, policy, stamp, eligible, past)
        if conclusion is None:
            night.looked_at.append(stored)
            continue
        outcome = conclusion.outcome
        if _says_more(stored, outcome):
            night.outcomes.append(outcome)
        night.successors.extend(conclusion.successors)
        looked_at = _with_outcome(stored, outcome, night, checked)
        night.looked_at.append(looked_at)
        night.answered += is_open(stored) and not is_open(looked_at)
    for stored in lost:
        _note_return(wiring, night, stored, states)


def _lost(wiring: Wiring, night: MerchantNight) -> list[StoredRequest]:
    """The requests of which still nobody knows the session, where a new snapshot may show that their accounts came back."""
    if not night.pulled:
        return []
    found = {one.stored.request.request_id for one in night.found}
    unknown = records.unknown_requests(wiring.database, night.merchant.scope)
    return [stored for stored in unknown if stored.request.request_id not in found]


def _note_return(wiring: Wiring, night: MerchantNight, stored: StoredRequest, states: AccountStates) -> None:
    """Say of an unknown request that its accounts came back, where no session that the job knows explains it.

    It stays unknown: its customer may have answered a session that nobody can follow, or the bank healed by itself.
    """
    if stored.authorization_id in {one.authorization_id for one in night.looked_at if one.outcome in BROUGHT_BACK}:
        return
    covered = stored.request.covered
    cured = [one.account_id for one in covered if is_cured(one, states.get(one.account_id), wiring.policy, night.stamp)]
    if len(cured) <= (stored.accounts_cured or 0):
        return
    outcome = Outcome(
        request_id=stored.request.request_id,
        kind=str(OutcomeKind.UNKNOWN),
        previous=None,
        at=night.stamp.as_of,
        at_basis="observed",
        accounts_cured=len(cured),
        cured_accounts=tuple(sorted(cured)),
        other_accounts=(),
    )
    night.outcomes.append(outcome)
    looked_at = _with_outcome(stored, outcome, night)
    night.looked_at.append(looked_at)
    night.unattributed.append(looked_at)
    logger.warning(
        "%d of %d accounts of the unknown request %s came back, and no known session explains it",
        len(cured),
        len(covered),
        stored.request.request_id,
    )


def _is_meant(stored: StoredRequest, dates: tuple[date, date] | None) -> bool:
    return dates is None or dates[0] <= stored.business_date <= dates[1]


def _read(wiring: Wiring, night: MerchantNight, due: list[StoredRequest]) -> dict[str, Look]:
    looks: dict[str, Look] = {}
    asked = [stored for stored in due if stored.session_id is not None]
    with wiring.progress.step("open sessions", len(asked)) as step:
        for stored, session in read_in_order(asked, partial(_session, night.merchant), failures=FAILURES_IN_A_ROW):
            if isinstance(session, Exception):
                logger.warning("session %s could not be read: %s", stored.session_id, session)
                continue
            answered_at = night.hints.session_updated_at.get(str(stored.session_id))
            looks[stored.request.request_id] = Look(session, gone=session is None, answered_at=answered_at)
            night.checked.append((stored.request.request_id, None if session is None else session.status))
            step.advance()
    return looks


def _session(merchant: Merchant, stored: StoredRequest) -> SessionRecord | None:
    return merchant.gateway.retrieve_session(str(stored.session_id))


def _states_of_customers(night: MerchantNight, followed: list[StoredRequest]) -> AccountStates:
    """Every account of the customers asked: the new ones too, among which successors are looked for."""
    holders = {stored.request.holder.id for stored in followed}
    accounts = night.accounts.loc[flags(night.accounts["account_holder_id"].isin(list(holders)))]
    return account_states(accounts)


def _past_states(wiring: Wiring, night: MerchantNight, looks: Mapping[str, Look], states: AccountStates) -> PastStates:
    """How the accounts that tonight's answers reached were before, as far as the records tell."""
    sessions = [one.session for one in looks.values() if one.session is not None]
    reached = {name for session in sessions for name in accounts_reached(session, states)}
    past: dict[str, list[Mapping[str, Any]]] = {}
    if reached:
        for row in plain_rows(records.history_of(wiring.database, night.merchant.scope, reached)):
            past.setdefault(row["account_id"], []).append(row)
    return past


def _says_more(stored: StoredRequest, outcome: Outcome) -> bool:
    """Whether an outcome is worth a row: that a session is still pending is known already."""
    known = (stored.outcome or "pending", stored.result_authorization_id, stored.accounts_cured or 0)
    return known != (outcome.kind, outcome.result_authorization_id, outcome.accounts_cured)


def _with_outcome(
    stored: StoredRequest, outcome: Outcome, night: MerchantNight, checked: Collection[str] = ()
) -> StoredRequest:
    """The request as it stands after tonight; `checked` are the requests whose session was read."""
    changed = stored.outcome != outcome.kind
    return replace(
        stored,
        outcome=outcome.kind,
        previous_outcome=outcome.previous,
        outcome_at=outcome.at if changed else stored.outcome_at,
        outcome_at_basis=outcome.at_basis if changed else stored.outcome_at_basis,
        outcome_observed_at=night.stamp.as_of if changed else stored.outcome_observed_at,
        outcome_run_id=night.stamp.run_id if changed else stored.outcome_run_id,
        failure_reason=outcome.failure_reason,
        session_status=outcome.session_status,
        result_authorization_id=outcome.result_authorization_id,
        accounts_cured=outcome.accounts_cured,
        cured_accounts=outcome.cured_accounts,
        other_accounts=outcome.other_accounts,
        last_checked_at=night.stamp.as_of if stored.request.request_id in checked else stored.last_checked_at,
    )
