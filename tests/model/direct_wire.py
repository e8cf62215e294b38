"""The stand-in for Stripe without sockets: what the transport sends is answered in this thread, damaged answers included.

It takes the place of the transport's HTTP session only, so that every call is still encoded, judged and decoded by the product's own code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import requests
import requests.structures
import urllib3.exceptions

from jobs.simulator import api
from jobs.simulator.limits import RateLimiter
from jobs.simulator.reply import Call, Reply
from jobs.simulator.world import World

BASE_URL = "http://127.0.0.1:9"
"""Loopback, as the settings demand of a stand-in; nothing listens there and nothing connects."""


class DirectSession:
    """What `requests.Session` is to the transport, over a world in this process.

    Args:
        reached: told when Stripe has acted on a call and before its answer is given back.
    """

    def __init__(self, world: World, reached: Callable[[str], None]) -> None:
        self._world = world
        self._reached = reached
        self._limiter = RateLimiter(None)

    def request(
        self, method: str, url: str, *, headers: Mapping[str, str], data: bytes | None, **_: Any
    ) -> DirectResponse:
        """Answer a call, or fail as a connection would."""
        parts = urlsplit(url)
        lowered = {name.lower(): str(value) for name, value in headers.items()}
        reply = api.respond(self._world, self._limiter, Call(method, parts.path, parts.query, data or b"", lowered))
        self._reached(f"Stripe answered {method}")
        if reply.spoil == "reset":
            broken = urllib3.exceptions.ProtocolError("Connection aborted.", ConnectionResetError())
            raise requests.ConnectionError(broken)
        if reply.spoil == "hang":
            raise requests.ReadTimeout
        return DirectResponse(reply)

    def close(self) -> None:
        """Nothing is open."""


class DirectResponse:
    """The part of `requests.Response` that the transport uses."""

    def __init__(self, reply: Reply) -> None:
        whole = len(reply.body)
        body = reply.body[: whole * 2 // 3] if reply.spoil in ("cut_body", "cut_json") else reply.body
        self.status_code = reply.status
        self.headers = requests.structures.CaseInsensitiveDict(reply.headers)
        self.raw = self
        self._left = [b"<html>gateway</html>" if reply.spoil == "not_json" else body]
        self._ends_early = reply.spoil == "cut_body"

    def read1(self, _size: int, *, decode_content: bool) -> bytes:
        """The body, then its end, which comes too early where the fault is that."""
        if self._left:
            return self._left.pop()
        if self._ends_early:
            raise urllib3.exceptions.ProtocolError("the connection ended before the body did")
        return b""

    def close(self) -> None:
        """Nothing is open."""
