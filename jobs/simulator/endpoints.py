"""The endpoints of the simulated API: one function each, from checked parameters to a JSON object."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from urllib.parse import unquote

from jobs.simulator import changes, parameters, render
from jobs.simulator.changes import Due
from jobs.simulator.failures import ApiFailure, missing
from jobs.simulator.model import Account
from jobs.simulator.paging import created_bounds, cut_page, event_types
from jobs.simulator.parameters import LIST, RANGE, TEXT, Parameters, Schema
from jobs.simulator.render import Json, Rendering
from jobs.simulator.world import World

_PAGE: Schema = {"limit": TEXT, "starting_after": TEXT, "ending_before": TEXT, "expand": LIST}
_ACCOUNT_LIST: Schema = {
    **_PAGE,
    "account_holder": {"account": TEXT, "customer": TEXT, "customer_account": TEXT},
    "session": TEXT,
}
_EVENT_LIST: Schema = {**_PAGE, "type": TEXT, "types": LIST, "created": RANGE, "delivery_success": TEXT}
_RETRIEVE: Schema = {"expand": LIST}
REFRESH_SECONDS = 60
_REFRESH_PERMISSION = {
    "balance": "balances",
    "inferred_balances": "transactions",
    "ownership": "ownership",
    "transactions": "transactions",
}


Handler = Callable[[World, Rendering, str, Parameters], Json]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A method and path; `name` is what logs, limits and faults call it. A None handler is a session's creation."""

    method: str
    pattern: re.Pattern[str]
    name: str
    handler: Handler | None
    preview_only: bool = False


def find(method: str, path: str, shown: Rendering) -> tuple[Endpoint, str]:
    """The endpoint and the id in its path. Raises ApiFailure 404 for one that this version does not have."""
    for endpoint in ENDPOINTS:
        if endpoint.method != method or (endpoint.preview_only and not shown.relink):
            continue
        match = endpoint.pattern.fullmatch(path)
        if match is not None:
            return endpoint, unquote(match.group(1)) if match.groups() else ""
    raise ApiFailure(
        404,
        f"Unrecognized request URL ({method}: {path}). Please see https://stripe.com/docs or we can help at "
        "https://support.stripe.com/.",
    )


def _list_accounts(world: World, shown: Rendering, _: str, given: Parameters) -> Json:
    parameters.check(given, _ACCOUNT_LIST)
    expanded = _expansions(given, "data.", shown)
    source: Sequence[Account] = world.listing
    if "session" in given:
        session = world.sessions.get(str(parameters.text(given, "session")))
        if session is None:
            raise missing("session", given["session"], "session", status=400)
        source = sorted(
            (world.accounts[each] for each in session.account_ids if each in world.accounts),
            key=lambda account: account.position,
        )
    if "account_holder" in given:
        holders = {
            (kind, parameters.text(given["account_holder"], kind, f"account_holder[{kind}]"))
            for kind in given["account_holder"]
        }
        if len(holders) != 1:
            raise ApiFailure(400, "Pass exactly one of customer, account, customer_account.", param="account_holder")
        kind, holder_id = holders.pop()
        if holder_id not in world.holders or world.holders[holder_id].kind != kind:
            raise missing("customer", str(holder_id), f"account_holder[{kind}]", status=400)
        if source is world.listing:
            source = world.accounts_of_holder(holder_id)
        else:
            source = [account for account in source if account.holder.id == holder_id]

    def position(cursor: str) -> int | None:
        account = world.accounts.get(cursor)
        if account is None:
            return None
        if source is world.listing:
            return account.position
        index = bisect_left(source, account.position, key=lambda each: each.position)
        return index if index < len(source) and source[index] is account else None

    found, has_more = cut_page(source, given, position, "account")
    bodies = [_expand(world, render_account(world, item, shown), expanded) for item in found]
    return render.page(bodies, has_more, "/v1/financial_connections/accounts")


def _retrieve_account(world: World, shown: Rendering, account_id: str, given: Parameters) -> Json:
    parameters.check(given, _RETRIEVE)
    expanded = _expansions(given, "", shown)
    return _expand(world, render_account(world, _account(world, account_id), shown), expanded)


