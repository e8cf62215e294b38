"""Looks, by reads only, at what a Stripe account shows of the behaviours that this job relies on (STRIPE.md).

About 20 reads. What leaves here are names of behaviours, yes or no, and words without an id of anybody.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from jobs.adapters.stripe_fields import Look
from reconcile.model import HOLDER_TYPES
from reconcile.records import AccountRecord, CallFailure

if TYPE_CHECKING:
    from jobs.adapters.stripe_gateway import StripeGateway

READ_BEHAVIOURS = (
    "request-id",
    "date-header",
    "version-echo",
    "modes-apart",
    "account-fields",
    "account-authorization",
    "account-holder-kinds",
    "account-active-details",
    "account-inactive-details",
    "account-numbers",
    "accounts-newest-first",
    "accounts-paging",
    "accounts-ten-unasked",
    "accounts-unknown-cursor",
    "accounts-by-holder",
    "authorization-retrieve",
    "authorization-disagrees",
    "error-shape",
    "events-thirty-days",
    "events-version",
)
"""The behaviours that reads can show, in the order in which they are told."""

ACCOUNT_FIELDS = frozenset(
    {
        *("id", "authorization", "account_holder", "institution", "institution_name", "last4", "category"),
        *("subcategory", "status", "status_details", "permissions", "account_numbers", "created", "livemode"),
        *("balance_refresh", "ownership_refresh", "transaction_refresh"),
    }
)
"""The fields of an account that a decision or a report needs."""

STABLE_VERSION = "2026-10-28.endive"
"""A version without the preview's fields, for comparison; the one that the stripe package pins."""

EVENT_LIFETIME = timedelta(days=30)
NUMBER_STATUSES = frozenset({"transactable", "pending", "expired", "deactivated"})
NOBODY = "probe_none"
"""Stands for an id that exists nowhere."""

_PAGE = 100


@dataclass(frozen=True, slots=True)
class Observation:
    """What was seen of a behaviour. `agrees`: whether it is as STRIPE.md says; None where it could not be seen, and `saw` says why."""

    behaviour: str
    agrees: bool | None
    saw: str


def probe_reads(gateway: StripeGateway, api_version: str, *, live: bool) -> Iterator[Observation]:
    """Every behaviour of `READ_BEHAVIOURS`, each once.

    Raises:
        OutsideError: Stripe cannot be asked.
    """
    first = _seen(gateway.look("accounts", params={"limit": _PAGE}, words=("livemode",)))
    accounts = gateway.list_accounts_page(limit=_PAGE, purpose="probe").records
    yield Observation("request-id", first.has_request_id, "came" if first.has_request_id else "did not come")
    yield Observation("date-header", first.server_at is not None, "came" if first.server_at else "did not come")
    yield Observation(
        "version-echo", first.api_version == api_version, f"{first.api_version or 'no version'} came back"
    )
    yield _modes(first, live)
    yield _fields(first)
    yield _authorization_key(gateway, first)
    yield _holders(accounts)
    yield _active_details(first, accounts)
    yield _inactive_details(first, accounts)
    yield _numbers(accounts)
    yield _newest_first(first)
    yield _paging(gateway, first)
    yield _ten_unasked(gateway, first)
    yield _refused(
        gateway.look("accounts", params={"limit": 1, "starting_after": NOBODY}),
        "accounts-unknown-cursor",
        "starting_after",
    )
    yield _by_holder(gateway, accounts)
    yield from _authorizations(gateway, accounts)
    yield _errors(gateway)
    yield from _events(gateway, api_version)


def _seen(look: Look | CallFailure) -> Look:
    return Look((), None) if isinstance(look, CallFailure) else look


def refusal_words(failure: CallFailure) -> str:
    """A refusal in Stripe's words for the program, without its message, which may name somebody."""
    told = (
        str(failure.http_status),
        failure.error_type,
        failure.error_code,
        failure.param and f"param {failure.param}",
    )
    return "refused: " + ", ".join(word for word in told if word)


def _nothing(behaviour: str, why: str) -> Observation:
    return Observation(behaviour, None, why)


