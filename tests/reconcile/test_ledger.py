from __future__ import annotations

import csv
import io
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconcile.errors import LedgerError
from reconcile.ledger import LEDGER_COLUMNS, LedgerRow, check_rows, require_clean
from reconcile.masking import looks_sensitive
from reconcile.model import PERMISSIONS


def row(**cells: Any) -> dict[str, Any]:
    return {"account_id": "fca_1", "account_holder_id": "cus_1", **cells}


def only(**cells: Any) -> LedgerRow:
    check = check_rows([row(**cells)], ["main"])
    assert check.faults == []
    return check.rows[0]


def fault(**cells: Any) -> tuple[str, str]:
    """The one fault of a row, as its column and problem."""
    check = check_rows([row(**cells)], ["main"])
    assert check.rows == []
    assert [(found.row_number, found.key) for found in check.faults] == [(1, "fca_1")]
    return check.faults[0].column, check.faults[0].problem


def test_a_row_of_two_ids_has_the_published_defaults() -> None:
    assert only() == LedgerRow("main", "fca_1", "cus_1", None, "data", "open", False, None, None, None)


def test_empty_text_counts_as_missing() -> None:
    assert only(**dict.fromkeys(LEDGER_COLUMNS[2:], " ")) == only()
    assert only(**dict.fromkeys(LEDGER_COLUMNS[2:])) == only()


def test_padding_of_fixed_width_columns_is_dropped() -> None:
    assert only(account_holder_id="cus_1   ", status="closed  ", currency="usd ").account_holder_id == "cus_1"


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("transactions, balances", ("balances", "transactions")),
        ("Balances,balances,", ("balances",)),
        (["ownership", "balances"], ("balances", "ownership")),
        ([], None),
        (",", None),
    ],
)
def test_required_permissions_are_a_sorted_set(cell: object, expected: tuple[str, ...] | None) -> None:
    assert only(required_permissions=cell).required_permissions == expected


@pytest.mark.parametrize("cell", ["true", "TRUE", "Yes", "1", " yes ", True, 1, Decimal(1)])
def test_every_way_to_say_do_not_contact(cell: object) -> None:
    assert only(do_not_contact=cell).do_not_contact is True


@pytest.mark.parametrize("cell", ["false", "No", "0", False, 0, None, ""])
def test_every_way_to_allow_contact(cell: object) -> None:
    assert only(do_not_contact=cell).do_not_contact is False


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (1250, 1250),
        ("1250", 1250),
        (" -5 ", -5),
        ("+7", 7),
        (Decimal(1250), 1250),
        (Decimal("1E+3"), 1000),
        (10**15, 10**15),
        (0, 0),
    ],
)
def test_whole_amounts_are_kept(cell: object, expected: int) -> None:
    checked = only(exposure_minor=cell, currency="usd")
    assert (checked.exposure_minor, type(checked.exposure_minor), checked.currency) == (expected, int, "USD")


@pytest.mark.parametrize(
    "cell",
    [
        100.0,
        12.5,
        "100.0",
        "1,250",
        "1e3",
        "12 50",
        "$5",
        "１２",
        Decimal("100.00"),
        Decimal("NaN"),
        Decimal("Infinity"),
        True,
        b"5",
    ],
)
def test_amounts_that_could_mean_something_else_are_refused(cell: object) -> None:
    column, problem = fault(exposure_minor=cell, currency="USD")
    assert column == "exposure_minor"
    assert "whole number" in problem


@pytest.mark.parametrize("cell", [10**15 + 1, -(10**15) - 1, str(2**63)])
def test_amounts_that_could_outgrow_64_bits_in_a_sum_are_refused(cell: object) -> None:
    column, problem = fault(exposure_minor=cell, currency="USD")
    assert (column, problem.partition(";")[0]) == ("exposure_minor", "is beyond 1,000,000,000,000,000")


