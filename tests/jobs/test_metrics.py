"""The metrics file says how the newest run went and how things stand, and a run that fails does not make it forget."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from jobs.watch import watched
from jobs.work import Work
from reconcile.errors import RelinkError
from tests.jobs.nights import KEY, Nights, make_session

Sample = tuple[str, frozenset[tuple[str, str]]]


def samples(path: Path) -> dict[Sample, float]:
    """Every sample of the file, as Prometheus would read it."""
    families = text_string_to_metric_families(path.read_text())
    return {(one.name, frozenset(one.labels.items())): one.value for family in families for one in family.samples}


def value(found: dict[Sample, float], name: str, **labels: str) -> float | None:
    return found.get((f"relink_{name}", frozenset(labels.items())))


def night(nights: Nights, path: Path, work: Work | None = None, **sections: Any) -> dict[Sample, float]:
    chosen = work or Work("run")
    given = {"metrics": {"textfile": str(path)}, **sections}
    with watched(nights.settings(**given), {}, chosen.command, dry_run=chosen.dry_run, clock=nights.now) as watch:
        watch.ended(nights.run(chosen, on_start=watch.began, **given))
    return samples(path) if path.exists() else {}


def test_a_night_in_numbers(both_nights: Nights, tmp_path: Path) -> None:
    nights, path = both_nights, tmp_path / "relink.prom"
    found = night(nights, path, stripe={"monthly_read_allocation": 5000})
    now = nights.now().timestamp()
    assert value(found, "last_run_timestamp_seconds") == now
    assert value(found, "last_run_exit_code") == 0
    assert value(found, "last_success_timestamp_seconds", merchant="main") == now
    assert value(found, "last_complete_timestamp_seconds", merchant="main") == now
    assert value(found, "accounts", merchant="main", finding="inactive") == 6
    assert value(found, "accounts", merchant="main", finding="unreadable") == 0
    assert value(found, "requests", merchant="main", result="created", reason="inactive") == 3
    assert value(found, "requests", merchant="main", result="unknown", reason="inactive") == 0
    assert value(found, "api_calls", merchant="main", kind="write", purpose="sessions") == 3
    assert value(found, "api_calls", merchant="main", kind="read", purpose="pull") == 1
    assert value(found, "reads_30_days", merchant="main") == 1
    assert value(found, "reads_30_days_allowed", merchant="main") == 5000
    assert value(found, "open_sessions", merchant="main") == 3
    assert value(found, "last_run_stage_duration_seconds", stage="pull") is not None
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(tmp_path.glob(".relink.prom*")) == []
    assert [word for word in ("cus_", "fca_", "fcauth_", KEY) if word in path.read_text()] == []


def test_a_run_that_fails_keeps_the_last_success(nights: Nights, tmp_path: Path) -> None:
    path = tmp_path / "relink.prom"
    night(nights, path)
    success = nights.now().timestamp()
    nights.world.advance(days=1)
    nights.world.faults.script("rate_limit", method="GET", times=3)
    nights.load_ledger()
    nights.world.faults.script("cut_json", method="GET", path="*/accounts", times=9)
    found = night(nights, path)
    assert value(found, "last_run_exit_code") == 3
    assert value(found, "last_run_timestamp_seconds") == nights.now().timestamp() != success
    assert value(found, "last_success_timestamp_seconds", merchant="main") == success
    assert value(found, "api_rate_limited", merchant="main") == 3
    assert value(found, "accounts", merchant="main", finding="inactive") == 6, "as of the last complete run"


def test_outcomes_and_unknowns_are_counted(nights: Nights, tmp_path: Path) -> None:
    path = tmp_path / "relink.prom"
    nights.world.faults.script("error_500_after", method="POST")
    found = night(nights, path)
    assert value(found, "last_run_exit_code") == 4
    assert value(found, "unknown_requests", merchant="main") == 1
    assert value(found, "last_success_timestamp_seconds", merchant="main") is None
    assert value(found, "last_complete_timestamp_seconds", merchant="main") == nights.now().timestamp()
    nights.world.advance(days=8)
    found = night(nights, path)
    assert value(found, "outcomes", merchant="main", outcome="expired", reason="inactive") == 2


def test_held_requests_are_counted(nights: Nights, tmp_path: Path) -> None:
    path = tmp_path / "relink.prom"
    night(nights, path)
    nights.world.advance(days=1)
    nights.world.break_authorization("fcauth_4")
    found = night(nights, path, brakes={"minimum": 0, "newly_broken_share": 0.01})
    assert (value(found, "held_requests", merchant="main"), value(found, "last_run_exit_code")) == (1, 5)


def test_a_session_that_no_request_follows_is_counted_until_it_is_adopted(nights: Nights, tmp_path: Path) -> None:
    path = tmp_path / "relink.prom"
    assert value(night(nights, path, relink={"max_requests_per_run": 0}), "foreign_sessions", merchant="main") == 0
    nights.world.advance(hours=1)
    session_id = make_session(nights.server.base_url, "cus_1", "fcauth_1")
    nights.world.answer(session_id, "cancelled")
    nights.world.advance(days=1)
    assert value(night(nights, path), "foreign_sessions", merchant="main") == 1
    nights.run(Work("adopt", from_stored=True, sends=False, adopts=(session_id,)))
    nights.world.advance(days=1)
    assert value(night(nights, path), "foreign_sessions", merchant="main") == 0


def test_without_records_the_last_success_is_taken_from_the_file(nights: Nights, tmp_path: Path) -> None:
    path = tmp_path / "relink.prom"
    night(nights, path)
    success = nights.now().timestamp()
    (tmp_path / "relink.db").write_bytes(b"no database" * 1000)
    for leftover in tmp_path.glob("relink.db-*"):
        leftover.unlink()
    nights.world.advance(days=1)
    with pytest.raises(RelinkError):
        night(nights, path)
    found = samples(path)
    assert value(found, "last_success_timestamp_seconds", merchant="main") == success
    assert value(found, "last_run_exit_code") == 3


def test_a_dry_run_writes_no_metrics_and_a_missing_directory_fails_no_run(
    nights: Nights, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "none" / "relink.prom"
    assert night(nights, tmp_path / "relink.prom", Work("run", dry_run=True)) == {}
    night(nights, path)
    assert nights.newest_run().exit_code == 0
    assert f"the metrics file {path} could not be written: No such file or directory" in caplog.text
