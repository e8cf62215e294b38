"""The table of Stripe's behaviours: every row is exercised, and nothing undocumented is relied on."""

from __future__ import annotations

import ast
from datetime import date
from functools import cache
from pathlib import Path

import pytest

from jobs.simulator.stripe_behaviours import (
    Sighting,
    StripeBehaviour,
    as_json,
    markdown,
    sightings_on_file,
    stripe_behaviours,
)

TESTS = Path(__file__).parents[2]
BEHAVIOURS = stripe_behaviours()


@cache
def names_in(file: str) -> frozenset[str]:
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize("one", BEHAVIOURS, ids=lambda one: one.name)
def test_every_behaviour_is_exercised_by_tests_that_exist(one: StripeBehaviour) -> None:
    assert one.tests
    missing = [
        test for test in (*one.tests, *one.either) if test.partition("::")[2] not in names_in(test.split(":")[0])
    ]
    assert missing == []


@pytest.mark.parametrize("one", BEHAVIOURS, ids=lambda one: one.name)
def test_what_is_not_documented_has_a_test_of_the_job_for_either_answer(one: StripeBehaviour) -> None:
    assert one.is_documented or one.either
    assert not any(test.startswith("jobs/simulator/") for test in one.either)


def test_a_sighting_is_shown_with_its_date_and_version() -> None:
    seen = {"request-id": Sighting(date(2026, 12, 1), "2026-09-30.preview", False, "did not come")}
    (shown,) = [line for line in markdown(stripe_behaviours(seen)).splitlines() if "`request-id`" in line]
    assert shown.endswith("| 2026-12-01, 2026-09-30.preview: otherwise (did not come) |")
    assert as_json(seen).split() == [
        *("{", '"request-id":', "{", '"on":', '"2026-12-01",', '"api_version":', '"2026-09-30.preview",'),
        *('"agrees":', "false,", '"saw":', '"did', "not", 'come"', "}", "}"),
    ]


def test_a_sighting_of_nothing_known_is_refused() -> None:
    with pytest.raises(ValueError, match="no-such-thing is no behaviour"):
        stripe_behaviours({"no-such-thing": Sighting(date(2026, 12, 1), "v", True)})


def test_sightings_on_file_can_be_read() -> None:
    assert sightings_on_file().keys() <= {one.name for one in BEHAVIOURS}
