"""What a published report says and no other table tells, so that it can be rebuilt."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"

_MOMENT = sa.BigInteger().with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")


def upgrade() -> None:
    """Create the table; reports that were published before have no row in it."""
    op.create_table(
        "relink_report_facts",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("published_at", _MOMENT, nullable=False),
        sa.Column("facts", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["relink_runs.run_id"], name="fk_relink_report_facts_run_id"),
        sa.PrimaryKeyConstraint("run_id", name="pk_relink_report_facts"),
    )


def downgrade() -> None:
    """Refuse: reports could no longer be rebuilt as they were."""
    raise NotImplementedError("going back would forget what reports said: restore a backup instead")
