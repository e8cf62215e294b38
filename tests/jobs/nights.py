"""A small world, settings and a way to run nights in this process, for the tests of the shell."""

from __future__ import annotations

import json
import os
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select

from jobs.adapters import records
from jobs.adapters.database import open_database
from jobs.adapters.tables import metadata
from jobs.clock import elapsed_seconds
from jobs.nightly import RunResult
from jobs.nightly import run as run_night
from jobs.progress import Progress
from jobs.settings import Settings, parse_settings
from jobs.simulator.server import SimulatorServer
from jobs.simulator.world import World
from jobs.wiring import wire
from jobs.work import Work
from reconcile.ledger import check_rows, require_clean
from reconcile.model import Scope, StoredRequest
from reports.files import read_table

KEY = "rk_test_simulator"
SCOPE = Scope("main", "sandbox")
SESSIONS = "/v1/financial_connections/sessions"
ACCOUNTS = "/v1/financial_connections/accounts"

BOOKKEEPING = {
    "relink_runs",
    "relink_run_merchants",
    "relink_merchants",
    "relink_api_calls",
    "relink_lease",
    "relink_report_facts",
    "relink_schema_version",
}
"""Tables that say what ran, not what is known or was decided."""

LedgerRow = dict[str, object]


def small_world(customers: int = 6, broken: Iterable[int] = (1, 2, 3), accounts: int = 2, **options: Any) -> World:
    """Customers `cus_1`… with one authorization (`fcauth_1`…) of some accounts (`fca_1_1`…) each, some of them inactive."""
    world = World.empty(seed=11, **options)
    for number in range(1, customers + 1):
        add_customer(world, number, accounts)
    for number in broken:
        world.break_authorization(f"fcauth_{number}")
    return world


def add_customer(world: World, number: int, accounts: int = 2, holder: str | None = None) -> None:
    """One more customer, or one more authorization of `holder`."""
    world.add_authorization(
        ("customer", holder or f"cus_{number}"),
        accounts=[
            {
                "account_id": f"fca_{number}_{account}",
                "subcategory": ("checking", "savings")[account % 2],
                "last4": f"{number:02d}{account:02d}",
            }
            for account in range(1, accounts + 1)
        ],
        authorization_id=f"fcauth_{number}",
        tokenized=False,
    )


def ledger_of(world: World, merchant: str | None = None) -> list[LedgerRow]:
    """A ledger that agrees with the world."""
    more = {} if merchant is None else {"merchant": merchant}
    return [
        {"account_id": account.id, "account_holder_id": account.holder.id, "status": "open", "purpose": "data", **more}
        for account in world.listing
    ]


def make_session(base_url: str, customer_id: str, authorization_id: str | None, **more: str) -> str:
    """Make a session at the stand-in past the product, as a colleague's script would; returns its id."""
    fields = {
        "account_holder[type]": "customer",
        "account_holder[customer]": customer_id,
        "permissions[0]": "balances",
        "permissions[1]": "transactions",
    }
    if authorization_id is not None:
        fields["relink_options[authorization]"] = authorization_id
    request = urllib.request.Request(
        base_url + SESSIONS,
        urllib.parse.urlencode(fields | more).encode(),
        {"Authorization": f"Bearer {KEY}", "Stripe-Version": "2026-09-30.preview"},
    )
    with urllib.request.urlopen(request) as answer:
        session_id: str = json.loads(answer.read())["id"]
    return session_id


