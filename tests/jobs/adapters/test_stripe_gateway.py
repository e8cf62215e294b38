"""Calls over a real socket: what is sent, what is tried again and when, and what a failure says."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from jobs.adapters.rate_limiter import RateLimiter
from jobs.adapters.stripe_answers import judge_breakdown, over_all_attempts
from jobs.adapters.stripe_gateway import StripeGateway
from reconcile.errors import KeyRefused
from reconcile.records import CallFailure, MalformedAnswer, ReadFailed, ReadRejected, StripeCallFailed
from tests.jobs.adapters.stub_stripe import Scripted, Sent, StubStripe, answer, refusal, stub_stripe

KEY = "rk_test_4242424242424242"
VERSION = "2026-09-30.preview"
BODY = "account_holder[type]=customer&account_holder[customer]=cus_1&permissions[0]=balances"
IDEMPOTENCY_KEY = "contact-0123456789abcdef"
SESSION = {
    "id": "fcsess_1",
    "livemode": False,
    "status": "pending",
    "client_secret": "fcsess_client_secret_1",
    "relink_options": {"authorization": "fcauth_1"},
}


class Time:
    """A clock that moves only when something sleeps on it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def stub() -> Iterator[StubStripe]:
    with stub_stripe() as started:
        yield started


@pytest.fixture
def time() -> Time:
    return Time()


def gateway(api_base: str, time: Time, **options: Any) -> StripeGateway:
    fast = RateLimiter(
        requests_per_second=1e6, endpoint_requests_per_second=1e6, clock=time.clock, sleep=lambda _: None
    )
    defaults: dict[str, Any] = {"limiter": fast, "random_share": lambda: 1.0}
    return StripeGateway(
        KEY,
        api_base=api_base,
        api_version=VERSION,
        clock=time.clock,
        sleep=time.sleep,
        **(defaults | options),
    )


def create(target: StripeGateway) -> Any:
    return target.create_session(BODY, api_version=VERSION, idempotency_key=IDEMPOTENCY_KEY, may_send=lambda: True)


def failure_of(target: StripeGateway) -> CallFailure:
    with pytest.raises(StripeCallFailed) as raised:
        create(target)
    assert raised.value.__cause__ is None
    assert raised.value.__context__ is None
    return raised.value.failure


