"""What the simulator remembers of each call. It holds no key, secret, query or body."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LoggedCall:
    """One call that reached the simulator; `purpose` is the endpoint's name, such as ``sessions.create``."""

    method: str
    path: str
    purpose: str
    status: int
    at: int
    api_version: str | None
    idempotency_key: str | None
    replayed: bool = False
    fault: str | None = None
    request_id: str | None = None
