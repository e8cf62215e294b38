"""The state of a simulated Stripe account: objects, indexes, events and what is due later."""

from __future__ import annotations

import heapq
import threading
from bisect import insort
from collections import Counter, defaultdict, deque
from datetime import datetime
from hashlib import sha256
from itertools import islice
from typing import Any

from jobs.simulator import render
from jobs.simulator.banks import OTHER_NAMES, institution_id, make_institutions
from jobs.simulator.behaviour import Behaviour
from jobs.simulator.clock import SECONDS_PER_DAY, SimulatedClock, epoch_seconds
from jobs.simulator.draws import Draws, token
from jobs.simulator.faults import Faults
from jobs.simulator.idempotency import IdempotencyStore
from jobs.simulator.model import Account, Authorization, Effect, Event, Holder, Institution, Session
from jobs.simulator.request_log import LoggedCall

DEFAULT_API_VERSION = "2026-10-28.endive"
EVENT_LIFETIME_SECONDS = 30 * SECONDS_PER_DAY
LOG_LENGTH = 500_000


class State:
    """Everything the simulated account holds. `lock` guards all of it; hold it around every call from outside."""

    def __init__(
        self,
        *,
        seed: int,
        start: datetime,
        livemode: bool,
        behaviour: Behaviour,
        clock: SimulatedClock | None,
        default_api_version: str,
        stripe_account: str,
    ) -> None:
        shown = render.rendering(default_api_version)
        if shown is None:
            raise ValueError(f"{default_api_version!r} is no API version; write it as 2026-10-28.endive")
        self.seed = seed
        self.livemode = livemode
        self.behaviour = behaviour
        self.clock = clock or SimulatedClock(start)
        self.start = self.now = min(epoch_seconds(start), self.clock.now_seconds())
        self.default_api_version = default_api_version
        self.default_rendering = shown
        self.stripe_account = stripe_account
        self.hosted_address = "https://relink.simulator.example"
        self.lock = threading.RLock()

        self.institutions, self.institution_shares = make_institutions(livemode)
        self.authorizations: dict[str, Authorization] = {}
        self.accounts: dict[str, Account] = {}
        self.listing: list[Account] = []
        self.sessions: dict[str, Session] = {}
        self.holders: dict[str, Holder] = {}
        self.deleted_holders: set[str] = set()
        self.emails: dict[str, str | None] = {}
        self.overrides: dict[str, dict[str, Any]] = {}
        self.other_mode_ids: set[str] = set()
        self.events: list[Event] = []
        self.event_ids: set[str] = set()
        self.due: list[tuple[int, int, str, int]] = []
        self.first_authorizations = 0
        self.attempts_of_holder: Counter[str] = Counter()
        self._accounts_of_holder: dict[str, list[Account]] | None = None

        self.idempotency = IdempotencyStore()
        self.faults = Faults(seed)
        self.calls: Counter[str] = Counter()
        self.log: deque[LoggedCall] = deque(maxlen=LOG_LENGTH)
        self.effects: list[Effect] = []
        self.lives_on: dict[str, list[str]] = {}
        """What no bank tells: the accounts that each account was linked again as."""
        self.refreshes: list[tuple[str, tuple[str, ...]]] = []
        self.secrets: set[str] = set()

    def draws(self, *purpose: object) -> Draws:
        """The draws of this world for a purpose."""
        return Draws(self.seed, *purpose)

    def schedule(self, at: int, kind: int, key: str, stamp: int = 0) -> None:
        """Let `timeline` do something at `at`; ties are settled by kind and key, so order of calls does not matter."""
        heapq.heappush(self.due, (at, kind, key, stamp))

    def institution(self, name: str) -> Institution:
        """The institution of that name; an unknown name becomes an ordinary bank."""
        name = OTHER_NAMES.get(name, name)
        if name not in self.institutions:
            self.institutions[name] = Institution(institution_id(name), name)
        return self.institutions[name]

    def index_account(self, account: Account) -> None:
        """Put a new account into the listing, which is kept oldest first."""
        self.accounts[account.id] = account
        if not self.listing or self.listing[-1].created <= account.created:
            account.position = len(self.listing)
            self.listing.append(account)
        else:
            insort(self.listing, account, key=lambda item: item.created)
            self.renumber()
        if self._accounts_of_holder is not None:
            self._accounts_of_holder = None

    def renumber(self) -> None:
        """Restore every account's position after the listing changed in the middle."""
        for position, account in enumerate(self.listing):
            account.position = position
        self._accounts_of_holder = None

    def accounts_of_holder(self, holder_id: str) -> list[Account]:
        """That holder's accounts, oldest first."""
        if self._accounts_of_holder is None:
            index: dict[str, list[Account]] = defaultdict(list)
            for account in self.listing:
                index[account.holder.id].append(account)
            self._accounts_of_holder = dict(index)
        return self._accounts_of_holder.get(holder_id, [])

    def forget_holder_index(self) -> None:
        """Call after an account changed hands."""
        self._accounts_of_holder = None

    def email_of(self, holder_id: str) -> str | None:
        """The e-mail address on file; about one customer in sixteen has none."""
        if holder_id not in self.emails:
            draws = self.draws("email", holder_id)
            name = f"{draws.pick(_GIVEN_NAMES)}.{draws.pick(_FAMILY_NAMES)}{draws.word() % 1000}"
            self.emails[holder_id] = None if draws.chance(1 / 16) else f"{name}@customer.example"
        return self.emails[holder_id]

    def named_holder(self, holder: Holder) -> str:
        """A holder as Stripe's error messages may name it, e-mail address included."""
        email = self.email_of(holder.id)
        if email is None:
            return holder.id
        self.secrets.add(email)
        return f"{holder.id} ({email})"

    def emit(
        self,
        event_type: str,
        item: Account | Authorization | Session,
        request_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> None:
        """Record an event, rendered now at the account's default API version (Stripe API docs: events)."""
        full_type = f"financial_connections.{event_type}"
        count = 0
        while True:
            name = f"{self.seed}:event:{full_type}:{item.id}:{self.now}:{count}"
            event_id = "evt_1" + token(name, 23)
            if event_id not in self.event_ids:
                break
            count += 1
        self.event_ids.add(event_id)
        payload = render.encode(self.rendered(item, self.default_rendering))
        if isinstance(item, Session):
            self.secrets.add(item.client_secret)
        self.events.append(Event(event_id, full_type, self.now, item.id, payload, request_id, idempotency_key))

    def rendered(self, item: Account | Authorization | Session, shown: render.Rendering) -> render.Json:
        """Any object as JSON at an API version."""
        if isinstance(item, Account):
            return render.account(item, shown, self.livemode, self.now, self.overrides.get(item.id))
        if isinstance(item, Authorization):
            return render.authorization(item, shown, self.livemode)
        return render.session(item, self.session_accounts(item, shown), shown, self.livemode)

    def session_accounts(self, session: Session, shown: render.Rendering) -> render.Json:
        """The embedded list of a session: its newest ten accounts, as for any embedded list of Stripe's."""
        found = [self.accounts[account_id] for account_id in session.account_ids if account_id in self.accounts]
        found.sort(key=lambda account: -account.position)
        return render.page(
            (self.rendered(account, shown) for account in islice(found, 10)),
            len(found) > 10,
            "/v1/financial_connections/accounts",
        )

    def prune_events(self) -> None:
        """Drop events older than 30 days (Stripe API docs: events are kept for 30 days)."""
        oldest = self.now - EVENT_LIFETIME_SECONDS
        keep_from = next((index for index, event in enumerate(self.events) if event.created >= oldest), None)
        if keep_from is None:
            keep_from = len(self.events)
        for event in self.events[:keep_from]:
            self.event_ids.discard(event.id)
        del self.events[:keep_from]

    def digest(self) -> str:
        """A hash of every account, authorization, session and event: equal worlds have equal digests."""
        shown = render.rendering("2026-09-30.preview")
        if shown is None:
            raise AssertionError("the newest preview version must be renderable")
        total = sha256(str(self.now).encode())
        for table in (self.accounts, self.authorizations, self.sessions):
            items: dict[str, Any] = dict(table)
            for key in sorted(items):
                total.update(render.encode(self.rendered(items[key], shown)))
        for event_id in sorted(event.id for event in self.events):
            total.update(event_id.encode())
        return total.hexdigest()


_GIVEN_NAMES = ("ada", "bo", "chidi", "dara", "emil", "fatou", "gus", "hana", "ines", "jun", "kofi", "lena")
_FAMILY_NAMES = ("abara", "berg", "castro", "dunn", "ekberg", "foss", "grant", "haas", "ito", "jensen", "kaya", "lund")
