"""Every fault that the doctor is for, each found without hiding another and without changing anything."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from jobs.adapters import records
from jobs.adapters.database import open_database
from jobs.adapters.lease import acquire
from jobs.probe import READ_BEHAVIOURS
from tests.jobs.cli.conftest import Ended, Relink, deployed
from tests.jobs.conftest import MakeNights
from tests.jobs.nights import KEY, SCOPE, Nights, small_world


@pytest.fixture
def tonight(make_nights: MakeNights) -> Nights:
    """A deployment whose Stripe has this host's time."""
    return make_nights(small_world(start=datetime.now(UTC)))


@pytest.fixture
def well(tonight: Nights, relink: Relink, monkeypatch: pytest.MonkeyPatch) -> Relink:
    """The command where nothing is wrong."""
    return deployed(tonight, relink, monkeypatch)


def levels(ended: Ended) -> dict[str, str]:
    """The worst level of each check."""
    worst: dict[str, str] = {}
    for check in ended.json["checks"]:
        worst[check["name"]] = max(worst.get(check["name"], "ok"), check["level"], key=["ok", "warn", "fail"].index)
    return worst


def said(ended: Ended, name: str) -> str:
    return " ".join(f"{check['text']} {check['mend']}" for check in ended.json["checks"] if check["name"] == name)


def test_where_nothing_is_wrong_every_line_is_ok(well: Relink, tonight: Nights) -> None:
    before = sorted(tonight.directory.rglob("*"))
    knowledge, posts = tonight.knowledge(), tonight.posts()
    ended = well("doctor", "--json")
    assert ended.code == 0
    assert set(levels(ended).values()) == {"ok"}
    assert set(levels(ended)) == {
        *("settings", "api key", "stripe", "api version", "object mode", "clock", "permissions", "database", "schema"),
        *("ledger", "lock", "reads", "reports", "snapshots", "notifications", "heartbeat"),
    }
    shown = well("doctor")
    assert shown.code == 0
    assert [line for line in shown.out.splitlines() if not line.startswith("ok    ")] == []
    assert KEY not in shown.out + shown.err
    assert (tonight.knowledge(), tonight.posts()) == (knowledge, posts)
    assert [
        path for path in sorted(tonight.directory.rglob("*")) if path not in before and "relink.db-" not in path.name
    ] == []


def test_wrong_settings_are_all_told(tonight: Nights, relink: Relink, monkeypatch: pytest.MonkeyPatch) -> None:
    at = deployed(tonight, relink, monkeypatch, relink={"cooldown_days": 1, "max_atempts": 3})
    ended = at("doctor", "--json")
    assert (ended.code, ended.json["exit_code"]) == (2, 2)
    assert "cooldown_days" in said(ended, "settings")
    assert "max_atempts" in said(ended, "settings")
    assert at("doctor").out.startswith("fail  settings: ")


