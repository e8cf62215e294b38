"""Serves `benchmarks.world` over HTTP on loopback, in a process of its own: the few calls that a night makes, at a set latency and rate.

    python -m benchmarks.stub --accounts 100000 --seed 1

It prints its port, answers until it is ended, and is told of the next night, the latency and the rate at `POST /_bench`; `GET /_bench` says
what was called. Several cursors may walk at once. A rate above 0 is refused with 429 beyond a tenth of a second's calls at once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from email.utils import format_datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

from benchmarks.world import FIRST_NIGHT, Renderer, World

LIST = "/v1/financial_connections/accounts"
SESSIONS = "/v1/financial_connections/sessions"
EVENTS = "/v1/events"


class Stub:
    """What the server knows and counts."""

    def __init__(self, world: World) -> None:
        self.renderer = Renderer(world)
        self.latency_seconds = 0.0
        self.rate = 0.0
        self.sessions: dict[str, bytes] = {}
        self.by_key: dict[str, str] = {}
        self.forget_calls()

    def forget_calls(self) -> None:
        """Begin to count anew."""
        self.calls: Counter[str] = Counter()
        self.refused = 0
        self._began = time.monotonic()
        self.first_page_at: float | None = None
        self.last_page_at: float | None = None
        self.served: dict[str, list[float]] = {}
        self._allowed: dict[str, tuple[float, float]] = {}

    def date(self) -> bytes:
        """The `Date` of an answer: the night's own time, which passes."""
        passed = timedelta(days=self.renderer.world.night - 1, seconds=time.monotonic() - self._began)
        return format_datetime(FIRST_NIGHT + passed, usegmt=True).encode()

    def answer(self, method: str, target: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        """Status and body."""
        parts = urlsplit(target)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        if parts.path == "/_bench":
            return 200, json.dumps(self._control(query)).encode()
        endpoint = "/".join(parts.path.split("/")[:4])
        self.calls[f"{method} {endpoint}"] += 1
        times = self.served.setdefault(f"{method} {endpoint}", [time.monotonic()] * 2)
        times[1] = time.monotonic()
        if not self._admit(endpoint):
            self.refused += 1
            return (
                429,
                b'{"error": {"type": "invalid_request_error", "code": "rate_limit", "message": "Too many requests"}}',
            )
        if parts.path == LIST:
            if any(self._is_unknown(query[name]) for name in ("starting_after", "ending_before") if name in query):
                return (
                    400,
                    b'{"error": {"type": "invalid_request_error", "code": "resource_missing", "message": "No such account"}}',
                )
            return 200, self._page(query)
        if parts.path.startswith(LIST + "/"):
            return 200, self.renderer.account(int(parts.path.rsplit("fca_1Bn")[-1]))
        if parts.path == EVENTS:
            return 200, self._events(query, parse_qs(parts.query))
        if parts.path == SESSIONS and method == "POST":
            return 200, self._create(headers.get("idempotency-key", ""), parse_qs(body.decode()))
        if parts.path.startswith(SESSIONS + "/"):
            found = self.sessions.get(parts.path.rsplit("/")[-1])
            return (200, found) if found else (404, b'{"error": {"type": "invalid_request_error", "message": "none"}}')
        return 404, b'{"error": {"type": "invalid_request_error", "message": "no such path"}}'

    def _admit(self, endpoint: str) -> bool:
        if not self.rate:
            return True
        burst, now = max(2.0, self.rate / 10), time.monotonic()
        left, at = self._allowed.get(endpoint, (burst, now))
        left = min(burst, left + (now - at) * self.rate)
        self._allowed[endpoint] = (left - 1 if left >= 1 else left, now)
        return left >= 1

    def _is_unknown(self, account_id: str) -> bool:
        """Whether Stripe has no such account; the ledger names some."""
        return int(account_id.removeprefix("fca_1Bn")) >= self.renderer.world.accounts

    def _page(self, query: dict[str, str]) -> bytes:
        now, limit, accounts = time.time(), int(query.get("limit", 10)), self.renderer.world.accounts
        self.first_page_at, self.last_page_at = self.first_page_at or now, now
        if "ending_before" in query:
            # The list runs from the highest number down, so what stands before an account has higher numbers.
            before = int(query["ending_before"].removeprefix("fca_1Bn"))
            first = min(before + limit, accounts - 1)
            return self.renderer.page(range(first, before, -1), first < accounts - 1)
        after = int(query["starting_after"].removeprefix("fca_1Bn")) if "starting_after" in query else accounts
        last = max(after - limit, 0)
        return self.renderer.page(range(after - 1, last - 1, -1), last > 0)

    def _events(self, query: dict[str, str], lists: dict[str, list[str]]) -> bytes:
        wanted = {value for name, values in lists.items() if name.startswith("types") for value in values}
        least, most = int(query.get("created[gte]", 0)), int(query.get("created[lte]", 1 << 40))
        found = [
            event
            for event in self.renderer.events()
            if (not wanted or event["type"] in wanted) and least <= event["created"] <= most
        ]
        if "starting_after" in query:
            found = found[[event["id"] for event in found].index(query["starting_after"]) + 1 :]
        limit = int(query.get("limit", 10))
        page = {"object": "list", "data": found[:limit], "has_more": len(found) > limit, "url": EVENTS}
        return json.dumps(page).encode()

    def _create(self, key: str, fields: dict[str, list[str]]) -> bytes:
        if key in self.by_key:
            return self.sessions[self.by_key[key]]
        session_id = f"fcsess_1Bn{len(self.sessions):014d}"
        session: dict[str, Any] = {
            "id": session_id,
            "object": "financial_connections.session",
            "account_holder": {"type": "customer", "customer": fields["account_holder[customer]"][0]},
            "accounts": {"object": "list", "data": [], "has_more": False, "url": LIST},
            "client_secret": f"{session_id}_secret_1",
            "livemode": False,
            "permissions": [
                value for name, values in fields.items() if name.startswith("permissions") for value in values
            ],
            "relink_options": {"authorization": fields["relink_options[authorization]"][0]},
            "relink_result": None,
            "status": "pending",
        }
        self.sessions[session_id] = json.dumps(session).encode()
        self.by_key[key] = session_id
        return self.sessions[session_id]

    def _control(self, query: dict[str, str]) -> dict[str, Any]:
        told = {
            "calls": dict(self.calls),
            "refused": self.refused,
            "first_page_at": self.first_page_at,
            "last_page_at": self.last_page_at,
            "spans_seconds": {call: last - first for call, (first, last) in self.served.items()},
        }
        if "latency" in query:
            self.latency_seconds = float(query["latency"])
        if "rate" in query:
            self.rate = float(query["rate"])
        if "night" in query:
            self.renderer = Renderer(replace(self.renderer.world, night=int(query["night"])))
        if query:
            self.forget_calls()
        if "sessions" in query:
            self.sessions, self.by_key = {}, {}
        return told


async def _serve(stub: Stub) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                first, *lines = head.decode("latin-1").split("\r\n")
                method, target, _ = first.split(" ", 2)
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                if stub.latency_seconds and not target.startswith("/_bench"):
                    await asyncio.sleep(stub.latency_seconds)
                status, content = stub.answer(method, target, headers, body)
                writer.write(
                    b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nDate: %s\r\nRequest-Id: req_1\r\nContent-Length: %d\r\n\r\n"
                    % (status, stub.date(), len(content))
                )
                writer.write(content)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stub", description=__doc__)
    parser.add_argument("--accounts", type=int, required=True)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    asyncio.run(_serve(Stub(World(given.accounts, given.seed))))


if __name__ == "__main__":
    main()
