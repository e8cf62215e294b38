"""A night as a whole: done once, written down however it ends, one merchant's trouble apart from another's."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from jobs.adapters import records
from jobs.adapters.database import open_database
from jobs.resumption import work_to_retry
from jobs.selection import Selection
from jobs.simulator.server import SimulatorServer
from jobs.simulator.world import World
from jobs.wiring import wire
from jobs.work import Work
from reconcile.errors import AlreadyRunning, ReportError
from reconcile.model import Scope
from tests.jobs.conftest import MakeNights
from tests.jobs.nights import KEY, Nights, add_customer, assert_ties, ledger_of, small_world, table


def test_a_second_run_of_a_finished_date_does_nothing(both_nights: Nights) -> None:
    nights = both_nights
    first = nights.run()
    before, calls, latest = nights.knowledge(), len(nights.world.log), nights.link("latest")
    nights.world.break_authorization("fcauth_5")
    nights.world.advance(hours=20)
    again = nights.run()
    assert (again.exit_code, again.run_id, again.report_directory) == (0, first.run_id, first.report_directory)
    assert len(nights.world.log) == calls
    assert (nights.knowledge(), nights.link("latest")) == (before, latest)


def test_the_date_is_that_of_the_settings_time_zone(nights: Nights) -> None:
    """03:00 UTC on 2 November is still the first in New York; 06:00 is not."""
    nights.sections["schedule"] = {"timezone": "America/New_York"}
    first = nights.run()
    nights.world.advance(hours=3)
    second = nights.run()
    assert [str(one.stamp.business_date) for one in (first, second)] == ["2026-11-01", "2026-11-02"]
    assert first.run_id != second.run_id


def test_a_finished_apply_or_request_does_not_finish_the_date(nights: Nights) -> None:
    nights.run(Work("apply", agreed={"main": []}))
    assert nights.run().already_finished is None
    assert nights.posts() == 3


def test_a_dry_run_changes_nothing_and_reports_aside(nights: Nights) -> None:
    nights.run()
    nights.world.break_authorization("fcauth_5")
    nights.world.advance(days=1)
    before, posts = nights.knowledge(), nights.posts()
    run, latest = nights.newest_run(), nights.link("latest")
    attempt, snapshots = nights.link("last_attempt"), sorted((nights.reports / "_snapshots").rglob("*"))
    result = nights.run(Work("run", dry_run=True))
    assert result.exit_code == 0
    assert result.report_directory is not None
    assert result.report_directory.parts[-3] == "dry_run=true"
    assert {row["authorization_id"]: row["result"] for row in table(result, "relink_requests")} == {
        "fcauth_5": "would_request"
    }
    assert_ties(result)
    assert (nights.knowledge(), nights.posts(), nights.newest_run()) == (before, posts, run)
    assert (nights.link("latest"), nights.link("last_attempt")) == (latest, attempt)
    assert sorted((nights.reports / "_snapshots").rglob("*")) == snapshots
    assert nights.run().already_finished is None


def test_a_dry_run_without_a_database_makes_none(nights: Nights, tmp_path: Path) -> None:
    """Its ledger must then be elsewhere."""
    import sqlite3

    ledger = tmp_path / "ledger.db"
    with sqlite3.connect(ledger) as connection:
        connection.execute("CREATE TABLE loans (account_id TEXT, account_holder_id TEXT)")
        rows = [(row["account_id"], row["account_holder_id"]) for row in ledger_of(nights.world)]
        connection.executemany("INSERT INTO loans VALUES (?, ?)", rows)
    missing = tmp_path / "nowhere" / "relink.db"
    result = nights.run(
        Work("run", dry_run=True),
        database={"url": f"sqlite:///{missing}"},
        ledger={"url": f"sqlite:///{ledger}", "query": "SELECT account_id, account_holder_id FROM loans"},
    )
    assert result.exit_code == 0
    assert len(table(result, "relink_requests")) == 3
    assert not missing.exists()
    assert not missing.parent.exists()
    assert nights.posts() == 0


def test_a_night_without_findings_still_writes_every_file(make_nights: MakeNights) -> None:
    result = make_nights(small_world(broken=())).run()
    assert result.report_directory is not None
    assert result.exit_code == 0
    names = {path.name for path in result.report_directory.iterdir()}
    tables = (
        "accounts",
        "authorizations",
        "relink_requests",
        "relink_outcomes",
        "account_successors",
        "failure_reasons",
    )
    assert {f"{name}.{kind}" for name in tables for kind in ("csv", "parquet")} <= names
    assert {"summary.json", "manifest.json"} <= names
    with (result.report_directory / "relink_requests.csv").open(encoding="utf-8-sig", newline="") as file:
        (header,) = csv.reader(file)
    assert header[:3] == ["merchant", "request_id", "authorization_id"]
    assert_ties(result)


def test_only_one_run_at_a_time(nights: Nights) -> None:
    settings = nights.settings()
    with wire(settings, nights.environment, holder="run", clock=nights.now):
        calls = len(nights.world.log)
        with pytest.raises(AlreadyRunning, match="another run holds the lock"):
            nights.run()
        assert nights.run(Work("run", dry_run=True)).exit_code == 0, "who only looks waits for nobody"
        assert nights.posts() == 0
        assert len(nights.world.log) > calls
    assert nights.run().exit_code == 0


def test_where_reports_cannot_be_written_nothing_is_read_or_sent(nights: Nights) -> None:
    nights.directory.joinpath("file").write_text("in the way")
    with pytest.raises(ReportError, match="file"):
        nights.run(reports={"directory": str(nights.directory / "file" / "reports")})
    assert len(nights.world.log) == 0


def test_a_disk_that_fills_up_before_the_report_stops_the_run(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was sent is on record; the next run of the date writes the report and sends nothing again."""
    import reports.files

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(reports.files, "parquet_chunks", full)
    stopped = nights.run()
    monkeypatch.undo()
    assert (stopped.exit_code, stopped.complete) == (3, False)
    assert "No space left" in str(stopped.why)
    assert nights.posts() == 3
    run = nights.newest_run()
    assert (run.state, run.exit_code) == (records.STOPPED, 3)
    assert nights.link("latest") is None
    nights.world.advance(hours=1)
    again = nights.run()
    assert (again.exit_code, nights.posts()) == (0, 3)
    assert_ties(again)


