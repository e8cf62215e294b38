"""The fault matrix, a test for each row: which POSTs the stand-in saw, what the records then say, and with which code the run ended.

The faults of the database are in `test_database_faults`; kills at every moment, at random and twice are the crash campaign's.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from jobs.adapters import lease
from jobs.adapters.database import open_database
from jobs.simulator.reply import Reply
from jobs.work import Work
from reports.verification import verify
from tests.chaos.night_process import run_night
from tests.faults.runs import assert_asked_once, assert_posts_had_intents, end, kill_at, posts, rows, states
from tests.jobs.cli.conftest import Relink, deployed
from tests.jobs.conftest import MakeNights
from tests.jobs.nights import ACCOUNTS, KEY, SESSIONS, Nights, small_world, table

ATTEMPTS = 3
"""`stripe.max_attempts` of the deployments here."""

BROKEN = ("fcauth_1", "fcauth_2", "fcauth_3")
DAYS_LONG_AFTER = 9


# Kills


def test_kill_before_intent_commit(both_nights: Nights) -> None:
    nights = both_nights
    kill_at(nights, "before commit of plan_requests")
    assert (posts(nights), rows(nights)) == ([], [])
    nights.world.advance(days=DAYS_LONG_AFTER)
    assert end(nights).exit_code == 0
    assert_asked_once(nights, *BROKEN)


def test_kill_planned(both_nights: Nights) -> None:
    """What was only planned was provably not sent, so it may go out at any age, decided afresh."""
    nights = both_nights
    kill_at(nights, "before commit of mark_attempting")
    assert (posts(nights), states(nights)) == ([], {"planned": 3})
    nights.world.advance(days=DAYS_LONG_AFTER)
    assert end(nights).exit_code == 0
    assert states(nights) == {"not_sent": 3, "created": 3}
    assert_asked_once(nights, *BROKEN)


@pytest.mark.parametrize("moment", ["whole POST sessions left", "before commit of record_result"])
def test_kill_in_or_after_post_under_twenty_hours(both_nights: Nights, moment: str) -> None:
    nights = both_nights
    kill_at(nights, moment)
    assert states(nights) == {"attempting": 1, "planned": 2}
    nights.world.advance(hours=19.9)
    assert end(nights).exit_code == 0
    first, again = posts(nights)[:2]
    # The stand-in, as Stripe does, answers a key from memory only where the bytes are the same.
    assert (again.idempotency_key, again.status, again.replayed) == (first.idempotency_key, 200, True)
    assert_asked_once(nights, *BROKEN)


@pytest.mark.parametrize("moment", ["whole POST sessions left", "before commit of record_result"])
def test_kill_in_or_after_post_twenty_hours_or_more(both_nights: Nights, moment: str) -> None:
    nights = both_nights
    kill_at(nights, moment)
    key = posts(nights)[0].idempotency_key
    nights.world.advance(hours=20)
    settled = end(nights)
    assert settled.exit_code == 4, "nobody has been told of it yet"
    assert [call.idempotency_key for call in posts(nights)].count(key) == 1
    assert states(nights) == {"unknown": 1, "not_sent": 2, "created": 2}
    unknown = next(row for row in rows(nights) if row.state == "unknown")
    assert (unknown.idempotency_key, unknown.error_type) == (key, "key_expired")
    assert settled.result is not None
    listed = {row["request_id"]: row["outcome"] for row in table(settled.result, "relink_outcomes")}
    assert listed[unknown.request_id] == "unknown"
    assert nights.world.contacts_by_authorization() == dict.fromkeys(BROKEN, 1)


def test_kill_while_publishing(both_nights: Nights) -> None:
    nights = both_nights
    traced = run_night(nights.settings(), nights.now, trace=True)
    steps = [name for name in dict.fromkeys(traced.moments) if name.startswith("report: ")]
    assert len(steps) >= 10
    for step in [*steps[:: len(steps) // 4], steps[-1]]:
        nights.world.advance(days=1)
        before = nights.link("latest")
        kill_at(nights, step)
        latest = nights.reports / "latest"
        assert verify(latest.resolve()) == []
        assert nights.link("latest") == before or step == steps[-1]
    nights.world.advance(days=1)
    last = end(nights)
    assert (last.exit_code, nights.link("latest")) == (0, _relative(last.result, nights.reports))
    assert list(nights.reports.rglob(".*")) == []
    assert_posts_had_intents(nights)


def _relative(result: Any, reports: Path) -> str:
    return os.path.relpath(result.report_directory, reports)


# Stripe's answer to a POST


def _first_post_meets(nights: Nights, kind: str, times: int) -> Counter[str]:
    """A night whose first customer's POST fails so many times; returns how often each key was posted."""
    nights.world.advance(hours=3)
    nights.world.faults.script(kind, method="POST", times=times, seconds=0.05)
    ended = end(nights)
    assert ended.exit_code == (4 if times >= ATTEMPTS else 0)
    assert_posts_had_intents(nights)
    return Counter(str(call.idempotency_key) for call in posts(nights))


