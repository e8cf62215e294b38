"""Past runs and how things stand, as the commands tell them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from jobs.adapters import records
from jobs.adapters.database import open_database
from jobs.adapters.lease import acquire
from jobs.standing import standing
from reconcile.model import BreakageKey, State
from tests.jobs.cli.conftest import Relink, deployed
from tests.jobs.conftest import MakeNights
from tests.jobs.nights import KEY, SCOPE, Nights, small_world


def leave_unfinished(nights: Nights, run_id: str, *states: str, attempting_at: datetime | None = None) -> list[str]:
    """Requests as a run leaves them that dies: one in each state, each of a customer of its own."""
    with open_database(nights.database_url) as database, acquire(database, "test", renew=False) as lease:
        template = nights.stored()[0].request
        made = []
        for number, state in enumerate(states, start=1):
            request = replace(
                template, request_id=f"req_{number}", breakage=BreakageKey(f"fcauth_left_{number}", "connection", 1)
            )
            at = attempting_at or nights.now()
            records.plan_requests(database, SCOPE, run_id, nights.now().date(), [(request, "", "v")], at)
            if state != State.PLANNED:
                records.mark_attempting(database, request.request_id, at, lease.token)
            if state == State.UNKNOWN:
                records.record_result(database, request.request_id, state, at, error_type="api_error")
            made.append(request.request_id)
    return made


def test_runs_lists_the_newest_first_up_to_the_limit(at: Relink, nights: Nights) -> None:
    first = nights.run().run_id
    second = nights.next_night().run_id
    third = nights.next_night().run_id
    assert [run["run_id"] for run in at("runs", "--json").json] == [third, second, first]
    assert [run["run_id"] for run in at("runs", "list", "--json", "--limit", "2").json] == [third, second]
    shown = at("runs", "--limit", "1").out
    assert third in shown
    assert second not in shown


def test_the_list_before_any_run_says_so(at: Relink) -> None:
    assert at("runs").out == "no runs yet\n"
    assert at("runs", "--json").json == []


def test_show_tells_everything_that_is_recorded_of_a_run(at: Relink, nights: Nights) -> None:
    result = nights.run()
    told = at("runs", "show", result.run_id, "--json").json
    assert (told["state"], told["exit_code"], told["command"]) == ("complete", 0, "run")
    assert told["report_directory"] == str(result.report_directory)
    assert told["requests"] == {"created": 3}
    assert told["started_at"] == "2026-11-02T03:00:00Z"
    assert told["settings"]["relink"]["cooldown_days"] == 4
    [merchant] = told["merchants"]
    assert (merchant["merchant"], merchant["mode"], merchant["complete"]) == ("main", "sandbox", True)
    assert merchant["counts"]["findings"] == {"inactive": 6, "ok": 6}
    calls = {(each["kind"], each["purpose"]): each["calls"] for each in told["api_calls"]}
    assert calls[("write", "sessions")] == 3
    assert calls[("read", "pull")] == 1
    shown = at("runs", "show", result.run_id).out
    for part in (result.run_id, str(result.report_directory), "3 created", "6 inactive", "write for sessions: 3"):
        assert part in shown


def test_show_tells_why_a_run_stopped(at: Relink, nights: Nights) -> None:
    nights.world.revoke_key(KEY)
    result = nights.run()
    told = at("runs", "show", result.run_id, "--json").json
    assert (told["state"], told["exit_code"]) == ("stopped", 3)
    assert "API key" in told["why"]
    assert KEY not in at("runs", "show", result.run_id).out


def test_an_unknown_run_is_a_fault_of_usage(at: Relink, nights: Nights) -> None:
    ended = at("runs", "show", "20260101T000000Z-beef", "--json")
    assert ended.code == 2
    assert "relink runs list" in ended.json["error"]


def test_status_counts_what_is_open(
    make_nights: MakeNights, database_url: str, relink: Relink, monkeypatch: pytest.MonkeyPatch
) -> None:
    nights = make_nights(database_url=database_url)
    at = deployed(nights, relink, monkeypatch, stripe={"monthly_read_allocation": 1000})
    first = nights.run()
    with open_database(nights.database_url) as database:
        records.mark_offered(database, SCOPE, str(nights.by_authorization()["fcauth_1"].session_id), nights.now())
    requested_at = nights.stored()[0].requested_at
    nights.world.answer(str(nights.by_authorization()["fcauth_2"].session_id), "whole")
    last = nights.next_night()
    ended = at("status", "--json")
    assert ended.code == 0
    [merchant] = ended.json["merchants"]
    sessions = merchant["open_sessions"]
    with open_database(nights.database_url) as database:
        assert sessions["sessions"] == len(records.open_requests(database, SCOPE)) == 2
    assert sessions["by_delivery"]["modal"]["handed_over"] == 1
    assert requested_at is not None
    assert datetime.fromisoformat(sessions["oldest_requested_at"]) == requested_at
    assert merchant["last_complete_run"]["run_id"] == merchant["last_attempt"]["run_id"] == last.run_id != first.run_id
    assert merchant["snapshot"]["accounts"] == 12
    assert (merchant["planned"], merchant["attempting"], merchant["unknown"]) == (0, 0, [])
    assert (merchant["reads_last_30_days"] > 0, merchant["monthly_read_allocation"]) == (True, 1000)
    assert (ended.json["lock"], ended.json["schema"]["status"]) == (None, "current")
    shown = at("status").out
    assert "open sessions: 2" in shown
    assert "2 modal (1 handed over)" in shown
    assert "of 1000 allowed" in shown


def test_status_tells_a_stopped_attempt_from_the_last_complete_run(at: Relink, nights: Nights) -> None:
    complete = nights.run().run_id
    nights.world.revoke_key(KEY)
    stopped = nights.next_night().run_id
    [merchant] = at("status", "--json").json["merchants"]
    assert merchant["last_complete_run"]["run_id"] == complete
    assert (merchant["last_attempt"]["run_id"], merchant["last_attempt"]["exit_code"]) == (stopped, 3)


def test_status_shows_what_a_dead_run_left(at: Relink, nights: Nights) -> None:
    nights.run()
    with open_database(nights.database_url) as database:
        later = nights.now() + timedelta(hours=1)
        records.start_run(database, "dead", "run", later.date(), later, settings_hash="hash", settings={})
    leave_unfinished(nights, "dead", "planned", "planned", "attempting")
    [merchant] = at("status", "--json").json["merchants"]
    assert (merchant["planned"], merchant["attempting"]) == (2, 1)
    shown = at("status").out
    assert "2 planned, 1 being attempted, left by a run that died" in shown
    assert "last run: dead (run) of 2026-11-02: running; it died" in shown


def test_status_shows_who_holds_the_lock_and_takes_its_work_for_unfinished(at: Relink, nights: Nights) -> None:
    run_id = nights.run().run_id
    leave_unfinished(nights, run_id, "planned")
    with open_database(nights.database_url) as database, acquire(database, "run of tonight", renew=False):
        ended = at("status", "--json")
        shown = at("status").out
    assert ended.json["lock"]["holder"] == "run of tonight"
    assert "held by run of tonight" in shown
    assert "died" not in shown


def test_status_says_of_each_unknown_how_to_settle_it(
    make_nights: MakeNights, relink: Relink, monkeypatch: pytest.MonkeyPatch
) -> None:
    nights = make_nights(small_world(start=datetime.now(UTC)))
    at = deployed(nights, relink, monkeypatch)
    run_id = nights.run().run_id
    since = nights.now() - timedelta(hours=3)
    [request_id] = leave_unfinished(nights, run_id, "unknown", attempting_at=since)
    [merchant] = at("status", "--json").json["merchants"]
    [unknown] = merchant["unknown"]
    assert unknown["request_id"] == request_id
    assert unknown["authorization_id"] == "fcauth_left_1"
    assert datetime.fromisoformat(unknown["since"]) == since
    assert "relink request --authorization fcauth_left_1 --resolve-unknown" in unknown["how_to_settle"]
    assert "after 21 h" in unknown["how_to_settle"]
    shown = at("status").out
    assert unknown["idempotency_key"] in shown
    assert request_id in shown
    with open_database(nights.database_url) as database:
        later = standing(nights.settings(), database, nights.now() + timedelta(hours=22))
    assert later["merchants"][0]["unknown"][0]["how_to_settle"].startswith("nothing:")


def test_status_shows_a_held_plan_with_the_command_that_releases_it(
    make_nights: MakeNights, relink: Relink, monkeypatch: pytest.MonkeyPatch
) -> None:
    nights = make_nights(small_world(start=datetime.now(UTC) - timedelta(days=1), broken=()))
    nights.sections["brakes"] = {"minimum": 1, "newly_broken_share": 0.01, "newly_broken_share_7d": 0.01}
    at = deployed(nights, relink, monkeypatch)
    nights.run()
    for number in (1, 2, 3):
        nights.world.break_authorization(f"fcauth_{number}")
    held = nights.next_night()
    assert held.exit_code == 5
    [plan] = at("status", "--json").json["held_plans"]
    assert (plan["merchant"], plan["requests"], plan["run_id"]) == ("main", 3, held.run_id)
    assert f"relink run --override-brakes {plan['plan_hash']}" in at("status").out


def test_status_names_merchants_without_a_run(at: Relink) -> None:
    [merchant] = at("status", "--json").json["merchants"]
    assert (merchant["mode"], merchant["last_attempt"], merchant["snapshot"]) == (None, None, None)
    assert at("status").code == 0


def test_looking_creates_no_database(make_nights: MakeNights, relink: Relink, monkeypatch: pytest.MonkeyPatch) -> None:
    nights = make_nights()
    missing = nights.directory / "elsewhere" / "relink.db"
    at = deployed(nights, relink, monkeypatch, database={"url": f"sqlite:///{missing}"})
    ended = at("status", "--json")
    assert (ended.code, ended.json["database_exists"]) == (0, False)
    assert at("runs").code == 0
    assert at("history", "fca_1_1").code == 2
    assert not missing.parent.exists()
    assert "not created yet" in at("status").out
