"""One call through the simulated API: key, version, limits, faults, idempotency, endpoint, reply.

The order is Stripe's (Stripe docs: low-level errors): what refuses a call before the idempotency layer stores nothing.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from email.utils import formatdate
from typing import Any

from jobs.simulator import endpoints, parameters, render, session_create
from jobs.simulator.endpoints import Endpoint
from jobs.simulator.failures import ApiFailure
from jobs.simulator.faults import AFTER, Fault
from jobs.simulator.keys import shown_key
from jobs.simulator.limits import RateLimiter, lock_timeout, too_many
from jobs.simulator.parameters import Parameters
from jobs.simulator.render import Json, Rendering
from jobs.simulator.reply import Call, Reply
from jobs.simulator.request_log import LoggedCall
from jobs.simulator.world import World

_SPOILS = {
    "reset_before": "reset",
    "reset_after": "reset",
    "hang_before": "hang",
    "hang_after": "hang",
    "cut_body": "cut_body",
    "cut_json": "cut_json",
    "not_json": "not_json",
}


class _Trace:
    """What becomes known of a call on its way, for the log and the reply's headers."""

    def __init__(self) -> None:
        self.request_id = "req_" + secrets.token_hex(7)
        self.purpose = "unknown"
        self.api_version: str | None = None
        self.key: str | None = None
        self.replayed = False
        self.fault: Fault | None = None


def respond(world: World, limiter: RateLimiter, call: Call) -> Reply:
    """Answer one call. Only bugs raise; every refusal is a reply."""
    trace = _Trace()
    world.settle()
    try:
        reply = _answer(world, limiter, call, trace)
    except ApiFailure as failure:
        reply = _refusal(world, failure, trace)
    reply = _with_headers(world, reply, trace)
    with world.lock:
        world.calls[trace.purpose] += 1
        world.log.append(
            LoggedCall(
                call.method,
                call.path,
                trace.purpose,
                reply.status,
                world.now,
                trace.api_version,
                trace.key,
                trace.replayed,
                None if trace.fault is None else trace.fault.kind,
                trace.request_id if "Request-Id" in reply.headers else None,
            )
        )
    return reply


def _answer(world: World, limiter: RateLimiter, call: Call, trace: _Trace) -> Reply:
    trace.key = call.headers.get("idempotency-key") if call.method == "POST" else None
    key = _authenticate(world, call)
    account = call.headers.get("stripe-account")
    if account is not None and account != world.stripe_account:
        raise ApiFailure(
            403,
            f"The provided key '{shown_key(key)}' does not have access to account '{account}' (or that account does "
            "not exist). Application access may have been revoked.",
            code="account_invalid",
        )
    version = call.headers.get("stripe-version", world.default_api_version)
    shown = render.rendering(version)
    if shown is None:
        raise ApiFailure(400, f"Invalid Stripe API version: {version[:40]}")
    trace.api_version = version
    endpoint, object_id = endpoints.find(call.method, call.path, shown)
    trace.purpose = endpoint.name
    limiter.admit(endpoint.name)
    if endpoint.name in world.keys[key].denied:
        raise ApiFailure(
            403,
            f"The provided key '{shown_key(key)}' does not have the required permissions for this endpoint on account "
            f"'{world.stripe_account}'.",
        )
    trace.fault = world.faults.take(call.method, call.path, f"{call.query}:{trace.key}")
    if trace.fault is not None:
        spoiled = _fault_before(trace.fault)
        if spoiled is not None:
            return spoiled
    given = parameters.parse(call.query, _form(call))
    reply = _execute(world, call, trace, endpoint, object_id, given, shown)
    if trace.fault is not None and trace.fault.kind in AFTER and trace.fault.kind in _SPOILS:
        return Reply(reply.status, reply.body, reply.headers, _SPOILS[trace.fault.kind], trace.fault.seconds)
    return reply


def _execute(
    world: World, call: Call, trace: _Trace, endpoint: Endpoint, object_id: str, given: Parameters, shown: Rendering
) -> Reply:
    key = trace.key
    if key is None:
        return _run(world, trace, endpoint, object_id, given, shown)
    fingerprint = f"{call.method} {call.path} {sorted(_flat(given))}"
    stored = world.idempotency.begin(key, fingerprint, world.now)
    if stored is not None:
        trace.replayed = True
        return stored
    try:
        reply = _run(world, trace, endpoint, object_id, given, shown)
    except BaseException:
        world.idempotency.release(key)
        raise
    world.idempotency.finish(
        key, Reply(reply.status, reply.body, {**reply.headers, "Original-Request": trace.request_id})
    )
    return reply


def _run(world: World, trace: _Trace, endpoint: Endpoint, object_id: str, given: Parameters, shown: Rendering) -> Reply:
    kind = "" if trace.fault is None else trace.fault.kind
    if kind == "error_500_before":
        return _server_error(world, trace)
    if kind == "slow" and trace.fault is not None:
        world.faults.release.wait(trace.fault.seconds)
    with world.lock:
        if endpoint.handler is None:
            session = session_create.validate(world, given, shown)
            session_create.execute(world, session, trace.request_id, trace.key, world.hosted_address)
            body = world.rendered(session, shown)
        else:
            body = endpoint.handler(world, shown, object_id, given)
            body = _odd_page(world, kind, endpoint, given, shown, body)
    if kind == "error_500_after":
        return _server_error(world, trace)
    return Reply(200, render.encode(body))


