"""Settle what a dead run left: ask Stripe again under the same key while it still remembers it, and never after."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from jobs.adapters import records
from jobs.night import MerchantNight
from jobs.send import Sender
from jobs.wiring import Wiring
from reconcile.model import State, StoredRequest

logger = logging.getLogger(__name__)

KEY_LIFETIME = timedelta(hours=20)
"""How long a key is trusted to be remembered. Stripe keeps it for at least 24 hours (Stripe API docs: idempotent requests); four
hours are left for clocks that differ and calls that hang."""


def settle(wiring: Wiring, night: MerchantNight) -> None:
    """Bring every unfinished request of earlier runs to an end before anything new is decided.

    What was only planned was provably not sent: it is given up, and tonight's plan decides afresh. What was being attempted is
    replayed byte for byte under its own key, or, once the key is too old, recorded as `unknown` and never sent again.
    """
    scope, database = night.merchant.scope, wiring.database
    if wiring.lease is None:
        return
    for run in records.unfinished_runs(database):
        if run.state == records.RUNNING and run.run_id != night.stamp.run_id:
            records.finish_run(
                database,
                run.run_id,
                records.INTERRUPTED,
                wiring.clock(),
                1,
                why="the run died; the next one settled it",
            )
    for stored in records.planned_requests(database, scope):
        records.record_not_sent(
            database, stored.request.request_id, wiring.clock(), error_message="the run ended before it was sent"
        )
        night.settled.append(stored.request.request_id)
    attempting = records.attempting_requests(database, scope)
    now = _later_clock(wiring, night) if attempting else wiring.clock()
    sender = Sender(wiring, night.merchant)
    for stored in attempting:
        if key_is_too_old(stored, now):
            record_unknown(wiring, stored)
        else:
            night.replays += 1
            sender.send(stored, replay=True)
        night.settled.append(stored.request.request_id)
    if night.settled:
        logger.warning("settled %d requests that an earlier run left unfinished", len(night.settled))


def _later_clock(wiring: Wiring, night: MerchantNight) -> datetime:
    """The later of this machine's clock and Stripe's, for one read: a clock that was set back must not make an old key young."""
    page = night.merchant.gateway.list_accounts_page(limit=1, purpose="clock")
    return max(wiring.clock(), page.server_at or wiring.clock())


def key_is_too_old(stored: StoredRequest, now: datetime) -> bool:
    """Whether Stripe may have forgotten the key, so that the same bytes would create a second session."""
    return stored.attempting_at is None or now - stored.attempting_at >= KEY_LIFETIME


def record_unknown(wiring: Wiring, stored: StoredRequest) -> None:
    """Say that nobody can know whether Stripe acted."""
    records.record_result(
        wiring.database,
        stored.request.request_id,
        State.UNKNOWN,
        wiring.clock(),
        error_type="key_expired",
        error_message="the answer was lost and the idempotency key is too old to ask again",
    )