# Every row of the fault classes: what Stripe does -> fault, wire attempts of at most 3, may it have acted.
FAULTS = {
    "400 validation": (refusal(400, code="parameter_unknown"), "rejected", 1, False),
    "402": (refusal(402, "card_error"), "rejected", 1, True),
    "404": (refusal(404, code="resource_missing"), "rejected", 1, False),
    "424": (refusal(424), "rejected", 1, True),
    **{
        f"{status} bank unavailable": (
            refusal(status, code="financial_connections_institution_unavailable"),
            "institution_unavailable",
            1,
            acted,
        )
        for status, acted in ((400, False), (424, True), (503, True))
    },
    "400 idempotency": (refusal(400, "idempotency_error"), "idempotency_mismatch", 1, True),
    "401": (refusal(401), "key_refused", 1, False),
    "403": (refusal(403), "key_refused", 1, False),
    "409 in use": (refusal(409, code="idempotency_key_in_use"), "in_use", 3, True),
    "409 in use, typed idempotency": (
        refusal(409, "idempotency_error", "idempotency_key_in_use"),
        "in_use",
        3,
        True,
    ),
    "409 lock": (refusal(409, code="lock_timeout"), "lock", 3, True),
    "429": (refusal(429, code="rate_limit", Stripe_Rate_Limited_Reason="endpoint-rate"), "rate", 3, False),
    "429 lock": (refusal(429, code="lock_timeout"), "lock", 3, False),
    "500": (refusal(500, "api_error"), "server", 3, True),
    "503 without a body": (Scripted(503, b""), "server", 3, True),
    "500, not to be retried": (refusal(500, "api_error", Stripe_Should_Retry="false"), "server", 1, True),
    "400, to be retried": (refusal(400, Stripe_Should_Retry="true"), "rejected", 3, False),
    "401 is final whatever the header says": (
        refusal(401, Stripe_Should_Retry="true"),
        "key_refused",
        1,
        False,
    ),
    "reset": (Scripted(reset=True), "connection", 3, True),
    "cut body": (Scripted(body=b'{"id": "fcsess_1", "livemode": false}', cut=True), "cut_body", 3, True),
    "cut chunk": (
        Scripted(body=b'{"id": "fcsess_1", "livemode": false}', cut=True, chunked=True),
        "cut_body",
        3,
        True,
    ),
    "cut JSON that came whole": (Scripted(body=b'{"id": "fcsess_1", "live'), "cut_body", 3, True),
    "no JSON": (Scripted(body=b"<html>"), "cut_body", 3, True),
    "damaged gzip": (Scripted(body=b"no gzip", headers={"Content-Encoding": "gzip"}), "cut_body", 3, True),
    "500 with a cut body": (Scripted(500, b'{"error": {}}', cut=True), "server", 3, True),
    "no id": (answer({"livemode": False}), "unparsable", 1, True),
    "id of another type": (answer({"id": 7, "livemode": False}), "unparsable", 1, True),
    "redirect": (Scripted(307, headers={"Location": "http://127.0.0.1:9/"}), "unparsable", 1, True),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_has_its_class_and_its_number_of_attempts(name: str, stub: StubStripe, time: Time) -> None:
    """One key and one body whatever happens, and the failure says whether a session may exist."""
    reply, fault, attempts, maybe_executed = FAULTS[name]
    stub.respond = lambda _: Scripted(**vars(reply))
    failure = failure_of(gateway(stub.url, time, max_attempts=3))
    assert (failure.fault, len(stub.sent), failure.maybe_executed) == (fault, attempts, maybe_executed)
    assert failure.wire_attempts == attempts
    assert failure.sent
    assert {sent.body for sent in stub.sent} == {BODY.encode()}
    assert {sent.headers["Idempotency-Key"] for sent in stub.sent} == {IDEMPOTENCY_KEY}
    assert len(time.slept) == attempts - 1


def test_a_refused_connection_sent_nothing(time: Time) -> None:
    """Where no connection came about, Stripe certainly did not act."""
    with stub_stripe() as closed:
        url = closed.url
    failure = failure_of(gateway(url, time, max_attempts=2))
    assert (failure.fault, failure.sent, failure.maybe_executed) == ("connection", False, False)
    assert failure.wire_attempts == 2


def test_a_hanging_server_is_given_up(stub: StubStripe, time: Time) -> None:
    """No answer within the read timeout counts as a request that may have been executed."""
    stub.respond = lambda _: Scripted(hang=True)
    failure = failure_of(gateway(stub.url, time, max_attempts=2, read_timeout_seconds=0.1))
    assert (failure.fault, failure.maybe_executed, len(stub.sent)) == ("connection", True, 2)


def test_an_attempt_gets_no_more_time_than_its_call_has_left(stub: StubStripe, time: Time) -> None:
    """A read timeout of 80 s must not stretch a call that has to be over by now; a second is the least it gets."""
    stub.respond = lambda _: Scripted(hang=True)
    failure = failure_of(gateway(stub.url, time, max_elapsed_seconds=0.0, read_timeout_seconds=80.0))
    assert (failure.fault, failure.wire_attempts) == ("connection", 1)


def test_what_was_sent_once_stays_sent() -> None:
    """A later attempt that found no connection takes nothing back."""
    lost = judge_breakdown("POST /x", "ProtocolError", sent=True, cut=False).failure
    refused = judge_breakdown("POST /x", "NewConnectionError", sent=False, cut=False).failure
    whole = over_all_attempts([lost, refused])
    assert (whole.message, whole.sent, whole.maybe_executed, whole.wire_attempts) == (
        "NewConnectionError",
        True,
        True,
        2,
    )
    assert not over_all_attempts([refused, refused]).sent


def test_an_early_doubt_outlives_a_later_clear_refusal(stub: StubStripe, time: Time) -> None:
    """The first attempt may have created the session, so a 429 at the last does not make it certain that none exists."""
    stub.script = [Scripted(reset=True), refusal(429), refusal(429)]
    failure = failure_of(gateway(stub.url, time, max_attempts=3))
    assert (failure.fault, failure.maybe_executed) == ("rate", True)


def test_a_replayed_answer_recovers_the_session(stub: StubStripe, time: Time) -> None:
    """After a lost answer the same bytes under the same key give the session that was made, and say so."""
    stub.script = [Scripted(reset=True), answer(SESSION, Idempotent_Replayed="true")]
    target = gateway(stub.url, time)
    created = create(target)
    assert (created.session_id, created.replayed, created.wire_attempts) == ("fcsess_1", True, 2)
    assert created.requested_authorization == "fcauth_1"
    assert created.server_at == datetime(2026, 11, 23, 3, 30, tzinfo=UTC)
    first, second = stub.sent
    assert first == second


def test_the_stored_body_goes_out_byte_for_byte_under_its_own_version(stub: StubStripe, time: Time) -> None:
    """A replay uses what was stored, not what the settings or the encoder would give today."""
    stub.script = [answer(SESSION)]
    odd = b"b=%5B1%5D&a[x]=~%7e+%20&a[x]=2"
    gateway(stub.url, time).create_session(
        odd, api_version="2026-03-25.preview", idempotency_key="k", may_send=lambda: True
    )
    (sent,) = stub.sent
    assert sent.body == odd
    assert sent.headers["Stripe-Version"] == "2026-03-25.preview"
    assert sent.headers["Content-Type"] == "application/x-www-form-urlencoded"


def test_backoff_doubles_with_full_jitter_up_to_its_cap(stub: StubStripe, time: Time) -> None:
    """With the whole random share each wait is the whole span; with half of it, half."""
    target = gateway(stub.url, time, max_attempts=7)
    failure_of(target)
    assert time.slept == [0.5, 1, 2, 4, 8, 8]
    half = Time()
    failure_of(gateway(stub.url, half, max_attempts=3, random_share=lambda: 0.5))
    assert half.slept == [0.25, 0.5]


@pytest.mark.parametrize("asked", ["7", "Mon, 23 Nov 2026 03:30:07 GMT"])
def test_retry_after_is_honoured(asked: str, stub: StubStripe, time: Time) -> None:
    """In seconds, or as a date measured on Stripe's clock rather than ours."""
    stub.script = [refusal(429, Retry_After=asked), answer(SESSION)]
    create(gateway(stub.url, time, random_share=lambda: 0.0))
    assert time.slept == [7.0]


@pytest.mark.parametrize("asked", ["-1", "inf", "nan", "soon", "1e9", ""])
def test_a_senseless_retry_after_is_ignored(asked: str, stub: StubStripe, time: Time) -> None:
    stub.script = [refusal(429, Retry_After=asked), answer(SESSION)]
    create(gateway(stub.url, time))
    assert time.slept == [0.5]


def test_no_attempt_starts_beyond_the_elapsed_limit(stub: StubStripe, time: Time) -> None:
    """Where the wait would pass the limit the call ends at once instead of waiting."""
    stub.respond = lambda _: refusal(429, Retry_After="50")
    failure = failure_of(gateway(stub.url, time, max_elapsed_seconds=120.0, random_share=lambda: 0.0))
    assert (failure.wire_attempts, time.now) == (3, 1100.0)


def test_an_interrupt_passes_through(stub: StubStripe, time: Time) -> None:
    """A signal ends the call now; nothing counts it as a fault to retry."""

    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    stub.script = [refusal(500), answer(SESSION)]
    target = gateway(stub.url, time)
    target._sleep = interrupted  # type: ignore[method-assign, assignment]
    with pytest.raises(KeyboardInterrupt):
        create(target)
    assert len(stub.sent) == 1


def test_refusals_slow_the_limiter_down_and_locks_do_not(stub: StubStripe, time: Time) -> None:
    """A global reason slows everything, an endpoint's only that endpoint, a busy object nothing."""
    limiter = RateLimiter(requests_per_second=80, endpoint_requests_per_second=20, clock=time.clock, sleep=time.sleep)
    target = gateway(stub.url, time, limiter=limiter, max_attempts=1)
    endpoint = "POST /v1/financial_connections/sessions"
    stub.script = [
        refusal(429, code="lock_timeout"),
        refusal(429, Stripe_Rate_Limited_Reason="endpoint-rate"),
        refusal(429, Stripe_Rate_Limited_Reason="global-concurrency"),
    ]
    failure_of(target)
    assert limiter.rates() == {"overall": 80, endpoint: 20}
    failure_of(target)
    assert limiter.rates() == {"overall": 80, endpoint: 18}
    failure_of(target)
    assert limiter.rates()["overall"] == 72
    assert target.meter.counts().rate_limited == 3


def account(number: int, **fields: Any) -> dict[str, Any]:
    known = {"id": f"fca_{number}", "status": "active", "livemode": False, "authorization": "fcauth_1"}
    return known | fields


def page(*accounts: dict[str, Any], has_more: bool = False) -> Scripted:
    return answer({"object": "list", "data": list(accounts), "has_more": has_more})


def query(sent: Sent) -> dict[str, list[str]]:
    return parse_qs(urlsplit(sent.path).query)


def test_a_page_of_accounts(stub: StubStripe, time: Time) -> None:
    """The order, the cursor and the parameters are Stripe's; calls are counted by purpose and endpoint."""
    stub.script = [page(account(2), account(1), has_more=True), page()]
    target = gateway(stub.url, time, stripe_account="acct_9")
    found = target.list_accounts_page(holder={"customer": "cus_1"})
    assert [record.account_id for record in found.records] == ["fca_2", "fca_1"]
    assert (found.has_more, found.last_id) == (True, "fca_1")
    assert target.list_accounts_page("fca_1", limit=7, purpose="reread").last_id is None
    first, second = stub.sent
    assert query(first) == {"limit": ["100"], "account_holder[customer]": ["cus_1"]}
    assert query(second) == {"limit": ["7"], "starting_after": ["fca_1"]}
    assert first.headers["Authorization"] == f"Bearer {KEY}"
    assert first.headers["Stripe-Version"] == VERSION
    assert first.headers["Stripe-Account"] == "acct_9"
    assert "Idempotency-Key" not in first.headers
    counts = target.meter.counts()
    assert counts.reads == {"pull": 1, "reread": 1}
    assert counts.by_endpoint == {"GET /v1/financial_connections/accounts": 2}


def test_a_read_recovers_and_counts_its_retries(stub: StubStripe, time: Time) -> None:
    stub.script = [Scripted(reset=True), refusal(500), refusal(429), page(account(1))]
    target = gateway(stub.url, time)
    assert len(target.list_accounts_page().records) == 1
    counts = target.meter.counts()
    assert (counts.reads, counts.wire_attempts, counts.retries, counts.rate_limited) == ({"pull": 1}, 4, 3, 1)


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (refusal(401), KeyRefused),
        (refusal(403), KeyRefused),
        (refusal(500), ReadFailed),
        (refusal(429), ReadFailed),
        (Scripted(reset=True), ReadFailed),
        (Scripted(body=b'{"data": [', cut=True), ReadFailed),
        (refusal(400, code="parameter_unknown"), ReadRejected),
        (page({"id": "fca_1", "livemode": False}), MalformedAnswer),
        (page({"id": "fca_1", "status": "active", "livemode": "no"}), MalformedAnswer),
        (page(account(1, created=10**18)), MalformedAnswer),
        (answer({"data": []}), MalformedAnswer),
        (answer([]), MalformedAnswer),
    ],
)
def test_a_failed_read_raises_by_recovery(
    reply: Scripted, error: type[Exception], stub: StubStripe, time: Time
) -> None:
    """Each error stops the run with 3 and is chained to nothing that could hold a body."""
    stub.respond = lambda _: Scripted(**vars(reply))
    with pytest.raises(error) as raised:
        gateway(stub.url, time, max_attempts=2).list_accounts_page()
    assert raised.value.exit_code == 3  # type: ignore[attr-defined]
    assert raised.value.__context__ is None
    assert "GET /v1/financial_connections/accounts" in str(raised.value)


