"""Sessions that something else made, and up to when events are read."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"

_MOMENT = sa.BigInteger().with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")


def upgrade() -> None:
    """Add a table and a column; what is there stays as it is."""
    op.create_table(
        "relink_foreign_sessions",
        sa.Column("merchant", sa.Text(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("authorization_id", sa.Text(), nullable=False),
        sa.Column("account_holder_id", sa.Text()),
        sa.Column("seen_at", _MOMENT, nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("merchant", "mode", "session_id", name="pk_relink_foreign_sessions"),
    )
    op.add_column("relink_merchants", sa.Column("events_read_to", _MOMENT))


def downgrade() -> None:
    """Refuse: contacts made since would be forgotten."""
    raise NotImplementedError("going back would forget contacts: restore a backup instead")
