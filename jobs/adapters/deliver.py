"""Run in a process of its own by `courier`: delivers messages and pings, and says of each whether it arrived.

The task comes as JSON on stdin, so that no address stands in an argument or a variable; the answers go to stdout as one JSON line for
each address, by its number, and never hold an address. Whoever started the process may kill it at any moment.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import math
import os
import signal
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

PING_ATTEMPTS = 3
PAUSE_SECONDS = 0.5

_printing = threading.Lock()


def main() -> None:
    """Do the one task on stdin."""
    task: dict[str, Any] = json.loads(sys.stdin.buffer.read())
    # Should the job be gone by then, nobody else ends this process.
    signal.alarm(math.ceil(task["timeout_seconds"]) + 1)
    # Libraries print addresses when they log or warn; nobody reads that, and nothing may keep it.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    logging.disable(logging.CRITICAL)
    does: dict[str, Callable[[str], str | None]] = {
        "ping": lambda url: _ping(url, str(task["body"]), float(task["timeout_seconds"])),
        "notify": lambda url: _notify(url, str(task["title"]), str(task["body"]), str(task["type"])),
        "check": _check,
    }
    deliver = does[task["task"]]

    def one(number: int, url: str) -> None:
        try:
            problem = deliver(url)
        except Exception as error:
            problem = type(error).__name__
        with _printing:
            answers.write(json.dumps({"number": number, "problem": problem}) + "\n")
            answers.flush()

    if task["task"] != "ping":
        import apprise  # noqa: F401 - once, before the threads
    threads = [threading.Thread(target=one, args=pair, daemon=True) for pair in enumerate(task["urls"], start=1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _check(url: str) -> str | None:
    import apprise

    return None if apprise.Apprise().add(url) else "apprise knows no such service, or the address lacks a part"


def _notify(url: str, title: str, body: str, kind: str) -> str | None:
    import apprise

    service = apprise.Apprise()
    if not service.add(url):
        return "apprise knows no such service, or the address lacks a part"
    if service.notify(body=body, title=title, notify_type=kind, body_format=apprise.NotifyFormat.TEXT):
        return None
    return "the service did not take it"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The summary goes to the address that was set, and nowhere else."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _ping(url: str, body: str, timeout_seconds: float) -> str | None:
    proxies = [urllib.request.ProxyHandler({})] if _is_loopback(url) else []
    opener = urllib.request.build_opener(_NoRedirect, *proxies)
    problem = None
    for attempt in range(PING_ATTEMPTS):
        if attempt:
            time.sleep(PAUSE_SECONDS)
        headers = {"User-Agent": "fc-relink", "Content-Type": "text/plain; charset=utf-8"}
        request = urllib.request.Request(url, body.encode(), headers, method="POST")  # noqa: S310 - https or loopback only
        try:
            with opener.open(request, timeout=timeout_seconds):
                return None
        except urllib.error.HTTPError as error:
            problem = f"it answered {error.code}"
            if 300 <= error.code < 500 and error.code != 429:
                return problem
        except (urllib.error.URLError, OSError) as error:
            reason = getattr(error, "reason", error)
            problem = reason.strerror or type(reason).__name__ if isinstance(reason, OSError) else "it was not reached"
    return problem


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


if __name__ == "__main__":
    main()
