"""Creating a session: every rule by which Stripe accepts or refuses it.

Source: Stripe API reference, Financial Connections sessions (create), preview fields of 2026-01-28 and 2026-03-25.
"""

from __future__ import annotations

from typing import Any

from jobs.simulator import answers, parameters
from jobs.simulator.draws import token
from jobs.simulator.failures import ApiFailure, missing
from jobs.simulator.model import PERMISSIONS, Authorization, Effect, Holder, Session
from jobs.simulator.parameters import LIST, TEXT, Parameters
from jobs.simulator.render import Rendering
from jobs.simulator.state import State

_SUBCATEGORIES = ("checking", "credit_card", "line_of_credit", "mortgage", "savings")
_STABLE: dict[str, Any] = {
    "account_holder": {"type": TEXT, "account": TEXT, "customer": TEXT, "customer_account": TEXT},
    "expand": LIST,
    "filters": {"account_subcategories": LIST, "country": TEXT, "require_payment_method_support": TEXT},
    "limits": {"accounts": TEXT},
    "manual_entry": {"mode": TEXT},
    "permissions": LIST,
    "prefetch": LIST,
    "return_url": TEXT,
}
_PREVIEW: dict[str, Any] = _STABLE | {
    "filters": _STABLE["filters"] | {"institution": TEXT},
    "relink_options": {"authorization": TEXT, "account": TEXT},
    "ui_mode": TEXT,
    "hosted": {"delivery_method": TEXT},
}
_NESTED = _PREVIEW | {"hosted": {"delivery_method": TEXT, "return_url": TEXT}}


def validate(state: State, given: Parameters, shown: Rendering) -> Session:
    """The session that these parameters ask for, not yet created. Raises ApiFailure 400."""
    nested = state.behaviour.hosted_return_url == "nested"
    parameters.check(given, (_NESTED if nested else _PREVIEW) if shown.relink else _STABLE)
    if given.get("expand"):
        raise ApiFailure(400, f"This property cannot be expanded ({given['expand'][0]}).", param="expand")
    parameters.required(given, "permissions")
    permissions = parameters.values(given, "permissions", PERMISSIONS)
    if not permissions:
        raise ApiFailure(400, "Missing required param: permissions.", code="parameter_missing", param="permissions")
    holder = _holder(state, parameters.required(given, "account_holder"))
    prefetchable = ("balances", "ownership", "transactions") + (("inferred_balances",) if shown.relink else ())
    session = Session(
        id="",
        created=state.now,
        holder=holder,
        permissions=tuple(name for name in PERMISSIONS if name in permissions),
        client_secret="",
        prefetch=parameters.values(given, "prefetch", prefetchable),
        filters=_filters(state, given.get("filters", {})),
        account_limit=_account_limit(given.get("limits", {})),
        manual_entry_mode=_manual_entry(given.get("manual_entry", {}), shown),
        return_url=_return_url(given),
    )
    authorization = None
    if "relink_options" in given:
        authorization = _relink_options(state, session, given["relink_options"])
    _hosted(state, session, given, authorization)
    if authorization is not None and authorization.institution.is_unavailable:
        raise ApiFailure(
            400,
            f"{authorization.institution.name} is unavailable at present. Please try again later.",
            code="financial_connections_institution_unavailable",
        )
    return session


def execute(state: State, session: Session, request_id: str, idempotency_key: str | None, delivered_at: str) -> Session:
    """Create a validated session: the moment that counts as contact."""
    if session.authorization_id is not None:
        authorization = state.authorizations[session.authorization_id]
        authorization.attempts += 1
        session.attempt = authorization.attempts
        name = f"{state.seed}:session:{authorization.id}:{session.attempt}"
    else:
        state.attempts_of_holder[session.holder.id] += 1
        session.attempt = state.attempts_of_holder[session.holder.id]
        name = f"{state.seed}:session:{session.holder.id}:{session.attempt}"
    session.id = "fcsess_1" + token(name, 23)
    session.client_secret = "fcsess_client_secret_" + token("secret:" + name, 32)
    session.idempotency_key = idempotency_key
    session.created = state.now
    if session.ui_mode == "hosted":
        session.url = f"{delivered_at}/{session.id}/{token('url:' + name, 32)}"
        state.secrets.add(session.url)
    else:
        state.secrets.add(session.client_secret)
    state.sessions[session.id] = session
    state.effects.append(
        Effect(
            session.id,
            session.authorization_id,
            session.holder.id,
            idempotency_key,
            session.delivery_method,
            state.now,
        )
    )
    answers.schedule_answer(state, session)
    if state.behaviour.session_creation_emits_event:
        state.emit("session.updated", session, request_id, idempotency_key)
    return session


