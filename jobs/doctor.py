"""Checks everything that a night rests on, one after the other, without changing anything; a fault hides no later one."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jobs.adapters.database import Database, open_database
from jobs.addresses import heartbeat_problem, heartbeat_url, notify_urls
from jobs.api_key import ApiKey, read_api_key
from jobs.clock import Clock, system_clock
from jobs.settings import MerchantSettings, Settings
from jobs.wiring import SNAPSHOT_DIRECTORY, open_gateway, report_directory
from reconcile.errors import KeyRefused, OutsideError, RelinkError, SettingsError
from reconcile.model import Scope

if TYPE_CHECKING:
    from jobs.adapters.stripe_gateway import StripeGateway
    from reconcile.records import AccountsPage

Level = Literal["ok", "warn", "fail"]

CLOCK_WARNING = timedelta(seconds=60)
CLOCK_LIMIT = timedelta(hours=4)
"""An idempotency key is trusted for 20 of the 24 hours that Stripe keeps it; clocks further apart than the rest would void that."""

ALLOCATION_WARNING_SHARE = 0.8
CHECK_SECONDS = 20.0
NEEDED = {
    "financial_connections.accounts": "fail",
    "financial_connections.authorizations": "fail",
    "financial_connections.sessions": "fail",
    "events": "warn",
}
"""What a key for this job must be able to read, and what it means if it cannot: without events only dates are less exact."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at. `mend` says what to do where it is not ok; `exit_code` is 0, 2 or 3.

    `agrees` is of probes alone: whether Stripe does as documented, None where it could not be seen.
    """

    name: str
    level: Level
    text: str
    mend: str | None = None
    exit_code: int = 0
    merchant: str | None = None
    agrees: bool | None = None


def failed(name: str, error: RelinkError, merchant: str | None = None) -> Check:
    """A check that an error ended; the error's own text says how to mend it."""
    code = (
        error.exit_code
        if error.exit_code in (SettingsError.exit_code, OutsideError.exit_code)
        else OutsideError.exit_code
    )
    return Check(name, "fail", str(error), exit_code=code, merchant=merchant)


def warning(name: str, text: str, mend: str, merchant: str | None = None) -> Check:
    """Something that a night can live with and a person should know."""
    return Check(name, "warn", text, mend, merchant=merchant)


def worst_exit_code(checks: list[Check]) -> int:
    """2 where settings or a key are wrong, else 3 where something outside is, else 0."""
    codes = {check.exit_code for check in checks}
    return next((code for code in (SettingsError.exit_code, OutsideError.exit_code) if code in codes), 0)


def examine(
    settings: Settings, environment: Mapping[str, str], clock: Clock = system_clock, *, probe: bool = False
) -> Iterator[Check]:
    """Every check in order, each as soon as it is done; with `probe` also what each account shows of Stripe's behaviours."""
    yield from _settings(settings)
    # Whoever waits for the answer sees at once that Stripe cannot be reached; a night tries longer.
    hasty = settings.model_copy(update={"stripe": settings.stripe.model_copy(update={"max_attempts": 2})})
    scopes: dict[str, Scope] = {}
    keys: list[tuple[MerchantSettings, ApiKey]] = []
    for merchant in settings.merchants:
        name = merchant.name
        try:
            key = read_api_key(merchant, environment, settings.stripe.api_base)
        except RelinkError as error:
            yield failed("api key", error, name)
            continue
        scopes[name] = Scope(name, key.mode)
        yield from _key(merchant, key, keys)
        keys.append((merchant, key))
        gateway = open_gateway(hasty, merchant, key)
        try:
            reached = False
            for check in _stripe(gateway, scopes[name], clock):
                reached = reached or (check.name, check.level) == ("stripe", "ok")
                yield check
            if probe and reached:
                yield from _probes(gateway, settings.stripe.api_version, scopes[name])
        finally:
            gateway.close()
    yield from _records(settings, scopes, clock)
    yield from _directories(settings)
    yield from _addresses(settings, environment)


