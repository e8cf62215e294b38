"""A scripted HTTP server in place of Stripe: it answers what a test tells it to and keeps what it was sent."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

DATE = "Mon, 23 Nov 2026 03:30:00 GMT"


@dataclass
class Sent:
    """One request as it came over the wire."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Scripted:
    """One answer; `cut` closes the connection after half of the body, `reset` before any byte of an answer.

    `hang` answers nothing until the stub is closed.
    """

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False
    reset: bool = False
    chunked: bool = False
    hang: bool = False


def answer(payload: Any, status: int = 200, **headers: str) -> Scripted:
    """Return a JSON answer; underscores in header names stand for hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Scripted(status, json.dumps(payload, indent=2).encode(), named)


def refusal(status: int, type_: str = "invalid_request_error", code: str | None = None, **headers: str) -> Scripted:
    """Return an error shaped as Stripe shapes it."""
    error = {"type": type_, "message": f"Refused with {status}."} | ({"code": code} if code else {})
    return answer({"error": error}, status, **headers)


class StubStripe:
    """Answers requests in the order of `script`, then by `respond`, which unless set gives 599."""

    def __init__(self) -> None:
        self.script: list[Scripted] = []
        self.sent: list[Sent] = []
        self.connections = 0
        self.respond: Callable[[Sent], Scripted] = lambda _: Scripted(599)
        self.closing = threading.Event()
        self._lock = threading.Lock()
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                stub.connections += 1

            def do_GET(self) -> None:
                self._serve()

            def do_POST(self) -> None:
                self._serve()

            def _serve(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length)
                with stub._lock:
                    sent = Sent(self.command, self.path, dict(self.headers.items()), body)
                    stub.sent.append(sent)
                    reply = stub.script.pop(0) if stub.script else stub.respond(sent)
                if reply.hang:
                    stub.closing.wait()
                    reply.reset = True
                if reply.reset:
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.close_connection = True
                    self.connection.close()
                    return
                self.send_response_only(reply.status)
                for name, value in ({"Date": DATE, "Request-Id": "req_1"} | reply.headers).items():
                    self.send_header(name, value)
                body = reply.body[: len(reply.body) // 2] if reply.cut else reply.body
                if reply.chunked:
                    self.send_header("Transfer-Encoding", "chunked")
                    body = b"%x\r\n%b\r\n" % (len(body), body) + (b"" if reply.cut else b"0\r\n\r\n")
                else:
                    self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                self.wfile.write(body)
                if reply.cut:
                    self.close_connection = True

            def log_message(self, *_: Any) -> None:
                """Stay quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def stub_stripe() -> Iterator[StubStripe]:
    stub = StubStripe()
    try:
        yield stub
    finally:
        stub.close()