def _holder(state: State, given: Parameters) -> Holder:
    if "type" not in given:
        raise ApiFailure(
            400, "Missing required param: account_holder[type].", code="parameter_missing", param="account_holder[type]"
        )
    kind = parameters.one_of(given["type"], ("account", "customer"), "account_holder[type]")
    allowed = ("account",) if kind == "account" else ("customer", "customer_account")
    named = [name for name in ("account", "customer", "customer_account") if name in given]
    for name in named:
        if name not in allowed:
            raise ApiFailure(
                400,
                f"`account_holder[{name}]` cannot be passed when `account_holder[type]` is `{kind}`.",
                param=f"account_holder[{name}]",
            )
    if len(named) != 1:
        raise ApiFailure(
            400,
            f"Pass exactly one of {' and '.join(f'`account_holder[{name}]`' for name in allowed)}.",
            code="parameter_missing",
            param=f"account_holder[{allowed[0]}]",
        )
    param = f"account_holder[{named[0]}]"
    holder_id = parameters.text(given, named[0], param) or ""
    found = state.holders.get(holder_id)
    if found is None or found.kind != named[0]:
        raise missing("account" if named[0] == "account" else "customer", holder_id, param, status=400)
    if holder_id in state.deleted_holders:
        failure = missing("customer", holder_id, param, status=400)
        failure.message += f"; {state.named_holder(found)} was deleted"
        raise failure
    return found


def _filters(state: State, given: Parameters) -> dict[str, Any]:
    result: dict[str, Any] = {}
    if "account_subcategories" in given:
        result["account_subcategories"] = list(
            parameters.values(given, "account_subcategories", _SUBCATEGORIES, "filters[account_subcategories]")
        )
    if "country" in given:
        country = parameters.text(given, "country", "filters[country]")
        result["country"] = parameters.one_of(str(country), ("US",), "filters[country]")
    if "require_payment_method_support" in given:
        name = "filters[require_payment_method_support]"
        support = given["require_payment_method_support"]
        result["require_payment_method_support"] = parameters.one_of(support, ("all", "at_least_one", "none"), name)
    if "institution" in given:
        institution_id = parameters.text(given, "institution", "filters[institution]")
        if all(institution.id != institution_id for institution in state.institutions.values()):
            raise missing("institution", str(institution_id), "filters[institution]", status=400)
        result["institution"] = institution_id
    return result


def _account_limit(given: Parameters) -> int | None:
    value = given.get("accounts", "")
    if value == "":
        return None
    limit = parameters.integer(value, "limits[accounts]")
    if limit < 1:
        raise ApiFailure(
            400,
            "This value must be greater than or equal to 1.",
            code="parameter_invalid_integer",
            param="limits[accounts]",
        )
    return limit


def _manual_entry(given: Parameters, shown: Rendering) -> str | None:
    mode = parameters.text(given, "mode", "manual_entry[mode]")
    if mode is None:
        return None
    known = ("automatic", "disabled", "custom") if shown.relink else ("automatic", "disabled")
    return parameters.one_of(mode, known, "manual_entry[mode]")


def _return_url(given: Parameters, name: str = "return_url") -> str | None:
    url = parameters.text(given, "return_url", name)
    if url is not None and not (url.startswith(("https://", "http://")) and len(url) > len("https://")):
        raise ApiFailure(400, "Not a valid URL", code="url_invalid", param=name)
    return url


