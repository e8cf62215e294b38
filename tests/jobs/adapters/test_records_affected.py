"""Which accounts the brakes know, in both databases: per merchant and mode, since when, and what the first run is."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from jobs.adapters import records
from jobs.adapters.database import Database
from reconcile.model import Scope
from tests.jobs.adapters.stored_values import AT, DATE, DAY, OTHER_SCOPE, RUN_ID, SCOPE, finished

OTHER_MERCHANT = Scope("other", SCOPE.mode)
OTHER_MODE = OTHER_SCOPE


def became(database: Database, on: date, *accounts: str, scope: Scope = SCOPE, baseline: bool = False) -> None:
    records.advance_affected(database, scope, RUN_ID, on, newly=accounts, ended=(), baseline=baseline)


def ended(database: Database, on: date, *accounts: str, scope: Scope = SCOPE) -> None:
    records.advance_affected(database, scope, RUN_ID, on, newly=(), ended=accounts, baseline=False)


def test_an_account_is_known_until_it_is_well_again(database: Database) -> None:
    became(database, DATE, "fca_1", "fca_2")
    ended(database, DATE + DAY, "fca_1")
    assert records.known_affected(database, SCOPE) == {"fca_2"}


def test_an_account_that_breaks_again_on_another_date_or_the_same_is_known_again(database: Database) -> None:
    became(database, DATE, "fca_1", "fca_2")
    ended(database, DATE, "fca_1", "fca_2")
    became(database, DATE, "fca_1")
    became(database, DATE + DAY, "fca_2")
    assert records.known_affected(database, SCOPE) == {"fca_1", "fca_2"}


def test_to_be_well_again_ends_only_the_latest_time(database: Database) -> None:
    became(database, DATE, "fca_1")
    ended(database, DATE + DAY, "fca_1")
    became(database, DATE + 3 * DAY, "fca_1")
    ended(database, DATE + 4 * DAY, "fca_1")
    assert records.known_affected(database, SCOPE) == set()
    assert records.newly_affected_since(database, SCOPE, DATE + 3 * DAY) == {"fca_1"}


def test_newly_affected_counts_from_its_first_date_on_and_also_what_is_well_again(database: Database) -> None:
    became(database, DATE - DAY, "fca_before")
    became(database, DATE, "fca_first")
    became(database, DATE + DAY, "fca_later", "fca_healed")
    ended(database, DATE + 2 * DAY, "fca_healed")
    assert records.newly_affected_since(database, SCOPE, DATE) == {"fca_first", "fca_later", "fca_healed"}


def test_what_the_first_run_found_did_not_break_this_week_as_far_as_anybody_knows(database: Database) -> None:
    became(database, DATE, "fca_found", baseline=True)
    became(database, DATE, "fca_broke")
    assert records.newly_affected_since(database, SCOPE, DATE) == {"fca_broke"}
    assert records.known_affected(database, SCOPE) == {"fca_found", "fca_broke"}


def test_what_was_known_at_the_end_of_a_past_date_is_told(database: Database) -> None:
    """An account that ended on a date was well at its end; one that began on it was broken."""
    became(database, DATE, "fca_healed", "fca_broken")
    ended(database, DATE + 2 * DAY, "fca_healed")
    became(database, DATE + 2 * DAY, "fca_later")
    dates = [DATE + days * DAY for days in (-1, 0, 1, 2)]
    assert [records.known_affected(database, SCOPE, one) for one in dates] == [
        set(),
        {"fca_healed", "fca_broken"},
        {"fca_healed", "fca_broken"},
        {"fca_broken", "fca_later"},
    ]
    week = [records.newly_affected_since(database, SCOPE, DATE, one) for one in dates]
    assert week == [
        set(),
        {"fca_healed", "fca_broken"},
        {"fca_healed", "fca_broken"},
        {"fca_healed", "fca_broken", "fca_later"},
    ]


@pytest.mark.parametrize("other", [OTHER_MERCHANT, OTHER_MODE], ids=["merchant", "mode"])
def test_merchants_and_modes_know_nothing_of_each_other(database: Database, other: Scope) -> None:
    became(database, DATE, "fca_1")
    became(database, DATE, "fca_1", "fca_theirs", scope=other)
    ended(database, DATE + DAY, "fca_1", scope=other)
    assert records.known_affected(database, SCOPE) == {"fca_1"}
    assert records.newly_affected_since(database, SCOPE, DATE) == {"fca_1"}
    assert records.known_affected(database, other) == {"fca_theirs"}
    assert records.newly_affected_since(database, other, DATE) == {"fca_1", "fca_theirs"}


@pytest.mark.parametrize("command", records.BRAKED_COMMANDS)
def test_any_complete_run_that_could_contact_and_was_not_held_is_a_base(database: Database, command: str) -> None:
    assert not records.has_base_for_brakes(database, SCOPE)
    finished(database, "run_base", AT, command=command)
    assert records.has_base_for_brakes(database, SCOPE)


@pytest.mark.parametrize(
    "differently",
    [
        {"held": True},
        {"complete": False},
        {"state": records.STOPPED},
        {"command": "collect"},
        {"scope": OTHER_MERCHANT},
        {"scope": OTHER_MODE},
    ],
    ids=lambda one: next(iter(one)),
)
def test_no_other_run_is_a_base(database: Database, differently: dict[str, object]) -> None:
    finished(database, "run_no_base", AT + timedelta(days=1), **differently)  # type: ignore[arg-type]
    assert not records.has_base_for_brakes(database, SCOPE)
