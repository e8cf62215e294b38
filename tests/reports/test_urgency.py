"""Every closed value that is painted has an urgency, and rows come in its order."""

from __future__ import annotations

import pytest

from reports.closed_lists import CLOSED_LISTS
from reports.columns import TABLES
from reports.tables import accounts_table
from reports.urgency import DECIDING, URGENCIES, WORDS, Urgency, most_urgent_first, needing_person
from tests.reports.factories import account, broken, findings, night


@pytest.mark.parametrize("name", URGENCIES)
def test_every_value_has_an_urgency(name: str) -> None:
    assert list(URGENCIES[name]) == list(CLOSED_LISTS[name])


def test_every_urgency_has_its_words() -> None:
    assert list(WORDS) == list(Urgency)


def test_deciding_columns_are_there() -> None:
    for table, column in DECIDING.items():
        assert column in TABLES[table].names
        assert column in URGENCIES


def test_what_needs_a_person_comes_first_then_the_longest_broken_then_the_most_money() -> None:
    rows = [
        account("fca_1"),
        broken("fca_2", days_inactive=3, exposure_minor=900, currency="EUR"),
        broken("fca_3", days_inactive=3, exposure_minor=1000, currency="EUR"),
        broken("fca_4", days_inactive=3, exposure_minor=9000, currency="USD"),
        broken("fca_5", days_inactive=30),
        broken("fca_6", next_step="do_not_contact"),
        broken("fca_7", next_step="review"),
        account("fca_8", finding="disconnected", next_step="not_relinkable"),
    ]
    table = accounts_table("main", findings(*rows))
    ordered = most_urgent_first(table, TABLES["accounts"])
    numbers = [text.removeprefix("fca_") for text in ordered["account_id"].to_pylist()]
    assert numbers == ["7", "8", "5", "3", "2", "4", "6", "1"]
    assert ordered.schema.equals(table.schema)
    assert needing_person("accounts", table) == 1


def test_tables_that_only_count_stay_in_the_order_of_their_key() -> None:
    for name, table in night().items():
        if name not in DECIDING:
            assert needing_person(name, table) == 0
            assert most_urgent_first(table, TABLES[name]).equals(table)
