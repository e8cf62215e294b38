"""Ask Stripe for fresh data of the accounts that came back, once for each, and follow every refresh to its end.

It contacts nobody, but each refresh is work for a bank and may cost a fee, so it is asked for as a session is: the row is committed before the
POST, under the lock's token, with the bytes and the key; the same bytes are sent again while the key is young, and never after. Whatever goes
wrong here is told and ends neither the run nor its exit code.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from jobs.adapters import records
from jobs.crew import FAILURES_IN_A_ROW
from jobs.key_age import KeyAge
from jobs.night import MerchantNight
from jobs.send import CLOCK_TOLERANCE, later_clock, moment_of_intent, new_key_age, state_after
from jobs.sender import STRIPES_TROUBLE
from jobs.wiring import Wiring
from reconcile.errors import DatabaseError, KeyRefused, LeaseLost, OutsideError, StripeUnavailable
from reconcile.model import State
from reconcile.records import AccountFreshness, CallFailure, MalformedAnswer, ReadRejected, StripeCallFailed
from reconcile.refresh import (
    ASKED_WITHIN_DAYS,
    FOLLOWED_DAYS,
    FeatureState,
    RefreshState,
    StoredRefresh,
    accounts_to_refresh,
    choose,
    is_given_up,
    read_due,
)
from reconcile.session_request import encode_session_request

logger = logging.getLogger(__name__)

COMMANDS = ("run", "resume")

_STATE_OF = {
    State.REJECTED: RefreshState.REJECTED,
    State.UNKNOWN: RefreshState.UNKNOWN,
    State.ATTEMPTING: RefreshState.ATTEMPTING,
    # Stripe certainly did not act, so a later night may ask under the same key.
    State.NOT_SENT: RefreshState.PLANNED,
}


def refresh(wiring: Wiring, night: MerchantNight) -> None:
    """Plan, ask for and follow refreshes; trouble with Stripe is told in the night and ends only this.

    Raises:
        LeaseLost: another run took over.
        DatabaseError: something could not be recorded; then nothing more is asked.
    """
    try:
        _plan(wiring, night)
        _Refresher(wiring, night).bring_on()
    except (DatabaseError, LeaseLost):
        raise
    except OutsideError as trouble:
        night.refresh_trouble = str(trouble)
        logger.warning("fresh data are left for the next night: %s", trouble)


def _plan(wiring: Wiring, night: MerchantNight) -> None:
    """Store a refresh for each account that the successes of the last dates brought back and that has none."""
    if not wiring.settings.relink.refresh_after:
        return
    scope, stamp, database = night.merchant.scope, night.stamp, wiring.database
    successes = records.requests_brought_back(database, scope, stamp.as_of - timedelta(days=ASKED_WITHIN_DAYS))
    successors = records.successors(database, scope) if successes else []
    planned = [
        (stored.request.request_id, account_id)
        for stored in successes
        for account_id in accounts_to_refresh(stored, successors)
    ]
    records.plan_refreshes(database, scope, stamp.run_id, stamp.business_date, planned, wiring.clock())


class _Refresher:
    """Brings one merchant's refreshes on, one after the other."""

    def __init__(self, wiring: Wiring, night: MerchantNight) -> None:
        self._wiring = wiring
        self._night = night
        self._merchant = night.merchant
        self._database = wiring.database
        self._failures = 0

    def bring_on(self) -> None:
        """Settle what was being asked for, ask for what is due, and read what is pending.

        Raises:
            OutsideError: Stripe refused the key, or several calls in a row failed.
        """
        scope, stamp = self._merchant.scope, self._night.stamp
        unfinished = records.unfinished_refreshes(self._database, scope)
        since = stamp.business_date - timedelta(days=FOLLOWED_DAYS)
        pending = [one for one in records.followed_refreshes(self._database, scope, since) if read_due(one, stamp)]
        with self._wiring.progress.step("refreshes", len(unfinished) + len(pending)) as step:
            for stored in unfinished:
                if stored.state == RefreshState.ATTEMPTING:
                    self._settle(stored)
                else:
                    self._take_up(stored)
                step.advance()
            for stored in pending:
                found = self._read(stored)
                if found is not None:
                    seen, run_id = _of(stored.features, found), stamp.run_id
                    records.add_refresh_checks(self._database, run_id, stored.refresh_id, seen, self._wiring.clock())
                step.advance()

    def _settle(self, stored: StoredRefresh) -> None:
        """What an earlier run was asking for is asked again under its key while that is young, and is unknown after."""
        now, began_at = later_clock(self._wiring, self._merchant), stored.attempting_at
        young = began_at is not None and now - began_at >= -CLOCK_TOLERANCE
        age = new_key_age(self._wiring, self._merchant, now - began_at) if began_at is not None and young else None
        if age is None or age.expired():
            why = "the answer was lost and the idempotency key is too old to ask again"
            self._record(stored, RefreshState.UNKNOWN, error=_error("key_expired", why))
            return
        self._post(stored, age)

    def _take_up(self, stored: StoredRefresh) -> None:
        """Ask for a planned refresh where that is due; what Stripe is not ready for waits for a later night."""
        wanted = self._wiring.settings.relink.refresh_after
        if not wanted:
            self._record(stored, RefreshState.NOT_SENT, error=_error("switched_off", "relink.refresh_after is empty"))
            return
        if is_given_up(stored, self._night.stamp):
            why = stored.error_message or f"Stripe was not ready for it within {ASKED_WITHIN_DAYS} dates"
            self._record(stored, RefreshState.NOT_SENT, error=_error("given_up", why))
            return
        if stored.not_before_at is not None and self._wiring.clock() < stored.not_before_at:
            return
        found = self._read(stored)
        if found is None:
            return
        if found.status != "active":
            why = f"the account is {found.status}"
            self._record(stored, RefreshState.PLANNED, error=_error("not_active", why))
            return
        now = max(self._wiring.clock(), self._merchant.gateway.server_now() or self._wiring.clock())
        features, choice = choose(wanted, found.permissions, found.seen, stored.planned_at, now)
        if not choice.ask:
            error = None if choice.why is None else _error(str(choice.state), choice.why)
            seen = _of(features, found) if choice.state == RefreshState.FRESH else {}
            not_before_at = choice.not_before_at
            self._record(stored, choice.state, features=features, seen=seen, not_before_at=not_before_at, error=error)
            return
        self._ask(stored, features, choice.ask)

    def _ask(self, stored: StoredRefresh, features: tuple[str, ...], ask: tuple[str, ...]) -> None:
        wiring, lease = self._wiring, self._wiring.lease
        if lease is None:
            raise RuntimeError("nothing is sent without the lock")
        lease.check()
        records.mark_refresh_attempting(
            self._database,
            stored.refresh_id,
            moment_of_intent(wiring, self._merchant),
            lease.token,
            features=features,
            body=encode_session_request({"features": list(ask)}),
            api_version=wiring.settings.stripe.api_version,
        )
        marked = records.refreshes_of_requests(self._database, self._merchant.scope, [stored.request_id])
        self._post(next(one for one in marked if one.refresh_id == stored.refresh_id), None)

    def _post(self, stored: StoredRefresh, replay: KeyAge | None) -> None:
        lease = self._wiring.lease
        if lease is None:
            raise RuntimeError("nothing is sent without the lock")
        if replay is not None:
            records.mark_refresh_attempting(
                self._database, stored.refresh_id, self._wiring.clock(), lease.token, replay=True
            )
        key_age = replay or new_key_age(self._wiring, self._merchant)

        def may_send() -> bool:
            lease.check()
            return not key_age.expired()

        try:
            asked = self._merchant.gateway.refresh_account(
                stored.account_id,
                stored.request_body,
                api_version=stored.api_version,
                idempotency_key=stored.idempotency_key,
                may_send=may_send,
            )
        except StripeCallFailed as failed:
            self._record_failure(stored, failed.failure, replay=replay is not None)
            return
        self._failures = 0
        # An answer about another account says nothing of this one: its own reads will.
        seen = _of(stored.features, asked.account) if asked.account.account_id == stored.account_id else {}
        error = {"stripe_request_id": asked.request_id}
        self._record(stored, RefreshState.ASKED, seen=seen, calls=asked.wire_attempts, error=error)

    def _record_failure(self, stored: StoredRefresh, failure: CallFailure, *, replay: bool) -> None:
        state = _STATE_OF[state_after(failure, replay=replay)]
        logger.warning("the refresh of %s is %s: %s", stored.account_id, state, failure)
        error = {
            **_error(failure.error_type or failure.fault, failure.message),
            "error_code": failure.error_code or failure.rate_limit_reason,
            "http_status": failure.http_status,
            "stripe_request_id": failure.request_id,
        }
        self._record(stored, state, calls=failure.wire_attempts, error=error)
        if failure.fault == "key_refused":
            raise KeyRefused(f"{failure}. The API key may not refresh accounts: give it that permission")
        self._failures = self._failures + 1 if failure.fault in STRIPES_TROUBLE else 0
        if self._failures >= FAILURES_IN_A_ROW:
            raise StripeUnavailable(f"{self._failures} refreshes in a row failed, the last one: {failure}")

    def _read(self, stored: StoredRefresh) -> AccountFreshness | None:
        """The account now; None where it cannot be read, or Stripe has no such account, which ends a refresh that was only planned.

        Raises:
            OutsideError: Stripe refused the key or does not answer.
        """
        try:
            found = self._merchant.gateway.retrieve_freshness(stored.account_id)
        except (MalformedAnswer, ReadRejected) as failed:
            logger.warning("account %s could not be read for its refresh: %s", stored.account_id, failed)
            return None
        if found is None and stored.state == RefreshState.PLANNED:
            self._record(stored, RefreshState.NOT_SENT, error=_error("gone", "Stripe has no such account"))
        return found if found is not None and found.account_id == stored.account_id else None

    def _record(self, stored: StoredRefresh, state: RefreshState, **more: Any) -> None:
        records.record_refresh_result(
            self._database,
            stored.refresh_id,
            self._night.stamp.run_id,
            RefreshState(stored.state),
            state,
            self._wiring.clock(),
            fence=None if state == RefreshState.ASKED else self._wiring.fence,
            **more,
        )


def _of(features: tuple[str, ...], account: AccountFreshness) -> dict[str, FeatureState]:
    return {name: account.seen[name] for name in features if name in account.seen}


def _error(kind: str, message: str | None) -> Mapping[str, str | None]:
    return {"error_type": kind, "error_message": message}
