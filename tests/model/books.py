"""What the records say, read past the product's own code."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Row:
    """A stored request; times in epoch seconds."""

    request_id: str
    run_id: str
    authorization_id: str
    breakage_kind: str
    breakage_number: int
    attempt: int
    account_holder_id: str
    covered: tuple[str, ...]
    business_date: date
    origin: str
    state: str
    idempotency_key: str
    session_id: str | None
    planned_at: float
    attempting_at: float | None
    answered_at: float | None
    offered_at: float | None
    resolved_at: float | None
    resolved_by: str | None
    error_type: str | None
    http_status: int | None
    outcome: str | None

    @property
    def breakage(self) -> tuple[str, str, int]:
        """Which outage it is about."""
        return self.authorization_id, self.breakage_kind, self.breakage_number

    @property
    def is_open(self) -> bool:
        """Whether its session waits for its customer."""
        return self.state == "created" and self.outcome in (None, "pending")

    @property
    def is_attempt(self) -> bool:
        """Whether it counts: it may have reached the customer, and not a modal offer that nobody could take up or needed to."""
        if self.state in ("planned", "not_sent"):
            return False
        return self.offered_at is not None or (self.state != "unknown" and self.outcome != "healed")


@dataclass(frozen=True, slots=True)
class Outage:
    """A stored breakage; `closed_reason` is None while it is open."""

    authorization_id: str
    kind: str
    number: int
    closed_reason: str | None
    is_closed: bool


@dataclass(frozen=True, slots=True)
class Books:
    """Everything in the records that is judged; the names match what `tests.chaos.invariants` asks for."""

    requests: dict[str, Row] = field(default_factory=dict)
    running: list[str] = field(default_factory=list)
    outages: dict[tuple[str, str, int], Outage] = field(default_factory=dict)


_COLUMNS = [name for name in Row.__dataclass_fields__ if name != "outcome"]
_REQUESTS = f"""
    SELECT {", ".join(_COLUMNS)}, (
        SELECT outcome FROM relink_outcomes o WHERE o.request_id = r.request_id ORDER BY id DESC LIMIT 1
    ) FROM relink_requests r ORDER BY planned_at, request_id"""
_OUTAGES = "SELECT authorization_id, kind, number, closed_reason, closed_at IS NOT NULL FROM relink_breakages"


def read_books(path: Path) -> Books:
    """Read the database as it lies there."""
    connection = sqlite3.connect(path)
    try:
        rows = [_row(found) for found in connection.execute(_REQUESTS)]
        running = [run for (run,) in connection.execute("SELECT run_id FROM relink_runs WHERE state = 'running'")]
        outages = [Outage(*found[:4], bool(found[4])) for found in connection.execute(_OUTAGES)]
    finally:
        connection.close()
    return Books(
        {row.request_id: row for row in rows},
        running,
        {(one.authorization_id, one.kind, one.number): one for one in outages},
    )


def _row(found: tuple[Any, ...]) -> Row:
    values = dict(zip((*_COLUMNS, "outcome"), found, strict=True))
    for name in ("planned_at", "attempting_at", "answered_at", "offered_at", "resolved_at"):
        values[name] = None if values[name] is None else values[name] / 1e6
    values["covered"] = tuple(one["account_id"] for one in json.loads(values["covered"]))
    values["business_date"] = date.fromisoformat(values["business_date"])
    return Row(**values)
