"""`relink demo` as a person runs it, and what can be looked at afterwards without any network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("RELINK_", "STRIPE_"))}


def relink(*arguments: str, where: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "jobs", *arguments]
    return subprocess.run(command, cwd=where, env={**CLEAN, **variables}, capture_output=True, text=True, timeout=60)


def test_two_nights_and_a_look_at_them_afterwards(tmp_path: Path) -> None:
    # Settings of the real job must not reach the demo.
    told = relink(
        "demo", "--accounts", "120", "--nights", "2", where=tmp_path, RELINK_DATABASE__URL="sqlite:////nowhere/x.db"
    )
    assert (told.returncode, told.stderr) == (0, "")
    assert "Every night did what it should." in told.stdout
    assert "demo/reports/latest" in told.stdout
    assert (tmp_path / "demo" / "reports" / "latest" / "manifest.json").is_file()
    look = [line.strip() for line in told.stdout.splitlines() if "--config demo/config.yaml" in line]
    assert [line.split()[3] for line in look] == ["status", "history"]
    for line in look:
        looked = relink(*line.split()[1:], where=tmp_path)
        assert (looked.returncode, looked.stderr) == (0, ""), looked.stderr
    assert look[1].split()[-1] in looked.stdout


def test_json_is_one_value_and_nothing_else(tmp_path: Path) -> None:
    told = relink("demo", "--accounts", "50", "--nights", "1", "--directory", "here", "--json", where=tmp_path)
    value = json.loads(told.stdout)
    assert told.stderr == ""
    assert (told.returncode, value["exit_code"]) == (0, 0)
    assert value["run_id"] == value["nights"][-1]["run_id"]
    assert Path(value["report_directory"]).is_relative_to(tmp_path / "here" / "reports")


def test_a_directory_with_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    told = relink("demo", "--directory", str(tmp_path), where=tmp_path)
    assert told.returncode == 2
    assert str(tmp_path) in told.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
