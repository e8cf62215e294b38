"""What a dead run left is asked again under its own key and bytes while Stripe remembers the key, and never after."""

from __future__ import annotations

from collections import Counter

import pytest

from jobs.adapters import records
from jobs.selection import Selection
from jobs.work import Work
from tests.jobs.dying import POINTS, die
from tests.jobs.nights import SESSIONS, Nights, assert_ties, ledger_of, outcomes, steps, table


def sessions_by_key(nights: Nights) -> Counter[str | None]:
    return Counter(effect.idempotency_key for effect in nights.world.effects)


def assert_each_attempt_once(nights: Nights) -> None:
    """No attempt has two sessions, and no two requests share an attempt."""
    assert set(sessions_by_key(nights).values()) <= {1}
    sent = [one for one in nights.stored() if one.state != "not_sent"]
    attempts = Counter((one.request.breakage, one.request.attempt) for one in sent)
    assert set(attempts.values()) <= {1}


@pytest.mark.parametrize("hours", [1 / 6, 19, 21, 25])
@pytest.mark.parametrize("point", POINTS)
def test_a_killed_run_is_settled_by_the_next(nights: Nights, point: str, hours: float) -> None:
    die(nights, point)
    died_with = nights.states()
    assert list(died_with.values()).count("attempting") == (0 if point == "planned" else 1)
    made = len(nights.world.effects)
    assert made == {"planned": 0, "before_post": 0, "after_post": 1, "after_first": 1}[point]
    nights.world.advance(hours=hours)
    result = nights.run()
    is_left_unknown = 20 <= hours < 24 and "attempting" in died_with.values()
    assert result.exit_code == (4 if is_left_unknown else 0)
    assert_ties(result)
    assert_each_attempt_once(nights)
    by_attempt = {
        (one.authorization_id, one.request.attempt): one for one in nights.stored() if one.state != "not_sent"
    }
    first = {name: one for (name, attempt), one in by_attempt.items() if attempt == 1}
    for name, state in died_with.items():
        expected = "unknown" if state == "attempting" and hours >= 20 else "created"
        assert (name, first[name].state) == (name, expected)
    renewed = {name for name, attempt in by_attempt if attempt == 2}
    left = {name for name, state in died_with.items() if state == "attempting"}
    # An offer that nobody knows was handed to nobody, so it may be renewed once 24 hours are over.
    assert renewed == (left if hours >= 24 else set())
    assert len(nights.world.effects) <= 3 + len(renewed)
    before = nights.posts()
    nights.run()
    assert nights.posts() == before


@pytest.mark.parametrize(("point", "hours"), [("after_post", 1 / 6), ("before_post", 19), ("after_post", 21)])
def test_the_same_on_both_databases(both_nights: Nights, point: str, hours: float) -> None:
    nights = both_nights
    die(nights, point)
    nights.world.advance(hours=hours)
    assert nights.run().exit_code == (0 if hours < 20 else 4)
    assert_each_attempt_once(nights)
    assert Counter(nights.states().values()) == (Counter(created=3) if hours < 20 else Counter(created=2, unknown=1))


def test_a_replay_has_the_stored_bytes_whatever_changed_since(nights: Nights) -> None:
    """The stand-in, like Stripe, refuses a key that comes with other parameters."""
    die(nights, "after_post")
    nights.load_ledger([row | {"required_permissions": "balances"} for row in ledger_of(nights.world)])
    nights.world.advance(hours=1)
    nights.run()
    posts = [call for call in nights.world.log if call.path == SESSIONS]
    assert [call.replayed for call in posts] == [False, True, False, False]
    assert posts[0].idempotency_key == posts[1].idempotency_key
    assert nights.states() == {"fcauth_1": "created", "fcauth_2": "created", "fcauth_3": "created"}
    assert nights.by_authorization()["fcauth_1"].session_id == nights.world.effects[0].session_id


def test_a_run_that_died_while_settling_is_settled(nights: Nights) -> None:
    die(nights, "after_post")
    nights.world.advance(hours=1)
    die(nights, "after_post")
    nights.world.advance(hours=1)
    die(nights, "before_post")
    nights.world.advance(hours=1)
    assert nights.run().exit_code == 0
    assert_each_attempt_once(nights)
    assert len(nights.world.effects) == 3
    # Stripe keeps the key from its first use, so the age counts from the first attempt and not from the last.
    first = nights.by_authorization()["fcauth_1"]
    assert first.attempting_at == first.planned_at


def test_the_dead_run_is_recorded_as_interrupted(nights: Nights) -> None:
    die(nights, "planned")
    assert nights.newest_run().state == records.RUNNING
    dead = nights.newest_run().run_id
    nights.world.advance(hours=1)
    result = nights.run()
    from jobs.adapters.database import open_database

    with open_database(nights.database_url) as database:
        found = records.run(database, dead)
    assert found is not None
    assert (found.state, found.finished_at) == (records.INTERRUPTED, nights.now())
    told = outcomes(result)
    assert "not_sent" in {row["outcome"] for row in table(result, "relink_outcomes")}
    assert set(told) == {"fcauth_1", "fcauth_2", "fcauth_3"}


