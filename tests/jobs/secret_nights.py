"""Run in a process of its own: several nights with faults, as loudly as possible, the last ending in a crash.

Arguments: the settings file, the server's URL. The key comes in the environment, as under cron. `bare` in place of the settings
file makes the like calls through the bare `stripe` package: the control.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
import urllib.request
from datetime import datetime
from pathlib import Path
from typing import Any

VERSION = "2026-09-30.preview"


def control(url: str, name: str, **values: Any) -> Any:
    """Steer the simulated world from here."""
    request = urllib.request.Request(f"{url}/_simulator/{name}", json.dumps(values).encode(), method="POST")
    with urllib.request.urlopen(request) as answer:
        return json.loads(answer.read())


def look(url: str, name: str) -> Any:
    with urllib.request.urlopen(f"{url}/_simulator/{name}") as answer:
        return json.loads(answer.read())


def nights(config: Path, url: str) -> None:
    from jobs.cli.common import print_json
    from jobs.cli.results import as_plain, print_result
    from jobs.handover import Handover
    from jobs.logs import configure_logging, install_excepthook
    from jobs.nightly import run
    from jobs.settings import load_settings
    from jobs.simulator.faults import AFTER, BEFORE, DURING, ODD_PAGES
    from jobs.wiring import wire
    from jobs.work import Work

    install_excepthook()
    settings = load_settings(config, os.environ)
    configure_logging("text", "debug")

    def now() -> datetime:
        return datetime.fromisoformat(look(url, "stats")["now_at"])

    def one(work: Work) -> None:
        try:
            with wire(settings, os.environ, holder=work.command, clock=now, sleep=lambda _: None) as wiring:
                print(wiring)
                result = run(wiring, work)
                print(result)
                print_json(as_plain(result))
                print_result(result, {})
        except Exception:
            logging.getLogger("jobs").exception("a night ended badly")
        control(url, "clear_faults")

    def fault(kind: str, **more: Any) -> None:
        control(url, "script_fault", kind=kind, method=more.pop("method", "POST"), **more)

    for kind in ("reset_after", "cut_body", "cut_json", "not_json", "error_500_after", "lock_timeout", "in_use"):
        fault(kind, times=3)
    control(url, "delete_customer", holder_id="cus_9")
    one(Work("run"))
    control(url, "advance", days=1)
    one(Work("collect", from_stored=True, collect_everything=True, sends=False))
    fault("cut_json", method="GET", path="*/sessions/*", times=2)
    fault("error_503", method="GET", path="*/sessions/*", times=3)
    one(Work("run"))
    with Handover.open(config, os.environ, now) as handover:
        for number in range(1, 13):
            offer = handover.offer_for("main", f"cus_{number}")
            print(offer)
            if offer is not None:
                handover.offered(offer)
    control(url, "advance", days=1)
    fault("unauthorized", method="GET", path="*/accounts", times=1)
    one(Work("run"))
    fault("cut_json", method="GET", path="*/accounts", times=9)
    one(Work("run"))
    control(url, "advance", days=5)
    fault("forbidden", times=1)
    one(Work("run"))
    one(Work("run"))
    # Every other fault that the stand-in knows: most at the first POSTs of one night, each odd page in a night of its own.
    control(url, "advance", days=5)
    met = look(url, "stats")["faults"]
    for kind in (*BEFORE, *DURING, *AFTER):
        if kind not in met:
            fault(kind, seconds=0.1)
    one(Work("run"))
    for kind in ODD_PAGES:
        control(url, "advance", days=1)
        fault(kind, method="GET", path="*/accounts", times=9)
        one(Work("run"))
    control(url, "advance", days=1)
    with wire(settings, os.environ, holder="run", clock=now, sleep=lambda _: None) as wiring:
        gateway = wiring.merchants[0].gateway
        answer = gateway.list_accounts_page()
        raise RuntimeError(
            f"a bug near {answer!r} with key {os.environ['STRIPE_API_KEY']} for ada.berg7@customer.example"
        )


def bare(url: str) -> None:
    import stripe

    logging.basicConfig(level=logging.DEBUG)
    client = stripe.StripeClient(os.environ["STRIPE_API_KEY"], base_addresses={"api": url}, stripe_version=VERSION)
    for number in range(1, 10):
        try:
            made = client.raw_request(
                "post",
                "/v1/financial_connections/sessions",
                account_holder={"type": "customer", "customer": f"cus_{number}"},
                permissions=["balances"],
                relink_options={"authorization": f"fcauth_{number}"},
            )
            print(made)
        except stripe.StripeError:
            traceback.print_exc()


if __name__ == "__main__":
    if sys.argv[1] == "bare":
        bare(sys.argv[2])
    else:
        nights(Path(sys.argv[1]), sys.argv[2])
