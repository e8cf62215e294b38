"""However the list is cut and whatever vanishes or comes meanwhile, several cursors together see all of it once, or say that they did not."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.crew import AT_ONCE
from jobs.pages import ACCOUNTS_PER_PAGE
from jobs.pull import SEGMENTS_PER_WORKER, cuts_of_ledger, cuts_of_list
from jobs.segments import STEPS_BACK, walk
from jobs.simulator.world import World
from reconcile.errors import IncompletePull, KeyRefused
from reconcile.normalize import account_columns
from reconcile.records import AccountColumns, AccountRecord, CallFailure, ReadRejected
from tests.jobs.conftest import MakeNights
from tests.jobs.nights import ACCOUNTS, SCOPE, Nights, assert_ties, small_world, table

PAGE = 7


def record(account_id: str) -> AccountRecord:
    nothing: dict[str, Any] = dict.fromkeys(AccountRecord.__slots__)
    known = {"authorization_key_present": True, "status": "active", "account_numbers": (), "livemode": False}
    return AccountRecord(**nothing | known | {"account_id": account_id})


class MovingList:
    """A list of accounts, newest first, to which something happens at each call, as a pure reading of Stripe's pagination.

    `vanished` says how a cursor is answered whose account is gone: refused, with nothing, or as if none had been given.
    """

    def __init__(
        self, ids: Sequence[str], happenings: Sequence[tuple[str, int]] = (), vanished: str = "refused"
    ) -> None:
        self.ids = list(ids)
        self.stayed = set(ids)
        self.gone: set[str] = set()
        self.calls: list[str | None] = []
        self._happenings = list(happenings)
        self._vanished = vanished
        self._lock = threading.Lock()

    def page(self, cursor: str | None) -> AccountColumns:
        with self._lock:
            self.calls.append(cursor)
            if self._happenings:
                self._happen(*self._happenings.pop(0))
            if cursor is None:
                first = 0
            elif cursor in self.ids:
                first = self.ids.index(cursor) + 1
            elif self._vanished == "refused":
                raise ReadRejected(CallFailure("rejected", "GET accounts", 400, error_code="resource_missing"))
            elif self._vanished == "nothing":
                return account_columns((), has_more=False)
            else:
                first = 0
            found = self.ids[first : first + PAGE]
        more = first + PAGE < len(self.ids)
        return account_columns(tuple(map(record, found)), has_more=more)

    def _happen(self, what: str, number: int) -> None:
        if what == "linked":
            self.ids.insert(0, f"new_{len(self.calls)}")
        elif what == "vanished" and self.ids:
            gone = self.ids.pop(number % len(self.ids))
            self.gone.add(gone)
            self.stayed.discard(gone)


def names(count: int) -> list[str]:
    return [f"fca_{number}" for number in range(count)]


happenings = st.lists(st.tuples(st.sampled_from(["nothing", "linked", "vanished"]), st.integers(0, 200)), max_size=40)


@given(
    count=st.integers(0, 90),
    picks=st.lists(st.integers(0, 120), max_size=12),
    happens=happenings,
    vanished=st.sampled_from(["refused", "nothing", "the first page"]),
    workers=st.integers(1, 5),
)
def test_no_account_that_stayed_is_missed_and_none_comes_twice(
    count: int, picks: list[int], happens: list[tuple[str, int]], vanished: str, workers: int
) -> None:
    """Cut points in any order, that never existed (beyond `count`), or that vanish."""
    moving = MovingList(names(count), happens, vanished)
    try:
        found = walk(moving.page, SCOPE, [f"fca_{pick}" for pick in picks], workers=workers)
    except IncompletePull:
        # A cursor that is answered as if none had been given cannot be told from a list in a circle.
        assert vanished == "the first page" or len(moving.gone) >= STEPS_BACK
        assert moving.gone
        return
    ids = found.accounts["account_id"].tolist()
    assert len(ids) == len(set(ids))
    assert moving.stayed <= set(ids)
    old = [one for one in ids if one.startswith("fca_")]
    assert old == sorted(old, key=lambda one: int(one[4:])), "the order of the list is kept"


@given(count=st.integers(0, 60), first=st.integers(0, 60), vanished=st.sampled_from(["refused", "nothing"]))
def test_accounts_that_vanish_from_under_the_cursor_hide_nobody(count: int, first: int, vanished: str) -> None:
    """Between two pages of a single cursor as many vanish as it can step back over, but one."""
    moving = MovingList(names(count), vanished=vanished)
    page = moving.page

    def then_vanish(cursor: str | None) -> AccountColumns:
        answer = page(cursor)
        if cursor is None and answer.last_id is not None:
            for gone in answer.account_ids[-(STEPS_BACK - 1) :]:
                moving.ids.remove(gone)
                moving.stayed.discard(gone)
        return answer

    found = walk(then_vanish, SCOPE)
    assert moving.stayed <= set(found.accounts["account_id"])


def test_ordered_cut_points_cost_no_read_more() -> None:
    ids = names(70)
    moving = MovingList(ids)
    found = walk(moving.page, SCOPE, [ids[13], ids[27], ids[48]])
    assert found.accounts["account_id"].tolist() == ids
    assert len(moving.calls) == 10


def test_where_no_thread_can_be_started_the_list_is_walked_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    ids = names(70)
    found = walk(MovingList(ids).page, SCOPE, [ids[13], ids[27], ids[48]])
    assert found.accounts["account_id"].tolist() == ids


def test_a_cut_point_that_vanished_joins_two_segments() -> None:
    ids = names(70)
    moving = MovingList([one for one in ids if one != ids[27]])
    found = walk(moving.page, SCOPE, [ids[13], ids[27], ids[48]])
    assert found.accounts["account_id"].tolist() == [one for one in ids if one != ids[27]]
    assert moving.calls.count(ids[27]) == 1


def test_a_list_said_to_end_before_what_another_cursor_saw_is_not_complete() -> None:
    """One answer that wrongly says that nothing follows: the segments behind it know better."""
    ids = names(70)
    moving = MovingList(ids)

    def cut_short(cursor: str | None) -> AccountColumns:
        page = moving.page(cursor)
        return replace(page, has_more=False) if cursor == ids[34] else page

    with pytest.raises(IncompletePull, match="is said to end before account fca_49"):
        walk(cut_short, SCOPE, [ids[13], ids[27], ids[48]])


def test_events_are_wanted_from_the_first_answer_to_any_cursor() -> None:
    """The head may be answered long after the others, as where its call had to be repeated."""
    ids, began = names(70), datetime(2026, 11, 2, 3, tzinfo=UTC)
    moving = MovingList(ids)

    def slow_head(cursor: str | None) -> AccountColumns:
        later = timedelta(minutes=20 if cursor is None else 0)
        return replace(moving.page(cursor), server_at=began + later)

    assert walk(slow_head, SCOPE, [ids[27]]).server_at == began


def test_a_failing_segment_fails_the_whole() -> None:
    ids = names(70)
    moving = MovingList(ids)

    def broken(cursor: str | None) -> AccountColumns:
        if cursor == ids[48]:
            raise KeyRefused("revoked")
        return moving.page(cursor)

    with pytest.raises(KeyRefused, match="revoked"):
        walk(broken, SCOPE, [ids[13], ids[27], ids[48]])


@given(st.integers(0, 400_000))
def test_cuts_are_known_ids_at_the_ends_of_pages(count: int) -> None:
    ids = range(count)
    cuts = cuts_of_list(ids)  # type: ignore[arg-type]
    assert len(set(cuts)) == len(cuts) <= SEGMENTS_PER_WORKER * AT_ONCE
    assert all((cut + 1) % ACCOUNTS_PER_PAGE == 0 and cut < count - 1 for cut in cuts)  # type: ignore[operator]
    assert bool(cuts) == (count > 1000)


def test_cuts_of_a_ledger_are_the_same_whatever_its_order() -> None:
    ids = names(5000)
    cuts = cuts_of_ledger(ids)
    assert cuts == cuts_of_ledger(ids[::-1])
    assert len(cuts) == 5
    assert cuts_of_ledger(ids[:999]) == []


def long_world() -> World:
    """1,200 accounts, so twelve pages."""
    return small_world(customers=300, broken=(1, 2, 3), accounts=4)


def cursors(nights: Nights) -> int:
    return sum(call.path == ACCOUNTS for call in nights.world.log)


def test_a_long_list_is_walked_by_several_cursors(make_nights: MakeNights) -> None:
    """The first night by ids of the ledger, the second by those of its snapshot, each with the same result as by one."""
    nights = make_nights(long_world())
    first = nights.run()
    assert first.exit_code == 0
    assert len(table(first, "accounts")) == 1200
    assert cursors(nights) in (12, 13)
    second = nights.next_night()
    assert (second.exit_code, len(table(second, "accounts"))) == (0, 1200)
    assert_ties(second)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("empty_page", "is empty although Stripe says there is more"),
        ("duplicate_id", "repeats account fca_"),
        ("missing_authorization", "without the key `authorization`: stripe.api_version"),
        ("wrong_livemode", "in live mode, but the key is for sandbox"),
        ("forbidden", "may not do this"),
    ],
)
def test_an_odd_page_of_any_cursor_stops_the_run(make_nights: MakeNights, kind: str, message: str) -> None:
    nights = make_nights(long_world())
    assert nights.run().exit_code == 0
    nights.world.advance(days=1)
    nights.world.break_authorization("fcauth_9")
    before, posts = nights.knowledge(), nights.posts()
    nights.world.faults.script(kind, path=ACCOUNTS, skip=5)
    result = nights.run()
    assert (result.exit_code, nights.posts()) == (3, posts)
    assert message in (result.why or "")
    assert nights.knowledge() == before


def test_a_lost_snapshot_only_costs_its_help(make_nights: MakeNights) -> None:
    nights = make_nights(long_world())
    nights.run()
    for path in (nights.reports / "_snapshots").rglob("*.parquet"):
        path.unlink()
    result = nights.next_night()
    assert (result.exit_code, len(table(result, "accounts"))) == (0, 1200)
