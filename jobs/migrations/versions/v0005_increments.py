"""How a snapshot was obtained, so that the next one can be made from it and Stripe's events, and what increments had missed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"

_MOMENT = sa.BigInteger().with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")


def upgrade() -> None:
    """Add the columns; snapshots from before were full pulls that do not say up to when Stripe's events are in them."""
    for column in (
        sa.Column("obtained", sa.Text(), nullable=False, server_default="full"),
        sa.Column("base_snapshot_id", sa.Text()),
        sa.Column("full_date", sa.Date()),
        sa.Column("server_from", _MOMENT),
        sa.Column("server_to", _MOMENT),
        sa.Column("drift", sa.BigInteger()),
    ):
        op.add_column("relink_snapshots", column)


def downgrade() -> None:
    """Refuse: an incremental snapshot would be taken for a full one."""
    raise NotImplementedError("going back would take incremental snapshots for full ones: restore a backup instead")