def test_a_malformed_account_names_the_field_and_leaves_the_others(stub: StubStripe, time: Time) -> None:
    stub.script = [page(account(3), account(2, last4=1234))]
    sound, malformed = gateway(stub.url, time).list_accounts_page().records
    assert (sound.status, malformed.status) == ("active", "malformed: last4")


def test_one_object_or_none(stub: StubStripe, time: Time) -> None:
    """Only Stripe's own `resource_missing` means that the object is gone; an unknown path is a wrong version."""
    target = gateway(stub.url, time)
    stub.script = [
        answer(account(1)),
        answer({"id": "fcauth_1", "status": "inactive", "livemode": False, "status_details": {}}),
        refusal(404, code="resource_missing"),
        refusal(404, code="resource_missing"),
        refusal(404, code="resource_missing"),
        refusal(404),
    ]
    found = target.retrieve_account("fca_1")
    assert found is not None
    assert found.account_id == "fca_1"
    authorization = target.retrieve_authorization("fcauth_1")
    assert authorization is not None
    assert (authorization.status, authorization.inactive_action) == ("inactive", None)
    assert target.retrieve_account("gone") is None
    assert target.retrieve_authorization("gone") is None
    assert target.retrieve_session("gone") is None
    with pytest.raises(ReadRejected):
        target.retrieve_authorization("fcauth_1")


