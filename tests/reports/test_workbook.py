"""The workbook as a spreadsheet program reads it: real dates and numbers, ids as text, nothing that runs, what is urgent first."""

from __future__ import annotations

import io
import json
import random
import re
import zipfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openpyxl import load_workbook
from openpyxl.utils.escape import unescape
from openpyxl.workbook import Workbook
from openpyxl.worksheet.worksheet import Worksheet

from reports.columns import TABLES
from reports.contract import TIME
from reports.control import control_totals
from reports.files import ReportDirectory
from reports.glossary import entries
from reports.page_model import Page
from reports.page_numbers import page_numbers
from reports.past_nights import Past
from reports.summary import MerchantRun, RunFacts, build_summary
from reports.verification import verify
from reports.workbook import SHEETS, WORKBOOK, heading_of, workbook_chunks
from reports.workbook_cells import CUT, MOST_CHARACTERS
from tests.reports.factories import NIGHT, NIGHT_INPUTS, account, facts, findings, night, stored, tables
from tests.reports.page_world import tables_of

ACCOUNTS = TABLES["accounts"]
HOSTILE = [
    "=1+1",
    "+1",
    "-1",
    "@SUM(1)",
    "\t=1",
    "{=1+1}",
    '=HYPERLINK("http://evil.example","x")',
    "http://evil.example/",
    "internal:'accounts'!A1",
    "mailto:a",
    "00012",
    "1E5",
    "2026-11-22",
    "TRUE",
    "#REF!",
    "_x0041_",
    "a_x000D_b",
    "a\r\nb\tc\vd",
    "\0\x01\x1f\x7f",
    "\ufffe\uffff",
    "<r><t>x</t></r>",
    "<r>&bad</r>",
    "<r>=1</r>",
    "<r>_x1_</r>",
    "loan_x1_2_xA_",
    "_x1\x15",
    "_x0041\x15",
    "<r>\x01</r>",
    "]]><f>1+1</f>",
    "&amp;&#10;",
    "  both ends  ",
    "بنك القاهرة",
    "\u202eevil\u202c",
    "e\u0301\U0001f600",
    "'=1",
]


def page_of(facts_: RunFacts, parts: Mapping[str, pa.Table]) -> Page:
    totals = control_totals(parts, {"main": NIGHT_INPUTS})
    return page_numbers(build_summary(facts_, parts, totals), parts, Past())


PAGE = page_of(facts(), night())


def written(parts: Mapping[str, pa.Table], page: Page = PAGE, **options: object) -> bytes:
    return b"".join(workbook_chunks(page, parts, NIGHT, **options))  # type: ignore[arg-type]


def opened(parts: Mapping[str, pa.Table], **options: object) -> Workbook:
    return load_workbook(io.BytesIO(written(parts, **options)))  # type: ignore[arg-type]


def with_accounts(*rows: Mapping[str, object]) -> dict[str, pa.Table]:
    """A night whose accounts are these rows as they stand, past every check and mask of the tables."""
    columns = [[row.get(name) for row in rows] for name in ACCOUNTS.names]
    arrays = [pa.array(cells, type=one.type) for cells, one in zip(columns, ACCOUNTS.columns, strict=True)]
    return {**night(), "accounts": pa.table(arrays, schema=ACCOUNTS.schema)}


def numbered(texts: list[str | None]) -> list[dict[str, object]]:
    return [
        {"merchant": "main", "account_id": f"fca_{number:06d}", "finding": "ok", "next_step": "none", "reference": text}
        for number, text in enumerate(texts)
    ]


def column(sheet: Worksheet, name: str) -> list[object]:
    place = ACCOUNTS.names.index(name) + 1
    return [sheet.cell(row, place).value for row in range(2, sheet.max_row + 1)]


def references(book: Workbook) -> list[str | None]:
    return [None if value is None else unescape(str(value)) for value in column(book["accounts"], "reference")]