def _loses_its_answer(nights: Nights, kind: str) -> None:
    """The answer never comes: asked again under the same key, tonight and in the next night, until it is there."""
    tries = _first_post_meets(nights, kind, ATTEMPTS)
    assert sorted(tries.values()) == [1, 1, ATTEMPTS]
    assert states(nights) == {"attempting": 1, "created": 2}
    nights.world.advance(hours=19)
    assert end(nights).exit_code == 0
    again = Counter(str(call.idempotency_key) for call in posts(nights))
    assert again == tries + Counter([max(tries, key=lambda key: tries[key])])
    assert_asked_once(nights, *BROKEN)


LOST_ANSWERS = ["reset_before", "reset_after", "cut_body", "hang_before", "hang_after"]


@pytest.mark.parametrize("kind", LOST_ANSWERS)
def test_reset_cut_body_or_timeout(nights: Nights, kind: str) -> None:
    _loses_its_answer(nights, kind)


@pytest.mark.parametrize("kind", ["reset_before", "hang_after"])
def test_reset_cut_body_or_timeout_that_passes(nights: Nights, kind: str) -> None:
    assert sorted(_first_post_meets(nights, kind, 1).values()) == [1, 1, 2]
    assert_asked_once(nights, *BROKEN)


@pytest.mark.parametrize("kind", ["cut_json", "not_json"])
def test_200_unparsable(nights: Nights, kind: str) -> None:
    _loses_its_answer(nights, kind)


def test_400_validation(nights: Nights) -> None:
    nights.world.delete_customer("cus_1")
    assert end(nights).exit_code == 4
    assert states(nights) == {"rejected": 1, "created": 2}
    tonight = end(nights, Work("apply", agreed={"main": [one.request for one in nights.stored()]}))
    assert (tonight.exit_code, len(posts(nights))) == (0, 3), "a refused request waits for its cooldown"
    nights.world.deleted_holders.remove("cus_1")
    nights.world.advance(days=5)
    assert end(nights).exit_code == 0
    mine = [row for row in rows(nights) if row.authorization_id == "fcauth_1"]
    assert [(row.attempt, row.state) for row in mine] == [(1, "rejected"), (2, "created")]
    assert mine[0].idempotency_key != mine[1].idempotency_key
    assert nights.world.contacts_by_authorization()["fcauth_1"] == 1


def test_idempotency_mismatch(nights: Nights) -> None:
    """Somebody used the key for other bytes before: whether that made a session cannot be known."""
    planned = nights.run(Work("plan", dry_run=True))
    key = planned.nights[0].plan.requests[0].idempotency_key
    nights.world.idempotency.begin(key, "another request", nights.world.now)
    nights.world.idempotency.finish(key, Reply(200, b"{}", {}))
    assert end(nights).exit_code == 4
    assert states(nights) == {"unknown": 1, "created": 2}
    nights.world.advance(hours=12)
    end(nights, Work("apply", agreed={"main": [one.request for one in nights.stored()]}))
    assert [call.idempotency_key for call in posts(nights)].count(key) == 1
    assert len(posts(nights)) == 3


def test_409_in_use(nights: Nights) -> None:
    _loses_its_answer(nights, "in_use")


@pytest.mark.parametrize("kind", ["rate_limit", "lock_timeout"])
def test_429(nights: Nights, kind: str) -> None:
    """Stripe decides these before it looks at the key, so that the attempt is certainly unused: `not_sent`, and free."""
    tries = _first_post_meets(nights, kind, ATTEMPTS)
    assert states(nights) == {"not_sent": 1, "created": 2}
    nights.world.advance(days=1)
    assert end(nights).exit_code == 0
    assert set(tries) == {call.idempotency_key for call in posts(nights)}, "the same attempt has the same key"
    assert_asked_once(nights, *BROKEN)


