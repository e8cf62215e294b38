"""CPU time per account of listing accounts, for the ways the `stripe` package offers and for ours.

    python benchmarks/gateway_cost.py [--pages 60] [--repeats 5] [--preview-python VENV/bin/python]

A server on loopback, in a process of its own, hands out pages of 100 accounts rendered beforehand. Each way ends in the
same fields. The typed way of the preview package is measured where a Python that has it is named.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
KEY = "sk_test_benchmark"
VERSION = "2026-09-30.preview"
PAGE = 100
ACCOUNTS_PATH = "/v1/financial_connections/accounts"


def account(number: int) -> dict[str, Any]:
    inactive = number % 5 == 0
    refresh = {"last_attempted_at": 1_790_000_000, "next_refresh_available_at": 1_790_100_000, "status": "succeeded"}
    return {
        "id": f"fca_{number:024d}",
        "object": "financial_connections.account",
        "account_holder": {"customer": f"cus_{number // 2:014d}", "type": "customer"},
        "account_numbers": [
            {
                "expected_expiry_date": None,
                "identifier_type": "tokenized_account_number",
                "status": "transactable",
                "supported_networks": ["ach"],
            }
        ],
        "authorization": f"fcauth_{number // 2:024d}",
        "balance": {
            "as_of": 1_790_000_000,
            "cash": {"available": {"usd": 1000}},
            "current": {"usd": 1000},
            "type": "cash",
        },
        "balance_refresh": refresh,
        "category": "cash",
        "created": 1_700_000_000 + number,
        "display_name": "Sample checking account",
        "institution": f"fcinst_{number % 50:010d}",
        "institution_name": f"Bank {number % 50}",
        "last4": f"{number % 10_000:04d}",
        "livemode": False,
        "ownership": None,
        "ownership_refresh": refresh,
        "permissions": ["balances", "ownership", "payment_method", "transactions"],
        "status": "inactive" if inactive else "active",
        "status_details": {"inactive": {"action": "relink_required", "cause": "access_expired"}} if inactive else {},
        "subcategory": "checking",
        "subscriptions": ["transactions"],
        "supported_payment_method_types": ["us_bank_account"],
        "transaction_refresh": {"id": "fctxnref_1", **refresh},
    }


def render_pages(pages: int) -> list[bytes]:
    return [
        json.dumps(
            {
                "object": "list",
                "data": [account(page * PAGE + row) for row in range(PAGE)],
                "has_more": page + 1 < pages,
                "url": ACCOUNTS_PATH,
            },
            indent=2,
        ).encode()
        for page in range(pages)
    ]


def serve(pages: int, ready: Connection) -> None:
    bodies = render_pages(pages)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            _, cursor, last_id = self.path.partition("starting_after=fca_")
            body = bodies[int(last_id.partition("&")[0]) // PAGE + 1] if cursor else bodies[0]
            self.send_response_only(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Stay quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    ready.send(server.server_address[1])
    server.serve_forever()


@contextmanager
def served(pages: int) -> Iterator[str]:
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(pages, there), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{here.recv()}"
    finally:
        process.terminate()


def typed_package(url: str) -> int:
    """The objects of whichever package is installed, page after page."""
    import stripe

    stripe.enable_telemetry = False
    client = stripe.StripeClient(KEY, base_addresses={"api": url}, stripe_version=VERSION)
    seen = []
    for found in client.v1.financial_connections.accounts.list({"limit": PAGE}).auto_paging_iter():
        details = found.status_details
        inactive = getattr(details, "inactive", None)
        seen.append(
            (
                found.id,
                found.authorization,
                found.status,
                found.livemode,
                found.account_holder.customer,
                inactive and inactive.action,
                found.institution_name,
                found.last4,
                found.category,
                found.subcategory,
                tuple(found.permissions or ()),
                found.created,
                found.institution,
            )
        )
    return len(seen)


def raw_package(url: str) -> int:
    """The stable package's raw request and its own decoding into mappings."""
    import stripe

    stripe.enable_telemetry = False
    client = stripe.StripeClient(KEY, base_addresses={"api": url}, stripe_version=VERSION)
    seen: list[tuple[Any, ...]] = []
    cursor: dict[str, str] = {}
    while True:
        page: Any = client.raw_request("get", ACCOUNTS_PATH, limit=PAGE, **cursor).data
        for found in page["data"]:
            inactive = (found["status_details"] or {}).get("inactive") or {}
            seen.append(
                (
                    found["id"],
                    found["authorization"],
                    found["status"],
                    found["livemode"],
                    found["account_holder"]["customer"],
                    inactive.get("action"),
                    found["institution_name"],
                    found["last4"],
                    found["category"],
                    found["subcategory"],
                    tuple(found["permissions"] or ()),
                    found["created"],
                    found["institution"],
                )
            )
        if not page["has_more"]:
            return len(seen)
        cursor = {"starting_after": page["data"][-1]["id"]}


