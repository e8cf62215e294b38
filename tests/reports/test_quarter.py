"""Ninety nights of reports read as one table by DuckDB, pandas and PyArrow, with the totals of the summaries; and by the trend."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from reports.columns import TABLES
from reports.past_nights import read_dates
from reports.past_runs import dates_of, read_columns
from reports.trend import NO_REPORT, NOT_READABLE, OTHER_COMMANDS, STOPPED, TrendNight, plain_trend, trend_nights
from tests.reports import quarter as made
from tests.reports.quarter import ADDED, FIRST, LAST, NIGHTS, OLD_NIGHTS, Quarter, publish_quarter

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
BROKEN = ("inactive", "account_number", "expiring", "permissions")
PLACES = pa.schema([("run_date", pa.date32()), ("run_id", pa.string())])


@pytest.fixture(scope="module")
def trend(quarter: Quarter) -> list[TrendNight]:
    return trend_nights(read_dates(quarter.root, FIRST, LAST), LAST + timedelta(days=1), FIRST)


@pytest.fixture(scope="module")
def quarter(tmp_path_factory: pytest.TempPathFactory) -> Quarter:
    return publish_quarter(tmp_path_factory.mktemp("quarter") / "var" / "reports")


def _by_duckdb(root: Path, name: str) -> pa.Table:
    pattern = f"{root}/run_date=*/run_id=*/{name}.parquet"
    query = f"select * from read_parquet('{pattern}', hive_partitioning = true, union_by_name = true)"
    return duckdb.sql(query).to_arrow_table()


def _files(root: Path, name: str) -> list[str]:
    return sorted(map(str, root.glob(f"run_date=*/run_id=*/{name}.parquet")))


def _schema(files: Iterable[str]) -> pa.Schema:
    return pa.unify_schemas([*map(pq.read_schema, files), PLACES])


def _by_pandas(root: Path, name: str) -> pa.Table:
    files = _files(root, name)
    frame = pd.read_parquet(files, schema=_schema(files), partitioning="hive", dtype_backend="pyarrow")
    return pa.Table.from_pandas(frame, preserve_index=False)


def _by_pyarrow(root: Path, name: str) -> pa.Table:
    files = _files(root, name)
    return ds.dataset(files, schema=_schema(files), partitioning="hive").to_table()


READERS: dict[str, Callable[[Path, str], pa.Table]] = {
    "DuckDB": _by_duckdb,
    "pandas": _by_pandas,
    "PyArrow": _by_pyarrow,
}


def _manifests(quarter: Quarter) -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in sorted(quarter.root.glob("run_date=*/run_id=*/manifest.json")):
        yield path.parent, json.loads(path.read_text())


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", TABLES)
def test_all_nights_are_one_table_in_which_no_row_is_missing_or_twice(quarter: Quarter, reader: str, name: str) -> None:
    """Links, dry runs, snapshots, plans and what is unfinished add nothing; both versions of the table are in it."""
    table = READERS[reader](quarter.root, name)
    rows = Counter(zip(table["run_date"].to_pylist(), table["run_id"].to_pylist(), strict=True))
    expected = {
        (date.fromisoformat(manifest["run_date"]), manifest["run_id"]): manifest["files"][f"{name}.parquet"]["rows"]
        for _, manifest in _manifests(quarter)
        if manifest["files"].get(f"{name}.parquet")
    }
    assert len(expected) == len(quarter.runs) > NIGHTS
    assert rows == {run: number for run, number in expected.items() if number}
    assert set(table.column_names) == {*TABLES[name].names, "run_date", "run_id"}


@pytest.mark.parametrize("reader", READERS)
def test_each_night_has_the_totals_of_its_summary(quarter: Quarter, reader: str) -> None:
    accounts, requests = (READERS[reader](quarter.root, name) for name in ("accounts", "relink_requests"))
    findings, results = _counted(accounts, "finding"), _counted(requests, "result")
    money: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row in accounts.select(["run_id", "finding", "ledger_status", "exposure_minor", "currency"]).to_pylist():
        if row["finding"] in BROKEN and row["ledger_status"] == "open" and row["currency"] is not None:
            money[row["run_id"]][row["currency"]] += row["exposure_minor"]
    for on, run_id in quarter.runs:
        summary = json.loads((quarter.path(on, run_id) / "summary.json").read_text())
        counts = summary["counts"]
        assert findings[run_id] == {name: number for name, number in counts["finding"].items() if number}
        assert results[run_id] == {name: number for name, number in counts["result"].items() if number}
        assert dict(money[run_id]) == summary["money_at_stake_minor"]


def _counted(table: pa.Table, column: str) -> dict[str, Counter[str]]:
    counted: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for run_id, value in zip(table["run_id"].to_pylist(), table[column].to_pylist(), strict=True):
        counted[run_id][value] += 1
    return counted


@pytest.mark.parametrize("reader", READERS)
def test_what_an_older_version_did_not_have_is_null_and_the_rest_is_there(quarter: Quarter, reader: str) -> None:
    table = READERS[reader](quarter.root, "accounts")
    border = FIRST + timedelta(days=OLD_NIGHTS)
    cells = zip(table["run_date"].to_pylist(), table[ADDED["accounts"]].to_pylist(), strict=True)
    older: dict[bool, set[bool]] = {True: set(), False: set()}
    for on, cell in cells:
        older[on < border].add(cell is None)
    assert older == {True: {True}, False: {False}}


def test_the_trend_says_of_each_night_what_its_newest_complete_run_and_all_its_runs_say(
    quarter: Quarter, trend: list[TrendNight]
) -> None:
    """Counted from the summaries and, for distinct requests, from the rows that the manifests lead to."""
    nights = plain_trend(trend[:-1])["nights"]
    assert [night["business_date"] for night in nights] == [str(FIRST + timedelta(days=n)) for n in range(NIGHTS)]
    requests, outcomes = (
        _by_pyarrow(quarter.root, name).to_pylist() for name in ("relink_requests", "relink_outcomes")
    )
    for night in nights:
        on = date.fromisoformat(night["business_date"])
        assert night["run_id"] == quarter.nights.get(on)
        if night["complete"]:
            summary = json.loads((quarter.path(on, night["run_id"]) / "summary.json").read_text())
            assert night["affected"] == summary["funnel"]["tonight"]["affected_accounts"]
            assert night["money_at_stake_minor"] == summary["money_at_stake_minor"]
        if night["asked"] is not None:
            for name, results in (("asked", {"created"}), ("unknown", {"unknown"})):
                assert night[name] == _distinct(requests, on, "result", results), (on, name)
            came_back = {"relinked", "relinked_partially", "new_authorization"}
            assert night["relinked"] == _distinct(outcomes, on, "outcome", came_back)
            assert night["answered"] == _distinct(
                outcomes, on, "outcome", {*came_back, "failed", "cancelled", "review"}
            )
            assert night["share"] == round(night["relinked"] / night["answered"], 6)


def _distinct(rows: list[dict[str, Any]], on: date, column: str, values: set[str]) -> int:
    return len(
        {(row["merchant"], row["request_id"]) for row in rows if row["run_date"] == on and row[column] in values}
    )


def test_the_trend_says_why_a_night_has_no_complete_run(trend: list[TrendNight]) -> None:
    nights = {one.on: one for one in trend}
    without = {on: (one.why, one.flows is not None) for on, one in nights.items() if one.night is None}
    assert without == {
        made.STOPPED: (STOPPED, False),
        made.MISSING: (NO_REPORT, False),
        made.COLLECTED: (OTHER_COMMANDS, True),
        LAST + timedelta(days=1): (NO_REPORT, False),
    }
    assert nights[made.TWICE].night is not None
    assert nights[made.MENDED].night is not None


def test_a_damaged_night_is_named_and_not_counted(quarter: Quarter, tmp_path: Path) -> None:
    directory = tmp_path / f"run_date={LAST}" / f"run_id={quarter.nights[LAST]}"
    directory.mkdir(parents=True)
    for file in quarter.path(LAST, quarter.nights[LAST]).iterdir():
        (directory / file.name).write_bytes(
            file.read_bytes()[:200] if file.name == "accounts.parquet" else file.read_bytes()
        )
    past = read_dates(tmp_path, LAST, LAST)
    assert past.unread == [f"{directory.parent.name}/{directory.name}"]
    assert [(one.night, one.why) for one in trend_nights(past, LAST)] == [(None, NOT_READABLE)]


def test_a_column_is_taken_for_null_only_in_a_file_that_is_older(quarter: Quarter, tmp_path: Path) -> None:
    old = quarter.path(FIRST, quarter.nights[FIRST]) / "accounts.parquet"
    read = read_columns(old, ("finding", ADDED["accounts"]))
    assert read is not None
    assert read[ADDED["accounts"]].null_count == read.num_rows > 0
    stripped = (
        pq.ParquetFile(quarter.path(LAST, quarter.nights[LAST]) / "accounts.parquet").read().drop_columns(["finding"])
    )
    pq.write_table(stripped, tmp_path / "accounts.parquet")
    assert read_columns(tmp_path / "accounts.parquet", ("finding",)) is None


def test_dates_are_those_of_reports(quarter: Quarter) -> None:
    assert dates_of(quarter.root) == [
        FIRST + timedelta(days=n) for n in range(NIGHTS) if FIRST + timedelta(days=n) != made.MISSING
    ]


SNIPPETS = dict(re.findall(r"<!-- snippet: (\w+) -->\n```python\n(.*?)```", README, flags=re.DOTALL))


def test_the_snippets_of_the_readme_say_what_the_trend_says(
    quarter: Quarter, trend: list[TrendNight], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exactly as they stand there, from the directory that a fresh installation runs in."""
    monkeypatch.chdir(quarter.root.parents[1])
    nights = plain_trend(trend[:-1])["nights"]
    said = {}
    for name, code in SNIPPETS.items():
        names: dict[str, Any] = {}
        exec(compile(code, name, "exec"), names)
        said[name] = names["result"]
    assert sorted(said) == ["duckdb", "pandas", "pyarrow"]
    assert dict(said["duckdb"].fetchall()) == {
        date.fromisoformat(one["business_date"]): one["affected"] for one in nights if one["complete"]
    }
    money = {(str(on), currency): int(amount) for (on, currency), amount in said["pandas"].items()}
    assert money == {
        (one["business_date"], currency): amount
        for one in nights
        for currency, amount in (one["money_at_stake_minor"] or {}).items()
    }
    asked = dict(
        zip(
            map(str, said["pyarrow"]["run_date"].to_pylist()),
            said["pyarrow"]["request_id_count"].to_pylist(),
            strict=True,
        )
    )
    assert asked == {one["business_date"]: one["asked"] for one in nights if one["asked"]}
