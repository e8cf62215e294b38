"""Settle what a dead run left: ask Stripe again under the same key while it still remembers it, and never after."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from jobs.adapters import records
from jobs.key_age import KeyAge
from jobs.night import MerchantNight
from jobs.send import CLOCK_TOLERANCE, later_clock, new_key_age
from jobs.sender import Sender
from jobs.wiring import Wiring
from reconcile.model import State, StoredRequest

logger = logging.getLogger(__name__)


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
    ages = _key_ages(wiring, night, attempting)
    sender = Sender(wiring, night.merchant)
    quiet = wiring.why_quiet()
    for stored in attempting:
        age = ages.get(stored.request.request_id)
        if age is None or age.expired():
            record_unknown(wiring, stored)
        elif quiet is not None and stored.request.delivery == "hosted_email":
            # Asking again may be what makes Stripe write to the customer; the next run asks, while the key is young enough.
            logger.warning("request %s is not settled yet: %s", stored.request.request_id, quiet)
            continue
        else:
            _replay(night, sender, stored, age)
        night.settled.append(stored.request.request_id)
    if night.settled:
        logger.warning("settled %d requests that an earlier run left unfinished", len(night.settled))


def _key_ages(wiring: Wiring, night: MerchantNight, attempting: Sequence[StoredRequest]) -> dict[str, KeyAge]:
    """How old each key is, by request id; one whose beginning is not known, or has not come yet, is left out."""
    if not attempting:
        return {}
    now = later_clock(wiring, night.merchant)
    return {
        stored.request.request_id: new_key_age(wiring, night.merchant, now - stored.attempting_at)
        for stored in attempting
        if stored.attempting_at is not None and now - stored.attempting_at >= -CLOCK_TOLERANCE
    }


def _replay(night: MerchantNight, sender: Sender, stored: StoredRequest, age: KeyAge) -> None:
    before = night.merchant.gateway.meter.counts().writes
    try:
        sender.send(stored, replay=age)
    finally:
        night.replays += night.merchant.gateway.meter.counts().writes - before


def record_unknown(wiring: Wiring, stored: StoredRequest) -> None:
    """Say that nobody can know whether Stripe acted."""
    records.record_result(
        wiring.database,
        stored.request.request_id,
        State.UNKNOWN,
        wiring.clock(),
        error_type="key_expired",
        error_message="the answer was lost and the idempotency key is too old to ask again",
        fence=wiring.fence,
    )
