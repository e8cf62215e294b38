"""Small exact worlds: customers, authorizations and accounts, one by one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from jobs.simulator import changes, population
from jobs.simulator.clock import epoch_seconds
from jobs.simulator.draws import token
from jobs.simulator.locking import locked
from jobs.simulator.model import CATEGORY_OF, PERMISSIONS, Account, AccountNumber, Authorization, Holder
from jobs.simulator.state import State


class BuildableWorld(State):
    """A world to which things can be added."""

    @locked
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

    @locked
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

    @locked
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
        check_known("permission", permissions, PERMISSIONS)
        check_known("subcategory", [subcategory], CATEGORY_OF)
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


def check_known(what: str, values: Iterable[str], known: Iterable[str]) -> None:
    """Refuse a value outside a closed list, naming those in it."""
    for value in values:
        if value not in known:
            raise ValueError(f"unknown {what} {value!r}; known are {', '.join(known)}")
