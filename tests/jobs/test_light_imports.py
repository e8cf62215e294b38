"""Commands that people wait for load nothing heavy."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["jobs.cli", "jobs.standing", "jobs.adapters.records"])
def test_looking_at_the_records_loads_neither_pandas_nor_the_stripe_package(module: str) -> None:
    """pandas alone takes longer to load than `relink status` takes to answer."""
    heavy = "{'pandas', 'pyarrow', 'stripe'} & set(sys.modules)"
    code = f"import sys, {module}; sys.exit(', '.join({heavy}) or 0)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.stderr.strip() == ""
    assert ran.returncode == 0