@pytest.mark.parametrize(
    ("cells", "column", "problem"),
    [
        ({"account_holder_id": None}, "account_holder_id", "is missing"),
        ({"account_holder_id": "cus\x001"}, "account_holder_id", "control or invisible"),
        ({"account_holder_id": "cus_\u200b1"}, "account_holder_id", "control or invisible"),
        ({"account_holder_id": "c" * 256}, "account_holder_id", "longer than 255"),
        ({"account_holder_id": 17}, "account_holder_id", "is not text but int"),
        (
            {"required_permissions": "balance"},
            "required_permissions",
            "names 'balance', which is no permission; known: balances",
        ),
        ({"required_permissions": "balances;ownership"}, "required_permissions", "no permission"),
        ({"purpose": "payment"}, "purpose", "is 'payment'; write data or payments"),
        ({"status": "gone"}, "status", "is 'gone'; write open or closed"),
        ({"do_not_contact": "maybe"}, "do_not_contact", "is 'maybe'"),
        ({"do_not_contact": 2}, "do_not_contact", "is '2'"),
        ({"do_not_contact": 1.0}, "do_not_contact", "is '1.0'"),
        ({"currency": "US"}, "currency", "three letters"),
        ({"currency": "€€€"}, "currency", "three letters"),
        ({"exposure_minor": 5}, "currency", "is missing beside exposure_minor"),
        ({"merchant": "other"}, "merchant", "is 'other', which the settings do not name; known: main"),
        ({"reference": "a\x00b"}, "reference", "NUL"),
        ({"reference": "r" * 1001}, "reference", "longer than 1000"),
        ({"reference": b"x"}, "reference", "is not text"),
    ],
)
def test_a_fault_names_its_column_and_the_remedy(cells: dict[str, Any], column: str, problem: str) -> None:
    found = fault(**cells)
    assert found[0] == column
    assert problem in found[1]


def test_an_account_without_an_id_is_told_by_its_row() -> None:
    check = check_rows([row(), row(account_id=" "), row(account_id="fca_\n2")], ["main"])
    assert [(found.row_number, found.column) for found in check.faults] == [(2, "account_id"), (3, "account_id")]
    assert len(check.rows) == 1


def test_every_fault_of_every_row_is_told() -> None:
    check = check_rows(
        [row(status="x", purpose="y", exposure_minor=1.5), row(account_id="fca_2", currency="x")], ["main"]
    )
    assert [(found.row_number, found.column) for found in check.faults] == [
        (1, "purpose"),
        (1, "status"),
        (1, "exposure_minor"),
        (2, "currency"),
    ]


def test_an_account_stands_once_in_each_merchants_ledger() -> None:
    rows = [row(merchant="a"), row(merchant="b"), row(merchant="a", status="gone")]
    check = check_rows(rows, ["a", "b"])
    assert [(checked.merchant, checked.account_id) for checked in check.rows] == [("a", "fca_1"), ("b", "fca_1")]
    assert [(found.row_number, found.column) for found in check.faults] == [(3, "status"), (3, "account_id")]
    assert check.faults[1].problem.startswith("stands in row 1 already")


def test_the_merchant_is_needed_where_there_are_several() -> None:
    check = check_rows([row()], ["a", "b"])
    assert [(found.column, found.problem) for found in check.faults] == [
        ("merchant", "is missing, and the settings name several; write one of a, b")
    ]
    assert check_rows([row(merchant="main")], ["main"]).rows[0].merchant == "main"


@pytest.mark.parametrize(
    "reference", ["ada@example.com", "see https://x.example/a", "sk_live_abcdefgh", "fcsess_client_secret_abcdefgh"]
)
def test_a_reference_that_looks_sensitive_is_hidden_as_a_whole(reference: str) -> None:
    assert only(reference=f"Ada {reference}").reference == "[masked]"
    assert only(reference="INV-2026/17 Müller & Söhne").reference == "INV-2026/17 Müller & Söhne"
    assert only(reference=4711).reference == "4711"