def _settings(settings: Settings) -> Iterator[Check]:
    yield Check("settings", "ok", f"without a fault; merchants: {', '.join(settings.merchant_names)}")
    relink = settings.relink
    hosted = {relink.delivery, *(rule.delivery for rule in relink.delivery_rules)} - {"modal"}
    if hosted and relink.return_url is None:
        text = f"{' and '.join(sorted(hosted))} without relink.return_url, which Stripe may ask for"
        yield warning("delivery", text, "set relink.return_url to the page on which your customer is to end")
    elif hosted:
        text = f"{' and '.join(sorted(hosted))}: Stripe opens its hosted relinking to those who asked for it"
        yield Check("delivery", "ok", text)


def _key(merchant: MerchantSettings, key: ApiKey, others: list[tuple[MerchantSettings, ApiKey]]) -> Iterator[Check]:
    name = merchant.name
    same = (one for one, theirs in others if theirs.is_same_as(key) and one.stripe_account == merchant.stripe_account)
    twin = next((one.name for one in same), None)
    if twin is not None:
        text = f"merchants {twin} and {name} have the same API key"
        yield Check(
            "api key",
            "fail",
            text,
            "give each merchant its own key, or its own stripe_account",
            SettingsError.exit_code,
            name,
        )
    elif key.kind == "secret":
        text = f"a secret key of {key.mode} mode, which may do everything"
        yield warning("api key", text, "create a restricted key at Stripe and use that", name)
    else:
        yield Check("api key", "ok", f"a restricted key of {key.mode} mode", merchant=name)
    if merchant.api_key_file is not None:
        # Reading the key has refused a file that others can use.
        bits = stat.S_IMODE(merchant.api_key_file.stat().st_mode)
        yield Check("key file", "ok", f"{merchant.api_key_file} has mode {bits:04o}", merchant=name)


def _stripe(gateway: StripeGateway, scope: Scope, clock: Clock) -> Iterator[Check]:
    name = scope.merchant
    asked_at = clock()
    try:
        page = gateway.list_accounts_page(limit=1, purpose="doctor")
    except KeyRefused as error:
        yield failed("stripe", error, name)
    except RelinkError as error:
        yield failed("stripe", error, name)
        return
    else:
        answered_at = clock()
        yield Check("stripe", "ok", "reached, and the key is accepted", merchant=name)
        yield from _first_page(page, scope)
        if page.server_at is not None:
            yield _clock_check(page.server_at - (asked_at + (answered_at - asked_at) / 2), name)
    yield from _permissions(gateway, name)


def _first_page(page: AccountsPage, scope: Scope) -> Iterator[Check]:
    name = scope.merchant
    if not page.records:
        mend = (
            "connect an account, then check again" if scope.mode == "sandbox" else "is this the right Stripe account?"
        )
        yield warning("api version", "not proved: Stripe lists no Financial Connections account yet", mend, name)
        return
    account = page.records[0]
    if account.authorization_key_present:
        yield Check("api version", "ok", "accounts name their authorization", merchant=name)
    else:
        mend = "set stripe.api_version to a preview version that knows it, such as 2026-09-30.preview"
        text = f"account {account.account_id} comes without the key `authorization`"
        yield Check("api version", "fail", text, mend, OutsideError.exit_code, name)
    if account.livemode == (scope.mode == "live"):
        yield Check("object mode", "ok", f"accounts are of {scope.mode} mode, as the key is", merchant=name)
    else:
        found = "live" if account.livemode else "sandbox"
        text = f"account {account.account_id} is of {found} mode, the key of {scope.mode}"
        yield Check("object mode", "fail", text, "use the key of the mode that is meant", OutsideError.exit_code, name)


