"""What came of a request: the session's own answer first, else what the accounts show."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import pandas as pd

from reconcile.classify import flags
from reconcile.comparison import PastStates, others_cured
from reconcile.contacts import is_open, session_date
from reconcile.ladder import answer_until
from reconcile.model import (
    PROVISIONAL,
    PROVISIONAL_DAYS,
    BreakageKey,
    CoveredAccount,
    Finding,
    Holder,
    Outcome,
    OutcomeKind,
    RelinkRequest,
    RunStamp,
    StoredRequest,
    Successor,
)
from reconcile.normalize import accounts_frame, split_words
from reconcile.policy import RelinkPolicy
from reconcile.records import SessionRecord
from reconcile.request import plain_rows

READ_ON_DAYS = (1, 3)
ANSWERS = (
    OutcomeKind.RELINKED,
    OutcomeKind.RELINKED_PARTIALLY,
    OutcomeKind.NEW_AUTHORIZATION,
    OutcomeKind.FAILED,
    OutcomeKind.CANCELLED,
    OutcomeKind.REVIEW,
)

AccountStates = Mapping[str, Mapping[str, Any]]
"""Account rows (`frames.ACCOUNTS` columns) by account id."""

EligibleDates = Mapping[BreakageKey, date]
"""Since which business date each open breakage could be asked about, from where a ladder counts."""


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen of one session: its record, or that Stripe does not know it (`gone`), and Stripe's time of the answer."""

    session: SessionRecord | None
    gone: bool = False
    answered_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Conclusion:
    """An outcome and the successors that it proves."""

    outcome: Outcome
    successors: tuple[Successor, ...] = ()


def sessions_to_read(
    requests: Iterable[StoredRequest],
    changed_holders: Collection[Holder],
    updated_sessions: Collection[str],
    stamp: RunStamp,
    policy: RelinkPolicy,
    eligible_dates: EligibleDates | None = None,
) -> list[StoredRequest]:
    """The requests whose session is worth a read tonight, since reads are rationed by Stripe.

    An open one is read when its customer's accounts or an event changed, on days 1 and 3, and before it is called expired; a
    provisional one, for 30 days, only when something changed.
    """
    chosen = []
    for stored in requests:
        if stored.session_id is None:
            continue
        changed = stored.request.holder in changed_holders or stored.session_id in updated_sessions
        if is_open(stored):
            if changed or _checkpoint_due(stored, stamp) or _overdue(stored, policy, stamp, eligible_dates):
                chosen.append(stored)
        elif is_provisional(stored, stamp) and changed:
            chosen.append(stored)
    return chosen


def conclude(
    stored: StoredRequest,
    look: Look | None,
    tonight: AccountStates,
    policy: RelinkPolicy,
    stamp: RunStamp,
    eligible_dates: EligibleDates | None = None,
    past: PastStates | None = None,
) -> Conclusion | None:
    """What tonight's look at a request concludes, or None where a provisional outcome stands.

    Args:
        look: None where the session was not read tonight; then nothing new is concluded from it.
        tonight: the accounts of the newest complete snapshot, by id.
        past: how the accounts were before, by id; only needed of those that a session reached.
    """
    seen = dict(tonight) if look is None or look.session is None else _with_session_accounts(tonight, look.session)
    mended = tuple(
        account.account_id
        for account in stored.request.covered
        if is_cured(account, seen.get(account.account_id), policy, stamp)
    )
    overdue = _overdue(stored, policy, stamp, eligible_dates)
    kind, successors = _decide(stored, look, seen, len(mended), overdue)
    if not is_open(stored) and kind not in ANSWERS:
        return None
    session = None if look is None else look.session
    if kind == OutcomeKind.NEW_AUTHORIZATION:
        mended = tuple(one.old_account_id for one in successors)
    others: tuple[str, ...] = ()
    if session is not None and kind in ANSWERS:
        others = others_cured(stored, session, seen, past or {}, [one.new_account_id for one in successors])
    final = kind != OutcomeKind.PENDING
    # An update that brought no answer dates neither healing nor expiry.
    event_at = None if look is None or kind not in ANSWERS else look.answered_at
    outcome = Outcome(
        request_id=stored.request.request_id,
        kind=str(kind),
        previous=_previous(stored, kind),
        at=(event_at or stamp.as_of) if final else None,
        at_basis=("event" if event_at is not None else "observed") if final else None,
        failure_reason=None if session is None or kind != OutcomeKind.FAILED else session.failure_reason,
        session_status=stored.session_status if session is None else session.status,
        result_authorization_id=stored.result_authorization_id if session is None else session.result_authorization,
        accounts_cured=len(mended),
        cured_accounts=tuple(sorted(mended)),
        other_accounts=others,
    )
    if stored.outcome == kind and not is_open(stored):
        return None
    return Conclusion(outcome, tuple(successors))


