"""The command tells each date as it is done, sums up at the end, and refuses what it cannot mean."""

from __future__ import annotations

import shutil
from datetime import timedelta

import pytest

from tests.jobs.cli.conftest import Relink, deployed
from tests.jobs.nights import Nights
from tests.jobs.rough_month import PLAIN, ticking


def test_a_lost_report_and_a_lost_day_are_rebuilt_and_told(
    nights: Nights, relink: Relink, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ticking(nights)
    first = nights.run(clock=clock, **PLAIN)
    nights.world.advance(days=2)
    last = nights.run(clock=clock, **PLAIN)
    assert first.report_directory is not None
    shutil.rmtree(first.report_directory.parent)
    command = deployed(nights, relink, monkeypatch, **PLAIN)
    monkeypatch.delenv("STRIPE_API_KEY")
    began, ended = first.stamp.business_date, last.stamp.business_date
    dates = ("--from", str(began - timedelta(days=1)), "--to", str(ended))
    said = command("backfill", *dates)
    told = [line for line in said.err.splitlines() if line.startswith("20")]
    assert said.code == 0, "the day before the first night never had a night"
    assert [line.split(",")[0].split(": ")[1] for line in told] == ["nothing", "rebuilt", "rebuilt", "left"]
    assert said.out.splitlines()[0] == "4 dates: 1 left, 1 nothing, 2 rebuilt"
    assert f"from the snapshot of {began}" in told[2]
    again = command("backfill", *dates, "--only", "all", "--json")
    assert (again.code, again.json["counts"]) == (0, {"nothing": 1, "unchanged": 3})
    assert [(one["run_date"], one["basis"], one["as_published"]) for one in again.json["dates"]] == [
        (str(began - timedelta(days=1)), None, None),
        (str(began), "snapshot", True),
        (str(began + timedelta(days=1)), "earlier_snapshot", None),
        (str(ended), "snapshot", True),
    ]
    assert again.json["dates"][1]["report_directory"] == str(first.report_directory)
    assert again.json["dates"][1]["run_id"] == first.run_id


def test_collect_looks_up_the_sessions_of_the_range_first_and_makes_none(
    nights: Nights, relink: Relink, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ticking(nights)
    first = nights.run(clock=clock, **PLAIN)
    assert len(nights.stored()) == 3
    nights.world.advance(days=1)
    nights.world.break_authorization("fcauth_5")
    nights.run(clock=clock, **PLAIN)
    posts = nights.posts()
    command = deployed(nights, relink, monkeypatch, **PLAIN)
    reads = nights.reads("sessions.retrieve")
    on = str(first.stamp.business_date)
    said = command("backfill", "--from", on, "--to", on, "--collect", "--only", "all", "--json")
    assert (said.code, said.json["counts"]) == (0, {"unchanged": 1})
    assert "3 open sessions: 3 reads" in said.err
    assert (nights.reads("sessions.retrieve") - reads, nights.posts()) == (3, posts)
    assert nights.newest_run().command == "collect"
    assert said.json["collected"]["run_id"] == nights.newest_run().run_id
    assert nights.newest_run().business_date > first.stamp.business_date, "it was seen today, and nobody knew it then"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--from", "2026-11-03", "--to", "2026-11-02"), "--from 2026-11-03 comes after --to 2026-11-02"),
        (("--from", "2026-11-01", "--to", "2999-01-01"), "narrow it"),
        (("--from", "2999-01-01", "--to", "2999-01-02"), "is in the future"),
        (("--from", "2026-13-01", "--to", "2026-11-02"), "does not match the format"),
        (("--from", "2026-11-01"), "Missing option '--to'"),
    ],
)
def test_dates_that_cannot_be_meant_are_refused(at: Relink, arguments: tuple[str, ...], words: str) -> None:
    ended = at("backfill", *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert words in ended.err


def test_without_any_records_there_is_nothing_to_rebuild_from(
    nights: Nights, relink: Relink, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = nights.directory / "none.db"
    command = deployed(nights, relink, monkeypatch, database={"url": f"sqlite:///{missing}"})
    ended = command("backfill", "--from", "2026-11-01", "--to", "2026-11-02")
    assert ended.code == 2
    assert "there are no records" in ended.err
    assert not missing.exists()
