"""What it costs to write each form of a night's report: `python -m benchmarks.report_cost [--accounts N]`.

Each form is written by a process of its own, three times; the median of its CPU seconds is printed, how much its memory grew beyond
holding the tables, and the bytes written. One account in five is affected, as on a bad night.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa

from reconcile.frames import FINDINGS, from_columns
from reconcile.model import BreakageKey, CoveredAccount, Holder, RelinkRequest, RunStamp, StoredRequest
from reports.files import ReportDirectory
from reports.summary import MerchantRun, RunFacts
from reports.tables import (
    account_successors_table,
    accounts_table,
    authorizations_table,
    failure_reasons_table,
    relink_outcomes_table,
    relink_requests_table,
)

NIGHT = datetime(2026, 11, 22, 3, 30, tzinfo=UTC)
FORMS = (("csv",), ("parquet",), ("html",), ("xlsx", "html"), ("csv", "parquet", "xlsx", "html"))
REPEATS = 3


def main() -> None:
    """Print a line for each form."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report_cost", description=__doc__)
    parser.add_argument("--accounts", type=int, default=100_000)
    parser.add_argument("--form", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.form:
        sys.stdout.write(json.dumps(_measure(given.accounts, tuple(given.form.split("+")))))
        return
    sys.stdout.write(f"{given.accounts:,} accounts; median of {REPEATS}\n")
    for form in FORMS:
        command = [
            sys.executable,
            "-m",
            "benchmarks.report_cost",
            "--accounts",
            str(given.accounts),
            "--form",
            "+".join(form),
        ]
        ran = [json.loads(subprocess.run(command, check=True, capture_output=True).stdout) for _ in range(REPEATS)]  # noqa: S603
        cpu, growth, size = (statistics.median(one[name] for one in ran) for name in ("cpu", "growth", "bytes"))
        sys.stdout.write(f"{' + '.join(form):<26} {cpu:6.1f} s CPU  +{growth / 2**20:4.0f} MiB  {size / 1e6:6.1f} MB\n")


def _measure(accounts: int, form: tuple[str, ...]) -> dict[str, float]:
    tables = tables_of(accounts)
    stamp = RunStamp("20261122T033000Z-ab12", "run", NIGHT, date(2026, 11, 22), "UTC")
    facts = RunFacts(stamp, complete=True, sent=0, merchants=[MerchantRun("main", "sandbox")])
    with tempfile.TemporaryDirectory() as directory:
        before, started = _peak(), time.process_time()
        path = ReportDirectory(Path(directory), formats=form).publish(facts, tables).path
        spent = time.process_time() - started
        size = sum(file.stat().st_size for file in path.iterdir() if file.suffix != ".json")
    return {"cpu": spent, "growth": _peak() - before, "bytes": size}


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def tables_of(accounts: int) -> dict[str, pa.Table]:
    """Every table of a bad night of so many accounts."""
    findings = _findings(accounts)
    asked = findings[findings["next_step"] == "request"]
    logins = list(asked["authorization_id"].unique())[:1_000]
    requests = [_request(number, str(login)) for number, login in enumerate(logins)]
    return {
        "accounts": accounts_table("main", findings),
        "authorizations": authorizations_table("main", findings, requests),
        "relink_requests": relink_requests_table(requests),
        "relink_outcomes": relink_outcomes_table(requests),
        "account_successors": account_successors_table("main", ()),
        "failure_reasons": failure_reasons_table(requests),
    }


def _findings(accounts: int) -> pd.DataFrame:
    """Two accounts a login, 80 institutions, every fifth login inactive."""
    numbers = range(accounts)
    bad = [number // 2 % 5 == 0 for number in numbers]
    columns: dict[str, list[object]] = {name: [None] * accounts for name in FINDINGS}
    columns |= {
        "account_id": [f"fca_1P{number:020d}" for number in numbers],
        "authorization_id": [f"fcauth_1P{number // 2:020d}" for number in numbers],
        "holder_type": ["customer"] * accounts,
        "account_holder_id": [f"cus_{number // 2:014d}" for number in numbers],
        "ledger_holder_id": [f"cus_{number // 2:014d}" for number in numbers],
        "institution_name": [f"Bank of Town {number // 2 % 80}" for number in numbers],
        "last4": [f"{number % 10_000:04d}" for number in numbers],
        "subcategory": ["checking"] * accounts,
        "stripe_status": ["inactive" if one else "active" for one in bad],
        "cause": ["access_expired" if one else None for one in bad],
        "action": ["relink_required" if one else None for one in bad],
        "permissions": ["balances;transactions"] * accounts,
        "purpose": ["data"] * accounts,
        "ledger_status": ["open"] * accounts,
        "do_not_contact": [False] * accounts,
        "in_stripe": [True] * accounts,
        "in_ledger": [True] * accounts,
        "finding": ["inactive" if one else "ok" for one in bad],
        "also": [""] * accounts,
        "missing_permissions": [""] * accounts,
        "shared_accounts": [2] * accounts,
        "shared_affected": [2 if one else 0 for one in bad],
        "next_step": ["request" if one else "none" for one in bad],
        "inactive_since": [NIGHT - timedelta(days=number % 90) if bad[number] else None for number in numbers],
        "inactive_since_basis": ["observed" if one else None for one in bad],
        "days_inactive": [number % 90 if bad[number] else None for number in numbers],
        "last_refreshed_at": [NIGHT - timedelta(minutes=number % 1_440) for number in numbers],
        "exposure_minor": [number * 7 for number in numbers],
        "currency": ["EUR"] * accounts,
        "reference": [f"loan {number}" for number in numbers],
    }
    return from_columns(columns, FINDINGS)


def _request(number: int, authorization_id: str) -> StoredRequest:
    request = RelinkRequest(
        request_id=f"req_{number:012d}",
        merchant="main",
        mode="sandbox",
        breakage=BreakageKey(authorization_id, "connection", 1),
        attempt=1,
        account_id=None,
        holder=Holder("customer", f"cus_{number:014d}"),
        institution_name=f"Bank of Town {number % 80}",
        reason="inactive",
        cause="access_expired",
        covered=(CoveredAccount("fca_1", "inactive"), CoveredAccount("fca_2", "inactive")),
        permissions=("balances", "transactions"),
        widens=False,
        delivery="modal",
        due_date=None,
        exposure_by_currency={"EUR": 1250},
        references=("loan 1", "loan 2"),
        origin="run",
    )
    stored = StoredRequest(request, "20261122T033000Z-ab12", date(2026, 11, 22), "created", planned_at=NIGHT)
    return replace(stored, session_id=f"fcsess_{number}", calls=1, http_status=200, requested_at=NIGHT)


if __name__ == "__main__":
    main()
