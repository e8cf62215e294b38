"""The small deployment that every trial begins with: a merchant after one complete night, whose customers then lost their banks.

Nothing here is a mock: the world is served over HTTP, the database and the reports are real, and a night is `jobs.nightly.run`.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from jobs.adapters import records
from jobs.adapters.database import open_database
from jobs.nightly import RunResult
from jobs.nightly import run as run_night
from jobs.settings import Settings, parse_settings
from jobs.simulator.behaviour import Behaviour
from jobs.simulator.server import SimulatorServer
from jobs.simulator.world import DEFAULT_KEY, DEFAULT_START, World
from jobs.wiring import Wiring, wire
from jobs.work import Work
from reconcile.ledger import check_rows, require_clean
from reports.verification import verify

COOLDOWN_DAYS = 4
PENDING_DAYS = 7

ASKED_BEFORE = "fcauth_0"
ASKED_BY_OTHERS = "fcauth_2"
SHARED = "fcauth_1"
BROKEN = (SHARED, "fcauth_2", "fcauth_3", "fcauth_4")
"""Authorizations that break before a trial; the last two are one customer's, of whom one is asked about at a time."""

MUST_BE_ASKED = ((SHARED,), ("fcauth_2",), ("fcauth_3", "fcauth_4"))
"""Of each of these customers' authorizations one at least must end up asked about, or listed as unknown."""

_delivery = "modal"
_ladder_days: tuple[int, ...] | None = None


def ask_by(delivery: str, ladder_days: tuple[int, ...] | None = None) -> None:
    """Let all customers of this process and of those that it forks be asked in this way, on these days of their outage if any are named."""
    global _delivery, _ladder_days
    _delivery, _ladder_days = delivery, ladder_days


def ladder_days() -> tuple[int, ...] | None:
    """The days of an outage on which a customer is asked, None without a ladder."""
    return _ladder_days


def broke_on(authorization_id: str) -> date:
    """The date of the first night that could ask about an authorization."""
    return (DEFAULT_START + timedelta(days=authorization_id != ASKED_BEFORE)).date()


_ACCOUNTS = {ASKED_BEFORE: 1, SHARED: 2, "fcauth_2": 1, "fcauth_3": 1, "fcauth_4": 1, "fcauth_5": 1}
_CUSTOMERS = {"fcauth_4": "cus_3"}


def build_world() -> World:
    """Five customers with seven accounts; one customer's bank is lost already."""
    # Stripe's own interval between hosted requests would hide a second one.
    world = World.empty(seed=23, behaviour=replace(Behaviour.quiet(), hosted_interval_hours=0.0))
    for number in range(6):
        world.set_email(f"cus_{number}", f"customer{number}@customer.example")
    for authorization, accounts in _ACCOUNTS.items():
        number = authorization.removeprefix("fcauth_")
        world.add_authorization(
            ("customer", _CUSTOMERS.get(authorization, f"cus_{number}")),
            accounts=[{"account_id": f"fca_{number}_{one}"} for one in range(accounts)],
            authorization_id=authorization,
            tokenized=False,
        )
    world.break_authorization(ASKED_BEFORE)
    return world


LOW_BRAKES = {"minimum": 2, "newly_broken_share": 0.2}
"""Brakes that hold the banks which break before a trial."""


def settings_for(base_url: str, database_url: str, reports: Path, *, braked: bool = False) -> Settings:
    """The defaults, for a stand-in that may be called as fast as it answers; `braked` holds whatever breaks before a trial."""
    return parse_settings(
        {
            "merchants": [{"name": "main"}],
            "stripe": {
                "api_base": base_url,
                "requests_per_second": 5000,
                "endpoint_requests_per_second": 5000,
                "max_attempts": 3,
            },
            "database": {"url": database_url},
            "relink": {
                "cooldown_days": COOLDOWN_DAYS,
                "pending_days": PENDING_DAYS,
                "delivery": _delivery,
                "ladder_days": None if _ladder_days is None else list(_ladder_days),
                "refresh_after": ["balances", "transactions"],
            },
            "brakes": LOW_BRAKES if braked else {},
            "reports": {"directory": str(reports), "formats": ["csv", "parquet"]},
        }
    )


def load_ledger(world: World, database_url: str) -> None:
    """Make the tables and a ledger that agrees with the world."""
    rows: list[dict[str, object]] = [
        {"account_id": account.id, "account_holder_id": account.holder.id} for account in world.listing
    ]
    with open_database(database_url) as database:
        database.upgrade()
        records.load_ledger(database, require_clean(check_rows(rows, ["main"])))


@dataclass(frozen=True, slots=True)
class Command:
    """A command of the product: what it does, and the name under which it takes the lock; None for one that changes nothing."""

    perform: Callable[[Wiring], RunResult]
    holder: str | None = "run"


NIGHT = Command(lambda wiring: run_night(wiring, Work("run")))