def test_other_columns_are_ignored() -> None:
    assert only(owner_email="ada@example.com") == only()


def test_no_message_shows_an_address_or_a_control_character() -> None:
    rows = [row(account_id="ada@example.com\x1b[2J", status="ada@example.com", exposure_minor="ada@example.com\n")]
    with pytest.raises(LedgerError) as caught:
        require_clean(check_rows(rows, ["main"]))
    assert "ada@" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 4


def test_an_error_names_twenty_faults_and_counts_the_rest() -> None:
    rows = [row(account_id=f"fca_{number}", status="x") for number in range(1, 26)]
    with pytest.raises(LedgerError) as caught:
        require_clean(check_rows(rows, ["main"]))
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("the ledger has 25 faults in 25 rows")
    assert lines[1] == "  row 1, account fca_1, column status: is 'x'; write open or closed"
    assert len(lines) == 22
    assert lines[-1] == "  and 5 more"
    assert caught.value.exit_code == 3


def test_an_empty_ledger_is_a_fault_and_a_clean_one_is_not() -> None:
    with pytest.raises(LedgerError, match="the ledger is empty"):
        require_clean(check_rows([], ["main"]))
    assert require_clean(check_rows([row()], ["main"])) == [only()]


TEXT = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=30)
HARMLESS = TEXT.filter(lambda text: not looks_sensitive(text))
ROWS = st.builds(
    LedgerRow,
    merchant=st.sampled_from(["a", "b"]),
    account_id=HARMLESS,
    account_holder_id=HARMLESS,
    required_permissions=st.none()
    | st.sets(st.sampled_from(PERMISSIONS), min_size=1).map(lambda names: tuple(sorted(names))),
    purpose=st.sampled_from(["data", "payments"]),
    status=st.sampled_from(["open", "closed"]),
    do_not_contact=st.booleans(),
    exposure_minor=st.none() | st.integers(-(10**15), 10**15),
    currency=st.sampled_from(["USD", "EUR", "JPY"]),
    reference=st.none() | HARMLESS,
)


@given(st.lists(ROWS, unique_by=lambda checked: (checked.merchant, checked.account_id), max_size=8))
def test_rows_survive_being_written_as_text_and_read_again(rows: list[LedgerRow]) -> None:
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, LEDGER_COLUMNS)
    writer.writeheader()
    for checked in rows:
        cells = {column: getattr(checked, column) for column in LEDGER_COLUMNS}
        writer.writerow(cells | {"required_permissions": ",".join(checked.required_permissions or ())})
    check = check_rows(csv.DictReader(io.StringIO(file.getvalue(), newline="")), ["a", "b"])
    assert check.faults == []
    assert check.rows == rows


CELLS = (
    st.none()
    | st.text(max_size=20)
    | st.integers()
    | st.floats()
    | st.decimals()
    | st.booleans()
    | st.binary(max_size=5)
    | st.lists(st.text())
)


@given(st.lists(st.dictionaries(st.sampled_from(LEDGER_COLUMNS), CELLS), max_size=4))
def test_whatever_a_database_yields_each_row_is_kept_or_told(rows: list[dict[str, object]]) -> None:
    check = check_rows(rows, ["main"])
    assert len(check.rows) + len({found.row_number for found in check.faults}) == len(rows)


@pytest.mark.parametrize("name", ["jane@bank.example", "https://bank.example/a", "sk_test_abcdefgh12345678"])
@pytest.mark.parametrize("column", ["account_id", "account_holder_id"])
def test_an_id_that_looks_like_something_private_is_refused_and_not_repeated(column: str, name: str) -> None:
    check = check_rows([row(**{column: name})], ["main"])
    assert [found.column for found in check.faults] == [column]
    with pytest.raises(LedgerError) as refused:
        require_clean(check)
    assert name not in str(refused.value)
    assert name not in str(check.faults)
