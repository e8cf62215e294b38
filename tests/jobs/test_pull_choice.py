"""When all accounts are listed and when the last snapshot is brought up to now, through whole nights."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from jobs.adapters import records
from jobs.adapters.database import open_database
from jobs.nightly import RunResult
from jobs.pull_choice import choose_pull
from jobs.settings import parse_settings
from jobs.simulator.world import World
from jobs.work import Work
from tests.jobs.conftest import MakeNights
from tests.jobs.nights import SCOPE, Nights, assert_ties, outcomes, small_world, steps, table

NOW = datetime(2026, 11, 24, 3, tzinfo=UTC)
TODAY = date(2026, 11, 24)


def snapshot(**changes: Any) -> records.SnapshotRecord:
    """Last night's, of 100,000 accounts."""
    known: dict[str, Any] = {
        "snapshot_id": "s",
        "run_id": "r",
        "merchant": "main",
        "mode": "sandbox",
        "taken_at": NOW - timedelta(days=1),
        "completed_at": NOW - timedelta(days=1),
        "business_date": TODAY - timedelta(days=1),
        "accounts": 100_000,
        "ledger_rows": 1,
        "path": "p",
        "sha256": "h",
        "bytes": 1,
        "full_date": TODAY - timedelta(days=1),
        "server_from": NOW - timedelta(days=1),
        "server_to": NOW - timedelta(days=1),
    }
    return records.SnapshotRecord(**known | changes)


@pytest.mark.parametrize(
    ("settings", "last", "more", "obtained"),
    [
        ({"mode": "incremental"}, snapshot(), {}, "incremental"),
        ({"mode": "full"}, snapshot(), {}, "full"),
        ({"mode": "incremental"}, snapshot(), {"full_asked": True}, "full"),
        ({"mode": "incremental"}, None, {}, "full"),
        ({"mode": "incremental"}, snapshot(server_from=None), {}, "full"),
        ({"mode": "incremental"}, snapshot(full_date=TODAY - timedelta(days=6)), {}, "incremental"),
        ({"mode": "incremental"}, snapshot(full_date=TODAY - timedelta(days=7)), {}, "full"),
        (
            {"mode": "incremental", "full_every_days": 40},
            snapshot(server_from=NOW - timedelta(days=28)),
            {},
            "incremental",
        ),
        ({"mode": "incremental", "full_every_days": 40}, snapshot(server_from=NOW - timedelta(days=29)), {}, "full"),
        ({"mode": "auto"}, snapshot(), {}, "full"),
        ({"mode": "auto", "allocation": 30_000}, snapshot(), {}, "incremental"),
        ({"mode": "auto", "allocation": 40_000}, snapshot(), {}, "full"),
        ({"mode": "auto", "allocation": 40_000}, snapshot(), {"reads_30_days": 32_000}, "incremental"),
        ({"mode": "auto", "allocation": 30_000}, snapshot(), {"drift_30_days": 1}, "full"),
        ({"mode": "auto", "allocation": 100}, snapshot(accounts=1000), {}, "full"),
    ],
)
def test_what_decides(
    settings: dict[str, Any], last: records.SnapshotRecord | None, more: dict[str, Any], obtained: str
) -> None:
    allocation = settings.pop("allocation", None)
    chosen = parse_settings({"pull": settings, "stripe": {"monthly_read_allocation": allocation}})
    given = {"full_asked": False, "reads_30_days": 0, "drift_30_days": 0} | more
    choice = choose_pull(chosen, last=last, now=NOW, business_date=TODAY, **given)
    assert choice.obtained == obtained
    assert choice.why


def long_world() -> World:
    """1,440 accounts, so fifteen pages, of which an increment may read seven."""
    return small_world(customers=360, broken=(), accounts=4)


def pull_of(result: RunResult) -> dict[str, Any]:
    merchants: Any = result.summary["merchants"]
    pull: dict[str, Any] = merchants[0]["pull"]
    return pull


@pytest.fixture
def incremental(make_nights: MakeNights) -> Nights:
    """A deployment that has listed all accounts once."""
    nights = make_nights(long_world())
    nights.sections["pull"] = {"mode": "incremental"}
    assert pull_of(nights.run())["obtained"] == "full"
    return nights