def _refresh_account(world: World, shown: Rendering, account_id: str, given: Parameters) -> Json:
    parameters.check(given, {"features": LIST, "expand": LIST})
    account = _account(world, account_id)
    parameters.required(given, "features")
    known = tuple(name for name in _REFRESH_PERMISSION if shown.relink or name != "inferred_balances")
    features = parameters.values(given, "features", known)
    if account.status != "active":
        raise ApiFailure(
            400,
            f"The account '{account_id}' of {world.named_holder(account.holder)} is {account.status}.",
            code="financial_connections_account_inactive",
        )
    for feature in features:
        if _REFRESH_PERMISSION[feature] not in account.permissions:
            raise ApiFailure(400, f"The account does not grant what refreshing {feature} needs.", param="features")
    names = tuple("transaction" if name == "transactions" else name for name in features)
    for name in names:
        last = render.last_refresh(account, name, world.now)
        if last is not None and (last["status"] == "pending" or last["next_refresh_available_at"] > world.now):
            raise ApiFailure(400, f"The {name} of this account cannot be refreshed yet.", param="features")
    account.refreshing = tuple(dict.fromkeys((*account.refreshing, *names)))
    world.refreshes.append((account.id, names))
    world.schedule(world.now + REFRESH_SECONDS, Due.REFRESHED, account.id)
    return render_account(world, account, shown)


def _disconnect_account(world: World, shown: Rendering, account_id: str, given: Parameters) -> Json:
    parameters.check(given, _RETRIEVE)
    account = _account(world, account_id)
    changes.disconnect(world, account)
    if all(each.status == "disconnected" for each in account.authorization.accounts):
        account.authorization.status = "disconnected"
    return render_account(world, account, shown)


def _retrieve_authorization(world: World, shown: Rendering, authorization_id: str, given: Parameters) -> Json:
    parameters.check(given, _RETRIEVE)
    authorization = world.authorizations.get(authorization_id)
    if authorization is None:
        raise missing("authorization", authorization_id, "authorization")
    return world.rendered(authorization, shown)


def _retrieve_session(world: World, shown: Rendering, session_id: str, given: Parameters) -> Json:
    parameters.check(given, _RETRIEVE)
    session = world.sessions.get(session_id)
    if session is None:
        raise missing("session", session_id, "session")
    if session.ui_mode != "hosted" or not shown.relink:
        world.secrets.add(session.client_secret)
    return world.rendered(session, shown)


def _list_institutions(world: World, _: Rendering, __: str, given: Parameters) -> Json:
    parameters.check(given, _PAGE)
    source = list(reversed(world.institutions.values()))
    places = {institution.id: index for index, institution in enumerate(source)}
    found, has_more = cut_page(source, given, places.get, "institution")
    bodies = (render.institution(each, world.livemode) for each in found)
    return render.page(bodies, has_more, "/v1/financial_connections/institutions")


def _retrieve_institution(world: World, _: Rendering, institution_id: str, given: Parameters) -> Json:
    parameters.check(given, _RETRIEVE)
    for institution in world.institutions.values():
        if institution.id == institution_id:
            return render.institution(institution, world.livemode)
    raise missing("institution", institution_id, "institution")


def _list_events(world: World, _: Rendering, __: str, given: Parameters) -> Json:
    parameters.check(given, _EVENT_LIST)
    _expansions(given, "data.", None)
    wanted = event_types(given)
    if given.get("delivery_success", "true") not in ("true", "false"):
        raise ApiFailure(400, f"Invalid boolean: {given['delivery_success']}", param="delivery_success")
    world.prune_events()
    first, last = created_bounds(world.events, given.get("created"))
    source = world.events[first:last]
    if wanted is not None:
        source = [event for event in source if any(fnmatchcase(event.type, pattern) for pattern in wanted)]
    places = {event.id: index for index, event in enumerate(source)}
    beyond = (
        {event.id: event for event in world.events} if "starting_after" in given or "ending_before" in given else {}
    )

    def position(cursor: str) -> int | None:
        if cursor in places:
            return places[cursor]
        # A cursor that the filters leave out still marks a place in time.
        event = beyond.get(cursor)
        return None if event is None else bisect_left(source, event.created, key=lambda each: each.created)

    found, has_more = cut_page(source, given, position, "event")
    bodies = [render.event(each, world.livemode, world.default_api_version) for each in found]
    return render.page(bodies, has_more, "/v1/events")


