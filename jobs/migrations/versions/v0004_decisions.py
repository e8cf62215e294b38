"""What was decided about each authorization and account, and how long it stood."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"

_MOMENT = sa.BigInteger().with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")
_STANDS = sa.text("ended_at IS NULL")


def upgrade() -> None:
    """Add the table; decisions of earlier nights are in their reports alone."""
    op.create_table(
        "relink_decisions",
        sa.Column("merchant", sa.Text(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("authorization_id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("decided_at", _MOMENT, nullable=False),
        sa.Column("since_date", sa.Date(), nullable=False),
        sa.Column("until_date", sa.Date()),
        sa.Column("ended_at", _MOMENT),
        sa.Column("finding", sa.Text(), nullable=False),
        sa.Column("next_step", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint(
            "merchant", "mode", "authorization_id", "account_id", "decided_at", "run_id", name="pk_relink_decisions"
        ),
    )
    op.create_index(
        "ix_relink_decisions_standing",
        "relink_decisions",
        ["merchant", "mode"],
        sqlite_where=_STANDS,
        postgresql_where=_STANDS,
    )


def downgrade() -> None:
    """Refuse: why somebody was not asked would be forgotten."""
    raise NotImplementedError("going back would forget why nobody was asked: restore a backup instead")
