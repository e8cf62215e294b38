"""For the merchant's web application: which relink session waits for a customer, and that it was handed over.

`Offer.delivery` says how: `modal` by the client secret and Stripe.js, `hosted_url` by leading the customer to the session's `url`, or
by a mail with it. Of a `hosted_email` session the customer has Stripe's mail already; a customer who is here may be led to its
`url` all the same. `examples/web_application` does all of it.

    from jobs.handover import Handover

    with Handover.open("config.yaml") as handover:
        offer = handover.offer_for("main", customer_id)
        if offer is not None:
            # retrieve offer.session_id from Stripe; go on only while its status is pending and its account_holder is this customer
            handover.offered(offer)
            # only now give its client secret or url to this customer's browser, and keep it nowhere

Only ids pass through here. The application retrieves the client secret or url itself when its customer is there, and never keeps it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Self

from jobs.adapters import records
from jobs.adapters.database import Database, open_database
from jobs.clock import Clock, system_clock
from jobs.settings import Settings, load_settings
from reconcile.contacts import is_open
from reconcile.errors import RelinkError, SettingsError
from reconcile.model import Scope


@dataclass(frozen=True, slots=True)
class Offer:
    """A session that waits for its customer; `offered_at` is set once it was handed over before.

    `account_ids` are the accounts that it is to bring back.
    """

    merchant: str
    mode: str
    session_id: str
    request_id: str
    authorization_id: str
    account_holder_id: str
    requested_at: datetime | None
    offered_at: datetime | None
    delivery: str = "modal"
    institution_name: str | None = None
    account_ids: tuple[str, ...] = ()


class OfferEndedError(RelinkError):
    """The offer is not what waits for its customer any more."""


class Handover(AbstractContextManager["Handover"]):
    """Reads offers from the job's records, and records when one is handed over; needs no API key. Safe for threads."""

    def __init__(self, settings: Settings, database: Database, clock: Clock = system_clock) -> None:
        self._settings = settings
        self._database = database
        self._clock = clock
        self._stack = ExitStack()

    @classmethod
    def open(
        cls, config: str | Path | None = None, environment: Mapping[str, str] | None = None, clock: Clock = system_clock
    ) -> Self:
        """Open the records that a settings file names.

        Raises:
            SettingsError: the settings are faulty.
            DatabaseError: the records cannot be read, or are of another version.
        """
        settings = load_settings(
            None if config is None else Path(config), os.environ if environment is None else environment
        )
        stack = ExitStack()
        with stack:
            database = stack.enter_context(open_database(settings.database.url, create=False))
            database.ensure_schema(create_new=False)
            handover = cls(settings, database, clock)
            handover._stack = stack.pop_all()
        return handover

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def offer_for(self, merchant: str, account_holder_id: str) -> Offer | None:
        """The newest open session of a customer, or None: then nothing is asked of this customer now.

        Raises:
            SettingsError: the settings have no such merchant.
        """
        scope = self._scope(merchant)
        if scope is None:
            return None
        waiting = [
            stored
            for stored in records.requests_for_holders(self._database, scope, [account_holder_id])
            if is_open(stored) and stored.session_id is not None
        ]
        if not waiting:
            return None
        newest = max(waiting, key=lambda stored: stored.planned_at)
        return Offer(
            merchant=scope.merchant,
            mode=scope.mode,
            session_id=newest.session_id or "",
            request_id=newest.request.request_id,
            authorization_id=newest.authorization_id,
            account_holder_id=newest.request.holder.id,
            requested_at=newest.requested_at,
            offered_at=newest.offered_at,
            delivery=newest.request.delivery,
            institution_name=newest.request.institution_name,
            account_ids=tuple(account.account_id for account in newest.request.covered),
        )

    def offered(self, offer: Offer) -> bool:
        """Record that the customer is being asked now; call it before the secret is given out. Returns whether it was the first time.

        Raises:
            OfferEndedError: the session was answered or has run out meanwhile; do not hand it over.
            DatabaseError: it could not be recorded; then do not hand the session over.
        """
        current = self.offer_for(offer.merchant, offer.account_holder_id)
        if current is None or current.session_id != offer.session_id:
            raise OfferEndedError(
                f"session {offer.session_id} no longer waits for its customer; call offer_for again and offer what it returns"
            )
        return records.mark_offered(self._database, Scope(offer.merchant, offer.mode), offer.session_id, self._clock())

    def _scope(self, merchant: str) -> Scope | None:
        if merchant not in self._settings.merchant_names:
            known = ", ".join(self._settings.merchant_names)
            raise SettingsError(f"the settings have no merchant {merchant!r}; they have {known}")
        mode = records.recorded_mode(self._database, merchant)
        return None if mode is None else Scope(merchant, mode)
