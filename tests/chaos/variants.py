"""Designs that look right and are not, run by the same harness to show that it would notice.

They replace one function of the product each, in a child process only.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable

from jobs import relink, send, settle
from jobs.adapters import records
from jobs.key_age import KeyAge
from jobs.wiring import Merchant, Wiring
from reconcile.model import State, StoredRequest
from reconcile.records import CallFailure, StripeCallFailed


def _remember_afterwards(
    wiring: Wiring, merchant: Merchant, stored: StoredRequest, *, replay: KeyAge | None = None
) -> CallFailure | None:
    """POST first and write down what came of it, as if nothing could happen between."""
    assert wiring.lease is not None
    try:
        created = merchant.gateway.create_session(
            stored.request_body,
            api_version=stored.api_version,
            idempotency_key=uuid.uuid4().hex,
            may_send=lambda: True,
        )
    except StripeCallFailed as failed:
        return failed.failure
    request_id = stored.request.request_id
    records.mark_attempting(wiring.database, request_id, wiring.clock(), wiring.lease.token, replay=replay is not None)
    records.record_result(wiring.database, request_id, State.CREATED, wiring.clock(), session_id=created.session_id)
    return None


def remember_afterwards() -> None:
    """No intent before the POST, and a key that nothing remembers."""
    for module in (send, relink, settle):
        if hasattr(module, "attempt"):  # wherever it is known by that name
            module.attempt = _remember_afterwards  # type: ignore[attr-defined]


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
