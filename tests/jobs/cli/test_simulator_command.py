"""`relink simulator` as a process that the stripe package talks to."""

from __future__ import annotations

import csv
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import stripe

from jobs.cli import main

Started = tuple["subprocess.Popen[str]", dict[str, Any]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Started]]:
    """Starts the command and returns the process and what it said, once it serves."""
    processes: list[subprocess.Popen[str]] = []

    def run(*arguments: str) -> Started:
        command = [sys.executable, "-P", "-m", "jobs", "simulator", "--port", "0", "--json", *arguments]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, cwd=tmp_path, stdout=pipe, stderr=pipe, text=True)
        processes.append(process)
        assert process.stdout is not None
        return process, json.loads(process.stdout.readline())

    yield run
    for process in processes:
        process.kill()
        process.communicate()


def accounts_at(told: dict[str, Any]) -> list[Any]:
    client = stripe.StripeClient(told["api_key"], base_addresses={"api": told["base_url"]}, max_network_retries=0)
    return list(client.v1.financial_connections.accounts.list({"limit": 100}).auto_paging_iter())


def test_the_stripe_package_finds_the_accounts_of_the_ledger(start: Callable[..., Started], tmp_path: Path) -> None:
    process, told = start("--accounts", "150", "--seed", "3", "--ledger", "ledger.csv")
    assert told["base_url"].startswith("http://127.0.0.1:")
    accounts = accounts_at(told)
    assert len(accounts) == 150
    with (tmp_path / "ledger.csv").open(encoding="utf-8", newline="") as file:
        ledger = {row["account_id"] for row in csv.DictReader(file)}
    assert len(ledger & {account.id for account in accounts}) > 130
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err) == (0, "", "stopped\n")


def test_the_same_seed_and_start_give_the_same_world(start: Callable[..., Started]) -> None:
    process, told = start("--accounts", "30", "--start", "2026-11-02T04:00:00+01:00")
    assert told["now_at"] == "2026-11-02T03:00:00+00:00"
    _, again = start("--accounts", "30", "--start", "2026-11-02T03:00:00Z")
    _, other = start("--accounts", "30", "--start", "2026-11-02T03:00:00Z", "--seed", "2")
    assert accounts_at(told) == accounts_at(again)
    assert accounts_at(told) != accounts_at(other)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=10) == 0


def test_a_port_in_use_and_a_time_without_offset_are_usage_faults(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for arguments, fault in ((["--port", port], "--port"), (["--start", "2026-11-02T03:00:00"], "--start")):
            command = [sys.executable, "-P", "-m", "jobs", "simulator", "--accounts", "1", *arguments]
            told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30)
            assert told.returncode == 2
            assert fault in told.stderr
            assert "Traceback" not in told.stderr


def test_the_behaviours_of_stripe_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulator", "--behaviours"]) == 0
    shown = capsys.readouterr().out
    assert main(["simulator", "--behaviours", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in listed] == [line for line in shown.splitlines()[:-1] if line and line[0] != " "]
    assert f"{len(listed)} behaviours" in shown.splitlines()[-1]