def _authenticate(world: World, call: Call) -> str:
    header = call.headers.get("authorization", "")
    scheme, _, value = header.partition(" ")
    key = ""
    if scheme.lower() == "bearer":
        key = value.strip()
    elif scheme.lower() == "basic":
        try:
            key = base64.b64decode(value, validate=True).decode().partition(":")[0]
        except (binascii.Error, UnicodeDecodeError):
            key = ""
    if not key:
        raise ApiFailure(
            401,
            "You did not provide an API key. You need to provide your API key in the Authorization header, using "
            "Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY').",
        )
    found = world.keys.get(key)
    if found is None:
        raise ApiFailure(401, f"Invalid API Key provided: {shown_key(key)}")
    if found.revoked:
        raise ApiFailure(401, f"Expired API Key provided: {shown_key(key)}", code="api_key_expired")
    return key


def _form(call: Call) -> str:
    if not call.body:
        return ""
    kind = call.headers.get("content-type", "application/x-www-form-urlencoded").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise ApiFailure(400, f"Invalid request: send application/x-www-form-urlencoded, not {kind}.")
    try:
        return call.body.decode()
    except UnicodeDecodeError:
        raise ApiFailure(400, "Invalid request: the body is not UTF-8.") from None


def _fault_before(fault: Fault) -> Reply | None:
    kind = fault.kind
    if kind == "rate_limit":
        raise too_many(fault.reason, fault.retry_after_seconds, fault.should_retry)
    if kind == "lock_timeout":
        raise lock_timeout()
    if kind == "in_use":
        raise ApiFailure(
            409,
            "There is currently another in-progress request using this idempotency key.",
            kind="idempotency_error",
            code="idempotency_key_in_use",
            should_retry=True,
        )
    if kind == "unauthorized":
        raise ApiFailure(401, "Invalid API Key provided: rk_****")
    if kind == "forbidden":
        raise ApiFailure(403, "The provided key does not have the required permissions for this endpoint.")
    if kind == "error_503":
        raise ApiFailure(
            503,
            "Stripe is temporarily unavailable.",
            kind="api_error",
            should_retry=fault.should_retry,
            retry_after_seconds=fault.retry_after_seconds,
        )
    if kind == "error_502":
        return Reply(502, b"<html><body>502 Bad Gateway</body></html>", {"Content-Type": "text/html"})
    if kind == "redirect":
        return Reply(307, b"", {"Location": fault.location})
    if kind in ("reset_before", "hang_before"):
        return Reply(200, b"{}", {}, _SPOILS[kind], fault.seconds)
    return None


def _server_error(world: World, trace: _Trace) -> Reply:
    should_retry = None if trace.fault is None else trace.fault.should_retry
    failure = ApiFailure(
        500,
        "An unknown error occurred. Please try again later.",
        kind="api_error",
        should_retry=should_retry,
    )
    return _refusal(world, failure, trace)


def _odd_page(world: World, kind: str, endpoint: Endpoint, given: Parameters, shown: Rendering, body: Json) -> Json:
    data: list[Any] = body.get("data", [])
    if kind == "missing_authorization":
        for item in data or [body]:
            item.pop("authorization", None)
    elif kind == "wrong_livemode":
        for item in (data or [body])[-1:]:
            item["livemode"] = not world.livemode
    elif "data" in body and kind == "empty_page":
        return {**body, "data": [], "has_more": True}
    elif data and kind == "duplicate_id":
        return {**body, "data": [data[0], *data]}
    elif "data" in body and kind == "repeated_page" and endpoint.handler is not None and "starting_after" in given:
        first = {name: value for name, value in given.items() if name != "starting_after"}
        return {**endpoint.handler(world, shown, "", first), "has_more": True}
    return body


def _refusal(world: World, failure: ApiFailure, trace: _Trace) -> Reply:
    if not failure.with_request_id:
        trace.request_id = ""
    body = render.encode(failure.body(trace.request_id, world.livemode))
    return Reply(failure.status, body, failure.headers())


def _with_headers(world: World, reply: Reply, trace: _Trace) -> Reply:
    headers = {"Content-Type": "application/json", "Date": formatdate(world.now, usegmt=True), **reply.headers}
    if trace.request_id:
        headers["Request-Id"] = trace.request_id
    if trace.api_version is not None:
        headers["Stripe-Version"] = trace.api_version
    if trace.key is not None:
        headers["Idempotency-Key"] = trace.key
    if trace.replayed:
        headers["Idempotent-Replayed"] = "true"
    return Reply(reply.status, reply.body, headers, reply.spoil, reply.spoil_seconds)


def _flat(value: Any, name: str = "") -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [pair for key, item in value.items() for pair in _flat(item, f"{name}[{key}]")]
    if isinstance(value, list):
        return [pair for index, item in enumerate(value) for pair in _flat(item, f"{name}[{index}]")]
    return [(name, value)]