class TestWhatLiesThere:
    def test_it_is_published_with_the_rest_and_verified(self, tmp_path: Path) -> None:
        run = ReportDirectory(tmp_path, formats=("csv", "xlsx", "html"))
        path = run.publish(facts(), night(), {"main": NIGHT_INPUTS}).path
        assert verify(path) == []
        assert WORKBOOK in json.loads((path / "manifest.json").read_text())["files"]
        assert [
            one.name for one in path.iterdir() if one.suffix not in (".csv", ".sql", ".json", ".html", ".xlsx")
        ] == []

    def test_a_run_that_stopped_has_none(self, tmp_path: Path) -> None:
        run = ReportDirectory(tmp_path, formats=("xlsx",))
        path = run.publish_stopped(facts(complete=False, why="the ledger is away")).path
        assert {file.name for file in path.iterdir()} == {"summary.json", "manifest.json"}

    def test_the_same_night_gives_the_same_bytes_and_no_clock_is_in_them(self) -> None:
        first = written(night())
        assert first == written(night())
        with zipfile.ZipFile(io.BytesIO(first)) as archive:
            core = archive.read("docProps/core.xml").decode()
            assert core.count("2026-11-22T03:30:00Z") == 2
            assert {info.date_time[0] for info in archive.infolist()} == {1980}

    def test_rows_wait_in_the_directory_that_is_given_and_nothing_is_left_there(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "not there"))
        aside = tmp_path / "aside"
        aside.mkdir()
        assert written(night(), directory=aside)[:2] == b"PK"
        assert list(aside.iterdir()) == []

    def test_a_sheet_for_each_table_between_cover_and_glossary(self) -> None:
        assert set(SHEETS) == set(TABLES)
        assert opened(night()).sheetnames == ["cover", *SHEETS, "glossary"]

    @pytest.mark.parametrize("name", SHEETS)
    def test_headers_stay_filter_and_explain_themselves(self, name: str) -> None:
        sheet, contract = opened(night())[name], TABLES[name]
        header = [cell.value for cell in sheet[1]]
        assert header == [heading_of(one).name for one in contract.columns]
        assert [one.name for one in contract.columns if one.type == TIME] == [
            text.removesuffix(" (UTC)") for text in header if str(text).endswith(" (UTC)")
        ]
        assert all(cell.comment is not None and cell.comment.text.endswith(".") for cell in sheet[1])
        assert sheet.freeze_panes == "C2"
        assert sheet.auto_filter.ref == sheet.dimensions

    def test_a_night_without_anything_still_has_every_sheet(self) -> None:
        book = opened(tables())
        assert {name: book[name].max_row for name in SHEETS} == dict.fromkeys(SHEETS, 1)

    def test_the_glossary_is_the_glossary(self) -> None:
        rows = list(opened(night())["glossary"].iter_rows(min_row=2, values_only=True))
        assert rows == [(entry.where, entry.term, entry.meaning) for entry in entries()]


