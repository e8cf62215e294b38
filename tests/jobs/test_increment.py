"""An incremental pull gives what a full one gives, or says that it cannot; judged by a full one over nights in which anything may happen."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pandas as pd
import pytest

from jobs.adapters.rate_limiter import RateLimiter
from jobs.adapters.stripe_gateway import StripeGateway
from jobs.increment import Base, FullPullNeeded, Increment, Wanted, pull_increment
from jobs.segments import walk
from jobs.settings import MerchantSettings
from jobs.simulator.behaviour import Behaviour
from jobs.simulator.server import SimulatorServer
from jobs.simulator.world import World
from jobs.wiring import Merchant
from reconcile.classify import classify
from reconcile.errors import KeyRefused
from reconcile.frames import HISTORY, empty
from reconcile.increment import EVENT_TYPES, SESSION_UPDATED, changed_ids, cover, drifted, read_changes
from reconcile.ledger import check_rows, require_clean
from reconcile.model import RunStamp
from reconcile.normalize import ledger_frame
from reconcile.policy import RelinkPolicy
from tests.jobs.nights import ACCOUNTS, KEY, SCOPE, ledger_of, make_session, small_world

PAGE = 10
POLICY = RelinkPolicy()


@dataclass
class Job:
    """Pulls over one served world, page by page of ten accounts."""

    world: World
    server: SimulatorServer
    gateway: StripeGateway
    run: int = 0

    @property
    def merchant(self) -> Merchant:
        return Merchant(MerchantSettings(name="main"), SCOPE, "", self.gateway)

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(self.world.clock.now_seconds(), UTC)

    def stamp(self) -> RunStamp:
        return RunStamp(f"run-{self.run}", "run", self.now, self.now.date(), "UTC")

    def full(self) -> Base:
        walked = walk(self.gateway.list_account_columns, SCOPE)
        assert walked.server_at is not None
        return Base(walked.accounts, self.now.date(), walked.server_at, walked.server_at + timedelta(seconds=1))

    def ledger(self) -> pd.DataFrame:
        rows = [row | {"purpose": "payments"} for row in ledger_of(self.world)]
        return ledger_frame(require_clean(check_rows(rows, ["main"])), "main")

    def increment(self, base: Base, wanted: Wanted | None = None) -> Increment:
        self.run += 1
        return pull_increment(
            self.merchant,
            base,
            self.ledger(),
            wanted or Wanted((), ()),
            POLICY,
            self.stamp(),
            lambda: 0.0,
            page_size=PAGE,
        )

    def reads(self, path: str = "") -> int:
        return sum(call.path.startswith(path or "/v1") and call.method == "GET" for call in self.world.log)

    def findings(self, accounts: pd.DataFrame) -> pd.DataFrame:
        found = classify(accounts, self.ledger(), empty(HISTORY), POLICY, self.stamp())
        return found.drop(columns=["last_refreshed_at"])


@contextmanager
def job(world: World) -> Iterator[Job]:
    with SimulatorServer(world) as server:
        limiter = RateLimiter(requests_per_second=1e6, endpoint_requests_per_second=1e6)
        gateway = StripeGateway(
            KEY,
            api_base=server.base_url,
            api_version="2026-09-30.preview",
            limiter=limiter,
            max_attempts=2,
            sleep=lambda _: None,
        )
        try:
            yield Job(world, server, gateway)
        finally:
            gateway.close()


def wanted_of(world: World) -> Wanted:
    """What the records would say is open: authorizations with a session, and customers who answered one without all being well yet."""
    sessions = [one for one in world.sessions.values() if one.authorization_id is not None]
    return Wanted(
        frozenset(str(one.authorization_id) for one in sessions),
        frozenset(one.holder.id for one in sessions if one.status == "succeeded"),
    )


BUSY = Behaviour(
    daily_break_rate=0.01,
    daily_expiring_rate=0.01,
    daily_disconnect_rate=0.003,
    daily_new_link_rate=0.01,
    heal_share=0.4,
    keep_account_ids_share=0.5,
    lag_share=0.3,
    initial_expired_number_share=0.05,
    number_lifetime_days=20,
)


@pytest.mark.parametrize("seed", range(3))
def test_many_nights_give_the_findings_of_full_pulls(seed: int) -> None:
    """Breaks, healing, expiry, disconnections, new links and relinks of all kinds, a customer asked every night."""
    chance = random.Random(seed)
    world = World.generate(500, seed=seed, behaviour=BUSY)
    increments, refused = 0, []
    with job(world) as pulls:
        base = pulls.full()
        for _ in range(6):
            broken = sorted(
                {one.authorization.id for one in world.listing if one.is_relinkable and one.status == "inactive"}
            )
            for authorization_id in chance.sample(broken, min(3, len(broken))):
                holder = world.authorizations[authorization_id].holder
                if holder.kind == "customer" and holder.id not in world.deleted_holders:
                    make_session(pulls.server.base_url, holder.id, authorization_id)
            world.advance(days=chance.choice([0.2, 1, 1, 2]))
            truth = pulls.full()
            try:
                told = pulls.increment(base, wanted_of(world))
            except FullPullNeeded as why:
                refused.append(str(why))
                base = truth
                continue
            increments += 1
            assert changed_ids(truth.accounts, told.accounts) == []
            pd.testing.assert_frame_equal(pulls.findings(told.accounts), pulls.findings(truth.accounts))
            base = Base(told.accounts, pulls.now.date(), told.server_from, told.server_to)
    assert increments >= 3
    assert all("it would take over" in why for why in refused), "nothing that happens is a contradiction"


def quiet(customers: int = 150) -> World:
    return small_world(customers=customers, broken=())


def test_a_quiet_night_costs_five_reads() -> None:
    """One for the events, one for the newest page, two drawn by lot, and none for what a date does not ask for."""
    with job(quiet()) as pulls:
        base = pulls.full()
        pulls.world.advance(days=1)
        before = pulls.reads()
        increment = pulls.increment(base)
        assert pulls.reads() - before <= 4
        assert len(increment.read_ids) <= 3 * PAGE
        assert changed_ids(base.accounts, increment.accounts) == []


def test_what_an_event_tells_costs_no_read_and_what_it_does_not_tell_costs_one() -> None:
    world = quiet()
    with job(world) as pulls:
        base = pulls.full()
        world.advance(days=1)
        world.disconnect_account("fca_40_1")
        world.expect_deactivation("fcauth_60", at=pulls.now + timedelta(days=25))
        world.break_authorization("fcauth_90", cause="access_denied")
        increment = pulls.increment(base)
        rows = increment.accounts.set_index("account_id")
        assert increment.told >= 1
        assert rows.loc["fca_40_1", "stripe_status"] == "disconnected"
        assert rows.loc["fca_60_1", "active_action"] == "relink_required"
        assert rows.loc["fca_90_1", ["inactive_action", "inactive_cause"]].tolist() == [
            "relink_required",
            "access_denied",
        ]
        assert {"fca_90_1", "fca_90_2"} <= increment.read_ids
        assert changed_ids(pulls.full().accounts, increment.accounts) == []


def test_nothing_is_taken_from_an_event_where_something_is_open() -> None:
    world = quiet()
    world.expect_deactivation("fcauth_60", at=datetime(2026, 11, 20, tzinfo=UTC))
    with job(world) as pulls:
        base = pulls.full()
        world.advance(days=1)
        world.withdraw_expectation("fcauth_60")
        increment = pulls.increment(base, Wanted({"fcauth_60"}, ()))
        assert {"fca_60_1", "fca_60_2"} <= increment.read_ids


def test_a_date_that_comes_due_is_read_again() -> None:
    world = quiet()
    world.expect_deactivation("fcauth_60", at=datetime(2026, 11, 2, 3, tzinfo=UTC) + timedelta(days=15))
    with job(world) as pulls:
        base = pulls.full()
        world.advance(days=1)
        assert {"fca_60_1", "fca_60_2"} <= pulls.increment(base).read_ids


def silently_vanish(world: World) -> None:
    world.remove_account(world.listing[-5].id)


def silently_change(world: World) -> None:
    world.set_permissions(world.listing[-5].id, ["balances"])


def lose_an_event(world: World) -> None:
    """A new account whose event never comes."""
    world.advance(days=1)
    world.add_account("fcauth_3", account_id="fca_new")
    world.advance(hours=1)
    world.events.clear()


def forget_events(world: World) -> None:
    world.add_key(KEY, denied=["events.list"])


def break_events(world: World) -> None:
    world.faults.script("cut_json", path="/v1/events", times=100)


@pytest.mark.parametrize(
    ("happening", "message"),
    [
        (silently_vanish, "is not as it was around account"),
        (silently_change, "is not as the records and the events say"),
        (lose_an_event, "is new and no event says so"),
        (forget_events, "the events could not be read"),
        (break_events, "the events could not be read"),
    ],
)
def test_what_no_event_explains_asks_for_a_full_pull(happening: Callable[[World], None], message: str) -> None:
    world = quiet()
    with job(world) as pulls:
        base = pulls.full()
        world.advance(days=1)
        happening(world)
        with pytest.raises(FullPullNeeded, match=message):
            pulls.increment(base)


def test_a_page_shorter_than_asked_for_hides_no_change() -> None:
    """What was to be read and is not on its page is not taken for unchanged."""
    world = quiet()
    with job(world) as pulls:
        base = pulls.full()
        world.advance(days=1)
        for number in (90, 91, 92):
            world.break_authorization(f"fcauth_{number}")
        listed: Callable[..., Any] = pulls.gateway.list_accounts_page

        def shorter(cursor: str | None, *, limit: int, purpose: str) -> Any:
            return listed(cursor, limit=limit if purpose == "head" else 3, purpose=purpose)

        pulls.gateway.list_accounts_page = shorter  # type: ignore[method-assign]
        with pytest.raises(FullPullNeeded, match="shorter than asked for"):
            pulls.increment(base)


@pytest.mark.parametrize(
    ("own_type", "authorization_later_seconds", "is_told"),
    [
        ("expected_deactivation_date_updated", 0, True),
        ("expected_deactivation_date_updated", 1, True),
        ("expected_deactivation_date_updated", 3600, False),
        ("created", 0, False),
    ],
)
def test_an_event_of_an_account_tells_nothing_of_what_came_to_its_authorization_later(
    own_type: str, authorization_later_seconds: int, is_told: bool
) -> None:
    world = quiet(20)
    with job(world) as pulls:
        base = pulls.full()
        world.advance(days=1)
        world.expect_deactivation("fcauth_9", at=pulls.now + timedelta(days=25))
        later = timedelta(seconds=authorization_later_seconds)
        events = [
            replace(one, created_at=one.created_at + later)
            if one.object_id == "fcauth_9"
            else replace(one, event_type=f"financial_connections.account.{own_type}")
            for one in pulls.gateway.list_events(EVENT_TYPES, base.server_from)
        ]
        assert {one.object_id for one in events} == {"fcauth_9", "fca_9_1", "fca_9_2"}
        changes = read_changes(events, base.accounts, base.server_to, ())
        both = {"fca_9_1", "fca_9_2"}
        assert (set(changes.told["account_id"]), changes.to_read) == ((both, set()) if is_told else (set(), both))


def test_an_event_that_does_not_say_what_it_is_about_asks_for_a_full_pull() -> None:
    world = quiet(20)
    with job(world) as pulls:
        base = pulls.full()
        world.advance(days=1)
        world.break_authorization("fcauth_9")
        told = [replace(one, object_id=None) for one in pulls.gateway.list_events(EVENT_TYPES, base.server_from)]
        pulls.gateway.event_pages = lambda *_: iter([told])  # type: ignore[method-assign,assignment]
        with pytest.raises(FullPullNeeded, match="does not say what it is about"):
            pulls.increment(base)


def test_a_session_without_a_customer_has_the_accounts_of_its_login_read_again() -> None:
    world = quiet(20)
    with job(world) as pulls:
        base = pulls.full()
        world.break_authorization("fcauth_9")
        event = pulls.gateway.list_events(EVENT_TYPES, base.server_from)[0]
        session = replace(
            event,
            event_type=SESSION_UPDATED,
            object_id="fcsess_1",
            account_holder_id=None,
            authorization_id="fcauth_9",
        )
        changes = read_changes([session], base.accounts, base.server_to, ())
        assert changes.to_read == {"fca_9_1", "fca_9_2"} <= changes.explained


def test_many_changes_ask_for_a_full_pull_before_they_cost_more() -> None:
    world = quiet()
    with job(world) as pulls:
        base = pulls.full()
        world.advance(days=1)
        for number in range(1, 150, 6):
            world.break_authorization(f"fcauth_{number}")
        before = pulls.reads()
        with pytest.raises(FullPullNeeded, match="it would take over"):
            pulls.increment(base)
        assert pulls.reads() - before <= 0.5 * 30


def test_a_change_while_the_pages_are_read_is_no_contradiction() -> None:
    world = quiet()
    with job(world) as pulls:
        base = pulls.full()
        world.advance(days=1)
        newest = world.listing[-1].authorization.id
        listed: Callable[..., Any] = pulls.gateway.list_accounts_page

        def then_break(*arguments: Any, **named: Any) -> Any:
            if world.authorizations[newest].status == "active":
                world.break_authorization(newest)
            return listed(*arguments, **named)

        pulls.gateway.list_accounts_page = then_break  # type: ignore[method-assign]
        increment = pulls.increment(base)
        assert changed_ids(pulls.full().accounts, increment.accounts) == []


def test_a_refused_key_is_no_reason_to_read_more() -> None:
    world = quiet()
    with job(world) as pulls:
        base = pulls.full()
        world.faults.script("unauthorized", path=ACCOUNTS, times=5)
        with pytest.raises(KeyRefused):
            pulls.increment(base)


def test_drift_is_what_no_event_explains() -> None:
    world = quiet(20)
    with job(world) as pulls:
        base = pulls.full()
        world.advance(days=1)
        world.break_authorization("fcauth_3")
        world.set_permissions("fca_5_1", ["balances"])
        gone = world.listing[4].id
        world.remove_account(gone)
        now = pulls.full()
        events = pulls.gateway.list_events(["financial_connections.account.deactivated"], base.server_from)
        changes = read_changes(events, base.accounts, base.server_to, ())
        assert drifted(base.accounts, now.accounts, changes) == sorted(["fca_5_1", gone])


def test_pages_cover_all_places() -> None:
    assert cover([5, 3, 12, 13, 40], 10) == [3, 13, 40]
    assert cover([], 10) == []


def test_the_first_business_date_of_a_base_counts_from_its_snapshot() -> None:
    """Two nights missed: a date that came due in between is due tonight."""
    world = quiet(80)
    world.expect_deactivation("fcauth_30", at=datetime(2026, 11, 2, 3, tzinfo=UTC) + timedelta(days=16))
    with job(world) as pulls:
        base = pulls.full()
        assert base.business_date == date(2026, 11, 2)
        world.advance(days=3)
        assert {"fca_30_1", "fca_30_2"} <= pulls.increment(base).read_ids
