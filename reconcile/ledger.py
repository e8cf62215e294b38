"""The merchant's ledger rows: what each column may hold, and everything that is wrong with them, row by row."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Any, cast

from reconcile.errors import LedgerError
from reconcile.masking import looks_sensitive, mask
from reconcile.model import PERMISSIONS

LEDGER_COLUMNS = (
    "account_id",
    "account_holder_id",
    "required_permissions",
    "purpose",
    "status",
    "do_not_contact",
    "exposure_minor",
    "currency",
    "reference",
    "merchant",
)
REQUIRED_COLUMNS = ("account_id", "account_holder_id")

MASKED = "[masked]"
FAULTS_SHOWN = 20
ID_CHARACTERS = 255
REFERENCE_CHARACTERS = 1000

_TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,19}")
_CURRENCY = re.compile(r"[A-Za-z]{3}")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
LARGEST_AMOUNT = 10**15
"""Of minor units in one cell, so that no sum over a ledger leaves 64 bits."""


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """One account of the ledger. `exposure_minor` is integer money in `currency`'s minor unit.

    `required_permissions` is sorted, None where the cell is empty: whatever the account grants now.
    """

    merchant: str
    account_id: str
    account_holder_id: str
    required_permissions: tuple[str, ...] | None = None
    purpose: str = "data"
    status: str = "open"
    do_not_contact: bool = False
    exposure_minor: int | None = None
    currency: str | None = None
    reference: str | None = None


@dataclass(frozen=True, slots=True)
class LedgerFault:
    """One thing wrong with one cell; `row_number` counts data rows from 1, `key` is the row's account id as far as it can be shown."""

    row_number: int
    key: str
    column: str
    problem: str


@dataclass(frozen=True, slots=True)
class LedgerCheck:
    """The rows without a fault, and every fault of the others."""

    rows: list[LedgerRow]
    faults: list[LedgerFault]


class BadCell(Exception):
    """A cell that breaks its column's contract; the text says how to mend it."""


def check_rows(rows: Iterable[Mapping[str, object]], merchants: Sequence[str]) -> LedgerCheck:
    """Check ledger rows against the column contract; columns that are not the ledger's are ignored.

    Rows may omit `merchant` where there is one merchant only. Empty text counts as missing.
    """
    good: list[LedgerRow] = []
    faults: list[LedgerFault] = []
    first_seen: dict[tuple[str, str], int] = {}
    for number, row in enumerate(rows, start=1):
        values, problems = read_cells(row, merchants)
        if "account_id" in values and "merchant" in values:
            first = first_seen.setdefault((values["merchant"], values["account_id"]), number)
            if first != number:
                problems.append(already_stands(first))
        if problems:
            key = shown_key(row.get("account_id"))
            faults.extend(LedgerFault(number, key, column, problem) for column, problem in problems)
        else:
            good.append(LedgerRow(**values))
    return LedgerCheck(good, faults)


def require_clean(check: LedgerCheck) -> list[LedgerRow]:
    """The rows, if there are any and nothing is wrong with them.

    Raises:
        LedgerError: naming the first faults by row, account, column and problem, and how many more there are.
    """
    refuse(check.faults, len(check.rows))
    return check.rows


def refuse(faults: Sequence[LedgerFault], rows: int) -> None:
    """Stop where anything is wrong with a ledger of so many good rows, or there are none.

    Raises:
        LedgerError: see `require_clean`.
    """
    if faults:
        faulty = len({fault.row_number for fault in faults})
        count = f"{_count(len(faults), 'fault')} in {_count(faulty, 'row')}"
        lines = [f"the ledger has {count} (rows counted from 1 after the header); mend them where the ledger is kept:"]
        lines += [f"  {describe(fault)}" for fault in faults[:FAULTS_SHOWN]]
        if len(faults) > FAULTS_SHOWN:
            lines.append(f"  and {len(faults) - FAULTS_SHOWN} more")
        raise LedgerError("\n".join(lines))
    if not rows:
        raise LedgerError(
            "the ledger is empty; load one with `relink ledger load`, or check ledger.query and what it may see"
        )


def describe(fault: LedgerFault) -> str:
    """One line about one fault."""
    return f"row {fault.row_number}, account {fault.key}, column {fault.column}: {fault.problem}"


def already_stands(first: int) -> tuple[str, str]:
    """The problem of a row whose account stands in an earlier one, as column and words."""
    return "account_id", f"stands in row {first} already; keep one row for each account"


def readers(merchants: Sequence[str]) -> dict[str, Callable[[object], object]]:
    """What reads a cell of each column; it raises `BadCell` where the cell breaks the contract."""
    return {**dict(_READERS), "merchant": lambda value: _merchant(value, merchants)}


def read_cells(row: Mapping[str, object], merchants: Sequence[str]) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """What each cell says, and every column with a problem, so that one fault hides no other."""
    values: dict[str, Any] = {}
    problems: list[tuple[str, str]] = []
    for column, read in _READERS:
        try:
            values[column] = read(row.get(column))
        except BadCell as fault:
            problems.append((column, str(fault)))
    try:
        values["merchant"] = _merchant(row.get("merchant"), merchants)
    except BadCell as fault:
        problems.append(("merchant", str(fault)))
    if values.get("exposure_minor") is not None and values.get("currency", "") is None:
        problems.append(("currency", "is missing beside exposure_minor; write its three letters, such as USD"))
    return values, problems


