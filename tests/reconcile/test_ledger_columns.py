"""The check by columns and the check by rows say the same of any ledger."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from reconcile.errors import LedgerError
from reconcile.ledger import LEDGER_COLUMNS, check_rows, require_clean
from reconcile.ledger_columns import check_columns
from reconcile.normalize import ledger_frame

MERCHANTS = ("main", "other")
Row = Mapping[str, Any]


def in_chunks(rows: Sequence[Row], size: int) -> list[dict[str, list[Any]]]:
    pieces = [rows[start : start + size] for start in range(0, len(rows), size)]
    return [{name: [row.get(name) for row in piece] for name in LEDGER_COLUMNS} for piece in pieces]


def assert_same(rows: Sequence[Row], size: int = 3, merchants: Sequence[str] = MERCHANTS) -> None:
    slow, fast = check_rows(rows, merchants), check_columns(in_chunks(rows, size), merchants)
    assert fast.faults == slow.faults
    if slow.faults or not slow.rows:
        with pytest.raises(LedgerError) as expected:
            require_clean(slow)
        with pytest.raises(LedgerError) as found:
            fast.of_merchant(merchants[0])
        assert str(found.value) == str(expected.value)
        return
    for merchant in merchants:
        assert fast.of_merchant(merchant).equals(ledger_frame(slow.rows, merchant))


def encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


SENSITIVE = [
    "sk_live_1234567890",
    "rk_test_abcdef",
    "whsec_abcdefgh",
    "fcsess_1_secret_abcdef",
    "ada@example.com",
    "https://crm.example/1",
    "Bearer abcdefgh",
    "Basic LN-123456",
    encoded("ada@example.com"),
    encoded("mail ada@example.com"),
    encoded("sk_live_1234567890"),
    "LN " + encoded("ada@example.com"),
    "fca_" + encoded("xx ada@example.com").replace("-", "a"),
]
IDS = st.one_of(
    st.sampled_from(
        ["fca_1", "fca_2", " fca_2 ", "fca_1PabcDEFghi0123456789", "cus_9", "", None, 7, "a\x00b", "x" * 300]
    ),
    st.sampled_from(SENSITIVE),
    st.from_regex(r"(fca|cus|sk)_[A-Za-z0-9]{1,24}", fullmatch=True),
)
CELLS: dict[str, st.SearchStrategy[Any]] = {
    "account_id": IDS,
    "account_holder_id": st.one_of(st.just("cus_1PabcDEFghi01"), IDS),
    "required_permissions": st.sampled_from(
        [None, "", "balances", "transactions, Balances", ["ownership"], ("balances",), [], "money", 3]
    ),
    "purpose": st.sampled_from([None, "data", "Payments ", "other", 1]),
    "status": st.sampled_from([None, "open", "CLOSED", "shut"]),
    "do_not_contact": st.sampled_from([None, True, 1, 1.0, 0, Decimal("1"), Decimal("NaN"), "yes", "no", "perhaps", 2]),
    "exposure_minor": st.sampled_from([None, 0, -5, 10**15, 10**15 + 1, "12", "1.5", 1.0, Decimal("3.00"), True]),
    "currency": st.sampled_from([None, "usd", "EUR", "", "dollars"]),
    "reference": st.one_of(
        st.sampled_from(
            [
                None,
                "",
                "LN-1",
                " LN-1",
                "LN 00.1 #7",
                "9b2f6c1e-7d3a-4f0e-8c11-0a1b2c3d4e5f",
                12,
                1.5,
                b"x",
                "Ü",
                "\x00",
            ]
        ),
        st.sampled_from(SENSITIVE),
        st.text(max_size=20),
    ),
    "merchant": st.sampled_from(["main", "other", None, "third"]),
}
CLEAN = {"account_holder_id": "cus_1PabcDEFghi01", "merchant": "main"}


@settings(max_examples=60)
@given(st.lists(st.fixed_dictionaries({}, optional=CELLS).map(lambda row: {"account_id": None, **row}), max_size=9))
def test_any_rows_are_found_the_same(rows: list[Row]) -> None:
    assert_same(rows)


@pytest.mark.parametrize("column", LEDGER_COLUMNS)
@settings(max_examples=25)
@given(data=st.data())
def test_any_cell_in_an_otherwise_clean_ledger_is_found_the_same(column: str, data: st.DataObject) -> None:
    """Else one bad cell nearly always hides what another would do."""
    cells = data.draw(st.lists(CELLS[column], min_size=1, max_size=4))
    assert_same([{"account_id": f"fca_1Ptest{place}", **CLEAN, column: cell} for place, cell in enumerate(cells)])


@settings(max_examples=60)
@given(st.text(alphabet="fcaskuBr_secret-0Zz ", max_size=40))
@example("fca_secret_abcdefg")
def test_what_is_taken_for_plain_hides_nothing(text: str) -> None:
    assert_same([{"account_id": text or "fca_1", **CLEAN, "reference": text}])


@pytest.mark.parametrize("text", SENSITIVE)
@pytest.mark.parametrize("column", ["account_id", "account_holder_id", "reference"])
def test_what_is_sensitive_is_found(column: str, text: str) -> None:
    assert_same([{"account_id": "fca_1Ptest", **CLEAN, column: text}])


def test_a_repeated_account_is_named_with_both_rows_over_chunks_and_not_over_merchants() -> None:
    rows = [{"account_id": "fca_1Ptest", **CLEAN, "merchant": name} for name in ("main", "other", "main", "main")]
    rows[3] = {**rows[3], "status": "shut"}
    assert_same(rows, size=1)
    found = check_columns(in_chunks(rows, 2), MERCHANTS).faults
    assert [(one.row_number, one.column) for one in found] == [(3, "account_id"), (4, "status"), (4, "account_id")]


def test_missing_columns_count_as_empty_and_one_merchant_need_not_be_named() -> None:
    rows = [{"account_id": "fca_1Ptest", "account_holder_id": "cus_1"}]
    fast = check_columns([{name: [row[name] for row in rows] for name in rows[0]}], ["main"])
    assert fast.of_merchant("main").equals(ledger_frame(require_clean(check_rows(rows, ["main"])), "main"))


def test_no_rows_at_all_are_an_empty_ledger() -> None:
    assert_same([])
