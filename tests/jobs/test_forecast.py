"""What the nights themselves teach of how long logins last: told in the summary, on the page and by `relink status`, rebuilt byte for byte."""

from __future__ import annotations

import shutil
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import delete

from jobs.adapters.database import open_database
from jobs.adapters.tables import account_history
from jobs.backfill import Only, backfill
from jobs.nightly import RunResult
from jobs.simulator.world import World
from jobs.standing import standing
from jobs.wiring import wire
from jobs.work import Work
from tests.jobs.cli.processes import start
from tests.jobs.conftest import MakeNights
from tests.jobs.nights import Nights, table
from tests.reports.page_reading import read_page

BANK = "Alderbrook Mutual"
NIGHTS = 5
A_NIGHT = 4
LASTS_DAYS = 90


def world_of_ninety_days() -> World:
    """Logins that lapse 90 days after they were linked, four each night, and some whose time comes after the nights that are played."""
    world = World.empty(seed=2)
    for night in range(1, NIGHTS + 1 + 20):
        for number in range(A_NIGHT if night <= NIGHTS else 1):
            created = world.now_at - timedelta(days=LASTS_DAYS - night)
            name = f"{night}_{number}"
            world.add_authorization(
                ("customer", f"cus_{name}"),
                BANK,
                [{"account_id": f"fca_{name}"}],
                authorization_id=f"fcauth_{name}",
                created_at=created,
                tokenized=False,
            )
    return world


@pytest.fixture
def played(make_nights: MakeNights, database_url: str) -> tuple[Nights, RunResult]:
    """Nights until 20 logins have lapsed, each 90 days after it was linked."""
    nights = make_nights(world_of_ninety_days(), database_url=database_url)
    result = nights.run()
    for night in range(1, NIGHTS + 1):
        assert result.summary["merchants"][0]["expected_lapses"] == []  # type: ignore[index]
        nights.world.advance(days=1)
        for number in range(A_NIGHT):
            nights.world.break_authorization(f"fcauth_{night}_{number}")
        if night == NIGHTS:
            nights.sections["reports"] = {"formats": ["csv", "parquet", "html"]}
        result = nights.run()
    return nights, result


def told_in(result: RunResult) -> list[dict[str, Any]]:
    merchants: Any = result.summary["merchants"]
    return list(merchants[0]["expected_lapses"])


def test_what_lapsed_tells_what_will_lapse_and_stays_told(played: tuple[Nights, RunResult]) -> None:
    nights, result = played
    (told,) = told_in(result)
    assert (told["institution_name"], told["lasts_days"]) == (BANK, LASTS_DAYS)
    assert (told["agreeing"], told["observed"]) == (20, 20)
    today = result.stamp.business_date
    assert told["logins_by_date"] == {(today + timedelta(days=ahead)).isoformat(): 1 for ahead in range(1, 15)}
    assert (told["logins"], told["accounts"], told["within_days"]) == (14, 14, 14)
    # It tells and decides nothing.
    assert {row["finding"] for row in table(result, "accounts")} == {"inactive", "ok"}
    assert result.report_directory is not None
    page = read_page((result.report_directory / "index.html").read_text())
    assert [
        value for (grid, _, name), value in page.figures.items() if (grid, name) == ("lapses", "lapses.0.logins")
    ] == [14]
    with open_database(nights.database_url) as database:
        (merchant,) = standing(nights.settings(), database, nights.now())["merchants"]
    assert merchant["expected_lapses"] == [{"business_date": today.isoformat(), **told}]
    nights.config_file()
    shown, _ = start(nights, "status").communicate(timeout=60)
    assert (
        f"  {BANK}: 14 logins expected to lapse within 14 days of {today}: they last 90 days, by our own history of 20 of 20"
        in shown.splitlines()
    )
    _settings_decide(nights)
    _is_rebuilt(nights, result)


def _settings_decide(nights: Nights) -> None:
    assert told_in(nights.run(Work("plan", dry_run=True), forecast={"enabled": False})) == []
    (told,) = told_in(nights.run(Work("plan", dry_run=True), forecast={"within_days": 3}))
    assert (told["logins"], told["within_days"]) == (3, 3)


def _is_rebuilt(nights: Nights, result: RunResult) -> None:
    """What was expected is kept with its run, since the history it was learnt from is pruned in time."""
    directory = result.report_directory
    assert directory is not None
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    shutil.rmtree(directory)
    with open_database(nights.database_url) as database:
        oldest = delete(account_history).where(account_history.c.stripe_status == "active")
        database.run(lambda connection: connection.execute(oldest.where(account_history.c.account_id.like("fca_1_%"))))
    on = result.stamp.business_date
    with wire(nights.settings(), {}, holder="backfill", clock=nights.now, calls_stripe=False, create=False) as wiring:
        backfill(wiring, on, on, Only.MISSING, lambda _: None)
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before
