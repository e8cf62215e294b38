"""A process that dies at any step of publishing leaves the old or the new report whole, and the next run cleans up."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from reports.files import ReportDirectory
from reports.leftovers import clean_leftovers
from reports.verification import verify
from tests.reports.factories import NIGHT_INPUTS, STAMP, facts, night
from tests.reports.publish_until import FORMATS, cannot_swap

PROJECT = Path(__file__).parents[2]
SET_ASIDE = "old report set aside"


def steps_of(root: Path, *, swaps: bool, republish: bool) -> list[str]:
    """The steps that one publication goes through, in order."""
    steps: list[str] = []
    directory = ReportDirectory(root, FORMATS, reached=steps.append)
    if not swaps:
        directory = ReportDirectory(root, FORMATS, reached=steps.append, swap=cannot_swap)
    if republish:
        directory.publish(facts(), night(), {"main": NIGHT_INPUTS})
        steps.clear()
    directory.publish(facts(sent=2), night(), {"main": NIGHT_INPUTS})
    return list(dict.fromkeys(steps))


def die_at_each(tmp_path: Path, steps: list[str], *, swaps: bool, republish: bool) -> list[tuple[str, Path]]:
    """Let one process die at each step, each in a root of its own that holds the old report if it is to be replaced."""
    old = tmp_path / "old"
    if republish:
        ReportDirectory(old, FORMATS).publish(facts(), night(), {"main": NIGHT_INPUTS})
    cases = []
    for number, step in enumerate(steps):
        root = tmp_path / f"root{number}"
        if republish:
            shutil.copytree(old, root, symlinks=True)
        cases.append((step, root))
    # Only what the driver needs to start: the environment of the tests holds nothing else that it should see.
    finished = subprocess.run(
        [sys.executable, "-m", "tests.reports.publish_until"],
        input=json.dumps([[str(root), step, swaps] for step, root in cases]),
        cwd=PROJECT,
        env={"PATH": os.environ.get("PATH", ""), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert all(json.loads(finished.stdout)), finished.stderr
    return cases


def report_in(root: Path) -> Path:
    return root / "run_date=2026-11-22" / f"run_id={STAMP.run_id}"


def sent_in(path: Path) -> int:
    assert verify(path) == []
    return int(json.loads((path / "summary.json").read_text())["sent"])


def hidden_in(root: Path) -> list[Path]:
    return [path for path in root.rglob(".*") if path != root]


def check_mended(root: Path, step: str) -> None:
    """After the next run's cleaning nothing is left over, and publishing works again."""
    clean_leftovers(root)
    assert hidden_in(root) == [], step
    ReportDirectory(root, FORMATS).publish(facts(sent=3), night(), {"main": NIGHT_INPUTS})
    assert sent_in(root / "latest") == 3
    assert hidden_in(root) == [], step


def test_there_are_at_least_twenty_steps(tmp_path: Path) -> None:
    assert len(steps_of(tmp_path, swaps=True, republish=False)) >= 20


def test_dying_before_the_first_report_is_in_place_leaves_no_report(tmp_path: Path) -> None:
    steps = steps_of(tmp_path / "steps", swaps=True, republish=False)
    for step, root in die_at_each(tmp_path, steps, swaps=True, republish=False):
        renamed = steps.index(step) >= steps.index("renamed")
        assert report_in(root).exists() == renamed, step
        if renamed:
            assert sent_in(report_in(root)) == 2, step
        for link in ("latest", "last_attempt"):
            assert not (root / link).is_symlink() or sent_in(root / link) == 2, step
        check_mended(root, step)


def test_dying_while_a_report_is_replaced_leaves_the_old_or_the_new_one(tmp_path: Path) -> None:
    steps = steps_of(tmp_path / "steps", swaps=True, republish=True)
    for step, root in die_at_each(tmp_path, steps, swaps=True, republish=True):
        expected = 2 if steps.index(step) >= steps.index("renamed") else 1
        assert sent_in(report_in(root)) == expected, step
        assert sent_in(root / "latest") == expected, step
        check_mended(root, step)


def test_without_an_atomic_swap_cleaning_puts_the_old_report_back(tmp_path: Path) -> None:
    steps = steps_of(tmp_path / "steps", swaps=False, republish=True)
    assert SET_ASIDE in steps
    for step, root in die_at_each(tmp_path, steps[steps.index("temporary on disk") :], swaps=False, republish=True):
        if step == SET_ASIDE:
            assert not report_in(root).exists()
            clean_leftovers(root)
        assert sent_in(report_in(root)) == (2 if steps.index(step) >= steps.index("renamed") else 1), step
        check_mended(root, step)


@pytest.mark.parametrize("republish", [False, True])
def test_links_move_after_everything_else_and_the_last_attempt_first(tmp_path: Path, republish: bool) -> None:
    steps = steps_of(tmp_path, swaps=True, republish=republish)
    assert steps[-3:] == ["before links", "last_attempt moved", "latest moved"]
    assert steps.index("after manifest.json") > steps.index("after summary.json")
    assert steps.index("name on disk") < steps.index("before links")