@pytest.mark.parametrize(
    "kind", ["rate_limit", "lock_timeout", "unauthorized", "forbidden", "error_503", "reset_before"]
)
def test_a_replay_that_fails_leaves_open_whether_the_first_attempt_reached_stripe(nights: Nights, kind: str) -> None:
    """That this call did nothing says nothing of the one before: the attempt must not be free again."""
    die(nights, "after_post")
    made = len(nights.world.effects)
    nights.world.advance(hours=1)
    nights.world.faults.script(kind, method="POST", times=1000)
    result = nights.run()
    assert result.exit_code == (3 if kind in ("unauthorized", "forbidden") else 4)
    if result.complete:
        assert_ties(result)
    assert nights.by_authorization()["fcauth_1"].state == "attempting"
    nights.world.faults.clear()
    nights.world.advance(hours=30)
    nights.run()
    assert_each_attempt_once(nights)
    first = [one for one in nights.stored() if one.authorization_id == "fcauth_1" and one.request.attempt == 1]
    assert [one.state for one in first] == ["unknown"]
    assert made == 1


def test_an_attempt_left_open_is_for_a_person_until_it_is_settled(nights: Nights) -> None:
    die(nights, "after_post")
    nights.world.advance(hours=21)
    result = nights.run()
    rows = {row["account_id"]: row["next_step"] for row in table(result, "accounts")}
    assert (rows["fca_1_1"], rows["fca_1_2"]) == ("review", "review")
    assert outcomes(result)["fcauth_1"] == "unknown"
    assert result.exit_code == 4, "the run that died told nobody"
    assert nights.next_night().exit_code == 0, "an unknown that was told of is no news"


def test_a_run_of_a_finished_date_tells_of_what_it_finds_unknown(nights: Nights) -> None:
    first = nights.run(relink={"max_requests_per_run": 0})
    chosen = Selection(customers=frozenset({"cus_1"}))
    die(nights, "after_post", Work("request", from_stored=True, selection=chosen))
    nights.world.advance(hours=20.5)
    posts = nights.posts()
    again = nights.run()
    assert (again.already_finished, again.exit_code, nights.posts()) == (first.run_id, 4, posts)
    assert nights.run().exit_code == 0, "that was told of"


def test_a_dry_run_settles_nothing(nights: Nights) -> None:
    die(nights, "after_post")
    nights.world.advance(hours=1)
    before, posts = nights.knowledge(), nights.posts()
    nights.run(Work("run", dry_run=True))
    assert (nights.knowledge(), nights.posts()) == (before, posts)


@pytest.mark.parametrize("command", ["collect", "adopt"])
def test_commands_that_only_look_settle_too(nights: Nights, command: str) -> None:
    """Every command that holds the lock first ends what a dead run left."""
    die(nights, "after_post")
    nights.world.advance(hours=1)
    result = nights.run(Work(command, from_stored=True, sends=False, collect_everything=command == "collect"))
    assert result.exit_code == 0
    assert nights.by_authorization()["fcauth_1"].state == "created"
    assert len(nights.world.effects) == 1


def test_an_unknown_whose_outage_ended_waits_for_nobody(nights: Nights) -> None:
    nights.world.faults.script("error_500_before", method="POST", times=3)
    nights.run()
    assert nights.states()["fcauth_1"] == "unknown"
    nights.world.heal_authorization("fcauth_1")
    nights.next_night()
    stored = nights.by_authorization()["fcauth_1"]
    assert (stored.state, stored.resolved_at is not None) == ("unknown", True)
    assert "the outage ended" in str(stored.resolved_by)


def test_a_renewed_offer_takes_the_place_of_the_unknown_one(nights: Nights) -> None:
    nights.world.faults.script("error_500_before", method="POST", times=3)
    nights.run()
    nights.next_night()
    first, second = [one for one in nights.stored() if one.authorization_id == "fcauth_1"]
    assert (first.state, first.request.attempt, second.state, second.request.attempt) == ("unknown", 1, "created", 2)
    assert "renewed by run" in str(first.resolved_by)


MAIL = {"delivery": "hosted_email", "return_url": "https://shop.example/back", "cooldown_days": 2}


def test_a_session_that_only_a_replay_made_counts_from_the_replay(nights: Nights) -> None:
    """By business dates, and by Stripe's 48 hours between two hosted requests, which begin when it makes the session."""
    nights.sections["relink"] = MAIL
    nights.world.advance(hours=8)
    die(nights, "before_post")
    nights.world.advance(hours=19)
    nights.run()
    session = nights.world.effects[0]
    first = nights.by_authorization()["fcauth_1"]
    assert (first.session_id, first.requested_at) == (session.session_id, nights.now())
    nights.world.answer(session.session_id, "cancelled")
    nights.world.advance(hours=30)
    early = nights.run()
    assert (early.exit_code, steps(early)["fca_1_1"]) == (0, "cooldown")
    nights.world.advance(hours=19)
    assert nights.run().exit_code == 0
    assert nights.world.contacts_by_authorization()["fcauth_1"] == 2


def test_a_session_that_the_first_attempt_made_counts_from_that(nights: Nights) -> None:
    nights.sections["relink"] = MAIL
    die(nights, "after_post")
    nights.world.advance(hours=19)
    nights.run()
    first = nights.by_authorization()["fcauth_1"]
    assert first.state == "created"
    assert first.requested_at == first.attempting_at == first.planned_at
