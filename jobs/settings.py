"""The settings of one deployment: a YAML file and `RELINK_` variables, checked as a whole before anything starts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    model_validator,
)

from jobs import settings_checks as checks
from jobs.database_url import without_password
from jobs.settings_faults import explain, setting_paths, settings_error
from jobs.settings_relations import relation_faults
from jobs.settings_source import RawSettings, overlay, read_file
from reconcile.errors import SettingsError
from reconcile.masking import mask

DEFAULT_FILE = Path("config.yaml")

Reason = Literal["inactive", "expiring", "account_number", "permissions"]
Cause = Literal[
    "access_denied", "access_expired", "account_closed", "account_unavailable", "institution_requirement", "unspecified"
]
"""Why an account is inactive or about to be (Stripe API: financial_connections.account.status_details)."""

Delivery = Literal["modal", "hosted_url", "hosted_email"]
Name = Annotated[str, Field(min_length=1, max_length=500)]

Share = Annotated[float, Field(gt=0, le=1)]
Days = Annotated[int, Field(ge=1, le=3650)]
Weekday = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
QuietDays = Annotated[int, Field(ge=0, le=3650)]
ListQuery = Annotated[str, AfterValidator(checks.list_query), Field(max_length=100_000)]
VariableName = Annotated[str, AfterValidator(checks.variable_name)]
FilePath = Annotated[Path, BeforeValidator(checks.file_path), Field(strict=False)]


class _Section(BaseModel):
    """A part of the settings: unknown names are faults, and text is never taken for a number."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True)


