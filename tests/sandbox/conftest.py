"""What is probed: the stand-in always, Stripe's sandbox where `pytest -m stripe_sandbox` asks for it and a key is there."""

from __future__ import annotations

import os
import re
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import jobs.simulator
from jobs.adapters.rate_limiter import RateLimiter
from jobs.adapters.stripe_gateway import StripeGateway
from jobs.probe import Observation, probe_reads
from jobs.settings import StripeSettings
from jobs.simulator.behaviour import Behaviour
from jobs.simulator.server import SimulatorServer
from jobs.simulator.stripe_behaviours import SEEN, Sighting, as_json, sightings_on_file
from jobs.simulator.world import DEFAULT_KEY, World
from tests.jobs.nights import make_session
from tests.sandbox.probes import Target, probe_answered, probe_writes

KEY = "RELINK_SANDBOX_KEY"
SESSIONS = "RELINK_SANDBOX_SESSIONS"
VERSION = StripeSettings().api_version
SEEN_FILE = Path(jobs.simulator.__file__).parent / SEEN

TARGETS = ("stand-in", pytest.param("stripe", marks=pytest.mark.stripe_sandbox))


def sandbox_key(environment: dict[str, str]) -> str | None:
    """The key to probe with, None where there is none.

    Raises:
        ValueError: it is no key of a sandbox; the text does not show it.
    """
    key = environment.get(KEY, "").strip()
    if not key:
        return None
    if not re.fullmatch(r"(rk|sk)_test_\w+", key):
        raise ValueError(f"{KEY} is no sandbox key: it must begin with rk_test_ or sk_test_. Nothing was sent.")
    return key


def gateway(key: str, api_base: str, calls_per_second: float) -> StripeGateway:
    limiter = RateLimiter(requests_per_second=calls_per_second, endpoint_requests_per_second=calls_per_second)
    return StripeGateway(key, api_base=api_base, api_version=VERSION, limiter=limiter, max_attempts=4)


def probed_world(**behaviour: Any) -> World:
    """A world that has something of everything that is probed."""
    start = datetime(2026, 11, 2, 3, tzinfo=UTC)
    start = datetime(2026, 11, 2, 3, tzinfo=UTC)
    world = World.empty(
        seed=3, start=start, behaviour=replace(Behaviour.quiet(), sibling_reactivated_share=1.0, **behaviour)
    )

    def add(name: str, kind: str = "customer", bank: str = "Alderbrook Mutual", accounts: int = 2) -> None:
        created_at = start - timedelta(days=100 - len(world.authorizations))
        world.add_authorization(
            (kind, f"{kind}_{name}"), bank, accounts, authorization_id=f"fcauth_{name}", created_at=created_at
        )

    add("gone")
    world.disconnect_authorization("fcauth_gone")
    add("large", accounts=12)
    for name in ("same", "other", "sibling", "denied", "elsewhere"):
        add(name)
        world.break_authorization(f"fcauth_{name}")
    add("tokenized", bank="Bramblefield Bank")
    add("soon", bank="Immediately Requires Reauthentication")
    add("later", bank="Eventually Requires Reauthentication")
    add("closed")
    world.break_account(world.authorizations["fcauth_closed"].accounts[0].id, "account_closed", "none")
    add("platform", "account")
    add("newer", "customer_account")
    add("healthy")
    return world


HOW = {
    "large": "whole",
    "same": "whole",
    "tokenized": "whole",
    "soon": "whole",
    "later": "whole",
    "other": "new_authorization",
    "denied": "no_authorization",
    "elsewhere": "no_account",
    "sibling": "whole",
}


def answer_sessions(world: World, base_url: str) -> tuple[str, ...]:
    """Sessions for the world's logins, answered in each way."""
    account = {"relink_options[account]": world.authorizations["fcauth_sibling"].accounts[0].id}
    sessions = []
    for name, how in HOW.items():
        more = account if name == "sibling" else {}
        sessions.append(make_session(base_url, f"customer_{name}", f"fcauth_{name}", **more))
        world.answer(sessions[-1], how)
    return tuple(sessions)


def observe(target: str, **behaviour: Any) -> dict[str, Observation]:
    """Every observation of a target, by behaviour; the stand-in's own may be changed."""
    with ExitStack() as stack:
        if target == "stand-in":
            world = probed_world(**behaviour)
            server = stack.enter_context(SimulatorServer(world))
            chosen = Target(
                gateway(DEFAULT_KEY, server.base_url, 5000),
                gateway("rk_test_stranger", server.base_url, 5000),
                VERSION,
                answer_sessions(world, server.base_url),
            )
        else:
            try:
                key = sandbox_key(dict(os.environ))
            except ValueError as error:
                pytest.exit(str(error), returncode=2)
            if key is None:
                pytest.skip(f"{KEY} is not set: no sandbox to ask")
            base = StripeSettings().api_base
            answered = tuple(word for word in os.environ.get(SESSIONS, "").replace(",", " ").split() if word)
            chosen = Target(gateway(key, base, 8), gateway("rk_test_stranger", base, 8), VERSION, answered)
        stack.callback(chosen.gateway.close)
        stack.callback(chosen.stranger.close)
        found = {
            one.behaviour: one
            for probes in (
                probe_reads(chosen.gateway, VERSION, live=False),
                probe_writes(chosen),
                probe_answered(chosen),
            )
            for one in probes
        }
    if target == "stripe":
        record(found, datetime.now(UTC))
    return found


def record(found: dict[str, Observation], at: datetime, path: Path = SEEN_FILE) -> None:
    """Keep what was seen at Stripe, for the table; what could not be seen leaves an earlier sighting as it was."""
    seen = {
        one.behaviour: Sighting(at.date(), VERSION, one.agrees, one.saw)
        for one in found.values()
        if one.agrees is not None
    }
    path.write_text(as_json(sightings_on_file(path) | seen), encoding="utf-8")
