"""The page stands whatever the run, holds nothing that runs or is fetched, and shares nothing that it should not."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from reconcile.errors import ReportError
from reports.columns import TABLES
from reports.files import ReportDirectory
from reports.page import mail_body, page_html
from reports.page_numbers import redacted
from reports.past_runs import past_runs
from reports.published_page import find_report, published_page
from reports.summary import MerchantRun, RunFacts
from tests.reports.factories import NIGHT_INPUTS, STAMP, account, broken, facts, findings, night, stored, tables
from tests.reports.page_reading import Read, read_page
from tests.reports.page_world import publish_world

OUTSIDE = ("src", "srcset", "action", "background", "poster", "data", "formaction", "ping")
IDS = re.compile(r"\b(?:fca|fcauth|fcsess|cus|acct|req)_\w+|loan \d+|····\d+")


def of_run(number: int, *, day: int = 22, **fields: object) -> RunFacts:
    stamp = replace(STAMP, run_id=f"202611{day:02}T033{number}00Z-000{number}", business_date=date(2026, 11, day))
    stamp = replace(stamp, **{name: fields.pop(name) for name in ("command", "dry_run") if name in fields})  # type: ignore[arg-type]
    return facts(stamp=stamp, **fields)


def html_of(path: Path) -> str:
    return (path / "index.html").read_text(encoding="utf-8")


def state_of(page: Read) -> str:
    (badge,) = (one for one in page.elements if one.attributes.get("id") == "state")
    return (badge.attributes["class"] or "").removeprefix("badge ")


@pytest.fixture
def reports(tmp_path: Path) -> ReportDirectory:
    return ReportDirectory(tmp_path, formats=("parquet", "html"))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    publish_world(root, seed=3)
    return root


def test_the_first_complete_run_says_that_there_is_nothing_to_compare_with(reports: ReportDirectory) -> None:
    page = read_page(html_of(reports.publish(facts(), night(), {"main": NIGHT_INPUTS}).path))
    assert state_of(page) == "complete"
    assert "No: the run is complete and all" in page.text
    assert "nothing to compare with yet" in page.text
    assert page.figures["", "", "key.came_back"] is None


def test_an_empty_run_stands_with_zeros(reports: ReportDirectory) -> None:
    page = read_page(html_of(reports.publish(facts(sent=0), tables(), {}).path))
    assert page.figures["", "", "key.broken"] == 0
    assert page.figures["", "", "key.waiting"] == 0
    assert "Nothing waits for a person." in page.text


def test_a_dry_run_says_that_nobody_was_asked(reports: ReportDirectory) -> None:
    page = read_page(html_of(reports.publish(of_run(1, dry_run=True, sent=0), night(), {}).path))
    assert state_of(page) == "dry"
    assert "nobody was asked and nothing was recorded" in page.text
    assert "Would be asked" in page.text


def test_a_held_run_gives_its_reason_and_the_command_that_releases_it(reports: ReportDirectory) -> None:
    held = MerchantRun("main", "sandbox", held=True, why="60 of 200 accounts broke", held_plan_hash="ab12cd34")
    frame = findings(broken("fca_1", next_step="held_by_brake"))
    page = read_page(html_of(reports.publish(facts(merchants=[held]), tables(frame), {}).path))
    assert state_of(page) == "held"
    assert "60 of 200 accounts broke" in page.text
    assert "relink run --override-brakes ab12cd34" in page.text
    assert page.figures["", "", "needs.held.main"] == 1


def test_a_stopped_run_says_why_and_shows_the_last_complete_one_as_stale(reports: ReportDirectory) -> None:
    complete = reports.publish(of_run(1, day=20), night(), {}).path
    stopped = reports.publish_stopped(of_run(2, complete=False, why="the ledger is away")).path
    page = read_page(html_of(stopped))
    assert state_of(page) == "stopped"
    assert "the ledger is away" in page.text
    assert "Stale" in page.text
    assert "2 days before" in page.text
    assert page.figures["", "", "key.broken"] == read_page(html_of(complete)).figures["", "", "key.broken"] == 1


def test_a_run_that_stops_before_any_other_has_nothing_but_the_reason(reports: ReportDirectory) -> None:
    page = read_page(html_of(reports.publish_stopped(facts(complete=False, why="no key")).path))
    assert "no key" in page.text
    assert not page.figures


def test_a_merchant_that_stopped_is_named_and_its_accounts_are_not_called_lost(reports: ReportDirectory) -> None:
    both = [MerchantRun("main", "live"), MerchantRun("other", "live")]
    second = {
        name: table.set_column(0, "merchant", [["other"] * table.num_rows]).cast(TABLES[name].schema)
        for name, table in night().items()
    }
    import pyarrow as pa

    whole = {name: pa.concat_tables([night()[name], second[name]]) for name in TABLES}
    reports.publish(of_run(1, day=21, merchants=both), whole, {})
    stopped = [both[0], replace(both[1], complete=False, why="its pages ended early")]
    page = read_page(html_of(reports.publish(of_run(2, complete=False, merchants=stopped), night(), {}).path))
    assert state_of(page) == "incomplete"
    assert "Merchant other stopped" in page.text
    assert page.figures["changes", "lost", "changes.lost"] == 0
    assert page.figures["changes", "broken tonight", "changes.now"] == 1


def test_totals_that_do_not_tie_are_the_first_thing_said(reports: ReportDirectory) -> None:
    inputs = {"main": replace(NIGHT_INPUTS, accounts_pulled=99)}
    page = read_page(html_of(reports.publish(facts(), night(), inputs).path))
    assert "Do not rely on these figures" in page.text
    assert "DOES NOT TIE" in page.text


def test_a_damaged_earlier_report_is_named_and_left_out(reports: ReportDirectory) -> None:
    damaged = reports.publish(of_run(1, day=21), night(), {}).path
    (damaged / "accounts.parquet").write_bytes(b"no longer Parquet")
    page = read_page(html_of(reports.publish(of_run(2), night(), {}).path))
    assert f"could not be read and is left out: {damaged.parent.name}/{damaged.name}" in page.text


def test_an_unknown_request_of_an_earlier_night_waits_until_its_customer_may_be_asked(reports: ReportDirectory) -> None:
    unknown = stored(state="unknown", session_id=None)
    waits = findings(broken("fca_1", next_step="review"))
    reports.publish(of_run(1, day=20), tables(waits, (unknown,), (unknown,)), {})
    page = read_page(html_of(reports.publish(of_run(2, day=21), tables(waits), {}).path))
    assert page.figures["", "", "needs.unknown"] == 1
    assert ("", "", "needs.review") not in page.figures
    assert "relink request --authorization fcauth_1 --resolve-unknown" in page.text
    later = read_page(html_of(reports.publish(of_run(3, day=22), tables(findings(broken("fca_1"))), {}).path))
    assert ("", "", "needs.unknown") not in later.figures


def test_every_command_on_the_page_is_one_of_ours(world: Path) -> None:
    from jobs.cli import COMMANDS

    commands = re.findall(r"<code>(relink \w+)", html_of((world / "latest").resolve()))
    assert {"relink history", "relink request"} <= set(commands)
    assert {command.split()[1] for command in commands} <= set(COMMANDS)


@pytest.mark.parametrize("size", [4, 5])
def test_rates_of_small_groups_are_not_shown(reports: ReportDirectory, size: int) -> None:
    requests = tuple(stored(f"req_{n}", outcome="relinked") for n in range(size))
    page = read_page(html_of(reports.publish(facts(), tables(findings(account("fca_1")), requests), {}).path))
    assert page.figures["outcomes", "Bank One", "outcomes.1.came back"] == size
    assert page.figures["outcomes", "Bank One", "outcomes.1.rate"] == (None if size < 5 else 1)


def test_building_a_page_again_from_its_files_gives_the_same_bytes(world: Path) -> None:
    runs = past_runs(world, "9", date(2026, 11, 20), "run")
    assert len(runs) == 8
    for one in runs:
        assert page_html(published_page(world, one.path)) == html_of(one.path)


def test_nothing_on_the_page_runs_or_is_fetched(world: Path) -> None:
    page = read_page(html_of((world / "latest").resolve()))
    tags = {one.tag for one in page.elements}
    assert not tags & {
        "script",
        "iframe",
        "object",
        "embed",
        "img",
        "form",
        "video",
        "audio",
        "base",
        "foreignobject",
        "image",
        "input",
    }
    for one in page.elements:
        for name, value in one.attributes.items():
            assert not name.startswith("on"), one
            assert name not in OUTSIDE, one
            if name in ("href", "xlink:href"):
                assert value is not None
                assert value.startswith("#") or value == "data:,", one
    (policy,) = (one for one in page.elements if one.attributes.get("http-equiv") == "Content-Security-Policy")
    assert (policy.attributes["content"] or "").startswith("default-src 'none'; style-src 'unsafe-inline';")
    html = html_of((world / "latest").resolve())
    assert re.findall(r"url\((?!#)", html) == re.findall(r"@import", html) == []


def test_names_from_outside_are_text(world: Path) -> None:
    page = read_page(html_of((world / "latest").resolve()))
    assert "<script>alert(1)</script>\"'&amp;" in page.text
    assert "<img src=x onerror=alert(1)>" in page.text
    assert "=cmd|' /C calc'!A0" in page.text


def test_every_id_stands_once_and_every_link_leads_somewhere(world: Path) -> None:
    page = read_page(html_of((world / "latest").resolve()))
    ids = [one.attributes["id"] for one in page.elements if "id" in one.attributes]
    assert len(ids) == len(set(ids))
    links = {one.attributes[name] for one in page.elements for name in ("href", "xlink:href") if name in one.attributes}
    assert {(link or "#")[1:] for link in links if link != "data:,"} <= set(ids)


def test_a_shared_copy_and_a_mail_name_no_customer(world: Path) -> None:
    page = published_page(world, find_report(world, None))
    assert len(IDS.findall(page_html(page))) > 50
    for text in (page_html(redacted(page)), mail_body(page)):
        assert IDS.findall(text) == []
        assert "onerror" not in text
    assert read_page(page_html(redacted(page))).figures == read_page(page_html(page)).figures


def test_a_mail_has_its_styles_with_it_and_no_drawing(world: Path) -> None:
    body = mail_body(published_page(world, find_report(world, None)))
    tags = {one.tag for one in read_page(body).elements}
    assert tags <= {"table", "tr", "td", "span", "strong", "br"}
    assert "Broken now" in body
    assert "class=" not in body


def test_what_stopped_a_run_is_not_in_a_shared_copy(reports: ReportDirectory) -> None:
    path = reports.publish_stopped(facts(complete=False, why="account_id fca_1 stands twice, at row 3")).path
    page = published_page(reports.root, path)
    assert "fca_1" in page_html(page)
    assert "fca_1" not in page_html(redacted(page)) + mail_body(page)


def test_a_report_that_is_not_there_is_named(reports: ReportDirectory) -> None:
    with pytest.raises(ReportError, match="no report in"):
        find_report(reports.root, None)
    reports.publish(facts(), night(), {})
    for name in ("20200101T000000Z-0000", "../../etc"):
        with pytest.raises(ReportError, match="no report of run"):
            find_report(reports.root, name)
