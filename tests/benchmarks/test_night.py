"""The benchmark in its quick form: that both sides run, and find the same; no duration is asserted."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.night import COMPARED, Options, compare, measure, table


def test_the_job_and_the_plain_script_find_the_same_and_ask_the_same_customers() -> None:
    """On the first night and on one after some logins broke and others healed; else `measure` ends with the difference."""
    options = Options(accounts=600, nights=2, requests=10_000, in_this_process=True)
    measured = measure(options)
    assert [(one.night, one.side) for one in measured] == [(1, "peer"), (1, "relink"), (2, "peer"), (2, "relink")]
    # Six pages and a call for each session: neither side was spared a part of the work.
    assert all(one.calls > 6 and one.refused == 0 for one in measured)
    assert sum("script / job" in line for line in table(options, measured)) == 2


@pytest.mark.parametrize("changed", ["finding", "exposure_minor"])
def test_a_difference_ends_the_comparison(tmp_path: Path, changed: str) -> None:
    """Figures of two sides that did not do the same work would mean nothing."""
    columns: dict[str, list[object]] = {name: ["x", "y"] for name in COMPARED}
    columns |= {name: [1, 2] for name in ("shared_accounts", "shared_affected", "exposure_minor")}
    for side in ("peer", "ours"):
        (tmp_path / side).mkdir()
        pq.write_table(pa.table(columns), tmp_path / side / "accounts.parquet")
        pq.write_table(pa.table({"authorization_id": ["fcauth_1"]}), tmp_path / side / "relink_requests.parquet")
    compare(tmp_path / "peer", tmp_path / "ours")
    columns[changed] = columns[changed][::-1]
    pq.write_table(pa.table(columns), tmp_path / "ours" / "accounts.parquet")
    with pytest.raises(SystemExit, match=f"account x: {changed}"):
        compare(tmp_path / "peer", tmp_path / "ours")
    shutil.copy(tmp_path / "peer" / "accounts.parquet", tmp_path / "ours")
    pq.write_table(pa.table({"authorization_id": ["fcauth_2"]}), tmp_path / "ours" / "relink_requests.parquet")
    with pytest.raises(SystemExit, match="fcauth_1"):
        compare(tmp_path / "peer", tmp_path / "ours")
    with pytest.raises(SystemExit, match="fcauth_1"):
        compare(tmp_path / "peer", tmp_path / "ours", capped_at=2)
    compare(tmp_path / "peer", tmp_path / "ours", capped_at=1)
