"""Sends messages and pings from a process of its own, which is ended at a deadline whatever hangs: a name server, a proxy, a service.

Nothing here raises for a delivery that failed, and no address is ever logged: they are secrets, and are told apart by their number.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

_SCRIPT = Path(__file__).with_name("deliver.py")
_PASSED_ON = frozenset(
    {"PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"}
    | {"CURL_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"}
)
"""What the process needs of the environment; API keys and the addresses of other tasks are not among it."""


@dataclass(slots=True)
class Sending:
    """A delivery that is under way."""

    what: str
    addresses: int
    process: subprocess.Popen[bytes] | None = None

    def finish(self, until: float) -> dict[int, str]:
        """Wait until `until` (of `time.monotonic`), end what is left, and return the problem of each address that has one."""
        answers = b""
        if self.process is not None:
            try:
                answers, _ = self.process.communicate(timeout=max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                self.process.kill()
                answers, _ = self.process.communicate()
            except BaseException:
                self.cancel()
                raise
        told = _read(answers)
        late = (
            "it did not answer in time" if self.process is not None and self.process.returncode else "it was not tried"
        )
        problems = {number: told.get(number, late) for number in range(1, self.addresses + 1)}
        return {number: problem for number, problem in problems.items() if problem is not None}

    def cancel(self) -> None:
        """End it at once."""
        if self.process is not None:
            self.process.kill()
            with suppress(OSError, ValueError):
                self.process.wait()


def send_ping(url: str, body: str, timeout_seconds: float, environment: Mapping[str, str], what: str) -> Sending:
    """Begin a POST of `body` to one address; redirects are not followed."""
    task = {"task": "ping", "urls": [url], "body": body, "timeout_seconds": timeout_seconds}
    return _start(what, task, environment)


def send_notifications(
    urls: Sequence[str], title: str, body: str, kind: str, timeout_seconds: float, environment: Mapping[str, str]
) -> Sending:
    """Begin to notify each apprise address; `kind` is info, success, warning or failure."""
    task = {
        "task": "notify",
        "urls": list(urls),
        "title": title,
        "body": body,
        "type": kind,
        "timeout_seconds": timeout_seconds,
    }
    return _start("the notification", task, environment)


def unreadable_addresses(urls: Sequence[str], environment: Mapping[str, str], timeout_seconds: float) -> dict[int, str]:
    """The problem of each address that apprise cannot make sense of, by number; nothing is sent."""
    sending = _start(
        "the check", {"task": "check", "urls": list(urls), "timeout_seconds": timeout_seconds}, environment
    )
    return sending.finish(time.monotonic() + timeout_seconds)


def _start(what: str, task: Mapping[str, Any], environment: Mapping[str, str]) -> Sending:
    sending = Sending(what, len(task["urls"]))
    passed_on = {name: value for name, value in environment.items() if name.upper() in _PASSED_ON}
    try:
        # Isolated: neither the working directory nor a PYTHON variable decides what the process imports.
        process = subprocess.Popen(  # noqa: S603 - this very interpreter and our own file
            [sys.executable, "-I", "-B", str(_SCRIPT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=passed_on,
            close_fds=True,
            start_new_session=True,
        )
    except OSError as error:
        logger.warning("%s could not be started: %s", what, error.strerror or type(error).__name__)
        return sending
    sending.process = process
    assert process.stdin is not None
    with suppress(OSError):
        process.stdin.write(json.dumps(task).encode())
    with suppress(OSError):
        process.stdin.close()
    process.stdin = None
    return sending


def _read(answers: bytes) -> dict[int, str | None]:
    told: dict[int, str | None] = {}
    for line in answers.splitlines():
        with suppress(ValueError, KeyError, TypeError):
            answer = json.loads(line)
            told[int(answer["number"])] = answer["problem"]
    return told
