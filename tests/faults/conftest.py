"""The deployments and the command of the other trees, for the tests of the fault matrix."""

from __future__ import annotations

from tests.jobs.cli.conftest import relink
from tests.jobs.conftest import both_nights, make_nights, nights

__all__ = ["both_nights", "make_nights", "nights", "relink"]