@pytest.mark.parametrize("hostile", ["../../v1/charges", "a/b?c=d#e", "' OR 1=1--", "%2e%2e", "x\r\nHost: y"])
def test_an_id_never_leaves_its_place_in_the_path(hostile: str, stub: StubStripe, time: Time) -> None:
    stub.script = [refusal(404, code="resource_missing")]
    assert gateway(stub.url, time).retrieve_account(hostile) is None
    (sent,) = stub.sent
    assert sent.path.startswith("/v1/financial_connections/accounts/")
    assert sent.path.count("/") == 4
    assert not {"?", "#"} & set(sent.path)


@pytest.mark.parametrize("dots", ["", ".", "..", " "])
def test_an_id_of_dots_is_asked_for_nowhere(dots: str, stub: StubStripe, time: Time) -> None:
    assert gateway(stub.url, time).retrieve_session(dots) is None
    assert stub.sent == []


def test_a_session_comes_with_all_its_accounts(stub: StubStripe, time: Time) -> None:
    """The embedded list is only its first page; the rest is listed by session."""
    first_page = {"data": [account(3), account(2)], "has_more": True}
    result = {"authorization": "fcauth_2", "failure_reason": None}
    stub.script = [
        answer(SESSION | {"status": "succeeded", "accounts": first_page, "relink_result": result}),
        page(account(1), has_more=True),
        page(account(0)),
    ]
    found = gateway(stub.url, time).retrieve_session("fcsess_1")
    assert found is not None
    assert [record.account_id for record in found.accounts] == ["fca_3", "fca_2", "fca_1", "fca_0"]
    assert (found.result_present, found.result_authorization, found.failure_reason) == (True, "fcauth_2", None)
    assert query(stub.sent[1]) == {"limit": ["100"], "session": ["fcsess_1"], "starting_after": ["fca_2"]}
    assert query(stub.sent[2])["starting_after"] == ["fca_1"]


