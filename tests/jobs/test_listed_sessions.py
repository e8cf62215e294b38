"""Sessions that `ledger.sessions_query` yields are followed like ours, each read once, and never stop a night."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import create_engine, text

import jobs.listed_sessions
from jobs.adapters import records
from jobs.adapters.database import open_database
from jobs.backfill import DateResult, Only, backfill
from jobs.history import history
from jobs.nightly import RunResult
from jobs.settings import parse_settings, settings_hash
from jobs.simulator.behaviour import Behaviour
from jobs.wiring import wire
from jobs.work import Work
from reconcile.errors import SettingsError
from reports.notice import RunEnd, notice
from tests.jobs.conftest import MakeNights
from tests.jobs.dying import die
from tests.jobs.losing import lose, made_for
from tests.jobs.nights import SCOPE, Nights, assert_ties, make_session, outcomes, small_world, steps, table
from tests.jobs.rough_month import files_of

QUERY = "SELECT session_id, requested_at FROM portal_sessions"


def portal(nights: Nights, *rows: tuple[str, str | None]) -> None:
    """The merchant's own table of the sessions that their portal made, beside the embedded ledger."""
    engine = create_engine(nights.database_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE IF NOT EXISTS portal_sessions (session_id TEXT, requested_at TEXT)"))
        connection.execute(text("DELETE FROM portal_sessions"))
        for session_id, requested_at in rows:
            values = {"session_id": session_id, "requested_at": requested_at}
            connection.execute(text("INSERT INTO portal_sessions VALUES (:session_id, :requested_at)"), values)
    engine.dispose()
    nights.sections["ledger"] = {"sessions_query": QUERY}


def made_elsewhere(nights: Nights, authorization_id: str | None) -> str:
    number = (authorization_id or "fcauth_1").removeprefix("fcauth_")
    return make_session(nights.server.base_url, f"cus_{number}", authorization_id)


def reads(result: RunResult) -> dict[str, int]:
    calls = result.summary["api_calls"]
    assert isinstance(calls, dict)
    return {purpose: count for purpose, count in calls["reads"].items() if purpose in ("adopt", "orphans")}


def told(result: RunResult) -> dict[str, object]:
    listed = result.summary["sessions_query"]
    assert isinstance(listed, list)
    (one,) = listed
    assert isinstance(one, dict)
    return one


def test_a_session_made_elsewhere_is_followed_to_its_end_and_its_customer_is_not_asked(both_nights: Nights) -> None:
    nights = both_nights
    session_id = made_elsewhere(nights, "fcauth_1")
    asked_at = (nights.now() - timedelta(days=1)).replace(microsecond=0)
    portal(nights, (session_id, asked_at.isoformat()))
    first = nights.run()
    assert (first.exit_code, nights.posts(), first.summary["sent"]) == (0, 3, 2), "two by us, and the one of the portal"
    assert_ties(first)
    assert (steps(first)["fca_1_1"], outcomes(first)["fcauth_1"]) == ("open_session", "pending")
    assert {row["authorization_id"] for row in table(first, "relink_requests")} == {"fcauth_2", "fcauth_3"}
    stored = nights.by_authorization()["fcauth_1"]
    assert (stored.request.origin, stored.request.attempt, stored.requested_at) == ("sessions_query", 1, asked_at)
    assert reads(first) == {"adopt": 1}
    assert told(first) == {
        "merchant": "main",
        "yielded": 1,
        "followed_already": 0,
        "adopted": [session_id],
        "refused": [],
        "unread": 0,
    }
    with open_database(nights.database_url) as database:
        texts = [one.text for one in history(database, SCOPE, session_id)]
    assert any("followed by `ledger.sessions_query`: attempt 1" in one for one in texts)
    before = nights.knowledge()
    nights.world.advance(seconds=60)
    again = nights.run(Work("collect", from_stored=True, sends=False))
    assert (again.exit_code, reads(again), told(again)["followed_already"]) == (0, {}, 1)
    checked = "relink_session_checks"  # it is followed like ours, so a day after the asking it is looked at
    assert {**nights.knowledge(), checked: []} == {**before, checked: []}
    nights.world.answer(session_id, "whole")
    second = nights.next_night()
    assert outcomes(second)["fcauth_1"] == "relinked"
    assert_ties(second)
    assert reads(second) == {}


def test_a_night_that_dies_after_following_one_leaves_its_outage_no_other_ones_number(both_nights: Nights) -> None:
    """Healed before anybody could record it, the outage is over; the next one is asked about as an outage of its own."""
    nights = both_nights
    portal(nights, (made_elsewhere(nights, "fcauth_1"), None))
    die(nights, "pulled")
    (followed,) = nights.stored()
    assert (followed.request.breakage.number, followed.request.attempt) == (1, 1)
    nights.world.heal_authorization("fcauth_1")
    nights.next_night()
    nights.world.advance(days=10)
    nights.world.break_authorization("fcauth_1")
    nights.run()
    asked = [one.request for one in nights.stored() if one.authorization_id == "fcauth_1"]
    assert [(one.breakage.number, one.attempt) for one in asked] == [(1, 1), (2, 1)]
    with open_database(nights.database_url) as database:
        outages = records.breakages_of(database, SCOPE, "fcauth_1")
    assert [(one.key.number, one.closed_reason) for one in outages] == [(1, "cured"), (2, None)]


def test_wrong_ones_are_told_each_night_read_once_and_stop_nothing(nights: Nights) -> None:
    plain = made_elsewhere(nights, None)
    good = made_elsewhere(nights, "fcauth_2")
    portal(nights, (plain, None), ("fcsess_none", None), (good, None))
    first = nights.run()
    assert (first.exit_code, reads(first), told(first)["adopted"]) == (0, {"adopt": 3}, [good])
    refused = [
        {"session_id": plain, "why": "it has no relink_options, so it repairs nothing"},
        {"session_id": "fcsess_none", "why": "Stripe has no such session"},
    ]
    assert told(first)["refused"] == sorted(refused, key=lambda one: one["session_id"])
    assert nights.posts() == 4, "two made elsewhere, and the two customers whose sessions nobody made"
    second = nights.next_night()
    assert (second.exit_code, reads(second), told(second)["refused"]) == (0, {}, told(first)["refused"])
    text_of_notice = notice(RunEnd("run", 0, ["main"], summary=second.summary)).text
    assert "sessions of ledger.sessions_query for main: 0 adopted, 2 cannot be followed" in text_of_notice


def test_a_session_of_an_authorization_that_becomes_known_is_read_again(nights: Nights) -> None:
    nights.run()
    nights.world.add_authorization(("customer", "cus_9"), authorization_id="fcauth_9")
    session_id = made_elsewhere(nights, "fcauth_9")
    portal(nights, (session_id, None))
    collect = Work("collect", from_stored=True, sends=False)
    nights.world.advance(seconds=60)
    first = nights.run(collect)
    assert reads(first) == {"adopt": 1}
    assert "fcauth_9 is not known" in str(told(first)["refused"])
    nights.world.advance(seconds=60)
    assert reads(nights.run(collect)) == {}
    later = nights.next_night()
    assert (told(later)["adopted"], told(later)["refused"]) == ([session_id], [])


def test_a_dry_run_adopts_nothing_and_says_how_many_it_would_read(nights: Nights) -> None:
    nights.run(relink={"max_requests_per_run": 0})
    portal(nights, (made_elsewhere(nights, "fcauth_1"), None))
    before = nights.knowledge()
    nights.world.advance(days=1)
    dry = nights.run(Work("plan", dry_run=True))
    assert (dry.exit_code, reads(dry), told(dry)["adopted"], told(dry)["unread"]) == (0, {}, [], 1)
    assert nights.knowledge() == before


def test_no_more_than_a_bounded_number_is_read_in_a_night_the_newest_first(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert jobs.listed_sessions.MOST_READS == 100
    monkeypatch.setattr("jobs.listed_sessions.MOST_READS", 1)
    older, newer = made_elsewhere(nights, "fcauth_1"), made_elsewhere(nights, "fcauth_2")
    portal(nights, (older, (nights.now() - timedelta(days=2)).isoformat()), (newer, nights.now().isoformat()))
    first = nights.run(relink={"max_requests_per_run": 0})
    assert (reads(first), told(first)["adopted"], told(first)["unread"]) == ({"adopt": 1}, [newer], 1)
    expected = first.summary["merchants"][0]["pull"]["expected_reads"]  # type: ignore[index]
    assert expected["adopt"] == 1
    second = nights.next_night()
    assert (told(second)["adopted"], told(second)["unread"]) == ([older], 0)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT session_id FROM nowhere", "check database.url and ledger.sessions_query"),
        ("SELECT 'fcsess_1' AS id", "ledger.sessions_query yields no column session_id, but: id"),
        ("SELECT 'cs_1' AS session_id", "row 1, session cs_1, column session_id: is no id of a session"),
    ],
)
def test_a_query_that_nobody_can_read_stops_the_run_before_it_acts(nights: Nights, query: str, said: str) -> None:
    stopped = nights.run(ledger={"sessions_query": query})
    assert (stopped.exit_code, nights.posts(), len(nights.world.log)) == (3, 0, 0)
    assert said in (stopped.why or "")


