"""Why somebody was or was not asked is kept for each night, in rows that only a change adds."""

from __future__ import annotations

from datetime import date
from typing import Any

from sqlalchemy import func, select

from jobs.adapters import records
from jobs.adapters.database import open_database
from jobs.adapters.tables import decisions as table
from jobs.history import history
from jobs.selection import Selection
from jobs.work import Work
from reconcile.decisions import Decision
from reconcile.model import Scope
from tests.jobs.nights import SCOPE, Nights, ledger_of

BRAKES = {"minimum": 0, "newly_broken_share": 0.01}


def rows(nights: Nights) -> int:
    with open_database(nights.database_url) as database, database.read() as connection:
        return int(connection.execute(select(func.count()).select_from(table)).scalar_one())


def about(nights: Nights, authorization_id: str) -> list[records.StoredDecision]:
    with open_database(nights.database_url) as database:
        return records.decisions_about(database, SCOPE, [authorization_id])


def steps_of(nights: Nights, authorization_id: str) -> list[str]:
    return [one.decision.next_step for one in about(nights, authorization_id)]


def told(nights: Nights, identifier: str) -> list[str]:
    with open_database(nights.database_url) as database:
        return [event.text for event in history(database, SCOPE, identifier) if event.kind == "decided"]


def test_a_decision_stands_until_another_night_decides_otherwise(both_nights: Nights) -> None:
    nights = both_nights
    nights.run()
    nights.next_night()
    before = rows(nights)
    nights.next_night()
    assert rows(nights) == before
    nights.world.heal_authorization("fcauth_1")
    nights.next_night()
    asked, waits = about(nights, "fcauth_1")
    assert (asked.decision.next_step, waits.decision.next_step) == ("request", "open_session")
    assert (asked.since_date, asked.until_date, waits.since_date, waits.until_date) == (
        date(2026, 11, 2),
        date(2026, 11, 3),
        date(2026, 11, 3),
        date(2026, 11, 5),
    )
    session_id = nights.by_authorization()["fcauth_1"].session_id
    assert waits.decision.detail == f"session {session_id} is still open"
    assert about(nights, "fcauth_2")[-1].ended_at is None
    assert told(nights, "fca_1_1")[1:] == [
        f"from business date 2026-11-03 on, fcauth_1: inactive, the customer is not asked again while a session is open (session {session_id} "
        "is still open)",
        "from business date 2026-11-05 on, fcauth_1: nothing is to be decided any more",
    ]


def test_a_second_run_and_a_dry_one_decide_nothing(nights: Nights) -> None:
    nights.run()
    before = rows(nights)
    nights.run()
    nights.world.break_authorization("fcauth_4")
    nights.run(Work("run", dry_run=True))
    nights.run(Work("collect", from_stored=True, collect_everything=True, sends=False))
    assert rows(nights) == before == 3


def test_a_manual_request_decides_only_about_those_it_names(nights: Nights) -> None:
    nights.run()
    nights.world.advance(hours=1)
    chosen = Selection(authorizations=frozenset({"fcauth_1"}))
    nights.run(Work("request", from_stored=True, selection=chosen))
    assert steps_of(nights, "fcauth_1") == ["request", "open_session"]
    assert steps_of(nights, "fcauth_2") == ["request"]


def test_the_plan_that_holds_a_request_is_named(nights: Nights) -> None:
    nights.run(brakes={"minimum": 1000})
    nights.world.break_authorization("fcauth_5")
    nights.world.advance(days=1)
    held = nights.run(brakes=BRAKES)
    (text,) = told(nights, "fcauth_5")
    plan_hash = held.nights[0].held_plan_hash
    assert f"a brake holds the request; plan {plan_hash} of run {held.run_id} holds it, not released" in text
    nights.world.advance(hours=1)
    released = nights.run(Work("run", released_brake=plan_hash), brakes=BRAKES)
    first, second = told(nights, "fcauth_5")
    assert f"released to run {released.run_id}" in first
    assert "the customer is to be asked" in second


def test_an_account_that_fares_otherwise_than_its_authorization_has_its_own(nights: Nights) -> None:
    ledger = ledger_of(nights.world)
    nights.load_ledger(
        [{**row, "status": "closed" if row["account_id"] == "fca_1_2" else "open"} for row in ledger]
        + [{"account_id": "fca_none", "account_holder_id": "cus_9"}]
    )
    nights.run()
    texts = told(nights, "cus_1")
    assert any("fcauth_1: inactive, the customer is to be asked" in text for text in texts)
    assert any("fca_1_2: inactive, nobody is asked, since the ledger has closed it" in text for text in texts)
    assert not any("fca_1_2" in text for text in told(nights, "fca_1_1"))
    (alone,) = told(nights, "fca_none")
    assert "fca_none: not in stripe, nobody is asked, since a relink cannot mend it" in alone


def test_what_ended_long_ago_is_pruned_and_what_stands_is_not(both_nights: Nights) -> None:
    nights = both_nights
    nights.run()
    nights.next_night()
    with open_database(nights.database_url) as database:
        records.remove_old_rows(database, (), date(2026, 11, 3))
        assert rows(nights) == 6
        removed = records.remove_old_rows(database, (), date(2026, 11, 4))
    assert removed["decisions"] == 3
    assert steps_of(nights, "fcauth_1") == ["open_session"]


def test_merchants_and_modes_keep_their_own(both_nights: Nights) -> None:
    said = Decision("fcauth_1", "", "inactive", "cooldown", "an odd \ud800 name\x00")
    with open_database(both_nights.database_url) as database:

        def record(scope: Scope, *tonight: Decision) -> int:
            number: Any = records.record_changed_decisions(
                database, scope, "r", date(2026, 1, 1), both_nights.now(), set(tonight)
            )
            return int(number)

        assert record(SCOPE, said) == 1
        assert record(Scope("main", "live"), said) == 1
        assert record(SCOPE, said) == 0
        assert record(SCOPE) == 1
        assert records.decisions_about(database, Scope("main", "live"), ["fcauth_1"])[0].ended_at is None


def test_two_runs_that_begin_at_one_moment_each_decide(both_nights: Nights) -> None:
    """A clock that was set back, or one that counts in steps, must not make the second run fail."""
    nights = both_nights
    nights.run(Work("request", from_stored=True, selection=Selection(authorizations=frozenset({"fcauth_1"}))))
    assert nights.run().exit_code == 0
    assert steps_of(nights, "fcauth_1") == ["request", "open_session"]
