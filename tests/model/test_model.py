"""A seeded slice of the stateful model; the whole campaign is `make model`."""

from __future__ import annotations

from tests.model.campaign import search
from tests.model.machine import Model

SEQUENCES, STEPS = 8, 30
LEAST_STEPS = 100


def test_no_sequence_of_steps_breaks_a_promise() -> None:
    before = Model.counts.total()
    fault = search(SEQUENCES, STEPS, 5)
    assert fault is None, fault
    assert Model.counts.total() - before > LEAST_STEPS, "the sequences do too little to show anything"
