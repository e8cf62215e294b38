"""Some of the forty nights, and wrong designs, which the same judge must find out. `make nights` plays them all."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from tests.forty_nights.play import QUICK, Size, play
from tests.forty_nights.variants import VARIANTS, install

SMALL = replace(QUICK, nights=8, accounts=200, expiry=1, skipped=-1, unreachable=())
LONG = replace(SMALL, nights=26, accounts=60)
TOGETHER = (
    (SMALL, ("each-bank-for-itself", "successors-by-last-digits", "lost-answers-forgotten", "waiting-is-nobodys")),
    (SMALL, ("answers-unread",)),
    (SMALL, ("ladder-without-days",)),
    (LONG, ("ladder-without-end",)),
)
"""Wrong designs that do not hide each other share their nights, since nights are dear."""


def test_ten_nights_keep_every_promise(tmp_path: Path) -> None:
    played = play(tmp_path, QUICK)
    assert played.faults == []
    least = {"asked": 40, "nights held": 1, "successors right": 1, "fresh links": 1, "logins expired at once": 10}
    assert Counter(least) - played.figures == Counter(), played.figures


@pytest.mark.parametrize(("size", "names"), TOGETHER, ids=lambda one: one[0] if isinstance(one, tuple) else "")
def test_wrong_designs_are_found_out(
    size: Size, names: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in names:
        install(name, monkeypatch)
    faults = play(tmp_path, size).faults
    for name in names:
        assert any(VARIANTS[name].telling in fault for fault in faults), (name, faults[:5])


def test_every_wrong_design_is_tried() -> None:
    assert sorted(name for _, names in TOGETHER for name in names) == sorted(VARIANTS)
