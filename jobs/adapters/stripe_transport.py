"""The wire below the `stripe` package: one hardened HTTP session that keeps every body to ourselves.

The package logs bodies, puts them into exceptions and keeps them on its objects. So it is handed an empty object for
a success and the bare class of the error for a failure, while the real answer goes to whoever opened the exchange.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import requests
import requests.adapters
import urllib3.exceptions

from jobs.adapters.stripe_records import read_error

_READ_BYTES: Final = 1 << 18
_LARGEST_BODY_BYTES: Final = 64 << 20
# What the package adds beside these tells Stripe about the machine and is not sent.
_SENT_HEADERS: Final = frozenset(
    {"authorization", "stripe-version", "stripe-account", "idempotency-key", "content-type", "user-agent"}
)


class WireBroken(Exception):
    """No whole answer; the exchange says how far it came."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer; `repr` leaves the body out."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Breakdown:
    """An answer that did not come (`cut` False) or was cut short (`cut` True), and why, as a class name.

    `sent` is False only where the connection was never made, so that nothing of the request left this machine.
    """

    reason: str
    sent: bool
    cut: bool


@dataclass(slots=True)
class Exchange:
    """One request on the wire: what goes out in place of the package's body, and what came back."""

    body: bytes | None = field(repr=False)
    timeout_seconds: float
    outcome: Reply | Breakdown | None = None


class StripeTransport:
    """An HTTP client for `stripe.StripeClient`; safe for threads, each with its own connections.

    It reads nothing from the environment (proxies, `~/.netrc`, certificate paths), follows no redirect and never retries.
    """

    name = "requests"

    def __init__(
        self,
        *,
        user_agent: str,
        certificates: str,
        connect_timeout_seconds: float = 80.0,
        read_timeout_seconds: float = 80.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._user_agent = user_agent
        self._certificates = certificates
        self._connect_timeout_seconds = connect_timeout_seconds
        self._read_timeout_seconds = read_timeout_seconds
        self._clock = clock
        self._own = threading.local()
        self._lock = threading.Lock()
        self._sessions: list[requests.Session] = []

    @contextmanager
    def exchange(self, body: bytes | None, timeout_seconds: float) -> Iterator[Exchange]:
        """Let the one request that this thread makes inside carry `body`, and take its answer within the time."""
        current = Exchange(body, timeout_seconds)
        self._own.exchange = current
        try:
            yield current
        finally:
            self._own.exchange = None

    def request_with_retries(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        post_data: object = None,
        max_network_retries: int | None = None,
        *,
        _usage: list[str] | None = None,
    ) -> tuple[str, int, dict[str, str]]:
        """Send the request once and answer the package with no more than it needs to go on or to raise."""
        current: Exchange | None = getattr(self._own, "exchange", None)
        if current is None:
            raise RuntimeError("a call to Stripe was made outside an exchange")
        current.outcome = outcome = self._send(method, url, headers, current)
        if isinstance(outcome, Breakdown):
            raise WireBroken(outcome.reason)
        request_id = outcome.headers.get("Request-Id")
        safe_headers = {"request-id": request_id} if request_id else {}
        if 200 <= outcome.status < 300:
            return "{}", outcome.status, safe_headers
        error = read_error(outcome.body)
        shown = {"type": error.error_type, "code": error.error_code, "param": error.param}
        return json.dumps({"error": shown}), outcome.status, safe_headers

    def close(self) -> None:
        """Close the connections of all threads."""
        with self._lock:
            sessions, self._sessions = self._sessions, []
        for session in sessions:
            session.close()
        self._own = threading.local()

    def _send(self, method: str, url: str, headers: Mapping[str, str], current: Exchange) -> Reply | Breakdown:
        deadline = self._clock() + current.timeout_seconds
        try:
            response = self._session().request(
                method.upper(),
                url,
                headers=self._headers(headers),
                data=current.body,
                timeout=(
                    min(self._connect_timeout_seconds, current.timeout_seconds),
                    min(self._read_timeout_seconds, current.timeout_seconds),
                ),
                stream=True,
                allow_redirects=False,
                verify=self._certificates,
            )
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            return Breakdown(type(_cause(error)).__name__, sent=not _never_connected(error), cut=False)
        try:
            body = self._body(response, deadline)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            if 200 <= response.status_code < 300:
                return Breakdown(type(error).__name__, sent=True, cut=True)
            body = b""  # the status of a refusal says what to do without its body
        finally:
            response.close()
        return Reply(response.status_code, response.headers, body)

    def _body(self, response: requests.Response, deadline: float) -> bytes:
        """Read the whole body: raises where it ends early, drips beyond the deadline or is absurdly large."""
        chunks: list[bytes] = []
        size_bytes = 0
        while chunk := response.raw.read1(_READ_BYTES, decode_content=True):
            size_bytes += len(chunk)
            if size_bytes > _LARGEST_BODY_BYTES or self._clock() > deadline:
                raise urllib3.exceptions.ProtocolError("the body did not end in time")
            chunks.append(chunk)
        return b"".join(chunks)

    def _headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        sent = {name: value for name, value in headers.items() if name.lower() in _SENT_HEADERS}
        return sent | {
            "User-Agent": self._user_agent,
            "Accept": "application/json",
            "Accept-Encoding": "gzip, deflate",
        }

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._own, "session", None)
        if session is None:
            session = requests.Session()
            session.trust_env = False  # no proxy, and no ~/.netrc, which would take the place of the API key
            session.headers.clear()
            adapter = requests.adapters.HTTPAdapter(max_retries=0)
            session.mount("https://", adapter)
            session.mount("http://", adapter)
            with self._lock:
                self._sessions.append(session)
            self._own.session = session
        return session


def _cause(error: Exception) -> Exception:
    """Return what urllib3 reported, which requests wraps one or two deep."""
    inner = error.args[0] if error.args else None
    reason = getattr(inner, "reason", inner)
    return reason if isinstance(reason, Exception) else error


def _never_connected(error: Exception) -> bool:
    if isinstance(error, requests.ConnectTimeout):
        return True
    # A name that does not resolve is a NewConnectionError too. A refused certificate ends the handshake before anything
    # of the request is written; any other SSLError may come later.
    cause = _cause(error)
    if isinstance(cause, urllib3.exceptions.NewConnectionError | urllib3.exceptions.ConnectTimeoutError):
        return True
    return "CERTIFICATE_VERIFY_FAILED" in str(cause)
