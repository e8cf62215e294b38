"""The versions of the job's own tables, applied by code (`relink db upgrade`), never by Alembic's own command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection


def migrate(connection: Connection) -> None:
    """Bring the tables to the newest version inside the caller's transaction, which alone commits."""
    from alembic import command

    command.upgrade(configuration(connection), "head")


def configuration(connection: Connection | None = None) -> Config:
    """Alembic's configuration for the versions that this package carries."""
    from alembic.config import Config

    config = Config()
    # Alembic reads options through an interpolating parser, in which a percent sign in a path is doubled.
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config
