"""What it costs to write each form of a night's report: `python -m benchmarks.report_cost [--accounts N] [--run]`.

Each form is written by a process of its own, three times; the median of its CPU and wall seconds is printed, how much its memory grew
beyond holding the tables, and the bytes written. One account in five is affected, as on a bad night. `--history` says how many
earlier nights lie beside it, which the page reads. `--run` measures a whole `relink run` instead, over as many accounts of the stand-in
for Stripe, at the pace that Stripe allows, with all formats: its CPU and wall seconds, and of them those of the stage that writes.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
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
from reports.request_tables import (
    account_successors_table,
    failure_reasons_table,
    relink_outcomes_table,
    relink_requests_table,
)
from reports.summary import MerchantRun, RunFacts
from reports.tables import accounts_table, authorizations_table

NIGHT = datetime(2026, 11, 22, 3, 30, tzinfo=UTC)
FORMS = (("csv",), ("parquet",), ("html",), ("xlsx", "html"), ("csv", "parquet", "xlsx", "html"))
REPEATS = 3
RELINK = (sys.executable, "-P", "-m", "jobs")
SETTINGS = """
merchants: [{{name: main, api_key_env: STAND_IN_API_KEY}}]
stripe: {{api_base: "{base_url}"}}
database: {{url: "sqlite:///{root}/relink.db"}}
reports: {{directory: "{root}/reports", formats: [csv, parquet, xlsx, html]}}
"""


def main() -> None:
    """Print a line for each form, or for a whole run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report_cost", description=__doc__)
    parser.add_argument("--accounts", type=int, default=100_000)
    parser.add_argument("--history", type=int, default=0)
    parser.add_argument("--run", action="store_true")
    parser.add_argument("--form", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.form:
        sys.stdout.write(json.dumps(_measure(given.accounts, tuple(given.form.split("+")), given.history)))
    elif given.run:
        sys.stdout.write(_whole_run(given.accounts))
    else:
        sys.stdout.write(f"{given.accounts:,} accounts, {given.history} earlier nights; median of {REPEATS}\n")
        for form in FORMS:
            _print_form(given.accounts, form, given.history)


def _print_form(accounts: int, form: tuple[str, ...], history: int) -> None:
    command = [sys.executable, "-m", "benchmarks.report_cost", "--accounts", str(accounts), "--history", str(history)]
    command += ["--form", "+".join(form)]
    ran = [json.loads(subprocess.run(command, check=True, capture_output=True).stdout) for _ in range(REPEATS)]  # noqa: S603
    cpu, wall, growth, size = (
        statistics.median(one[name] for one in ran) for name in ("cpu", "wall", "growth", "bytes")
    )
    sys.stdout.write(
        f"{' + '.join(form):<26} {cpu:6.1f} s CPU {wall:6.1f} s wall  +{growth / 2**20:4.0f} MiB  {size / 1e6:6.1f} MB\n"
    )


def _measure(accounts: int, form: tuple[str, ...], history: int) -> dict[str, float]:
    tables = tables_of(accounts)
    stamp = RunStamp("20261122T033000Z-ab12", "run", NIGHT, date(2026, 11, 22), "UTC")
    facts = RunFacts(stamp, complete=True, sent=0, merchants=[MerchantRun("main", "sandbox")])
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        _publish_history(root, facts, tables, history)
        before, began, started = _peak(), time.monotonic(), time.process_time()
        path = ReportDirectory(root, formats=form).publish(facts, tables).path
        spent, wall = time.process_time() - started, time.monotonic() - began
        size = sum(file.stat().st_size for file in path.iterdir() if file.suffix != ".json")
    return {"cpu": spent, "wall": wall, "growth": _peak() - before, "bytes": size}


def _publish_history(root: Path, facts: RunFacts, tables: dict[str, pa.Table], nights: int) -> None:
    """Earlier nights with the same tables."""
    first: Path | None = None
    for night in range(nights):
        on = facts.stamp.business_date - timedelta(days=night + 1)
        stamp = replace(facts.stamp, run_id=f"{on:%Y%m%d}T033000Z-ab12", business_date=on)
        reports = ReportDirectory(root, formats=("parquet",))
        if first is None:
            first = reports.publish(replace(facts, stamp=stamp), tables).path
        else:
            shutil.copytree(first, reports.path_of(stamp))


def _whole_run(accounts: int) -> str:
    """A first night in the stand-in's sandbox; it takes accounts/2,000 seconds at least, since Stripe answers so many pages and no more."""
    with tempfile.TemporaryDirectory() as made:
        root = Path(made)
        serve = [*RELINK, "simulator", "--accounts", str(accounts), "--port", "0", "--json", "--no-rate-limits"]
        served = subprocess.Popen([*serve, "--ledger", str(root / "ledger.csv")], stdout=subprocess.PIPE)  # noqa: S603
        try:
            assert served.stdout is not None
            server = json.loads(served.stdout.readline())
            (root / "config.yaml").write_text(SETTINGS.format(root=root, **server))
            run_relink(root, server["api_key"], "ledger", "load", str(root / "ledger.csv"))
            before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
            log = run_relink(root, server["api_key"], "run")
            wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        finally:
            served.terminate()
            served.wait()
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        (stage,) = re.findall(r"stage report took ([0-9.]+) s", log)
        summary = json.loads((root / "reports" / "latest" / "summary.json").read_text())
        return (
            f"relink run over {accounts:,} accounts, {summary['sent']:,} requests: {cpu:.1f} s CPU, {wall:.1f} s wall; the stage that "
            f"writes all formats: {stage} s wall ({float(stage) / wall:.0%})\n"
        )


def run_relink(root: Path, key: str, *arguments: str) -> str:
    """Run the command with the settings in a directory, and return its log."""
    environment = {**os.environ, "STAND_IN_API_KEY": key}
    command = [*RELINK, "--config", str(root / "config.yaml"), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stderr  # noqa: S603


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
