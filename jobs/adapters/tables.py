"""The job's own tables: their columns, keys and types, with metadata that nothing else shares."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Date,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.types import TypeDecorator, TypeEngine

SCHEMA_VERSION = "0008"
"""The newest migration under `jobs/migrations/versions`."""

VERSION_TABLE = "relink_schema_version"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_microseconds(moment: datetime) -> int:
    """An aware time as whole microseconds since 1970 UTC.

    Raises:
        ValueError: the time is naive, so it names no moment.
    """
    if moment.tzinfo is None:
        raise ValueError(f"naive time {moment.isoformat()}: every stored time is aware")
    return (moment - _EPOCH) // _MICROSECOND


def from_microseconds(value: int) -> datetime:
    """The aware UTC time of whole microseconds since 1970 UTC."""
    return _EPOCH + timedelta(microseconds=value)


class Moment(TypeDecorator[datetime]):
    """An aware UTC time: `timestamptz` on PostgreSQL; on SQLite, which has no time type, integer microseconds, so that order holds."""

    impl = BigInteger
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """The column type of a database."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(TIMESTAMP(timezone=True))
        return dialect.type_descriptor(BigInteger())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """Refuse a naive time; pass on what the database stores."""
        if value is None:
            return None
        microseconds = to_microseconds(value)
        return value.astimezone(UTC) if dialect.name == "postgresql" else microseconds

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Return aware UTC whatever the session's time zone."""
        if value is None:
            return None
        return value.astimezone(UTC) if isinstance(value, datetime) else from_microseconds(value)


class FreeText(TypeDecorator[str]):
    """Text that came from outside; what no database can hold (NUL, half a surrogate pair) becomes U+FFFD or `?`."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Replace the characters that PostgreSQL or UTF-8 refuse, so that one odd name cannot end a run."""
        return None if value is None else value.replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8")


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _scope() -> tuple[Column[str], Column[str]]:
    return Column("merchant", Text, nullable=False), Column("mode", Text, nullable=False)


def _scope_key() -> tuple[Column[str], Column[str]]:
    return Column("merchant", Text, primary_key=True), Column("mode", Text, primary_key=True)


def _run_id(**options: Any) -> Column[str]:
    return Column("run_id", Text, ForeignKey("relink_runs.run_id"), **{"nullable": False, **options})


merchants = Table(
    "relink_merchants",
    metadata,
    Column("merchant", Text, primary_key=True),
    Column("mode", Text, nullable=False),
    Column("stripe_account", Text),
    Column("first_seen_at", Moment, nullable=False),
    Column("events_read_to", Moment),
)

runs = Table(
    "relink_runs",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("command", Text, nullable=False),
    Column("business_date", Date, nullable=False),
    Column("state", Text, nullable=False),
    Column("stage", Text),
    Column("started_at", Moment, nullable=False),
    Column("finished_at", Moment),
    Column("exit_code", Integer),
    Column("why", FreeText),
    Column("settings_hash", Text, nullable=False),
    Column("settings", JSON, nullable=False),
    Column("arguments", JSON, nullable=False),
    Column("report_directory", Text),
    Column("resumed_from", Text),
    Column("held", Boolean, nullable=False),
    Index(None, "business_date"),
    Index(None, "started_at"),
)

run_merchants = Table(
    "relink_run_merchants",
    metadata,
    _run_id(primary_key=True),
    *_scope_key(),
    Column("snapshot_id", Text),
    Column("complete", Boolean, nullable=False),
    Column("held", Boolean, nullable=False),
    Column("why", FreeText),
    Column("counts", JSON, nullable=False),
)

report_facts = Table(
    "relink_report_facts",
    metadata,
    _run_id(primary_key=True),
    Column("published_at", Moment, nullable=False),
    Column("facts", LargeBinary, nullable=False),
)
"""What a published report says and no other table tells, so that it can be rebuilt: compressed, as `jobs/report_facts.py` writes it."""