class TestCells:
    def test_dates_times_and_numbers_are_real_and_ids_are_text(self) -> None:
        frame = findings(
            account(
                "00017",
                last4="0042",
                inactive_since=datetime(2026, 11, 1, 23, 59, 59, 250_000, UTC),
                days_inactive=21,
                expected_deactivation_date=date(2026, 12, 1),
                days_to_deactivation=-3,
                exposure_minor=1250,
                currency="EUR",
            )
        )
        sheet = opened(tables(frame, (stored(),), (stored(),)))["accounts"]
        cells = {name: sheet.cell(2, place) for place, name in enumerate(ACCOUNTS.names, start=1)}
        assert (cells["account_id"].value, cells["last4"].value) == ("00017", "0042")
        assert cells["last4"].number_format == cells["account_id"].number_format == "@"
        assert cells["inactive_since"].value == datetime(2026, 11, 1, 23, 59, 59, 250_000)
        assert cells["inactive_since"].number_format == "yyyy-mm-dd hh:mm:ss"
        assert cells["expected_deactivation_date"].value == datetime(2026, 12, 1)
        assert cells["expected_deactivation_date"].number_format == "yyyy-mm-dd"
        assert (cells["days_inactive"].value, cells["days_to_deactivation"].value) == (21, -3)
        assert cells["permissions"].value == "balances; transactions"
        assert (cells["exposure_minor"].value, cells["exposure_minor"].data_type) == (12.5, "n")

    @pytest.mark.parametrize(
        ("amount_minor", "currency", "value", "number_format"),
        [
            (123_456, "EUR", 1234.56, '#,##0.00 "EUR"'),
            (123_456, "JPY", 123_456, '#,##0 "JPY"'),
            (123_456, "KWD", 123.456, '#,##0.000 "KWD"'),
            (-1, "USD", -0.01, '#,##0.00 "USD"'),
            (0, "USD", 0, '#,##0.00 "USD"'),
            (10**15 - 1, "USD", 9_999_999_999_999.99, '#,##0.00 "USD"'),
            (123, '0";@', 1.23, "#,##0.00"),
        ],
    )
    def test_money_has_the_decimals_of_its_currency(
        self, amount_minor: int, currency: str, value: float, number_format: str
    ) -> None:
        row = numbered([None])[0] | {"exposure_minor": amount_minor, "currency": currency}
        cell = opened(with_accounts(row))["accounts"].cell(2, ACCOUNTS.names.index("exposure_minor") + 1)
        assert (cell.value, cell.number_format) == (value, number_format)

    def test_several_currencies_stand_in_words_that_are_exact(self) -> None:
        rows = [
            account("fca_1", finding="inactive", next_step="request", exposure_minor=amount, currency=currency)
            for amount, currency in ((1250, "EUR"), (300, "JPY"))
        ]
        sheet = opened(tables(findings(rows[0], rows[1] | {"account_id": "fca_2"})))["authorizations"]
        row = dict(zip((cell.value for cell in sheet[1]), (cell.value for cell in sheet[2]), strict=True))
        assert (row["exposure"], row["exposure_by_currency"]) == (None, "EUR 12.50; JPY 300")

    def test_what_no_spreadsheet_can_hold_is_text_rather_than_changed(self) -> None:
        row = numbered([None])[0] | {
            "exposure_minor": 2**63 - 1,
            "currency": "EUR",
            "shared_accounts": 10**15,
            "expected_deactivation_date": date(1899, 12, 31),
            "inactive_since": datetime(1, 1, 1, tzinfo=UTC),
        }
        sheet = opened(with_accounts(row))["accounts"]
        cells = {name: sheet.cell(2, place) for place, name in enumerate(ACCOUNTS.names, start=1)}
        assert cells["exposure_minor"].value == "92233720368547758.07"
        assert cells["shared_accounts"].value == "1000000000000000"
        assert cells["expected_deactivation_date"].value == "1899-12-31"
        assert str(cells["inactive_since"].value).startswith("0001-01-01 00:00:00")

    def test_hostile_texts_come_back_as_they_are_and_none_runs(self) -> None:
        content = written(with_accounts(*numbered(list(HOSTILE))))
        assert references(load_workbook(io.BytesIO(content))) == HOSTILE
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
            sheets = [archive.read(name).decode() for name in names if name.startswith("xl/worksheets/sheet")]
            links = [archive.read(name).decode() for name in names if name.startswith("xl/worksheets/_rels/")]
        assert len(sheets) == len(SHEETS) + 2
        assert not any("<f>" in text or "<f " in text for text in sheets)
        # LibreOffice takes an escape of fewer than four digits for one, too.
        assert not any(re.search("_x[0-9A-Fa-f]{1,3}_", re.sub("_x[0-9A-F]{4}_", "", text)) for text in sheets)
        assert not any("External" in text for text in links)
        assert not any(name.startswith(("xl/externalLinks", "xl/connections")) for name in names)

    def test_a_text_that_would_run_if_typed_is_marked_as_text(self) -> None:
        sheet = opened(with_accounts(*numbered(["=1+1", "plain"])))["accounts"]
        cells = [sheet.cell(row, ACCOUNTS.names.index("reference") + 1) for row in (2, 3)]
        assert [bool(cell.quotePrefix) for cell in cells] == [True, False]

    @pytest.mark.parametrize("text", ["x" * 40_000, "\U0001f600" * 20_000, "x" * MOST_CHARACTERS, "=" * 33_000])
    def test_a_text_that_is_too_long_is_cut_with_a_remark(self, text: str) -> None:
        read = references(opened(with_accounts(*numbered([text, "the next row"]))))
        assert read[1] == "the next row"
        assert read[0] is not None
        assert len(read[0].encode("utf-16-le")) // 2 <= MOST_CHARACTERS
        if len(text.encode("utf-16-le")) // 2 > MOST_CHARACTERS:
            assert read[0].endswith(CUT)
            assert text.startswith(read[0].removesuffix(CUT))
        else:
            assert read[0] == text

    @settings(max_examples=10, deadline=None)
    @given(st.lists(st.none() | st.text(alphabet=st.characters(exclude_categories=["Cs"])), min_size=1, max_size=100))
    def test_every_text_comes_back_whole(self, texts: list[str | None]) -> None:
        assert references(opened(with_accounts(*numbered(texts)))) == [text or None for text in texts]

    @settings(max_examples=6, deadline=None)
    @given(
        st.lists(
            st.tuples(
                st.none() | st.integers(-(10**15) + 1, 10**15 - 1),
                st.none() | st.dates(date(1900, 3, 1), date(9999, 12, 31)),
                st.none() | st.datetimes(datetime(1900, 3, 1), datetime(2200, 1, 1)),
            ),
            min_size=1,
            max_size=100,
        )
    )
    def test_every_number_date_and_time_comes_back(
        self, cells: list[tuple[int | None, date | None, datetime | None]]
    ) -> None:
        rows = [
            row
            | {
                "shared_accounts": whole,
                "expected_deactivation_date": day,
                "last_refreshed_at": None if at is None else at.replace(tzinfo=UTC),
            }
            for row, (whole, day, at) in zip(numbered([None] * len(cells)), cells, strict=True)
        ]
        sheet = opened(with_accounts(*rows))["accounts"]
        assert column(sheet, "shared_accounts") == [whole for whole, _, _ in cells]
        days = [None if one is None else one.date() for one in column(sheet, "expected_deactivation_date")]  # type: ignore[attr-defined]
        assert days == [day for _, day, _ in cells]
        for read, (_, _, at) in zip(column(sheet, "last_refreshed_at"), cells, strict=True):
            assert (read is None) == (at is None)
            if at is not None:
                assert isinstance(read, datetime)
                assert abs(read - at) <= timedelta(milliseconds=1)


