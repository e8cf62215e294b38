"""What is kept of a report is the same letters and hash as ever, or no earlier report could be rebuilt."""

from __future__ import annotations

from hashlib import sha256

import pandas as pd
import pyarrow as pa
import pytest

from jobs.report_facts import Decided
from reconcile.frames import arrow_series


@pytest.mark.parametrize("count", [0, 1, 50_000, 50_001])
def test_decided_is_a_letter_an_account_and_a_hash_of_all_ids(count: int) -> None:
    ids = [f"fca_é{number}" for number in range(count)]
    steps = ["none" if number % 3 else "request" for number in range(count)]
    # Rows of a larger frame, as one merchant's may be.
    findings = pd.DataFrame(
        {
            "account_id": arrow_series(["fca_other", *ids], pa.string()),
            "next_step": arrow_series(["review", *steps], pa.string()),
        }
    ).iloc[1:]
    decided = Decided.of(findings)
    assert decided.steps == "".join("n" if step == "none" else "r" for step in steps)
    assert decided.accounts_sha256 == sha256("\n".join(ids).encode()).hexdigest()
    again = decided.put_on(findings)
    assert again is not None
    assert again["next_step"].tolist() == steps
