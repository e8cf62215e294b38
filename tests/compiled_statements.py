"""Lets all engines of a test process share what SQLAlchemy compiled.

A process of the product opens one engine and compiles each statement once; a test process opens thousands, and would spend a fifth of each
small night on compiling the same statements again. SQLAlchemy keeps compiled statements by engine and by dialect object. Here every engine
gets one store, in which two dialects count as one if they are of the same class: their servers and drivers are the same ones throughout.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine, create_engine
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.util import LRUCache

from jobs.adapters import database_engines

STATEMENTS_KEPT = 4000


def share_compiled_statements() -> None:
    """Have every engine that this process opens from now on use one store of compiled statements."""
    if database_engines.create_engine is not create_engine:
        return
    kept: LRUCache[Any, Any] = LRUCache(STATEMENTS_KEPT)
    for dialect in (SQLiteDialect_pysqlite, PGDialect_psycopg):
        dialect.__eq__ = lambda self, other: type(self) is type(other)  # type: ignore[assignment,method-assign]
        dialect.__hash__ = lambda self: hash(type(self))  # type: ignore[assignment,method-assign]

    def create(*arguments: Any, **options: Any) -> Engine:
        engine = create_engine(*arguments, **options)
        engine._compiled_cache = kept
        return engine

    database_engines.create_engine = create  # type: ignore[assignment]
