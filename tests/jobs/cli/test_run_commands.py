"""The commands that decide and ask, as people and scripts call them."""

from __future__ import annotations

import getpass
import json
import signal
import socket
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from jobs.adapters import records
from jobs.adapters.database import open_database
from jobs.cli.common import print_json
from jobs.cli.results import as_plain, print_result
from jobs.simulator.world import World
from jobs.wiring import wire
from tests.jobs.cli.conftest import Relink, deployed
from tests.jobs.cli.processes import start, wait_for_post
from tests.jobs.conftest import MakeNights
from tests.jobs.nights import KEY, SCOPE, Nights, small_world

ROOT = Path(__file__).parents[3]


@pytest.fixture
def tonight(make_nights: MakeNights) -> Nights:
    """A world whose time is ours, since a command goes by the machine's clock."""
    return make_nights(small_world(start=datetime.now(UTC)))


@pytest.fixture
def at_night(tonight: Nights, relink: Relink, monkeypatch: pytest.MonkeyPatch) -> Relink:
    return deployed(tonight, relink, monkeypatch)


def test_run_prints_one_json_value_with_its_id_and_directory(at_night: Relink, tonight: Nights) -> None:
    ended = at_night("run", "--json")
    assert ended.code == 0
    told = ended.json
    assert Path(told["report_directory"]).name == f"run_id={told['run_id']}"
    assert (told["complete"], told["exit_code"], told["sent"], told["already_finished"]) == (True, 0, 3, False)
    assert told["counts"]["result"]["created"] == 3
    again = at_night("run", "--json")
    assert again.code == 0
    assert again.json["already_finished"] is True
    assert (again.json["run_id"], again.json["report_directory"]) == (told["run_id"], told["report_directory"])
    assert tonight.posts() == 3


def test_people_read_whether_anything_is_wrong_and_where_the_report_lies(at_night: Relink, tonight: Nights) -> None:
    ended = at_night("run")
    assert "complete" in ended.out
    assert "requests: 3 created" in ended.out
    assert f"report: {tonight.reports}" in ended.out
    assert "nothing was sent" in at_night("run").out


def test_a_stopped_run_says_why_on_stdout_too(at_night: Relink, tonight: Nights) -> None:
    tonight.world.revoke_key(KEY)
    ended = at_night("run", "--json")
    assert ended.code == 3
    assert "revoked" in ended.json["why"]
    assert Path(ended.json["report_directory"], "summary.json").exists()


def test_a_plan_is_made_carried_out_and_then_spent(at_night: Relink, tonight: Nights, tmp_path: Path) -> None:
    file = tmp_path / "tonight.json"
    planned = at_night("plan", "--out", str(file), "--json")
    assert planned.code == 0
    assert planned.json["plan_file"] == str(file)
    assert json.loads(file.read_text())["plan_hash"] == planned.json["plan_hash"]
    assert tonight.posts() == 0
    applied = at_night("apply", str(file), "--json")
    assert (applied.code, applied.json["sent"], applied.json["skipped"]) == (0, 3, [])
    assert applied.json["plan_hash"] == planned.json["plan_hash"]
    again = at_night("apply", str(file), "--json")
    assert (again.code, again.json["sent"], len(again.json["skipped"])) == (0, 0, 3)
    assert tonight.posts() == 3


