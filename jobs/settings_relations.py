"""What must hold between settings that are each right alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from jobs.settings_checks import DEFAULT_KEY_VARIABLE, STRIPE_API, STRIPE_ENDPOINT_LIMIT, STRIPE_LIMIT, is_loopback
from jobs.settings_source import Fault

DEFAULT_MAX_ATTEMPTS = 4
WEEKDAYS = {"monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"}


def relation_faults(values: Mapping[str, Any]) -> list[Fault]:
    """What is wrong between settings that are each right alone; looks at them as written, so that one fault hides no other."""
    return [
        *_merchant_faults(values),
        *_ledger_faults(_mapping(values.get("ledger"))),
        *_stripe_faults(values),
        *_relink_faults(_mapping(values.get("relink"))),
        *_delivery_faults(values),
    ]


def _merchant_faults(values: Mapping[str, Any]) -> Iterator[Fault]:
    merchants = values.get("merchants")
    names: dict[str, int] = {}
    keys: dict[tuple[str, str, str], int] = {}
    for index, merchant in enumerate(map(_mapping, merchants if isinstance(merchants, list) else [])):
        variable, file = merchant.get("api_key_env"), merchant.get("api_key_file")
        if variable is not None and file is not None:
            advice = "stands beside api_key_env; keep one of them and set the other to null"
            yield Fault(("merchants", index, "api_key_file"), advice)
        name = merchant.get("name")
        if isinstance(name, str) and names.setdefault(name.casefold(), index) != index:
            first = names[name.casefold()]
            yield Fault(("merchants", index, "name"), f"is also the name of merchants[{first}]; give each its own")
        # A platform's key reaches each of its connected accounts, but no two merchants may be one Stripe account.
        kind, where = ("file", str(file)) if file is not None else ("variable", str(variable or DEFAULT_KEY_VARIABLE))
        key = (kind, where, str(merchant.get("stripe_account") or ""))
        if keys.setdefault(key, index) != index:
            field = "api_key_file" if file is not None else "api_key_env"
            yield Fault(
                ("merchants", index, field),
                f"is the key of merchants[{keys[key]}] too; give each merchant its own key, or its own stripe_account",
            )


def _ledger_faults(ledger: Mapping[str, Any]) -> Iterator[Fault]:
    for name, other in (("url", "query"), ("query", "url")):
        if ledger.get(name) is None and ledger.get(other) is not None:
            yield Fault(
                ("ledger", name), f"is missing beside ledger.{other}; set both, or neither for the embedded table"
            )

    for name in ("suppression_query",):
        if ledger.get(name) is not None and ledger.get("url") is None:
            yield Fault(("ledger", name), "is asked of the database at ledger.url, which is null; set both")


def _relink_faults(relink: Mapping[str, Any]) -> Iterator[Fault]:
    ladder, most = relink.get("ladder_days"), relink.get("max_attempts", DEFAULT_MAX_ATTEMPTS)
    if isinstance(ladder, list) and isinstance(most, int) and len(ladder) > most:
        yield Fault(
            ("relink", "ladder_days"),
            f"has {len(ladder)} steps, of which only {most} would be made: raise max_attempts, or drop the last ones",
        )
    if set(map(str, relink.get("quiet_weekdays") or ())) >= WEEKDAYS:
        yield Fault(("relink", "quiet_weekdays"), "names all seven, so nobody would ever be asked; leave one out")


def _stripe_faults(values: Mapping[str, Any]) -> Iterator[Fault]:
    stripe = _mapping(values.get("stripe"))
    rate, base = stripe.get("endpoint_requests_per_second"), str(stripe.get("api_base", STRIPE_API))
    loopback = is_loopback(base)
    limit = STRIPE_ENDPOINT_LIMIT
    if isinstance(rate, (int, float)) and rate > limit and not loopback:
        yield Fault(
            ("stripe", "endpoint_requests_per_second"),
            f"is above the {limit:g} that Stripe allows to each endpoint; lower it",
        )
    overall = stripe.get("requests_per_second")
    if isinstance(overall, (int, float)) and overall > STRIPE_LIMIT and not loopback:
        yield Fault(
            ("stripe", "requests_per_second"),
            f"is above the {STRIPE_LIMIT:g} that Stripe allows in live mode; lower it",
        )
    merchants = values.get("merchants")
    for index, merchant in enumerate(map(_mapping, merchants if isinstance(merchants, list) else [])):
        if loopback and merchant.get("mode") == "live":
            yield Fault(
                ("merchants", index, "mode"),
                "is live, but stripe.api_base is a stand-in on loopback; write sandbox or null",
            )


_SELECTORS = ("merchant", "institution", "customer", "reason")


def _delivery_faults(values: Mapping[str, Any]) -> Iterator[Fault]:
    """Rules that no request can ever come to."""
    merchants, rules = values.get("merchants"), _mapping(values.get("relink")).get("delivery_rules")
    names = [_mapping(merchant).get("name") for merchant in (merchants if isinstance(merchants, list) else [])]
    seen: dict[tuple[str, ...], int] = {}
    for index, rule in enumerate(map(_mapping, rules if isinstance(rules, list) else [])):
        path = ("relink", "delivery_rules", index)
        merchant = rule.get("merchant")
        if isinstance(merchant, str) and merchant not in names:
            yield Fault((*path, "merchant"), f"is no merchant of merchants; they are {', '.join(map(str, names))}")
        fits = tuple(str(rule.get(name)) for name in _SELECTORS)
        if seen.setdefault(fits, index) != index:
            yield Fault(path, f"is never reached, since delivery_rules[{seen[fits]}] fits the same; keep one")


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