@pytest.mark.parametrize("repeated", [[], [account(2)]])
def test_a_list_that_goes_nowhere_ends(repeated: list[dict[str, Any]], stub: StubStripe, time: Time) -> None:
    """More promised and nothing new: an error, not a loop."""
    stub.script = [answer(SESSION | {"accounts": {"data": [account(2)], "has_more": True}})]
    stub.respond = lambda _: page(*repeated, has_more=True)
    with pytest.raises(MalformedAnswer):
        gateway(stub.url, time).retrieve_session("fcsess_1")
    assert len(stub.sent) == 2


def event(number: int, about: dict[str, Any], request: Any = None) -> dict[str, Any]:
    return {
        "id": f"evt_{number}",
        "type": "financial_connections.account.reactivated",
        "created": 1_790_000_000 + number,
        "livemode": False,
        "data": {"object": about},
        "request": request,
    }


def test_events_are_paged_to_the_end(stub: StubStripe, time: Time) -> None:
    """Whatever version an event was rendered at, its ids are taken and nothing else."""
    holder = {"type": "customer", "customer": "cus_1"}
    session = {
        "id": "fcsess_1",
        "object": "financial_connections.session",
        "client_secret": "fcsess_client_secret_x",
        "relink_options": {"authorization": "fcauth_1"},
    }
    stub.script = [
        answer(
            {
                "data": [
                    event(3, session, {"id": "req_1", "idempotency_key": "k"}),
                    event(2, {"id": "fcauth_7", "object": "financial_connections.authorization"}, "req_old"),
                ],
                "has_more": True,
            }
        ),
        answer(
            {
                "data": [event(1, {"id": "fca_1", "object": "other", "account_holder": holder})],
                "has_more": False,
            }
        ),
    ]
    start = datetime(2026, 11, 1, tzinfo=UTC)
    types = ["financial_connections.account.reactivated", "financial_connections.session.updated"]
    newest, middle, oldest = gateway(stub.url, time).list_events(types, start, datetime(2026, 11, 2, tzinfo=UTC))
    assert (newest.object_id, newest.authorization_id, newest.request_idempotency_key) == (
        "fcsess_1",
        "fcauth_1",
        "k",
    )
    assert (middle.authorization_id, middle.request_idempotency_key) == ("fcauth_7", None)
    assert (oldest.account_holder_id, oldest.authorization_id) == ("cus_1", None)
    assert query(stub.sent[0]) == {
        "types[0]": types[:1],
        "types[1]": types[1:],
        "created[gte]": ["1793491200"],
        "created[lte]": ["1793577600"],
        "limit": ["100"],
    }
    assert query(stub.sent[1])["starting_after"] == ["evt_2"]