def edit(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.parametrize("how", ["edited", "settings", "old"])
def test_a_plan_that_is_not_to_be_carried_out_is_refused(
    tonight: Nights, relink: Relink, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: str
) -> None:
    file = tmp_path / "plan.json"
    call = deployed(tonight, relink, monkeypatch)
    assert call("plan", "--out", str(file)).code == 0
    if how == "edited":
        edit(file, run_id="another")
    elif how == "settings":
        tonight.config_file(relink={"cooldown_days": 9})
    else:
        from dataclasses import replace
        from datetime import timedelta

        from jobs.plan_file import read_plan, write_plan

        plan = read_plan(file)
        write_plan(replace(plan, created_at=plan.created_at - timedelta(hours=25)), file)
    ended = call("apply", str(file))
    assert ended.code == 5
    told = {"edited": "was changed since", "settings": "settings changed", "old": "more than 24 hours"}[how]
    assert told in ended.err
    assert tonight.posts() == 0


def test_a_plan_that_is_not_there_is_a_fault_of_usage(at_night: Relink) -> None:
    ended = at_night("apply", "none.json")
    assert (ended.code, "none.json cannot be read" in ended.err) == (2, True)


def test_request_needs_one_way_to_select(at_night: Relink, tonight: Nights) -> None:
    for arguments in ([], ["--customer", "cus_1", "--authorization", "fcauth_1"]):
        ended = at_night("request", *arguments)
        assert (ended.code, "select by one of" in ended.err) == (2, True)
    assert len(tonight.world.log) == 0


def test_request_asks_those_of_a_file(at_night: Relink, tonight: Nights, tmp_path: Path) -> None:
    file = tmp_path / "chosen.csv"
    file.write_text("authorization_id\nfcauth_2\n")
    ended = at_night("request", "--file", str(file), "--json")
    assert (ended.code, ended.json["sent"], ended.json["command"]) == (0, 1, "request")
    assert list(tonight.states()) == ["fcauth_2"]


def test_who_settles_an_unknown_request_is_recorded(at_night: Relink, tonight: Nights) -> None:
    tonight.world.faults.script("error_500_before", method="POST", times=3)
    assert at_night("run").code == 4
    ended = at_night("request", "--authorization", "fcauth_1", "--resolve-unknown", "--json")
    assert (ended.code, ended.json["counts"]["result"]["created"]) == (0, 1)
    first, second = [one for one in tonight.stored() if one.authorization_id == "fcauth_1"]
    assert first.resolved_by == f"{getpass.getuser()} on {socket.gethostname()}"
    assert (second.state, second.request.attempt) == ("created", 2)


def test_collect_says_first_how_many_reads_it_will_spend(at_night: Relink, tonight: Nights) -> None:
    at_night("run")
    ended = at_night("collect", "--json")
    assert ended.code == 0
    assert "3 open sessions: 3 reads" in ended.err
    assert ended.json["open_sessions_read"] == 3
    assert tonight.reads("sessions.retrieve") == 3


def test_adopt_says_what_became_of_each(at_night: Relink, tonight: Nights) -> None:
    at_night("run")
    known = tonight.by_authorization()["fcauth_1"].session_id or ""
    ended = at_night("adopt", known, "fcsess_none", "--json")
    assert ended.code == 2
    assert {one["session_id"]: one["result"] for one in ended.json["sessions"]} == {
        known: "already followed",
        "fcsess_none": "refused",
    }
    assert ended.json["run_id"]
    assert ended.json["report_directory"]


@pytest.mark.parametrize("moment", ["yesterday", "2026-11-02T03:00:00", "2999-01-01T00:00:00Z"])
def test_adopt_refuses_a_time_that_is_none(at_night: Relink, tonight: Nights, moment: str) -> None:
    ended = at_night("adopt", "fcsess_x", "--requested-at", moment)
    assert (ended.code, "--requested-at" in ended.err) == (2, True)
    assert len(tonight.world.log) == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["run"],
        ["request", "--customer", "cus_1"],
        ["collect"],
        ["adopt", "fcsess_x"],
        ["apply", "plan.json"],
        ["backfill", "--from", "2026-01-01", "--to", "2026-01-02"],
        ["resume", "20260101T033000Z-0001"],
        ["retry", "20260101T033000Z-0001"],
        ["prune"],
    ],
)
def test_a_lock_that_is_held_ends_with_6(at_night: Relink, tonight: Nights, arguments: list[str]) -> None:
    if arguments[0] == "apply":
        assert at_night("plan", "--out", "plan.json").code == 0
    with wire(tonight.settings(), tonight.environment, holder="run"):
        ended = at_night(*arguments, "--json")
    assert ended.code == 6
    assert "another run holds the lock" in ended.err
    assert ended.json["exit_code"] == 6
    assert tonight.posts() == 0


