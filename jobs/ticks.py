"""When a crontab line comes due in a time zone: each wall-clock time once, also on the days when the clocks change.

APScheduler's cron trigger finds the wall-clock times, in a calendar without clock changes; here they become moments. Asked in the zone itself it
comes due twice where an hour is repeated, and after a spring change it passes over the next midnight (3.11.3), so a date would have no run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from apscheduler.triggers.combining import OrTrigger
from apscheduler.triggers.cron import CronTrigger

from jobs.cron_line import CronLine, parse_cron_line

_CHANGE = timedelta(hours=3)
"""More than any zone's clocks are put forward or back at once."""
_INSTANT = timedelta(microseconds=1)
_LOOK_BACK_DAYS = (1, 8, 32, 367, 8 * 366 + 1)


@dataclass(frozen=True, slots=True, order=True)
class Tick:
    """A moment at which a run is due, aware UTC, and the business date that the run serves."""

    at: datetime
    business_date: date


class Ticks:
    """The ticks of one crontab line in one time zone."""

    def __init__(self, cron: str, timezone: str) -> None:
        self.zone = ZoneInfo(timezone)
        self._trigger = _trigger(parse_cron_line(cron))

    def next_after(self, moment: datetime) -> Tick:
        """The first tick later than a moment."""
        first: Tick | None = None
        until: datetime | None = None
        for wall, tick in self._from(moment):
            if until is not None and wall > until:
                break
            if tick.at > moment:
                # A time that was left out may come after a later one that was not.
                first, until = (tick, wall + _CHANGE) if first is None else (min(first, tick), until)
        if first is None:
            raise ValueError("never comes due")
        return first

    def last_until(self, moment: datetime) -> Tick | None:
        """The newest tick at or before a moment; None where there was none in eight years."""
        for days in _LOOK_BACK_DAYS:
            newest: Tick | None = None
            for wall, tick in self._from(moment - timedelta(days=days)):
                if wall > _wall(moment, self.zone) + _CHANGE:
                    break
                if tick.at <= moment and (newest is None or tick > newest):
                    newest = tick
            if newest is not None:
                return newest
        return None

    def describe(self, tick: Tick) -> str:
        """A tick for people, in the zone and, where that is another time, in UTC."""
        local = tick.at.astimezone(self.zone)
        in_utc = f" ({tick.at:%Y-%m-%d %H:%M} UTC)" if local.tzname() != "UTC" else ""
        return f"{local:%Y-%m-%d %H:%M %Z}{in_utc}, business date {tick.business_date}"

    def _from(self, moment: datetime) -> Iterator[tuple[datetime, Tick]]:
        """Ticks in the order of their wall-clock times, from a little before a moment."""
        wall = _wall(moment, self.zone) - _CHANGE
        while (due := self._trigger.get_next_fire_time(None, wall)) is not None:
            # The first of two equal times; one that is left out comes as much later as the clocks are put forward.
            at = due.replace(tzinfo=self.zone, fold=0).astimezone(UTC)
            yield due, Tick(at, due.date())
            wall = due + _INSTANT


def _wall(moment: datetime, zone: ZoneInfo) -> datetime:
    """What clocks show, in a calendar without changes (written as UTC)."""
    return moment.astimezone(zone).replace(tzinfo=UTC, fold=0)


def _trigger(line: CronLine) -> CronTrigger | OrTrigger:
    def joined(values: tuple[int, ...] | tuple[str, ...]) -> str:
        return ",".join(str(value) for value in values)

    def on(**days: str) -> CronTrigger:
        return CronTrigger(
            minute=joined(line.minutes), hour=joined(line.hours), month=joined(line.months), timezone=UTC, **days
        )

    days, weekdays = joined(line.days), joined(line.weekday_names)
    if line.either_day:
        return OrTrigger([on(day=days), on(day_of_week=weekdays)])
    return on(day=days, day_of_week=weekdays)
