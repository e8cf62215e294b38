"""Says how urgent each value of a closed list is for a person; the workbook orders its rows and paints its cells by it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

import pyarrow as pa
import pyarrow.compute as pc

from reconcile.model import Finding, NextStep, OutcomeKind, Result
from reports.contract import TableContract


class Urgency(IntEnum):
    """How soon somebody has to look, the most urgent first."""

    PERSON = 0
    LOST = 1
    WAITING = 2
    LEFT_ALONE = 3
    GOOD = 4


WORDS: Mapping[Urgency, str] = {
    Urgency.PERSON: "needs a person",
    Urgency.LOST: "did not work out",
    Urgency.WAITING: "under way",
    Urgency.LEFT_ALONE: "left alone on purpose",
    Urgency.GOOD: "fine",
}

_PERSON, _LOST, _WAITING, _LEFT, _GOOD = Urgency

URGENCIES: Mapping[str, Mapping[str, Urgency]] = {
    "finding": {
        Finding.UNREADABLE: _PERSON,
        Finding.NOT_IN_STRIPE: _LOST,
        Finding.NOT_IN_LEDGER: _PERSON,
        Finding.HOLDER_MISMATCH: _PERSON,
        Finding.DISCONNECTED: _LOST,
        Finding.INACTIVE_PERMANENT: _LOST,
        Finding.INACTIVE: _WAITING,
        Finding.ACCOUNT_NUMBER: _WAITING,
        Finding.EXPIRING: _WAITING,
        Finding.PERMISSIONS: _WAITING,
        Finding.OK: _GOOD,
    },
    "next_step": {
        NextStep.NONE: _GOOD,
        NextStep.LEDGER_CLOSED: _LEFT,
        NextStep.REPLACED: _PERSON,
        NextStep.NOT_RELINKABLE: _LOST,
        NextStep.REVIEW: _PERSON,
        NextStep.DO_NOT_CONTACT: _LEFT,
        NextStep.REASON_OFF: _LEFT,
        NextStep.OPEN_SESSION: _WAITING,
        NextStep.ATTEMPTS_EXHAUSTED: _PERSON,
        NextStep.COOLDOWN: _WAITING,
        NextStep.HELD_BY_BRAKE: _PERSON,
        NextStep.CAPPED: _WAITING,
        NextStep.REQUEST: _WAITING,
    },
    "result": {
        Result.CREATED: _GOOD,
        Result.REJECTED: _PERSON,
        Result.UNKNOWN: _PERSON,
        Result.NOT_SENT: _PERSON,
        Result.WOULD_REQUEST: _WAITING,
    },
    "outcome": {
        OutcomeKind.RELINKED: _GOOD,
        OutcomeKind.RELINKED_PARTIALLY: _WAITING,
        OutcomeKind.NEW_AUTHORIZATION: _GOOD,
        OutcomeKind.FAILED: _LOST,
        OutcomeKind.CANCELLED: _LOST,
        OutcomeKind.PENDING: _WAITING,
        OutcomeKind.HEALED: _GOOD,
        OutcomeKind.EXPIRED: _LOST,
        OutcomeKind.REVIEW: _PERSON,
        OutcomeKind.UNKNOWN: _PERSON,
        OutcomeKind.REJECTED: _PERSON,
        OutcomeKind.NOT_SENT: _PERSON,
    },
}

DECIDING: Mapping[str, str] = {
    "accounts": "next_step",
    "authorizations": "next_step",
    "relink_requests": "result",
    "relink_outcomes": "outcome",
}
"""The column by which a row of a table is urgent; tables that only count or point have none."""


def needing_person(name: str, table: pa.Table) -> int:
    """How many rows of a table need a person."""
    if name not in DECIDING:
        return 0
    return pc.sum(pc.equal(_ranks(name, table), int(Urgency.PERSON))).as_py() or 0


def most_urgent_first(table: pa.Table, contract: TableContract) -> pa.Table:
    """The rows in the order in which a person should see them.

    What needs a person comes first; within the same urgency what is broken longest, then the most money within each currency by
    its code, then the key.
    """
    ordered, keys = table, []
    if contract.name in DECIDING:
        ordered = ordered.append_column("urgency", _ranks(contract.name, table))
        keys.append(("urgency", "ascending"))
    wanted = (("days_inactive", "descending"), ("currency", "ascending"), ("exposure_minor", "descending"))
    keys += [key for key in wanted if key[0] in contract.names]
    keys += [(name, "ascending") for name in contract.key]
    return ordered.sort_by(keys).select(list(contract.names))


def _ranks(name: str, table: pa.Table) -> pa.ChunkedArray:
    """How urgent each row is."""
    urgencies = URGENCIES[DECIDING[name]]
    values = pa.array([str(value) for value in urgencies])
    ranks = pa.array([int(urgency) for urgency in urgencies.values()], type=pa.int8())
    return pc.take(ranks, pc.index_in(table[DECIDING[name]], values))