def test_dry_run_of_a_database_that_does_not_exist_makes_none(
    tonight: Nights, relink: Relink, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    call = deployed(tonight, relink, monkeypatch, database={"url": f"sqlite:///{tmp_path / 'none.db'}"})
    for arguments in (["run", "--dry-run"], ["plan"], ["request", "--customer", "cus_1", "--dry-run"]):
        ended = call(*arguments)
        assert ended.code == 3
        assert "ledger" in ended.out + ended.err
    assert not (tmp_path / "none.db").exists()


# A run in a process of its own


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_midway_leaves_a_run_that_can_be_gone_on_with(tonight: Nights, number: int, code: int) -> None:
    tonight.config_file()
    # The second request hangs before Stripe acts on it, and there the signal comes.
    tonight.world.faults.script("hang_before", method="POST", skip=1, seconds=60)
    running = start(tonight, "run")
    try:
        wait_for_post(tonight)
        running.send_signal(number)
        _, err = running.communicate(timeout=60)
    finally:
        running.kill()
    assert running.returncode == code, err
    assert "Traceback" not in err
    tonight.world.faults.release_hanging()
    run = tonight.newest_run()
    assert (run.state, run.exit_code) == (records.INTERRUPTED, code)
    assert tonight.states() == {"fcauth_1": "created", "fcauth_2": "attempting", "fcauth_3": "planned"}
    assert tonight.run(clock=lambda: datetime.now(UTC)).exit_code == 0
    assert set(tonight.world.contacts_by_authorization().values()) == {1}
    assert len(tonight.world.effects) == 3


def test_a_second_run_beside_a_first_leaves_with_6(tonight: Nights) -> None:
    tonight.config_file()
    tonight.world.faults.script("hang_before", method="POST", seconds=60)
    first = start(tonight, "run")
    try:
        wait_for_post(tonight)
        second = start(tonight, "run", "--json")
        out, err = second.communicate(timeout=60)
        tonight.world.faults.release_hanging()
        first.communicate(timeout=60)
    finally:
        first.kill()
    assert (second.returncode, json.loads(out)["exit_code"]) == (6, 6), err
    assert first.returncode == 0
    assert set(tonight.world.contacts_by_authorization().values()) == {1}
    with open_database(tonight.database_url) as database:
        assert len(records.requests_since(database, SCOPE, datetime(2000, 1, 1, tzinfo=UTC).date())) == 3


def test_every_json_line_names_its_run_and_where_it_is_its_merchant_and_stage(
    nights: Nights, relink: Relink, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = deployed(nights, relink, monkeypatch, log={"format": "json", "level": "debug"})("run", "--json")
    lines = [json.loads(line) for line in ended.err.splitlines()]
    of_run = [line for line in lines if line["logger"].startswith("jobs.")]
    assert {line.get("run_id") for line in of_run} == {ended.json["run_id"]}
    calls = [line for line in lines if line["logger"] == "urllib3.connectionpool" and "/accounts" in line["message"]]
    assert {(line["merchant"], line["stage"]) for line in calls} == {("main", "pull")}
    assert [line.get("stage") for line in of_run if line["message"].startswith("stage report took")] == [None]


def test_what_a_brake_holds_and_what_is_skipped_is_told_masked_and_on_one_line(
    make_nights: MakeNights, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bank's name comes from Stripe and stands in the reasons; why somebody is left out may be a person's words."""
    world = World.empty(seed=11)
    bank = "Kim kim.doe@bank.example\x1b[2J\nreport: forged"
    for number in range(1, 25):
        world.add_authorization(
            ("customer", f"cus_{number}"), institution=bank, authorization_id=f"fcauth_{number}", tokenized=False
        )
    nights = make_nights(world)
    nights.sections["brakes"] = {"newly_broken_share": 1.0, "newly_broken_share_7d": 1.0, "institution_share": 0.01}
    assert nights.run().exit_code == 0
    for number in (1, 2):
        world.break_authorization(f"fcauth_{number}")
    held = nights.next_night()
    assert held.exit_code == 5
    held.nights[0].skipped.append(("fcauth_9", f"left alone at {bank}"))
    print_result(held, {})
    said = capsys.readouterr().out
    [one] = as_plain(held)["held"]
    [left] = as_plain(held)["skipped"]
    for told in (said, *one["why"], left["why"]):
        assert "Kim [email]\\x1b[2J\\nreport: forged" in told
    assert [line for line in said.splitlines() if line.startswith("report: ")] == [f"report: {held.report_directory}"]
    print_json(as_plain(held))
    assert "kim.doe" not in capsys.readouterr().out
    stopped = replace(held, why=f"2 faults in the ledger:\n  a row of {bank}")
    print_result(stopped, {})
    for told in (capsys.readouterr().out, as_plain(stopped)["why"]):
        assert "2 faults in the ledger:\n  a row of Kim [email]\\x1b[2J\n" in told
