"""The first tables.

This is the schema as it was when released: later changes go into a new version, never in here.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None

_MOMENT = sa.BigInteger().with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")
_SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create every table."""
    op.create_table(
        "relink_account_history",
        sa.Column("merchant", sa.Text(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("observed_at", _MOMENT, nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("present", sa.Boolean(), nullable=False),
        sa.Column("authorization_id", sa.Text()),
        sa.Column("holder_type", sa.Text()),
        sa.Column("account_holder_id", sa.Text()),
        sa.Column("institution_name", sa.Text()),
        sa.Column("last4", sa.Text()),
        sa.Column("subcategory", sa.Text()),
        sa.Column("stripe_status", sa.Text()),
        sa.Column("action", sa.Text()),
        sa.Column("cause", sa.Text()),
        sa.Column("permissions", sa.Text()),
        sa.Column("expected_deactivation_at", _MOMENT),
        sa.Column("number_state", sa.Text()),
        sa.Column("inactive_since", _MOMENT),
        sa.Column("inactive_since_basis", sa.Text()),
        sa.PrimaryKeyConstraint("merchant", "mode", "account_id", "observed_at", name="pk_relink_account_history"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "relink_breakages",
        sa.Column("merchant", sa.Text(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("authorization_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("opened_at", _MOMENT, nullable=False),
        sa.Column("opened_date", sa.Date(), nullable=False),
        sa.Column("opened_run_id", sa.Text(), nullable=False),
        sa.Column("eligible_at", _MOMENT),
        sa.Column("closed_at", _MOMENT),
        sa.Column("closed_run_id", sa.Text()),
        sa.Column("closed_reason", sa.Text()),
        sa.PrimaryKeyConstraint("merchant", "mode", "authorization_id", "kind", "number", name="pk_relink_breakages"),
    )
    op.create_index(
        "ix_relink_breakages_merchant_mode_opened_date", "relink_breakages", ["merchant", "mode", "opened_date"]
    )
    op.create_table(
        "relink_lease",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("holder", sa.Text()),
        sa.Column("token", sa.BigInteger(), nullable=False),
        sa.Column("acquired_at", _MOMENT, nullable=False),
        sa.Column("renewed_at", _MOMENT, nullable=False),
        sa.Column("expires_at", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_relink_lease"),
    )
    op.create_table(
        "relink_ledger",
        sa.Column("merchant", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("account_holder_id", sa.Text(), nullable=False),
        sa.Column("required_permissions", sa.JSON()),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("do_not_contact", sa.Boolean(), nullable=False),
        sa.Column("exposure_minor", sa.BigInteger()),
        sa.Column("currency", sa.Text()),
        sa.Column("reference", sa.Text()),
        sa.PrimaryKeyConstraint("merchant", "account_id", name="pk_relink_ledger"),
    )
    op.create_table(
        "relink_merchants",
        sa.Column("merchant", sa.Text(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("stripe_account", sa.Text()),
        sa.Column("first_seen_at", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("merchant", name="pk_relink_merchants"),
    )
    op.create_table(
        "relink_runs",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("command", sa.Text(), nullable=False),
        sa.Column("business_date", sa.Date(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("stage", sa.Text()),
        sa.Column("started_at", _MOMENT, nullable=False),
        sa.Column("finished_at", _MOMENT),
        sa.Column("exit_code", sa.Integer()),
        sa.Column("why", sa.Text()),
        sa.Column("settings_hash", sa.Text(), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("arguments", sa.JSON(), nullable=False),
        sa.Column("report_directory", sa.Text()),
        sa.Column("resumed_from", sa.Text()),
        sa.Column("held", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", name="pk_relink_runs"),
    )
    op.create_index("ix_relink_runs_business_date", "relink_runs", ["business_date"])
    op.create_index("ix_relink_runs_started_at", "relink_runs", ["started_at"])
    op.create_table(
        "relink_affected_accounts",
        sa.Column("merchant", sa.Text(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("since_date", sa.Date(), nullable=False),
        sa.Column("until_date", sa.Date()),
        sa.Column("baseline", sa.Boolean(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["relink_runs.run_id"], name="fk_relink_affected_accounts_run_id"),
        sa.PrimaryKeyConstraint("merchant", "mode", "account_id", "since_date", name="pk_relink_affected_accounts"),
    )
    op.create_index(
        "ix_relink_affected_accounts_merchant_mode_since_date",
        "relink_affected_accounts",
        ["merchant", "mode", "since_date"],
    )
    op.create_table(
        "relink_api_calls",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("merchant", sa.Text(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("calls", sa.BigInteger(), nullable=False),
        sa.Column("retries", sa.BigInteger(), nullable=False),
        sa.Column("rate_limited", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["relink_runs.run_id"], name="fk_relink_api_calls_run_id"),
        sa.PrimaryKeyConstraint("run_id", "merchant", "mode", "day", "purpose", "kind", name="pk_relink_api_calls"),
    )
    op.create_index("ix_relink_api_calls_merchant_mode_day", "relink_api_calls", ["merchant", "mode", "day"])
    op.create_table(
        "relink_plans",
        sa.Column("plan_hash", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("merchant", sa.Text(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("business_date", sa.Date(), nullable=False),
        sa.Column("path", sa.Text()),
        sa.Column("released_at", _MOMENT),
        sa.Column("released_by_run", sa.Text()),
        sa.Column("pairs", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["relink_runs.run_id"], name="fk_relink_plans_run_id"),
        sa.PrimaryKeyConstraint("plan_hash", name="pk_relink_plans"),
    )
    op.create_index("ix_relink_plans_merchant_mode_created_at", "relink_plans", ["merchant", "mode", "created_at"])
    op.create_table(
        "relink_requests",
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("merchant", sa.Text(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("business_date", sa.Date(), nullable=False),
        sa.Column("authorization_id", sa.Text(), nullable=False),
        sa.Column("breakage_kind", sa.Text(), nullable=False),
        sa.Column("breakage_number", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("account_id", sa.Text()),
        sa.Column("holder_type", sa.Text(), nullable=False),
        sa.Column("account_holder_id", sa.Text(), nullable=False),
        sa.Column("institution_name", sa.Text()),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("cause", sa.Text()),
        sa.Column("covered", sa.JSON(), nullable=False),
        sa.Column("permissions", sa.JSON(), nullable=False),
        sa.Column("widens", sa.Boolean(), nullable=False),
        sa.Column("delivery", sa.Text(), nullable=False),
        sa.Column("due_date", sa.Date()),
        sa.Column("exposure_by_currency", sa.JSON(), nullable=False),
        sa.Column("ledger_references", sa.JSON(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("limit_accounts", sa.Integer()),
        sa.Column("account_subcategories", sa.JSON(), nullable=False),
        sa.Column("return_url", sa.Text()),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("planned_at", _MOMENT, nullable=False),
        sa.Column("attempting_at", _MOMENT),
        sa.Column("answered_at", _MOMENT),
        sa.Column("idempotency_key", sa.Text(), nullable=False),
        sa.Column("request_body", sa.Text(), nullable=False),
        sa.Column("api_version", sa.Text(), nullable=False),
        sa.Column("session_id", sa.Text()),
        sa.Column("error_type", sa.Text()),
        sa.Column("error_code", sa.Text()),
        sa.Column("error_message", sa.Text()),
        sa.Column("http_status", sa.Integer()),
        sa.Column("stripe_request_id", sa.Text()),
        sa.Column("calls", sa.Integer(), nullable=False),
        sa.Column("requested_at", _MOMENT),
        sa.Column("offered_at", _MOMENT),
        sa.Column("resolved_by", sa.Text()),
        sa.Column("resolved_at", _MOMENT),
        sa.ForeignKeyConstraint(["run_id"], ["relink_runs.run_id"], name="fk_relink_requests_run_id"),
        sa.PrimaryKeyConstraint("request_id", name="pk_relink_requests"),
    )
    op.create_index(
        "ix_relink_requests_merchant_mode_account_holder_id",
        "relink_requests",
        ["merchant", "mode", "account_holder_id"],
    )
    op.create_index(
        "ix_relink_requests_merchant_mode_authorization_id", "relink_requests", ["merchant", "mode", "authorization_id"]
    )
    op.create_index(
        "ix_relink_requests_merchant_mode_business_date", "relink_requests", ["merchant", "mode", "business_date"]
    )
    op.create_index("ix_relink_requests_merchant_mode_state", "relink_requests", ["merchant", "mode", "state"])
    op.create_index("ix_relink_requests_run_id", "relink_requests", ["run_id"])
    op.create_index(
        "uq_relink_requests_contact",
        "relink_requests",
        ["merchant", "mode", "authorization_id", "breakage_kind", "breakage_number", "attempt"],
        unique=True,
        sqlite_where=sa.text("state <> 'not_sent'"),
        postgresql_where=sa.text("state <> 'not_sent'"),
    )
    op.create_index(
        "uq_relink_requests_idempotency_key",
        "relink_requests",
        ["idempotency_key"],
        unique=True,
        sqlite_where=sa.text("state <> 'not_sent'"),
        postgresql_where=sa.text("state <> 'not_sent'"),
    )
    op.create_index(
        "uq_relink_requests_session",
        "relink_requests",
        ["merchant", "mode", "session_id"],
        unique=True,
        sqlite_where=sa.text("session_id IS NOT NULL"),
        postgresql_where=sa.text("session_id IS NOT NULL"),
    )
    op.create_table(
        "relink_run_merchants",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("merchant", sa.Text(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("snapshot_id", sa.Text()),
        sa.Column("complete", sa.Boolean(), nullable=False),
        sa.Column("held", sa.Boolean(), nullable=False),
        sa.Column("why", sa.Text()),
        sa.Column("counts", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["relink_runs.run_id"], name="fk_relink_run_merchants_run_id"),
        sa.PrimaryKeyConstraint("run_id", "merchant", "mode", name="pk_relink_run_merchants"),
    )
    op.create_table(
        "relink_snapshots",
        sa.Column("snapshot_id", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("merchant", sa.Text(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("taken_at", _MOMENT, nullable=False),
        sa.Column("completed_at", _MOMENT, nullable=False),
        sa.Column("business_date", sa.Date(), nullable=False),
        sa.Column("accounts", sa.BigInteger(), nullable=False),
        sa.Column("ledger_rows", sa.BigInteger(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["relink_runs.run_id"], name="fk_relink_snapshots_run_id"),
        sa.PrimaryKeyConstraint("snapshot_id", name="pk_relink_snapshots"),
    )
    op.create_index(
        "ix_relink_snapshots_merchant_mode_business_date", "relink_snapshots", ["merchant", "mode", "business_date"]
    )
    op.create_table(
        "relink_successors",
        sa.Column("merchant", sa.Text(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("old_account_id", sa.Text(), nullable=False),
        sa.Column("new_account_id", sa.Text(), nullable=False),
        sa.Column("old_authorization_id", sa.Text(), nullable=False),
        sa.Column("new_authorization_id", sa.Text(), nullable=False),
        sa.Column("matched_by", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("matched_at", _MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["relink_runs.run_id"], name="fk_relink_successors_run_id"),
        sa.PrimaryKeyConstraint("merchant", "mode", "old_account_id", "new_account_id", name="pk_relink_successors"),
    )
    op.create_index("ix_relink_successors_run_id", "relink_successors", ["run_id"])
    op.create_table(
        "relink_outcomes",
        sa.Column("id", _SERIAL, autoincrement=True, nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("business_date", sa.Date(), nullable=False),
        sa.Column("observed_at", _MOMENT, nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("previous_outcome", sa.Text()),
        sa.Column("failure_reason", sa.Text()),
        sa.Column("session_status", sa.Text()),
        sa.Column("result_authorization_id", sa.Text()),
        sa.Column("accounts_cured", sa.Integer(), nullable=False),
        sa.Column("outcome_at", _MOMENT),
        sa.Column("outcome_at_basis", sa.Text()),
        sa.ForeignKeyConstraint(["request_id"], ["relink_requests.request_id"], name="fk_relink_outcomes_request_id"),
        sa.ForeignKeyConstraint(["run_id"], ["relink_runs.run_id"], name="fk_relink_outcomes_run_id"),
        sa.PrimaryKeyConstraint("id", name="pk_relink_outcomes"),
    )
    op.create_index("ix_relink_outcomes_request_id_id", "relink_outcomes", ["request_id", "id"])
    op.create_index("ix_relink_outcomes_run_id", "relink_outcomes", ["run_id"])
    op.create_table(
        "relink_session_checks",
        sa.Column("id", _SERIAL, autoincrement=True, nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("checked_at", _MOMENT, nullable=False),
        sa.Column("session_status", sa.Text()),
        sa.ForeignKeyConstraint(
            ["request_id"], ["relink_requests.request_id"], name="fk_relink_session_checks_request_id"
        ),
        sa.ForeignKeyConstraint(["run_id"], ["relink_runs.run_id"], name="fk_relink_session_checks_run_id"),
        sa.PrimaryKeyConstraint("id", name="pk_relink_session_checks"),
    )
    op.create_index(
        "ix_relink_session_checks_request_id_checked_at", "relink_session_checks", ["request_id", "checked_at"]
    )


def downgrade() -> None:
    """Refuse: contacts made since would be forgotten."""
    raise NotImplementedError("going back would forget contacts: restore a backup instead")
