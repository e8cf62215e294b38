"""Send one stored request to Stripe and record what it said, in three steps, each committed before the next."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from jobs.adapters import records
from jobs.key_age import KeyAge
from jobs.wiring import Merchant, Wiring
from reconcile.errors import ModeMismatch
from reconcile.model import State, StoredRequest
from reconcile.records import CallFailure, SessionCreated, StripeCallFailed

logger = logging.getLogger(__name__)

MaySend = Callable[[], bool]
"""Says, right before a try goes out, whether it may; what it raises ends the call."""

CLOCK_TOLERANCE = timedelta(minutes=1)
"""By so much this machine's clock may be ahead of Stripe's and still date an intent; the `Date` of an answer is that of its sending."""


_BOOT = datetime(1970, 1, 1, tzinfo=UTC)


def begin(wiring: Wiring, merchant: Merchant, stored: StoredRequest, *, replay: KeyAge | None = None) -> MaySend:
    """Commit a request as `attempting` and return what is to be asked before each try of its POST.

    It is committed before the first byte leaves, under the lock's fencing token: a run that was taken over, or a second one racing for the
    same contact, finds nothing to mark and sends nothing. Before each wire attempt the lock and the age of the key are asked once more, since a
    machine may be suspended anywhere before it.

    Raises:
        LeaseLost: another run took over.
        ContactTaken: somebody else has brought the request further meanwhile, so it was left alone.
        DatabaseError: the intent could not be committed, so nothing was sent.
    """
    lease = wiring.lease
    if lease is None:
        raise RuntimeError("nothing is sent without the lock")
    lease.check()
    now = moment_of_intent(wiring, merchant)
    key_age = replay or new_key_age(wiring, merchant)
    records.mark_attempting(wiring.database, stored.request.request_id, now, lease.token, replay=replay is not None)

    def may_send() -> bool:
        lease.check()
        return not key_age.expired()

    return may_send


def post(merchant: Merchant, stored: StoredRequest, may_send: MaySend) -> SessionCreated | CallFailure:
    """Make the POST of a request that is committed as `attempting`, and return what came of it; touches no record."""
    try:
        return merchant.gateway.create_session(
            stored.request_body,
            api_version=stored.api_version,
            idempotency_key=stored.idempotency_key,
            may_send=may_send,
        )
    except StripeCallFailed as failed:
        return failed.failure


def conclude(
    wiring: Wiring,
    merchant: Merchant,
    stored: StoredRequest,
    answer: SessionCreated | CallFailure,
    *,
    replay: bool = False,
) -> CallFailure | None:
    """Record what came of a POST; return what failed, or None.

    Raises:
        ModeMismatch: the session made is of the other mode; it is recorded.
        ContactTaken: somebody else has ended the request meanwhile.
        DatabaseError: the answer could not be recorded, so the next run asks again.
    """
    if isinstance(answer, CallFailure):
        _record_failure(wiring, stored, answer, replay=replay)
        return answer
    # A replay to which Stripe had no stored answer made the session now: the first attempt had never reached it.
    made_now = replay and not answer.replayed
    _record_created(
        wiring, stored.request.request_id, answer, (answer.server_at or wiring.clock()) if made_now else None
    )
    if answer.livemode != (merchant.scope.mode == "live"):
        raise ModeMismatch(
            f"merchant {merchant.scope.merchant}: Stripe made session {answer.session_id} in another mode than {merchant.scope.mode}; "
            "it is recorded, and nothing more is sent: check the key"
        )
    return None


def new_key_age(wiring: Wiring, merchant: Merchant, age: timedelta = timedelta(0)) -> KeyAge:
    """Measure from now on how old a key becomes, by this machine's clock, by Stripe's and by one that cannot be set."""
    return KeyAge(
        age, (wiring.clock, merchant.gateway.server_now, lambda: _BOOT + timedelta(seconds=wiring.elapsed_seconds()))
    )


def later_clock(wiring: Wiring, merchant: Merchant) -> datetime:
    """The later of this machine's clock and Stripe's, which is asked anew: a clock that was set back must not make an old key young."""
    merchant.gateway.list_accounts_page(limit=1, purpose="clock")
    return max(wiring.clock(), merchant.gateway.server_now() or wiring.clock())


def moment_of_intent(wiring: Wiring, merchant: Merchant) -> datetime:
    """Now, from where the life of the key is counted: by Stripe's clock where this machine's is ahead of it.

    Counted from a moment that never came, the key would look younger than it is to whoever replays it once the clock is right again.
    """
    now, by_stripe = wiring.clock(), server_now(wiring, merchant)
    return now if now - by_stripe <= CLOCK_TOLERANCE else by_stripe


def server_now(wiring: Wiring, merchant: Merchant) -> datetime:
    """Stripe's time, which is asked for where no answer has told it yet; ours where its answers tell none."""
    if merchant.gateway.server_now() is None:
        merchant.gateway.list_accounts_page(limit=1, purpose="clock")
    return merchant.gateway.server_now() or wiring.clock()


def state_after(failure: CallFailure, *, replay: bool = False) -> State:
    """The state that a failed call leaves its request in.

    A 400 is final and `rejected`, and so is any refusal because a bank cannot be reached: Stripe may have stored it under the key. A stored 500 is replayed for the life of its key, and a mismatch of parameters means that the key
    was used: neither tells whether a session exists, so both are `unknown`. Where Stripe certainly did not act, the request is `not_sent` and its
    attempt is free. Anything else stays `attempting`: the next run asks again under the same key. So does a `replay` that Stripe did not
    act on, since that says nothing of the attempt before it. No run asks again under a key that is too old.
    """
    if failure.fault in ("rejected", "institution_unavailable"):
        return State.REJECTED
    if failure.fault == "key_expired" and (failure.maybe_executed or replay):
        return State.UNKNOWN
    if failure.fault == "idempotency_mismatch" or (failure.fault == "server" and failure.http_status == 500):
        return State.UNKNOWN
    if not failure.maybe_executed and not replay:
        return State.NOT_SENT
    return State.ATTEMPTING


def _record_created(wiring: Wiring, request_id: str, created: SessionCreated, requested_at: datetime | None) -> None:
    now, session_id = wiring.clock(), created.session_id
    try:
        records.record_result(
            wiring.database,
            request_id,
            State.CREATED,
            now,
            calls=created.wire_attempts,
            session_id=session_id,
            stripe_request_id=created.request_id,
            requested_at=requested_at,
        )
    except records.ContactTaken:
        # A run that took over has given the request up while this one waited for Stripe; what Stripe answered is known better.
        logger.warning("session %s of request %s was answered after the request was given up", session_id, request_id)
        records.resolve_unknown(
            wiring.database,
            request_id,
            now,
            resolved_by="the answer of Stripe came late",
            state=str(State.CREATED),
            session_id=session_id,
        )


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
    records.record_result(
        wiring.database, request_id, state, now, calls=failure.wire_attempts, fence=wiring.fence, **error
    )
