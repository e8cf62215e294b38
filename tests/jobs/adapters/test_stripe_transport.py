"""The wire itself: connections, deadlines and what the package is told."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from jobs.adapters.stripe_transport import Breakdown, Reply, StripeTransport, WireBroken
from tests.jobs.adapters.stub_stripe import Scripted, StubStripe, answer, refusal, stub_stripe


@pytest.fixture
def stub() -> Iterator[StubStripe]:
    with stub_stripe() as started:
        yield started


def transport(clock: Callable[[], float] = lambda: 0.0) -> StripeTransport:
    return StripeTransport(user_agent="test", certificates="unused.pem", clock=clock)


def get(target: StripeTransport, stub: StubStripe) -> tuple[Any, Any]:
    """Return what the package is told and what came."""
    with target.exchange(None, 5.0) as exchange:
        try:
            told = target.request_with_retries("get", f"{stub.url}/v1/x", {"Authorization": "Bearer k"})
        except WireBroken as broken:
            return broken, exchange.outcome
    return told, exchange.outcome


def test_the_package_is_told_nothing_of_a_success(stub: StubStripe) -> None:
    """It has no use for a body, and would log and keep it."""
    stub.script = [answer({"id": "fca_1"}, Set_Cookie="x=y")]
    told, came = get(transport(), stub)
    assert told == ("{}", 200, {"request-id": "req_1"})
    assert isinstance(came, Reply)
    assert json.loads(came.body) == {"id": "fca_1"}
    assert "fca_1" not in repr(came)


def test_the_package_is_told_the_bare_class_of_an_error(stub: StubStripe) -> None:
    stub.script = [refusal(400, "idempotency_error", "x_in_use")]
    (body, status, headers), _ = get(transport(), stub)
    assert json.loads(body) == {"error": {"type": "idempotency_error", "code": "x_in_use", "param": None}}
    assert (status, headers) == (400, {"request-id": "req_1"})


def test_a_connection_is_kept_and_used_again(stub: StubStripe) -> None:
    """Bodies are read to their end, so that the next call need not connect anew."""
    target = transport()
    stub.script = [answer({"data": ["x" * 100_000]}), refusal(404), answer({}), Scripted(chunked=True), answer({})]
    for _ in range(5):
        get(target, stub)
    assert (len(stub.sent), stub.connections) == (5, 1)
    target.close()


def test_a_body_that_drips_beyond_the_deadline_is_a_cut_one(stub: StubStripe) -> None:
    """Each byte comes within the read timeout, and yet the call must end."""
    ticks = itertools.count(0.0, 10.0)
    stub.script = [answer({"id": "fca_1"})]
    _, came = get(transport(lambda: next(ticks)), stub)
    assert came == Breakdown("ProtocolError", sent=True, cut=True)


def test_a_certificate_that_nobody_signed_stops_the_call_before_it_is_sent(stub: StubStripe) -> None:
    """Only the wording of the library tells this from later TLS failures, so the wording is held fast here."""
    import requests
    import urllib3

    from jobs.adapters.stripe_transport import _never_connected

    reason = urllib3.exceptions.SSLError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed")
    refused = requests.exceptions.SSLError(urllib3.exceptions.MaxRetryError(None, "/", reason))  # type: ignore[arg-type]
    later = urllib3.exceptions.SSLError("[SSL: DECRYPTION_FAILED_OR_BAD_RECORD_MAC]")
    broken = requests.exceptions.SSLError(urllib3.exceptions.MaxRetryError(None, "/", later))  # type: ignore[arg-type]
    assert (_never_connected(refused), _never_connected(broken)) == (True, False)


def test_a_call_without_an_exchange_is_refused(stub: StubStripe) -> None:
    """Its answer would have nowhere to go but into the package."""
    target = transport()
    get(target, stub)
    with pytest.raises(RuntimeError):
        target.request_with_retries("get", stub.url, {})
