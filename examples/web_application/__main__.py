"""`python -m examples.web_application`: the application over a deployment of the job.

Without options it needs nothing: it starts the stand-in for Stripe, lets the real job ask a few made-up customers, and says where to look.
With `--config` it serves an existing deployment; the key comes from $STRIPE_SESSIONS_KEY.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from examples.web_application.app import Application, Server
from examples.web_application.stripe_sessions import StripeSessions
from jobs.handover import Handover
from jobs.settings import load_settings
from jobs.simulator.clock import SimulatedClock
from jobs.simulator.ledger import write_ledger_csv
from jobs.simulator.server import SimulatorServer
from jobs.simulator.world import DEFAULT_KEY, World

BANKS = {"modal": "Ash Bank", "hosted_url": "Oak Bank"}
STRIPE_JS = "https://js.stripe.com/v3/"


def made_up_world(customers: Iterable[str] = ("cus_1", "cus_2")) -> World:
    """Customers whose bank wants them back: in turn one of the modal's bank, one of the hosted page's."""
    now = datetime.now(UTC).replace(microsecond=0)
    world = World.empty(seed=3, start=now, clock=SimulatedClock(now, rate=1.0))
    for number, customer_id in enumerate(customers):
        bank = tuple(BANKS.values())[number % 2]
        made = world.add_authorization(("customer", customer_id), bank, 2, tokenized=False)
        world.break_authorization(made.id)
    return world


def prepare(directory: Path, world: World, stripe: SimulatorServer, back: str) -> Path:
    """Write settings and a ledger for the stand-in, and let the real job ask; returns the settings file."""
    config = directory / "config.yaml"
    settings = {
        "merchants": [{"name": "main"}],
        "stripe": {"api_base": stripe.base_url},
        "database": {"url": f"sqlite:///{directory / 'relink.db'}"},
        "reports": {"directory": str(directory / "reports"), "formats": ["csv", "parquet"]},
        "relink": {
            "return_url": back,
            "delivery_rules": [{"institution": bank, "delivery": delivery} for delivery, bank in BANKS.items()],
        },
        "log": {"level": "debug"},
        "brakes": {"minimum": 1000},
    }
    config.write_text(json.dumps(settings))
    ledger = directory / "ledger.csv"
    write_ledger_csv(ledger, [{"account_id": one.id, "account_holder_id": one.holder.id} for one in world.listing])
    relink(directory, config, "ledger", "load", str(ledger))
    relink(directory, config, "run")
    return config


def relink(directory: Path, config: Path, *command: str, environment: Mapping[str, str] | None = None) -> None:
    """Run the job's command as cron would, its log beside the rest."""
    with (directory / "relink.log").open("ab") as log:
        subprocess.run(  # noqa: S603
            [sys.executable, "-P", "-m", "jobs", "--config", str(config), *command],
            check=True,
            stdout=log,
            stderr=log,
            env={**os.environ, "STRIPE_API_KEY": DEFAULT_KEY, **(environment or {})},
        )


def application(config: Path, merchant: str, key: str, stripe_js: str) -> Application:
    """The application over a settings file."""
    settings = load_settings(config, {})
    chosen = next(one for one in settings.merchants if one.name == merchant)
    sessions = StripeSessions(key, settings.stripe.api_base, chosen.stripe_account)
    publishable_key = os.environ.get("STRIPE_PUBLISHABLE_KEY", "pk_test_none")
    return Application(Handover.open(config, {}), sessions, merchant, stripe_js, publishable_key)


def main() -> int:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m examples.web_application", description=__doc__)
    parser.add_argument("--config", type=Path, help="an existing deployment")
    parser.add_argument("--merchant", default="main")
    parser.add_argument("--stripe-js", default=STRIPE_JS, help="where Stripe.js is; a stand-in while trying")
    parser.add_argument("--port", type=int, default=8080)
    options = parser.parse_args()
    if options.config is not None:
        made = application(options.config, options.merchant, os.environ["STRIPE_SESSIONS_KEY"], options.stripe_js)
        return _serve(Server(made, options.port))
    with tempfile.TemporaryDirectory() as directory:
        world = made_up_world()
        with SimulatorServer(world, browser_pages=True) as stripe:
            config = prepare(Path(directory), world, stripe, f"http://127.0.0.1:{options.port}/relink/back")
            script = f"{stripe.base_url}/_simulator/browser/stripe.js"
            made = application(config, "main", DEFAULT_KEY, script)
            print("Sign in as cus_1 (modal) or cus_2 (hosted page).")  # noqa: T201
            return _serve(Server(made, options.port))


def _serve(server: Server) -> int:
    print(f"{server.address}  (Ctrl-C stops it)", flush=True)  # noqa: T201
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