def test_a_stripe_that_does_not_answer_for_many_of_them_stops_the_night(nights: Nights) -> None:
    """Whose sessions they are is not known, so somebody might be asked twice."""
    portal(nights, *((f"fcsess_{number}", None) for number in range(6)))
    nights.world.faults.script("error_503", method="GET", path="*/sessions/*", times=1000)
    stopped = nights.run()
    assert (stopped.exit_code, nights.posts()) == (3, 0)


def test_the_report_of_such_a_night_is_rebuilt_in_the_same_bytes(nights: Nights) -> None:
    portal(nights, (made_elsewhere(nights, "fcauth_1"), None), ("fcsess_none", None))
    done = nights.run()
    assert done.report_directory is not None
    published = files_of(done.report_directory)
    shutil.rmtree(done.report_directory.parent)
    nights.world.advance(days=1)
    on = done.stamp.business_date
    with wire(nights.settings(), {}, holder="backfill", clock=nights.now, calls_stripe=False, create=False) as wiring:
        rebuilt = backfill(wiring, on, on, Only.MISSING, lambda _: None)
    assert [(one.result, one.as_published) for one in rebuilt.dates] == [(DateResult.REBUILT, True)]
    assert files_of(done.report_directory) == published


def test_a_query_that_writes_is_refused_and_none_leaves_the_hash_of_before() -> None:
    with pytest.raises(SettingsError, match=r"ledger\.sessions_query: begins with DELETE"):
        parse_settings({"ledger": {"sessions_query": "DELETE FROM x"}})
    plain, listed = parse_settings({}), parse_settings({"ledger": {"sessions_query": "SELECT 1 AS session_id"}})
    assert settings_hash(plain, plain.merchants[0]) != settings_hash(listed, listed.merchants[0])


