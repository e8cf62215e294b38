"""Probes that create sessions in a sandbox, and probes of sessions that a person has answered there.

Only modal sessions and hosted ones by URL are made, so nobody is written to. What is kept are yes or no and words without an id.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from jobs.adapters.stripe_fields import Look
from jobs.adapters.stripe_gateway import StripeGateway
from jobs.probe import NOBODY, STABLE_VERSION, Observation, refusal_words
from jobs.simulator.banks import TEST_INSTITUTIONS
from reconcile.errors import KeyRefused
from reconcile.model import HOLDER_TYPES
from reconcile.records import AccountRecord, CallFailure, SessionCreated, SessionRecord, StripeCallFailed
from reconcile.session_request import encode_session_request

SANDBOX_BEHAVIOURS = (
    "keys",
    "test-institutions",
    "session-fields",
    "session-secret-on-retrieval",
    "session-relink-options",
    "session-account-belongs",
    "session-account-limit",
    "session-subcategories",
    "relink-of-a-healthy-login",
    "relink-refusals",
    "relink-unknown-authorization",
    "two-open-sessions",
    "hosted-preview",
    "hosted-url",
    "hosted-return-url",
    "hosted-48-hours",
    "hosted-url-counts",
    "idempotency-replay",
    "idempotency-replayed-header",
    "idempotency-other-parameters",
    "idempotency-refusals-not-stored",
    "idempotency-key-length",
    "events-of-a-creation",
)
PERSON_BEHAVIOURS = (
    "events-of-an-answer",
    "session-accounts-are-paged",
    "result-and-status",
    "result-same-authorization",
    "result-new-authorization",
    "new-authorization-account-ids",
    "new-authorization-old-accounts",
    "siblings-come-back",
    "accounts-lag",
    "relink-renews-numbers",
    "reauthentication-institutions",
)
RETURN_URL = "https://merchant.example/relinked"
STATUS_OF_REASON = {"no_account": "succeeded", "no_authorization": "failed", "other": "failed"}
"""What the stand-in does; Stripe documents nothing."""

_WORDS_OF_SESSIONS = "financial_connections.session.updated"


@dataclass(frozen=True, slots=True)
class Target:
    """What is probed: a gateway, its API version, one with a key that Stripe does not know, and sessions that were answered."""

    gateway: StripeGateway
    stranger: StripeGateway
    api_version: str
    answered: tuple[str, ...] = ()


Made = SessionCreated | CallFailure


class Sandbox:
    """Creates sessions for accounts of the sandbox."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.gateway = target.gateway
        self.accounts = self.gateway.list_accounts_page(purpose="probe").records

    def chosen(self, *statuses: str) -> AccountRecord | None:
        """The newest account of one of these statuses that names whom and what a session needs."""
        usable = (one for one in self.accounts if one.authorization_id and one.holder_type in HOLDER_TYPES)
        return next((one for one in usable if one.status in statuses), None)

    def body(self, account: AccountRecord, **more: Any) -> str:
        """A modal relink session for an account's login; None in `more` leaves a parameter out."""
        kind = "account" if account.holder_type == "account" else "customer"
        params: dict[str, Any] = {
            "account_holder": {"type": kind, str(account.holder_type): account.account_holder_id},
            "permissions": list(account.permissions or ("balances",)),
            "relink_options": {"authorization": account.authorization_id},
        }
        return encode_session_request(params | more)

    def create(self, body: str, key: str | None = None, api_version: str | None = None) -> Made:
        """A session, or why there is none; each under a key of its own unless one is named."""
        try:
            return self.gateway.create_session(
                body,
                api_version=api_version or self.target.api_version,
                idempotency_key=key or fresh_key(),
                may_send=lambda: True,
            )
        except StripeCallFailed as error:
            return error.failure

    def look(self, session_id: str) -> Look:
        """Which fields a session shows."""
        found = self.gateway.look("sessions", session_id)
        assert isinstance(found, Look), found
        return found


def fresh_key() -> str:
    return "relink-probe-" + secrets.token_hex(16)


def told(made: Made) -> str:
    """What came of a creation, in words."""
    return "accepted" if isinstance(made, SessionCreated) else refusal_words(made)


def is_refused(made: Made, param: str | None = None) -> bool:
    return isinstance(made, CallFailure) and made.http_status == 400 and param in (None, made.param)