snapshots = Table(
    "relink_snapshots",
    metadata,
    Column("snapshot_id", Text, primary_key=True),
    _run_id(),
    *_scope(),
    Column("taken_at", Moment, nullable=False),
    Column("completed_at", Moment, nullable=False),
    Column("business_date", Date, nullable=False),
    Column("accounts", BigInteger, nullable=False),
    Column("ledger_rows", BigInteger, nullable=False),
    Column("path", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("obtained", Text, nullable=False, server_default="full"),
    Column("base_snapshot_id", Text),
    Column("full_date", Date),
    Column("server_from", Moment),
    Column("server_to", Moment),
    Column("drift", BigInteger),
    Index(None, "merchant", "mode", "business_date"),
)

account_history = Table(
    "relink_account_history",
    metadata,
    *_scope_key(),
    Column("account_id", Text, primary_key=True),
    Column("observed_at", Moment, primary_key=True),
    Column("run_id", Text, nullable=False),
    Column("present", Boolean, nullable=False),
    Column("authorization_id", Text),
    Column("holder_type", Text),
    Column("account_holder_id", Text),
    Column("institution_name", FreeText),
    Column("last4", Text),
    Column("subcategory", Text),
    Column("stripe_status", Text),
    Column("action", Text),
    Column("cause", Text),
    Column("permissions", Text),
    Column("expected_deactivation_at", Moment),
    Column("number_state", Text),
    Column("inactive_since", Moment),
    Column("inactive_since_basis", Text),
    sqlite_with_rowid=False,
)
"""Append only. Its rows lie in the order of the key, so that the newest of each account is found in one pass."""

breakages = Table(
    "relink_breakages",
    metadata,
    *_scope_key(),
    Column("authorization_id", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("opened_at", Moment, nullable=False),
    Column("opened_date", Date, nullable=False),
    Column("opened_run_id", Text, nullable=False),
    Column("eligible_at", Moment),
    Column("closed_at", Moment),
    Column("closed_run_id", Text),
    Column("closed_reason", Text),
    Index(None, "merchant", "mode", "opened_date"),
)

affected_accounts = Table(
    "relink_affected_accounts",
    metadata,
    *_scope_key(),
    Column("account_id", Text, primary_key=True),
    Column("since_date", Date, primary_key=True),
    Column("until_date", Date),
    Column("baseline", Boolean, nullable=False),
    _run_id(),
    Index(None, "merchant", "mode", "since_date"),
)
"""Accounts that are no longer new to the brakes: affected at a complete run that did not hold them."""

_UNSENT_EXCLUDED = text("state <> 'not_sent'")
_HAS_SESSION = text("session_id IS NOT NULL")

requests = Table(
    "relink_requests",
    metadata,
    Column("request_id", Text, primary_key=True),
    *_scope(),
    _run_id(),
    Column("business_date", Date, nullable=False),
    Column("authorization_id", Text, nullable=False),
    Column("breakage_kind", Text, nullable=False),
    Column("breakage_number", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("account_id", Text),
    Column("holder_type", Text, nullable=False),
    Column("account_holder_id", Text, nullable=False),
    Column("institution_name", FreeText),
    Column("reason", Text, nullable=False),
    Column("cause", Text),
    Column("covered", JSON, nullable=False),
    Column("permissions", JSON, nullable=False),
    Column("widens", Boolean, nullable=False),
    Column("delivery", Text, nullable=False),
    Column("due_date", Date),
    Column("exposure_by_currency", JSON, nullable=False),
    Column("ledger_references", JSON, nullable=False),
    Column("origin", Text, nullable=False),
    Column("limit_accounts", Integer),
    Column("account_subcategories", JSON, nullable=False),
    Column("return_url", Text),
    Column("state", Text, nullable=False),
    Column("planned_at", Moment, nullable=False),
    Column("attempting_at", Moment),
    Column("answered_at", Moment),
    Column("idempotency_key", Text, nullable=False),
    Column("request_body", Text, nullable=False),
    Column("api_version", Text, nullable=False),
    Column("session_id", Text),
    Column("error_type", FreeText),
    Column("error_code", FreeText),
    Column("error_message", FreeText),
    Column("http_status", Integer),
    Column("stripe_request_id", FreeText),
    Column("calls", Integer, nullable=False),
    Column("requested_at", Moment),
    Column("offered_at", Moment),
    Column("resolved_by", FreeText),
    Column("resolved_at", Moment),
    Index(
        "uq_relink_requests_contact",
        "merchant",
        "mode",
        "authorization_id",
        "breakage_kind",
        "breakage_number",
        "attempt",
        unique=True,
        sqlite_where=_UNSENT_EXCLUDED,
        postgresql_where=_UNSENT_EXCLUDED,
    ),
    Index(
        "uq_relink_requests_idempotency_key",
        "idempotency_key",
        unique=True,
        sqlite_where=_UNSENT_EXCLUDED,
        postgresql_where=_UNSENT_EXCLUDED,
    ),
    Index(
        "uq_relink_requests_session",
        "merchant",
        "mode",
        "session_id",
        unique=True,
        sqlite_where=_HAS_SESSION,
        postgresql_where=_HAS_SESSION,
    ),
    Index(None, "merchant", "mode", "business_date"),
    Index(None, "merchant", "mode", "account_holder_id"),
    Index(None, "merchant", "mode", "authorization_id"),
    Index(None, "merchant", "mode", "state"),
    Index(None, "run_id"),
)
"""One contact may exist once: the partial index is what makes a second one impossible, whoever races."""

outcomes = Table(
    "relink_outcomes",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("request_id", Text, ForeignKey("relink_requests.request_id"), nullable=False),
    _run_id(),
    Column("business_date", Date, nullable=False),
    Column("observed_at", Moment, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("previous_outcome", Text),
    Column("failure_reason", FreeText),
    Column("session_status", FreeText),
    Column("result_authorization_id", Text),
    Column("accounts_cured", Integer, nullable=False),
    Column("cured_accounts", JSON(none_as_null=True)),
    Column("other_accounts", JSON(none_as_null=True)),
    Column("outcome_at", Moment),
    Column("outcome_at_basis", Text),
    Index(None, "request_id", "id"),
    Index(None, "run_id"),
)
"""Append only; the row of the highest id is a request's newest outcome."""

session_checks = Table(
    "relink_session_checks",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("request_id", Text, ForeignKey("relink_requests.request_id"), nullable=False),
    _run_id(),
    Column("checked_at", Moment, nullable=False),
    Column("session_status", FreeText),
    Index(None, "request_id", "checked_at"),
)

refreshes = Table(
    "relink_refreshes",
    metadata,
    Column("refresh_id", Text, primary_key=True),
    *_scope(),
    _run_id(),
    Column("business_date", Date, nullable=False),
    Column("request_id", Text, ForeignKey("relink_requests.request_id"), nullable=False),
    Column("account_id", Text, nullable=False),
    Column("features", JSON, nullable=False),
    Column("state", Text, nullable=False),
    Column("planned_at", Moment, nullable=False),
    Column("not_before_at", Moment),
    Column("attempting_at", Moment),
    Column("answered_at", Moment),
    Column("idempotency_key", Text, nullable=False),
    Column("request_body", Text, nullable=False),
    Column("api_version", Text, nullable=False),
    Column("calls", Integer, nullable=False),
    Column("error_type", FreeText),
    Column("error_code", FreeText),
    Column("error_message", FreeText),
    Column("http_status", Integer),
    Column("stripe_request_id", FreeText),
    Index(None, "request_id"),
    Index(None, "run_id"),
    Index(None, "merchant", "mode", "business_date"),
)
"""One row an account and success: its id is a hash of both, so that none is asked for twice."""

refresh_checks = Table(
    "relink_refresh_checks",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("refresh_id", Text, ForeignKey("relink_refreshes.refresh_id"), nullable=False),
    _run_id(),
    Column("checked_at", Moment, nullable=False),
    Column("feature", Text, nullable=False),
    Column("status", FreeText),
    Column("last_attempted_at", Moment),
    Column("next_available_at", Moment),
    Column("through_at", Moment),
    Index(None, "refresh_id", "id"),
    Index(None, "run_id"),
)
"""Append only; the row of the highest id is what was last seen of a feature."""

foreign_sessions = Table(
    "relink_foreign_sessions",
    metadata,
    *_scope_key(),
    Column("session_id", Text, primary_key=True),
    Column("authorization_id", Text, nullable=False),
    Column("account_holder_id", Text),
    Column("seen_at", Moment, nullable=False),
    Column("why", FreeText, nullable=False),
)
"""Sessions that events told of and that belong to no request."""

refused_sessions = Table(
    "relink_refused_sessions",
    metadata,
    *_scope_key(),
    Column("session_id", Text, primary_key=True),
    Column("authorization_id", Text),
    Column("refused_at", Moment, nullable=False),
    Column("why", FreeText, nullable=False),
)
"""Sessions of the merchant's list that cannot be followed; with an authorization, for as long as that is not known."""

successors = Table(
    "relink_successors",
    metadata,
    *_scope_key(),
    Column("old_account_id", Text, primary_key=True),
    Column("new_account_id", Text, primary_key=True),
    Column("old_authorization_id", Text, nullable=False),
    Column("new_authorization_id", Text, nullable=False),
    Column("matched_by", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    _run_id(),
    Column("matched_at", Moment, nullable=False),
    Index(None, "run_id"),
)

api_calls = Table(
    "relink_api_calls",
    metadata,
    _run_id(primary_key=True),
    *_scope_key(),
    Column("day", Date, primary_key=True),
    Column("purpose", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("calls", BigInteger, nullable=False),
    Column("retries", BigInteger, nullable=False),
    Column("rate_limited", BigInteger, nullable=False),
    Index(None, "merchant", "mode", "day"),
)

lease = Table(
    "relink_lease",
    metadata,
    Column("name", Text, primary_key=True),
    Column("holder", Text),
    Column("token", BigInteger, nullable=False),
    Column("acquired_at", Moment, nullable=False),
    Column("renewed_at", Moment, nullable=False),
    Column("expires_at", Moment, nullable=False),
)
"""The row stays after release, so that its token only ever rises."""

ledger = Table(
    "relink_ledger",
    metadata,
    Column("merchant", Text, primary_key=True),
    Column("account_id", Text, primary_key=True),
    Column("account_holder_id", Text, nullable=False),
    Column("required_permissions", JSON(none_as_null=True)),
    Column("purpose", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("do_not_contact", Boolean, nullable=False),
    Column("exposure_minor", BigInteger),
    Column("currency", Text),
    Column("reference", FreeText),
)

plans = Table(
    "relink_plans",
    metadata,
    Column("plan_hash", Text, primary_key=True),
    _run_id(),
    *_scope(),
    Column("created_at", Moment, nullable=False),
    Column("business_date", Date, nullable=False),
    Column("path", Text),
    Column("released_at", Moment),
    Column("released_by_run", Text),
    Column("pairs", JSON, nullable=False),
    Index(None, "merchant", "mode", "created_at"),
)

decisions = Table(
    "relink_decisions",
    metadata,
    *_scope_key(),
    Column("authorization_id", Text, primary_key=True),
    Column("account_id", Text, primary_key=True),
    Column("decided_at", Moment, primary_key=True),
    Column("since_date", Date, nullable=False),
    Column("until_date", Date),
    Column("ended_at", Moment),
    Column("finding", Text, nullable=False),
    Column("next_step", Text, nullable=False),
    Column("detail", FreeText, nullable=False),
    # Of two runs that begin at one moment, as by a clock that was set back, each decides for itself.
    Column("run_id", Text, primary_key=True),
    Index(
        "ix_relink_decisions_standing",
        "merchant",
        "mode",
        sqlite_where=text("ended_at IS NULL"),
        postgresql_where=text("ended_at IS NULL"),
    ),
)
"""A row from the night that decided so to the one that decided otherwise; without an account it holds for the authorization, without an
authorization for an account that has none."""
