"""Minor units become major ones by the decimals that each currency has."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.money import exponent, major_units, money_text


@pytest.mark.parametrize(
    ("amount_minor", "currency", "text"),
    [
        (123450, "EUR", "EUR 1,234.50"),
        (5, "USD", "USD 0.05"),
        (123450, "JPY", "JPY 123,450"),
        (1234567, "KWD", "KWD 1,234.567"),
        (12345, "CLF", "CLF 1.2345"),
        (-1, "GBP", "GBP \u22120.01"),
        (0, "ISK", "ISK 0"),
        (9_007_199_254_740_993, "EUR", "EUR 90,071,992,547,409.93"),
    ],
)
def test_an_amount_is_written_with_the_decimals_of_its_currency(amount_minor: int, currency: str, text: str) -> None:
    assert money_text(amount_minor, currency) == text


@given(st.integers(-(10**18), 10**18), st.sampled_from(["EUR", "JPY", "TND", "UYW"]))
def test_major_units_lose_nothing(amount_minor: int, currency: str) -> None:
    assert major_units(amount_minor, currency) * Decimal(10) ** exponent(currency) == amount_minor