def identifier(value: object) -> str:
    text = _text(value)
    if text is None:
        raise BadCell("is missing; every row needs one")
    if not text.isprintable():
        raise BadCell("holds a control or invisible character; remove it")
    if looks_sensitive(text):
        raise BadCell("looks like an e-mail address, a link or a secret; write Stripe's id")
    if len(text) > ID_CHARACTERS:
        raise BadCell(f"is longer than {ID_CHARACTERS} characters; is it an id?")
    return text


def _permissions(value: object) -> tuple[str, ...] | None:
    if isinstance(value, (list, tuple)):  # a database's array
        value = ",".join(str(name) for name in value)
    text = _text(value)
    return None if text is None else _split_permissions(text)


@lru_cache(maxsize=1024)
def _split_permissions(text: str) -> tuple[str, ...] | None:
    names = {name.strip().lower() for name in text.split(",")} - {""}
    unknown = sorted(names - set(PERMISSIONS))
    if unknown:
        raise BadCell(f"names {shown(', '.join(unknown))}, which is no permission; known: {', '.join(PERMISSIONS)}")
    return tuple(sorted(names)) or None


def _one_of(words: tuple[str, str]) -> Callable[[object], str]:
    """A reader of a column that is one of two words, the first where the cell is empty."""

    def read(value: object) -> str:
        text = _text(value)
        word = words[0] if text is None else text.lower()
        if word not in words:
            raise BadCell(f"is {shown(word)}; write {words[0]} or {words[1]}")
        return word

    return read


def _truth(value: object) -> bool:
    if (isinstance(value, int) or (isinstance(value, Decimal) and value.is_finite())) and value in (0, 1):
        return bool(value)
    text = _text(value if isinstance(value, str) else None if value is None else str(value))
    if text is None:
        return False
    truth = _TRUTHS.get(text.lower())
    if truth is None:
        raise BadCell(f"is {shown(text)}; write true, false, yes, no, 1 or 0")
    return truth


def _amount(value: object) -> int | None:
    """An integer of minor units; anything with decimals is refused, because 100.00 may mean 100 or 10000 of them."""
    if value is None:
        return None
    amount: int | None = None
    if isinstance(value, int) and not isinstance(value, bool):
        amount = value
    elif isinstance(value, Decimal) and value.is_finite() and cast(int, value.as_tuple().exponent) in range(20):
        amount = int(value)
    elif isinstance(value, str):
        text = value.strip()
        if not text:
            return None
        amount = int(text) if _WHOLE_NUMBER.fullmatch(text) else None
    if amount is None:
        advice = "write the amount in minor units (cents) as a whole number, without decimals, separators or signs of currency"
        raise BadCell(f"is {shown(str(value))}; {advice}")
    if abs(amount) > LARGEST_AMOUNT:
        raise BadCell(f"is beyond {LARGEST_AMOUNT:,}; is it in minor units of its currency?")
    return amount


def _currency(value: object) -> str | None:
    text = _text(value)
    if text is not None and not _CURRENCY.fullmatch(text):
        raise BadCell(f"is {shown(text)}; write three letters (ISO 4217), such as USD")
    return text.upper() if text else None


def _reference(value: object) -> str | None:
    """The merchant's own name for the account, hidden as a whole where it could be somebody's address, a link or a secret."""
    if isinstance(value, (float, bytes, bytearray, memoryview)):
        raise BadCell("is not text")
    text = _text(value if value is None or isinstance(value, str) else str(value))
    if text is None:
        return None
    if len(text) > REFERENCE_CHARACTERS:
        raise BadCell(f"is longer than {REFERENCE_CHARACTERS} characters")
    if not text.isprintable() and _UNSTORABLE.search(text):
        raise BadCell("holds a NUL character or broken text; remove it")
    return MASKED if looks_sensitive(text) else text


def _merchant(value: object, merchants: Sequence[str]) -> str:
    text = _text(value)
    if text is None:
        if len(merchants) == 1:
            return merchants[0]
        raise BadCell(f"is missing, and the settings name several; write one of {', '.join(merchants)}")
    if text not in merchants:
        raise BadCell(f"is {shown(text)}, which the settings do not name; known: {', '.join(merchants)}")
    return text


def _text(value: object) -> str | None:
    """Text without surrounding space (which fixed-width columns are padded with); None where nothing is left."""
    if isinstance(value, str):
        return value.strip() or None
    if value is None:
        return None
    raise BadCell(f"is not text but {type(value).__name__}")


def shown(text: str) -> str:
    """A cell's content in a message: short, printable and masked."""
    plain = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text[:200])
    masked = mask(plain)
    return repr(masked if len(masked) <= 60 else masked[:60] + "…")


def shown_key(value: object) -> str:
    """The account id of a row as far as it can be shown."""
    return "without an id" if value is None or value == "" else shown(str(value)).strip("'")


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


_READERS: tuple[tuple[str, Callable[[object], object]], ...] = (
    ("account_id", identifier),
    ("account_holder_id", identifier),
    ("required_permissions", _permissions),
    ("purpose", _one_of(("data", "payments"))),
    ("status", _one_of(("open", "closed"))),
    ("do_not_contact", _truth),
    ("exposure_minor", _amount),
    ("currency", _currency),
    ("reference", _reference),
)
