"""A crontab line means here what it means to cron."""

from __future__ import annotations

import pytest

from jobs.cron_line import parse_cron_line


@pytest.mark.parametrize(
    ("field", "names"),
    [
        ("0", "sun"),
        ("7", "sun"),
        ("1-5", "mon tue wed thu fri"),
        ("5-7", "sun fri sat"),
        ("0-2", "sun mon tue"),
        ("*/2", "sun tue thu sat"),
        ("1-5/2", "mon wed fri"),
        ("Mon-FRI", "mon tue wed thu fri"),
        ("sat,0", "sun sat"),
    ],
)
def test_weekdays_count_from_sunday(field: str, names: str) -> None:
    assert parse_cron_line(f"30 3 * * {field}").weekday_names == tuple(names.split())


def test_lists_ranges_steps_and_names() -> None:
    line = parse_cron_line("*/20 1-3,22 1,15 jan-mar,12 *")
    assert (line.minutes, line.hours) == ((0, 20, 40), (1, 2, 3, 22))
    assert (line.days, line.months) == ((1, 15), (1, 2, 3, 12))
    assert not line.either_day


@pytest.mark.parametrize(
    "text",
    [
        "30 3 * *",
        "30 3 * * * *",
        "60 3 * * *",
        "30 24 * * *",
        "30 3 0 * *",
        "30 3 * 13 *",
        "30 3 * * 8",
        "30 3 last * *",
        "5/15 3 * * *",
        "*/0 3 * * *",
        "30 5-3 * * *",
        "30 3 * * fri-mon",
        "@daily",
        "30 3 * * ,",
        "٣٠ 3 * * *",
        "-1 3 * * *",
    ],
)
def test_what_cron_does_not_know_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_cron_line(text)


@pytest.mark.parametrize(
    ("text", "due"),
    [
        ("0 3 30 2 *", False),
        ("0 3 31 4,6,9,11 *", False),
        ("0 3 29 2 *", True),
        ("0 3 31 4,5 *", True),
        ("0 3 30 2 1", True),
    ],
)
def test_a_line_that_never_comes_due_is_known(text: str, due: bool) -> None:
    assert parse_cron_line(text).comes_due is due
