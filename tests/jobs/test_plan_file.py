"""A plan's file by itself: whole or not there, private, for people to read, and the same when it is read back."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest

from jobs.plan_file import (
    CLOCK_DIFFERENCE,
    MerchantPlan,
    PlanFile,
    check_applicable,
    read_plan,
    remove_leftovers,
    write_plan,
)
from reconcile.errors import DecisionNeeded, SettingsError
from tests.jobs.adapters.stored_values import AT, DATE, SCOPE, relink_request

RUN_ID = "20261102T033000Z-0a1b"


def plan_of(*due: date | None) -> PlanFile:
    requests = tuple(replace(relink_request(f"req_{number}"), due_date=on) for number, on in enumerate(due))
    return PlanFile(RUN_ID, AT, DATE, (MerchantPlan(SCOPE, "hash", requests),))


@pytest.mark.parametrize("due", [(), (None,), (DATE,), (DATE, None)])
def test_it_is_read_back_as_it_was(tmp_path: Path, due: tuple[date | None, ...]) -> None:
    plan = plan_of(*due)
    write_plan(plan, tmp_path / "plan.json")
    assert read_plan(tmp_path / "plan.json") == plan


def test_people_can_read_it_and_compare_two_of_them(tmp_path: Path) -> None:
    write_plan(plan_of(DATE), tmp_path / "plan.json")
    text = (tmp_path / "plan.json").read_text()
    assert text == json.dumps(json.loads(text), indent=2, sort_keys=True) + "\n"


def test_its_directory_is_made_for_the_job_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_plan(plan_of(), tmp_path / "plans" / "plan.json")
    finally:
        os.umask(before)
    assert (tmp_path / "plans").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "plans" / "plan.json").stat().st_mode & 0o777 == 0o600


def test_a_kill_before_it_has_its_name_leaves_what_the_next_run_removes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    held, other = tmp_path / f"{RUN_ID}-main.json", tmp_path / "mine.json"
    for path in (held, other):
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", killed)
            with pytest.raises(KeyboardInterrupt):
                write_plan(plan_of(), path)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert [name.startswith(f".{path.name}.") for name, path in zip(left, (held, other), strict=True)] == [True, True]
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [left[1]], "somebody may be writing that one just now"


def test_what_is_wrong_with_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(SettingsError, match=r"is not a plan \(JSONDecodeError\)"):
        read_plan(tmp_path / "plan.json")


def test_a_host_may_be_ahead_by_five_minutes_of_the_one_that_applies_its_plan() -> None:
    expected = {SCOPE: "hash"}
    check_applicable(plan_of(), expected, AT - CLOCK_DIFFERENCE)
    with pytest.raises(DecisionNeeded, match="more than 24 hours from now"):
        check_applicable(plan_of(), expected, AT - CLOCK_DIFFERENCE - timedelta(seconds=1))
