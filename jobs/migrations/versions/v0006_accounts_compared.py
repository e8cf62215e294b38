"""Which accounts a request brought back: the covered ones by id, and others that nobody asked for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the columns; outcomes from before have counts only."""
    for name in ("cured_accounts", "other_accounts"):
        op.add_column("relink_outcomes", sa.Column(name, sa.JSON()))


def downgrade() -> None:
    """Refuse: which accounts came back would be forgotten."""
    raise NotImplementedError("going back would forget which accounts came back: restore a backup instead")