def test_a_hosted_delivery_that_leads_nowhere_back_is_a_warning(
    tonight: Nights, relink: Relink, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = [{"customer": "cus_1", "delivery": "hosted_email"}]
    at = deployed(tonight, relink, monkeypatch, relink={"delivery_rules": rules})
    ended = at("doctor", "--json")
    assert (ended.code, levels(ended)["delivery"]) == (0, "warn")
    assert "hosted_email without relink.return_url" in said(ended, "delivery")
    back = {"delivery_rules": rules, "return_url": "https://shop.example/back"}
    at = deployed(tonight, relink, monkeypatch, relink=back)
    assert levels(at("doctor", "--json"))["delivery"] == "ok"


def test_a_missing_key_hides_nothing_else(well: Relink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STRIPE_API_KEY")
    ended = well("doctor", "--json")
    assert ended.code == 2
    found = levels(ended)
    assert found["api key"] == "fail"
    assert (found["database"], found["ledger"], found["reports"]) == ("ok", "ok", "ok")
    assert "stripe" not in found


def test_a_key_file_for_everybody_is_a_fault_and_a_private_one_is_told(
    tonight: Nights, relink: Relink, monkeypatch: pytest.MonkeyPatch
) -> None:
    key_file = tonight.directory / "key"
    key_file.write_text(KEY)
    tonight.merchants = [{"name": "main", "api_key_file": str(key_file)}]
    at = deployed(tonight, relink, monkeypatch)
    key_file.chmod(0o644)
    ended = at("doctor", "--json")
    assert ended.code == 2
    assert "0644" in said(ended, "api key")
    key_file.chmod(0o600)
    ended = at("doctor", "--json")
    assert (ended.code, levels(ended)["key file"]) == (0, "ok")
    assert "0600" in said(ended, "key file")


def test_a_key_of_the_other_mode_than_meant(tonight: Nights, relink: Relink, monkeypatch: pytest.MonkeyPatch) -> None:
    tonight.merchants = [{"name": "main", "mode": "live"}]
    stripe = {"api_base": "https://api.stripe.com", "requests_per_second": "auto", "endpoint_requests_per_second": 20}
    ended = deployed(tonight, relink, monkeypatch, stripe=stripe)("doctor", "--json")
    assert (ended.code, levels(ended)["api key"]) == (3, "fail")
    assert "stripe" not in levels(ended)  # Stripe is not called with the wrong key


def test_two_merchants_with_one_key(tonight: Nights, relink: Relink, monkeypatch: pytest.MonkeyPatch) -> None:
    tonight.merchants = [{"name": "main"}, {"name": "shop", "api_key_env": "SHOP_KEY"}]
    monkeypatch.setenv("SHOP_KEY", KEY)
    ended = deployed(tonight, relink, monkeypatch)("doctor", "--json")
    assert ended.code == 2
    assert "main and shop have the same API key" in said(ended, "api key")
    assert levels(ended)["ledger"] == "warn"
    assert "no row of merchant shop" in said(ended, "ledger")


def test_a_key_that_may_do_more_than_it_needs_is_warned_of(
    tonight: Nights, relink: Relink, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = deployed(tonight, relink, monkeypatch)
    tonight.world.add_key("sk_test_everything")
    monkeypatch.setenv("STRIPE_API_KEY", "sk_test_everything")
    ended = at("doctor", "--json")
    assert ended.code == 0
    assert (levels(ended)["api key"], levels(ended)["permissions"]) == ("warn", "warn")
    assert "customers and charges" in said(ended, "permissions")
    assert "sk_test" not in ended.out + ended.err


def test_a_key_that_may_do_less_than_it_needs(well: Relink, tonight: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    for denied, code, level in (
        ("accounts.list", 3, "fail"),
        ("authorizations.retrieve", 3, "fail"),
        ("sessions.retrieve", 3, "fail"),
        ("events.list", 0, "warn"),
    ):
        tonight.world.add_key(f"rk_test_less_{denied.split('.')[0]}", denied=[denied])
        monkeypatch.setenv("STRIPE_API_KEY", f"rk_test_less_{denied.split('.')[0]}")
        ended = well("doctor", "--json")
        assert (denied, ended.code, levels(ended)["permissions"]) == (denied, code, level)
        assert denied.split(".")[0] in said(ended, "permissions")


def test_a_revoked_key(well: Relink, tonight: Nights) -> None:
    tonight.world.revoke_key(KEY)
    ended = well("doctor", "--json")
    assert (ended.code, levels(ended)["stripe"], levels(ended)["database"]) == (3, "fail", "ok")
    assert KEY not in ended.out + ended.err


def test_stripe_out_of_reach_hides_nothing_else(well: Relink, tonight: Nights) -> None:
    tonight.server.close()
    ended = well("doctor", "--json")
    assert (ended.code, levels(ended)["stripe"]) == (3, "fail")
    assert (levels(ended)["ledger"], levels(ended)["snapshots"]) == ("ok", "ok")


@pytest.mark.parametrize(
    ("field", "value", "check"), [("livemode", True, "object mode"), ("authorization", ..., "api version")]
)
def test_objects_of_another_mode_or_version(
    well: Relink, tonight: Nights, relink: Relink, monkeypatch: pytest.MonkeyPatch, field: str, value: Any, check: str
) -> None:
    if value is ...:  # an older version does not know the field at all
        relink = deployed(tonight, relink, monkeypatch, stripe={"api_version": "2025-01-27.preview"})
    else:
        for account in tonight.world.listing:
            tonight.world.override(account.id, {field: value})
    ended = relink("doctor", "--json")
    assert (ended.code, levels(ended)[check]) == (3, "fail")


def test_an_account_without_connections_proves_nothing(
    make_nights: MakeNights, relink: Relink, monkeypatch: pytest.MonkeyPatch
) -> None:
    nights = make_nights(small_world(start=datetime.now(UTC)))
    for account in list(nights.world.listing):
        nights.world.remove_account(account.id)
    ended = deployed(nights, relink, monkeypatch)("doctor", "--json")
    assert (ended.code, levels(ended)["api version"]) == (0, "warn")


@pytest.mark.parametrize(
    ("apart", "level", "code"),
    [
        (timedelta(seconds=-30), "ok", 0),
        (timedelta(minutes=-5), "warn", 0),
        (timedelta(minutes=5), "warn", 0),
        (timedelta(hours=-5), "fail", 3),
        (timedelta(hours=5), "fail", 3),
    ],
)
def test_a_clock_that_differs_from_stripes(
    apart: timedelta, level: str, code: int, make_nights: MakeNights, relink: Relink, monkeypatch: pytest.MonkeyPatch
) -> None:
    nights = make_nights(small_world(start=datetime.now(UTC) + apart))
    ended = deployed(nights, relink, monkeypatch)("doctor", "--json")
    assert (ended.code, levels(ended)["clock"]) == (code, level)
    if level != "ok":
        assert ("behind" if apart > timedelta() else "ahead") in said(ended, "clock")


def test_a_database_that_does_not_exist_is_not_made(
    tonight: Nights, relink: Relink, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = tonight.directory / "var" / "relink.db"
    ended = deployed(tonight, relink, monkeypatch, database={"url": f"sqlite:///{missing}"})("doctor", "--json")
    assert ended.code == 3
    assert (levels(ended)["database"], levels(ended)["ledger"]) == ("warn", "fail")
    assert "relink ledger load" in said(ended, "ledger")
    assert not missing.parent.exists()


def test_a_damaged_database(tonight: Nights, relink: Relink, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged: Path = tonight.directory / "damaged.db"
    damaged.write_bytes(b"this is no database" * 1000)
    ended = deployed(tonight, relink, monkeypatch, database={"url": f"sqlite:///{damaged}"})("doctor", "--json")
    assert (ended.code, levels(ended)["database"], levels(ended)["reports"]) == (3, "fail", "ok")
    assert damaged.read_bytes() == b"this is no database" * 1000


def test_a_server_without_our_tables_gets_none(
    tonight: Nights, relink: Relink, monkeypatch: pytest.MonkeyPatch, postgres_url: str
) -> None:
    at = deployed(tonight, relink, monkeypatch, database={"url": postgres_url})
    for _ in range(2):
        ended = at("doctor", "--json")
        assert (ended.code, levels(ended)["database"], levels(ended)["schema"]) == (3, "ok", "fail")
        assert "relink db upgrade" in said(ended, "schema")
    at("db", "upgrade")
    assert levels(at("doctor", "--json"))["schema"] == "ok"


def test_records_of_the_other_mode(well: Relink, tonight: Nights) -> None:
    with open_database(tonight.database_url) as database:
        records.stamp_merchant(database, "main", "live", None, tonight.now())
    ended = well("doctor", "--json")
    assert (ended.code, levels(ended)["recorded mode"]) == (3, "fail")


def test_a_configured_ledger_is_checked_even_without_the_database(
    tonight: Nights, relink: Relink, monkeypatch: pytest.MonkeyPatch
) -> None:
    sections: dict[str, Any] = {
        "database": {"url": "postgresql+psycopg://relink:hunter2@127.0.0.1:9/relink?connect_timeout=1"},
        "ledger": {
            "url": f"sqlite:///{tonight.directory / 'relink.db'}",
            "query": "SELECT account_id, '' AS account_holder_id FROM relink_ledger",
        },
    }
    ended = deployed(tonight, relink, monkeypatch, **sections)("doctor", "--json")
    assert (ended.code, levels(ended)["database"], levels(ended)["ledger"]) == (3, "fail", "fail")
    assert "account_holder_id" in said(ended, "ledger")
    assert "hunter2" not in ended.out + ended.err


def test_reports_that_cannot_be_written(tonight: Nights, relink: Relink, monkeypatch: pytest.MonkeyPatch) -> None:
    in_the_way = tonight.directory / "reports"
    in_the_way.write_text("a file")
    ended = deployed(tonight, relink, monkeypatch)("doctor", "--json")
    assert (ended.code, levels(ended)["reports"], levels(ended)["snapshots"]) == (3, "fail", "fail")
    assert str(in_the_way) in said(ended, "reports")


def test_the_lock_and_the_reads_are_told(tonight: Nights, relink: Relink, monkeypatch: pytest.MonkeyPatch) -> None:
    at = deployed(tonight, relink, monkeypatch, stripe={"monthly_read_allocation": 100})
    tonight.run()
    with open_database(tonight.database_url) as database:
        run_id = tonight.newest_run().run_id
        more = records.ApiCalls("pull", "read", 90)
        with acquire(database, "run of tonight", renew=False):
            records.add_api_calls(database, run_id, SCOPE, tonight.now().date(), [more])
            ended = at("doctor", "--json")
    assert (ended.code, levels(ended)["lock"], levels(ended)["reads"]) == (0, "ok", "warn")
    assert f"held by run of tonight (process {os.getpid()}" in said(ended, "lock")
    assert "of 100 in the last 30 days" in said(ended, "reads")


def test_addresses_are_counted_and_tried_but_never_shown(well: Relink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELINK_NOTIFY_URLS", "json://127.0.0.1/CANARYtoken nosuch://CANARYtoken")
    monkeypatch.setenv("RELINK_HEARTBEAT_URL", "http://elsewhere.example/CANARYtoken")
    ended = well("doctor", "--json")
    found = levels(ended)
    assert (ended.code, found["notifications"], found["heartbeat"]) == (0, "warn", "warn")
    assert "1 of 2 addresses in $RELINK_NOTIFY_URLS cannot be used: number 2" in said(ended, "notifications")
    assert "CANARY" not in ended.out + ended.err


def test_a_group_that_the_user_is_not_in_is_told(
    tonight: Nights, relink: Relink, monkeypatch: pytest.MonkeyPatch, strange_group: str
) -> None:
    reports = {"directory": str(tonight.reports), "group": strange_group, "file_mode": "0640"}
    ended = deployed(tonight, relink, monkeypatch, reports=reports)("doctor", "--json")
    assert (ended.code, levels(ended)["reports"], levels(ended)["snapshots"]) == (3, "fail", "ok")
    assert "be a member of reports.group" in said(ended, "reports")


def test_the_probe_looks_by_reads_only_and_shows_no_id(well: Relink, tonight: Nights) -> None:
    knowledge, posts = tonight.knowledge(), tonight.posts()
    before = len(tonight.world.log)
    ended = well("doctor", "--probe", "--json")
    assert ended.code == 0
    told = {one["name"].removeprefix("probe "): one for one in ended.json["checks"] if one["name"].startswith("probe ")}
    assert tuple(told) == READ_BEHAVIOURS
    assert {one["agrees"] for one in told.values()} == {True, None}
    assert told["account-holder-kinds"]["text"] == "customer 12"
    assert told["account-inactive-details"]["text"] == "action and cause on 6 of 6"
    assert (tonight.knowledge(), tonight.posts()) == (knowledge, posts)
    calls = list(tonight.world.log)[before:]
    assert {call.method for call in calls} == {"GET"}
    assert 17 <= len(calls) <= 23, "'about 20 reads' is what people are told"
    texts = " ".join(one["text"] for one in told.values())
    assert not [account.id for account in tonight.world.listing if account.id in texts]
    shown = well("doctor", "--probe").out
    assert "ok    probe accounts-paging [main]: goes on behind the cursor\n" in shown


def test_the_probe_warns_where_stripe_does_otherwise(well: Relink, tonight: Nights) -> None:
    tonight.world.override("fca_1_1", {"account_holder": {"type": "trust", "trust": "trust_1"}})
    for account in tonight.world.listing:
        tonight.world.override(account.id, {"status_details": {}})
    ended = well("doctor", "--probe", "--json")
    assert ended.code == 0
    warned = {one["name"]: one["text"] for one in ended.json["checks"] if one["level"] == "warn"}
    assert warned == {
        "probe account-holder-kinds": "customer 11, trust 1",
        "probe account-inactive-details": "action and cause on 0 of 6",
    }


def test_what_the_key_may_not_read_is_said_and_hinders_no_other_probe(well: Relink, tonight: Nights) -> None:
    tonight.world.add_key(KEY, denied=["events.list", "authorizations.retrieve"])
    told = well("doctor", "--probe", "--json")
    assert told.code == 3  # the key lacks a permission that a night needs
    assert "cannot be told here: refused: 403" in said(told, "probe events-version")
    assert "cannot be told here: refused: 403" in said(told, "probe authorization-retrieve")
    assert "request-id" in " ".join(levels(told))
