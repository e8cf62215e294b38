"""Bad input: each fault ends with its exit code and a message that names it, and nothing is sent."""

from __future__ import annotations

import csv
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from jobs.logs import one_line
from tests.jobs.cli.conftest import Ended, Relink, deployed
from tests.jobs.conftest import MakeNights
from tests.jobs.nights import KEY, Nights, ledger_of, small_world

HOSTILE = [
    "' OR 1=1--",
    '"; DROP TABLE relink_requests; --',
    "../../x",
    "/etc/passwd",
    "..\\..\\x",
    "fcauth_1\x00",
    "fcauth_1\nrelink: all is well",
    "fcauth_1\r\nSet-Cookie: x",
    "\x1b[2Jfcauth_1",
    "%2e%2e%2f",
    "{0}${IFS}$(id)",
    "=cmd|' /C calc'!A0",
    "\u202efcauth_1",
    "\ud800",
    "x" * 10_000,
    "!!python/object:os.system",
]
UNPRINTABLE = [text for text in HOSTILE if one_line(text) != text]


@pytest.fixture
def tonight(make_nights: MakeNights) -> Nights:
    return make_nights(small_world(start=datetime.now(UTC)))


@pytest.fixture
def call(tonight: Nights, relink: Relink, monkeypatch: pytest.MonkeyPatch) -> Relink:
    return deployed(tonight, relink, monkeypatch)


def assert_plain(ended: Ended) -> None:
    """Nothing that came in can move the cursor or pose as a line of ours, and no bug shows."""
    for said in (ended.out, ended.err):
        assert "Traceback" not in said
        assert "\x1b" not in said
        assert "\x00" not in said
        assert "\u202e" not in said
        assert not any(line.startswith(("relink: all is well", "Set-Cookie")) for line in said.splitlines())


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({"relink": {"colour": "red"}}, ["relink.colour"]),
        ({"colours": {}}, ["colours"]),
        ({"relink": {"cooldown_days": 1}}, ["relink.cooldown_days"]),
        ({"relink": {"cooldown_days": "four"}}, ["relink.cooldown_days"]),
        ({"schedule": {"timezone": "Mars/Olympus"}}, ["schedule.timezone"]),
        ({"stripe": {"api_base": "http://example.com"}}, ["stripe.api_base"]),
        ({"stripe": {"api_version": "2026-10-28.endive"}}, ["stripe.api_version"]),
        ({"reports": {"file_mode": "0666"}}, ["reports.file_mode"]),
        (
            {
                "relink": {"cooldown_days": 0, "reasons": ["tired"], "colour": "red"},
                "brakes": {"account_drop": 7},
                "reports": {"formats": []},
            },
            ["relink.cooldown_days", "relink.reasons", "relink.colour", "brakes.account_drop", "reports.formats"],
        ),
    ],
)
def test_wrong_settings_are_all_named_with_their_paths(
    tonight: Nights, relink: Relink, monkeypatch: pytest.MonkeyPatch, sections: dict[str, Any], told: list[str]
) -> None:
    monkeypatch.setattr(tonight, "sections", sections)
    ended = deployed(tonight, relink, monkeypatch)("run")
    assert ended.code == 2
    assert [path for path in told if path not in ended.err] == []
    assert len(tonight.world.log) == 0
    assert_plain(ended)


