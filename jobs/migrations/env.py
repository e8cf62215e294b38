"""Alembic's entry: run the versions on the connection that the program hands over."""

from __future__ import annotations

from alembic import context

from jobs.adapters.tables import VERSION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    # The caller's transaction holds every version, so that a kill leaves the old tables or the new ones.
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