def _previous(stored: StoredRequest, kind: OutcomeKind) -> str | None:
    """What stood before: a session with no outcome yet was pending."""
    before = stored.outcome or str(OutcomeKind.PENDING)
    return stored.previous_outcome if before == kind else before


def _decide(
    stored: StoredRequest, look: Look | None, seen: AccountStates, cured: int, overdue: bool
) -> tuple[OutcomeKind, list[Successor]]:
    session = None if look is None else look.session
    if look is not None and look.gone:
        return OutcomeKind.REVIEW, []
    if session is not None and session.result_authorization is not None:
        if session.result_authorization != stored.authorization_id:
            return _new_authorization(stored, session.result_authorization, seen, overdue)
        if cured == len(stored.request.covered):
            return OutcomeKind.RELINKED, []
        if cured:
            return OutcomeKind.RELINKED_PARTIALLY, []
        if linked_another(stored.request, session):
            return OutcomeKind.REVIEW, []
    elif session is not None:
        if session.failure_reason is not None or session.status == "failed":
            return OutcomeKind.FAILED, []
        if session.status == "cancelled":
            return OutcomeKind.CANCELLED, []
        if session.status == "succeeded":
            return OutcomeKind.REVIEW, []
    return _unanswered(stored, look, cured, overdue), []


def linked_another(request: RelinkRequest, session: SessionRecord) -> bool:
    """Whether a customer who was free to link any account at the institution linked one that the request did not cover."""
    linked = {account.account_id for account in session.accounts}
    free = request.limit_accounts is not None and request.account_id is None
    return free and bool(linked) and linked.isdisjoint(account.account_id for account in request.covered)


def _unanswered(stored: StoredRequest, look: Look | None, cured: int, overdue: bool) -> OutcomeKind:
    """Without a look at the session nothing is called healed or expired: the customer may just have answered."""
    if look is None:
        return OutcomeKind.PENDING
    if cured == len(stored.request.covered):
        return OutcomeKind.HEALED
    if overdue:
        return OutcomeKind.EXPIRED
    return OutcomeKind.PENDING


def _new_authorization(
    stored: StoredRequest, new_authorization_id: str, seen: AccountStates, overdue: bool
) -> tuple[OutcomeKind, list[Successor]]:
    successors, ambiguous = match_successors(stored, new_authorization_id, seen)
    if ambiguous:
        return OutcomeKind.REVIEW, successors
    visible = any(row["authorization_id"] == new_authorization_id for row in seen.values())
    if not visible and not overdue:
        return OutcomeKind.PENDING, []
    return OutcomeKind.NEW_AUTHORIZATION, successors


def match_successors(
    stored: StoredRequest, new_authorization_id: str, seen: AccountStates
) -> tuple[list[Successor], bool]:
    """Match each covered account to its successor under the new authorization; and say whether any match was ambiguous.

    By id first. Else by holder, institution, last four digits and subcategory, only where exactly one old account of the old
    authorization and exactly one unclaimed new account carry them: a guess would graft one account's history onto another.
    """
    covered = stored.request.covered
    candidates = {name: row for name, row in seen.items() if row["authorization_id"] == new_authorization_id}
    matched: list[tuple[str, str, str]] = [
        (account.account_id, account.account_id, "id") for account in covered if account.account_id in candidates
    ]
    same_id = {old for old, _, _ in matched}
    rivals = _old_accounts(stored, seen, same_id)
    ambiguous = False
    for account in covered:
        traits = _traits(stored.request.holder, account)
        if account.account_id in same_id or traits is None:
            continue
        found = [name for name, row in candidates.items() if name not in same_id and _row_traits(row) == traits]
        if len(found) == 1 and rivals.get(traits, 0) <= 1:
            matched.append((account.account_id, found[0], "attributes"))
        elif found:
            ambiguous = True
    old_id = stored.authorization_id
    successors = [
        Successor(old, new, old_id, new_authorization_id, matched_by, stored.request.request_id)
        for old, new, matched_by in matched
    ]
    return successors, ambiguous


Traits = tuple[str, str, str, str, str]


def _traits(holder: Holder, account: CoveredAccount) -> Traits | None:
    if account.institution_name is None or account.last4 is None or account.subcategory is None:
        return None
    return (holder.type, holder.id, account.institution_name, account.last4, account.subcategory)