def _clock_check(ahead: timedelta, merchant: str) -> Check:
    apart = abs(ahead)
    told = f"{apart.total_seconds():.0f} s {'behind' if ahead > timedelta() else 'ahead of'} Stripe's"
    if apart > CLOCK_LIMIT:
        mend = "set this host's clock, and keep it right with NTP, before the next run"
        return Check("clock", "fail", f"this host's clock is {told}", mend, OutsideError.exit_code, merchant)
    if apart > CLOCK_WARNING:
        return warning("clock", f"this host's clock is {told}", "keep it right with NTP", merchant)
    return Check("clock", "ok", f"within {CLOCK_WARNING.total_seconds():.0f} s of Stripe's", merchant=merchant)


def _permissions(gateway: StripeGateway, merchant: str) -> Iterator[Check]:
    try:
        allowed = dict(gateway.probe_key())
    except RelinkError as error:
        yield failed("permissions", error, merchant)
        return
    for what, level in NEEDED.items():
        if allowed.get(what, False):
            continue
        text, mend = f"the key may not read {what}", "give it that permission in Stripe's Dashboard, under API keys"
        if level == "fail":
            yield Check("permissions", "fail", text, mend, OutsideError.exit_code, merchant)
        else:
            yield warning("permissions", f"{text}, so dates are upper bounds", mend, merchant)
    missing = [what for what in NEEDED if not allowed.get(what, False)]
    beyond = [what for what, may in allowed.items() if may and what not in NEEDED]
    if beyond:
        mend = "use a restricted key that may read Financial Connections and events, write sessions, and nothing else"
        yield warning(
            "permissions", f"the key may read {' and '.join(beyond)}, which this job never does", mend, merchant
        )
    elif not missing:
        text = "reads what it needs and nothing else that was tried; writing sessions cannot be tried without asking somebody"
        yield Check("permissions", "ok", text, merchant=merchant)


def _probes(gateway: StripeGateway, api_version: str, scope: Scope) -> Iterator[Check]:
    from jobs.probe import probe_reads

    mend = "see STRIPE.md for what rests on it, and tell whoever looks after this job"
    try:
        for one in probe_reads(gateway, api_version, live=scope.mode == "live"):
            level: Level = "warn" if one.agrees is False else "ok"
            text = f"cannot be told here: {one.saw}" if one.agrees is None else one.saw
            advice = mend if one.agrees is False else None
            yield Check(f"probe {one.behaviour}", level, text, advice, merchant=scope.merchant, agrees=one.agrees)
    except RelinkError as error:
        yield failed("probe", error, scope.merchant)


def _records(settings: Settings, scopes: Mapping[str, Scope], clock: Clock) -> Iterator[Check]:
    embedded = settings.ledger.url is None
    try:
        with open_database(settings.database.url, create=False) as database:
            trouble = None
            for check in _database(database, scopes):
                trouble = trouble or (check if check.name in ("database", "schema") and check.level == "fail" else None)
                yield check
            if trouble is None:
                if embedded:
                    yield _ledger(settings, database)
                yield _lock(database)
                for scope in scopes.values():
                    yield _allocation(settings, database, scope, clock)
    except RelinkError as error:
        yield failed("database", error)
    if not embedded:
        yield _ledger(settings, None)


def _database(database: Database, scopes: Mapping[str, Scope]) -> Iterator[Check]:
    from jobs.adapters import records

    if database.ephemeral:
        yield _database_to_come(Path(database.shown))
        return
    kept = "its file is undamaged and keeps what is committed" if database.kind == "sqlite" else "reached"
    yield Check("database", "ok", f"{database.shown}: {kept}")
    try:
        database.ensure_schema(create_new=False)
    except RelinkError as error:
        yield failed("schema", error)
        return
    yield Check("schema", "ok", f"version {database.schema_state().found}")
    for name, scope in scopes.items():
        recorded = records.recorded_mode(database, name)
        if recorded is not None and recorded != scope.mode:
            text = f"the records of {name} are of {recorded} mode, the key is of {scope.mode}"
            mend = "use the other key, or another name or database for this mode"
            yield Check("recorded mode", "fail", text, mend, OutsideError.exit_code, name)


