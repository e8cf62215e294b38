"""The job over a small simulated world, in one process: wired anew for every command, and stopped at any moment that the chaos tests name.

A kill is an exception that nothing of the product catches, after which whatever the product would still do (its `finally` and `except`
blocks, too) is kept from changing a row or a file; then the whole wiring is thrown away.
"""

from __future__ import annotations

import itertools
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jobs import clock
from jobs.adapters import database, lease, records
from jobs.adapters.database import Database, open_database
from jobs.adapters.stripe_transport import StripeTransport
from jobs.nightly import RunResult
from jobs.nightly import run as run_night
from jobs.settings import parse_settings
from jobs.simulator.world import DEFAULT_KEY, World
from jobs.wiring import Wiring, wire
from jobs.work import Work
from reconcile.errors import RelinkError
from reconcile.ledger import check_rows, require_clean
from tests.chaos import failpoints
from tests.model.direct_wire import BASE_URL, DirectSession

ENVIRONMENT = {"STRIPE_API_KEY": DEFAULT_KEY}
STOPPED_SECONDS = 60
"""How long a stopped process sleeps: beyond its lease of half a minute."""

LedgerRow = dict[str, Any]


class Killed(BaseException):
    """Stands for SIGKILL."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings that differ between sequences."""

    cooldown_days: int = 4
    max_attempts: int = 4
    pending_days: int = 7
    max_requests_per_run: int = 1000
    brake_minimum: int = 1000

    def values(self, directory: Path) -> dict[str, Any]:
        """The settings as a mapping."""
        share = 0.25 if self.brake_minimum < 100 else 1.0
        return {
            "merchants": [{"name": "main"}],
            "stripe": {
                "api_base": BASE_URL,
                "requests_per_second": 5000,
                "endpoint_requests_per_second": 5000,
                "max_attempts": 2,
            },
            "database": {"url": database_url(directory)},
            "relink": {
                "cooldown_days": self.cooldown_days,
                "max_attempts": self.max_attempts,
                "pending_days": self.pending_days,
                "max_requests_per_run": self.max_requests_per_run,
            },
            "brakes": {
                "minimum": self.brake_minimum,
                "newly_broken_share": share,
                "newly_broken_share_7d": share,
                "institution_share": 1.0,
            },
            "reports": {"directory": str(directory / "reports"), "formats": ["csv"]},
        }


@dataclass(frozen=True, slots=True)
class Fate:
    """What befalls a command at the `at`-th moment it comes to: kill, interrupt, or another run that starts meanwhile.

    A rival finds the lock held; a rival after a sleep (`stopped`) finds a lease that ran out, and takes over.
    """

    kind: str
    at: int


@dataclass(slots=True)
class Ended:
    """How a command ended. `result` is None where it did not come to one."""

    exit_code: int | None
    result: RunResult | None = None
    killed: bool = False
    interrupted: bool = False
    why: str | None = None
    rival: Ended | None = None


def database_url(directory: Path) -> str:
    """The SQLite file of a deployment."""
    return f"sqlite:///{directory / 'relink.db'}"


def build_world() -> World:
    """Five customers with six authorizations and ten accounts; one customer has two banks, one bank issues tokenized numbers."""
    world = World.empty(seed=31)
    banks = {1: "Alderbrook Mutual", 2: "Alderbrook Mutual", 3: "Birchfield Trust", 4: "Alderbrook Mutual"}
    for number, accounts in ((1, 2), (2, 1), (3, 1), (4, 2), (5, 2), (6, 2)):
        world.add_authorization(
            ("customer", "cus_3" if number == 4 else f"cus_{number}"),
            banks.get(number, "Cedar Valley" if number == 5 else "Birchfield Trust"),
            accounts=[
                {
                    "account_id": f"fca_{number}_{one}",
                    "subcategory": ("checking", "savings")[one % 2],
                    "last4": f"{number:02d}{one:02d}",
                }
                for one in range(accounts)
            ],
            authorization_id=f"fcauth_{number}",
            tokenized=number == 5,
        )
    return world


def ledger_of(world: World) -> list[LedgerRow]:
    """A ledger that agrees with the world; the accounts of the bank with tokenized numbers serve payments."""
    return [
        {
            "account_id": account.id,
            "account_holder_id": account.holder.id,
            "required_permissions": "",
            "purpose": "payments" if account.authorization.institution.tokenized else "data",
            "status": "open",
            "do_not_contact": "",
        }
        for account in world.listing
    ]


@cache
def _template() -> bytes:
    """An empty database of this version, migrated once for all sequences."""
    with tempfile.TemporaryDirectory() as directory:
        with open_database(database_url(Path(directory))) as opened:
            opened.upgrade()
        return (Path(directory) / "relink.db").read_bytes()


