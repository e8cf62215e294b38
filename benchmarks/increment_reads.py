"""What an incremental night reads beside a full pull, by what changed: python -m benchmarks.increment_reads [--accounts 100000] [--share 0.003]

Both pull the same world of the stand-in, and their findings are compared. The first mixture is of changes that events tell nearly all of: of the changed
accounts, 70 % have a new date of deactivation or new account numbers, 10 % were disconnected, 15 % broke or were mended, 5 % are new. In the second,
all broke or were mended, and each of those has to be read again. An authorization has two accounts in both.
"""

from __future__ import annotations

import argparse
import random
import sys
from datetime import UTC, datetime, timedelta

import pandas as pd

from jobs.adapters.rate_limiter import RateLimiter
from jobs.adapters.stripe_gateway import StripeGateway
from jobs.increment import Base, FullPullNeeded, Wanted, pull_increment
from jobs.segments import walk
from jobs.settings import MerchantSettings
from jobs.simulator.changes import issue_number
from jobs.simulator.server import SimulatorServer
from jobs.simulator.world import World
from jobs.wiring import Merchant
from reconcile.classify import classify
from reconcile.frames import HISTORY, empty
from reconcile.ledger import check_rows, require_clean
from reconcile.model import RunStamp
from reconcile.normalize import ledger_frame
from reconcile.policy import RelinkPolicy
from tests.jobs.nights import KEY, SCOPE, add_customer, ledger_of

MIXES = {
    "mostly told by events": {
        "date": 0.5,
        "numbers": 0.2,
        "disconnected": 0.1,
        "broken": 0.1,
        "mended": 0.05,
        "new": 0.05,
    },
    "all broken or mended": {"broken": 0.6, "mended": 0.4},
}


def change(world: World, mix: dict[str, float], authorizations: int, chance: random.Random, customers: int) -> None:
    """Let so many authorizations change, each by one of the mixture's changes."""
    now = datetime.fromtimestamp(world.clock.now_seconds(), UTC)
    chosen = iter(chance.sample(range(2, customers, 3), authorizations))
    mended = iter(range(1, customers, 3))  # each third one is broken from the start
    for kind, share in mix.items():
        for number in range(round(share * authorizations)):
            name = f"fcauth_{next(mended) if kind == 'mended' else next(chosen)}"
            if kind == "date":
                world.expect_deactivation(name, at=now + timedelta(days=29))
            elif kind == "numbers":
                for account in world.authorizations[name].accounts:
                    issue_number(world, account)
            elif kind == "disconnected":
                world.disconnect_authorization(name)
            elif kind == "broken":
                world.break_authorization(name)
            elif kind == "mended":
                world.heal_authorization(name)
            else:
                add_customer(world, customers + 1 + number)
                for account in world.authorizations[f"fcauth_{customers + 1 + number}"].accounts:
                    world.emit("account.created", account)


def findings(accounts: pd.DataFrame, ledger: pd.DataFrame, stamp: RunStamp) -> pd.DataFrame:
    """What follows from the accounts; when they were last refreshed is not compared."""
    return classify(accounts, ledger, empty(HISTORY), RelinkPolicy(), stamp).drop(columns=["last_refreshed_at"])


def night(accounts: int, share: float, mix: dict[str, float]) -> tuple[int, int, dict[str, int], bool]:
    """Reads of a full pull, of an incremental one and its parts, and whether both find the same."""
    customers = accounts // 2
    world = World.empty(seed=5)
    for number in range(1, customers + 1):
        add_customer(world, number)
    for number in range(1, customers, 3):
        if number < 0.1 * customers:
            world.break_authorization(f"fcauth_{number}")
    world.advance(days=1)  # what is broken from the start is no news
    with SimulatorServer(world) as server:
        limiter = RateLimiter(requests_per_second=1e6, endpoint_requests_per_second=1e6)
        gateway = StripeGateway(KEY, api_base=server.base_url, api_version="2026-09-30.preview", limiter=limiter)
        before = walk(gateway.list_account_columns, SCOPE)
        assert before.server_at is not None
        base = Base(before.accounts, before.server_at.date(), before.server_at, before.server_at)
        world.advance(days=0.5)
        change(world, mix, round(share * accounts / 2), random.Random(7), customers)  # noqa: S311 - a draw, no secret
        world.advance(days=0.5)
        now = datetime.fromtimestamp(world.clock.now_seconds(), UTC)
        stamp = RunStamp("benchmark", "run", now, now.date(), "UTC")
        ledger = ledger_frame(require_clean(check_rows(ledger_of(world), ["main"])), "main")
        spent = gateway.meter.counts().reads
        merchant = Merchant(MerchantSettings(name="main"), SCOPE, "", gateway)
        try:
            increment = pull_increment(merchant, base, ledger, Wanted((), ()), RelinkPolicy(), stamp, lambda: 0.0)
        except FullPullNeeded as why:
            raise SystemExit(f"a full pull is needed: {why}") from None
        parts = {name: count - spent.get(name, 0) for name, count in gateway.meter.counts().reads.items()}
        truth = walk(gateway.list_account_columns, SCOPE).accounts
        full = gateway.meter.counts().reads["pull"] - parts.pop("pull") - spent["pull"]
        same = findings(increment.accounts, ledger, stamp).equals(findings(truth, ledger, stamp))
        gateway.close()
    return full, sum(parts.values()), parts, same


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accounts", type=int, default=100_000)
    parser.add_argument("--share", type=float, default=0.003)
    given = parser.parse_args()
    sys.stdout.write(
        "| changes | reads, full | reads, incremental | of these | part | same findings |\n|---|---|---|---|---|---|\n"
    )
    for name, mix in MIXES.items():
        full, reads, parts, same = night(given.accounts, given.share, mix)
        shown = ", ".join(f"{count} {part}" for part, count in sorted(parts.items()) if count)
        sys.stdout.write(
            f"| {name} | {full} | {reads} | {shown} | 1/{full / reads:.0f} | {'yes' if same else 'NO'} |\n"
        )
        sys.stdout.flush()


if __name__ == "__main__":
    main()