def run_command(settings: Settings, now: Callable[[], datetime], command: Command = NIGHT) -> RunResult:
    """One real command; only the clock is the world's, and pauses take no time."""
    environment = {"STRIPE_API_KEY": DEFAULT_KEY}
    with wire(settings, environment, holder=command.holder, clock=now, sleep=lambda _: None) as wiring:
        return command.perform(wiring)


def clock_of(world: World) -> Callable[[], datetime]:
    """The world's own clock as the job's."""
    return lambda: datetime.fromtimestamp(world.clock.now_seconds(), UTC)


@dataclass(frozen=True, slots=True)
class Template:
    """The state to start a trial from: the world after a night, and that night's database and reports.

    `held_plan_hash` is of the plan that the brakes held in the last night, `run_id` that of the night to be taken up again.
    """

    world: World
    directory: Path
    held_plan_hash: str = ""
    run_id: str = ""

    def copy_files(self, directory: Path) -> None:
        """Put the reports, and the database where it is a file, into a trial's directory."""
        shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(self.directory, directory, symlinks=True)


def make_template(directory: Path, database_url: str) -> Template:
    """Run the first night, and let banks break during the day after it."""
    world = build_world()
    load_ledger(world, database_url)
    with SimulatorServer(world) as server:
        result = run_command(settings_for(server.base_url, database_url, directory / "reports"), clock_of(world))
    assert result.exit_code == 0, result.why
    assert result.report_directory is not None
    assert verify(result.report_directory) == []
    assert [effect.authorization_id for effect in world.effects] == [ASKED_BEFORE]
    world.advance(days=1)
    for authorization in BROKEN:
        world.break_authorization(authorization)
    return Template(world, directory)


def make_held_template(directory: Path, database_url: str) -> Template:
    """Add a night that is held, after which the customer of the first night relinks.

    Two hours pass, so that whoever works from the snapshot of that night reads again what it is about to ask for.
    """
    world = make_template(directory, database_url).world
    with SimulatorServer(world) as server:
        settings = settings_for(server.base_url, database_url, directory / "reports", braked=True)
        held = run_command(settings, clock_of(world))
        assert held.exit_code == 5, held.why
        plan_hash = held.nights[0].held_plan_hash
        assert plan_hash is not None
    world.advance(hours=2)
    world.answer(world.effects[0].session_id, "whole", lag_seconds=0)
    return Template(world, directory, plan_hash)


@dataclass(frozen=True, slots=True)
class Row:
    """A stored request as read past the product's own code; times in epoch seconds."""

    request_id: str
    authorization_id: str
    breakage_number: int
    attempt: int
    state: str
    idempotency_key: str | None
    session_id: str | None
    attempting_at: float | None
    answered_at: float | None
    error_type: str | None
    http_status: int | None
    delivery: str
    resolved_at: float | None


_COLUMNS = ", ".join(Row.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class Books:
    """What the records say: every request by id, the runs that count as running, and what was concluded of each request, in order."""

    requests: dict[str, Row]
    running: list[str]
    outcomes: dict[str, list[tuple[str, str | None, int]]]


def read_books(database_url: str, scratch: Path) -> Books:
    """Read the records without disturbing what a killed run left: a SQLite database is copied first, for whoever opens it mends it."""
    statements = (
        f"SELECT {_COLUMNS} FROM relink_requests",
        "SELECT run_id FROM relink_runs WHERE state = 'running'",
        "SELECT request_id, outcome, result_authorization_id, accounts_cured FROM relink_outcomes ORDER BY id",
    )
    if database_url.startswith("sqlite:///"):
        path = Path(database_url.removeprefix("sqlite:///"))
        scratch.mkdir(exist_ok=True)
        for suffix in ("", "-wal"):
            (scratch / f"copy{suffix}").unlink(missing_ok=True)
            if path.with_name(path.name + suffix).exists():
                shutil.copyfile(path.with_name(path.name + suffix), scratch / f"copy{suffix}")
        connection: Any = sqlite3.connect(scratch / "copy")
        found = [connection.execute(statement).fetchall() for statement in statements]
        connection.close()
    else:
        import psycopg

        with psycopg.connect(database_url.replace("+psycopg", "")) as connection:
            found = [connection.execute(statement).fetchall() for statement in statements]
    rows = [Row(*row[:7], *map(_seconds, row[7:9]), *row[9:-1], _seconds(row[-1])) for row in found[0]]
    outcomes: dict[str, list[tuple[str, str | None, int]]] = {}
    for request_id, *outcome in found[2]:
        outcomes.setdefault(request_id, []).append(tuple(outcome))
    return Books({row.request_id: row for row in rows}, [run_id for (run_id,) in found[1]], outcomes)


def _seconds(moment: datetime | int | None) -> float | None:
    if moment is None:
        return None
    return moment.timestamp() if isinstance(moment, datetime) else moment / 1e6