def _retrieve_event(world: World, _: Rendering, event_id: str, given: Parameters) -> Json:
    parameters.check(given, _RETRIEVE)
    world.prune_events()
    for event in world.events:
        if event.id == event_id:
            return render.event(event, world.livemode, world.default_api_version)
    raise missing("event", event_id, "id")


def _empty_list(url: str) -> Handler:
    def handler(_: World, __: Rendering, ___: str, given: Parameters) -> Json:
        parameters.check(given, _PAGE)
        nothing: list[Account] = []
        cut_page(nothing, given, lambda _: None, "object")
        return render.page((), False, url)

    return handler


def render_account(world: World, account: Account, shown: Rendering) -> Json:
    """An account of this world as JSON."""
    return render.account(account, shown, world.livemode, world.now, world.overrides.get(account.id))


def _account(world: World, account_id: str) -> Account:
    account = world.accounts.get(account_id)
    if account is not None:
        return account
    failure = missing("account", account_id, "account")
    if account_id in world.other_mode_ids:
        mode, other = ("live", "test") if world.livemode else ("test", "live")
        failure.message += f"; a similar object exists in {other} mode, but a {mode} mode key was used."
    raise failure


def _expansions(given: Parameters, prefix: str, shown: Rendering | None) -> tuple[str, ...]:
    known = (
        ("account_holder.customer", "institution")
        if shown is not None and shown.relink
        else (("account_holder.customer",) if shown is not None else ())
    )
    found = given.get("expand", [])
    for name in found:
        if not name.startswith(prefix) or name[len(prefix) :] not in known:
            raise ApiFailure(400, f"This property cannot be expanded ({name}).", param="expand")
    return tuple(name[len(prefix) :] for name in found)


def _expand(world: World, body: Json, names: Iterable[str]) -> Json:
    for name in names:
        if name == "institution":
            body["institution"] = next(
                render.institution(each, world.livemode)
                for each in world.institutions.values()
                if each.id == body["institution"]
            )
        elif body["account_holder"] and "customer" in body["account_holder"]:
            customer_id = body["account_holder"]["customer"]
            email = world.email_of(customer_id)
            if email is not None:
                world.secrets.add(email)
            body["account_holder"]["customer"] = {"id": customer_id, "object": "customer", "email": email}
    return body


def _endpoint(method: str, path: str, name: str, handler: Handler | None, preview_only: bool = False) -> Endpoint:
    return Endpoint(method, re.compile(path.replace("{id}", "([^/]+)")), name, handler, preview_only)


_BASE = "/v1/financial_connections"
ENDPOINTS = (
    _endpoint("GET", f"{_BASE}/accounts", "accounts.list", _list_accounts),
    _endpoint("GET", f"{_BASE}/accounts/{{id}}", "accounts.retrieve", _retrieve_account),
    _endpoint("POST", f"{_BASE}/accounts/{{id}}/refresh", "accounts.refresh", _refresh_account),
    _endpoint("POST", f"{_BASE}/accounts/{{id}}/disconnect", "accounts.disconnect", _disconnect_account),
    _endpoint("GET", f"{_BASE}/authorizations/{{id}}", "authorizations.retrieve", _retrieve_authorization, True),
    _endpoint("POST", f"{_BASE}/sessions", "sessions.create", None),
    _endpoint("GET", f"{_BASE}/sessions/{{id}}", "sessions.retrieve", _retrieve_session),
    _endpoint("GET", f"{_BASE}/institutions", "institutions.list", _list_institutions, True),
    _endpoint("GET", f"{_BASE}/institutions/{{id}}", "institutions.retrieve", _retrieve_institution, True),
    _endpoint("GET", "/v1/events", "events.list", _list_events),
    _endpoint("GET", "/v1/events/{id}", "events.retrieve", _retrieve_event),
    _endpoint("GET", "/v1/customers", "customers.list", _empty_list("/v1/customers")),
    _endpoint("GET", "/v1/charges", "charges.list", _empty_list("/v1/charges")),
)