def _modes(first: Look, live: bool) -> Observation:
    modes = first.words("livemode")
    if not modes:
        return _nothing("modes-apart", "no account is there")
    return Observation("modes-apart", modes == {str(live).lower()}, f"livemode {' and '.join(sorted(modes))}")


def _fields(first: Look) -> Observation:
    if not first.items:
        return _nothing("account-fields", "no account is there")
    missing = ACCOUNT_FIELDS - first.fields
    return Observation(
        "account-fields", not missing, f"never came: {', '.join(sorted(missing))}" if missing else "all came"
    )


def _authorization_key(gateway: StripeGateway, first: Look) -> Observation:
    name = "account-authorization"
    if not first.items:
        return _nothing(name, "no account is there")
    stable = gateway.look("accounts", params={"limit": 1}, api_version=STABLE_VERSION)
    named = all("authorization" in item.fields for item in first.items)
    told = "named" if named else "not named by every account"
    if isinstance(stable, CallFailure):
        return Observation(name, named, f"{told}; {STABLE_VERSION} {refusal_words(stable)}")
    shown = "authorization" in stable.fields
    return Observation(
        name, named and not shown, f"{told}; {STABLE_VERSION} {'names it, too' if shown else 'leaves it out'}"
    )


def _holders(accounts: Sequence[AccountRecord]) -> Observation:
    kinds = Counter(account.holder_type or "none" for account in accounts)
    known = all(kind in (*HOLDER_TYPES, "none") for kind in kinds)
    return Observation("account-holder-kinds", known if kinds else None, _counted(kinds) or "no account is there")


def _active_details(first: Look, accounts: Sequence[AccountRecord]) -> Observation:
    active = {account.account_id for account in accounts if account.status == "active"}
    forms = Counter(_form(item.fields) for item in first.items if item.id in active)
    return Observation(
        "account-active-details", "absent" not in forms if forms else None, _counted(forms) or "no active account"
    )


def _form(fields: frozenset[str]) -> str:
    if "status_details" not in fields:
        return "absent"
    if "status_details.active.action" in fields:
        return "whole"
    return "active empty" if "status_details.active" in fields else "empty"


def _inactive_details(first: Look, accounts: Sequence[AccountRecord]) -> Observation:
    inactive = {account.account_id for account in accounts if account.status == "inactive"}
    found = [item for item in first.items if item.id in inactive]
    if not found:
        return _nothing("account-inactive-details", "no inactive account is there")
    wanted = {"status_details.inactive.action", "status_details.inactive.cause"}
    whole = sum(wanted <= item.fields for item in found)
    return Observation("account-inactive-details", whole == len(found), f"action and cause on {whole} of {len(found)}")


def _numbers(accounts: Sequence[AccountRecord]) -> Observation:
    statuses = Counter(str(number.status) for account in accounts for number in account.account_numbers)
    return Observation(
        "account-numbers", NUMBER_STATUSES.issuperset(statuses) if statuses else None, _counted(statuses) or "no number"
    )


def _newest_first(first: Look) -> Observation:
    times = [item.created for item in first.items if item.created is not None]
    if len(set(times)) < 2:
        return _nothing("accounts-newest-first", "no two accounts of different times")
    falling = times == sorted(times, reverse=True)
    return Observation("accounts-newest-first", falling, f"{len(times)} accounts {'in' if falling else 'not in'} order")


def _paging(gateway: StripeGateway, first: Look) -> Observation:
    if len(first.items) < 2:
        return _nothing("accounts-paging", "fewer than two accounts")
    second = _seen(gateway.look("accounts", params={"limit": 1, "starting_after": first.items[0].id}))
    goes_on = [item.id for item in second.items] == [first.items[1].id] and second.has_more == (len(first.items) > 2)
    whole = len(first.items) <= _PAGE
    return Observation(
        "accounts-paging",
        goes_on and whole,
        "goes on behind the cursor" if goes_on else "does not go on behind the cursor",
    )


def _ten_unasked(gateway: StripeGateway, first: Look) -> Observation:
    if len(first.items) < 11:
        return _nothing("accounts-ten-unasked", "fewer than eleven accounts")
    count = len(_seen(gateway.look("accounts")).items)
    return Observation("accounts-ten-unasked", count == 10, f"{count} came")


