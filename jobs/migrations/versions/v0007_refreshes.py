"""Refreshes that are asked for after a relink, and what was seen of them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"

_MOMENT = sa.BigInteger().with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")


def upgrade() -> None:
    """Add the two tables; nothing was refreshed before."""
    op.create_table(
        "relink_refreshes",
        sa.Column("refresh_id", sa.Text(), nullable=False),
        sa.Column("merchant", sa.Text(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("business_date", sa.Date(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("features", sa.JSON(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("planned_at", _MOMENT, nullable=False),
        sa.Column("not_before_at", _MOMENT),
        sa.Column("attempting_at", _MOMENT),
        sa.Column("answered_at", _MOMENT),
        sa.Column("idempotency_key", sa.Text(), nullable=False),
        sa.Column("request_body", sa.Text(), nullable=False),
        sa.Column("api_version", sa.Text(), nullable=False),
        sa.Column("calls", sa.Integer(), nullable=False),
        sa.Column("error_type", sa.Text()),
        sa.Column("error_code", sa.Text()),
        sa.Column("error_message", sa.Text()),
        sa.Column("http_status", sa.Integer()),
        sa.Column("stripe_request_id", sa.Text()),
        sa.ForeignKeyConstraint(["run_id"], ["relink_runs.run_id"], name="fk_relink_refreshes_run_id"),
        sa.ForeignKeyConstraint(["request_id"], ["relink_requests.request_id"], name="fk_relink_refreshes_request_id"),
        sa.PrimaryKeyConstraint("refresh_id", name="pk_relink_refreshes"),
    )
    op.create_index("ix_relink_refreshes_request_id", "relink_refreshes", ["request_id"])
    op.create_index("ix_relink_refreshes_run_id", "relink_refreshes", ["run_id"])
    op.create_index(
        "ix_relink_refreshes_merchant_mode_business_date", "relink_refreshes", ["merchant", "mode", "business_date"]
    )
    op.create_table(
        "relink_refresh_checks",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False, autoincrement=True),
        sa.Column("refresh_id", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("checked_at", _MOMENT, nullable=False),
        sa.Column("feature", sa.Text(), nullable=False),
        sa.Column("status", sa.Text()),
        sa.Column("last_attempted_at", _MOMENT),
        sa.Column("next_available_at", _MOMENT),
        sa.Column("through_at", _MOMENT),
        sa.ForeignKeyConstraint(
            ["refresh_id"], ["relink_refreshes.refresh_id"], name="fk_relink_refresh_checks_refresh_id"
        ),
        sa.ForeignKeyConstraint(["run_id"], ["relink_runs.run_id"], name="fk_relink_refresh_checks_run_id"),
        sa.PrimaryKeyConstraint("id", name="pk_relink_refresh_checks"),
    )
    op.create_index("ix_relink_refresh_checks_refresh_id_id", "relink_refresh_checks", ["refresh_id", "id"])
    op.create_index("ix_relink_refresh_checks_run_id", "relink_refresh_checks", ["run_id"])


def downgrade() -> None:
    """Refuse: what was asked of Stripe would be asked again."""
    raise NotImplementedError(
        "going back would ask Stripe a second time for what it was asked: restore a backup instead"
    )
