"""Publishes the pages that are to be looked at: a good night, hostile and many names, and runs of every other kind."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

from reports.files import ReportDirectory
from reports.page import page_html
from reports.page_numbers import redacted
from reports.published_page import find_report, published_page
from reports.summary import MerchantRun, RunFacts
from tests.reports.factories import NIGHT_INPUTS, STAMP, account, broken, facts, findings, night, stored, tables
from tests.reports.page_world import NAMES, publish_world

HUNDRED = 100


def publish_pages(directory: Path) -> dict[str, Path]:
    """Each page's name and file."""
    demo = directory / "demo"
    command = [
        sys.executable,
        "-P",
        "-m",
        "jobs",
        "demo",
        "--accounts",
        "1500",
        "--nights",
        "8",
        "--directory",
        str(demo),
    ]
    subprocess.run(command, check=True, capture_output=True)
    world = directory / "world"
    publish_world(world)
    pages = {
        "demo": (demo / "reports" / "latest").resolve() / "index.html",
        "hostile": (world / "latest").resolve() / "index.html",
        "stopped": _stopped(directory / "stopped"),
        "first": _one(directory / "first", facts()),
        "empty": _one(directory / "empty", facts(sent=0), empty=True),
        "dry": _one(directory / "dry", facts(stamp=replace(STAMP, dry_run=True), sent=0)),
        "held": _held(directory / "held"),
        "hundred": _hundred(directory / "hundred"),
    }
    pages["shared"] = directory / "shared.html"
    shared = redacted(published_page(world, find_report(world, None)))
    pages["shared"].write_text(page_html(shared), encoding="utf-8")
    return pages


def _reports(directory: Path) -> ReportDirectory:
    return ReportDirectory(directory, formats=("parquet", "html"))


def _one(directory: Path, run: RunFacts, *, empty: bool = False) -> Path:
    inputs = {} if empty else {"main": NIGHT_INPUTS}
    return _reports(directory).publish(run, tables() if empty else night(), inputs).path / "index.html"


def _stopped(directory: Path) -> Path:
    for days in range(5, 1, -1):
        on = date(2026, 11, 22) - timedelta(days=days)
        stamp = replace(STAMP, run_id=f"{on:%Y%m%d}T033000Z-0001", business_date=on)
        _reports(directory).publish(facts(stamp=stamp), night(), {"main": NIGHT_INPUTS})
    why = "merchant main: the ledger cannot be reached at ledger.internal:5432: connection refused; check ledger.url"
    merchant = MerchantRun("main", "live", complete=False, why=why)
    return (
        _reports(directory).publish_stopped(facts(complete=False, why=why, sent=0, merchants=[merchant])).path
        / "index.html"
    )


def _held(directory: Path) -> Path:
    rows = [broken(f"fca_{n}", authorization_id=f"fcauth_{n}", next_step="held_by_brake") for n in range(60)]
    held = MerchantRun(
        "main", "live", held=True, why="60 of 400 accounts broke since the last run", held_plan_hash="9f2c51aa" * 8
    )
    return _reports(directory).publish(facts(sent=0, merchants=[held]), tables(findings(*rows)), {}).path / "index.html"


def _hundred(directory: Path) -> Path:
    names = [f"{NAMES[number % len(NAMES)] or 'Nameless'} of {number}" for number in range(HUNDRED)]
    rows = [
        make(
            f"fca_{bank}_{n}",
            authorization_id=f"fcauth_{bank}_{n}",
            institution_name=names[bank],
            exposure_minor=10**11 + n,
            currency="USD",
        )
        for bank in range(HUNDRED)
        for n, make in enumerate((broken, account, broken))
    ]
    requests = tuple(
        stored(
            f"req_{bank}",
            of={"institution_name": names[bank]},
            outcome="relinked" if bank % 3 else "failed",
            outcome_at=STAMP.as_of,
        )
        for bank in range(HUNDRED)
    )
    return _reports(directory).publish(facts(), tables(findings(*rows), requests, requests), {}).path / "index.html"
