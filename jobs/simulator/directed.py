"""Moving a world through time and changing it by hand, as its customers and their banks would."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from jobs.simulator import answers, changes, timeline
from jobs.simulator.building import BuildableWorld, check_known
from jobs.simulator.clock import epoch_seconds
from jobs.simulator.locking import locked
from jobs.simulator.model import PERMISSIONS, Authorization


class DirectedWorld(BuildableWorld):
    """A world that a person or a test directs. Every method is safe to call while it is served."""

    @property
    def now_at(self) -> datetime:
        """The simulated time."""
        return datetime.fromtimestamp(self.now, UTC)

    @locked
    def settle(self) -> None:
        """Let happen what is due at the clock's time; called at every request."""
        now = self.clock.now_seconds()
        if now != self.now or (self.due and self.due[0][0] <= now):
            timeline.run(self, max(now, self.now))

    @locked
    def advance_to(self, at: datetime) -> None:
        """Move simulated time forward to `at`; everything between happens in its order."""
        self.clock.advance_to(epoch_seconds(at))
        self.settle()

    def advance(self, *, days: float = 0, hours: float = 0, seconds: float = 0) -> None:
        """Move simulated time forward by this much."""
        self.advance_to(self.now_at + timedelta(days=days, hours=hours, seconds=seconds))

    @locked
    def break_account(self, account_id: str, cause: str = "access_expired", action: str = "relink_required") -> None:
        """Make one account inactive; its authorization stays as it is."""
        changes.deactivate(self, self.accounts[account_id], cause, action)

    @locked
    def break_authorization(
        self, authorization_id: str, cause: str = "access_expired", action: str = "relink_required"
    ) -> None:
        """Make an authorization and its accounts inactive."""
        changes.deactivate_authorization(self, self.authorizations[authorization_id], cause, action)

    @locked
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

    @locked
    def heal_account(self, account_id: str) -> None:
        """Make one account active again without a relink."""
        account = self.accounts[account_id]
        changes.reactivate(self, account)
        if account.authorization.status == "inactive":
            changes.revive_authorization(account.authorization)

    @locked
    def heal_authorization(self, authorization_id: str) -> None:
        """Make an authorization and its inactive accounts active again without a relink."""
        authorization = self.authorizations[authorization_id]
        changes.revive_authorization(authorization)
        for account in authorization.accounts:
            if account.status != "disconnected":
                changes.reactivate(self, account)

    @locked
    def expect_deactivation(self, authorization_id: str, at: datetime | None, cause: str = "access_expired") -> None:
        """Announce a deactivation at `at`, or one without a date."""
        authorization = self.authorizations[authorization_id]
        seconds = None if at is None else epoch_seconds(at)
        changes.expect_deactivation(self, authorization, authorization.accounts, seconds, cause)
        self.settle()

    @locked
    def withdraw_expectation(self, authorization_id: str) -> None:
        """Take an announced deactivation back."""
        changes.withdraw_expectation(self, self.authorizations[authorization_id])

    @locked
    def disconnect_account(self, account_id: str) -> None:
        """Disconnect one account."""
        changes.disconnect(self, self.accounts[account_id])

    @locked
    def disconnect_authorization(self, authorization_id: str) -> None:
        """Disconnect an authorization and its accounts."""
        changes.disconnect_authorization(self, self.authorizations[authorization_id])

    @locked
    def expire_number(self, account_id: str, status: str = "expired") -> None:
        """Let an account's tokenized numbers stop working, as `expired` or `deactivated`."""
        check_known("account number status", [status], ("expired", "deactivated", "pending", "transactable"))
        account = self.accounts[account_id]
        if not any(number.identifier_type == "tokenized_account_number" for number in account.numbers):
            raise ValueError(f"account {account_id} has no tokenized number")
        changes.change_numbers(self, account, ("transactable", "pending"), status)

    @locked
    def set_permissions(self, account_id: str, permissions: Sequence[str]) -> None:
        """Change what an account grants."""
        check_known("permission", permissions, PERMISSIONS)
        self.accounts[account_id].permissions = tuple(permissions)

    @locked
    def set_holder(self, account_id: str, holder: tuple[str, str]) -> None:
        """Let an account show another holder than its authorization's."""
        self.accounts[account_id].holder = self.holders.get(holder[1]) or self.add_customer(holder)
        self.forget_holder_index()

    @locked
    def override(self, account_id: str, fields: dict[str, Any]) -> None:
        """Replace raw fields of an account's JSON, such as {"status": "frozen"} or {"authorization": None}."""
        self.accounts[account_id]
        self.overrides.setdefault(account_id, {}).update(fields)

    @locked
    def remove_account(self, account_id: str) -> None:
        """Let an account vanish from lists and retrieval."""
        account = self.accounts.pop(account_id)
        account.authorization.accounts.remove(account)
        self.listing.remove(account)
        self.renumber()

    @locked
    def hide_account(self, account_id: str) -> None:
        """Let lists leave an account out that retrieval still shows."""
        self.listing.remove(self.accounts[account_id])
        self.renumber()

    @locked
    def delete_customer(self, holder_id: str) -> None:
        """Delete a customer; their accounts stay listed, new sessions for them are refused."""
        self.holders[holder_id]
        self.deleted_holders.add(holder_id)

    @locked
    def set_email(self, holder_id: str, email: str | None) -> None:
        """The e-mail address on file."""
        self.emails[holder_id] = email

    @locked
    def set_unavailable(self, institution: str, is_unavailable: bool = True) -> None:
        """Whether a bank cannot be reached, so that no session is made for it."""
        self.institutions[institution].is_unavailable = is_unavailable

    @locked
    def add_other_mode_id(self, object_id: str) -> None:
        """An id that exists, but in the other mode."""
        self.other_mode_ids.add(object_id)

    @locked
    def link_afresh(self, authorization_id: str, accounts: Sequence[str] | None = None) -> Authorization:
        """Let the customer link accounts once more under a new authorization, those that do not work or those named; the old ones stay as they are."""
        old = self.authorizations[authorization_id]
        chosen = [
            account
            for account in old.accounts
            if (account.status != "active" if accounts is None else account.id in accounts)
        ]
        if not chosen:
            raise ValueError(f"authorization {authorization_id} has no account to link afresh; name some")
        return answers.link_afresh(self, old, chosen)

    @locked
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
