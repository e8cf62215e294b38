"""A server on loopback that takes whatever is sent to it, and can refuse, fail or hang."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Received:
    """One request as it came."""

    method: str
    path: str
    body: bytes
    headers: dict[str, str] = field(repr=False)


class Listener:
    """Remembers every request; answers `status`, or, if it `hangs`, nothing at all after the first few."""

    def __init__(self, status: int = 200, *, hangs: bool = False, answers_first: int = 0) -> None:
        self.status = status
        self.received: list[Received] = []
        self.headers: dict[str, str] = {}
        self._hangs = hangs
        self._answers_first = answers_first
        self._let_go = threading.Event()
        self._came = threading.Condition()
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                with listener._came:
                    listener.received.append(Received(self.command, self.path, body, dict(self.headers)))
                    listener._came.notify_all()
                if listener._hangs and len(listener.received) > listener._answers_first:
                    listener._let_go.wait()
                    return
                self.send_response(listener.status)
                for name, value in listener.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_GET = do_POST

            def log_message(self, *_: object) -> None:
                """Nobody reads it."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.server_port}"

    @property
    def paths(self) -> list[str]:
        """Where the requests went, without what identifies the run."""
        return [one.path.partition("?")[0] for one in self.received]

    def wait_for(self, count: int) -> None:
        """Wait until so many requests came."""
        with self._came:
            assert self._came.wait_for(lambda: len(self.received) >= count, timeout=60)

    def close(self) -> None:
        self._let_go.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def listeners() -> Iterator[Callable[..., Listener]]:
    """Makes listeners and closes them all."""
    made: list[Listener] = []

    def make(status: int = 200, **options: Any) -> Listener:
        made.append(Listener(status, **options))
        return made[-1]

    try:
        yield make
    finally:
        for one in made:
            one.close()
