"""`relink report` on a terminal, into a pipe, into a file, and where there is no screen."""

from __future__ import annotations

import hashlib
import json
import webbrowser
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest

from reports.files import ReportDirectory
from tests.jobs.cli.conftest import Relink
from tests.jobs.nights import Nights
from tests.reports.factories import NIGHT_INPUTS, STAMP, facts, night


@pytest.fixture
def published(nights: Nights) -> Path:
    directory = ReportDirectory(nights.reports, formats=("csv", "parquet", "html"))
    return directory.publish(facts(), night(), {"main": NIGHT_INPUTS}).path


def test_show_prints_what_the_page_answers(at: Relink, published: Path) -> None:
    ended = at("report", "show")
    assert ended.code == 0
    assert f"Complete: run {STAMP.run_id} (run) of business date 2026-11-22" in ended.out
    for words in ("Broken now", "EUR 12.50", "not observable", "relink history fca_3"):
        assert words in ended.out


def test_show_as_json_is_one_value_with_every_figure(at: Relink, published: Path) -> None:
    value = at("report", "show", STAMP.run_id, "--json").json
    assert (value["state"], value["figures"]["key.broken"], value["figures"]["key.at_stake.EUR"]) == (
        "complete",
        1,
        1250,
    )
    (need,) = value["needs"]
    assert (need["cases"], need["first_cases"][0]["command"]) == (1, "relink history fca_3")


def test_show_reads_csv_where_there_is_no_parquet(at: Relink, nights: Nights) -> None:
    ReportDirectory(nights.reports, formats=("csv",)).publish(facts(), night(), {"main": NIGHT_INPUTS})
    assert at("report", "show", "--json").json["figures"]["key.broken"] == 1


def test_a_redacted_copy_is_written_once_and_names_nobody(at: Relink, published: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.html"
    ended = at("report", "show", "--redact", str(copy))
    assert ended.code == 0
    for text in (copy.read_text(), ended.out):
        assert "fca_" not in text
        assert "Accounts that the ledger does not name" in text
    again = at("report", "show", "--redact", str(copy))
    assert again.code == 3
    assert "move it away" in again.err


def test_mail_is_html_without_ids(at: Relink, published: Path) -> None:
    ended = at("report", "show", "--mail")
    assert ended.out.startswith("<table")
    assert "fca_" not in ended.out


def test_open_opens_where_there_is_a_screen_and_else_prints_the_path(
    at: Relink, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda address: opened.append(address) is None)
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert at("report", "open").out == f"{published / 'index.html'}\n"
    assert opened == []
    monkeypatch.setenv("DISPLAY", ":0")
    assert at("report", "open", STAMP.run_id).code == 0
    assert opened == [(published / "index.html").as_uri()]


def test_open_names_what_is_missing(at: Relink, nights: Nights) -> None:
    ReportDirectory(nights.reports, formats=("csv",)).publish(facts(), night(), {"main": NIGHT_INPUTS})
    ended = at("report", "open")
    assert ended.code == 3
    assert "add html to reports.formats" in ended.err


def test_no_report_is_said_so(at: Relink, nights: Nights) -> None:
    ended = at("report", "show", "--json")
    assert ended.code == 3
    assert "no report in" in json.loads(ended.out)["error"]


def _publish(nights: Nights, on: date, *, stopped: bool = False) -> None:
    stamp = replace(STAMP, run_id=f"{on:%Y%m%d}T033000Z-0001", business_date=on)
    reports = ReportDirectory(nights.reports, formats=("parquet",))
    if stopped:
        reports.publish_stopped(facts(stamp=stamp, complete=False, why="the ledger is away"))
    else:
        reports.publish(facts(stamp=stamp), night(), {"main": NIGHT_INPUTS})


def test_trend_prints_every_date_up_to_the_newest_report(at: Relink, nights: Nights) -> None:
    for days, stopped in ((0, False), (1, True), (3, False)):
        _publish(nights, date(2026, 11, 1) + timedelta(days=days), stopped=stopped)
    ended = at("report", "trend")
    assert ended.code == 0
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in ended.out.splitlines() if "│ " in line]
    assert [(row[0], row[1], row[-1]) for row in rows] == [
        ("2026-11-01", "1", "EUR 12.50"),
        ("2026-11-02", "stopped", ""),
        ("2026-11-03", "no report", ""),
        ("2026-11-04", "1", "EUR 12.50"),
        ("all", "", ""),
    ]


