from __future__ import annotations

import pytest

from jobs.database_url import scrub, secrets_of, without_password


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:///var/relink.db", "sqlite:///var/relink.db"),
        ("postgresql+psycopg://user@host/name", "postgresql+psycopg://user@host/name"),
        ("postgresql+psycopg://user:hunter2@host:5432/name", "postgresql+psycopg://user:***@host:5432/name"),
        ("postgresql+psycopg://postgres:@/name?host=/run/pg", "postgresql+psycopg://postgres:***@/name?host=/run/pg"),
        ("mysql://user:p@ss/w:rd@host/name", "mysql://user:***@host/name"),
        ("mysql://user:p%40ss@host/name", "mysql://user:***@host/name"),
        (
            "postgresql://h/n?user=u&password=hunter2&sslmode=require",
            "postgresql://h/n?user=***&password=***&sslmode=require",
        ),
        ("mssql+pyodbc:///?odbc_connect=DRIVER%3D%7Bx%7D%3BPWD%3Dhunter2", "mssql+pyodbc:///?odbc_connect=***"),
    ],
)
def test_a_shown_url_keeps_the_place_and_loses_the_secret(url: str, shown: str) -> None:
    assert without_password(url) == shown


@pytest.mark.parametrize("password", ["hunter2", "p@ss/w:rd", "p%40ss%2Fword", "a+b c", "x?y&z=1"])
def test_a_drivers_message_loses_the_password_in_every_spelling(password: str) -> None:
    from urllib.parse import unquote

    url = f"postgresql://user:{password}@host/name"
    said = scrub(f"failed for {url} with {password} and {unquote(password)}", url)
    assert password not in said
    assert unquote(password) not in said
    assert "user" in said


def test_a_url_without_a_secret_scrubs_nothing() -> None:
    assert secrets_of("sqlite:///var/relink.db") == ()
    assert scrub("no such table: x", "sqlite:///var/relink.db") == "no such table: x"
