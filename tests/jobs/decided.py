"""A night that has decided whom to ask: its records, its lock and a stand-in for Stripe, without the stages before and after."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import text

from jobs.adapters import records
from jobs.adapters.lease import LeaseToken
from jobs.clock import new_stamp
from jobs.night import MerchantNight
from jobs.progress import Quiet
from jobs.relink import store_plan
from jobs.wiring import Wiring, wire
from jobs.work import Work
from reconcile.model import CoveredAccount, Holder, Plan, RelinkRequest, StoredRequest
from tests.jobs.adapters.stored_values import key, relink_request
from tests.jobs.nights import SCOPE, Nights


@dataclass
class Machine:
    """This machine's clocks: the wall clock runs so much ahead of Stripe's, and the one that counts from boot stands unless moved."""

    nights: Nights
    ahead: timedelta = timedelta(0)
    boot_seconds: float = 0.0
    asleep: Callable[[], None] = lambda: None

    def now(self) -> datetime:
        return self.nights.now() + self.ahead

    def elapsed_seconds(self) -> float:
        return self.boot_seconds

    def sleep(self, _seconds: float) -> None:
        """No time passes; whoever has set `asleep` may act meanwhile."""
        self.asleep()


@dataclass
class Decided:
    """What the last stages of a night work with."""

    nights: Nights
    machine: Machine
    wiring: Wiring
    night: MerchantNight

    @property
    def token(self) -> LeaseToken:
        assert self.wiring.lease is not None
        return self.wiring.lease.token

    def asked(self, number: int, **overrides: object) -> RelinkRequest:
        """A request for the authorization of that number in `small_world`."""
        covered = tuple(CoveredAccount(f"fca_{number}_{one}", "inactive") for one in (1, 2))
        values = {
            "breakage": key(f"fcauth_{number}"),
            "holder": Holder("customer", f"cus_{number}"),
            "covered": covered,
        }
        return relink_request(f"req_{number}", **{**values, **overrides})

    def store(self, *requests: RelinkRequest) -> list[StoredRequest]:
        """Store requests as the plan of this night."""
        self.night.plan = Plan(requests, ())
        store_plan(self.wiring, self.night)
        return [self.stored(one.request_id) for one in requests]

    def attempting(self, *requests: RelinkRequest, at: datetime | None = None) -> list[StoredRequest]:
        """Store requests as a run leaves them that dies with their POSTs under way."""
        for one in self.store(*requests):
            records.mark_attempting(self.wiring.database, one.request.request_id, at or self.machine.now(), self.token)
        return [self.stored(one.request_id) for one in requests]

    def take_over(self) -> None:
        """Let another run have the lock from now on."""
        statement = text("UPDATE relink_lease SET token = token + 1")
        self.wiring.database.run(lambda connection: connection.execute(statement))

    def stored(self, request_id: str) -> StoredRequest:
        """A request as it is on record now."""
        (found,) = records.requests_by_id(self.wiring.database, SCOPE, [request_id])
        return found

    def states(self) -> dict[str, str]:
        """The state of each request on record."""
        return {one.request.request_id: str(one.state) for one in self.nights.stored()}


@dataclass
class Told(Quiet):
    """Keeps what a person at a terminal would be shown."""

    steps: list[tuple[str, int | None]] = field(default_factory=list)
    advanced: int = 0

    @contextmanager
    def step(self, name: str, total: int | None = None) -> Iterator[Told]:
        self.steps.append((name, total))
        yield self

    def advance(self, count: int = 1, total: int | None = None) -> None:
        self.advanced += count


@contextmanager
def decided(nights: Nights, work: Work | None = None, progress: Told | None = None) -> Iterator[Decided]:
    """A run under the lock that has come as far as its plan; nothing in it sleeps."""
    machine = Machine(nights)
    with wire(
        nights.settings(),
        nights.environment,
        holder="test",
        clock=machine.now,
        progress=progress,
        sleep=machine.sleep,
        elapsed_seconds=machine.elapsed_seconds,
    ) as wiring:
        chosen = work or Work("run")
        stamp = new_stamp(chosen.command, wiring.clock, "UTC")
        night = MerchantNight(wiring.merchants[0], chosen, stamp, taken_at=machine.now())
        records.start_run(
            wiring.database,
            stamp.run_id,
            chosen.command,
            stamp.business_date,
            stamp.as_of,
            settings_hash="hash",
            settings={},
        )
        yield Decided(nights, machine, wiring, night)