def test_trend_as_json_takes_the_dates_it_is_given(at: Relink, nights: Nights) -> None:
    _publish(nights, date(2026, 11, 1))
    value = at("report", "trend", "--json", "--from", "2026-10-31", "--to", "2026-11-02").json
    assert [(one["business_date"], one["affected"], one["why"]) for one in value["nights"]] == [
        ("2026-10-31", None, "no report"),
        ("2026-11-01", 1, None),
        ("2026-11-02", None, "no report"),
    ]
    assert value["nights"][1] | {"run_id": ""} == {
        "business_date": "2026-11-01",
        "run_id": "",
        "complete": True,
        "why": None,
        "affected": 1,
        "eligible": 1,
        "held": 0,
        "asked": 1,
        "unknown": 0,
        "answered": 0,
        "relinked": 0,
        "share": None,
        "money_at_stake_minor": {"EUR": 1250},
    }
    assert (value["newest_report"], value["unread"]) == ("2026-11-01", [])


@pytest.mark.parametrize(
    ("dates", "word"),
    [
        (("--from", "2026-11-05", "--to", "2026-11-01"), "comes after"),
        (("--from", "0001-01-01"), "narrow it"),
        (("--to", "yesterday"), "yesterday"),
    ],
)
def test_trend_refuses_dates_that_make_no_sense(at: Relink, nights: Nights, dates: tuple[str, ...], word: str) -> None:
    _publish(nights, date(2026, 11, 2))
    ended = at("report", "trend", *dates)
    assert ended.code == 2
    assert word in ended.err


def test_trend_without_any_report_says_so(at: Relink, nights: Nights) -> None:
    ended = at("report", "trend")
    assert ended.code == 3
    assert "`relink run` writes the first" in ended.err


# Whether a report is what its run wrote


def test_verify_says_that_a_report_is_what_its_run_wrote(at: Relink, nights: Nights) -> None:
    result = nights.run()
    ended = at("report", "verify", "--json")
    assert (ended.code, ended.json["faults"], ended.json["recorded"]) == (0, [], True)
    assert ended.json["report_directory"] == str(result.report_directory)
    assert "nothing wrong" in at("report", "verify", result.run_id).out


def test_verify_names_a_file_that_lost_a_row(at: Relink, nights: Nights) -> None:
    result = nights.run()
    path = Path(str(result.report_directory)) / "accounts.csv"
    path.write_bytes(b"\r\n".join(path.read_bytes().split(b"\r\n")[:-2]) + b"\r\n")
    ended = at("report", "verify")
    assert ended.code == 3
    assert "accounts.csv: has 11 rows, the manifest says 12" in ended.out
    assert "accounts.csv: its SHA-256 is not the manifest's" in ended.out


def test_verify_is_not_deceived_by_a_manifest_that_was_changed_with_the_file(at: Relink, nights: Nights) -> None:
    directory = Path(str(nights.run().report_directory))
    table, manifest = directory / "accounts.csv", directory / "manifest.json"
    table.write_bytes(table.read_bytes().replace(b"savings", b"spending", 1))
    told = json.loads(manifest.read_bytes())
    told["files"][table.name] |= {
        "sha256": hashlib.sha256(table.read_bytes()).hexdigest(),
        "bytes": table.stat().st_size,
    }
    manifest.write_text(json.dumps(told))
    ended = at("report", "verify", "--json")
    assert ended.code == 3
    assert ended.json["faults"] == [
        f"{name}: is not what the run published; `relink backfill` writes it anew from the records"
        for name in (table.name, manifest.name)
    ]


def test_verify_says_where_the_records_have_nothing_to_compare_with(at: Relink, published: Path) -> None:
    ended = at("report", "verify", STAMP.run_id)
    assert (ended.code, "the records have nothing to compare it with" in ended.out) == (0, True)
