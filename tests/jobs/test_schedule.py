"""The schedule: what it starts, when, and what it leaves alone; time is made, not waited for."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from functools import partial

import pytest

from jobs.schedule import LONGEST_WAIT_SECONDS, Schedule, is_finished
from jobs.ticks import Tick, Ticks
from jobs.work import Work
from tests.jobs.nights import Nights
from tests.jobs.test_ticks import LINES, change_days


class Over(Exception):
    """The simulated time has come to its end."""


class Host:
    """A machine whose clock moves only while the schedule waits, and that may sleep; runs take an hour and end as they are told to."""

    def __init__(self, start: datetime, end: datetime, cron: str, zone: str = "UTC", grace_hours: int = 6) -> None:
        self.now = start
        self.end = end
        self.started: list[tuple[date, datetime]] = []
        self.complete: Counter[date] = Counter()
        self.said: list[str] = []
        self.sleeps: dict[date, timedelta] = {}
        self.codes: dict[date, int] = {}
        self.schedule = Schedule(
            ticks=Ticks(cron, zone),
            misfire_grace=timedelta(hours=grace_hours),
            start=self.start,
            is_finished=lambda tick: any(tick.business_date <= day for day in self.complete),
            announce=self.said.append,
            clock=lambda: self.now,
            sleep=self.sleep,
        )

    def sleep(self, seconds: float) -> None:
        assert 0 < seconds <= LONGEST_WAIT_SECONDS
        self.now += timedelta(seconds=seconds)
        self.now += self.sleeps.pop(self.now.date(), timedelta())
        if self.now >= self.end:
            raise Over

    def start(self, tick: Tick) -> int:
        self.started.append((tick.business_date, self.now))
        self.now += timedelta(minutes=20)
        code = self.codes.get(tick.business_date, 0)
        if code in (0, 4, 5):
            self.complete[tick.business_date] += 1
        return code

    def until_its_end(self) -> Host:
        with pytest.raises(Over):
            self.schedule.serve()
        return self

    @property
    def dates(self) -> list[date]:
        return [day for day, _ in self.started]


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"{text}+00:00")


@pytest.mark.parametrize("zone", ["America/New_York", "Europe/Helsinki", "Australia/Lord_Howe"])
@pytest.mark.parametrize("cron", [*LINES, "*/30 0-5 * * *"])
def test_one_run_for_each_business_date_on_every_clock_change_until_2030(zone: str, cron: str) -> None:
    for day in change_days(zone):
        noon = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
        host = Host(noon - timedelta(days=1, hours=18), noon + timedelta(days=2), cron, zone)
        host.sleep = partial(_leap, host)  # type: ignore[method-assign]
        host.schedule = dataclasses.replace(host.schedule, sleep=host.sleep)
        host.until_its_end()
        assert set(host.complete.values()) == {1}
        wanted = {day + timedelta(days=offset) for offset in (-1, 0, 1)}
        assert wanted <= set(host.complete), (day, sorted(host.complete))
        assert host.dates == sorted(host.dates)


def _leap(host: Host, seconds: float) -> None:
    """Wait in steps of minutes, which is as good where nothing else happens."""
    host.now += timedelta(seconds=seconds if seconds < LONGEST_WAIT_SECONDS else 900)
    if host.now >= host.end:
        raise Over


def test_three_days_of_downtime_are_one_catch_up() -> None:
    host = Host(at("2026-11-24T14:00"), at("2026-11-24T20:00"), "30 3 * * *")
    host.complete[date(2026, 11, 20)] = 1
    assert host.until_its_end().started == [(date(2026, 11, 24), at("2026-11-24T14:00"))]


def test_a_catch_up_after_midnight_serves_the_date_of_the_last_tick() -> None:
    host = Host(at("2026-11-25T01:00"), at("2026-11-25T06:00"), "30 3 * * *")
    assert host.until_its_end().dates == [date(2026, 11, 24), date(2026, 11, 25)]


def test_nothing_is_caught_up_where_the_last_date_or_a_later_one_is_finished() -> None:
    for finished in (date(2026, 11, 24), date(2026, 11, 25)):
        host = Host(at("2026-11-25T01:00"), at("2026-11-25T03:00"), "30 3 * * *")
        host.complete[finished] = 1
        assert host.until_its_end().started == []


def test_a_machine_that_slept_makes_up_for_the_newest_run_it_missed() -> None:
    host = Host(at("2026-11-24T04:00"), at("2026-11-27T12:00"), "30 3 * * *")
    host.complete[date(2026, 11, 24)] = 1
    host.sleeps[date(2026, 11, 24)] = timedelta(days=3, hours=3)  # until 07:00 on the 27th
    host.until_its_end()
    assert host.dates == [date(2026, 11, 27)]
    assert host.started[0][1].hour == 7


def test_a_run_that_is_later_than_the_grace_is_left_out_and_said(caplog: pytest.LogCaptureFixture) -> None:
    host = Host(at("2026-11-24T04:00"), at("2026-11-26T04:00"), "30 3 * * *")
    host.complete[date(2026, 11, 24)] = 1
    host.sleeps[date(2026, 11, 24)] = timedelta(hours=30)  # until 10:00 on the 25th
    assert host.until_its_end().dates == [date(2026, 11, 26)]
    assert "missed by 6.5 hours" in caplog.text


@pytest.mark.parametrize("code", [1, 3, 6, 143])
def test_a_run_that_fails_does_not_end_the_schedule(code: int, caplog: pytest.LogCaptureFixture) -> None:
    host = Host(at("2026-11-24T03:00"), at("2026-11-26T03:00"), "30 3 * * *")
    host.complete[date(2026, 11, 23)] = 1
    host.codes[date(2026, 11, 24)] = code
    assert host.until_its_end().dates == [date(2026, 11, 24), date(2026, 11, 25)]
    assert ("another run holds the lock" if code == 6 else f"exit code {code}") in caplog.text


def test_a_later_tick_of_a_date_tries_again_only_where_no_run_was_complete() -> None:
    host = Host(at("2026-11-24T03:00"), at("2026-11-25T03:00"), "30 3-5 * * *")
    host.complete[date(2026, 11, 23)] = 1
    assert host.until_its_end().dates == [date(2026, 11, 24)]
    host = Host(at("2026-11-24T03:00"), at("2026-11-25T03:00"), "30 3-5 * * *")
    host.complete[date(2026, 11, 23)] = 1
    host.codes[date(2026, 11, 24)] = 3
    assert host.until_its_end().dates == [date(2026, 11, 24)] * 3


def test_a_clock_that_is_set_back_starts_no_second_run() -> None:
    host = Host(at("2026-11-24T03:00"), at("2026-11-25T05:00"), "30 3 * * *")
    host.complete[date(2026, 11, 23)] = 1
    host.sleeps[date(2026, 11, 24)] = timedelta(hours=-1)
    host.codes[date(2026, 11, 25)] = 0
    host.until_its_end()
    assert host.dates == [date(2026, 11, 24), date(2026, 11, 25)]


def test_the_next_run_is_said_in_local_time_and_utc() -> None:
    host = Host(at("2026-11-24T04:00"), at("2026-11-24T05:00"), "30 3 * * *", "America/New_York")
    host.complete[date(2026, 11, 23)] = 1
    said = "next run: 2026-11-24 03:30 EST (2026-11-24 08:30 UTC), business date 2026-11-24"
    assert host.until_its_end().said == [said]


def test_a_run_serves_the_business_date_it_is_given_and_a_second_one_sends_nothing(both_nights: Nights) -> None:
    nights = both_nights
    day = nights.now().date() - timedelta(days=1)
    ticks = Ticks("30 3 * * *", "UTC")
    tick = Tick(nights.now(), day)
    asked: Callable[[Tick], bool] = is_finished(nights.settings(), nights.now, ticks)
    assert not asked(tick)
    result = nights.run(Work("run", business_date=day))
    assert (result.exit_code, result.stamp.business_date) == (0, day)
    assert asked(tick)
    assert not asked(Tick(nights.now(), day + timedelta(days=1)))
    posts = nights.posts()
    assert nights.run(Work("run", business_date=day)).already_finished == result.run_id
    assert nights.posts() == posts > 0
    today = nights.run()
    assert (today.exit_code, today.stamp.business_date) == (0, day + timedelta(days=1))
    assert set(nights.world.contacts_by_authorization().values()) == {1}
    assert asked(tick)
