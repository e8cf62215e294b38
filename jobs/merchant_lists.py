"""Reads the merchant's lists beside the ledger: whom never to contact."""

from __future__ import annotations

from collections import defaultdict

from jobs.adapters.ledger import RowShape, read_csv, read_query
from jobs.settings import Settings
from reconcile.lists import SUPPRESSION_COLUMNS, suppressed_by_merchant

SUPPRESSION_QUERY = RowShape("ledger.suppression_query", SUPPRESSION_COLUMNS, ("id",))
SUPPRESSION_FILE = RowShape("ledger.suppression_file", SUPPRESSION_COLUMNS, ("id",))


def read_suppressed(settings: Settings) -> dict[str, frozenset[str]]:
    """The ids of holders and accounts that no request may be about, by merchant; empty where no list is set.

    Raises:
        LedgerError: a list cannot be read, or has a row that cannot be understood.
    """
    chosen, merchants = settings.ledger, settings.merchant_names
    found: defaultdict[str, frozenset[str]] = defaultdict(frozenset)
    if chosen.suppression_file is not None:
        rows = read_csv(chosen.suppression_file, SUPPRESSION_FILE)
        for merchant, ids in suppressed_by_merchant(rows, merchants, str(chosen.suppression_file)).items():
            found[merchant] |= ids
    if chosen.suppression_query is not None and chosen.url is not None:
        asked = read_query(chosen.url, chosen.suppression_query, SUPPRESSION_QUERY)
        for merchant, ids in suppressed_by_merchant(asked, merchants, SUPPRESSION_QUERY.setting).items():
            found[merchant] |= ids
    return dict(found)