def test_a_fault_of_ours_is_recorded_and_goes_through(nights: Nights) -> None:
    def broken_clock() -> datetime:
        if nights.posts():
            raise ZeroDivisionError("a bug")
        return nights.now()

    with pytest.raises(ZeroDivisionError):
        nights.run(clock=broken_clock)
    assert nights.posts() == 1
    nights.world.advance(hours=1)
    assert nights.run().exit_code == 0
    assert set(nights.world.contacts_by_authorization().values()) == {1}


def test_a_clock_set_back_asks_nobody_twice(nights: Nights) -> None:
    """The run before lies in the future now."""
    nights.run()
    earlier = datetime(2026, 10, 31, 3, tzinfo=UTC)
    result = nights.run(clock=lambda: earlier)
    assert result.exit_code == 0
    assert nights.posts() == 3
    assert_ties(result)


def test_records_of_the_other_mode_are_refused_before_anything(nights: Nights) -> None:
    from reconcile.errors import ModeMismatch

    with open_database(nights.database_url) as database:
        records.stamp_merchant(database, "main", "live", None, nights.now())
    before = nights.knowledge()
    with pytest.raises(ModeMismatch, match="are of mode live, the key is sandbox"):
        nights.run()
    assert (len(nights.world.log), nights.knowledge()) == (0, before)


# The ledger, before any read is spent


@pytest.mark.parametrize("kind", ["empty", "unreachable", "failing", "duplicate"])
def test_a_faulty_ledger_stops_the_run_before_stripe_is_asked(nights: Nights, tmp_path: Path, kind: str) -> None:
    import sqlite3

    path = tmp_path / "ledger.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE loans (account_id TEXT, account_holder_id TEXT)")
        if kind == "duplicate":
            connection.executemany("INSERT INTO loans VALUES (?, ?)", [("fca_1_1", "cus_1"), ("fca_1_1", "cus_2")])
    query = "SELECT account_id, account_holder_id FROM " + ("nothing" if kind == "failing" else "loans")
    url = f"sqlite:///{tmp_path / 'none.db' if kind == 'unreachable' else path}"
    result = nights.run(ledger={"url": url, "query": query})
    assert result.exit_code == 3
    assert len(nights.world.log) == 0
    why = result.why or ""
    told = {"empty": "empty", "duplicate": "fca_1_1", "failing": "nothing", "unreachable": "none.db"}
    assert told[kind] in why
    assert nights.last_attempt()["why"] == why
    if kind == "unreachable":
        assert not (tmp_path / "none.db").exists()


