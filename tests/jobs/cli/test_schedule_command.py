"""`relink schedule` as a process: it catches up, waits, and leaves in good order."""

from __future__ import annotations

import json
import signal
from datetime import UTC, datetime

import pytest

from jobs.adapters import records
from tests.jobs.cli.conftest import Relink
from tests.jobs.cli.processes import start, wait_for_post, wait_until
from tests.jobs.conftest import MakeNights
from tests.jobs.nights import Nights, small_world


@pytest.fixture
def tonight(make_nights: MakeNights) -> Nights:
    """A world whose time is this machine's."""
    return make_nights(small_world(start=datetime.now(UTC)))


def said(err: str) -> list[str]:
    return [json.loads(line)["message"] for line in err.splitlines() if line.startswith("{")]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_reaches_the_run_which_can_then_be_gone_on_with(tonight: Nights, number: int, code: int) -> None:
    tonight.config_file()
    tonight.world.faults.script("hang_before", method="POST", skip=1, seconds=60)
    running = start(tonight, "schedule")
    try:
        wait_for_post(tonight)
        running.send_signal(number)
        _, err = running.communicate(timeout=60)
    finally:
        running.kill()
    assert running.returncode == code, err
    assert "Traceback" not in err
    assert any("catching up with" in text for text in said(err))
    run = tonight.newest_run()
    assert (run.state, run.exit_code, run.command) == (records.INTERRUPTED, code, "run")
    assert tonight.states() == {"fcauth_1": "created", "fcauth_2": "attempting", "fcauth_3": "planned"}


def test_it_catches_up_once_says_when_it_runs_next_and_waits(tonight: Nights) -> None:
    day = tonight.now().date()
    tonight.config_file(schedule={"cron": f"0 0 {day.day} {day.month} *"})
    running = start(tonight, "schedule")
    try:
        lines: list[str] = []
        assert running.stderr is not None
        while not (lines and "next run:" in lines[-1]):
            lines.append(running.stderr.readline())
            assert lines[-1], lines
        running.send_signal(signal.SIGTERM)
        out, err = running.communicate(timeout=60)
    finally:
        running.kill()
    assert running.returncode == 143, err
    assert f"run {tonight.newest_run().run_id} of business date {day}: complete" in out
    messages = said("".join(lines))
    assert messages[-1].startswith(f"next run: {day.year + 1}-")
    assert "UTC, business date" in messages[-1]
    assert len(tonight.world.effects) == 3


def test_a_run_that_finds_the_lock_held_says_so_and_the_schedule_goes_on(tonight: Nights) -> None:
    tonight.config_file()
    tonight.world.faults.script("hang_before", method="POST", seconds=60)
    first = start(tonight, "run")
    second = None
    try:
        wait_for_post(tonight)
        second = start(tonight, "schedule")
        lines: list[str] = []
        assert second.stderr is not None
        while not (lines and "next run:" in lines[-1]):
            lines.append(second.stderr.readline())
            assert lines[-1], lines
        assert any("another run holds the lock" in text for text in said("".join(lines)))
        second.send_signal(signal.SIGTERM)
        second.communicate(timeout=60)
        tonight.world.faults.release_hanging()
        first.communicate(timeout=60)
    finally:
        first.kill()
        if second is not None:
            second.kill()
    assert (first.returncode, second.returncode) == (0, 143)
    wait_until(lambda: len(tonight.world.effects) == 3, "the first run's work")


def test_status_says_when_the_next_run_is(at: Relink) -> None:
    told = at("status", "--json").json["next_run"]
    assert told["timezone"] == "UTC"
    assert told["at"].endswith("T03:30:00Z")
    assert told["business_date"] == told["at"][:10]
    assert "next run by the schedule: " + told["shown"] in at("status").out