class TestRows:
    def test_what_needs_a_person_stands_first_and_is_red(self) -> None:
        book = opened(night())
        sheet = book["accounts"]
        assert column(sheet, "next_step") == ["review", "not_relinkable", "request", "none"]
        rules = {str(ranges.sqref): rules for ranges, rules in sheet.conditional_formatting._cf_rules.items()}
        review = next(rule for rule in rules["N2:N5"] if '"review"' in rule.formula[0])
        assert review.dxf.fill.bgColor.rgb == "FFFFC7CE"
        assert book["accounts"].sheet_properties.tabColor.rgb == "FFC00000"
        assert book["failure_reasons"].sheet_properties.tabColor.rgb != "FFC00000"

    def test_rows_beyond_a_sheet_are_left_out_and_the_cover_says_so(self) -> None:
        rows = [*numbered(["a", "b", "c"]), numbered(["urgent"])[0] | {"account_id": "z", "next_step": "review"}]
        book = opened(with_accounts(*rows), rows_per_sheet=2)
        assert references(book) == ["urgent", "a"]
        cover = {row[0]: row for row in book["cover"].iter_rows(values_only=True)}
        assert cover["accounts"][1:3] == (4, 1)
        assert "Only the first 2 of 4 rows are here" in str(cover["accounts"][3])
        assert "Only" not in str(cover["relink_requests"][3])

    def test_a_large_sheet_has_all_that_need_a_person_and_a_bounded_number_of_the_rest(self) -> None:
        urgent = [
            one | {"account_id": f"z{place}", "next_step": "review"}
            for place, one in enumerate(numbered(["u", "v", "w"]))
        ]
        few = with_accounts(*numbered(["a", "b", "c"]), urgent[0])
        assert references(opened(few, rows_shown=2)) == ["u", "a"]
        many = with_accounts(*numbered(["a", "b", "c"]), *urgent)
        assert references(opened(many, rows_shown=2)) == ["u", "v", "w"]


