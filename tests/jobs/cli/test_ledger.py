"""Loading the embedded ledger is all or nothing, and a check names everything that is wrong."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from jobs.adapters import records
from jobs.adapters.database import open_database
from jobs.adapters.lease import acquire
from tests.jobs.cli.conftest import Relink, deployed
from tests.jobs.conftest import MakeNights
from tests.jobs.nights import Nights

HEADER = (
    "account_id,account_holder_id,required_permissions,purpose,status,do_not_contact,exposure_minor,currency,reference"
)


def write(nights: Nights, *rows: str, header: str = HEADER) -> str:
    path = nights.directory / "ledger.csv"
    path.write_text("\n".join([header, *rows, ""]))
    return str(path)


def stored(nights: Nights) -> dict[str, str]:
    with open_database(nights.database_url) as database:
        return {row.account_id: row.status for row in records.ledger_rows(database)}


def test_a_load_replaces_the_whole_ledger_and_counts_what_it_did(
    make_nights: MakeNights, database_url: str, relink: Relink, monkeypatch: pytest.MonkeyPatch
) -> None:
    nights = make_nights(database_url=database_url)
    at = deployed(nights, relink, monkeypatch)
    file = write(nights, "fca_1_1,cus_1,,,open,,,,", "fca_1_2,cus_1,,,closed,,,,", "fca_new,cus_9,balances,,,,,,")
    ended = at("ledger", "load", file, "--json")
    assert ended.code == 0
    assert ended.json == {"added": 1, "changed": 1, "removed": 10, "rows": 3, "merged": False}
    assert stored(nights) == {"fca_1_1": "open", "fca_1_2": "closed", "fca_new": "open"}
    assert at("ledger", "load", file).out == "0 added, 0 changed, 0 removed; the ledger has 3 rows\n"


def test_a_merge_leaves_the_other_rows(at: Relink, nights: Nights) -> None:
    file = write(nights, "fca_1_1,cus_1,,,closed,,,,", "fca_new,cus_9,,,,,,,")
    ended = at("ledger", "load", file, "--merge", "--json")
    assert ended.json == {"added": 1, "changed": 1, "removed": 0, "rows": 13, "merged": True}
    assert stored(nights)["fca_1_1"] == "closed"
    assert stored(nights)["fca_6_2"] == "open"


@pytest.mark.parametrize("merge", [[], ["--merge"]])
def test_a_fault_anywhere_loads_nothing_and_names_the_row(at: Relink, nights: Nights, merge: list[str]) -> None:
    before = stored(nights)
    file = write(
        nights,
        "fca_new,cus_9,,,,,,,",
        "fca_1_1,cus_1,,,shut,,10.50,usd,",
        "fca_new,cus_9,,,,,,,",
        ",cus_9,,,,,,,kim.doe@customer.example",
    )
    ended = at("ledger", "load", file, *merge)
    assert ended.code == 3
    assert ended.out == ""
    for part in ("row 2, account fca_1_1, column status", "column exposure_minor", "row 3, account fca_new", "row 4"):
        assert part in ended.err
    assert "kim.doe" not in ended.err
    assert stored(nights) == before


@pytest.mark.parametrize("merge", [[], ["--merge"]])
def test_an_empty_file_is_a_fault_and_not_an_empty_ledger(at: Relink, nights: Nights, merge: list[str]) -> None:
    before = stored(nights)
    assert at("ledger", "load", write(nights), *merge).code == 3
    assert stored(nights) == before


def test_with_several_merchants_each_row_names_its_own(
    make_nights: MakeNights, relink: Relink, monkeypatch: pytest.MonkeyPatch
) -> None:
    nights = make_nights()
    nights.merchants = [{"name": "main"}, {"name": "shop", "api_key_env": "SHOP_KEY"}]
    at = deployed(nights, relink, monkeypatch)
    ended = at("ledger", "load", write(nights, "fca_1,cus_1,,,,,,,"))
    assert ended.code == 3
    assert "column merchant" in ended.err
    file = write(nights, "shop,fca_1,cus_1", "main,fca_1,cus_1", header="merchant,account_id,account_holder_id")
    assert at("ledger", "load", file, "--json").json["rows"] == 2
    assert at("ledger", "check", "--json").json["by_merchant"] == {"main": 1, "shop": 1}


def test_a_merge_is_refused_where_rows_that_stay_are_faults_by_now(
    nights: Nights, relink: Relink, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = stored(nights)
    nights.merchants = [{"name": "renamed"}]
    at = deployed(nights, relink, monkeypatch)
    file = write(nights, "fca_new,cus_9,,,,,,,")
    ended = at("ledger", "load", file, "--merge")
    assert ended.code == 3
    assert "nothing was merged" in ended.err
    assert "merchant" in ended.err
    assert stored(nights) == before
    assert at("ledger", "load", file).code == 0
    assert list(stored(nights)) == ["fca_new"]


def test_a_load_waits_for_no_run(at: Relink, nights: Nights) -> None:
    before = stored(nights)
    with open_database(nights.database_url) as database, acquire(database, "run of tonight", renew=False):
        ended = at("ledger", "load", write(nights, "fca_new,cus_9,,,,,,,"))
    assert ended.code == 6
    assert "run of tonight" in ended.err
    assert stored(nights) == before


def test_the_first_load_creates_the_database(nights: Nights, relink: Relink, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = nights.directory / "var" / "relink.db"
    at = deployed(nights, relink, monkeypatch, database={"url": f"sqlite:///{missing}"})
    bad = write(nights, "fca_1,,,,,,,,")
    assert at("ledger", "load", bad).code == 3
    assert not missing.exists()
    assert at("ledger", "load", write(nights, "fca_1,cus_1,,,,,,,")).code == 0
    assert at("ledger", "check", "--json").json["rows"] == 1


def configured(nights: Nights, *rows: tuple[object, ...]) -> dict[str, dict[str, str]]:
    """A ledger elsewhere, and the settings that read it."""
    path = nights.directory / "books.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE loans (account, holder, state, silent, due, currency)")
    connection.executemany("INSERT INTO loans VALUES (?, ?, ?, ?, ?, ?)", rows)
    connection.commit()
    connection.close()
    query = (
        "SELECT account AS account_id, holder AS account_holder_id, state AS status, silent AS do_not_contact, "
        "due AS exposure_minor, currency FROM loans"
    )
    return {"ledger": {"url": f"sqlite:///{path}", "query": query}}


def test_where_a_ledger_is_configured_a_load_is_refused(
    nights: Nights, relink: Relink, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = stored(nights)
    at = deployed(nights, relink, monkeypatch, **configured(nights, ("fca_1", "cus_1", "open", 0, 1, "usd")))
    ended = at("ledger", "load", write(nights, "fca_new,cus_9,,,,,,,"))
    assert ended.code == 2
    assert "ledger.url" in ended.err
    assert stored(nights) == before


def test_a_check_says_what_the_configured_ledger_holds(
    nights: Nights, relink: Relink, monkeypatch: pytest.MonkeyPatch
) -> None:
    sections = configured(
        nights,
        ("fca_1", "cus_1", "open", 0, 10**15, "usd"),
        ("fca_2", "cus_1", "open", 1, 10**15, "usd"),
        ("fca_3", "cus_2", "closed", 0, 500, "eur"),
        ("fca_4", "cus_3", "open", 0, None, None),
        ("fca_5", "cus_3", "open", 0, 700, "eur"),
    )
    at = deployed(nights, relink, monkeypatch, **sections)
    ended = at("ledger", "check", "--json")
    assert ended.code == 0
    told = ended.json
    assert (told["rows"], told["clean"], told["faults"]) == (5, True, [])
    assert told["by_status"] == {"closed": 1, "open": 4}
    assert told["by_purpose"] == {"data": 5}
    assert told["exposure_by_currency"] == {"EUR": 700, "USD": 2 * 10**15}
    assert (told["holders"], told["holders_silenced"]) == (3, 1)
    shown = at("ledger", "check").out
    assert f"{2 * 10**15} USD" in shown
    assert "3, of whom 1 must not be contacted" in shown


def test_a_check_lists_every_fault(nights: Nights, relink: Relink, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [(f"fca_{number}", f"cus_{number}", "shut", 0, 1.5, "usd") for number in range(30)]
    at = deployed(nights, relink, monkeypatch, **configured(nights, *rows, ("fca_ok", "cus_ok", "open", 0, 1, "usd")))
    ended = at("ledger", "check", "--json")
    assert ended.code == 3
    assert len(ended.json["faults"]) == 60
    assert ended.json["rows"] == 1
    assert ended.json["faults"][-1]["account_id"] == "fca_29"
    shown = at("ledger", "check")
    assert shown.code == 3
    assert shown.out.count("\n  row ") == 60


def test_a_check_of_nothing_is_a_fault(nights: Nights, relink: Relink, monkeypatch: pytest.MonkeyPatch) -> None:
    missing: Path = nights.directory / "none.db"
    at = deployed(nights, relink, monkeypatch, database={"url": f"sqlite:///{missing}"})
    assert at("ledger", "check").code == 3
    assert not missing.exists()
    at = deployed(nights, relink, monkeypatch, **configured(nights))
    assert "empty" in at("ledger", "check").err


def test_an_unreachable_ledger_hides_its_password(
    nights: Nights, relink: Relink, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = {"url": "postgresql+psycopg://books:hunter2@127.0.0.1:9/books?connect_timeout=1", "query": "SELECT 1"}
    at = deployed(nights, relink, monkeypatch, ledger=section)
    ended = at("ledger", "check", "--json")
    assert ended.code == 3
    assert json.loads(ended.out)["exit_code"] == 3
    assert "hunter2" not in ended.out + ended.err


def test_a_check_says_how_many_sessions_made_elsewhere_the_query_yields(
    nights: Nights, relink: Relink, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = "SELECT 'fcsess_1' AS session_id UNION ALL SELECT 'fcsess_2'"
    at = deployed(nights, relink, monkeypatch, ledger={"sessions_query": query})
    assert "sessions that ledger.sessions_query yields: 2\n" in at("ledger", "check").out
    assert at("ledger", "check", "--json").json["sessions"] == 2
    at = deployed(nights, relink, monkeypatch, ledger={"sessions_query": query.replace("_2", "_1")})
    faulty = at("ledger", "check")
    assert faulty.code == 3
    assert "row 2, session fcsess_1, column session_id: stands in row 1 already" in faulty.err
