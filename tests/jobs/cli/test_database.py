"""`db upgrade` makes or migrates the tables, and everything else refuses tables of another version."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text

from jobs.adapters.database import open_database
from jobs.adapters.lease import acquire
from jobs.adapters.tables import SCHEMA_VERSION, VERSION_TABLE
from tests.jobs.cli.conftest import Relink, deployed
from tests.jobs.nights import Nights


def set_version(nights: Nights, version: str) -> None:
    with open_database(nights.database_url) as database, database.begin() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = :version"), {"version": version})


def test_an_embedded_database_is_made(nights: Nights, relink: Relink, monkeypatch: pytest.MonkeyPatch) -> None:
    missing: Path = nights.directory / "var" / "relink.db"
    at = deployed(nights, relink, monkeypatch, database={"url": f"sqlite:///{missing}"})
    ended = at("db", "upgrade", "--json")
    assert ended.code == 0
    assert ended.json == {"database": str(missing), "from": None, "to": SCHEMA_VERSION, "changed": True}
    assert missing.stat().st_mode & 0o077 == 0
    assert at("db", "upgrade").out == f"database {missing} is of version {SCHEMA_VERSION} already\n"


def test_a_server_is_refused_until_it_is_upgraded(
    nights: Nights, relink: Relink, monkeypatch: pytest.MonkeyPatch, postgres_url: str
) -> None:
    at = deployed(nights, relink, monkeypatch, database={"url": postgres_url})
    for arguments in (["runs"], ["status"], ["history", "fca_1"], ["ledger", "check"]):
        ended = at(*arguments)
        assert (arguments, ended.code) == (arguments, 3)
        assert "relink db upgrade" in ended.err
    assert at("db", "upgrade", "--json").json["changed"] is True
    assert at("runs").code == 0
    assert at("db", "upgrade", "--json").json["changed"] is False


def test_tables_of_another_version_are_refused_by_everything_else(at: Relink, nights: Nights) -> None:
    for version in ("0000", "9999"):
        set_version(nights, version)
        for arguments in (["runs"], ["status"], ["history", "fca_1"], ["ledger", "check"], ["run"]):
            ended = at(*arguments)
            assert (version, arguments, ended.code) == (version, arguments, 3)
            assert "relink db upgrade" in ended.err
            assert ended.out == ""


def test_newer_tables_are_never_taken_back(at: Relink, nights: Nights) -> None:
    set_version(nights, "9999")
    ended = at("db", "upgrade")
    assert ended.code == 3
    assert "newer" in ended.err


def test_nothing_is_migrated_under_a_run(at: Relink, nights: Nights) -> None:
    set_version(nights, "0000")
    with open_database(nights.database_url) as database, acquire(database, "run of tonight", renew=False):
        ended = at("db", "upgrade")
    assert ended.code == 6
    with open_database(nights.database_url) as database:
        assert database.schema_state().found == "0000"
