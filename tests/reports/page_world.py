"""Publishes made-up nights with every value that a report can hold, whether or not a real night could hold them together."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from reports.closed_lists import FINDINGS, NEXT_STEPS, OUTCOMES, RESULTS
from reports.columns import TABLES
from reports.files import ReportDirectory
from reports.summary import MerchantRun
from tests.reports.factories import STAMP, facts

FIRST = date(2026, 10, 30)
MERCHANTS = ("east", "west")
NAMES = (
    *(f"Bank {number}" for number in range(16)),
    None,
    "=cmd|' /C calc'!A0",
    "<script>alert(1)</script>\"'&amp;",
    "بنك الإمارات ‮دبي",
    "a" * 240,
    "$x_1^2$ \N{WAVE DASH} 銀行",
)
COMMANDS = ("run", "run", "collect", "run", "stopped", "run", "apply", "run")
"""What runs on one date after another; the apply follows on the date of the run before it."""


def publish_world(root: Path, seed: int = 7) -> list[tuple[date, str, str]]:
    """Publish one report for each of `COMMANDS`; return each one's date, run id and command, in that order."""
    chance = random.Random(seed)
    published = []
    on = FIRST - timedelta(days=1)
    for number, command in enumerate(COMMANDS):
        on += timedelta(days=0 if command == "apply" else 1)
        run_id = f"{on:%Y%m%d}T033{number}00Z-{number:04x}"
        stamp = replace(STAMP, run_id=run_id, business_date=on, command="run" if command == "stopped" else command)
        merchants = [MerchantRun(name, "sandbox", None, held=name == "east", why=None) for name in MERCHANTS]
        run = facts(stamp=stamp, merchants=merchants)
        reports = ReportDirectory(root, formats=("parquet", "html"))
        if command == "stopped":
            reports.publish_stopped(replace(run, complete=False, why="the ledger is away"))
        else:
            reports.publish(run, tables_of(chance, on))
        published.append((on, run_id, command))
    return published


def tables_of(chance: random.Random, on: date, size: int = 220) -> dict[str, pa.Table]:
    """Every table of a made-up night of two merchants with `size` accounts each, fewer by chance."""
    accounts = [
        _account(chance, merchant, number, on)
        for merchant in MERCHANTS
        for number in range(size)
        if chance.random() < 0.95
    ]
    outcomes = [
        _outcome(chance, merchant, number) for merchant in MERCHANTS for number in range(90) if chance.random() < 0.6
    ]
    requests = [
        _request(chance, merchant, number) for merchant in MERCHANTS for number in range(40) if chance.random() < 0.6
    ]
    logins = [
        _login(chance, merchant, number)
        for merchant in MERCHANTS
        for number in range(size // 2)
        if chance.random() < 0.7
    ]
    window = [
        {
            "merchant": merchant,
            "institution_name": name,
            "cause": cause,
            "outcome": outcome,
            "failure_reason": chance.choice((None, "no_account", "no_authorization", "other", "brand_new"))
            if outcome == "failed"
            else None,
            "requests": chance.randint(1, 4),
            "share": 0.5,
        }
        for merchant in MERCHANTS
        for name in NAMES
        for cause in (None, "access_expired", "access_denied")
        for outcome in map(str, OUTCOMES)
        if chance.random() < 0.2
    ]
    rows: dict[str, list[dict[str, Any]]] = {
        "accounts": accounts,
        "authorizations": logins,
        "relink_requests": requests,
        "relink_outcomes": outcomes,
        "account_successors": [],
        "failure_reasons": window,
    }
    return {
        name: pa.Table.from_pylist(
            [{**dict.fromkeys(contract.names), **row} for row in rows[name]], schema=contract.schema
        )
        for name, contract in TABLES.items()
    }


def _account(chance: random.Random, merchant: str, number: int, on: date) -> dict[str, Any]:
    finding = chance.choice((*map(str, FINDINGS), "ok", "ok", "ok"))
    amount = chance.choice((None, chance.randint(0, 10**9)))
    expected = chance.choice((None, on + timedelta(days=chance.randint(-3, 60))))
    return {
        "merchant": merchant,
        "account_id": f"fca_{merchant}_{number}",
        "authorization_id": chance.choice(
            (None, f"fcauth_{merchant}_{number // 2}", f"fcauth_{merchant}_{number // 2}")
        ),
        "account_holder_id": f"cus_{number}",
        "institution_name": NAMES[number % len(NAMES)],
        "last4": "0042",
        "ledger_status": chance.choice((None, "open", "open", "closed")),
        "stripe_status": chance.choice((None, "active", "inactive")),
        "cause": chance.choice((None, "access_expired")),
        "finding": finding,
        "also": [],
        "next_step": chance.choice(list(map(str, NEXT_STEPS))),
        "days_inactive": chance.choice((None, 0, 7, 8, 30, 31, 60, 61, 90, 91, 400)),
        "inactive_since_basis": chance.choice((None, "event", "first_run")),
        "expected_deactivation_date": expected,
        "exposure_minor": amount,
        "currency": None if amount is None else chance.choice(("EUR", "JPY", "KWD")),
        "reference": f"loan {number}",
    }


def _login(chance: random.Random, merchant: str, number: int) -> dict[str, Any]:
    return {
        "merchant": merchant,
        "authorization_id": f"fcauth_{merchant}_{number}",
        "affected_accounts": chance.choice((0, 1, 2)),
        "next_step": chance.choice(list(map(str, NEXT_STEPS))),
    }


def _request(chance: random.Random, merchant: str, number: int) -> dict[str, Any]:
    return {
        "merchant": merchant,
        "request_id": f"req_{merchant}_{number}",
        "authorization_id": f"fcauth_{merchant}_{number}",
        "institution_name": NAMES[number % len(NAMES)],
        "result": chance.choice(list(map(str, RESULTS))),
        "error_code": "parameter_unknown",
        "error_message": "<img src=x onerror=alert(1)>",
    }


def _outcome(chance: random.Random, merchant: str, number: int) -> dict[str, Any]:
    outcome = chance.choice((*map(str, OUTCOMES), "relinked", "relinked"))
    return {
        "merchant": merchant,
        "request_id": f"req_{merchant}_{number}",
        "authorization_id": f"fcauth_{merchant}_{number}",
        "institution_name": NAMES[number % 7],
        "outcome": outcome,
        "session_status": chance.choice((None, "pending", "succeeded")),
        "accounts_expected": chance.randint(1, 2),
        "accounts_cured": chance.choice((None, 1, 2)),
        "requested_at": datetime(2026, 11, 1, 3, 30, tzinfo=UTC),
        "hours_to_outcome": chance.choice((None, round(chance.random() * 200, 4))),
        "outcome_at_basis": chance.choice(("event", "observed")),
    }