class TestCover:
    def cover(self, run: RunFacts, parts: Mapping[str, pa.Table] | None = None) -> Worksheet:
        chosen = parts or night()
        return opened(chosen, page=page_of(run, chosen))["cover"]

    def lines(self, sheet: Worksheet) -> list[tuple[object, ...]]:
        return [tuple(cell for cell in row if cell is not None) for row in sheet.iter_rows(values_only=True)]

    def test_it_says_which_run_it_is_and_when(self) -> None:
        lines = self.lines(self.cover(facts()))
        assert ("relink report, business date 2026-11-22",) in lines
        assert ("state", "Complete") in lines
        assert ("run id", "20261122T033000Z-ab12") in lines
        assert ("as of", datetime(2026, 11, 22, 3, 30)) in lines
        assert ("requests that may have reached Stripe", 1) in lines

    def test_as_of_is_in_utc_whatever_its_zone(self) -> None:
        east = NIGHT.astimezone(timezone(timedelta(hours=9)))
        assert b"".join(workbook_chunks(PAGE, night(), east)) == written(night())

    def test_it_lists_what_needs_a_person_with_the_command(self) -> None:
        lines = self.lines(self.cover(facts()))
        need = next(line for line in lines if line and line[0] == "Accounts that the ledger does not name")
        assert need[1] == 1
        assert need[-1] == "relink history fca_3"

    def test_each_control_total_stands_there_in_words(self) -> None:
        sheet = self.cover(facts())
        lines = self.lines(sheet)
        for line in PAGE.control.lines:
            assert any(row[:1] == (line.label,) and row[-1] == "ties" for row in lines), line.label

    def test_a_total_that_does_not_tie_is_red_and_said_at_the_top(self) -> None:
        chosen = night()
        totals = control_totals(chosen, {"main": replace(NIGHT_INPUTS, accounts_pulled=99)})
        page = page_numbers(build_summary(facts(), chosen, totals), chosen, Past())
        sheet = opened(chosen, page=page)["cover"]
        broken = [cell for row in sheet.iter_rows() for cell in row if cell.value == "DOES NOT TIE"]
        assert broken
        assert {cell.fill.fgColor.rgb for cell in broken} == {"FFFFC7CE"}
        assert any("does not tie" in str(line[0]) for line in self.lines(sheet)[:8] if line)

    def test_each_of_several_merchants_has_a_line_and_there_is_a_total(self) -> None:
        parts = tables_of(random.Random(3), date(2026, 11, 22), size=20)
        counts = Counter(parts["accounts"]["merchant"].to_pylist())
        assert len(counts) > 1
        run = facts(merchants=[MerchantRun(name, "sandbox") for name in counts])
        lines = self.lines(self.cover(run, parts))
        start = next(place for place, line in enumerate(lines) if line[:2] == ("merchants", "accounts"))
        shown = {line[0]: line[1] for line in lines[start + 1 : start + 2 + len(counts)]}
        assert shown == {**counts, "all": counts.total()}
        assert ("merchants", "accounts") not in [line[:2] for line in self.lines(self.cover(facts()))]

    def test_every_sheet_is_linked_those_with_urgent_rows_first(self) -> None:
        sheet = self.cover(facts())
        links = [cell.hyperlink.location for cell in sheet["A"] if cell.hyperlink is not None]
        assert sorted(links) == sorted(f"'{name}'!A1" for name in (*SHEETS, "glossary"))
        assert links[:2] == ["'authorizations'!A1", "'accounts'!A1"]

    @pytest.mark.parametrize(
        ("change", "state"), [({}, "Complete"), ({"complete": False, "why": "=1+1 stopped"}, "Not complete")]
    )
    def test_it_says_the_state_in_words(self, change: dict[str, object], state: str) -> None:
        assert ("state", state) in self.lines(self.cover(facts(**change)))

    def test_a_hostile_merchant_name_is_only_text(self) -> None:
        page = replace(PAGE, run={**PAGE.run, "merchants": "=cmd|' /C calc'!A0"})
        sheet = opened(night(), page=page)["cover"]
        cell = next(cell for row in sheet.iter_rows() for cell in row if str(cell.value).startswith("=cmd"))
        assert cell.data_type == "s"
        assert cell.quotePrefix