# Several merchants


class Two:
    """Two merchants in one deployment, each with a Stripe account of its own."""

    def __init__(self, first: World, second: World, server: SimulatorServer, tmp_path: Path) -> None:
        self.nights = Nights(first, server, tmp_path, f"sqlite:///{tmp_path / 'relink.db'}")
        self.second = second
        self.nights.merchants = [{"name": "main"}, {"name": "other", "api_key_env": "OTHER_KEY"}]
        self.nights.environment["OTHER_KEY"] = "rk_test_other"
        self.nights.load_ledger([*ledger_of(first, "main"), *ledger_of(second, "other")])

    def advance(self, days: float) -> None:
        self.nights.world.advance(days=days)
        self.second.advance(days=days)


@pytest.fixture
def two(tmp_path: Path) -> object:
    first = small_world(customers=3, broken=(1,))
    second = World.empty(seed=12, api_keys=["rk_test_other"], stripe_account="acct_other")
    for number in (11, 12):
        add_customer(second, number)
    second.break_authorization("fcauth_11")
    with SimulatorServer(first, other_worlds=[second]) as server:
        yield Two(first, second, server, tmp_path)


def test_trouble_of_one_merchant_keeps_no_other_of_a_finished_date_from_being_settled(two: Two) -> None:
    for world in (two.nights.world, two.second):
        world.faults.script("error_503", method="POST", times=3)
    assert two.nights.run().exit_code == 4
    two.nights.world.revoke_key(KEY)
    two.advance(0.1)
    again = two.nights.run()
    assert (again.exit_code, again.already_finished is not None, "key" in str(again.why)) == (3, True, True)
    assert len(two.second.effects) == 1


def test_what_a_retry_leaves_out_is_told_of_its_own_merchant_alone(two: Two) -> None:
    two.nights.world.delete_customer("cus_1")
    refused = two.nights.run()
    with open_database(two.nights.database_url) as database:
        work = work_to_retry(database, refused.run_id)
    assert work is not None
    two.advance(0.1)
    told = {night.merchant.scope.merchant: night.skipped for night in two.nights.run(work).nights}
    assert told["other"] == []


def test_each_merchant_is_asked_under_its_own_key(two: Two) -> None:
    result = two.nights.run()
    assert result.exit_code == 0
    assert set(two.nights.world.contacts_by_authorization()) == {"fcauth_1"}
    assert set(two.second.contacts_by_authorization()) == {"fcauth_11"}
    rows = table(result, "relink_requests")
    assert {(row["merchant"], row["authorization_id"]) for row in rows} == {
        ("main", "fcauth_1"),
        ("other", "fcauth_11"),
    }
    assert_ties(result)


@pytest.mark.parametrize("revoked", ["main", "other"])
def test_a_revoked_key_of_one_does_not_stop_the_other(two: Two, revoked: str) -> None:
    nights, good = two.nights, "other" if revoked == "main" else "main"
    (nights.world if revoked == "main" else two.second).revoke_key(
        "rk_test_simulator" if revoked == "main" else "rk_test_other"
    )
    result = nights.run()
    assert result.exit_code == 3
    assert not result.complete
    worlds = {"main": nights.world, "other": two.second}
    assert (len(worlds[good].effects), len(worlds[revoked].effects)) == (1, 0)
    assert {row["merchant"] for row in table(result, "accounts")} == {good}
    merchants = {one["merchant"]: one for one in nights.last_attempt()["merchants"]}
    assert (merchants[good]["complete"], merchants[revoked]["complete"]) == (True, False)
    assert "revoked" in merchants[revoked]["why"]
    assert nights.link("latest") is None
    assert_ties(result)
    with open_database(nights.database_url) as database:
        run = records.run(database, result.run_id)
    assert run is not None
    assert {one.merchant: one.complete for one in run.merchants} == {good: True, revoked: False}
    # With the key mended the date is finished, and the other merchant's customers are not asked again.
    worlds[revoked].keys["rk_test_simulator" if revoked == "main" else "rk_test_other"].revoked = False
    two.advance(0.1)
    again = nights.run()
    assert (again.exit_code, len(worlds[good].effects), len(worlds[revoked].effects)) == (0, 1, 1)
    assert_ties(again)