def probe_writes(target: Target) -> Iterator[Observation]:
    """Every behaviour of `SANDBOX_BEHAVIOURS`, each once."""
    yield _keys(target)
    yield _institutions(target.gateway)
    sandbox = Sandbox(target)
    account = sandbox.chosen("active")
    if account is None:
        for name in SANDBOX_BEHAVIOURS[2:]:
            yield Observation(name, None, "link an account in the sandbox first: none is active")
        return
    began_at = target.gateway.server_now()
    first = sandbox.create(sandbox.body(account))
    if isinstance(first, CallFailure):
        for name in SANDBOX_BEHAVIOURS[2:]:
            yield Observation(name, False if name == "relink-of-a-healthy-login" else None, told(first))
        return
    yield from _session(sandbox, account, first)
    yield from _parameters(sandbox, account)
    yield Observation("relink-of-a-healthy-login", True, told(first))
    yield from _refusals(sandbox, account)
    second = sandbox.create(sandbox.body(account))
    still = target.gateway.retrieve_session(first.session_id, "probe")
    both = isinstance(second, SessionCreated) and still is not None and still.status == "pending"
    yield Observation("two-open-sessions", both, f"second {told(second)}; first {still.status if still else 'gone'}")
    yield from _hosted(sandbox, account)
    yield from _idempotency(sandbox, account)
    yield _events_of_a_creation(target.gateway, first, began_at)


def _keys(target: Target) -> Observation:
    try:
        target.stranger.list_accounts_page(limit=1, purpose="probe")
    except KeyRefused as error:
        return Observation("keys", "HTTP 401" in str(error), "an unknown key is refused with 401")
    return Observation("keys", False, "an unknown key is let in")


def _institutions(gateway: StripeGateway) -> Observation:
    wanted = {name for name, *_ in TEST_INSTITUTIONS}
    names: set[str] = set()
    cursor = None
    for _ in range(10):
        page = gateway.look("institutions", params={"limit": 100, "starting_after": cursor}, words=("name",))
        if isinstance(page, CallFailure):
            return Observation("test-institutions", None, refusal_words(page))
        names |= page.words("name")
        if not page.has_more or not page.items:
            break
        cursor = page.items[-1].id
    missing = sorted(wanted - names)
    return Observation(
        "test-institutions",
        not missing,
        f"not among {len(names)}: {'; '.join(missing)}" if missing else "all are there",
    )


def _session(sandbox: Sandbox, account: AccountRecord, made: SessionCreated) -> Iterator[Observation]:
    fields = sandbox.look(made.session_id).fields
    missing = {"status", "account_holder", "permissions", "accounts", "relink_options", "livemode"} - fields
    surplus = {"created", "expires_at", "metadata"} & fields
    saw = f"missing {sorted(missing)}, beyond {sorted(surplus)}" if missing or surplus else "as documented"
    yield Observation("session-fields", not missing and not surplus, saw)
    secret = "client_secret" in fields
    yield Observation("session-secret-on-retrieval", secret, "comes again" if secret else "does not come again")
    named = sandbox.create(
        sandbox.body(account, relink_options={"authorization": account.authorization_id, "account": account.account_id})
    )
    stable = sandbox.create(sandbox.body(account), api_version=STABLE_VERSION)
    read = sandbox.gateway.retrieve_session(named.session_id, "probe") if isinstance(named, SessionCreated) else None
    echoed = (
        made.requested_authorization == account.authorization_id
        and read is not None
        and read.requested_account == account.account_id
    )
    refused = isinstance(stable, CallFailure) and stable.error_code == "parameter_unknown"
    saw = f"{'echoed' if echoed else 'not echoed'}; {STABLE_VERSION} {told(stable)}"
    yield Observation("session-relink-options", echoed and refused, saw)


def _parameters(sandbox: Sandbox, account: AccountRecord) -> Iterator[Observation]:
    foreign = next((one for one in sandbox.accounts if one.authorization_id != account.authorization_id), None)
    if foreign is None:
        yield Observation("session-account-belongs", None, "link accounts of two logins first")
    else:
        options = {"authorization": account.authorization_id, "account": foreign.account_id}
        made = sandbox.create(sandbox.body(account, relink_options=options))
        yield Observation("session-account-belongs", is_refused(made), told(made))
    made = sandbox.create(sandbox.body(account, limits={"accounts": 1}))
    yield Observation("session-account-limit", isinstance(made, SessionCreated), told(made))
    known = sandbox.create(sandbox.body(account, filters={"account_subcategories": ["checking", "savings"]}))
    other = sandbox.create(sandbox.body(account, filters={"account_subcategories": ["other"]}))
    agrees = isinstance(known, SessionCreated) and is_refused(other)
    yield Observation("session-subcategories", agrees, f"known ones {told(known)}; other {told(other)}")


def _refusals(sandbox: Sandbox, account: AccountRecord) -> Iterator[Observation]:
    living = {one.authorization_id for one in sandbox.accounts if not _is_over(one)}
    over = (one for one in sandbox.accounts if one.authorization_id and one.holder_type in HOLDER_TYPES)
    gone = next((one for one in over if one.authorization_id not in living), None)
    if gone is None:
        yield Observation("relink-refusals", None, "disconnect a login in the sandbox first")
    else:
        made = sandbox.create(sandbox.body(gone))
        yield Observation("relink-refusals", is_refused(made), told(made))
    made = sandbox.create(sandbox.body(account, relink_options={"authorization": "fcauth_" + NOBODY}))
    yield Observation("relink-unknown-authorization", is_refused(made), told(made))


