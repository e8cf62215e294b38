"""What the five fields of a crontab line mean, as cron itself reads them."""

from __future__ import annotations

import re
from dataclasses import dataclass

_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_ITEM = re.compile(r"(?:(?P<all>\*)|(?P<first>\w+)(?:-(?P<last>\w+))?)(?:/(?P<step>\d{1,4}))?", re.ASCII)
_LONGEST_MONTHS = {2: 29, 4: 30, 6: 30, 9: 30, 11: 30}


@dataclass(frozen=True, slots=True)
class CronLine:
    """The values at which each field comes due; weekdays count from Sunday, 0, as in a crontab."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...]
    months: tuple[int, ...]
    weekdays: tuple[int, ...]
    either_day: bool
    """Whether a day of the month or a weekday is enough: where both are restricted, cron takes either (crontab(5))."""

    @property
    def weekday_names(self) -> tuple[str, ...]:
        """The weekdays by name, which nobody counts differently."""
        return tuple(_WEEKDAYS[number] for number in self.weekdays)

    @property
    def comes_due(self) -> bool:
        """Whether any month that is named has a day that is named."""
        return self.either_day or any(self.days[0] <= _LONGEST_MONTHS.get(month, 31) for month in self.months)


def parse_cron_line(text: str) -> CronLine:
    """Read `minute hour day-of-month month weekday`; weekdays are 0 to 7, Sunday being both, and names may stand for numbers.

    Raises:
        ValueError: saying which field is wrong.
    """
    fields = text.split()
    if len(fields) != 5:
        raise ValueError(f"it has {len(fields)} fields, not five")
    minute, hour, day, month, weekday = fields
    weekdays = {number % 7 for number in _values("weekday", weekday, 0, 7, _WEEKDAYS)}
    return CronLine(
        minutes=_values("minute", minute, 0, 59),
        hours=_values("hour", hour, 0, 23),
        days=_values("day of month", day, 1, 31),
        months=_values("month", month, 1, 12, _MONTHS),
        weekdays=tuple(sorted(weekdays)),
        either_day=not day.startswith("*") and not weekday.startswith("*"),
    )


def _values(field: str, text: str, least: int, most: int, names: tuple[str, ...] = ()) -> tuple[int, ...]:
    """The numbers that a field stands for, in order."""
    found: set[int] = set()
    for item in text.split(","):
        match = _ITEM.fullmatch(item)
        if match is None or (match["step"] and not match["all"] and not match["last"]):
            raise ValueError(f"{field} {item!r} is not *, a number, a range such as 1-5, or */STEP")
        first = least if match["all"] else _number(field, match["first"], least, most, names)
        # Seven is Sunday a second time, so that a step over all weekdays must not reach it.
        last = (6 if names == _WEEKDAYS else most) if match["all"] else first
        if match["last"]:
            last = _number(field, match["last"], least, most, names)
        step = int(match["step"] or 1)
        if step == 0 or last < first:
            raise ValueError(f"{field} {item!r} covers nothing")
        found.update(range(first, last + 1, step))
    return tuple(sorted(found))


def _number(field: str, text: str, least: int, most: int, names: tuple[str, ...]) -> int:
    if text.lower() in names:
        return names.index(text.lower()) + least
    if not text.isdecimal() or not least <= int(text) <= most:
        raise ValueError(f"{field} {text!r} is not within {least} and {most}")
    return int(text)
