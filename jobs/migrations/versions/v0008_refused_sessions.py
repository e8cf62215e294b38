"""Sessions of the merchant's list that cannot be followed, so that they are read once."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"

_MOMENT = sa.BigInteger().with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")


def upgrade() -> None:
    """Add the table; nothing was refused before."""
    op.create_table(
        "relink_refused_sessions",
        sa.Column("merchant", sa.Text(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("authorization_id", sa.Text()),
        sa.Column("refused_at", _MOMENT, nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("merchant", "mode", "session_id", name="pk_relink_refused_sessions"),
    )


def downgrade() -> None:
    """Refuse: contacts made since would be forgotten."""
    raise NotImplementedError("going back would forget contacts: restore a backup instead")
