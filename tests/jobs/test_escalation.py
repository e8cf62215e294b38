"""A ladder, quiet times and suppression lists in whole nights, counted at the stand-in."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from jobs.adapters import records
from jobs.adapters.database import open_database
from jobs.settings import parse_settings
from jobs.work import Work
from reconcile.errors import SettingsError
from tests.jobs.nights import SCOPE, Nights, assert_ties, steps, table


def posts_by_night(nights: Nights, days: int) -> list[int]:
    """How many POSTs each further night made, and its totals tie."""
    made = []
    for _ in range(days):
        before = nights.posts()
        assert_ties(nights.next_night())
        made.append(nights.posts() - before)
    return made


def test_the_ladder_is_climbed_and_then_a_person_is_told(both_nights: Nights) -> None:
    nights = both_nights
    nights.sections["relink"] = {"ladder_days": [0, 3, 8]}
    nights.run()
    assert posts_by_night(nights, 18) == [0, 0, 3, 0, 0, 0, 0, 3] + [0] * 10
    result = nights.next_night()
    assert steps(result)["fca_1_1"] == "attempts_exhausted"
    assert nights.world.contacts_by_authorization() == {"fcauth_1": 3, "fcauth_2": 3, "fcauth_3": 3}
    assert "Customers who were asked as often as the settings allow" in page_of(nights)


def page_of(nights: Nights) -> str:
    nights.sections["reports"] = {"formats": ["parquet", "html"]}
    result = nights.next_night()
    assert result.report_directory is not None
    return (result.report_directory / "index.html").read_text()


def test_a_quiet_weekend_asks_nobody_and_monday_takes_it_up(nights: Nights) -> None:
    """The first night is a Monday; on Saturday one more login breaks."""
    nights.sections["relink"] = {"quiet_weekdays": ["saturday", "sunday"]}
    for _ in range(5):
        result = nights.run()
        nights.world.advance(days=1)
    nights.world.break_authorization("fcauth_5")
    before = nights.posts()
    saturday = nights.run()
    assert (saturday.exit_code, nights.posts()) == (0, before)
    assert steps(saturday)["fca_5_1"] == "capped"
    assert [one["quiet"] for one in saturday.summary["merchants"]] == ["quiet weekday saturday"]  # type: ignore[attr-defined]
    assert "nobody was contacted, quiet weekday sunday" in page_of(nights)
    monday = nights.next_night()
    assert steps(monday)["fca_5_1"] == "request"
    assert [one["quiet"] for one in monday.summary["merchants"]] == [None]  # type: ignore[attr-defined]
    assert {row["authorization_id"]: row["attempt"] for row in table(monday, "relink_requests")}["fcauth_5"] == 1
    assert steps(result)["fca_1_1"] == "open_session"


def test_quiet_hours_are_those_of_the_settings_time_zone(nights: Nights) -> None:
    """03:30 UTC is 22:30 of the evening before in New York."""
    nights.sections["relink"] = {"quiet_hours": "21:00-08:00"}
    nights.sections["schedule"] = {"timezone": "America/New_York"}
    nights.run()
    assert nights.posts() == 0
    nights.world.advance(hours=16)
    nights.run()
    assert nights.posts() == 3


def test_a_run_that_comes_into_quiet_hours_stops_sending_and_loses_nothing(nights: Nights) -> None:
    nights.sections["relink"] = {"quiet_hours": "03:01-04:00"}

    def clock() -> datetime:
        return nights.now() + timedelta(minutes=nights.posts() * 1.0)

    result = nights.run(clock=clock)
    assert (nights.posts(), result.exit_code) == (1, 4)
    left = [row for row in table(result, "relink_requests") if row["result"] == "not_sent"]
    assert {row["error_type"] for row in left} == {"quiet_time"}
    assert len(left) == 2
    again = nights.next_night()
    assert [row["attempt"] for row in table(again, "relink_requests")] == [1, 1]
    assert nights.world.contacts_by_authorization() == {"fcauth_1": 1, "fcauth_2": 1, "fcauth_3": 1}


def test_a_suppression_file_keeps_customers_and_accounts_out(nights: Nights, tmp_path: Path) -> None:
    names = tmp_path / "never.csv"
    names.write_text("id,merchant\ncus_1,main\nfca_2_1,\n")
    nights.sections["ledger"] = {"suppression_file": str(names)}
    found = steps(nights.run())
    assert (found["fca_1_1"], found["fca_1_2"]) == ("do_not_contact", "do_not_contact")
    assert (found["fca_2_1"], found["fca_2_2"], found["fca_3_1"]) == ("do_not_contact", "request", "request")
    assert nights.posts() == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id\ncus_1\n\n,\n", "has 2 cells, but the header has 1"),
        ("id\ncus_1\nsomebody@example.com\n", "row 2"),
        ("customer\ncus_1\n", "column id is missing"),
        ("", "the file is empty"),
        ("id,merchant\ncus_1,other\n", "row 1, id cus_1: names merchant 'other'"),
        (None, "cannot be read"),
    ],
)
def test_a_broken_suppression_list_stops_the_run_before_it_acts(
    nights: Nights, tmp_path: Path, text: str | None, said: str
) -> None:
    names = tmp_path / "never.csv"
    if text is not None:
        names.write_text(text)
    nights.sections["ledger"] = {"suppression_file": str(names)}
    result = nights.run()
    assert (result.exit_code, len(nights.world.log)) == (3, 0)
    assert said in (result.why or "")
    assert "somebody" not in (result.why or "")


def test_a_suppression_query_is_asked_of_the_ledger(nights: Nights, tmp_path: Path) -> None:
    import sqlite3

    ledger = tmp_path / "ledger.db"
    with sqlite3.connect(ledger) as connection:
        connection.execute("CREATE TABLE loans (account_id TEXT, account_holder_id TEXT)")
        connection.execute("CREATE TABLE complaints (customer TEXT)")
        connection.execute("INSERT INTO complaints VALUES ('cus_2')")
        connection.executemany(
            "INSERT INTO loans VALUES (?, ?)",
            [(one.id, one.holder.id) for one in nights.world.listing],
        )
    nights.sections["ledger"] = {
        "url": f"sqlite:///{ledger}",
        "query": "SELECT * FROM loans",
        "suppression_query": "SELECT customer AS id FROM complaints",
    }
    found = steps(nights.run())
    assert (found["fca_2_1"], nights.posts()) == ("do_not_contact", 2)
    nights.sections["ledger"]["suppression_query"] = "SELECT customer FROM complaints"
    stopped = nights.next_night()
    assert stopped.exit_code == 3
    assert "ledger.suppression_query yields no column id" in (stopped.why or "")


def test_an_outage_is_eligible_from_its_first_night_that_nothing_held_back(nights: Nights) -> None:
    nights.sections["relink"] = {"quiet_dates": ["2026-11-02"]}
    nights.run()
    nights.next_night()
    with open_database(nights.database_url) as database:
        found = records.open_breakages(database, SCOPE)
    assert {str(one.eligible_at)[:10] for one in found} == {"2026-11-03"}


def test_a_command_that_only_looks_starts_no_ladder(nights: Nights) -> None:
    """Two outages wait behind a cap; a collect on a day without a night finds the cap unspent, and still asks nobody."""
    nights.sections["relink"] = {"ladder_days": [0, 4], "max_requests_per_run": 1}
    nights.run()
    nights.world.advance(days=1)
    nights.run(Work("collect", from_stored=True, collect_everything=True, sends=False))
    with open_database(nights.database_url) as database:
        found = [one.eligible_at for one in records.open_breakages(database, SCOPE)]
    assert sorted(str(one)[:10] for one in found) == ["2026-11-02", "None", "None"]


@pytest.mark.parametrize(
    ("section", "values", "said"),
    [
        ("relink", {"ladder_days": []}, "relink.ladder_days: has no step"),
        ("relink", {"ladder_days": [0, 1]}, "must rise by at least 2 days"),
        ("relink", {"ladder_days": [4, 0]}, "must rise by at least 2 days"),
        ("relink", {"ladder_days": [-1, 3]}, "relink.ladder_days[0]"),
        ("relink", {"ladder_days": [0, 2, 4, 6, 8]}, "has 5 steps, of which only 4 would be made"),
        ("relink", {"quiet_weekdays": ["sun"]}, "relink.quiet_weekdays[0]"),
        ("relink", {"quiet_dates": ["2026-02-30"]}, "must be a date such as 2026-12-25"),
        ("relink", {"quiet_hours": "20-8"}, "must be two different times of day"),
        ("relink", {"quiet_hours": "25:00-08:00"}, "must be two different times of day"),
        ("relink", {"quiet_hours": "08:00-08:00"}, "must be two different times of day"),
        ("ledger", {"suppression_query": "SELECT id FROM x"}, "ledger.suppression_query: is asked of the database"),
        ("ledger", {"suppression_query": "DELETE FROM x"}, "begins with DELETE"),
    ],
)
def test_settings_that_cannot_be_meant_are_faults(section: str, values: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_settings({section: values})
    assert said in str(caught.value)


def test_all_seven_quiet_weekdays_are_a_fault() -> None:
    days = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
    with pytest.raises(SettingsError, match="names all seven"):
        parse_settings({"relink": {"quiet_weekdays": days}})