def _refused(answer: Look | CallFailure, behaviour: str, param: str) -> Observation:
    if isinstance(answer, CallFailure):
        return Observation(behaviour, answer.http_status == 400 and answer.param == param, refusal_words(answer))
    return Observation(behaviour, False, f"not refused: {len(answer.items)} objects came")


def _by_holder(gateway: StripeGateway, accounts: Sequence[AccountRecord]) -> Observation:
    name = "accounts-by-holder"
    one = next((each for each in accounts if each.account_holder_id and each.holder_type in HOLDER_TYPES), None)
    if one is None:
        return _nothing(name, "no account with a holder")
    holder = {str(one.holder_type): str(one.account_holder_id)}
    found = gateway.list_accounts_page(limit=_PAGE, purpose="probe", holder=holder).records
    own = all(each.account_holder_id == one.account_holder_id for each in found)
    agrees = own and one.account_id in {each.account_id for each in found}
    return Observation(name, agrees, "that holder's alone came" if agrees else "others came, or not all")


def _authorizations(gateway: StripeGateway, accounts: Sequence[AccountRecord]) -> Iterator[Observation]:
    broken = [account for account in accounts if account.status == "inactive"]
    chosen = next((each for each in (*broken, *accounts) if each.authorization_id), None)
    if chosen is None:
        yield _nothing("authorization-retrieve", "no account names one")
        yield _nothing("authorization-disagrees", "no account names one")
        return
    found = gateway.look("authorizations", chosen.authorization_id, words=("status",))
    if isinstance(found, CallFailure):
        agrees = None if found.http_status == 403 else False
        yield Observation("authorization-retrieve", agrees, refusal_words(found))
        yield _nothing("authorization-disagrees", refusal_words(found))
        return
    statuses = found.words("status")
    yield Observation("authorization-retrieve", "status" in found.fields, f"status {' and '.join(sorted(statuses))}")
    apart = chosen.status == "inactive" and statuses == {"active"}
    saw = "an account is inactive, its authorization active" if apart else "not met with"
    yield Observation("authorization-disagrees", True if apart else None, saw)


def _errors(gateway: StripeGateway) -> Observation:
    unknown = gateway.look("accounts", params={"limit": 1, "relink_probe": "1"})
    missing = gateway.look("sessions", "fcsess_" + NOBODY)
    told = [refusal_words(one) if isinstance(one, CallFailure) else "not refused" for one in (unknown, missing)]
    agrees = (
        isinstance(unknown, CallFailure)
        and isinstance(missing, CallFailure)
        and (unknown.http_status, unknown.error_type, unknown.error_code)
        == (400, "invalid_request_error", "parameter_unknown")
        and (missing.http_status, missing.error_type, missing.error_code)
        == (404, "invalid_request_error", "resource_missing")
    )
    return Observation("error-shape", agrees, "; ".join(told))


def _events(gateway: StripeGateway, api_version: str) -> Iterator[Observation]:
    answer = gateway.look("events", params={"limit": _PAGE, "type": "financial_connections.*"}, words=("api_version",))
    if isinstance(answer, CallFailure) or not answer.items:
        why = (
            refusal_words(answer) if isinstance(answer, CallFailure) else "no event of Financial Connections in 30 days"
        )
        yield _nothing("events-thirty-days", why)
        yield _nothing("events-version", why)
        return
    times = [item.created for item in answer.items if item.created is not None]
    falling = times == sorted(times, reverse=True)
    oldest = (
        EVENT_LIFETIME if answer.server_at is None else timedelta(seconds=answer.server_at.timestamp() - min(times))
    )
    agrees = falling and oldest <= EVENT_LIFETIME + timedelta(days=1)
    order = "in order" if falling else "not in order"
    yield Observation("events-thirty-days", agrees, f"{len(times)} events {order}, the oldest {oldest.days} days old")
    versions = answer.words("api_version")
    foreign = sorted(versions - {api_version})
    yield Observation(
        "events-version",
        True if foreign else None,
        f"made at {', '.join(foreign)}" if foreign else f"all made at {api_version}, so that nothing can be told",
    )


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{word} {count}" for word, count in sorted(counts.items()))
