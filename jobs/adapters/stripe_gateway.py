"""The one module that talks to Stripe: typed reads, two writes, one owner of retries.

Every call goes through `stripe.StripeClient.raw_request`, which adds the key, the version and the account, and whose own
retries are off. Bodies never pass through it (see `stripe_transport`); what leaves this module are plain records, and
failures that hold a class, a status, codes and a masked message. A failure stays a value until its call is over and is
raised from a frame that never held a body, so that no traceback, however deeply inspected, reaches one.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final, NoReturn, Protocol, TypeVar, cast
from urllib.parse import quote

import stripe
import tenacity

from jobs.adapters.call_meter import CallMeter
from jobs.adapters.rate_limiter import RateLimiter
from jobs.adapters.retry_budget import RetryBudget
from jobs.adapters.stripe_answers import (
    Answer,
    Refusal,
    endless_list,
    error_of_read,
    judge_breakdown,
    judge_error,
    judge_shape,
    key_expired,
    over_all_attempts,
    server_time,
)
from jobs.adapters.stripe_columns import read_account_columns
from jobs.adapters.stripe_fields import Look, read_look, with_headers
from jobs.adapters.stripe_records import (
    NotJson,
    WrongShape,
    read_account,
    read_accounts,
    read_authorization,
    read_error,
    read_events,
    read_freshness,
    read_session,
)
from jobs.adapters.stripe_transport import Breakdown, StripeTransport, WireBroken
from jobs.clock import elapsed_seconds
from jobs.traces import span
from reconcile.errors import ModeMismatch
from reconcile.records import (
    AccountColumns,
    AccountFreshness,
    AccountRecord,
    AccountsPage,
    AuthorizationRecord,
    CallFailure,
    EventRecord,
    KeyProbe,
    RefreshAsked,
    SessionCreated,
    SessionRecord,
    StripeCallFailed,
)

logger = logging.getLogger(__name__)

_ACCOUNTS: Final = "/v1/financial_connections/accounts"
_AUTHORIZATIONS: Final = "/v1/financial_connections/authorizations"
_SESSIONS: Final = "/v1/financial_connections/sessions"
_EVENTS: Final = "/v1/events"
_LOOKED_AT: Final = {
    "accounts": _ACCOUNTS,
    "authorizations": _AUTHORIZATIONS,
    "sessions": _SESSIONS,
    "events": _EVENTS,
    "institutions": "/v1/financial_connections/institutions",
}

_LARGEST_PAGE: Final = 100
_MOST_EVENT_TYPES: Final = 20  # Stripe API docs: list events, `types`
_FIRST_WAIT_SECONDS: Final = 0.5
_LONGEST_WAIT_SECONDS: Final = 8.0
_SHORTEST_TIMEOUT_SECONDS: Final = 1.0

_ZERO: Final = datetime(1970, 1, 1, tzinfo=UTC)

_Value = TypeVar("_Value")
_Moded = TypeVar("_Moded", bound="_HasMode | None")


class _HasMode(Protocol):
    @property
    def livemode(self) -> bool: ...


def _always() -> bool:
    return True


@dataclass(frozen=True, slots=True)
class _Call:
    """One call: `endpoint` is the path with ids left out; a `purpose` of None marks the creation of a session.

    `may_send` is asked before each wire attempt, after every wait.
    """

    method: str
    endpoint: str
    path: str
    purpose: str | None = None
    params: Mapping[str, object] = field(default_factory=dict)
    body: bytes | None = field(default=None, repr=False)
    api_version: str | None = None
    idempotency_key: str | None = None
    may_send: Callable[[], bool] = _always

    @property
    def name(self) -> str:
        return f"{self.method.upper()} {self.endpoint}"


class StripeGateway:
    """Stripe for one API key and one Stripe account; safe for threads. Its repr shows no key, and it cannot be pickled.

    Each call makes at most `max_attempts` wire attempts, the first included, within `max_elapsed_seconds`; all calls together no more
    retries than the budget grants. But a POST that Stripe may have acted on is always tried again, since its answer tells whether it did.
    Reads raise `KeyRefused`, `ReadFailed`, `ReadRejected` or `MalformedAnswer`; a write raises `StripeCallFailed`. Whatever is read singly, and
    each event, has to be of the mode `live` says, or `ModeMismatch` is raised; None leaves that to the caller, as pages of accounts always do.
    """

    def __init__(
        self,
        api_key: str,
        *,
        api_base: str,
        api_version: str,
        limiter: RateLimiter,
        live: bool | None = None,
        retry_budget: RetryBudget | None = None,
        stripe_account: str | None = None,
        max_attempts: int = 6,
        max_elapsed_seconds: float = 120.0,
        connect_timeout_seconds: float = 80.0,
        read_timeout_seconds: float = 80.0,
        clock: Callable[[], float] = elapsed_seconds,
        sleep: Callable[[float], None] = time.sleep,
        random_share: Callable[[], float] = random.random,
    ) -> None:
        stripe.enable_telemetry = False  # else the package writes below the home directory and fails without one
        self.meter = CallMeter()
        self._api_base = api_base.rstrip("/")
        self._api_version = api_version
        self._live = live
        self._limiter = limiter
        self._budget = retry_budget or RetryBudget()
        self._max_attempts = max_attempts
        self._max_elapsed_seconds = max_elapsed_seconds
        self._clock = clock
        self._sleep = sleep
        self._random_share = random_share
        self._hearing = threading.Lock()
        self._server_ahead: timedelta | None = None
        self._transport = StripeTransport(
            user_agent=f"fc-relink stripe-python/{stripe.VERSION}",
            certificates=stripe.ca_bundle_path,
            connect_timeout_seconds=connect_timeout_seconds,
            read_timeout_seconds=read_timeout_seconds,
            clock=clock,
        )
        self._client = stripe.StripeClient(
            api_key,
            stripe_account=stripe_account,
            stripe_version=api_version,
            base_addresses={"api": self._api_base},
            max_network_retries=0,
            http_client=cast("stripe.HTTPClient", self._transport),
        )

    def __repr__(self) -> str:
        return f"StripeGateway(api_base={self._api_base!r}, api_version={self._api_version!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a gateway holds an API key and is never pickled or copied")

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    def server_now(self) -> datetime | None:
        """Stripe's time by its last answer and the seconds since, None before its first; it is never set back."""
        with self._hearing:
            return None if self._server_ahead is None else _ZERO + self._server_ahead + self._elapsed()

    def list_accounts_page(
        self,
        starting_after: str | None = None,
        limit: int = _LARGEST_PAGE,
        purpose: str = "pull",
        session: str | None = None,
        holder: Mapping[str, str] | None = None,
    ) -> AccountsPage:
        """Return one page of accounts, newest first; `holder` filters as in `{"customer": "cus_…"}`."""
        params = {
            "limit": limit,
            "starting_after": starting_after,
            "session": session,
            "account_holder": holder,
        }
        answer = self._read(_Call("get", _ACCOUNTS, _ACCOUNTS, purpose, params), read_accounts)
        records, has_more = answer.value
        return AccountsPage(records, has_more, records[-1].account_id if records else None, answer.server_at)

    def list_account_columns(self, starting_after: str | None = None) -> AccountColumns:
        """Return the same page of the whole list by columns, for a pull."""
        params = {"limit": _LARGEST_PAGE, "starting_after": starting_after}
        answer = self._read(_Call("get", _ACCOUNTS, _ACCOUNTS, "pull", params), read_account_columns)
        return replace(answer.value, server_at=answer.server_at)

    def retrieve_account(self, account_id: str, purpose: str = "reread") -> AccountRecord | None:
        """Return an account, or None where Stripe has no such account."""
        return self._require_mode(account_id, self._retrieve(_ACCOUNTS, account_id, purpose, read_account))

    def retrieve_authorization(self, authorization_id: str, purpose: str = "explain") -> AuthorizationRecord | None:
        """Return an authorization, or None where Stripe has no such authorization."""
        found = self._retrieve(_AUTHORIZATIONS, authorization_id, purpose, read_authorization)
        return self._require_mode(authorization_id, found)

    def retrieve_session(self, session_id: str, purpose: str = "collect") -> SessionRecord | None:
        """Return a session with all its accounts, or None where Stripe has no such session."""
        found = self._retrieve(_SESSIONS, session_id, purpose, read_session)
        if found is None:
            return None
        session, has_more = found
        self._require_mode(session_id, session)
        accounts = {account.account_id: account for account in session.accounts}
        while has_more:
            # The embedded list has the newest first, as every list has, so its last id is the cursor.
            page = self.list_accounts_page(next(reversed(accounts), None), purpose=purpose, session=session_id)
            fresh = {account.account_id: account for account in page.records}
            has_more = page.has_more
            if has_more and fresh.keys() <= accounts.keys():
                raise endless_list(f"GET {_ACCOUNTS}")
            accounts |= fresh
        for account in accounts.values():
            self._require_mode(account.account_id, account)
        return replace(session, accounts=tuple(accounts.values()))

    def list_events(
        self,
        types: Sequence[str],
        created_gte: datetime,
        created_lte: datetime | None = None,
        purpose: str = "events",
    ) -> list[EventRecord]:
        """Return the events of these types created in the span, newest first; Stripe keeps 30 days of them.

        Raises ValueError for more than 20 types, Stripe's limit.
        """
        pages = self.event_pages(types, created_gte, created_lte, purpose)
        return [event for page in pages for event in page]

    def event_pages(
        self,
        types: Sequence[str],
        created_gte: datetime,
        created_lte: datetime | None = None,
        purpose: str = "events",
    ) -> Iterator[list[EventRecord]]:
        """The same page by page, each read when it is asked for; an event stands on one page alone."""
        if not 0 < len(types) <= _MOST_EVENT_TYPES:
            raise ValueError(f"{len(types)} event types asked for at once; Stripe takes 1 to {_MOST_EVENT_TYPES}")
        created = {"gte": int(created_gte.timestamp())}
        if created_lte is not None:
            created["lte"] = int(created_lte.timestamp())
        seen: set[str] = set()
        last_id: str | None = None
        has_more = True
        while has_more:
            params = {"types": list(types), "created": created, "limit": _LARGEST_PAGE, "starting_after": last_id}
            page, has_more = self._read(_Call("get", _EVENTS, _EVENTS, purpose, params), read_events).value
            fresh = [self._require_mode(event.event_id, event) for event in page if event.event_id not in seen]
            if has_more and not fresh:
                raise endless_list(f"GET {_EVENTS}")
            seen.update(event.event_id for event in fresh)
            last_id = page[-1].event_id if page else last_id
            yield fresh

    def create_session(
        self, body: bytes | str, *, api_version: str, idempotency_key: str, may_send: Callable[[], bool]
    ) -> SessionCreated:
        """Create a session from a stored form-encoded body, byte for byte, under its own API version and key.

        Every attempt carries the same bytes and key, so that Stripe acts at most once within the 24 hours that it keeps a key (Stripe
        API docs: idempotent requests).

        Args:
            may_send: asked right before each wire attempt, since a machine may sleep for days between two; where it says no, the call
                ends with the fault `key_expired`. What it raises goes through.

        Raises:
            StripeCallFailed: there is no session, or it cannot be known.
        """
        sent_bytes = body.encode("ascii") if isinstance(body, str) else bytes(body)
        call = _Call(
            "post",
            _SESSIONS,
            _SESSIONS,
            body=sent_bytes,
            api_version=api_version,
            idempotency_key=idempotency_key,
            may_send=may_send,
        )
        outcome = self._perform(call, read_session)
        if isinstance(outcome, CallFailure):
            raise StripeCallFailed(outcome)
        session, _ = outcome.value
        return SessionCreated(
            session_id=session.session_id,
            status=session.status,
            has_relink_options=session.has_relink_options,
            requested_authorization=session.requested_authorization,
            livemode=session.livemode,
            replayed=outcome.replayed,
            request_id=outcome.request_id,
            server_at=outcome.server_at,
            wire_attempts=outcome.wire_attempts,
        )

    def retrieve_freshness(self, account_id: str, purpose: str = "refresh") -> AccountFreshness | None:
        """Return how far an account's data have been refreshed, or None where Stripe has no such account."""
        return self._require_mode(account_id, self._retrieve(_ACCOUNTS, account_id, purpose, read_freshness))

    def refresh_account(
        self, account_id: str, body: str, *, api_version: str, idempotency_key: str, may_send: Callable[[], bool]
    ) -> RefreshAsked:
        """Ask for fresh data of an account from a stored form-encoded body; as `create_session` in all that is said there.

        Raises:
            StripeCallFailed: Stripe did not take it on, or it cannot be known.
        """
        call = _Call(
            "post",
            f"{_ACCOUNTS}/:id/refresh",
            f"{_ACCOUNTS}/{quote(account_id, safe='')}/refresh",
            "refresh",
            body=body.encode("ascii"),
            api_version=api_version,
            idempotency_key=idempotency_key,
            may_send=may_send,
        )
        outcome = self._perform(call, read_freshness)
        if isinstance(outcome, CallFailure):
            raise StripeCallFailed(outcome)
        return RefreshAsked(outcome.value, outcome.replayed, outcome.request_id, outcome.wire_attempts)

    def probe_key(self) -> list[KeyProbe]:
        """Ask, by reads only, what the key may do; a key for this job needs the first four and should lack the others.

        Nothing of the answers is kept. An id that does not exist is answered by 404 where reading is allowed.
        """
        first = {"limit": 1}
        probes = [
            ("financial_connections.accounts", _ACCOUNTS, _ACCOUNTS, first),
            ("financial_connections.authorizations", _AUTHORIZATIONS, f"{_AUTHORIZATIONS}/fcauth_none", {}),
            ("financial_connections.sessions", _SESSIONS, f"{_SESSIONS}/fcsess_none", {}),
            ("events", _EVENTS, _EVENTS, first),
            ("customers", "/v1/customers", "/v1/customers", first),
            ("charges", "/v1/charges", "/v1/charges", first),
        ]
        return [
            KeyProbe(what, self._may_read(_Call("get", endpoint, path, "doctor", params)))
            for what, endpoint, path, params in probes
        ]

    def look(
        self,
        what: str,
        object_id: str | None = None,
        *,
        params: Mapping[str, object] | None = None,
        words: Collection[str] = (),
        api_version: str | None = None,
    ) -> Look | CallFailure:
        """Look at which fields a GET shows, for probes; `words` names the fields whose values are kept.

        A refusal of the call as such, or for want of a permission, is returned; any other failure raises as a read does.
        """
        path = _LOOKED_AT[what] + ("" if object_id is None else f"/{quote(object_id, safe='')}")
        endpoint = _LOOKED_AT[what] + ("" if object_id is None else "/:id")
        call = _Call("get", endpoint, path, "probe", params or {}, api_version=api_version)
        outcome = self._perform(call, lambda body: read_look(body, words))
        if isinstance(outcome, Answer):
            return with_headers(outcome.value, outcome.request_id, outcome.server_at, outcome.api_version)
        if outcome.fault == "rejected" or outcome.http_status == 403:
            return outcome
        raise error_of_read(outcome)

    def _may_read(self, call: _Call) -> bool:
        outcome = self._perform(call, _discard)
        if isinstance(outcome, Answer) or outcome.http_status == 404:
            return True
        if outcome.http_status == 403:
            return False
        raise error_of_read(outcome)

    def _retrieve(self, endpoint: str, object_id: str, purpose: str, read: Callable[[bytes], _Value]) -> _Value | None:
        # An id of dots alone would climb out of its place in the path; Stripe has no such id.
        if not object_id.strip(". "):
            return None
        call = _Call("get", f"{endpoint}/:id", f"{endpoint}/{quote(object_id, safe='')}", purpose)
        outcome = self._perform(call, read)
        if isinstance(outcome, Answer):
            return outcome.value
        # A 404 with another code is a path that this API version does not know.
        if outcome.http_status == 404 and outcome.error_code == "resource_missing":
            return None
        raise error_of_read(outcome)

    def _require_mode(self, object_id: str, found: _Moded) -> _Moded:
        if found is not None and self._live is not None and found.livemode != self._live:
            modes = ("live", "sandbox") if found.livemode else ("sandbox", "live")
            raise ModeMismatch(
                f"Stripe shows {object_id} in {modes[0]} mode, but the key is for {modes[1]}: use the key of the mode that "
                "merchants[].mode and the records name"
            )
        return found

    def _read(self, call: _Call, read: Callable[[bytes], _Value]) -> Answer[_Value]:
        outcome = self._perform(call, read)
        if isinstance(outcome, CallFailure):
            raise error_of_read(outcome)
        return outcome

    def _perform(self, call: _Call, read: Callable[[bytes], _Value]) -> Answer[_Value] | CallFailure:
        """Make the call, again where that may help, and return its answer or its failure over all attempts."""
        with span(call.name, {"relink.purpose": call.purpose or "create"}) as told:
            outcome = self._retried(call, read)
            told.set("relink.attempts", outcome.wire_attempts)
            if isinstance(outcome, CallFailure):
                told.set("http.response.status_code", outcome.http_status)
                told.set("error.type", outcome.error_code or outcome.error_type or str(outcome.fault))
            return outcome

    def _retried(self, call: _Call, read: Callable[[bytes], _Value]) -> Answer[_Value] | CallFailure:
        started_at = self._clock()
        failures: list[CallFailure] = []
        self._budget.count_call()

        def attempt() -> Answer[_Value] | Refusal:
            self._limiter.acquire(call.name)
            if not call.may_send():
                failures.append(key_expired(call.name))
                return Refusal(failures[-1], retryable=False)
            self.meter.count_attempt(call.name, call.purpose, first=not failures, write=call.method == "post")
            left_seconds = self._max_elapsed_seconds - (self._clock() - started_at)
            outcome = self._attempt(call, read, max(left_seconds, _SHORTEST_TIMEOUT_SECONDS))
            if isinstance(outcome, Answer):
                self._hear(outcome.server_at)
            else:
                self._hear(outcome.failure.server_at)
                failures.append(outcome.failure)
                if outcome.failure.http_status == 429:
                    self.meter.count_rate_limited()
                if outcome.over_limit:
                    self._limiter.slow_down(call.name, everything=outcome.over_limit == "everything")
            return outcome

        def stop(state: tenacity.RetryCallState) -> bool:
            elapsed_seconds = self._clock() - started_at + state.upcoming_sleep
            if state.attempt_number >= self._max_attempts or elapsed_seconds > self._max_elapsed_seconds:
                return True
            in_doubt = call.method == "post" and any(failure.maybe_executed for failure in failures)
            return not self._budget.take(needed=in_doubt)

        # Outcomes are values here, not exceptions, so that none is chained to another's context. What is no outcome,
        # such as an interrupt or a bug, passes through at once.
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_result(lambda outcome: isinstance(outcome, Refusal) and outcome.retryable),
            wait=self._wait_seconds,
            stop=stop,
            sleep=self._sleep,
            before_sleep=_log_retry,
            retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
        )
        outcome = retrying(attempt)
        if isinstance(outcome, Answer):
            return replace(outcome, wire_attempts=len(failures) + 1)
        return over_all_attempts(failures)

    def _hear(self, server_at: datetime | None) -> None:
        if server_at is None:
            return
        with self._hearing:
            ahead = server_at - _ZERO - self._elapsed()
            self._server_ahead = ahead if self._server_ahead is None else max(self._server_ahead, ahead)

    def _elapsed(self) -> timedelta:
        return timedelta(seconds=self._clock())

    def _attempt(
        self, call: _Call, read: Callable[[bytes], _Value], timeout_seconds: float
    ) -> Answer[_Value] | Refusal:
        # Whatever the package makes of it, the exchange holds all that came.
        broken = suppress(WireBroken, stripe.StripeError)
        with self._transport.exchange(call.body, timeout_seconds) as exchange, broken:
            self._client.raw_request(
                call.method,
                call.path,
                stripe_version=call.api_version or self._api_version,
                idempotency_key=call.idempotency_key,
                max_network_retries=0,
                **call.params,
            )
        reply = exchange.outcome
        if reply is None:
            raise RuntimeError(f"{call.name} was given up by the stripe package before it was sent")
        if isinstance(reply, Breakdown):
            return judge_breakdown(call.name, reply.reason, sent=reply.sent, cut=reply.cut)
        if not 200 <= reply.status < 300:
            return judge_error(call.name, reply.status, reply.headers, read_error(reply.body))
        try:
            value = read(reply.body)
        except NotJson:
            return judge_shape(call.name, reply.status, reply.headers, None)
        except WrongShape as fault:
            return judge_shape(call.name, reply.status, reply.headers, str(fault))
        return Answer(
            value=value,
            request_id=reply.headers.get("Request-Id"),
            server_at=server_time(reply.headers),
            replayed=reply.headers.get("Idempotent-Replayed", "").lower() == "true",
            api_version=reply.headers.get("Stripe-Version"),
        )

    def _wait_seconds(self, state: tenacity.RetryCallState) -> float:
        """Wait a random share of a doubling span, so that callers spread out; after `Retry-After` what it asks for."""
        refusal = state.outcome.result() if state.outcome else None
        span_seconds: float = min(_LONGEST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * 2 ** (state.attempt_number - 1))
        if isinstance(refusal, Refusal) and refusal.retry_after_seconds is not None:
            return refusal.retry_after_seconds + self._random_share() * _FIRST_WAIT_SECONDS
        return self._random_share() * span_seconds


def _log_retry(state: tenacity.RetryCallState) -> None:
    refusal = state.outcome.result() if state.outcome else None
    if isinstance(refusal, Refusal):
        logger.info("%s; trying again in %.1f s", refusal.failure, state.upcoming_sleep)


def _discard(body: bytes) -> None:
    """Read nothing."""