def _row_traits(row: Mapping[str, Any]) -> tuple[Any, ...]:
    names = ("holder_type", "account_holder_id", "institution_name", "last4", "subcategory")
    return tuple(row[name] for name in names)


def _old_accounts(stored: StoredRequest, seen: AccountStates, same_id: Collection[str]) -> dict[tuple[Any, ...], int]:
    """How many accounts of the old authorization, asked about or not, carry the same traits."""
    traits: dict[str, tuple[Any, ...] | None] = {
        name: _row_traits(row) for name, row in seen.items() if row["authorization_id"] == stored.authorization_id
    }
    traits |= {account.account_id: _traits(stored.request.holder, account) for account in stored.request.covered}
    counts: dict[tuple[Any, ...], int] = {}
    for name, value in traits.items():
        if value is not None and name not in same_id:
            counts[value] = counts.get(value, 0) + 1
    return counts


def is_cured(account: CoveredAccount, row: Mapping[str, Any] | None, policy: RelinkPolicy, stamp: RunStamp) -> bool:
    """Whether what was wrong with a covered account when it was asked about is right again."""
    if row is None:
        return False
    window = policy.expiring_within_days
    active: bool = row["stripe_status"] == "active"
    if account.finding == Finding.INACTIVE:
        return active
    if account.finding == Finding.EXPIRING:
        due = row["expected_deactivation_at"]
        later = due is not None and _days_until(due, stamp) > window
        return active and (row["active_action"] != "relink_required" or later)
    if account.finding == Finding.ACCOUNT_NUMBER:
        expires_at = row["usable_number_expires_at"]
        usable = bool(row["usable_number_unlimited"]) or (
            expires_at is not None and _days_until(expires_at, stamp) > window
        )
        return usable or not row["tokenized_numbers"]
    return set(account.required_permissions) <= set(split_words(row["permissions"]))


def account_states(accounts: pd.DataFrame, account_ids: Collection[str] | None = None) -> dict[str, dict[str, Any]]:
    """Rows of a `frames.ACCOUNTS` frame by account id, null as None."""
    rows = accounts if account_ids is None else accounts.loc[flags(accounts["account_id"].isin(list(account_ids)))]
    return {row["account_id"]: row for row in plain_rows(rows)}


def _with_session_accounts(tonight: AccountStates, session: SessionRecord) -> dict[str, Mapping[str, Any]]:
    return {**tonight, **account_states(accounts_frame(session.accounts))}


def is_provisional(stored: StoredRequest, stamp: RunStamp) -> bool:
    """Whether a later answer may still replace the outcome: for 30 days after it was concluded."""
    if stored.outcome not in PROVISIONAL or stored.outcome_observed_at is None:
        return False
    return (stamp.business_date - stamp.date_of(stored.outcome_observed_at)).days <= PROVISIONAL_DAYS


def age_days(stored: StoredRequest, stamp: RunStamp) -> int:
    """Business dates since Stripe was asked for the session, never negative."""
    return max(0, (stamp.business_date - session_date(stored, stamp)).days)


def _overdue(
    stored: StoredRequest, policy: RelinkPolicy, stamp: RunStamp, eligible_dates: EligibleDates | None
) -> bool:
    """Whether the answer is waited for no longer."""
    return stamp.business_date > answer_until(stored, policy, stamp, eligible_dates or {})


def unmatched_accounts(requests: Sequence[StoredRequest], successors: Mapping[str, str]) -> frozenset[str]:
    """Accounts asked about whose customer came back under a new authorization without a proven successor, or with another account."""
    return frozenset(
        account.account_id
        for stored in requests
        if stored.result_authorization_id is not None
        and (stored.result_authorization_id != stored.authorization_id or stored.request.limit_accounts is not None)
        and stored.outcome in (OutcomeKind.NEW_AUTHORIZATION, OutcomeKind.REVIEW)
        for account in stored.request.covered
        if account.account_id not in successors
    )


def _checkpoint_due(stored: StoredRequest, stamp: RunStamp) -> bool:
    """Whether day 1 or day 3 has come and the session was not read since, so that a missed night is made up for."""
    asked_on = session_date(stored, stamp)
    checked: date = asked_on if stored.last_checked_at is None else stamp.date_of(stored.last_checked_at)
    checked_age = (checked - asked_on).days
    return any(checked_age < day <= age_days(stored, stamp) for day in READ_ON_DAYS)


def _days_until(moment: datetime, stamp: RunStamp) -> int:
    return (stamp.date_of(moment) - stamp.business_date).days
