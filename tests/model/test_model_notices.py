"""Wrong designs that the model must find out, within a few sequences; else its silence about the product would mean nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from jobs import decide, wiring
from jobs.settings import Settings
from reconcile.breakages import advance_breakages
from reconcile.policy import RelinkPolicy
from tests.chaos import variants
from tests.model.campaign import search
from tests.model.play import Fault

MOST_SEQUENCES, STEPS = 8, 40


def without_fence(patch: pytest.MonkeyPatch) -> None:
    """An unfinished request is asked again however old its key is."""
    patch.setattr(variants.KeyAge, "expired", lambda _: False)


def without_cooldown(patch: pytest.MonkeyPatch) -> None:
    """A customer is asked again as soon as the last session has ended."""
    known: Callable[[Settings], RelinkPolicy] = wiring.relink_policy
    patch.setattr(wiring, "relink_policy", lambda settings: replace(known(settings), cooldown_days=0))


def without_memory_of_outages(patch: pytest.MonkeyPatch) -> None:
    """Each night takes what is broken for a new outage, with attempts of its own."""

    def forgetful(_: object, *others: Any) -> Any:
        return advance_breakages((), *others)

    patch.setattr(decide, "advance_breakages", forgetful)


@pytest.mark.parametrize(
    ("design", "number", "sign"),
    [
        (without_fence, 2, "after its key was first used"),
        (without_cooldown, 2, "days after"),
        (without_memory_of_outages, 1, "outage"),
    ],
)
def test_a_wrong_design_is_found_in_few_sequences(
    monkeypatch: pytest.MonkeyPatch, design: Callable[[pytest.MonkeyPatch], None], number: int, sign: str
) -> None:
    design(monkeypatch)
    fault = search(MOST_SEQUENCES, STEPS, number)
    assert isinstance(fault, Fault)
    assert sign in str(fault)