def gateway(url: str) -> int:
    """Our gateway, to its records."""
    from jobs.adapters.rate_limiter import RateLimiter
    from jobs.adapters.stripe_gateway import StripeGateway

    limiter = RateLimiter(requests_per_second=1e6, endpoint_requests_per_second=1e6)
    target = StripeGateway(KEY, api_base=url, api_version=VERSION, limiter=limiter)
    seen = []
    page = target.list_accounts_page()
    seen.extend(page.records)
    while page.has_more:
        page = target.list_accounts_page(page.last_id)
        seen.extend(page.records)
    target.close()
    return len(seen)


def pull(url: str) -> int:
    """The whole pull of a night by one cursor, to its columns."""
    from jobs.adapters.rate_limiter import RateLimiter
    from jobs.adapters.stripe_gateway import StripeGateway
    from jobs.segments import walk
    from reconcile.model import Scope

    limiter = RateLimiter(requests_per_second=1e6, endpoint_requests_per_second=1e6)
    target = StripeGateway(KEY, api_base=url, api_version=VERSION, limiter=limiter)
    accounts = walk(target.list_account_columns, Scope("main", "sandbox")).accounts
    target.close()
    return len(accounts)


def records_only(pages: int) -> Callable[[str], int]:
    """Our reading alone, from bytes to records, without the wire."""
    from jobs.adapters.stripe_records import read_accounts

    bodies = render_pages(pages)
    return lambda _: sum(len(read_accounts(body)[0]) for body in bodies)


def cost_microseconds(way: Callable[[str], int], url: str, repeats: int) -> float:
    """Return the median CPU time per account, after one round that warms up."""
    way(url)
    costs = []
    for _ in range(repeats):
        started = time.process_time()
        accounts = way(url)
        costs.append((time.process_time() - started) / accounts * 1e6)
    return statistics.median(costs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--preview-python", help="a Python whose stripe package is a preview one")
    parser.add_argument("--typed-at", metavar="URL", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.typed_at:
        sys.stdout.write(f"{cost_microseconds(typed_package, given.typed_at, given.repeats)}\n")
        return

    sys.path.insert(0, str(ROOT))
    rows: list[tuple[str, float]] = []
    with served(given.pages) as url:
        if given.preview_python:
            command = [given.preview_python, __file__, "--typed-at", url, "--repeats", str(given.repeats)]
            typed = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - as the caller named it
            rows.append(("preview package, typed objects, auto_paging_iter", float(typed.stdout)))
        rows.append(("stable package, auto_paging_iter", cost_microseconds(typed_package, url, given.repeats)))
        rows.append(
            ("stable package, raw_request and its decoding", cost_microseconds(raw_package, url, given.repeats))
        )
        rows.append(("gateway, wire to records", cost_microseconds(gateway, url, given.repeats)))
        rows.append(("pull, wire to columns", cost_microseconds(pull, url, given.repeats)))
        rows.append(("gateway, bytes to records", cost_microseconds(records_only(given.pages), url, given.repeats)))
    sys.stdout.write("| way | us CPU per account |\n|---|---|\n")
    for name, cost in rows:
        sys.stdout.write(f"| {name} | {cost:.1f} |\n")


if __name__ == "__main__":
    main()