class MerchantSettings(_Section):
    """One Stripe account to reconcile, and where its API key is found."""

    name: Annotated[str, AfterValidator(checks.merchant_name)]
    api_key_env: VariableName | None = None
    api_key_file: FilePath | None = None
    mode: Literal["live", "sandbox"] | None = None
    allow_secret_key: bool = False
    stripe_account: Annotated[str, AfterValidator(checks.connected_account)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _name_a_key(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("api_key_env") is None and values.get("api_key_file") is None:
            return {**values, "api_key_env": checks.DEFAULT_KEY_VARIABLE}
        return values


class StripeSettings(_Section):
    """How Stripe is reached, and how fast."""

    api_base: Annotated[str, AfterValidator(checks.api_base)] = checks.STRIPE_API
    api_version: Annotated[str, AfterValidator(checks.api_version)] = "2026-09-30.preview"
    requests_per_second: Annotated[Literal["auto"] | float, PlainValidator(checks.requests_per_second)] = "auto"
    endpoint_requests_per_second: Annotated[float, Field(gt=0, le=10_000)] = 20.0
    max_attempts: Annotated[int, Field(ge=1, le=20)] = 6
    max_elapsed_seconds: Annotated[float, Field(gt=0, le=3600)] = 120.0
    monthly_read_allocation: Annotated[int, Field(ge=1, le=10**12)] | None = None


class PullSettings(_Section):
    """How the accounts are listed."""

    mode: Literal["auto", "full", "incremental"] = "auto"
    full_every_days: Days = 7


class DatabaseSettings(_Section):
    """The job's own database; a relative SQLite path starts at the current working directory."""

    url: Annotated[str, AfterValidator(checks.database_url)] = Field(default="sqlite:///var/relink.db", repr=False)


class LedgerSettings(_Section):
    """The merchant's ledger: a query elsewhere, or the embedded table where both are null."""

    url: Annotated[str, AfterValidator(checks.ledger_url)] | None = Field(default=None, repr=False)
    query: Annotated[str, AfterValidator(checks.ledger_query), Field(max_length=100_000)] | None = None
    suppression_query: ListQuery | None = None
    suppression_file: FilePath | None = None
    sessions_query: ListQuery | None = None


class DeliveryRuleSettings(_Section):
    """Whose requests are delivered otherwise; all that a rule names must fit."""

    merchant: Annotated[str, AfterValidator(checks.merchant_name)] | None = None
    institution: Name | None = None
    customer: Name | None = None
    reason: Reason | None = None
    delivery: Delivery

    @model_validator(mode="after")
    def _name_somebody(self) -> DeliveryRuleSettings:
        if (self.merchant, self.institution, self.customer, self.reason) == (None, None, None, None):
            raise ValueError(
                "fits everybody; name an institution, customer, reason or merchant, or set relink.delivery"
            )
        return self


class RelinkSettings(_Section):
    """Who is asked, how, and how often; days are differences of business dates."""

    delivery: Delivery = "modal"
    delivery_rules: Annotated[tuple[DeliveryRuleSettings, ...], Field(strict=False)] = ()
    return_url: Annotated[str, AfterValidator(checks.return_url), Field(max_length=2000)] | None = None
    return_url_parameter: Literal["return_url", "hosted[return_url]"] = "return_url"
    hosted_interval_hours: Annotated[int, Field(ge=0, le=24 * 365)] = 48
    reasons: Annotated[tuple[Reason, ...], Field(strict=False), AfterValidator(checks.distinct)] = (
        "inactive",
        "expiring",
        "account_number",
        "permissions",
    )
    causes_to_review: Annotated[tuple[Cause, ...], Field(strict=False), AfterValidator(checks.distinct)] = ()
    expiring_within_days: Annotated[int, Field(ge=0, le=3650)] = 14
    ladder_days: (
        Annotated[
            tuple[Annotated[int, Field(ge=0, le=3650)], ...],
            Field(strict=False, max_length=100),
            AfterValidator(checks.ladder),
        ]
        | None
    ) = None
    cooldown_days: Annotated[int, Field(ge=2, le=3650)] = 4
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 4
    pending_days: Days = 7
    quiet_weekdays: Annotated[tuple[Weekday, ...], Field(strict=False), AfterValidator(checks.distinct)] = ()
    quiet_dates: Annotated[
        tuple[Annotated[str, BeforeValidator(checks.quiet_date)], ...],
        Field(strict=False),
        AfterValidator(checks.distinct),
    ] = ()
    quiet_hours: Annotated[str, AfterValidator(checks.quiet_hours)] | None = None
    quiet_days_after_disconnected: QuietDays = 0
    quiet_days_after_access_denied: QuietDays = 0
    max_requests_per_run: Annotated[int, Field(ge=0, le=10**9)] = 1000
    max_requests_per_institution: Annotated[int, Field(ge=0, le=10**9)] | None = None
    allow_widening: bool = True
    narrow_to_subcategories: bool = False
    payments_account: Literal["same", "any_eligible"] = "same"
    require_payment_method_support: Literal["none", "at_least_one", "all"] | None = None
    refresh_after: Annotated[
        tuple[Literal["balances", "ownership", "transactions"], ...],
        Field(strict=False),
        AfterValidator(checks.distinct),
    ] = ()


class BrakeSettings(_Section):
    """What looks like a fault of ours or of a bank rather than of many customers."""

    minimum: Annotated[int, Field(ge=0, le=10**9)] = 25
    newly_broken_share: Share = 0.05
    newly_broken_share_7d: Share = 0.10
    institution_share: Share = 0.20
    account_drop: Share = 0.02


class ForecastSettings(_Section):
    """Which logins are told to lapse soon, by how long logins at their bank have lasted; it decides nothing."""

    enabled: bool = True
    within_days: Annotated[int, Field(ge=1, le=90)] = 14


class ReportSettings(_Section):
    """Where reports go and who may read them."""

    directory: FilePath = Path("var/reports")
    formats: Annotated[
        tuple[Literal["csv", "parquet", "xlsx", "html"], ...],
        Field(strict=False, min_length=1),
        AfterValidator(checks.distinct),
    ] = ("csv", "parquet", "xlsx", "html")
    file_mode: Annotated[str, AfterValidator(checks.file_mode)] = "0600"
    group: Annotated[str, AfterValidator(checks.group_name)] | None = None

    @property
    def file_mode_bits(self) -> int:
        """The permission bits of every report file."""
        return int(self.file_mode, 8)


class ScheduleSettings(_Section):
    """When the job runs, and in which time zone its business dates lie."""

    cron: Annotated[str, AfterValidator(checks.cron)] = checks.DEFAULT_CRON
    timezone: Annotated[str, AfterValidator(checks.timezone)] = "UTC"
    misfire_grace_hours: Annotated[int, Field(ge=1, le=24 * 31)] = 6


class NotifySettings(_Section):
    """The variables that hold the addresses to notify, which are secrets themselves."""

    urls_env: VariableName | None = "RELINK_NOTIFY_URLS"
    heartbeat_url_env: VariableName | None = "RELINK_HEARTBEAT_URL"
    on_success: bool = False
    timeout_seconds: Annotated[float, Field(gt=0, le=300)] = 10.0


class MetricsSettings(_Section):
    """Where the metrics file for Prometheus' textfile collector goes."""

    textfile: FilePath | None = None


class RetentionSettings(_Section):
    """How many days what a night leaves behind is kept; None keeps it for good."""

    snapshots_days: Days | None = 120
    reports_days: Days | None = 400
    dry_runs_days: Days | None = 30
    runs_days: Days | None = 800


class LogSettings(_Section):
    """How the log is written to stderr."""

    format: Literal["auto", "json", "text"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"


class Settings(_Section):
    """Everything a deployment decides. Built by `load_settings` or `parse_settings`, which also check parts against each other."""

    merchants: Annotated[tuple[MerchantSettings, ...], Field(strict=False, min_length=1)] = (
        MerchantSettings(name="main"),
    )
    stripe: StripeSettings = StripeSettings()
    pull: PullSettings = PullSettings()
    database: DatabaseSettings = DatabaseSettings()
    ledger: LedgerSettings = LedgerSettings()
    relink: RelinkSettings = RelinkSettings()
    brakes: BrakeSettings = BrakeSettings()
    forecast: ForecastSettings = ForecastSettings()
    reports: ReportSettings = ReportSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    notify: NotifySettings = NotifySettings()
    metrics: MetricsSettings = MetricsSettings()
    retention: RetentionSettings = RetentionSettings()
    log: LogSettings = LogSettings()

    @property
    def merchant_names(self) -> tuple[str, ...]:
        """The merchants, in the order of the file."""
        return tuple(merchant.name for merchant in self.merchants)


def load_settings(path: Path | None, environment: Mapping[str, str]) -> Settings:
    """Read the settings: `path`, else `$RELINK_CONFIG`, else `./config.yaml`, with `RELINK_` variables on top.

    Raises:
        SettingsError: naming every fault at once, each with its path.
    """
    file = path or Path(environment.get("RELINK_CONFIG") or DEFAULT_FILE)
    if file == DEFAULT_FILE and path is None and not file.exists():
        raise SettingsError("no settings: ./config.yaml does not exist; name a file with --config or $RELINK_CONFIG")
    raw = read_file(file)
    return _checked(raw, str(file), environment)


def parse_settings(values: Mapping[str, Any], where: str = "given") -> Settings:
    """Check settings that are already a mapping, as `load_settings` does with a file's.

    Raises:
        SettingsError: naming every fault at once.
    """
    return _checked(RawSettings(dict(values)), where, {})


def _checked(raw: RawSettings, where: str, environment: Mapping[str, str]) -> Settings:
    for name, value in list(raw.values.items()):
        if value is None and name in Settings.model_fields:
            del raw.values[name]  # a heading whose lines are all comments
    raw.values.setdefault("merchants", [{"name": "main"}])
    overlay(raw, environment, {path: _is_text(kind) for path, kind in setting_paths(Settings)})
    faults = [*raw.faults, *relation_faults(raw.values)]
    settings: Settings | None = None
    try:
        settings = Settings.model_validate(raw.values)
    except ValidationError as error:
        faults += [explain(details, Settings) for details in error.errors(include_url=False)]
    if faults or settings is None:
        raise settings_error(where, faults, raw.variables)
    return settings


def _is_text(kind: Any) -> bool:
    """Whether a setting takes free text, so that a variable's `0640` or `2026` stays as it was typed."""
    origin = get_origin(kind)
    if origin is Annotated or origin in (Union, UnionType):
        return any(_is_text(inner) for inner in get_args(kind)[: 1 if origin is Annotated else None])
    return kind in (str, Path)


def settings_hash(settings: Settings, merchant: MerchantSettings) -> str:
    """A SHA-256 of all that can change a decision for this merchant; nothing secret goes into it.

    Where the job keeps its records, how fast it calls and where it reports change no decision, so they may differ.
    """
    ledger = settings.ledger
    relink = settings.relink.model_dump(mode="json")
    for name in ("reasons", "causes_to_review", "quiet_weekdays", "quiet_dates", "refresh_after"):
        relink[name] = sorted(relink[name])
    relink["delivery_rules"] = [rule for rule in relink["delivery_rules"] if rule["merchant"] in (None, merchant.name)]
    deciding = {
        "merchant": merchant.name,
        "stripe_account": merchant.stripe_account,
        "stand_in": checks.is_loopback(settings.stripe.api_base),
        "api_version": settings.stripe.api_version,
        "ledger": [without_password(ledger.url) if ledger.url else None, ledger.query],
        "suppression": [ledger.suppression_query, str(ledger.suppression_file or "")],
        **({"sessions": ledger.sessions_query} if ledger.sessions_query else {}),
        "relink": relink,
        "brakes": settings.brakes.model_dump(mode="json"),
        "timezone": settings.schedule.timezone,
    }
    canonical = json.dumps(deciding, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def settings_for_record(settings: Settings) -> dict[str, Any]:
    """The settings as plain JSON values to keep beside a run, without passwords or e-mail addresses."""
    record = settings.model_dump(mode="json")
    for section in ("database", "ledger"):
        if record[section]["url"]:
            record[section]["url"] = without_password(record[section]["url"])
    for name in ("query", "suppression_query", "sessions_query"):
        if record["ledger"][name]:
            record["ledger"][name] = mask(record["ledger"][name])
    return record