class Deployment:
    """One merchant's world, database and reports, and commands over them."""

    def __init__(self, directory: Path, rules: Rules) -> None:
        self.directory = directory
        self.rules = rules
        self.settings = parse_settings(rules.values(directory))
        self.world = build_world()
        self.world.faults.release.set()
        self.skew = timedelta()
        self.ledger = ledger_of(self.world)
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        (directory / "relink.db").write_bytes(_template())
        self._fate: Fate | None = None
        self._reached = 0
        self._dead = False
        self._holder_is_gone = False
        self._rival: Callable[[], None] | None = None
        self._moments: failpoints.Moments | None = None
        self.load_ledger()

    @property
    def reports(self) -> Path:
        """Where reports are published."""
        return self.directory / "reports"

    def now(self) -> datetime:
        """The clock of the job's host, which may differ from Stripe's."""
        return datetime.fromtimestamp(self.world.clock.now_seconds(), UTC) + self.skew

    def load_ledger(self) -> None:
        """Put the ledger into the embedded table."""
        with self.opened() as opened:
            records.load_ledger(opened, require_clean(check_rows(self.ledger, ["main"])))

    def opened(self) -> Database:
        """The records, for what is no run."""
        return open_database(self.settings.database.url, check=False)

    def perform(self, work: Work, fate: Fate | None = None, check: Callable[[Wiring], None] = lambda _: None) -> Ended:
        """Carry a command out, under a fate; `check` may refuse it before it begins, as `apply` does."""
        self._fate, self._reached = fate, 0
        rivals: list[Ended] = []
        self._rival = lambda: rivals.append(self._carry_out(Work("run"), lambda _: None))
        try:
            ended = self._carry_out(work, check)
        finally:
            self._holder_is_gone = True  # however it ended, its process is no more
            self._fate, self._dead = None, False
        ended.rival = rivals[0] if rivals else None
        return ended

    def _carry_out(self, work: Work, check: Callable[[Wiring], None]) -> Ended:
        holder = None if work.dry_run else work.command
        try:
            with wire(
                self.settings,
                ENVIRONMENT,
                holder=holder,
                clock=self.now,
                create=not work.dry_run,
                sleep=lambda _: None,
                elapsed_seconds=self._elapsed_seconds,
            ) as wiring:
                check(wiring)
                result = run_night(wiring, work)
        except Killed:
            return Ended(None, killed=True)
        except KeyboardInterrupt:
            return Ended(130, interrupted=True)
        except RelinkError as error:
            return Ended(error.exit_code, why=str(error))
        return Ended(result.exit_code, result, why=result.why)

    def reached(self, name: str) -> None:
        """A moment has come: what is to happen at it, happens. A dead process comes to no moment."""
        if self._dead:
            raise Killed
        if self._fate is None:
            return
        self._reached += 1
        if self._reached < self._fate.at:
            return
        fate = self._fate
        if fate.kind == "kill":
            self._dead = True
            raise Killed
        if fate.kind == "interrupt":
            self._fate = None
            raise KeyboardInterrupt
        assert self._moments is not None
        assert self._rival is not None
        if not self._moments.writing:  # a rival would wait for a transaction that cannot end before it does
            self._fate = None
            if fate.kind == "stop":
                self.world.advance(seconds=STOPPED_SECONDS)
            self._rival()

    def _acquire(self, acquire: Callable[..., lease.Lease], *arguments: Any) -> lease.Lease:
        taken = acquire(*arguments, now=lambda: self.now().timestamp(), renew=False)
        self._holder_is_gone = False
        return taken

    def _elapsed_seconds(self) -> float:
        return float(self.world.clock.now_seconds())

    def _alive(self) -> None:
        if self._dead:
            raise Killed

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Put this deployment's wire, clock and moments in place of the real ones, and take them away again."""
        logging.disable(logging.CRITICAL)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(StripeTransport, "_session", lambda _: DirectSession(self.world, self.reached))
            numbers = itertools.count(1)
            patch.setattr(clock, "secrets", SimpleNamespace(token_hex=lambda _: f"{next(numbers) % 65536:04x}"))
            patch.setattr(lease, "acquire", partial(self._acquire, lease.acquire))
            patch.setattr(lease, "_elapsed", self._elapsed_seconds)
            patch.setattr(lease, "provably_gone", lambda _: self._holder_is_gone)
            for owner, name in ((os, "unlink"), (os, "rmdir"), (shutil, "rmtree")):
                patch.setattr(owner, name, self._while_alive(getattr(owner, name)))
            self._moments = failpoints.install(self.reached, patch.setattr)
            _keep_engines(patch)
            try:
                yield
            finally:
                logging.disable(logging.NOTSET)

    def _while_alive(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*arguments: Any, **named: Any) -> Any:
            self._alive()
            return function(*arguments, **named)

        return guarded


_engines: dict[tuple[Any, ...], Any] = {}


def _keep_engines(patch: pytest.MonkeyPatch) -> None:
    """Let one engine serve all commands over a file, as one serves a long night: else every command compiles its statements anew.

    Closing it closes its connections, so that nothing but compiled statements is carried over.
    """
    opened = database.sqlite_engine

    def kept(path: str, *, read_only: bool) -> Any:
        if (path, read_only) not in _engines:
            _engines[path, read_only] = opened(path, read_only=read_only)
        return _engines[path, read_only]

    patch.setattr(database, "sqlite_engine", kept)
