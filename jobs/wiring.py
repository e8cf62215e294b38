"""Builds everything a command works with out of the settings; the only place where parts are put together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from jobs.adapters.database import Database, open_database
from jobs.api_key import ApiKey, read_api_keys
from jobs.clock import Clock, elapsed_seconds, system_clock
from jobs.progress import Progress, Quiet
from jobs.settings import MerchantSettings, Settings, settings_hash
from jobs.settings_checks import parse_quiet_hours
from reconcile.errors import ReportError
from reconcile.model import Scope
from reconcile.policy import BrakePolicy, DeliveryRule, QuietTimes, RelinkPolicy

if TYPE_CHECKING:
    from jobs.adapters.lease import Lease, LeaseToken
    from jobs.adapters.snapshots import SnapshotStore
    from jobs.adapters.stripe_gateway import StripeGateway
    from reports.files import ReportDirectory
    from reports.ledger_change import LedgerPlace

SNAPSHOT_DIRECTORY = "_snapshots"
"""Beside the reports, under a name that readers of a Hive-style dataset pass over."""


PLAN_DIRECTORY = "_plans"


@dataclass(frozen=True, slots=True)
class Merchant:
    """One Stripe account to reconcile, ready to be called."""

    settings: MerchantSettings
    scope: Scope
    settings_hash: str
    gateway: StripeGateway


@dataclass(frozen=True, slots=True)
class Wiring:
    """What a command works with. `lease` is None where nothing may be sent."""

    settings: Settings
    environment: Mapping[str, str] = field(repr=False)
    clock: Clock
    database: Database
    policy: RelinkPolicy
    brakes: BrakePolicy
    progress: Progress
    merchants: tuple[Merchant, ...] = ()
    lease: Lease | None = None
    elapsed_seconds: Callable[[], float] = elapsed_seconds

    def why_quiet(self) -> str | None:
        """Why nobody is contacted right now, in words; None where people are."""
        chosen = self.settings.relink
        hours = None if chosen.quiet_hours is None else parse_quiet_hours(chosen.quiet_hours)
        quiet = QuietTimes(chosen.quiet_weekdays, chosen.quiet_dates, hours)
        return quiet.why_quiet(self.clock().astimezone(ZoneInfo(self.settings.schedule.timezone)))

    @property
    def fence(self) -> LeaseToken | None:
        """What proves, inside a transaction, that no other run took over; None where nothing may be sent."""
        return None if self.lease is None else self.lease.token

    def require_fence(self, connection: Any) -> None:
        """Prove it in the transaction of this database connection, where there is anything to prove.

        Raises:
            LeaseLost: another run took over.
        """
        from jobs.adapters.lease import require_token

        if self.lease is not None:
            require_token(connection, self.lease.token)

    @property
    def reports(self) -> ReportDirectory:
        """Where reports are published."""
        return report_directory(self.settings)

    @property
    def snapshots(self) -> SnapshotStore:
        """Where complete snapshots are kept."""
        from jobs.adapters.snapshots import SnapshotStore

        return SnapshotStore(self._own_directory(SNAPSHOT_DIRECTORY))

    @property
    def plan_directory(self) -> Path:
        """Where plans wait for a person: those a brake holds, and those of `relink plan` without a file name."""
        return self._own_directory(PLAN_DIRECTORY)

    def _own_directory(self, name: str) -> Path:
        """A directory of the job's own below the reports; through a symlink, whoever made that would choose where it lies.

        Raises:
            ReportError: there is a symlink in its place.
        """
        path = self.settings.reports.directory / name
        if path.is_symlink():
            raise ReportError(
                f"{path} is a symlink: remove it, or move the whole of reports.directory to the other place"
            )
        return path


def report_directory(settings: Settings) -> ReportDirectory:
    """Where the settings have the reports, and who may read them."""
    from reports.files import ReportDirectory

    chosen = settings.reports
    place = ledger_place(settings)
    return ReportDirectory(chosen.directory, chosen.formats, chosen.file_mode_bits, chosen.group, place)


def ledger_place(settings: Settings) -> LedgerPlace:
    """Where the settings have the ledger."""
    from reports.ledger_change import LedgerPlace

    merchants = len(settings.merchants)
    return LedgerPlace(merchants=merchants) if settings.ledger.query is None else LedgerPlace(None, merchants)


def relink_policy(settings: Settings) -> RelinkPolicy:
    """The rules of contact that the settings give."""
    chosen = settings.relink.model_dump()
    chosen["delivery_rules"] = tuple(DeliveryRule(**rule) for rule in chosen["delivery_rules"])
    return RelinkPolicy(**{name: chosen[name] for name in RelinkPolicy.__slots__})


def brake_policy(settings: Settings) -> BrakePolicy:
    """The brakes that the settings give."""
    return BrakePolicy(**settings.brakes.model_dump())


@contextmanager
def wire(
    settings: Settings,
    environment: Mapping[str, str],
    *,
    holder: str | None = None,
    clock: Clock = system_clock,
    progress: Progress | None = None,
    calls_stripe: bool = True,
    create: bool = True,
    sleep: Callable[[float], None] = time.sleep,
    elapsed_seconds: Callable[[], float] = elapsed_seconds,
) -> Iterator[Wiring]:
    """Open what a command needs and close it again.

    Args:
        holder: takes the lock under this name; None for commands that change nothing.
        calls_stripe: whether the API keys are read and the gateways built.
        elapsed_seconds: counts on through the sleep of the machine, and cannot be set.
        create: whether a missing embedded database may be created.

    Raises:
        SettingsError: a key is missing, readable by others or not allowed.
        ModeMismatch: a key is of another mode than the settings say.
        DatabaseError: the database cannot be used, or its schema is of another version.
        AlreadyRunning: another run holds the lock.
    """
    keys = read_api_keys(settings, environment) if calls_stripe else {}
    with ExitStack() as stack:
        database = stack.enter_context(open_database(settings.database.url, create=create))
        database.ensure_schema(create_new=create)
        lease = None
        if holder is not None:
            # The lock is tried before pandas and the Stripe package are imported, so that a second starter leaves at once.
            from jobs.adapters.lease import acquire

            lease = stack.enter_context(acquire(database, holder))
        merchants = []
        for merchant in settings.merchants if calls_stripe else ():
            key = keys[merchant.name]
            gateway = open_gateway(settings, merchant, key, sleep, elapsed_seconds)
            stack.callback(gateway.close)
            scope = Scope(merchant.name, key.mode)
            merchants.append(Merchant(merchant, scope, settings_hash(settings, merchant), gateway))
        yield Wiring(
            settings=settings,
            environment=environment,
            clock=clock,
            database=database,
            policy=relink_policy(settings),
            brakes=brake_policy(settings),
            progress=progress or Quiet(),
            merchants=tuple(merchants),
            lease=lease,
            elapsed_seconds=elapsed_seconds,
        )


def open_gateway(
    settings: Settings,
    merchant: MerchantSettings,
    key: ApiKey,
    sleep: Callable[[float], None] = time.sleep,
    elapsed_seconds: Callable[[], float] = elapsed_seconds,
) -> StripeGateway:
    """Stripe for one merchant, as the settings say; whoever opens it closes it."""
    from jobs.adapters.rate_limiter import RateLimiter, overall_requests_per_second
    from jobs.adapters.stripe_gateway import StripeGateway

    chosen = settings.stripe
    overall = chosen.requests_per_second
    return StripeGateway(
        key.reveal(),
        api_base=chosen.api_base,
        api_version=chosen.api_version,
        live=key.mode == "live",
        limiter=RateLimiter(
            requests_per_second=overall_requests_per_second(key.mode == "live") if overall == "auto" else overall,
            endpoint_requests_per_second=chosen.endpoint_requests_per_second,
            sleep=sleep,
        ),
        stripe_account=merchant.stripe_account,
        max_attempts=chosen.max_attempts,
        max_elapsed_seconds=chosen.max_elapsed_seconds,
        clock=elapsed_seconds,
        sleep=sleep,
    )
