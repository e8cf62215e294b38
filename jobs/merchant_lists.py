"""Reads the merchant's lists beside the ledger: whom never to contact, and which sessions something else made."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime

from jobs.adapters.ledger import RowShape, read_csv, read_query
from jobs.settings import Settings
from reconcile.listed_sessions import SESSION_COLUMNS, ListedSession, sessions_by_merchant
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


def read_sessions(settings: Settings, now: datetime) -> dict[str, tuple[ListedSession, ...]]:
    """The sessions that `ledger.sessions_query` yields, by merchant; empty where it is not set.

    It is asked of the ledger's database: the one at `ledger.url`, or the job's own where that is null.

    Raises:
        LedgerError: the query fails, or yields a row that cannot be understood.
    """
    chosen = settings.ledger
    if chosen.sessions_query is None:
        return {}
    name = "ledger.sessions_query"
    shape = RowShape(name, SESSION_COLUMNS, ("session_id",), "database.url" if chosen.url is None else "ledger.url")
    rows = read_query(chosen.url or settings.database.url, chosen.sessions_query, shape)
    return sessions_by_merchant(rows, settings.merchant_names, now, name)