@pytest.mark.parametrize("kind", ["in_use", "rate_limit", "lock_timeout"])
def test_409_in_use_or_429_that_passes(nights: Nights, kind: str) -> None:
    assert sorted(_first_post_meets(nights, kind, 1).values()) == [1, 1, 2]
    assert_asked_once(nights, *BROKEN)


@pytest.mark.parametrize(("kind", "made"), [("error_500_before", 0), ("error_500_after", 1)])
def test_500(nights: Nights, kind: str, made: int) -> None:
    tries = _first_post_meets(nights, kind, ATTEMPTS)
    assert states(nights) == {"unknown": 1, "created": 2}
    nights.world.advance(hours=19)
    end(nights, Work("apply", agreed={"main": [one.request for one in nights.stored()]}))
    assert Counter(str(call.idempotency_key) for call in posts(nights)) == tries
    assert nights.world.contacts_by_authorization().get("fcauth_1", 0) == made


@pytest.mark.parametrize("kind", ["unauthorized", "forbidden"])
def test_401_or_403(nights: Nights, kind: str) -> None:
    nights.world.faults.script(kind, method="POST", times=100)
    ended = end(nights)
    assert (ended.exit_code, len(posts(nights))) == (3, 1)
    assert "check the key's permissions" in ended.why.lower()
    # The refused one certainly made nothing; the others were never sent.
    assert states(nights) == {"not_sent": 1, "planned": 2}
    nights.world.faults.clear()
    nights.world.advance(hours=1)
    assert end(nights).exit_code == 0
    assert_asked_once(nights, *BROKEN)


# Before anything is sent


@pytest.mark.parametrize(
    ("kind", "page", "times"),
    [
        ("cut_body", 0, 99),
        ("error_503", 1, 99),
        ("reset_after", 1, 99),
        ("empty_page", 0, 1),
        ("repeated_page", 1, 1),
        ("duplicate_id", 1, 1),
    ],
)
def test_page_fails_or_is_odd(make_nights: MakeNights, kind: str, page: int, times: int) -> None:
    nights = make_nights(small_world(customers=51, broken=[1]))
    nights.run()
    nights.world.advance(days=1)
    nights.world.break_authorization("fcauth_2")
    before, latest, sent = nights.knowledge(), nights.link("latest"), len(posts(nights))
    nights.world.faults.script(kind, path=ACCOUNTS, skip=page, times=times)
    assert end(nights).exit_code == 3
    assert nights.world.faults.injected[kind] >= 1
    assert (nights.knowledge(), nights.link("latest"), len(posts(nights))) == (before, latest, sent)
    nights.world.faults.clear()
    assert end(nights).exit_code == 0
    assert_asked_once(nights, "fcauth_1", "fcauth_2")


def test_brake(both_nights: Nights) -> None:
    nights = both_nights
    nights.sections["brakes"] = {"minimum": 2, "newly_broken_share": 0.2}
    for name in BROKEN:
        nights.world.heal_authorization(name)
    assert end(nights).exit_code == 0
    nights.world.advance(days=1)
    for name in BROKEN:
        nights.world.break_authorization(name)
    held = end(nights)
    assert (held.exit_code, posts(nights), rows(nights)) == (5, [], [])
    assert held.result is not None
    assert {one.authorization_id for one in held.result.nights[0].plan.held} == set(BROKEN)
    nights.world.advance(days=1)
    again = end(nights)
    assert (again.exit_code, posts(nights)) == (5, []), "a held night is not forgotten by the next"
    assert again.result is not None
    released = end(nights, Work("run", released_brake=again.result.nights[0].held_plan_hash))
    assert released.exit_code == 0
    assert_asked_once(nights, *BROKEN)


def _another_version(nights: Nights) -> None:
    nights.world.faults.script("missing_authorization", path=ACCOUNTS)


def _an_object_of_the_other_mode(nights: Nights) -> None:
    nights.world.faults.script("wrong_livemode", path=ACCOUNTS)


def _records_of_the_other_mode(nights: Nights) -> None:
    with create_engine(nights.database_url).begin() as connection:
        connection.execute(text("UPDATE relink_merchants SET mode = 'live'"))