def test_an_incremental_night_is_a_whole_night(incremental: Nights) -> None:
    nights = incremental
    nights.world.advance(days=1)
    nights.world.break_authorization("fcauth_100")
    listed = nights.reads("accounts.list")
    result = nights.run()
    assert (result.exit_code, result.complete) == (0, True)
    pull = pull_of(result)
    assert (pull["obtained"], pull["drift"], result.summary["drift"]) == ("incremental", None, None)
    assert nights.reads("accounts.list") - listed <= 5
    assert steps(result)["fca_100_1"] == "request"
    assert nights.states()["fcauth_100"] == "created"
    assert len(table(result, "accounts")) == 1440
    assert_ties(result)
    with open_database(nights.database_url) as database:
        last = records.last_snapshot(database, SCOPE)
        by_purpose = records.reads_by_purpose_30_days(database, SCOPE, nights.now())
    assert last is not None
    assert (last.obtained, last.accounts, last.full_date) == ("incremental", 1440, date(2026, 11, 2))
    assert last.base_snapshot_id == pull["base_snapshot_id"]
    assert {"pull", "events", "head", "reread"} <= by_purpose.keys()


def test_an_outage_ends_by_a_read(incremental: Nights) -> None:
    nights = incremental
    nights.world.advance(days=1)
    nights.world.break_authorization("fcauth_100")
    nights.run()
    nights.world.advance(days=1)
    nights.world.heal_authorization("fcauth_100")
    result = nights.run()
    assert pull_of(result)["obtained"] == "incremental"
    assert steps(result)["fca_100_1"] == "none"
    assert outcomes(result)["fcauth_100"] == "healed"


def test_what_the_increments_missed_is_told_by_the_full_pull(incremental: Nights) -> None:
    nights = incremental
    nights.world.set_permissions("fca_5_1", ["balances"])
    result = nights.next_night()
    if pull_of(result)["obtained"] == "full":  # drawn by lot
        assert "is not as the records and the events say" in pull_of(result)["why"]
        return
    nights.world.advance(days=1)
    result = nights.run(Work("run", full=True))
    assert pull_of(result)["drift"] == {"accounts": 1, "account_ids": ["fca_5_1"]}
    assert result.summary["drift"] == 1
    again = nights.next_night()
    assert pull_of(again)["obtained"] == "incremental"
    assert pull_of(again)["drift"] is None


def test_accounts_that_vanish_are_told_by_a_full_pull_and_the_brake(incremental: Nights) -> None:
    nights = incremental
    nights.sections["brakes"] = {"minimum": 5, "account_drop": 0.01}
    nights.world.advance(days=1)
    for account in list(nights.world.listing)[-20:]:
        nights.world.remove_account(account.id)
    result = nights.run()
    assert result.exit_code == 5
    assert "20 of 1440 accounts of the last snapshot are gone" in (result.why or "")


def test_nobody_is_asked_about_what_was_not_read_tonight(incremental: Nights) -> None:
    """Held back the night before, and healed since without an event: the accounts are read again before the request goes out."""
    nights = incremental
    nights.world.advance(days=1)
    nights.world.break_authorization("fcauth_100")
    nights.world.break_authorization("fcauth_200")
    nights.world.advance(hours=1)
    nights.run(relink={"max_requests_per_run": 0})
    nights.world.advance(days=1)
    nights.world.heal_authorization("fcauth_100")
    nights.world.events[:] = [one for one in nights.world.events if not one.type.endswith("reactivated")]
    read = nights.reads("accounts.retrieve")
    result = nights.run()
    if pull_of(result)["obtained"] == "incremental":
        # Those of the other customer may be on the page that is read by lot.
        assert nights.reads("accounts.retrieve") - read in (4, 8)
    assert nights.world.contacts_by_authorization() == {"fcauth_200": 1}
    assert_ties(result)


def test_a_dry_run_says_what_would_be_read_and_keeps_nothing(incremental: Nights) -> None:
    nights = incremental
    nights.world.advance(days=1)
    before = nights.knowledge()
    result = nights.run(Work("plan", dry_run=True))
    assert nights.knowledge() == before
    assert pull_of(result)["expected_reads"] == {"events": 1, "head": 1, "reread": 2}
    full = nights.run(Work("plan", dry_run=True, full=True))
    assert pull_of(full)["expected_reads"]["pull"] == 15
    assert pull_of(full)["why"] == "--full"