def test_the_worst_end_of_all_merchants_counts(two: Two) -> None:
    two.nights.world.delete_customer("cus_1")
    two.second.delete_customer("cus_11")
    assert two.nights.run().exit_code == 4
    two.second.revoke_key("rk_test_other")
    two.advance(1)
    assert two.nights.run().exit_code == 3


def test_the_same_ids_at_two_merchants_never_meet(tmp_path: Path) -> None:
    first = small_world(customers=2, broken=(1,))
    second = small_world(customers=2, broken=(1,), api_keys=["rk_test_other"], stripe_account="acct_other")
    with SimulatorServer(first, other_worlds=[second]) as server:
        two = Two(first, second, server, tmp_path)
        result = two.nights.run()
        assert result.exit_code == 0
        assert len(first.effects) == len(second.effects) == 1
        assert first.effects[0].idempotency_key != second.effects[0].idempotency_key
        stored = [two.nights.by_authorization(Scope(name, "sandbox"))["fcauth_1"] for name in ("main", "other")]
        assert stored[0].session_id == first.effects[0].session_id
        assert stored[1].session_id == second.effects[0].session_id
        first.answer(first.effects[0].session_id, "whole")
        two.advance(1)
        night = two.nights.run()
        told = {row["merchant"]: row["outcome"] for row in table(night, "relink_outcomes")}
        assert told == {"main": "relinked", "other": "pending"}
        assert_ties(night)


def test_a_selection_may_name_customers_of_either_merchant(two: Two) -> None:
    from jobs.selection import Selection

    nights = two.nights
    nights.run(relink={"max_requests_per_run": 0})
    two.advance(0.01)
    chosen = Selection(customers=frozenset({"cus_1", "cus_11"}))
    result = nights.run(Work("request", from_stored=True, selection=chosen))
    assert (result.exit_code, len(table(result, "relink_requests"))) == (0, 2)


def test_the_summary_is_valid_json_of_the_contract(nights: Nights) -> None:
    result = nights.run()
    assert result.report_directory is not None
    summary = json.loads((result.report_directory / "summary.json").read_text())
    assert {"run_id", "run_date", "command", "complete", "dry_run", "sent", "control", "api_calls"} <= set(summary)
    assert summary["api_calls"]["writes"] == 3
    assert summary["api_calls"]["reads"] == {"pull": 1}


def test_a_name_or_session_of_one_merchant_is_no_fault_of_the_other(two: Two) -> None:
    """What a person names belongs to one merchant; only what none of them has is refused."""
    two.nights.run()
    two.advance(days=9)
    two.nights.run()
    two.advance(days=0.1)
    found = Selection(customers=frozenset({"cus_11"}))
    assert two.nights.run(Work("request", from_stored=True, selection=found)).exit_code == 0
    typo = Selection(customers=frozenset({"cus_none"}))
    assert two.nights.run(Work("request", from_stored=True, selection=typo)).exit_code == 2
    (session_id, *_) = [one.session_id for one in two.second.effects]
    adopted = two.nights.run(Work("adopt", from_stored=True, sends=False, adopts=(session_id,)))
    assert adopted.exit_code == 0
    refused = two.nights.run(Work("adopt", from_stored=True, sends=False, adopts=("fcsess_none",)))
    assert refused.exit_code == 2


def test_a_merchant_without_a_ledger_row_is_stopped(two: Two) -> None:
    two.nights.load_ledger(ledger_of(two.nights.world, "main"))
    result = two.nights.run()
    assert (result.exit_code, two.second.contacts_by_authorization()) == (3, {})
    assert "no row for merchant other" in str(result.why)


def test_a_run_warns_before_the_reads_of_the_month_are_spent(nights: Nights, caplog: pytest.LogCaptureFixture) -> None:
    """Near the allocation there is a warning, far below it none."""
    nights.run(stripe={"monthly_read_allocation": 30})
    nights.world.advance(days=1)
    nights.run(stripe={"monthly_read_allocation": 30})
    assert "reads of 30 days" not in caplog.text
    nights.world.advance(days=1)
    nights.run(stripe={"monthly_read_allocation": 3})
    assert "reads of 30 days" in caplog.text