def test_the_key_is_probed_by_reads_only(stub: StubStripe, time: Time) -> None:
    def respond(sent: Sent) -> Scripted:
        path = urlsplit(sent.path).path
        if path in ("/v1/charges", "/v1/events"):
            return refusal(403)
        if path == "/v1/customers":
            return Scripted(body=b"not read at all")
        return refusal(404, code="resource_missing") if path.endswith("_none") else page()

    stub.respond = respond
    assert dict(gateway(stub.url, time).probe_key()) == {
        "financial_connections.accounts": True,
        "financial_connections.authorizations": True,
        "financial_connections.sessions": True,
        "events": False,
        "customers": True,
        "charges": False,
    }
    assert {sent.method for sent in stub.sent} == {"GET"}
    stub.respond = lambda _: refusal(401)
    with pytest.raises(KeyRefused):
        gateway(stub.url, time).probe_key()


def test_threads_never_mix_up_their_answers(stub: StubStripe, time: Time) -> None:
    """Each thread's answer is its own, and each keeps its connection."""
    stub.respond = lambda sent: answer(account(int(sent.path.rpartition("_")[2])))
    target = gateway(stub.url, time)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda number: target.retrieve_account(f"fca_{number}"), range(80)))
    assert [record and record.account_id for record in found] == [f"fca_{number}" for number in range(80)]
    assert stub.connections <= 4
    target.close()


def test_the_gateway_shows_no_key_and_cannot_be_copied_out(stub: StubStripe, time: Time) -> None:
    target = gateway(stub.url, time)
    assert KEY not in f"{target!r} {target}"
    with pytest.raises(TypeError):
        pickle.dumps(target)
    with pytest.raises(TypeError):
        copy.deepcopy(target)