def _is_over(account: AccountRecord) -> bool:
    return account.status == "disconnected" or account.inactive_action == "none"


def _hosted(sandbox: Sandbox, account: AccountRecord) -> Iterator[Observation]:
    hosted: dict[str, Any] = {"ui_mode": "hosted", "hosted": {"delivery_method": "url"}}
    bare = made = sandbox.create(sandbox.body(account, **hosted))
    for more in ({"return_url": RETURN_URL}, {"hosted": {"delivery_method": "url", "return_url": RETURN_URL}}):
        if isinstance(made, SessionCreated):
            break
        hosted |= more
        made = sandbox.create(sandbox.body(account, **hosted))
    yield Observation("hosted-preview", isinstance(made, SessionCreated), told(made))
    if isinstance(made, CallFailure):
        for name in ("hosted-url", "hosted-return-url", "hosted-48-hours", "hosted-url-counts"):
            yield Observation(name, None, "no hosted session can be made")
        return
    fields = sandbox.look(made.session_id).fields
    shown = [name for name in ("url", "client_secret") if name in fields]
    yield Observation("hosted-url", shown == ["url"], f"shows {' and '.join(shown) or 'neither'}")
    needed = "needed" if "return_url" in hosted or "return_url" in hosted["hosted"] else "optional"
    yield Observation("hosted-return-url", isinstance(bare, SessionCreated), f"{needed}; without one {told(bare)}")
    again = sandbox.create(sandbox.body(account, **hosted))
    yield Observation("hosted-48-hours", is_refused(again), f"a second one at once: {told(again)}")
    yield Observation("hosted-url-counts", is_refused(again), f"after one by URL: {told(again)}")


def _idempotency(sandbox: Sandbox, account: AccountRecord) -> Iterator[Observation]:
    key, body = fresh_key(), sandbox.body(account)
    first, again = sandbox.create(body, key), sandbox.create(body, key)
    same = isinstance(first, SessionCreated) and isinstance(again, SessionCreated)
    same = same and first.session_id == again.session_id  # type: ignore[union-attr]
    yield Observation("idempotency-replay", same, "the same session" if same else f"{told(first)}, then {told(again)}")
    header = isinstance(again, SessionCreated) and again.replayed
    yield Observation("idempotency-replayed-header", header, "came" if header else "did not come")
    other = sandbox.create(sandbox.body(account, return_url=RETURN_URL), key)
    mismatch = isinstance(other, CallFailure) and other.fault == "idempotency_mismatch"
    yield Observation("idempotency-other-parameters", mismatch, told(other))
    key = fresh_key()
    refused, mended = sandbox.create(sandbox.body(account, permissions=["nonsense"]), key), sandbox.create(body, key)
    agrees = is_refused(refused) and isinstance(mended, SessionCreated)
    yield Observation("idempotency-refusals-not-stored", agrees, f"{told(refused)}; then {told(mended)}")
    longest = sandbox.create(body, fresh_key().ljust(255, "x"))
    yield Observation("idempotency-key-length", isinstance(longest, SessionCreated), told(longest))


def _events_of_a_creation(gateway: StripeGateway, first: SessionCreated, began_at: datetime | None) -> Observation:
    name = "events-of-a-creation"
    if began_at is None:
        return Observation(name, None, "Stripe does not tell its time")
    events = gateway.list_events([_WORDS_OF_SESSIONS], began_at - timedelta(minutes=1), purpose="probe")
    mine = [event for event in events if event.object_id == first.session_id]
    return Observation(name, not mine, f"{len(mine)} of the first session by the end of the probes")


