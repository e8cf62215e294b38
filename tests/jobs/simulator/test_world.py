"""The generated world over time: the same seed, the same nights; its size; its controls; its ledger."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jobs.simulator.banks import TEST_INSTITUTIONS
from jobs.simulator.behaviour import Behaviour
from jobs.simulator.changes import Due
from jobs.simulator.clock import SimulatedClock
from jobs.simulator.ledger import LEDGER_COLUMNS, make_ledger, write_ledger_csv
from jobs.simulator.model import CATEGORY_OF, INACTIVE_CAUSES, PERMISSIONS
from jobs.simulator.server import SimulatorServer
from jobs.simulator.world import World
from tests.jobs.simulator.client import ACCOUNTS, SESSIONS, Client, relink_params


def five_nights(seed: int, *, backwards: bool = False, steps_per_night: int = 1) -> World:
    """Each night, a relink session for every authorization with an inactive account that can come back."""
    world = World.generate(600, seed=seed, behaviour=Behaviour(daily_break_rate=0.03))
    with SimulatorServer(world) as server:
        client = Client(server.port)
        for night in range(5):
            broken = sorted(
                authorization.id
                for authorization in world.authorizations.values()
                if authorization.status != "disconnected"
                and authorization.inactive_action != "none"
                and any(account.inactive_action == "relink_required" for account in authorization.accounts)
            )
            for identifier in reversed(broken) if backwards else broken:
                authorization = world.authorizations[identifier]
                # Some sessions are for one account alone, where siblings may come back by chance.
                one = {"limits[accounts]": "1"} if int(identifier[-1], 16) % 2 else {}
                params = relink_params(authorization, **one)
                assert client.post(SESSIONS, params, key=f"{identifier}-{night}").status == 200
            for _ in range(steps_per_night):
                world.advance(hours=24 / steps_per_night)
    return world


def test_same_seed_same_nights_whatever_the_order_of_calls() -> None:
    world = five_nights(4)
    again = five_nights(4, backwards=True, steps_per_night=6)
    assert world.digest() == again.digest()
    assert world.digest() != five_nights(5).digest()


def test_nights_bring_everything_the_documentation_names() -> None:
    world = five_nights(4)
    for _ in range(20):
        world.advance(days=1)
    kinds = Counter()
    for session in world.sessions.values():
        reason = (session.result or {}).get("failure_reason")
        new = (session.result or {}).get("authorization") not in (None, session.authorization_id)
        kinds[session.status, reason, new] += 1
    assert {
        ("pending", None, False),
        ("succeeded", None, False),
        ("succeeded", None, True),
        ("succeeded", "no_account", False),
        ("failed", "no_authorization", False),
        ("cancelled", None, False),
    } <= kinds.keys()
    causes = {account.inactive_cause for account in world.listing if account.status == "inactive"}
    assert causes <= set(INACTIVE_CAUSES)
    assert len(causes) >= 5
    assert {account.status for account in world.listing} == {"active", "inactive", "disconnected"}
    assert {account.inactive_action for account in world.listing} == {None, "none", "relink_required"}
    assert any(account.expected_at for account in world.listing)
    assert {event.type.partition(".")[2] for event in world.events} >= {
        "account.created",
        "account.deactivated",
        "account.reactivated",
        "account.disconnected",
        "account.account_numbers_updated",
        "account.upcoming_account_number_expiry",
        "account.expected_deactivation_date_updated",
        "account.upcoming_deactivation",
        "authorization.upcoming_deactivation",
        "session.updated",
    }


def test_numbers_permissions_and_dates_stay_coherent() -> None:
    world = five_nights(9)
    for account in world.listing:
        assert set(account.permissions) <= set(PERMISSIONS)
        assert account.permissions
        assert account in account.authorization.accounts
        assert (account.status == "inactive") == (account.inactive_action is not None)
        if account.status != "active":
            assert account.expected_at is None
        elif account.expected_at is not None:
            assert account.expected_at > world.now
            assert account.active_action == "relink_required"
        for number in account.numbers:
            if number.status == "transactable" and number.expires_at is not None:
                assert number.expires_at > world.now
    assert [account.position for account in world.listing] == list(range(len(world.listing)))
    assert set(world.accounts) == {account.id for account in world.listing}


def test_fifty_thousand_accounts() -> None:
    world = World.generate(50_000, seed=11)
    assert len(world.accounts) == len(world.listing) == 50_000
    assert {name for name, *_ in TEST_INSTITUTIONS} <= {
        authorization.institution.name for authorization in world.authorizations.values()
    }
    assert {account.subcategory for account in world.listing} == set(CATEGORY_OF)
    assert {account.holder.kind for account in world.listing} == {"customer", "account", "customer_account"}
    sizes = Counter(len(authorization.accounts) for authorization in world.authorizations.values())
    assert set(sizes) == {1, 2, 3, 4, 5}
    per_holder = Counter(authorization.holder.id for authorization in world.authorizations.values())
    assert 1.1 < len(world.authorizations) / len(per_holder) < 1.4
    broken = sum(account.status == "inactive" for account in world.listing)
    world.advance(days=1)
    newly = sum(account.status == "inactive" and account.broken_at > world.start for account in world.listing)
    assert 0 < newly < 0.03 * 50_000
    assert 0.02 * 50_000 < broken < 0.10 * 50_000


def test_a_quiet_world_stays_as_it_is(world: World) -> None:
    before = [(account.id, account.status) for account in world.listing]
    world.advance(days=365)
    assert [(account.id, account.status) for account in world.listing] == before
    assert world.events == []


def test_new_customers_arrive_as_the_newest() -> None:
    world = World.generate(500, seed=1, behaviour=Behaviour(daily_new_link_rate=0.05))
    world.advance(days=2)
    assert len(world.listing) > 500
    created = [account.created for account in world.listing]
    assert created == sorted(created)


def test_time_does_not_run_backwards_or_without_a_zone(world: World) -> None:
    with pytest.raises(ValueError, match="backwards"):
        world.advance_to(datetime(2020, 1, 1, tzinfo=UTC))
    with pytest.raises(ValueError, match="zone"):
        world.advance_to(datetime(2030, 1, 1))


def test_a_running_clock_moves_the_world() -> None:
    clock = SimulatedClock(datetime(2026, 1, 1, tzinfo=UTC), rate=1e9)
    world = World.empty(clock=clock, start=datetime(2026, 1, 1, tzinfo=UTC))
    authorization = world.add_authorization()
    world.expect_deactivation(authorization.id, world.now_at + timedelta(microseconds=1))
    with SimulatorServer(world) as server:
        shown = Client(server.port).get(ACCOUNTS).json["data"][0]
    assert shown["status"] == "inactive"


def test_breaking_a_whole_bank(world: World) -> None:
    for number in range(40):
        world.add_authorization(("customer", f"cus_b{number}"), "Copperline Credit Union")
    assert world.break_institution("Copperline Credit Union", share=0.5) in range(8, 33)
    assert world.break_institution("Copperline Credit Union") > 0
    statuses = {
        each.status for each in world.authorizations.values() if each.institution.name == "Copperline Credit Union"
    }
    assert statuses == {"inactive"}
    assert world.authorizations["fcauth_1"].status == "active"


def test_healing_and_account_level_breaks(world: World) -> None:
    world.break_account("fca_1")
    assert world.authorizations["fcauth_1"].status == "active"
    world.heal_account("fca_1")
    assert world.accounts["fca_1"].inactive_cause is None
    world.break_authorization("fcauth_1")
    world.heal_authorization("fcauth_1")
    assert {account.status for account in world.listing} == {"active"}


def test_trouble_returns_after_healing() -> None:
    behaviour = replace(Behaviour.quiet(), daily_break_rate=0.2, break_causes={"access_expired": 1.0}, heal_share=1.0)
    world = World.empty(seed=3, behaviour=behaviour)
    world.add_authorization(accounts=[{"account_id": "fca_1"}])
    breaks: set[int] = set()
    for _ in range(100):
        world.advance(days=1)
        if world.accounts["fca_1"].inactive_action == "relink_required":
            breaks.add(world.accounts["fca_1"].broken_at)
    assert len(breaks) >= 3


def test_healing_meant_for_one_break_does_not_end_the_next(world: World) -> None:
    world.break_account("fca_1")
    first = world.accounts["fca_1"].broken_at
    world.schedule(world.now + 7200, Due.HEAL, "fca_1", first)
    world.heal_account("fca_1")
    world.advance(hours=1)
    world.break_account("fca_1")
    world.advance(hours=2)
    assert world.accounts["fca_1"].status == "inactive"
    world.schedule(world.now + 1, Due.HEAL, "fca_1", world.accounts["fca_1"].broken_at)
    world.advance(hours=1)
    assert world.accounts["fca_1"].status == "active"


def test_holder_override_moves_the_account_between_holders(world: World, client: Client) -> None:
    world.set_holder("fca_2", ("customer", "cus_2"))
    shown = client.get(ACCOUNTS, {"account_holder[customer]": "cus_2"}).json["data"]
    assert [each["id"] for each in shown] == ["fca_2"]
    assert shown[0]["authorization"] == "fcauth_1"


def test_controls_over_http(world: World, client: Client) -> None:
    def control(name: str, body: bytes) -> int:
        return client.send("POST", f"/_simulator/{name}", body).status

    assert control("break_account", b'{"account_id": "fca_1", "cause": "access_denied"}') == 200
    assert world.accounts["fca_1"].inactive_cause == "access_denied"
    assert control("advance", b'{"days": 2}') == 200
    assert control("expect_deactivation", b'{"authorization_id": "fcauth_1", "at": "2026-12-01T00:00:00+00:00"}') == 200
    assert world.accounts["fca_2"].expected_at == int(datetime(2026, 12, 1, tzinfo=UTC).timestamp())
    session = client.post(SESSIONS, relink_params(world.authorizations["fcauth_1"])).json["id"]
    assert control("answer", f'{{"session_id": "{session}", "how": "cancelled"}}'.encode()) == 200
    assert control("script_fault", b'{"kind": "forbidden"}') == 200
    assert client.get(ACCOUNTS).status == 403
    assert control("add_account", b'{"authorization_id": "fcauth_1", "account_id": "fca_new"}') == 200
    stats = client.get("/_simulator/stats").json
    assert stats["sessions"] == {"cancelled": 1}
    assert client.get("/_simulator/digest").json["digest"] == world.digest()
    assert client.get("/_simulator/effects").json["effects"][0]["session_id"] == session
    assert [call["status"] for call in client.get("/_simulator/log").json["calls"]] == [200, 403]
    assert control("digest_everything", b"{}") == 400
    assert control("break_account", b'{"account_id": "fca_404"}') == 400
    assert control("break_account", b"[]") == 400
    assert control("break_account", b'{"nonsense": 1}') == 400


def test_ledger_mostly_agrees_and_disagrees_in_every_way(tmp_path: Path) -> None:
    world = World.generate(4000, seed=6)
    rows = make_ledger(world, seed=6)
    assert rows == make_ledger(world, seed=6)
    known = {row["account_id"]: row for row in rows}
    assert len(known) == len(rows)
    in_both = [(world.accounts[key], row) for key, row in known.items() if key in world.accounts]
    assert 0 < len(known.keys() - world.accounts.keys()) < 0.03 * len(rows)
    assert 0 < len(world.accounts.keys() - known.keys()) < 0.05 * len(rows)
    assert any(row["account_holder_id"] != account.holder.id for account, row in in_both)
    assert any(account.status == "disconnected" for account, _ in in_both)
    beyond = [
        row
        for account, row in in_both
        if set(filter(None, str(row["required_permissions"]).split(","))) - set(account.permissions)
    ]
    assert 0 < len(beyond) < 0.05 * len(rows)
    assert {row["status"] for row in rows} == {"open", "closed", ""}
    assert {row["purpose"] for row in rows} == {"data", "payments", ""}
    assert {row["currency"] for row in rows} == {"usd", "eur", "gbp", None}
    assert {"true", "yes", "1"} <= {row["do_not_contact"] for row in rows}
    assert any(
        row["purpose"] == "payments"
        and account.numbers
        and all(number.status in ("expired", "deactivated") for number in account.numbers)
        for account, row in in_both
    )
    path = write_ledger_csv(tmp_path / "ledger.csv", rows)
    parsed = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
    assert tuple(parsed[0]) == LEDGER_COLUMNS
    assert [row["account_id"] for row in parsed] == [row["account_id"] for row in rows]
    assert all(row["exposure_minor"] == "" or row["exposure_minor"].isdigit() for row in parsed)


def test_ledger_without_disagreements_agrees() -> None:
    world = World.generate(800, seed=6)
    rows = {row["account_id"]: row for row in make_ledger(world, seed=6, disagreements=False)}
    connected = {account.id for account in world.listing if account.status != "disconnected"}
    assert rows.keys() == connected
    for key, row in rows.items():
        account = world.accounts[str(key)]
        assert row["account_holder_id"] == account.holder.id
        assert set(filter(None, str(row["required_permissions"]).split(","))) <= set(account.permissions)
        assert row["status"] in ("open", "")
        assert row["purpose"] in ("data", "")
        assert row["do_not_contact"] in ("", "false", "no", "0")


def test_ledger_of_one_merchant_among_several(tmp_path: Path) -> None:
    rows = make_ledger(World.generate(50, seed=6), merchant="north")
    path = write_ledger_csv(tmp_path / "ledger.csv", rows)
    parsed = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
    assert {row["merchant"] for row in parsed} == {"north"}
    assert tuple(parsed[0]) == ("merchant", *LEDGER_COLUMNS)


def test_blocking_server_ends_when_closed(world: World) -> None:
    server = SimulatorServer(world)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    assert Client(server.port).get(ACCOUNTS).status == 200
    server.close()
    thread.join(timeout=5)
    assert not thread.is_alive()


def test_ledger_rows_do_not_change_when_others_arrive() -> None:
    world = World.generate(500, seed=6, behaviour=Behaviour(daily_new_link_rate=0.05, automatic_answers=False))
    before = {row["account_id"]: row for row in make_ledger(world, seed=6)}
    world.add_authorization(("customer", "cus_late"), accounts=3)
    after = {row["account_id"]: row for row in make_ledger(world, seed=6)}
    assert all(after[key] == row for key, row in before.items())


def test_simulator_imports_nothing_heavy() -> None:
    code = (
        "import sys, jobs.simulator.server, jobs.simulator.ledger;"
        "print([m for m in ('stripe','pandas','pyarrow','sqlalchemy','requests','pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
