"""Every wall-clock time of a crontab line comes due once, on the days when the clocks change, too."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from jobs.ticks import Tick, Ticks

ZONES = ("America/New_York", "Europe/Helsinki", "Australia/Lord_Howe", "America/Havana", "America/Scoresbysund")
LINES = ("30 2 * * *", "15 2 * * *", "30 3 * * *", "0 0 * * *", "15 1 * * *", "45 1 * * *", "30 23 * * *")


def change_days(zone: str) -> list[date]:
    """The dates from 2026 to 2030 on which the clocks change."""
    place, first = ZoneInfo(zone), datetime(2026, 1, 1, tzinfo=UTC)
    noons = [first + timedelta(days=days) for days in range(5 * 365 + 2)]
    offsets = [(moment, moment.astimezone(place).utcoffset()) for moment in noons]
    return [moment.astimezone(place).date() for (_, before), (moment, after) in pairwise(offsets) if before != after]


def around(ticks: Ticks, day: date) -> Iterator[Tick]:
    moment = datetime(day.year, day.month, day.day, tzinfo=UTC) - timedelta(days=3)
    end = moment + timedelta(days=6)
    while (tick := ticks.next_after(moment)).at < end:
        yield tick
        moment = tick.at


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("zone", ZONES)
def test_one_tick_for_each_date_around_every_clock_change(zone: str, line: str) -> None:
    ticks, days = Ticks(line, zone), change_days(zone)
    assert len(days) >= 10
    for day in days:
        found = list(around(ticks, day))
        dates = [tick.business_date for tick in found]
        assert dates == [dates[0] + timedelta(days=number) for number in range(len(dates))], (day, dates)
        assert len(dates) >= 5
        for tick in found:
            assert ticks.last_until(tick.at) == tick
            assert ticks.last_until(tick.at - timedelta(seconds=1)) != tick


def test_a_time_that_is_left_out_comes_after_the_change_and_one_that_is_repeated_comes_first() -> None:
    spring = Ticks("30 2 * * *", "America/New_York").next_after(datetime(2026, 3, 8, 5, tzinfo=UTC))
    assert spring == Tick(datetime(2026, 3, 8, 7, 30, tzinfo=UTC), date(2026, 3, 8))
    autumn = Ticks("30 1 * * *", "America/New_York")
    first = autumn.next_after(datetime(2026, 11, 1, 4, tzinfo=UTC))
    assert first == Tick(datetime(2026, 11, 1, 5, 30, tzinfo=UTC), date(2026, 11, 1))
    assert autumn.next_after(first.at) == Tick(datetime(2026, 11, 2, 6, 30, tzinfo=UTC), date(2026, 11, 2))


def test_a_left_out_time_stays_in_order_with_those_after_it() -> None:
    ticks = Ticks("45 2,3 * * *", "America/New_York")
    moments = [tick.at for tick in around(ticks, date(2026, 3, 8))]
    assert moments == sorted(set(moments))


def test_either_day_is_enough_where_both_are_restricted() -> None:
    ticks = Ticks("0 3 13 * 5", "UTC")
    found, moment = [], datetime(2026, 11, 1, tzinfo=UTC)
    while moment < datetime(2026, 12, 1, tzinfo=UTC):
        tick = ticks.next_after(moment)
        found.append(tick.business_date.day)
        moment = tick.at
    assert found == [6, 13, 20, 27, 4]


def test_the_last_tick_of_a_rare_line_is_found() -> None:
    ticks = Ticks("0 3 29 2 *", "UTC")
    last = ticks.last_until(datetime(2027, 11, 1, tzinfo=UTC))
    assert last is not None
    assert last.business_date == date(2024, 2, 29)
