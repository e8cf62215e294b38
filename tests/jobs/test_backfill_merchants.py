"""Backfilled reports of several merchants: each from its own snapshot, records and settings, in the bytes that were published."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.backfill import DateResult, Only, backfill
from jobs.simulator.server import SimulatorServer
from jobs.simulator.world import World
from jobs.wiring import wire
from tests.jobs.nights import add_customer, small_world, table
from tests.jobs.rough_month import files_of
from tests.jobs.test_nightly import Two


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Two]:
    second = World.empty(seed=12, api_keys=["rk_test_other"], stripe_account="acct_other")
    for number in (11, 12):
        add_customer(second, number)
    second.break_authorization("fcauth_11")
    with SimulatorServer(small_world(customers=3, broken=(1,)), other_worlds=[second]) as server:
        yield Two(server.world, second, server, tmp_path)


def test_lost_reports_of_two_merchants_come_back_in_the_same_bytes_with_both(two: Two) -> None:
    nights = two.nights
    first = nights.run()
    (session,) = two.second.sessions.values()
    two.second.advance(days=1)
    two.second.answer(session.id, "whole")
    second = nights.next_night()
    assert {row["merchant"]: row["outcome"] for row in table(second, "relink_outcomes")} == {
        "main": "pending",
        "other": "relinked",
    }
    published = {}
    for result in (first, second):
        assert result.complete
        assert result.report_directory is not None
        published[result.report_directory] = files_of(result.report_directory)
        shutil.rmtree(result.report_directory.parent)
    nights.world.advance(days=1)
    asked = len(nights.world.log) + len(two.second.log)
    last = second.stamp.business_date
    with wire(nights.settings(), {}, holder="backfill", clock=nights.now, calls_stripe=False, create=False) as wiring:
        done = backfill(wiring, first.stamp.business_date, last, Only.MISSING, lambda _: None)
    assert [(one.result, one.as_published) for one in done.dates] == [(DateResult.REBUILT, True)] * 2
    assert {directory: files_of(directory) for directory in published} == published
    assert len(nights.world.log) + len(two.second.log) == asked, "nobody was asked anything"