def _database_to_come(path: Path) -> Check:
    above = path.parent
    while not above.exists() and above != above.parent:
        above = above.parent
    if os.access(above, os.W_OK | os.X_OK):
        mend = "it is made by the first `relink run` or `relink ledger load`"
        return warning("database", f"{path} does not exist yet", mend)
    mend = "make that directory writable for this user, or change database.url"
    text = f"{path} does not exist yet, and {above} cannot be written to"
    return Check("database", "fail", text, mend, OutsideError.exit_code)


def _ledger(settings: Settings, database: Database | None) -> Check:
    from jobs.ledger_check import check_ledger, summarize
    from reconcile.ledger import require_clean

    try:
        rows = require_clean(check_ledger(settings, database))
    except RelinkError as error:
        return failed("ledger", error)
    summary = summarize(rows)
    unlisted = [name for name in settings.merchant_names if name not in summary.by_merchant]
    if unlisted:
        return warning(
            "ledger",
            f"has no row of merchant {' and '.join(unlisted)}",
            "load its rows, or take it out of the settings",
        )
    text = f"{summary.rows} rows without a fault, {summary.by_status.get('open', 0)} of them open, {summary.holders} customers"
    return Check("ledger", "ok", text)


def _lock(database: Database) -> Check:
    from jobs.adapters.lease import holder_of
    from jobs.adapters.lock_probe import provably_gone

    holder = None if database.ephemeral else holder_of(database)
    if holder is None:
        return Check("lock", "ok", "free")
    if provably_gone(holder):
        return warning("lock", f"held by {holder.describe()}, which is gone", "nothing: the next run takes it over")
    return Check("lock", "ok", f"held by {holder.describe()}")


def _allocation(settings: Settings, database: Database, scope: Scope, clock: Clock) -> Check:
    from jobs.adapters import records

    allowed = settings.stripe.monthly_read_allocation
    reads = 0 if database.ephemeral else records.reads_last_30_days(database, scope, clock())
    if allowed is None:
        return Check("reads", "ok", f"{reads} in the last 30 days; no allocation is set", merchant=scope.merchant)
    text = f"{reads} of {allowed} in the last 30 days"
    if reads > ALLOCATION_WARNING_SHARE * allowed:
        mend = "ask Stripe for a larger allocation, or run less often"
        return warning("reads", text, mend, scope.merchant)
    return Check("reads", "ok", text, merchant=scope.merchant)


def _directories(settings: Settings) -> Iterator[Check]:
    from reports.leftovers import check_writable

    root = settings.reports.directory
    # Snapshots are the job's own and have no group.
    for name, path in (("reports", root), ("snapshots", root / SNAPSHOT_DIRECTORY)):
        try:
            check_writable(path, report_directory(settings).access if name == "reports" else None)
        except RelinkError as error:
            yield failed(name, error)
        else:
            yield Check(name, "ok", f"{path} can be written to")


def _addresses(settings: Settings, environment: Mapping[str, str]) -> Iterator[Check]:
    """Whom a run tells, without telling anybody now and without showing an address, since each is a secret."""
    from jobs.adapters.courier import unreadable_addresses

    urls = notify_urls(settings, environment)
    faulty = unreadable_addresses(urls, environment, CHECK_SECONDS) if urls else {}
    if faulty:
        which = ", ".join(f"number {number} ({problem})" for number, problem in faulty.items())
        text = f"{len(faulty)} of {len(urls)} addresses in ${settings.notify.urls_env} cannot be used: {which}"
        yield warning("notifications", text, "write each as apprise wants it: https://appriseit.com")
    elif urls:
        yield Check("notifications", "ok", f"{len(urls)} in ${settings.notify.urls_env}, and apprise can read them")
    else:
        yield Check("notifications", "ok", "no address is set, so nobody is told of a night that fails")
    url = heartbeat_url(settings, environment)
    problem = None if url is None else heartbeat_problem(url)
    if problem is not None:
        mend = "write the check's own ping address there"
        yield warning("heartbeat", f"the address in ${settings.notify.heartbeat_url_env} {problem}", mend)
    else:
        yield Check("heartbeat", "ok", "no address is set" if url is None else "an address is set; it was not pinged")
