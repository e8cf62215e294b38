"""The HTTP front of the simulated world, on loopback only."""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from jobs.simulator import api, controls
from jobs.simulator import browser_pages as pages
from jobs.simulator.limits import RateLimiter, RateLimits
from jobs.simulator.reply import Call, Reply
from jobs.simulator.world import World

LARGEST_BODY_BYTES = 1_000_000
_REASONS = {
    200: "OK",
    303: "See Other",
    307: "Temporary Redirect",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    409: "Conflict",
    410: "Gone",
    429: "Too Many Requests",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
}


class SimulatorServer:
    """Serves a world. As a context manager it runs in a thread; `serve_forever` blocks instead.

    `rate_limits` None lets every call through; `RateLimits.of_mode(livemode)` is Stripe's own. `latency_seconds` is
    added to each call. With `browser_pages` hosted sessions lead to pages of this server, and a script stands in for Stripe.js;
    otherwise their URLs lead nowhere. `other_worlds` are further Stripe accounts, told apart by key and Stripe-Account header.
    """

    def __init__(
        self,
        world: World,
        port: int = 0,
        *,
        rate_limits: RateLimits | None = None,
        latency_seconds: float = 0.0,
        other_worlds: Sequence[World] = (),
        browser_pages: bool = False,
    ) -> None:
        self.world = world
        self.worlds = (world, *other_worlds)
        self._limiters = {id(each): RateLimiter(rate_limits) for each in self.worlds}
        self._latency_seconds = latency_seconds
        self._http = _Http(("127.0.0.1", port), self._respond)
        self._thread: threading.Thread | None = None
        self._is_serving = False
        self._browser_pages = browser_pages
        if browser_pages:
            for each in self.worlds:
                each.hosted_address = f"{self.base_url}{pages.PREFIX}hosted"

    @property
    def port(self) -> int:
        """The port, also where the system chose it."""
        return int(self._http.server_address[1])

    @property
    def base_url(self) -> str:
        """What to set as the API's address."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> SimulatorServer:
        """Serve in a thread."""
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), name="simulator", daemon=True)
        self._thread.start()
        return self

    def serve_forever(self) -> None:
        """Serve in this thread until `close` or an interrupt."""
        self._is_serving = True
        try:
            self._http.serve_forever(0.2)
        finally:
            self._is_serving = False
            self.close()

    def close(self) -> None:
        """Stop, and close every connection, hanging ones too."""
        self._http.is_closing = True
        for world in self.worlds:
            world.faults.release_hanging()
        if self._thread is not None or self._is_serving:
            self._http.shutdown()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._http.close_connections()
        self._http.server_close()

    def __enter__(self) -> SimulatorServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _respond(self, call: Call) -> tuple[Reply, World]:
        if self._browser_pages and call.path.startswith(pages.PREFIX):
            return pages.respond(self.world, call), self.world
        if call.path.startswith("/_simulator/"):
            return controls.respond(self.world, call), self.world
        world = self._world_of(call)
        if self._latency_seconds:
            time.sleep(self._latency_seconds)
        return api.respond(world, self._limiters[id(world)], call), world

    def _world_of(self, call: Call) -> World:
        if len(self.worlds) > 1:
            key = call.headers.get("authorization", "").rpartition(" ")[2]
            account = call.headers.get("stripe-account")
            for world in self.worlds:
                if key in world.keys and account in (None, world.stripe_account):
                    return world
        return self.world


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256
    is_closing = False

    def __init__(self, address: tuple[str, int], respond: Callable[[Call], tuple[Reply, World]]) -> None:
        self.respond = respond
        self._connections: set[socket.socket] = set()
        self._connections_lock = threading.Lock()
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # The base class looks the host's name up, which may take seconds and is of no use here.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._connections_lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._connections_lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        with self._connections_lock:
            open_now = list(self._connections)
        for connection in open_now:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that went away is no fault of the simulator; anything else is a bug and is shown.
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Http

    def do_GET(self) -> None:
        length = self.headers.get("Content-Length", "0")
        if not length.isdigit() or int(length) > LARGEST_BODY_BYTES or "Transfer-Encoding" in self.headers:
            self.close_connection = True
            self._write(
                Reply(400, b'{"error":{"message":"Send a body with its length.","type":"invalid_request_error"}}')
            )
            return
        body = self.rfile.read(int(length)) if length != "0" else b""
        path, _, query = self.path.partition("?")
        headers = {name.lower(): value for name, value in self.headers.items()}
        reply, world = self.server.respond(Call(self.command, path, query, body, headers))
        if reply.spoil is None:
            self._write(reply)
        else:
            self._spoil(reply, world)

    do_POST = do_DELETE = do_PUT = do_PATCH = do_GET  # noqa: N815 (names set by http.server)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (name set by http.server)
        """Say nothing: the world keeps its own log."""

    def _write(self, reply: Reply, declared_length: int | None = None) -> None:
        length = len(reply.body) if declared_length is None else declared_length
        lines = [f"HTTP/1.1 {reply.status} {_REASONS.get(reply.status, 'Status')}", f"Content-Length: {length}"]
        lines += [f"{name}: {value}" for name, value in reply.headers.items()]
        if self.close_connection:
            lines.append("Connection: close")
        # One write for head and body: two would wait for each other on a connection without delay.
        self.wfile.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace") + reply.body)

    def _spoil(self, reply: Reply, world: World) -> None:
        if reply.spoil == "cut_json":
            self._write(Reply(reply.status, reply.body[: len(reply.body) * 2 // 3], reply.headers))
            return
        if reply.spoil == "not_json":
            self._write(Reply(reply.status, b"<html>gateway</html>", {**reply.headers, "Content-Type": "text/html"}))
            return
        self.close_connection = True
        if reply.spoil == "cut_body":
            cut = Reply(reply.status, reply.body[: len(reply.body) * 2 // 3], reply.headers)
            self._write(cut, declared_length=len(reply.body))
        elif reply.spoil == "hang":
            if not self.server.is_closing:
                world.faults.release.wait(reply.spoil_seconds)
        else:
            # Lingering for no time makes the close a reset instead of an orderly end.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
