"""Send one stored request to Stripe and record what it said, each step committed before the next."""

from __future__ import annotations

import logging
from typing import Any

from jobs.adapters import records
from jobs.wiring import Merchant, Wiring
from reconcile.errors import KeyRefused, ModeMismatch, StripeUnavailable
from reconcile.model import State, StoredRequest
from reconcile.records import CallFailure, StripeCallFailed

logger = logging.getLogger(__name__)

STRIPES_TROUBLE = ("server", "connection", "cut_body", "unparsable", "rate", "lock")
FAILURES_IN_A_ROW = 5
"""So many failures one after the other mean that Stripe or the network, not a customer, has a problem."""


class Sender:
    """Sends stored requests one after the other, and stops where going on can only make things worse."""

    def __init__(self, wiring: Wiring, merchant: Merchant) -> None:
        self._wiring = wiring
        self._merchant = merchant
        self._failures = 0
        self.created = 0

    def send(self, stored: StoredRequest, *, replay: bool = False) -> None:
        """Send one request and record its result.

        Raises:
            KeyRefused: Stripe refused the key; nothing more would be let through.
            StripeUnavailable: too many failures in a row.
            ModeMismatch: the session made is of the other mode.
            LeaseLost: another run took over.
            DatabaseError: see `attempt`.
        """
        try:
            failure = attempt(self._wiring, self._merchant, stored, replay=replay)
        except ModeMismatch:
            self.created += 1
            raise
        self._failures = self._failures + 1 if failure is not None and failure.fault in STRIPES_TROUBLE else 0
        if failure is None:
            self.created += 1
            return
        if failure.fault == "key_refused":
            raise KeyRefused(f"Stripe refused the key midway: {failure}. Check the key's permissions, then run again")
        if self._failures >= FAILURES_IN_A_ROW:
            raise StripeUnavailable(
                f"{self._failures} calls in a row failed, the last one: {failure}. Nothing more was sent; run again later"
            )


def attempt(wiring: Wiring, merchant: Merchant, stored: StoredRequest, *, replay: bool = False) -> CallFailure | None:
    """Make the POST of a stored request and record its result; return what failed, or None.

    The request is committed as `attempting` before the first byte leaves, under the lock's fencing token: a run that was taken
    over, or a second one racing for the same contact, finds nothing to mark and sends nothing.

    Raises:
        LeaseLost: another run took over.
        DatabaseError: the intent could not be committed, so nothing was sent; or the answer could not, so the next run asks again.
    """
    if wiring.lease is None:
        raise RuntimeError("nothing is sent without the lock")
    wiring.lease.check()
    request_id = stored.request.request_id
    records.mark_attempting(wiring.database, request_id, wiring.clock(), wiring.lease.token, replay=replay)
    try:
        created = merchant.gateway.create_session(
            stored.request_body, api_version=stored.api_version, idempotency_key=stored.idempotency_key
        )
    except StripeCallFailed as failed:
        _record_failure(wiring, stored, failed.failure, replay=replay)
        return failed.failure
    records.record_result(
        wiring.database,
        request_id,
        State.CREATED,
        wiring.clock(),
        calls=created.wire_attempts,
        session_id=created.session_id,
        stripe_request_id=created.request_id,
    )
    if created.livemode != (merchant.scope.mode == "live"):
        raise ModeMismatch(
            f"merchant {merchant.scope.merchant}: Stripe made session {created.session_id} in another mode than {merchant.scope.mode}; "
            "it is recorded, and nothing more is sent: check the key"
        )
    return None


def state_after(failure: CallFailure, *, replay: bool = False) -> State:
    """The state that a failed call leaves its request in.

    A 400 is final and `rejected`. A stored 500 is replayed for the life of its key, and a mismatch of parameters means that the key
    was used: neither tells whether a session exists, so both are `unknown`. Where Stripe certainly did not act, the request is `not_sent` and its
    attempt is free. Anything else stays `attempting`: the next run asks again under the same key. So does a `replay` that Stripe did not
    act on, since that says nothing of the attempt before it.
    """
    if failure.fault == "rejected":
        return State.REJECTED
    if failure.fault == "idempotency_mismatch" or (failure.fault == "server" and failure.http_status == 500):
        return State.UNKNOWN
    if not failure.maybe_executed and not replay:
        return State.NOT_SENT
    return State.ATTEMPTING


def _record_failure(wiring: Wiring, stored: StoredRequest, failure: CallFailure, *, replay: bool) -> None:
    state = state_after(failure, replay=replay)
    logger.warning("request %s is %s: %s", stored.request.request_id, state, failure)
    error: dict[str, Any] = {
        "error_type": failure.error_type or failure.fault,
        "error_code": failure.error_code or failure.rate_limit_reason,
        "error_message": failure.message,
        "http_status": failure.http_status,
        "stripe_request_id": failure.request_id,
    }
    request_id = stored.request.request_id
    if state == State.ATTEMPTING:
        records.record_no_answer(wiring.database, request_id, calls=failure.wire_attempts, **error)
        return
    now = wiring.clock()
    records.record_result(wiring.database, request_id, state, now, calls=failure.wire_attempts, **error)
