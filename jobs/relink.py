"""Carry the plan out: each stored request by itself, so that one bad customer is a row and not an end."""

from __future__ import annotations

import logging

from jobs.adapters import records
from jobs.crew import FAILURES_IN_A_ROW
from jobs.night import MerchantNight
from jobs.sender import Sender
from jobs.wiring import Wiring
from reconcile.delivery import UNAVAILABLE_LIMIT
from reconcile.model import REREAD_AFTER, Outcome, OutcomeKind, RelinkRequest, State, StoredRequest
from reconcile.normalize import accounts_frame
from reconcile.outcomes import account_states, is_cured
from reconcile.records import MalformedAnswer, ReadFailed, ReadRejected
from reconcile.request import session_parameters
from reconcile.session_request import encode_session_request

logger = logging.getLogger(__name__)


def store_plan(wiring: Wiring, night: MerchantNight) -> None:
    """Store every request with the bytes that will be sent, before any is.

    Where one's contact turns out to be recorded already, that one is left out, `not_sent` and with the reason, and hinders no other.

    Raises:
        LeaseLost: another run took over; nothing was stored.
    """
    api_version = wiring.settings.stripe.api_version
    planned = [
        (request, encode_session_request(session_parameters(request, wiring.policy)), api_version)
        for request in night.plan.requests
    ]
    if not planned:
        return
    database, scope, stamp = wiring.database, night.merchant.scope, night.stamp
    run_id, on = stamp.run_id, stamp.business_date
    try:
        records.plan_requests(database, scope, run_id, on, planned, wiring.clock(), wiring.fence)
        return
    except records.ContactTaken as taken:
        logger.warning("the requests are stored one by one, since not all can be: %s", taken)
    for one in planned:
        try:
            records.plan_requests(database, scope, run_id, on, [one], wiring.clock(), wiring.fence)
        except records.ContactTaken as taken:
            request, why = one[0], str(taken)
            records.plan_taken(database, scope, run_id, on, request, wiring.clock(), why)
            night.skipped.append((request.authorization_id, why))


def relink(wiring: Wiring, night: MerchantNight) -> None:
    """Send what this run stored; what it does not come to send is recorded as such.

    Raises:
        KeyRefused: Stripe refused the key; the rest stays planned.
        StripeUnavailable: too many failures in a row; the rest stays planned.
        LeaseLost: another run took over.
    """
    scope = night.merchant.scope
    waiting = [
        stored
        for stored in records.requests_of_run(wiring.database, night.stamp.run_id, scope)
        if stored.state == State.PLANNED
    ]
    sender = Sender(wiring, night.merchant)
    unreadable = 0
    quiet: str | None = None
    try:
        with wiring.progress.step("relink requests", len(waiting)) as step, sender:
            for stored in sorted(waiting, key=lambda one: one.request.request_id):
                sender.make_room(stored)
                bank = stored.request.institution_name
                if bank is not None and sender.unavailable[bank] >= UNAVAILABLE_LIMIT:
                    _leave_bank(wiring, stored, sender.unavailable[bank])
                    step.advance()
                    continue
                quiet = quiet or wiring.why_quiet()
                if quiet is not None:
                    _leave_for_next_run(wiring, night, stored, quiet)
                    continue
                try:
                    overtaken = _overtaken(wiring, night, stored)
                    unreadable = 0
                except (ReadFailed, ReadRejected, MalformedAnswer) as failed:
                    unreadable += 1
                    if unreadable >= FAILURES_IN_A_ROW:
                        raise
                    why = f"its accounts could not be read again: {failed}"
                    records.record_not_sent(
                        wiring.database, stored.request.request_id, wiring.clock(), error_message=why
                    )
                    overtaken = True
                if not overtaken:
                    sender.start(stored)
                step.advance()
    finally:
        night.created = sender.created


def _leave_bank(wiring: Wiring, stored: StoredRequest, refusals: int) -> None:
    """Leave a request for the next date without spending its attempt, since Stripe would refuse it as it did those before."""
    why = f"Stripe could not reach the institution {refusals} times in this run; the next date asks again"
    request_id, now = stored.request.request_id, wiring.clock()
    records.record_not_sent(wiring.database, request_id, now, error_type="institution_unavailable", error_message=why)
    logger.warning("request %s is not sent: %s", request_id, why)


def _leave_for_next_run(wiring: Wiring, night: MerchantNight, stored: StoredRequest, quiet: str) -> None:
    """A quiet time began while the run was sending: what is left is provably unsent, and its attempt stays free."""
    why = f"{quiet} began before it was sent"
    records.record_not_sent(
        wiring.database, stored.request.request_id, wiring.clock(), error_type="quiet_time", error_message=why
    )
    night.skipped.append((stored.authorization_id, why))


def _overtaken(wiring: Wiring, night: MerchantNight, stored: StoredRequest) -> bool:
    """Whether the accounts changed since an old snapshot so that the request is no longer due; then it is not sent.

    Raises:
        ReadFailed, ReadRejected, MalformedAnswer: an account could not be read again.
    """
    # What an increment took over from an earlier night or from an event is as old as that.
    seen = night.read_ids is None or all(account.account_id in night.read_ids for account in stored.request.covered)
    recent = seen and night.taken_at is not None and wiring.clock() - night.taken_at <= REREAD_AFTER
    if recent and not night.work.resumes:
        return False
    request = stored.request
    found = [night.merchant.gateway.retrieve_account(account.account_id) for account in request.covered]
    states = account_states(accounts_frame([record for record in found if record is not None]))
    rows = [states.get(account.account_id) for account in request.covered]
    same = all(
        row is not None
        and row["authorization_id"] == request.authorization_id
        and (row["holder_type"], row["account_holder_id"]) == (request.holder.type, request.holder.id)
        for row in rows
    )
    if not same:
        _leave_out(wiring, night, request, OutcomeKind.REVIEW, "its accounts have another holder or authorization now")
        return True
    if all(
        is_cured(account, row, wiring.policy, night.stamp) for account, row in zip(request.covered, rows, strict=True)
    ):
        _leave_out(wiring, night, request, OutcomeKind.HEALED, "its accounts work again")
        return True
    return False


def _leave_out(wiring: Wiring, night: MerchantNight, request: RelinkRequest, kind: OutcomeKind, why: str) -> None:
    now, stamp = wiring.clock(), night.stamp
    records.record_not_sent(wiring.database, request.request_id, now, error_message=why)
    outcome = Outcome(request.request_id, str(kind), None, now, "observed", accounts_cured=0)
    records.append_outcomes(wiring.database, stamp.run_id, stamp.business_date, [outcome], now)
    night.skipped.append((request.authorization_id, why))
    logger.info("request %s was not needed: %s", request.request_id, why)