def _relink_options(state: State, session: Session, given: Parameters) -> Authorization:
    name = "relink_options[authorization]"
    identifier = parameters.text(given, "authorization", name)
    if identifier is None:
        raise ApiFailure(400, f"Missing required param: {name}.", code="parameter_missing", param=name)
    if identifier in state.other_mode_ids:
        mode, other = ("live", "test") if state.livemode else ("test", "live")
        raise ApiFailure(
            400,
            f"No such authorization: '{identifier}'; a similar object exists in {other} mode, but a {mode} mode key "
            "was used to make this request.",
            code="livemode_mismatch",
            param=name,
        )
    authorization = state.authorizations.get(identifier)
    if authorization is None:
        raise missing("authorization", identifier, name, status=400)
    if session.holder != authorization.holder:
        raise ApiFailure(
            400,
            f"The account_holder {state.named_holder(session.holder)} must be the one of authorization '{identifier}'.",
            param="account_holder",
        )
    if authorization.status == "disconnected":
        raise ApiFailure(400, f"Authorization '{identifier}' is disconnected and cannot be relinked.", param=name)
    if authorization.status == "inactive" and authorization.inactive_action == "none":
        raise ApiFailure(
            400,
            f"Authorization '{identifier}' of {state.named_holder(session.holder)} cannot be relinked.",
            code="financial_connections_account_inactive",
            param=name,
        )
    session.authorization_id = identifier
    account_id = parameters.text(given, "account", "relink_options[account]")
    if account_id is not None:
        account = state.accounts.get(account_id)
        if account is None:
            raise missing("account", account_id, "relink_options[account]", status=400)
        if account.authorization is not authorization:
            raise ApiFailure(
                400,
                f"Account '{account_id}' does not belong to authorization '{identifier}'.",
                param="relink_options[account]",
            )
        if not account.is_relinkable:
            raise ApiFailure(
                400, f"Account '{account_id}' is {account.status} for good.", param="relink_options[account]"
            )
        session.account_id = account_id
    return authorization


def _hosted(state: State, session: Session, given: Parameters, authorization: Authorization | None) -> None:
    mode = parameters.text(given, "ui_mode") or "modal"
    session.ui_mode = parameters.one_of(mode, ("modal", "hosted"), "ui_mode")
    hosted = given.get("hosted")
    if session.ui_mode != "hosted":
        if hosted is not None:
            raise ApiFailure(400, "`hosted` can only be passed when `ui_mode` is `hosted`.", param="hosted")
        return
    name = "hosted[delivery_method]"
    method = parameters.text(hosted or {}, "delivery_method", name)
    if method is None:
        raise ApiFailure(400, f"Missing required param: {name}.", code="parameter_missing", param=name)
    session.delivery_method = parameters.one_of(method, ("email", "url"), name)
    if authorization is None:
        raise ApiFailure(400, f"`{name}` can only be passed with `relink_options`.", param=name)
    if method == "email" and state.email_of(session.holder.id) is None:
        raise ApiFailure(400, f"{session.holder.id} has no e-mail address on file to send the request to.", param=name)
    _hosted_return_url(state, session, hosted or {})
    _hosted_interval(state, session, authorization)


def _hosted_return_url(state: State, session: Session, hosted: Parameters) -> None:
    """Where the hosted page leads back to: one of the readings that Stripe's documents allow."""
    reading = state.behaviour.hosted_return_url
    if reading == "nested":
        session.return_url = _return_url(hosted, "hosted[return_url]")
    if reading != "optional" and session.return_url is None:
        name = "hosted[return_url]" if reading == "nested" else "return_url"
        raise ApiFailure(400, f"Missing required param: {name}.", code="parameter_missing", param=name)


def _hosted_interval(state: State, session: Session, authorization: Authorization) -> None:
    """No second hosted request so soon, unless the one before was completed (Stripe docs: hosted relink, eligibility)."""
    since = state.now - state.behaviour.hosted_interval_hours * 3_600
    for other in reversed(state.sessions.values()):
        if other.created <= since:
            return
        same = other.authorization_id == authorization.id or other.holder == session.holder
        if other.ui_mode == "hosted" and same and other.status != "succeeded":
            raise ApiFailure(
                400,
                f"A hosted relink of authorization '{authorization.id}' was requested too recently.",
                param="hosted[delivery_method]",
            )
