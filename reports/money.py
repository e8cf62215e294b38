"""Money in major units for people: how many decimals each currency has, and how an amount is written."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

USUAL_EXPONENT = 2
"""Decimals of every currency that `EXPONENTS` does not name."""

_WITHOUT_DECIMALS = (
    *(
        "BIF",
        "CLP",
        "DJF",
        "GNF",
        "ISK",
        "JPY",
        "KMF",
        "KRW",
        "PYG",
        "RWF",
        "UGX",
        "UYI",
        "VND",
        "VUV",
        "XAF",
        "XOF",
        "XPF",
    ),
    *("XAG", "XAU", "XDR", "XPD", "XPT", "XSU", "XUA"),
)

EXPONENTS: Mapping[str, int] = {
    **dict.fromkeys(_WITHOUT_DECIMALS, 0),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
    **dict.fromkeys(("CLF", "UYW"), 4),
}
"""Decimals of the currencies that have not two (ISO 4217, the published list one; codes without a minor unit count whole)."""


def exponent(currency: str) -> int:
    """How many decimals the currency's minor unit has."""
    return EXPONENTS.get(currency.upper(), USUAL_EXPONENT)


def major_units(amount_minor: int, currency: str) -> Decimal:
    """The exact amount in major units, with all decimals that the currency has."""
    return Decimal(amount_minor).scaleb(-exponent(currency))


def money_text(amount_minor: int, currency: str) -> str:
    """The amount for people, such as `EUR 1,234.50`, with a minus sign where it is below zero."""
    sign = "\N{MINUS SIGN}" if amount_minor < 0 else ""
    return f"{currency} {sign}{abs(major_units(amount_minor, currency)):,.{exponent(currency)}f}"
