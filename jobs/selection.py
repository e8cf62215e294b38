"""What a person selects by name, read against the accounts that Stripe has."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from reconcile.classify import flags
from reconcile.errors import SettingsError

FILE_COLUMNS = ("authorization_id", "account_holder_id", "account_id", "institution_name")


@dataclass(frozen=True, slots=True)
class Selection:
    """Authorizations, customers, accounts and institutions by name; an authorization is meant if any of them names it."""

    authorizations: frozenset[str] = frozenset()
    customers: frozenset[str] = frozenset()
    accounts: frozenset[str] = frozenset()
    institutions: frozenset[str] = frozenset()

    def authorizations_in(self, accounts: pd.DataFrame) -> frozenset[str]:
        """The authorization ids that the selection means among these accounts, of which only `FILE_COLUMNS` are looked at."""
        meant = (
            flags(accounts["authorization_id"].isin(list(self.authorizations)))
            | flags(accounts["account_holder_id"].isin(list(self.customers)))
            | flags(accounts["account_id"].isin(list(self.accounts)))
            | flags(accounts["institution_name"].isin(list(self.institutions)))
        )
        return frozenset(accounts.loc[meant, "authorization_id"].dropna())

    def unknown_in(self, accounts: pd.DataFrame) -> list[str]:
        """What the selection names and these accounts do not have."""
        known = {
            "authorization_id": self.authorizations,
            "account_holder_id": self.customers,
            "account_id": self.accounts,
            "institution_name": self.institutions,
        }
        return sorted(name for column, names in known.items() for name in names - set(accounts[column].dropna()))


def read_selection_file(path: Path) -> Selection:
    """Read a CSV file with a header and one or more of the columns authorization_id, account_holder_id, account_id, institution_name.

    Raises:
        SettingsError: the file cannot be read, has none of these columns or others besides, or no row.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            header = [name.strip() for name in reader.fieldnames or ()]
            strange = [name for name in header if name not in FILE_COLUMNS]
            if strange or not header:
                raise SettingsError(
                    f"{path}: unknown columns {', '.join(strange) or '(no header)'}; a selection has one or more of {', '.join(FILE_COLUMNS)}"
                )
            if len(set(header)) < len(header):
                raise SettingsError(f"{path}: a column stands in the header twice; name each once")
            cells: dict[str, set[str]] = {name: set() for name in FILE_COLUMNS}
            for number, row in enumerate(reader, start=2):
                if None in row or None in row.values():
                    raise SettingsError(f"{path}: line {number} has another number of cells than the header")
                for name, cell in row.items():
                    if cell.strip():
                        cells[name.strip()].add(cell.strip())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SettingsError(f"{path} cannot be read as CSV: {getattr(error, 'strerror', None) or error}") from None
    if not any(cells.values()):
        raise SettingsError(f"{path} selects nothing: it has no rows")
    return Selection(
        authorizations=frozenset(cells["authorization_id"]),
        customers=frozenset(cells["account_holder_id"]),
        accounts=frozenset(cells["account_id"]),
        institutions=frozenset(cells["institution_name"]),
    )
