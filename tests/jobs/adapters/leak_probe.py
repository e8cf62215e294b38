"""Run in a process of its own: makes calls that go wrong in every way, as loudly as possible, and prints all it can see.

`gateway` makes them through the gateway, `package` through the bare `stripe` package. Arguments: which, the server's
URL. The key comes on stdin, so that it stands in no argument and no environment.
"""

from __future__ import annotations

import logging
import sys
import traceback
from types import TracebackType

VERSION = "2026-09-30.preview"
BODY = "account_holder[type]=customer&account_holder[customer]=cus_1&permissions[0]=balances"


def through_gateway(key: str, url: str) -> None:
    from jobs.adapters.rate_limiter import RateLimiter
    from jobs.adapters.stripe_gateway import StripeGateway

    target = StripeGateway(
        key,
        api_base=url,
        api_version=VERSION,
        limiter=RateLimiter(requests_per_second=1e6, endpoint_requests_per_second=1e6),
        max_attempts=2,
        sleep=lambda _: None,
    )
    print(target)
    # The order is the script of the test.
    for _ in range(8):
        show(lambda: target.create_session(BODY, api_version=VERSION, idempotency_key="k", may_send=lambda: True))
    show(target.list_accounts_page)
    show(lambda: target.retrieve_session("fcsess_1"))
    show(lambda: target.retrieve_session("fcsess_1"))
    target.close()


def through_package(key: str, url: str) -> None:
    import stripe

    client = stripe.StripeClient(key, base_addresses={"api": url}, stripe_version=VERSION)
    for _ in range(11):
        show(lambda: client.raw_request("post", "/v1/financial_connections/sessions", permissions=["balances"]))


def show(call: object) -> None:
    try:
        print(call())  # type: ignore[operator]
    except Exception as error:
        print_all(error, set())


def print_all(error: BaseException | None, seen: set[int]) -> None:
    """Print an exception as an error tracker would: every local variable of every frame, the chain, all attributes."""
    if error is None or id(error) in seen:
        return
    seen.add(id(error))
    print(repr(error), error, vars(error), error.args)
    traceback.print_exception(error)
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        for name, value in trace.tb_frame.f_locals.items():
            print(trace.tb_frame.f_code.co_qualname, name, f"{value!r} {value}")
        trace = trace.tb_next
    print_all(error.__context__, seen)
    print_all(error.__cause__, seen)


if __name__ == "__main__":
    logging.basicConfig(level=logging.DEBUG)
    {"gateway": through_gateway, "package": through_package}[sys.argv[1]](sys.stdin.readline().strip(), sys.argv[2])
