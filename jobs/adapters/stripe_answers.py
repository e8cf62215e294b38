"""What an answer of Stripe means for the call: done, try again, or over; pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Generic, Literal, TypeVar

from jobs.adapters.stripe_shapes import ErrorDetails
from reconcile.delivery import INSTITUTION_UNAVAILABLE
from reconcile.errors import KeyRefused, OutsideError
from reconcile.records import CallFailure, Fault, MalformedAnswer, ReadFailed, ReadRejected

_Value = TypeVar("_Value")

# Stripe answers these before it acts (Stripe docs: low-level error handling). Anything else it refuses with may have
# been preceded by an effect.
_CERTAINLY_NOT_EXECUTED = frozenset({400, 401, 403, 404, 429})


@dataclass(frozen=True, slots=True)
class Answer(Generic[_Value]):
    """A success, read; `replayed` where Stripe gave the stored result of an earlier attempt under the same key."""

    value: _Value
    request_id: str | None
    server_at: datetime | None
    replayed: bool
    api_version: str | None = None
    wire_attempts: int = 1


@dataclass(frozen=True, slots=True)
class Refusal:
    """A failed wire attempt, whether another may help and not before when, and which limit it ran into."""

    failure: CallFailure
    retryable: bool
    retry_after_seconds: float | None = None
    over_limit: Literal["endpoint", "everything"] | None = None


def judge_error(call: str, status: int, headers: Mapping[str, str], error: ErrorDetails) -> Refusal:
    """Class an answer that is not a success."""
    fault, retryable = _fault(status, error)
    advice = headers.get("Stripe-Should-Retry", "").lower()
    if advice in ("true", "false") and fault != "key_refused":
        retryable = advice == "true"  # Stripe docs: this header overrules the status
    reason = headers.get("Stripe-Rate-Limited-Reason")
    failure = CallFailure(
        fault=fault,
        call=call,
        http_status=status,
        error_type=error.error_type,
        error_code=error.error_code,
        param=error.param,
        request_id=headers.get("Request-Id"),
        rate_limit_reason=reason,
        message=error.message,
        server_at=server_time(headers),
        wire_attempts=1,
        sent=True,
        # Under a key used with other parameters something was executed once, though not by this attempt.
        maybe_executed=fault == "idempotency_mismatch" or status not in _CERTAINLY_NOT_EXECUTED,
    )
    over_limit: Literal["endpoint", "everything"] | None = None
    if fault == "rate":
        over_limit = "everything" if reason and reason.startswith("global-") else "endpoint"
    return Refusal(failure, retryable, _retry_after_seconds(headers), over_limit)


def judge_breakdown(call: str, reason: str, *, sent: bool, cut: bool) -> Refusal:
    """Class an answer that did not come, or not whole; worth another attempt, under the same key if it is a write."""
    failure = CallFailure(
        fault="cut_body" if cut else "connection",
        call=call,
        message=reason,
        wire_attempts=1,
        sent=sent,
        maybe_executed=sent,
    )
    return Refusal(failure, retryable=True)


def judge_shape(call: str, status: int, headers: Mapping[str, str], place: str | None) -> Refusal:
    """Class a success that cannot be read: no JSON at all (`place` None), as when it was cut, or of a wrong shape there."""
    failure = CallFailure(
        fault="cut_body" if place is None else "unparsable",
        call=call,
        http_status=status,
        request_id=headers.get("Request-Id"),
        message=place or "the body is no JSON document",
        server_at=server_time(headers),
        wire_attempts=1,
        sent=True,
        maybe_executed=True,
    )
    return Refusal(failure, retryable=place is None)


def key_expired(call: str) -> CallFailure:
    """Return the failure of a wire attempt that was not made, because its key may be too old."""
    return CallFailure("key_expired", call, message="the idempotency key is too old, so nothing more is sent under it")


def over_all_attempts(failures: Sequence[CallFailure]) -> CallFailure:
    """Return the last failure, made to speak for the whole call: an earlier attempt may be the one that had an effect."""
    return replace(
        failures[-1],
        wire_attempts=sum(failure.wire_attempts for failure in failures),
        sent=any(failure.sent for failure in failures),
        maybe_executed=any(failure.maybe_executed for failure in failures),
        server_at=next((failure.server_at for failure in reversed(failures) if failure.server_at), None),
    )


def error_of_read(failure: CallFailure) -> OutsideError:
    """Return the error that a failed read ends in."""
    if failure.http_status == 401:
        return KeyRefused(f"{failure}. Stripe does not know the API key, or it was revoked: set a current one.")
    if failure.http_status == 403:
        return KeyRefused(f"{failure}. The API key may not do this: give it the permission, or use another key.")
    if failure.fault == "unparsable":
        return MalformedAnswer(failure)
    if failure.fault in ("rejected", "institution_unavailable", "idempotency_mismatch"):
        return ReadRejected(failure)
    return ReadFailed(failure)


def endless_list(call: str) -> MalformedAnswer:
    """Return the error for a list that says there is more and brings nothing new."""
    return MalformedAnswer(CallFailure("unparsable", call, message="a page promised more and brought nothing new"))


def server_time(headers: Mapping[str, str]) -> datetime | None:
    """Return Stripe's clock (the `Date` header), aware UTC."""
    return _http_date(headers.get("Date"))


def _fault(status: int, error: ErrorDetails) -> tuple[Fault, bool]:
    """Return the class of an error and whether another attempt may help."""
    if status in (401, 403):
        return "key_refused", False
    if error.error_code == INSTITUTION_UNAVAILABLE:
        return "institution_unavailable", False  # whatever the status, which Stripe does not document
    if status == 409:
        return ("in_use" if error.error_code == "idempotency_key_in_use" else "lock"), True
    if error.error_type == "idempotency_error":
        return "idempotency_mismatch", False
    if status == 429 or (status == 400 and error.error_code == "rate_limit"):
        return ("lock" if error.error_code == "lock_timeout" else "rate"), True
    if status >= 500:
        return "server", True
    if status < 400:
        return (
            "unparsable",
            False,
        )  # a redirect: Stripe sends none, and following one would carry the body elsewhere
    return "rejected", False


def _retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """Return what `Retry-After` asks for (RFC 9110, 10.2.3), a date being measured on the server's own clock."""
    text = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d{1,6})?", text):
        return float(text)
    until_at, now_at = _http_date(text), server_time(headers)
    if until_at is None or now_at is None:
        return None
    return max(0.0, (until_at - now_at).total_seconds())


def _http_date(text: str | None) -> datetime | None:
    if not text:
        return None
    try:
        moment = parsedate_to_datetime(text)
    except (TypeError, ValueError, IndexError):
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
