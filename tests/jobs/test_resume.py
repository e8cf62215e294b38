"""`relink resume` finishes the night that another run began, with the same end as if nothing had happened."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from jobs import nightly
from jobs.adapters import records
from jobs.adapters.database import Database, open_database
from jobs.nightly import RunResult
from jobs.resumption import work_to_resume
from jobs.selection import Selection
from jobs.signals import Terminated, exit_code_of, interrupt_once
from jobs.simulator.server import SimulatorServer
from jobs.work import Work
from reconcile.contacts import contact_date
from reconcile.errors import SettingsError
from reconcile.model import RunStamp, State
from tests.jobs.conftest import MakeNights
from tests.jobs.dying import EARLY_POINTS, POINTS, die
from tests.jobs.nights import SCOPE, Nights, add_customer, assert_ties, outcomes, small_world, steps, table
from tests.jobs.test_brake import BRAKES

NEW = ("request_id", "session_id", "stripe_request_id", "requested_at", "calls")
"""Columns of `relink_requests` in which two runs that did the same may differ."""


def work_for(nights: Nights, run_id: str | None = None) -> Work:
    with open_database(nights.database_url) as database:
        return work_to_resume(database, run_id or records.list_runs(database, limit=1)[0].run_id)


def resume(nights: Nights, run_id: str | None = None) -> RunResult:
    return nights.run(work_for(nights, run_id))


def asked(result: RunResult) -> list[dict[str, Any]]:
    rows = [{name: value for name, value in row.items() if name not in NEW} for row in table(result, "relink_requests")]
    return sorted(rows, key=lambda row: str(row["authorization_id"]))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """The night of a twin that nothing happened to."""
    directory, world = tmp_path_factory.mktemp("twin"), small_world()
    with SimulatorServer(world) as server:
        return Nights(world, server, directory, f"sqlite:///{directory / 'relink.db'}").run()


@pytest.mark.parametrize("point", [*EARLY_POINTS, *POINTS])
def test_equals_the_night_that_nothing_disturbed(both_nights: Nights, undisturbed: RunResult, point: str) -> None:
    nights = both_nights
    die(nights, point)
    dead = nights.newest_run()
    nights.world.advance(hours=2)
    result = resume(nights)
    assert (result.exit_code, result.complete) == (0, True)
    assert nights.world.contacts_by_authorization() == {"fcauth_1": 1, "fcauth_2": 1, "fcauth_3": 1}
    assert asked(result) == asked(undisturbed)
    told = {name: "request" if step == "open_session" else step for name, step in steps(result).items()}
    assert told == steps(undisturbed)
    assert_ties(result)
    assert nights.newest_run().resumed_from == dead.run_id
    assert nights.link("latest") == nights.link("last_attempt")
    before = nights.posts()
    again = nights.run()
    assert (again.already_finished, nights.posts()) == (result.run_id, before)


STAGES = (*(name for name, _ in nightly.STAGES), "record", "relink", "report")


@pytest.mark.parametrize("stage", STAGES)
def test_after_a_sigterm_in_any_stage(
    nights: Nights, undisturbed: RunResult, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal is a real one, which the process sends itself where the stage begins."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    recorded = records.set_stage

    def set_stage(database: Database, run_id: str, name: str) -> None:
        recorded(database, run_id, name)
        if name == stage:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(records, "set_stage", set_stage)
        interrupt_once()
        try:
            with pytest.raises(Terminated) as ended:
                nights.run()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    assert exit_code_of(ended.value) == 143
    dead = nights.newest_run()
    assert (dead.state, dead.exit_code, dead.stage) == (records.INTERRUPTED, 143, stage)
    nights.world.advance(hours=1)
    result = resume(nights)
    assert (result.exit_code, result.stamp.business_date) == (0, dead.business_date)
    assert asked(result) == asked(undisturbed)
    assert nights.world.contacts_by_authorization() == {"fcauth_1": 1, "fcauth_2": 1, "fcauth_3": 1}
    assert_ties(result)


def test_goes_on_from_the_snapshot_and_keeps_the_business_date(both_nights: Nights) -> None:
    nights = both_nights
    die(nights, "planned")
    dead, lists = nights.newest_run(), nights.reads("accounts.list")
    nights.world.advance(hours=23)
    result = resume(nights)
    assert result.stamp.business_date == dead.business_date < nights.now().date()
    assert nights.reads("accounts.list") == lists
    assert nights.posts() == 3


def test_an_old_snapshot_is_not_acted_on(nights: Nights) -> None:
    die(nights, "planned")
    lists = nights.reads("accounts.list")
    nights.world.advance(hours=25)
    nights.world.heal_authorization("fcauth_2")
    result = resume(nights)
    assert nights.reads("accounts.list") > lists
    assert set(nights.world.contacts_by_authorization()) == {"fcauth_1", "fcauth_3"}
    assert steps(result)["fca_2_1"] == "none"


def test_a_snapshot_older_than_that_of_another_run_is_not_acted_on(nights: Nights) -> None:
    """By it an outage that opened in between would be over, its unknown request settled, and its customer be written to again."""
    nights.sections["relink"] = {"delivery": "hosted_email", "return_url": "https://shop.example/back"}
    die(nights, "planned")
    dead = nights.newest_run().run_id
    nights.world.advance(hours=1)
    for number in (1, 2, 3):
        nights.world.heal_authorization(f"fcauth_{number}")
    for number in (5, 6):
        nights.world.break_authorization(f"fcauth_{number}")
    nights.world.faults.script("error_500_after", method="POST", times=3)
    die(nights, "after_first")
    assert sorted(one.state for one in nights.stored() if one.state != State.NOT_SENT) == ["attempting", "unknown"]
    (unknown,) = (one.authorization_id for one in nights.stored() if one.state == State.UNKNOWN)
    nights.world.advance(hours=1)
    resume(nights, dead)
    later = nights.next_night(days=8)
    assert nights.world.contacts_by_authorization()[unknown] == 1
    assert {one.request.breakage.number for one in nights.stored()} == {1}
    assert {step for name, step in steps(later).items() if name.startswith(unknown.replace("auth", "a"))} == {"review"}


def test_accounts_are_read_again_before_their_customer_is_asked(nights: Nights) -> None:
    """Even minutes after the snapshot: whoever stopped the run may have mended something."""
    die(nights, "planned")
    nights.world.advance(hours=0.1)
    nights.world.heal_authorization("fcauth_2")
    result = resume(nights)
    assert set(nights.world.contacts_by_authorization()) == {"fcauth_1", "fcauth_3"}
    assert {one.authorization_id: one.outcome for one in nights.stored() if one.outcome} == {"fcauth_2": "healed"}
    assert_ties(result)


def test_a_resumed_run_that_dies_is_resumed(nights: Nights) -> None:
    die(nights, "after_first")
    nights.world.advance(hours=1)
    die(nights, "after_first", work_for(nights))
    nights.world.advance(hours=1)
    result = resume(nights)
    assert result.exit_code == 0
    assert nights.world.contacts_by_authorization() == {"fcauth_1": 1, "fcauth_2": 1, "fcauth_3": 1}
    assert [row["authorization_id"] for row in asked(result)] == ["fcauth_1", "fcauth_2", "fcauth_3"]
    assert_ties(result)


def test_what_the_run_was_refused_counts_as_its_own(nights: Nights) -> None:
    nights.world.delete_customer("cus_1")
    die(nights, "after_first")
    nights.world.advance(hours=1)
    result = resume(nights)
    assert result.exit_code == 4
    assert {row["authorization_id"]: row["result"] for row in asked(result)} == {
        "fcauth_1": "rejected",
        "fcauth_2": "created",
        "fcauth_3": "created",
    }
    assert_ties(result)


def test_a_release_that_the_run_had_spent_still_counts(make_nights: MakeNights) -> None:
    nights = make_nights(small_world(customers=10, broken=[1], accounts=1))
    nights.sections["brakes"] = BRAKES
    nights.run()
    nights.world.advance(days=1)
    for number in range(2, 7):
        nights.world.break_authorization(f"fcauth_{number}")
    held = nights.run()
    plan_hash = held.nights[0].held_plan_hash
    nights.world.advance(hours=1)
    die(nights, "planned", Work("run", released_brake=plan_hash, arguments={"override_brakes": plan_hash}))
    nights.world.advance(hours=1)
    result = resume(nights)
    assert result.exit_code == 0
    assert nights.world.contacts_by_authorization() == {f"fcauth_{number}": 1 for number in range(1, 7)}
    assert nights.run(Work("run", released_brake=plan_hash)).exit_code == 5


def test_the_brakes_remember_what_the_dead_run_had_not_come_to_write_down(make_nights: MakeNights) -> None:
    """Else accounts of that night would count as new again in every later one."""
    nights = make_nights(small_world())
    die(nights, "decided")
    resume(nights)
    with open_database(nights.database_url) as database:
        assert records.known_affected(database, SCOPE) == {f"fca_{n}_{m}" for n in (1, 2, 3) for m in (1, 2)}


def test_what_an_interrupted_run_spent_is_recorded(nights: Nights) -> None:
    nights.world.faults.script("rate_limit", method="POST", times=100)

    def sleep(_seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        nights.run(sleep=sleep)
    run = nights.newest_run()
    with open_database(nights.database_url) as database:
        calls = {one.kind: one.calls for one in records.api_calls_of_run(database, run.run_id)}
    assert (run.state, calls) == (records.INTERRUPTED, {"read": 1, "write": 1})


def refusal(nights: Nights, run_id: str) -> str:
    with pytest.raises(SettingsError) as refused:
        work_for(nights, run_id)
    return str(refused.value)


def test_refuses_what_it_cannot_finish(nights: Nights) -> None:
    assert "relink runs" in refusal(nights, "20260101T000000Z-0000")
    complete = nights.run().run_id
    assert f"relink retry {complete}" in refusal(nights, complete)
    nights.world.advance(days=1)
    nights.world.break_authorization("fcauth_5")
    die(nights, "planned")
    dead = nights.newest_run().run_id
    nights.world.advance(days=1)
    later = nights.run().run_id
    assert later in refusal(nights, dead)
    with open_database(nights.database_url) as database:
        records.start_run(
            *(database, "20260102T000000Z-0000", "apply", nights.now().date(), nights.now()),
            settings_hash="",
            settings={},
        )
    assert "relink apply" in refusal(nights, "20260102T000000Z-0000")
    assert {one.state for one in nights.stored()} <= {State.CREATED, State.NOT_SENT}


def test_what_customers_answered_before_the_run_died_is_in_the_report_of_the_night(nights: Nights) -> None:
    nights.run()
    nights.world.advance(days=1)
    nights.world.answer(str(nights.by_authorization()["fcauth_1"].session_id), "whole", lag_seconds=0)
    nights.world.break_authorization("fcauth_5")
    die(nights, "planned")
    dead = nights.newest_run().run_id
    nights.world.advance(hours=1)
    result = resume(nights)
    assert outcomes(result)["fcauth_1"] == "relinked"
    assert_ties(result)
    assert nights.last_attempt()["resumed_from"] == dead


def test_a_dry_run_says_what_would_be_asked_and_changes_nothing(nights: Nights) -> None:
    die(nights, "after_first")
    nights.world.advance(hours=1)
    before, posts = nights.knowledge(), nights.posts()
    with open_database(nights.database_url) as database:
        work = work_to_resume(database, nights.newest_run().run_id, ["main"], dry_run=True)
    result = nights.run(work)
    assert (result.exit_code, nights.knowledge(), nights.posts()) == (0, before, posts)
    assert {row["result"] for row in table(result, "relink_requests")} == {"would_request"}
    assert_ties(result)


def test_refuses_a_run_of_other_merchants(nights: Nights) -> None:
    die(nights, "planned")
    run_id = nights.newest_run().run_id
    with open_database(nights.database_url) as database, pytest.raises(SettingsError, match="is of merchant main"):
        work_to_resume(database, run_id, ["other"])


def test_the_cooldown_of_a_resumed_night_counts_from_the_day_on_which_it_asked(nights: Nights) -> None:
    die(nights, "planned")
    nights.world.advance(days=2)
    resume(nights)
    assert nights.world.contacts_by_authorization()["fcauth_1"] == 1
    asked = nights.by_authorization()["fcauth_1"]
    stamp = RunStamp("r", "run", nights.now(), nights.now().date(), "UTC")
    assert contact_date(asked, stamp) == nights.now().date() > asked.business_date


def test_who_was_asked_by_a_late_resume_has_all_days_for_an_answer(nights: Nights) -> None:
    """Its business date is older than `pending_days`, its sessions are not."""
    die(nights, "planned")
    nights.world.advance(days=9)
    resume(nights)
    assert outcomes(nights.next_night())["fcauth_1"] == "pending"
    assert outcomes(nights.next_night(days=6))["fcauth_1"] == "pending"
    assert nights.world.contacts_by_authorization()["fcauth_1"] == 1
    nights.next_night()
    first, second = [one for one in nights.stored() if one.authorization_id == "fcauth_1" and one.session_id]
    assert (first.outcome, second.request.attempt) == ("expired", 2)


def test_a_late_resume_keeps_the_cooldown_both_ways(nights: Nights) -> None:
    """What was asked since its business date stands before it, and what it asks stands before later nights, also once that outage is over."""
    for number, holder in ((7, "cus_1"), (8, "cus_2")):
        add_customer(nights.world, number, holder=holder)
    nights.load_ledger()
    die(nights, "planned")
    dead = nights.newest_run().run_id
    nights.world.advance(days=2)
    nights.world.break_authorization("fcauth_8")
    nights.run(Work("request", selection=Selection(authorizations=frozenset({"fcauth_8"}))))
    nights.world.advance(days=2)
    assert steps(resume(nights, dead))["fca_2_1"] == "cooldown"
    nights.world.answer(str(nights.by_authorization()["fcauth_1"].session_id), "whole", lag_seconds=0)
    nights.world.break_authorization("fcauth_7")
    later = nights.next_night()
    assert outcomes(later)["fcauth_1"] == "relinked"
    assert steps(later)["fca_7_1"] == "cooldown"
    assert steps(nights.next_night(days=2))["fca_7_1"] == "cooldown"
    nights.next_night()
    assert nights.world.contacts_by_authorization() == {
        "fcauth_1": 1,
        "fcauth_2": 1,
        "fcauth_3": 1,
        "fcauth_7": 1,
        "fcauth_8": 1,
    }


def test_a_late_resume_spends_the_cap_of_its_business_date(nights: Nights) -> None:
    nights.sections["relink"] = {"max_requests_per_run": 2}
    die(nights, "after_first")
    nights.world.advance(hours=25)
    result = resume(nights)
    assert sorted(one.state for one in nights.stored() if one.state != State.NOT_SENT) == ["created", "unknown"]
    assert list(steps(result).values()).count("capped") == 4
    nights.run()
    assert nights.world.contacts_by_authorization() == {"fcauth_1": 1, "fcauth_2": 1, "fcauth_3": 1}
