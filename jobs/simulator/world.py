"""The simulated world: populated or empty, with its keys and what can be counted in it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from jobs.simulator import population
from jobs.simulator.behaviour import Behaviour
from jobs.simulator.clock import SimulatedClock
from jobs.simulator.directed import DirectedWorld
from jobs.simulator.keys import ApiKey, make_key
from jobs.simulator.locking import locked
from jobs.simulator.state import DEFAULT_API_VERSION

DEFAULT_KEY = "rk_test_simulator"
DEFAULT_LIVE_KEY = "rk_live_simulator"
DEFAULT_START = datetime(2026, 11, 2, 3, 0, tzinfo=UTC)


class World(DirectedWorld):
    """A Stripe account with its customers and their bank accounts. Every method is safe to call while it is served."""

    def __init__(
        self,
        *,
        seed: int = 1,
        start: datetime = DEFAULT_START,
        livemode: bool = False,
        behaviour: Behaviour | None = None,
        clock: SimulatedClock | None = None,
        api_keys: Iterable[str] | None = None,
        default_api_version: str = DEFAULT_API_VERSION,
        stripe_account: str = "acct_1SimulatedMerchant",
    ) -> None:
        super().__init__(
            seed=seed,
            start=start,
            livemode=livemode,
            behaviour=behaviour or Behaviour.quiet(),
            clock=clock,
            default_api_version=default_api_version,
            stripe_account=stripe_account,
        )
        self.keys: dict[str, ApiKey] = {}
        for key in api_keys if api_keys is not None else (DEFAULT_LIVE_KEY if livemode else DEFAULT_KEY,):
            self.add_key(key)

    @classmethod
    def empty(cls, **options: Any) -> World:
        """A world without accounts in which nothing happens by itself; the options are those of the constructor."""
        return cls(**options)

    @classmethod
    def generate(
        cls, accounts: int = 2000, *, seed: int = 1, behaviour: Behaviour | None = None, **options: Any
    ) -> World:
        """A populated world; the same seed, size, start and behaviour give the same world and the same nights."""
        world = cls(seed=seed, behaviour=behaviour or Behaviour(), **options)
        population.populate(world, accounts)
        world.settle()
        return world

    # Keys and counts

    @locked
    def add_key(self, key: str, denied: Iterable[str] = ()) -> ApiKey:
        """Let a key in. `denied` are endpoint names it may not use; rk_ keys may use Financial Connections and events only."""
        made = make_key(key, frozenset(denied), self.livemode)
        self.keys[key] = made
        return made

    @locked
    def revoke_key(self, key: str) -> None:
        """From now on the key is refused with 401."""
        self.keys[key].revoked = True

    @property
    def secrets_issued(self) -> frozenset[str]:
        """Every client secret, hosted URL and e-mail address ever put into a reply, and every key."""
        with self.lock:
            return frozenset(self.secrets | set(self.keys))

    @locked
    def contacts_by_authorization(self) -> dict[str, int]:
        """How many sessions were really created for each authorization."""
        counts: dict[str, int] = {}
        for effect in self.effects:
            if effect.authorization_id is not None:
                counts[effect.authorization_id] = counts.get(effect.authorization_id, 0) + 1
        return counts

    @locked
    def stats(self) -> dict[str, Any]:
        """Counts for people: objects by status, calls by endpoint, faults injected."""
        statuses: dict[str, int] = {}
        for account in self.listing:
            statuses[account.status] = statuses.get(account.status, 0) + 1
        sessions: dict[str, int] = {}
        for session in self.sessions.values():
            sessions[session.status] = sessions.get(session.status, 0) + 1
        return {
            "now_at": self.now_at.isoformat(),
            "accounts": statuses,
            "authorizations": len(self.authorizations),
            "sessions": sessions,
            "events": len(self.events),
            "calls": dict(self.calls),
            "faults": dict(self.faults.injected),
        }
