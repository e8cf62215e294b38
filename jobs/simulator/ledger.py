"""A merchant's own list of the accounts of a simulated world, mostly in agreement with it."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

from jobs.simulator.draws import Draws, token
from jobs.simulator.model import PERMISSIONS, Account
from jobs.simulator.world import World

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
)
LedgerRow = dict[str, str | int | None]

UNKNOWN_TO_STRIPE_SHARE = 0.010
UNKNOWN_TO_LEDGER_SHARE = 0.015
OTHER_HOLDER_SHARE = 0.005
CLOSED_SHARE = 0.020
DO_NOT_CONTACT_SHARE = 0.010
BEYOND_GRANTED_SHARE = 0.015
ODD_REFERENCE_SHARE = 0.010
_CURRENCIES = ("usd", "usd", "usd", "usd", "eur", "gbp")
_ODD_REFERENCES = (
    "payer.{number}@merchant.example",
    "=1+{number}",
    "https://crm.example/{number}",
    "Ünïcode; {number}",
)


def make_ledger(
    world: World, seed: int = 1, disagreements: bool = True, merchant: str | None = None
) -> list[LedgerRow]:
    """A ledger row for each account that is not disconnected, and for a few that are.

    With `disagreements`, every kind there is: rows Stripe does not know, accounts without a row, another holder,
    closed rows, customers who must not be contacted, permissions beyond those granted, payments on tokenized numbers,
    several currencies, odd references and empty cells. `merchant` adds that column, for ledgers of several. What a row says depends on the seed and its account alone.
    """
    rows: list[LedgerRow] = []
    with world.lock:
        for account in world.listing:
            draws = Draws(seed, "ledger", account.id)
            if account.status == "disconnected" and not (disagreements and draws.chance(0.5)):
                continue
            if disagreements and draws.chance(UNKNOWN_TO_LEDGER_SHARE):
                continue
            rows.append(_row(account, draws, disagreements))
            if disagreements and draws.chance(UNKNOWN_TO_STRIPE_SHARE):
                rows.append(_unknown_to_stripe(account, seed))
    if merchant is not None:
        rows = [{"merchant": merchant, **row} for row in rows]
    return rows


def write_ledger_csv(path: str | Path, rows: Iterable[Mapping[str, str | int | None]]) -> Path:
    """Write rows as CSV with a header, UTF-8; None is an empty cell."""
    target = Path(path)
    rows = list(rows)
    columns = ("merchant", *LEDGER_COLUMNS) if any("merchant" in row for row in rows) else LEDGER_COLUMNS
    with target.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    return target


def _row(account: Account, draws: Draws, disagreements: bool) -> LedgerRow:
    # Every draw is taken whether it is used or not, so that a row's other cells do not depend on it.
    other_holder, closed, do_not_contact, beyond, odd = (
        draws.chance(share) and disagreements
        for share in (
            OTHER_HOLDER_SHARE,
            CLOSED_SHARE,
            DO_NOT_CONTACT_SHARE,
            BEYOND_GRANTED_SHARE,
            ODD_REFERENCE_SHARE,
        )
    )
    tokenized = any(number.identifier_type == "tokenized_account_number" for number in account.numbers)
    payments = draws.chance(0.6 if tokenized else 0.08) and disagreements
    number = 10_000 + draws.word() % 90_000
    exposure = draws.chance(0.7)
    amount = int(draws.between(0, 1) ** 3 * 2_000_000)
    currency = draws.pick(_CURRENCIES)
    odd_reference = draws.pick(_ODD_REFERENCES)
    return {
        "account_id": account.id,
        "account_holder_id": "cus_" + token(f"moved:{account.id}", 14) if other_holder else account.holder.id,
        "required_permissions": _required(account, draws, beyond),
        "purpose": "payments" if payments else draws.pick(("data", "data", "")),
        "status": "closed" if closed else draws.pick(("open", "open", "")),
        "do_not_contact": draws.pick(("true", "yes", "1")) if do_not_contact else draws.pick(("", "false", "no", "0")),
        "exposure_minor": amount if exposure else None,
        "currency": currency if exposure else None,
        "reference": odd_reference.format(number=number) if odd else (f"LN-{number}" if number % 10 else ""),
    }


def _required(account: Account, draws: Draws, beyond: bool) -> str:
    granted = list(account.permissions)
    missing = [name for name in PERMISSIONS if name not in granted]
    count = 1 + draws.word() % max(1, len(granted))
    needed = draws.subset(granted, count)
    everything = draws.chance(0.5)
    if beyond and missing:
        return ",".join([*needed, draws.pick(missing)])
    if draws.chance(0.12):
        return ""
    return ",".join(granted if everything else needed)


def _unknown_to_stripe(account: Account, seed: int) -> LedgerRow:
    return {
        "account_id": "fca_1" + token(f"{seed}:gone:{account.id}", 23),
        "account_holder_id": account.holder.id,
        "required_permissions": "balances",
        "purpose": "data",
        "status": "open",
        "do_not_contact": "",
        "exposure_minor": 12_345,
        "currency": "usd",
        "reference": "",
    }