def probe_answered(target: Target) -> Iterator[Observation]:
    """Every behaviour of `PERSON_BEHAVIOURS`, each once, from sessions that a person has answered."""
    gateway = target.gateway
    sessions = [one for one in (gateway.retrieve_session(each, "probe") for each in target.answered) if one is not None]
    over = [one for one in sessions if one.status != "pending" or one.result_present]
    if not over:
        for name in PERSON_BEHAVIOURS:
            yield Observation(name, None, "answer sessions in the sandbox and name them in RELINK_SANDBOX_SESSIONS")
        return
    accounts = {one.account_id: one for one in gateway.list_accounts_page(purpose="probe").records}
    yield _events_of_answers(gateway, over)
    most = max(len(one.accounts) for one in over)
    yield Observation(
        "session-accounts-are-paged", True if most > 10 else None, f"{most} accounts of one session at most"
    )
    pairs = {(one.failure_reason, str(one.status)) for one in over if one.failure_reason}
    agrees = all(STATUS_OF_REASON.get(str(reason)) == status for reason, status in pairs)
    saw = ", ".join(sorted(f"{reason} with {status}" for reason, status in pairs))
    yield Observation("result-and-status", agrees if pairs else None, saw or "no session with a failure reason")
    same = [one for one in over if one.result_authorization and one.result_authorization == one.requested_authorization]
    other = [
        one for one in over if one.result_authorization and one.result_authorization != one.requested_authorization
    ]
    yield _same_authorization(same)
    yield Observation("result-new-authorization", True if other else None, f"{len(other)} sessions")
    yield from _new_authorizations(gateway, other, accounts)
    yield _siblings(gateway, same)
    came = [account for one in same for account in one.accounts]
    active = sum(account.status == "active" for account in came)
    yield Observation("accounts-lag", True if came else None, f"active when looked at: {active} of {len(came)}")
    numbers = [
        number.status
        for account in came
        for number in account.account_numbers
        if number.identifier_type == "tokenized_account_number"
    ]
    usable = "transactable" in numbers or "pending" in numbers
    yield Observation(
        "relink-renews-numbers", usable if numbers else None, ", ".join(sorted(map(str, numbers))) or "no number"
    )
    yield _reauthentication(gateway, list(accounts.values()))


def _events_of_answers(gateway: StripeGateway, over: Sequence[SessionRecord]) -> Observation:
    now = gateway.server_now()
    assert now is not None
    events = gateway.list_events([_WORDS_OF_SESSIONS], now - timedelta(days=30), purpose="probe")
    known = {event.object_id for event in events}
    told_of = sum(one.session_id in known for one in over)
    return Observation("events-of-an-answer", told_of == len(over), f"of {told_of} of {len(over)} sessions, in 30 days")


def _same_authorization(same: Sequence[SessionRecord]) -> Observation:
    named = [one for one in same if one.requested_account is not None]
    agrees = all(one.result_account in (one.requested_account, None) for one in named)
    return Observation(
        "result-same-authorization", agrees if same else None, f"{len(same)} sessions, {len(named)} for one account"
    )


def _new_authorizations(
    gateway: StripeGateway, other: Sequence[SessionRecord], accounts: Mapping[str, AccountRecord]
) -> Iterator[Observation]:
    if not other:
        yield Observation("new-authorization-account-ids", None, "no session with a new authorization")
        yield Observation("new-authorization-old-accounts", None, "no session with a new authorization")
        return
    left = [
        sum(one.requested_authorization == account.authorization_id for account in accounts.values()) for one in other
    ]
    saw = f"accounts still under the old authorization: {', '.join(map(str, sorted(left)))}"
    yield Observation("new-authorization-account-ids", True, saw)
    old = [gateway.retrieve_authorization(str(one.requested_authorization), "probe") for one in other]
    statuses = sorted({"gone" if one is None else one.status for one in old})
    agrees = {"active", "inactive", "disconnected"}.issuperset(statuses)
    yield Observation("new-authorization-old-accounts", agrees, ", ".join(statuses))


def _siblings(gateway: StripeGateway, same: Sequence[SessionRecord]) -> Observation:
    scoped = {one.requested_authorization: one.requested_account for one in same if one.requested_account}
    if not scoped:
        return Observation("siblings-come-back", None, "no answered session for one account")
    now = gateway.server_now()
    assert now is not None
    types = ["financial_connections.account.reactivated"]
    events = gateway.list_events(types, now - timedelta(days=30), purpose="probe")
    accounts = gateway.list_accounts_page(purpose="probe").records
    login_of = {account.account_id: account.authorization_id for account in accounts}
    back = {
        event.object_id
        for event in events
        if (login := login_of.get(str(event.object_id))) in scoped and event.object_id != scoped[login]
    }
    return Observation("siblings-come-back", True if back else None, f"{len(back)} others came back")


def _reauthentication(gateway: StripeGateway, accounts: Sequence[AccountRecord]) -> Observation:
    days = {"immediate": 1, "eventual": 30}
    expected = {name: days[manner] for name, manner, *_ in TEST_INSTITUTIONS if manner in days}
    now = gateway.server_now()
    assert now is not None
    ahead = [
        ((one.expected_deactivation_at - now) / timedelta(days=1), expected[str(one.institution_name)])
        for one in accounts
        if one.institution_name in expected and one.status == "active" and one.expected_deactivation_at
    ]
    agrees = all(0 <= found <= limit for found, limit in ahead)
    saw = ", ".join(f"{found:.1f} of {limit} days" for found, limit in sorted(ahead))
    return Observation("reauthentication-institutions", agrees if ahead else None, saw or "no account of those banks")
