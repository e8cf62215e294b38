"""The simulated world and everything a person or a test can do to it directly."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from jobs.simulator import answers, changes, population, timeline
from jobs.simulator.behaviour import Behaviour
from jobs.simulator.clock import SimulatedClock, epoch_seconds
from jobs.simulator.draws import token
from jobs.simulator.keys import ApiKey, make_key
from jobs.simulator.model import CATEGORY_OF, PERMISSIONS, Account, AccountNumber, Authorization, Holder
from jobs.simulator.state import DEFAULT_API_VERSION, State

DEFAULT_KEY = "rk_test_simulator"
DEFAULT_LIVE_KEY = "rk_live_simulator"
DEFAULT_START = datetime(2026, 11, 2, 3, 0, tzinfo=UTC)

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def _locked(
    method: Callable[Concatenate[World, Arguments], Result],
) -> Callable[Concatenate[World, Arguments], Result]:
    @wraps(method)
    def guarded(self: World, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with self.lock:
            return method(self, *args, **kwargs)

    return guarded


class World(State):
    """A Stripe account with its customers and their bank accounts. Every method is safe to call while it is served."""

    def __init__(
        self,
        *,
        seed: int = 1,
        start: datetime = DEFAULT_START,
        livemode: bool = False,
        behaviour: Behaviour | None = None,
        clock: SimulatedClock | None = None,
        api_keys: Iterable[str] | None = None,
        default_api_version: str = DEFAULT_API_VERSION,
        stripe_account: str = "acct_1SimulatedMerchant",
    ) -> None:
        super().__init__(
            seed=seed,
            start=start,
            livemode=livemode,
            behaviour=behaviour or Behaviour.quiet(),
            clock=clock,
            default_api_version=default_api_version,
            stripe_account=stripe_account,
        )
        self.keys: dict[str, ApiKey] = {}
        for key in api_keys if api_keys is not None else (DEFAULT_LIVE_KEY if livemode else DEFAULT_KEY,):
            self.add_key(key)

    @classmethod
    def empty(cls, **options: Any) -> World:
        """A world without accounts in which nothing happens by itself; the options are those of the constructor."""
        return cls(**options)

    @classmethod
    def generate(
        cls, accounts: int = 2000, *, seed: int = 1, behaviour: Behaviour | None = None, **options: Any
    ) -> World:
        """A populated world; the same seed, size, start and behaviour give the same world and the same nights."""
        world = cls(seed=seed, behaviour=behaviour or Behaviour(), **options)
        population.populate(world, accounts)
        world.settle()
        return world

    # Time

    @property
    def now_at(self) -> datetime:
        """The simulated time."""
        return datetime.fromtimestamp(self.now, UTC)

    @_locked
    def settle(self) -> None:
        """Let happen what is due at the clock's time; called at every request."""
        now = self.clock.now_seconds()
        if now != self.now or (self.due and self.due[0][0] <= now):
            timeline.run(self, max(now, self.now))

    @_locked
    def advance_to(self, at: datetime) -> None:
        """Move simulated time forward to `at`; everything between happens in its order."""
        self.clock.advance_to(epoch_seconds(at))
        self.settle()

    def advance(self, *, days: float = 0, hours: float = 0, seconds: float = 0) -> None:
        """Move simulated time forward by this much."""
        self.advance_to(self.now_at + timedelta(days=days, hours=hours, seconds=seconds))

    # Building small worlds

    @_locked
    def add_customer(self, holder: tuple[str, str] = ("customer", "cus_1"), email: str | None = "") -> Holder:
        """A holder, given as (customer | account | customer_account, id). An empty e-mail address is made up; None is none on file."""
        kind, holder_id = holder
        if kind not in ("customer", "account", "customer_account"):
            raise ValueError(f"holder kind {kind!r} must be customer, account or customer_account")
        made = Holder(kind, holder_id)
        self.holders[holder_id] = made
        if email is None or email:
            self.emails[holder_id] = email
        return made

    @_locked
    def add_authorization(
        self,
        holder: tuple[str, str] = ("customer", "cus_1"),
        institution: str = "Alderbrook Mutual",
        accounts: int | Sequence[dict[str, Any]] = 1,
        *,
        authorization_id: str | None = None,
        created_at: datetime | None = None,
        tokenized: bool | None = None,
    ) -> Authorization:
        """An authorization with `accounts`: how many, or a dictionary of `add_account` arguments for each."""
        made = self.holders.get(holder[1]) or self.add_customer(holder)
        bank = self.institution(institution)
        if tokenized is not None:
            bank.tokenized = tokenized
        number = len(self.authorizations)
        identifier = authorization_id or "fcauth_1" + token(f"{self.seed}:added:{number}", 23)
        if identifier in self.authorizations:
            raise ValueError(f"authorization {identifier} exists already")
        created = self.now if created_at is None else epoch_seconds(created_at)
        authorization = Authorization(identifier, made, bank, created)
        self.authorizations[identifier] = authorization
        for arguments in [{}] * accounts if isinstance(accounts, int) else accounts:
            self.add_account(identifier, **arguments)
        population.schedule_trouble(self, authorization, 0)
        return authorization

    @_locked
    def add_account(
        self,
        authorization_id: str,
        *,
        account_id: str | None = None,
        subcategory: str = "checking",
        last4: str | None = "",
        permissions: Sequence[str] = ("balances", "transactions"),
        numbers: Sequence[tuple[str, str, datetime | None]] | None = None,
        status: str = "active",
        cause: str | None = None,
        action: str | None = None,
        expected_deactivation_at: datetime | None = None,
        created_at: datetime | None = None,
    ) -> Account:
        """One more account. An empty last4 is made up; `numbers` are (identifier_type, status, expires_at).

        `cause` and `action` are those of its status: inactive's, or active's together with expected_deactivation_at.
        """
        authorization = self.authorizations[authorization_id]
        identifier = account_id or "fca_1" + token(f"{self.seed}:added:{len(self.accounts)}", 23)
        if identifier in self.accounts:
            raise ValueError(f"account {identifier} exists already")
        _check("permission", permissions, PERMISSIONS)
        _check("subcategory", [subcategory], CATEGORY_OF)
        created = authorization.created if created_at is None else epoch_seconds(created_at)
        expected_at = None if expected_deactivation_at is None else epoch_seconds(expected_deactivation_at)
        active = status == "active"
        account = Account(
            id=identifier,
            authorization=authorization,
            holder=authorization.holder,
            last4=f"{self.draws('last4', identifier).word() % 10_000:04d}" if last4 == "" else last4,
            subcategory=subcategory,
            permissions=tuple(permissions),
            numbers=changes.PLAIN_NUMBERS if subcategory in ("checking", "savings") else (),
            created=created,
            refreshed_at=self.now,
            status=status,
            inactive_action=None if status != "inactive" else action or "relink_required",
            inactive_cause=None if status != "inactive" else cause or "access_expired",
            active_action=(action or ("relink_required" if expected_at else "none")) if active else "none",
            active_cause=cause if active else None,
            expected_at=expected_at if active else None,
            broken_at=self.now if status == "inactive" else 0,
        )
        authorization.accounts.append(account)
        self.index_account(account)
        if numbers is not None:
            account.numbers = tuple(
                AccountNumber(kind, state, None if at is None else epoch_seconds(at)) for kind, state, at in numbers
            )
            for number in account.numbers:
                if number.expires_at is not None and number.status in ("transactable", "pending"):
                    changes.watch_number(self, account, number.expires_at)
        elif changes.has_tokenized_numbers(account):
            account.numbers = ()
            changes.issue_number(self, account, announce=False)
        if account.expected_at is not None:
            self.schedule(account.expected_at, changes.Due.DEACTIVATE, authorization.id, account.expected_at)
        return account

    # Direct changes

    @_locked
    def break_account(self, account_id: str, cause: str = "access_expired", action: str = "relink_required") -> None:
        """Make one account inactive; its authorization stays as it is."""
        changes.deactivate(self, self.accounts[account_id], cause, action)

    @_locked
    def break_authorization(
        self, authorization_id: str, cause: str = "access_expired", action: str = "relink_required"
    ) -> None:
        """Make an authorization and its accounts inactive."""
        changes.deactivate_authorization(self, self.authorizations[authorization_id], cause, action)

    @_locked
    def break_institution(
        self,
        institution: str,
        share: float = 1.0,
        cause: str = "institution_requirement",
        action: str = "relink_required",
    ) -> int:
        """Make a share of a bank's active authorizations inactive, as when a bank changes its rules; how many."""
        broken = 0
        for authorization in list(self.authorizations.values()):
            if authorization.institution.name != institution or authorization.status != "active":
                continue
            if self.draws("institution", institution, authorization.id, self.now).chance(share):
                changes.deactivate_authorization(self, authorization, cause, action)
                broken += 1
        return broken

    @_locked
    def heal_account(self, account_id: str) -> None:
        """Make one account active again without a relink."""
        account = self.accounts[account_id]
        changes.reactivate(self, account)
        if account.authorization.status == "inactive":
            changes.revive_authorization(account.authorization)

    @_locked
    def heal_authorization(self, authorization_id: str) -> None:
        """Make an authorization and its inactive accounts active again without a relink."""
        authorization = self.authorizations[authorization_id]
        changes.revive_authorization(authorization)
        for account in authorization.accounts:
            if account.status != "disconnected":
                changes.reactivate(self, account)

    @_locked
    def expect_deactivation(self, authorization_id: str, at: datetime | None, cause: str = "access_expired") -> None:
        """Announce a deactivation at `at`, or one without a date."""
        authorization = self.authorizations[authorization_id]
        seconds = None if at is None else epoch_seconds(at)
        changes.expect_deactivation(self, authorization, authorization.accounts, seconds, cause)
        self.settle()

    @_locked
    def withdraw_expectation(self, authorization_id: str) -> None:
        """Take an announced deactivation back."""
        changes.withdraw_expectation(self, self.authorizations[authorization_id])

    @_locked
    def disconnect_account(self, account_id: str) -> None:
        """Disconnect one account."""
        changes.disconnect(self, self.accounts[account_id])

    @_locked
    def disconnect_authorization(self, authorization_id: str) -> None:
        """Disconnect an authorization and its accounts."""
        changes.disconnect_authorization(self, self.authorizations[authorization_id])

    @_locked
    def expire_number(self, account_id: str, status: str = "expired") -> None:
        """Let an account's tokenized numbers stop working, as `expired` or `deactivated`."""
        _check("account number status", [status], ("expired", "deactivated", "pending", "transactable"))
        account = self.accounts[account_id]
        if not any(number.identifier_type == "tokenized_account_number" for number in account.numbers):
            raise ValueError(f"account {account_id} has no tokenized number")
        changes.change_numbers(self, account, ("transactable", "pending"), status)

    @_locked
    def set_permissions(self, account_id: str, permissions: Sequence[str]) -> None:
        """Change what an account grants."""
        _check("permission", permissions, PERMISSIONS)
        self.accounts[account_id].permissions = tuple(permissions)

    @_locked
    def set_holder(self, account_id: str, holder: tuple[str, str]) -> None:
        """Let an account show another holder than its authorization's."""
        self.accounts[account_id].holder = self.holders.get(holder[1]) or self.add_customer(holder)
        self.forget_holder_index()

    @_locked
    def override(self, account_id: str, fields: dict[str, Any]) -> None:
        """Replace raw fields of an account's JSON, such as {"status": "frozen"} or {"authorization": None}."""
        self.accounts[account_id]
        self.overrides.setdefault(account_id, {}).update(fields)

    @_locked
    def remove_account(self, account_id: str) -> None:
        """Let an account vanish from lists and retrieval."""
        account = self.accounts.pop(account_id)
        account.authorization.accounts.remove(account)
        self.listing.remove(account)
        self.renumber()

    @_locked
    def delete_customer(self, holder_id: str) -> None:
        """Delete a customer; their accounts stay listed, new sessions for them are refused."""
        self.holders[holder_id]
        self.deleted_holders.add(holder_id)

    @_locked
    def set_email(self, holder_id: str, email: str | None) -> None:
        """The e-mail address on file."""
        self.emails[holder_id] = email

    @_locked
    def add_other_mode_id(self, object_id: str) -> None:
        """An id that exists, but in the other mode."""
        self.other_mode_ids.add(object_id)

    @_locked
    def answer(
        self,
        session_id: str,
        how: str,
        accounts: Sequence[str] | None = None,
        *,
        keep_account_ids: bool | None = None,
        old_disconnected: bool | None = None,
        ambiguous: bool | None = None,
        lag_seconds: int | None = None,
    ) -> None:
        """Answer a pending session now; `how` is one of `behaviour.ANSWERS`, `accounts` those the customer chooses."""
        answers.answer(
            self,
            self.sessions[session_id],
            how,
            accounts=accounts,
            keep_account_ids=keep_account_ids,
            old_disconnected=old_disconnected,
            ambiguous=ambiguous,
            lag_seconds=lag_seconds,
        )

    # Keys and counts

    @_locked
    def add_key(self, key: str, denied: Iterable[str] = ()) -> ApiKey:
        """Let a key in. `denied` are endpoint names it may not use; rk_ keys may use Financial Connections and events only."""
        made = make_key(key, frozenset(denied), self.livemode)
        self.keys[key] = made
        return made

    @_locked
    def revoke_key(self, key: str) -> None:
        """From now on the key is refused with 401."""
        self.keys[key].revoked = True

    @property
    def secrets_issued(self) -> frozenset[str]:
        """Every client secret, hosted URL and e-mail address ever put into a reply, and every key."""
        with self.lock:
            return frozenset(self.secrets | set(self.keys))

    @_locked
    def contacts_by_authorization(self) -> dict[str, int]:
        """How many sessions were really created for each authorization."""
        counts: dict[str, int] = {}
        for effect in self.effects:
            if effect.authorization_id is not None:
                counts[effect.authorization_id] = counts.get(effect.authorization_id, 0) + 1
        return counts

    @_locked
    def stats(self) -> dict[str, Any]:
        """Counts for people: objects by status, calls by endpoint, faults injected."""
        statuses: dict[str, int] = {}
        for account in self.listing:
            statuses[account.status] = statuses.get(account.status, 0) + 1
        sessions: dict[str, int] = {}
        for session in self.sessions.values():
            sessions[session.status] = sessions.get(session.status, 0) + 1
        return {
            "now_at": self.now_at.isoformat(),
            "accounts": statuses,
            "authorizations": len(self.authorizations),
            "sessions": sessions,
            "events": len(self.events),
            "calls": dict(self.calls),
            "faults": dict(self.faults.injected),
        }


def _check(what: str, values: Iterable[str], known: Iterable[str]) -> None:
    for value in values:
        if value not in known:
            raise ValueError(f"unknown {what} {value!r}; known are {', '.join(known)}")