@pytest.mark.parametrize(
    "differ",
    [_another_version, _an_object_of_the_other_mode, _records_of_the_other_mode],
)
def test_wrong_mode_or_version(nights: Nights, differ: Callable[[Nights], None]) -> None:
    nights.run(relink={"max_requests_per_run": 0})
    nights.world.advance(days=1)
    before, latest = nights.knowledge(), nights.link("latest")
    differ(nights)
    ended = end(nights)
    assert ended.exit_code == 3
    assert "mode" in ended.why or "api_version" in ended.why
    assert (posts(nights), nights.knowledge(), nights.link("latest")) == ([], before, latest)


@pytest.mark.parametrize("path", [f"{SESSIONS}/*", f"{ACCOUNTS}/*", "/v1/events"])
def test_wrong_mode_of_an_object_that_is_read_by_itself(nights: Nights, path: str) -> None:
    nights.run()
    nights.world.answer(next(iter(nights.world.sessions)), "whole")
    for account in ("fca_2_1", "fca_2_2"):
        nights.world.hide_account(account)  # so that they are asked for one by one
    nights.world.break_authorization("fcauth_4")
    nights.world.advance(days=1)
    sent, before, latest = len(posts(nights)), nights.knowledge(), nights.link("latest")
    nights.world.faults.script("wrong_livemode", path=path, times=100)
    ended = end(nights)
    assert (ended.exit_code, "mode" in ended.why) == (3, True)
    assert (len(posts(nights)), nights.knowledge(), nights.link("latest")) == (sent, before, latest)


@pytest.mark.parametrize("mode", [None, 0o644, 0o604])
def test_key_file_missing_or_readable_by_others(
    nights: Nights, relink: Relink, monkeypatch: pytest.MonkeyPatch, mode: int | None
) -> None:
    key_file = nights.directory / "key"
    if mode is not None:
        key_file.write_text(KEY)
        key_file.chmod(mode)
    nights.merchants = [{"name": "main", "api_key_file": str(key_file)}]
    call = deployed(nights, relink, monkeypatch)
    before = nights.knowledge()
    ended = call("run")
    assert (ended.code, len(nights.world.log), nights.knowledge()) == (2, 0, before)
    assert str(key_file) in ended.err
    assert KEY not in ended.err


@pytest.mark.parametrize("below", ["_snapshots", "_snapshots/merchant=main", "_plans"])
def test_symlink_among_the_reports(nights: Nights, below: str) -> None:
    """Whoever can put a link there does not choose where snapshots and plans are written."""
    nights.sections["brakes"] = {"minimum": 2, "newly_broken_share": 0.2}
    for name in BROKEN:
        nights.world.heal_authorization(name)
    if below == "_plans":
        assert end(nights).exit_code == 0  # only a held night writes a plan
    for name in BROKEN:
        nights.world.break_authorization(name)
    nights.world.advance(days=1)
    outside = nights.directory / "outside"
    outside.mkdir()
    link = nights.reports / below
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(outside)
    ended = end(nights)
    assert (ended.exit_code, posts(nights), list(outside.iterdir())) == (3, [], [])
    assert f"{link} is a symlink" in ended.why


def test_second_starter(both_nights: Nights) -> None:
    nights = both_nights
    with open_database(nights.database_url) as database:
        held = lease.acquire(database, "the first run")
        before = nights.knowledge()
        second = end(nights)
        assert (second.exit_code, len(nights.world.log), nights.knowledge()) == (6, 0, before)
        assert "the first run" in second.why
        held.release()
    assert end(nights).exit_code == 0
    assert_asked_once(nights, *BROKEN)


# What is lost midway


def _after_the_first_post(nights: Nights, happen: Callable[[], None]) -> Callable[[], datetime]:
    """The world's clock, and the first look at it after a POST is when something happens."""
    happened: list[bool] = []

    def clock() -> datetime:
        if posts(nights) and not happened:
            happened.append(True)
            happen()
        return nights.now()

    return clock


def _end_of_its_process(nights: Nights) -> None:
    """Free the lock as the end of the process that holds it does; here the holder is the process of the tests."""
    with create_engine(nights.database_url).begin() as connection:
        connection.execute(text("UPDATE relink_lease SET holder = NULL"))


