"""Idempotency keys with Stripe's rules (Stripe API docs: idempotent requests; low-level error handling)."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from jobs.simulator.failures import ApiFailure
from jobs.simulator.reply import Reply

KEY_LIFETIME_SECONDS = 24 * 3600
LONGEST_KEY = 255


@dataclass(slots=True)
class _Stored:
    fingerprint: str
    started_at: int
    reply: Reply | None = None


class IdempotencyStore:
    """First results by key. A key is pruned once it is 24 simulated hours old; the next use then executes anew."""

    def __init__(self) -> None:
        self._stored: dict[str, _Stored] = {}
        self._lock = threading.Lock()

    def begin(self, key: str, fingerprint: str, now: int) -> Reply | None:
        """The stored reply to replay, or None after marking the key as in flight.

        Raises ApiFailure: 400 for an unusable key or for other parameters, 409 while the first call is under way.
        """
        if not key or len(key) > LONGEST_KEY:
            raise ApiFailure(400, f"Idempotency keys must have 1 to {LONGEST_KEY} characters.")
        with self._lock:
            found = self._stored.get(key)
            if found is not None and found.reply is not None and now - found.started_at >= KEY_LIFETIME_SECONDS:
                found = None
            if found is None:
                self._stored[key] = _Stored(fingerprint, now)
                return None
            if found.fingerprint != fingerprint:
                raise ApiFailure(
                    400,
                    "Keys for idempotent requests can only be used with the same parameters they were first used "
                    f"with. Try using a key other than '{key}' if you meant to execute a different request.",
                    kind="idempotency_error",
                )
            if found.reply is None:
                raise ApiFailure(
                    409,
                    "There is currently another in-progress request using this idempotency key (that probably means "
                    "you submitted twice, and the other request is still going through).",
                    kind="idempotency_error",
                    code="idempotency_key_in_use",
                    should_retry=True,
                )
            return found.reply

    def finish(self, key: str, reply: Reply) -> None:
        """Keep the reply of an executed call, a 500 included."""
        with self._lock:
            self._stored[key].reply = reply

    def release(self, key: str) -> None:
        """Forget a key whose call failed validation: nothing was executed, so nothing is stored."""
        with self._lock:
            self._stored.pop(key, None)

    def is_in_flight(self, key: str) -> bool:
        """Whether a call under this key is being executed."""
        with self._lock:
            found = self._stored.get(key)
            return found is not None and found.reply is None

    def forget_all(self) -> None:
        """Prune every key at once, as Stripe may after 24 hours."""
        with self._lock:
            self._stored = {key: stored for key, stored in self._stored.items() if stored.reply is None}