class Nights:
    """A merchant's deployment over a simulated world: settings, database, reports, and runs in this process.

    The clock is the world's, frozen until the world is moved. Nothing sleeps.
    """

    def __init__(self, world: World, server: SimulatorServer, directory: Path, database_url: str) -> None:
        self.world = world
        self.server = server
        self.directory = directory
        self.database_url = database_url
        self.environment = {"STRIPE_API_KEY": KEY}
        self.sections: dict[str, dict[str, Any]] = {}
        self.merchants: list[dict[str, Any]] = [{"name": "main"}]
        with open_database(database_url) as database:
            database.upgrade()
        self.load_ledger()

    @property
    def reports(self) -> Path:
        """Where reports are published."""
        return self.directory / "reports"

    def values(self, **sections: Mapping[str, Any]) -> dict[str, Any]:
        """The settings as a mapping, as they would stand in a file."""
        values: dict[str, Any] = {
            "merchants": self.merchants,
            "stripe": {
                "api_base": self.server.base_url,
                "requests_per_second": 5000,
                "endpoint_requests_per_second": 5000,
                "max_attempts": 3,
            },
            "database": {"url": self.database_url},
            "reports": {"directory": str(self.reports), "formats": ["csv", "parquet"]},
            "log": {"format": "json", "level": "debug"},
            # A small world breaks in large shares; the brakes have tests of their own.
            "brakes": {
                "newly_broken_share": 1.0,
                "newly_broken_share_7d": 1.0,
                "institution_share": 1.0,
                "minimum": 1000,
            },
        }
        for given in (self.sections, sections):
            for name, section in given.items():
                values[name] = {**values.get(name, {}), **section}
        return values

    def settings(self, **sections: Mapping[str, Any]) -> Settings:
        """The settings, with some sections changed."""
        return parse_settings(self.values(**sections))

    def config_file(self, **sections: Mapping[str, Any]) -> Path:
        """The settings as a file (YAML reads JSON)."""
        path = self.directory / "config.yaml"
        path.write_text(json.dumps(self.values(**sections)))
        return path

    def now(self) -> datetime:
        """The world's frozen time."""
        return datetime.fromtimestamp(self.world.clock.now_seconds(), UTC)

    def load_ledger(self, rows: Iterable[Mapping[str, object]] | None = None) -> None:
        """Fill the embedded ledger, by default in agreement with the world."""
        names = [str(merchant["name"]) for merchant in self.merchants]
        checked = require_clean(check_rows(ledger_of(self.world) if rows is None else rows, names))
        with open_database(self.database_url) as database:
            records.load_ledger(database, checked)

    def run(
        self,
        work: Work | str = "run",
        *,
        progress: Progress | None = None,
        clock: Callable[[], datetime] | None = None,
        on_start: Callable[[str], None] | None = None,
        sleep: Callable[[float], None] = lambda _: None,
        elapsed_seconds: Callable[[], float] = elapsed_seconds,
        **sections: Mapping[str, Any],
    ) -> RunResult:
        """Do one run as its command would."""
        chosen = Work(work) if isinstance(work, str) else work
        holder = None if chosen.dry_run else chosen.command
        with wire(
            self.settings(**sections),
            self.environment,
            holder=holder,
            clock=clock or self.now,
            progress=progress,
            create=not chosen.dry_run,
            sleep=sleep,
            elapsed_seconds=elapsed_seconds,
        ) as wiring:
            return run_night(wiring, chosen, on_start)

    def next_night(self, days: float = 1) -> RunResult:
        """Let days pass and run."""
        self.world.advance(days=days)
        return self.run()

    def posts(self) -> int:
        """How many POSTs for sessions reached the stand-in, refused ones too."""
        return sum(call.method == "POST" and call.path == SESSIONS for call in self.world.log)

    def reads(self, purpose: str) -> int:
        """How many calls of one endpoint (`accounts.retrieve`, …) reached the stand-in."""
        return self.world.calls[purpose]

    def stored(self, scope: Scope = SCOPE) -> list[StoredRequest]:
        """Every request in the records."""
        with open_database(self.database_url) as database:
            return records.requests_since(database, scope, datetime(2000, 1, 1, tzinfo=UTC).date())

    def by_authorization(self, scope: Scope = SCOPE) -> dict[str, StoredRequest]:
        """The newest request of each authorization."""
        return {one.authorization_id: one for one in self.stored(scope)}

    def states(self) -> dict[str, str]:
        """The state of the newest request of each authorization."""
        return {name: str(one.state) for name, one in sorted(self.by_authorization().items())}

    def newest_run(self) -> records.StoredRun:
        """The run that started last."""
        with open_database(self.database_url) as database:
            return records.list_runs(database, limit=1)[0]

    def knowledge(self) -> dict[str, list[str]]:
        """Every row of every table that holds what is known or was decided."""
        with open_database(self.database_url) as database, database.read() as connection:
            return {
                table.name: sorted(repr(tuple(row)) for row in connection.execute(select(table)))
                for table in metadata.sorted_tables
                if table.name not in BOOKKEEPING
            }

    def link(self, name: str) -> str | None:
        """Where `latest` or `last_attempt` leads."""
        path = self.reports / name
        return os.readlink(path) if path.is_symlink() else None

    def last_attempt(self) -> dict[str, Any]:
        """The summary of the newest run of any outcome."""
        summary: dict[str, Any] = json.loads((self.reports / "last_attempt" / "summary.json").read_text())
        return summary


def table(result: RunResult, name: str) -> list[dict[str, Any]]:
    """The rows of one table of a published report."""
    assert result.report_directory is not None
    return read_table(result.report_directory / f"{name}.parquet").to_pylist()


def steps(result: RunResult) -> dict[str, str]:
    """The next step of each account."""
    return {row["account_id"]: row["next_step"] for row in table(result, "accounts")}


def outcomes(result: RunResult) -> dict[str, str]:
    """The outcome of each request in a report, by authorization."""
    return {row["authorization_id"]: row["outcome"] for row in table(result, "relink_outcomes")}


def assert_ties(result: RunResult) -> None:
    """Every control total of a published report ties, and there are some."""
    control: Any = result.summary["control"]
    assert control
    assert [total for total in control if not total["ties"]] == []


def sessions_per_attempt(nights: Nights) -> dict[str, int]:
    """How many sessions the stand-in really made for each authorization."""
    return nights.world.contacts_by_authorization()