def test_lock_lost(both_nights: Nights) -> None:
    """Another run took over while the answer to the first POST was on its way; that answer is kept, and nothing else is sent."""
    nights = both_nights

    def take_over() -> None:
        with create_engine(nights.database_url).begin() as connection:
            connection.execute(text("UPDATE relink_lease SET token = token + 1"))

    ended = end(nights, clock=_after_the_first_post(nights, take_over))
    assert (ended.exit_code, len(posts(nights))) == (3, 1)
    assert "another run took over" in ended.why
    assert states(nights) == {"created": 1, "planned": 2}
    _end_of_its_process(nights)
    nights.world.advance(hours=1)
    assert end(nights).exit_code == 0
    assert_asked_once(nights, *BROKEN)


def test_database_connection_lost(make_nights: MakeNights, postgres_url: str, postgres_server_url: str) -> None:
    """The server goes away with every connection to it, after the first POST."""
    nights = make_nights(database_url=postgres_url)
    name = postgres_url.split("?")[0].rpartition("/")[2]
    server = create_engine(postgres_server_url, isolation_level="AUTOCOMMIT")

    def go_away() -> None:
        with server.connect() as connection:
            connection.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false"))
            connection.execute(
                text("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = :name"),
                {"name": name},
            )

    ended = end(nights, clock=_after_the_first_post(nights, go_away))
    with server.connect() as connection:
        connection.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true"))
    server.dispose()
    assert (ended.exit_code, len(posts(nights))) == (3, 1)
    assert "database" in ended.why
    assert states(nights) == {"attempting": 1, "planned": 2}
    _end_of_its_process(nights)
    nights.world.advance(hours=1)
    assert end(nights).exit_code == 0
    assert_asked_once(nights, *BROKEN)


# Clocks


def test_dst_fold(make_nights: MakeNights) -> None:
    """Half past one comes twice on the first of November in New York, and both are that date's."""
    start = datetime(2026, 11, 1, 5, 30, tzinfo=UTC)
    nights = make_nights(small_world(start=start))
    nights.sections["schedule"] = {"timezone": "America/New_York"}
    first = end(nights)
    nights.world.advance(hours=1)
    second = end(nights)
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert first.result is not None
    assert second.result is not None
    assert second.result.already_finished == first.result.run_id
    assert_asked_once(nights, *BROKEN)
    nights.world.advance(hours=23)
    next_date = end(nights)
    assert next_date.result is not None
    assert next_date.result.stamp.business_date == first.result.stamp.business_date + timedelta(days=1)
    assert_asked_once(nights, *BROKEN)


def test_three_day_gap(both_nights: Nights) -> None:
    nights = both_nights
    assert end(nights).exit_code == 0
    nights.world.advance(days=1)
    nights.world.break_authorization("fcauth_4")
    nights.world.advance(days=2)
    nights.world.break_authorization("fcauth_5")
    assert end(nights).exit_code == 0
    assert end(nights).exit_code == 0
    assert_asked_once(nights, *BROKEN, "fcauth_4", "fcauth_5")


@pytest.mark.parametrize("hours", [-25, 25])
@pytest.mark.parametrize("interrupted", [False, True])
def test_clock_jump(nights: Nights, hours: int, interrupted: bool) -> None:
    """Our clock is a day off in one night and right again in the next; Stripe's is right all the time."""
    if interrupted:
        kill_at(nights, "before commit of record_result")
    else:
        assert end(nights).exit_code == 0
    nights.world.advance(hours=1)
    jumped = end(nights, clock=lambda: nights.now() + timedelta(hours=hours))
    assert jumped.exit_code == (4 if interrupted and hours > 0 else 0), "by a fast clock the key is too old"
    nights.world.advance(hours=1)
    right = end(nights)
    assert right.exit_code == 0
    attempts = Counter((row.authorization_id, row.attempt) for row in rows(nights) if row.state != "not_sent")
    assert set(attempts.values()) == {1}
    # Not even the offer whose answer was lost is renewed: by Stripe's clock it is two hours old.
    assert nights.world.contacts_by_authorization() == dict.fromkeys(BROKEN, 1)
    for ended in (jumped, right):
        assert ended.result is not None
        if ended.result.already_finished is None:
            ages = [row["days_inactive"] for row in table(ended.result, "accounts")]
            assert all(age is None or age >= 0 for age in ages)
    assert_posts_had_intents(nights)