# Beside a request whose answer was lost


def test_a_listed_session_does_not_displace_what_an_event_proves(make_nights: MakeNights) -> None:
    """The event of the creation names the key of our own request; the portal's session is another one."""
    behaviour = replace(Behaviour.quiet(), session_creation_emits_event=True)
    nights = make_nights(small_world(behaviour=behaviour, customers=2, broken=[1]))
    ours = lose(nights)
    nights.world.advance(hours=10)
    theirs = made_elsewhere(nights, "fcauth_1")
    portal(nights, (theirs, nights.now().isoformat()))
    nights.world.advance(hours=14)
    assert nights.run().exit_code == 0
    assert {one.request.origin: one.session_id for one in nights.stored()} == {"run": ours, "sessions_query": theirs}


def test_a_listed_session_settles_nothing_that_waits_for_a_person(make_nights: MakeNights) -> None:
    """It was made and cancelled ten days before the mail of which nobody knows whether it went out."""
    nights = make_nights(small_world(customers=2, broken=[1]))
    mail = {"delivery": "hosted_email", "return_url": "https://example.com/back"}
    nights.sections["relink"] = mail | {"cooldown_days": 2}
    hosted = {"ui_mode": "hosted", "hosted[delivery_method]": "email", "return_url": mail["return_url"]}
    theirs = make_session(nights.server.base_url, "cus_1", "fcauth_1", **hosted)
    made_at = nights.now()
    nights.world.answer(theirs, "cancelled")
    nights.world.advance(days=10)
    lose(nights)
    portal(nights, (theirs, made_at.isoformat()))
    for _ in range(6):
        nights.next_night()
    assert len(made_for(nights, "fcauth_1")) == 2, "the portal's and ours"
    assert [str(one.state) for one in nights.stored() if one.request.origin == "run"] == ["unknown"]
