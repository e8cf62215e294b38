"""Designs that look right and are not, run by the same harness to show that it would notice.

They replace functions of the product, in a child process only.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable

from jobs import send, sender
from jobs.adapters import records
from jobs.key_age import KeyAge
from jobs.send import MaySend
from jobs.wiring import Merchant, Wiring
from reconcile.model import State, StoredRequest
from reconcile.records import CallFailure, SessionCreated, StripeCallFailed


def _begin_without_intent(
    _wiring: Wiring, _merchant: Merchant, _stored: StoredRequest, *, replay: KeyAge | None = None
) -> MaySend:
    return lambda: True


def _post_under_a_fresh_key(
    merchant: Merchant, stored: StoredRequest, may_send: MaySend
) -> SessionCreated | CallFailure:
    try:
        return merchant.gateway.create_session(
            stored.request_body,
            api_version=stored.api_version,
            idempotency_key=uuid.uuid4().hex,
            may_send=may_send,
        )
    except StripeCallFailed as failed:
        return failed.failure


def _remember_afterwards(
    wiring: Wiring,
    _merchant: Merchant,
    stored: StoredRequest,
    answer: SessionCreated | CallFailure,
    *,
    replay: bool = False,
) -> CallFailure | None:
    """Write down what came of a POST, as if nothing could happen before that."""
    if isinstance(answer, CallFailure):
        return answer
    assert wiring.lease is not None
    request_id = stored.request.request_id
    records.mark_attempting(wiring.database, request_id, wiring.clock(), wiring.lease.token, replay=replay)
    records.record_result(wiring.database, request_id, State.CREATED, wiring.clock(), session_id=answer.session_id)
    return None


def remember_afterwards() -> None:
    """No intent before the POST, and a key that nothing remembers."""
    sender.begin, sender.post, sender.conclude = _begin_without_intent, _post_under_a_fresh_key, _remember_afterwards


def _never_too_old(self: KeyAge) -> bool:
    return False


def without_fence() -> None:
    """Intents and keys, but an unfinished request is asked again however old its key is."""
    KeyAge.expired = _never_too_old  # type: ignore[method-assign]


def _free_after_replay(failure: CallFailure, *, replay: bool = False) -> State:
    return _state_after(failure)


_state_after = send.state_after


def free_after_replay() -> None:
    """A replay that Stripe refused before acting frees the attempt, although the attempt before it may have been acted on."""
    send.state_after = _free_after_replay


VARIANTS: dict[str, Callable[[], None]] = {
    "product": lambda: None,
    "remember-afterwards": remember_afterwards,
    "without-fence": without_fence,
    "free-after-replay": free_after_replay,
}

TELLING_GAPS = {"remember-afterwards": "10 min", "without-fence": "25 h", "free-after-replay": "10 min"}
"""The gap after which each wrong design asks twice."""
