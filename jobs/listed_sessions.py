"""What `ledger.sessions_query` yields tonight: which sessions are known, and which have to be read."""

from __future__ import annotations

import logging

from jobs.adapters import records
from jobs.merchant_lists import read_sessions
from jobs.night import Adoption, Listed, MerchantNight
from jobs.wiring import Wiring

logger = logging.getLogger(__name__)

MOST_READS = 100
"""Sessions of the list that are read in one night; the others wait for the next."""

NAMED_BY_HAND = "adopt"


def read_listed(wiring: Wiring, night: MerchantNight) -> None:
    """Fill in which listed sessions have to be read, without a call to Stripe; the newest come first where there are too many.

    Raises:
        LedgerError: the query fails or yields a row that cannot be understood, so that nobody knows whom somebody else has asked.
    """
    if wiring.settings.ledger.sessions_query is None or night.work.command == NAMED_BY_HAND:
        return
    scope, database = night.merchant.scope, wiring.database
    sessions = read_sessions(wiring.settings, wiring.clock()).get(scope.merchant, ())
    ids = [one.session_id for one in sessions]
    followed = records.followed_sessions(database, scope, ids)
    refused = records.refused_sessions(database, scope, ids)
    unknown = [one for one in sessions if one.session_id not in followed and one.session_id not in refused]
    # Where no time is given, the customer counts as asked tonight.
    unknown.sort(key=lambda one: one.requested_at or night.stamp.as_of, reverse=True)
    night.listed = Listed(
        ids=frozenset(ids),
        known=len(followed),
        to_read=tuple(unknown[:MOST_READS]),
        unread=len(unknown[MOST_READS:]),
        refused_before=tuple(
            (one, Adoption(one.session_id, "refused", why.why, authorization_id=why.authorization_id))
            for one in sessions
            if (why := refused.get(one.session_id)) is not None and one.session_id not in followed
        ),
    )
    logger.info(
        "ledger.sessions_query yields %d sessions: %d are followed, %d were refused before, %d are to be read",
        len(ids),
        len(followed),
        len(night.listed.refused_before),
        len(unknown),
    )
