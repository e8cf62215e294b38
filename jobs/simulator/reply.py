"""One HTTP request and one reply, free of sockets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Call:
    """A request as it arrived; header names are lower case."""

    method: str
    path: str
    query: str
    body: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply. `spoil` tells the server how to damage its delivery: reset, hang, cut_body, cut_json; None is whole."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    spoil: str | None = None
    spoil_seconds: float = 0.0