@pytest.mark.parametrize(
    "text", ["", "a: [", "!!python/object/apply:os.system ['id']", "- 1\n- 2\n", "\x00", "a: 1\na: 2\n"]
)
def test_a_file_that_is_no_settings(
    tonight: Nights, relink: Relink, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    call = deployed(tonight, relink, monkeypatch)
    monkeypatch.delenv("STRIPE_API_KEY")
    (tonight.directory / "config.yaml").write_text(text)
    ended = call("run")
    assert ended.code == 2
    assert ended.err.strip()
    assert_plain(ended)


@pytest.mark.parametrize(
    "key", [None, "", "nonsense", "pk_test_publishable", "rk_live_simulator", "sk_live_simulator123"]
)
def test_a_key_that_cannot_be_meant(
    tonight: Nights, call: Relink, monkeypatch: pytest.MonkeyPatch, key: str | None
) -> None:
    if key is None:
        monkeypatch.delenv("STRIPE_API_KEY")
    else:
        monkeypatch.setenv("STRIPE_API_KEY", key)
    ended = call("run")
    assert ended.code == 2
    assert "STRIPE_API_KEY" in ended.err
    assert not key or key not in ended.err
    assert len(tonight.world.log) == 0


def test_a_key_that_stripe_does_not_know(tonight: Nights, call: Relink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRIPE_API_KEY", "rk_test_somebodyelse")
    ended = call("run")
    assert ended.code == 3
    assert "does not know the API key" in ended.out + ended.err
    assert "somebodyelse" not in ended.out + ended.err
    assert tonight.posts() == 0


def test_a_revoked_key(tonight: Nights, call: Relink) -> None:
    tonight.world.revoke_key(KEY)
    ended = call("run")
    assert (ended.code, "revoked" in ended.out, tonight.posts()) == (3, True, 0)


def test_an_api_version_of_before_relinking(tonight: Nights, relink: Relink, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = deployed(tonight, relink, monkeypatch, stripe={"api_version": "2025-12-15.preview"})("run")
    assert (ended.code, tonight.posts()) == (3, 0)
    assert "stripe.api_version" in ended.out


def test_a_server_out_of_reach(tonight: Nights, relink: Relink, monkeypatch: pytest.MonkeyPatch) -> None:
    stripe = {"api_base": "http://127.0.0.1:9", "max_attempts": 1}
    ended = deployed(tonight, relink, monkeypatch, stripe=stripe)("run")
    assert (ended.code, "did not answer" in ended.out) == (3, True)


@pytest.mark.parametrize("kind", ["empty", "duplicate", "missing", "float"])
def test_a_faulty_ledger_names_its_rows(
    tonight: Nights, relink: Relink, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    rows = {
        "empty": [],
        "duplicate": [("fca_1_1", "cus_1", 1), ("fca_1_1", "cus_2", 1)],
        "missing": [("fca_1_1", "cus_1", 1), (None, "cus_2", 1)],
        "float": [("fca_1_1", "cus_1", 10.5)],
    }[kind]
    path = tmp_path / "ledger.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE loans (account_id TEXT, account_holder_id TEXT, exposure_minor)")
        connection.executemany("INSERT INTO loans VALUES (?, ?, ?)", rows)
    query = "SELECT account_id, account_holder_id, exposure_minor, 'usd' AS currency FROM loans"
    ended = deployed(tonight, relink, monkeypatch, ledger={"url": f"sqlite:///{path}", "query": query})("run")
    assert ended.code == 3
    assert {"empty": "empty", "duplicate": "fca_1_1", "missing": "account_id", "float": "exposure_minor"}[
        kind
    ] in ended.out
    assert len(tonight.world.log) == 0


@pytest.mark.parametrize("kind", ["garbage", "truncated", "directory"])
def test_a_database_that_cannot_be_trusted(
    tonight: Nights, relink: Relink, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    path = Path(tonight.database_url.removeprefix("sqlite:///"))
    if kind == "garbage":
        path.write_bytes(b"this is no database, whatever it is called" * 100)
    elif kind == "truncated":
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
    else:
        path.unlink()
        path.mkdir()
    for leftover in tmp_path.glob("relink.db-*"):
        leftover.unlink()
    ended = deployed(tonight, relink, monkeypatch)("run")
    assert ended.code == 3
    assert "relink.db" in ended.err
    assert len(tonight.world.log) == 0
    assert_plain(ended)


def test_reports_that_cannot_be_written(tonight: Nights, relink: Relink, monkeypatch: pytest.MonkeyPatch) -> None:
    (tonight.directory / "file").write_text("in the way")
    call = deployed(tonight, relink, monkeypatch, reports={"directory": str(tonight.directory / "file" / "reports")})
    for command in (["run"], ["plan"], ["request", "--customer", "cus_1"]):
        ended = call(*command)
        assert (ended.code, "file" in ended.err) == (3, True)
    assert len(tonight.world.log) == 0


def test_reports_for_a_group_that_the_user_is_not_in(
    tonight: Nights, relink: Relink, monkeypatch: pytest.MonkeyPatch, strange_group: str
) -> None:
    """Found before anybody is asked, not when the report of the night is published."""
    call = deployed(tonight, relink, monkeypatch, reports={"directory": str(tonight.reports), "group": strange_group})
    for command in (["run"], ["plan"], ["request", "--customer", "cus_1"], ["collect"]):
        ended = call(*command)
        assert (command, ended.code, "member of reports.group" in ended.err) == (command, 3, True)
    assert len(tonight.world.log) == 0


# Hostile text


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_filter_matches_nothing(tonight: Nights, call: Relink, text: str) -> None:
    ended = call("request", "--institution", text)
    assert ended.code == 2
    assert_plain(ended)
    assert tonight.posts() == 0


def test_a_hostile_filter_matches_nothing_on_a_server(
    make_nights: MakeNights, postgres_url: str, relink: Relink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL stores no NUL and no half of a surrogate pair."""
    nights = make_nights(small_world(start=datetime.now(UTC)), database_url=postgres_url)
    call = deployed(nights, relink, monkeypatch)
    for text in HOSTILE:
        ended = call("request", "--authorization", text)
        assert (text, ended.code) == (text, 2)
        assert_plain(ended)
    for text in HOSTILE:
        ended = call("history", text)
        assert (text, ended.code) == (text, 2)
        assert_plain(ended)
    assert nights.posts() == 0


def test_a_hostile_id_has_no_history_and_no_session(tonight: Nights, call: Relink) -> None:
    commands = [[*command, text] for command in (["history"], ["runs", "show"]) for text in HOSTILE]
    commands += [["adopt", text] for text in UNPRINTABLE]
    commands += [["adopt", *(text for text in HOSTILE if text not in UNPRINTABLE)]]
    for arguments in commands:
        ended = call(*arguments)
        assert (arguments, ended.code) == (arguments, 2)
        assert_plain(ended)
    assert tonight.posts() == 0


def test_a_hostile_selection_file_selects_nobody(tonight: Nights, call: Relink, tmp_path: Path) -> None:
    path = tmp_path / "selection.csv"
    files = [[text] for text in UNPRINTABLE] + [[text for text in HOSTILE if text not in UNPRINTABLE]]
    for cells in files:
        with path.open("w", encoding="utf-8", errors="surrogatepass", newline="") as file:
            csv.writer(file).writerows([["authorization_id"], *([cell] for cell in cells)])
        ended = call("request", "--file", str(path))
        assert (cells, ended.code) == (cells, 2)
        assert_plain(ended)
    assert tonight.posts() == 0


def test_a_hostile_override_releases_nothing(tonight: Nights, call: Relink) -> None:
    for text in [*UNPRINTABLE, "' OR 1=1--"]:
        ended = call("run", "--override-brakes", text)
        assert ended.code in (2, 5)
        assert_plain(ended)
    assert tonight.posts() == 0


def test_hostile_names_from_a_bank_stay_text(
    make_nights: MakeNights, relink: Relink, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    """A bank's name may hold anything; it breaks no report, no path and no database."""
    world = small_world(customers=0, broken=(), start=datetime.now(UTC))
    names = [text for text in HOSTILE if "\ud800" not in text]
    for number, name in enumerate(names, start=1):
        world.add_authorization(
            ("customer", f"cus_{number}"), institution=name, authorization_id=f"fcauth_{number}", tokenized=False
        )
        world.break_authorization(f"fcauth_{number}")
    nights = make_nights(world, database_url=database_url)
    nights.load_ledger(ledger_of(world))
    ended = deployed(nights, relink, monkeypatch)("run", "--json")
    assert ended.code == 0
    assert_plain(ended)
    assert len(world.effects) == len(names)
    inside = {path.name for path in nights.reports.iterdir()}
    assert inside <= {
        "latest",
        "last_attempt",
        "_snapshots",
        "_plans",
        ended.json["report_directory"].split("/")[-2],
    }
