"""What Stripe's events tell of the accounts since the last snapshot, what has to be read again, and what no event explains.

An event carries its account as it was at that moment, rendered at the API version of the Stripe account and not at ours (Stripe API docs: events),
so it lacks `authorization`, `institution` and `status_details.inactive`. What each type is worth:

| event | the job needs besides | so |
|---|---|---|
| expected_deactivation_date_updated, upcoming_deactivation | nothing, from version 2026-06-24 | taken from the event |
| account_numbers_updated, upcoming_account_number_expiry | nothing, from version 2026-09-30 | taken from the event |
| disconnected | nothing: a disconnected account has no details | taken from the event |
| deactivated | whether a relink helps, and why | read again |
| reactivated | its authorization, which a relink may have changed | read again |
| created | its authorization | read with the newest page |
| session.updated | what the customer changed, permissions too | the customer's accounts are read again, without one the login's |
| an authorization's | its accounts | read again, unless a later event of their own, or one of that moment, told it |
| refreshed_* | nothing but `last_refreshed_at` | not asked for: an account refreshed daily would cost a read a hundred |

Taken from the event only where nothing else of the account differs, where the event is younger than what is known beyond doubt, and where nothing
is open about its authorization: an outage ends by what was read, not by what was told.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa

from reconcile.classify import Flags, business_dates, days_until, flags
from reconcile.frames import ACCOUNTS, from_columns
from reconcile.history import differs
from reconcile.model import RunStamp
from reconcile.normalize import accounts_frame
from reconcile.policy import RelinkPolicy
from reconcile.records import AccountRecord, EventRecord

_ACCOUNT = "financial_connections.account."
_AUTHORIZATION = "financial_connections.authorization."
CREATED = _ACCOUNT + "created"
DEACTIVATED = _ACCOUNT + "deactivated"
DISCONNECTED = _ACCOUNT + "disconnected"
SESSION_UPDATED = "financial_connections.session.updated"

_ACTIVE_COLUMNS = frozenset({"active_action", "active_cause", "expected_deactivation_at"})
_NUMBER_COLUMNS = frozenset({"tokenized_numbers", "usable_number_unlimited", "usable_number_expires_at"})
_DETAIL_COLUMNS = frozenset({"stripe_status", "inactive_action", "inactive_cause"}) | _ACTIVE_COLUMNS
_UNWATCHED = "last_refreshed_at"

_TOLD: Mapping[str, tuple[frozenset[str], str]] = {
    _ACCOUNT + "expected_deactivation_date_updated": (_ACTIVE_COLUMNS, "2026-06-24"),
    _ACCOUNT + "upcoming_deactivation": (_ACTIVE_COLUMNS, "2026-06-24"),
    _ACCOUNT + "account_numbers_updated": (_NUMBER_COLUMNS, "2026-09-30"),
    _ACCOUNT + "upcoming_account_number_expiry": (_NUMBER_COLUMNS, "2026-09-30"),
    DISCONNECTED: (_DETAIL_COLUMNS, ""),
}
"""The columns that an event of a type tells, and the version from which its account shows them (Stripe API changelog)."""

EVENT_TYPES = (
    CREATED,
    DEACTIVATED,
    _ACCOUNT + "reactivated",
    *_TOLD,
    _AUTHORIZATION + "expected_deactivation_date_updated",
    _AUTHORIZATION + "upcoming_deactivation",
    SESSION_UPDATED,
)
"""All that is asked for; Stripe takes twenty types at once."""

OVERLAP = timedelta(minutes=10)
"""Events are read from so long before the last pull began, since one may be listed late and clocks differ."""

_ONE_CHANGE = timedelta(seconds=2)  # the events of one change may be dated so far apart


@dataclass(frozen=True, slots=True)
class Changes:
    """What the events say: rows of known accounts that need no read (`frames.ACCOUNTS`), ids to read again, ids that may differ, new ids."""

    told: pd.DataFrame
    to_read: frozenset[str]
    explained: frozenset[str]
    created: frozenset[str]


def read_changes(
    events: Sequence[EventRecord], base: pd.DataFrame, certain_from: datetime, open_authorizations: Collection[str]
) -> Changes:
    """Judge the events since the last snapshot.

    Args:
        events: newest first, as Stripe lists them.
        base: `frames.ACCOUNTS`, the last snapshot.
        certain_from: events younger than this are not yet in `base`.
        open_authorizations: of which no row is taken from an event.
    """
    by_account, authorizations, holders = _sorted(events)
    touched = flags(base["authorization_id"].isin(list(authorizations)))
    pairs = zip(base.loc[touched, "account_id"], base.loc[touched, "authorization_id"], strict=True)
    of_session = flags(base["account_holder_id"].isin(list(holders)))
    ids = base["account_id"]
    known = pd.Index(ids)
    about_known = [account_id for account_id in by_account if account_id in known]
    by_authorization = {one for one, of in pairs if not _shows(by_account.get(one, ()), authorizations[of])}
    to_read = set(ids[of_session]) | by_authorization
    explained = set(about_known) | set(ids[touched]) | set(ids[of_session])
    wary = set(open_authorizations)
    places = dict(zip(about_known, known.get_indexer(about_known).tolist(), strict=True))
    authorization_of = base["authorization_id"]
    candidates: dict[str, list[EventRecord]] = {}
    for account_id in about_known:
        own = by_account[account_id]
        if account_id in to_read or {one.event_type for one in own} == {CREATED}:
            continue
        if authorization_of.iloc[places[account_id]] not in wary and _may_be_told(own, certain_from):
            candidates[account_id] = own
        else:
            to_read.add(account_id)
    told = _told(candidates, base, places)
    to_read |= candidates.keys() - set(told["account_id"])
    unknown = by_account.keys() - set(about_known)
    return Changes(told, frozenset(to_read), frozenset(explained), frozenset(unknown))


def _sorted(
    events: Iterable[EventRecord],
) -> tuple[dict[str, list[EventRecord]], dict[str, datetime], set[str]]:
    """The events by account, when each authorization's newest was, and the holders of sessions."""
    by_account: dict[str, list[EventRecord]] = defaultdict(list)
    authorizations: dict[str, datetime] = {}
    holders: set[str] = set()
    for event in events:
        about = event.object_id
        if event.event_type == SESSION_UPDATED and event.account_holder_id is None:
            about = event.authorization_id  # one without a customer can only have changed the login that it was for
        if event.event_type.startswith(_ACCOUNT) and event.object_id is not None:
            by_account[event.object_id].append(event)
        elif event.event_type == SESSION_UPDATED and event.account_holder_id is not None:
            holders.add(event.account_holder_id)
        elif about is not None:
            authorizations[about] = max(authorizations.get(about, event.created_at), event.created_at)
    return dict(by_account), authorizations, holders


def _shows(own: Sequence[EventRecord], authorization_at: datetime) -> bool:
    """Whether an account's own events show it as it was after an event of its authorization; that it was linked tells nothing."""
    return bool(own) and own[0].event_type != CREATED and own[0].created_at >= authorization_at - _ONE_CHANGE


def _may_be_told(own: Sequence[EventRecord], certain_from: datetime) -> bool:
    """Whether an account's events are of kinds that tell all, and the newest of them is beyond doubt the newest."""
    newest = own[0]
    return (
        newest.account is not None
        and newest.created_at > certain_from
        and all(one.event_type in _TOLD for one in own)
        and all((newest.api_version or "")[:10] >= _TOLD[one.event_type][1] for one in own)
        and all(one.account == newest.account for one in own if one.created_at >= newest.created_at)
    )


def _told(
    candidates: Mapping[str, Sequence[EventRecord]], base: pd.DataFrame, places: Mapping[str, int]
) -> pd.DataFrame:
    """The rows of accounts whose newest event differs from what is known in nothing but what its types tell."""
    before = base.iloc[[places[account_id] for account_id in candidates]].reset_index(drop=True)
    records = [_completed(own, row) for own, row in zip(candidates.values(), _rows(before), strict=True)]
    told = accounts_frame(records)
    kept = np.ones(len(told), dtype=bool)
    allowed = [frozenset().union(*(_TOLD[one.event_type][0] for one in own)) for own in candidates.values()]
    for name in ACCOUNTS:
        if name != _UNWATCHED:
            may = np.array([name in columns for columns in allowed], dtype=bool)
            kept &= may | ~differs(told[name], before[name])
    later = flags(told[_UNWATCHED] > before[_UNWATCHED]) | flags(before[_UNWATCHED].isna())
    told[_UNWATCHED] = told[_UNWATCHED].where(later, before[_UNWATCHED])
    return told.loc[kept].reset_index(drop=True)


def _rows(frame: pd.DataFrame) -> list[dict[str, object]]:
    names = ["authorization_id", "institution_id", "inactive_action", "inactive_cause", "created_at"]
    rows: list[dict[str, object]] = pa.Table.from_pandas(frame[names], preserve_index=False).to_pylist()
    return rows


def _completed(own: Sequence[EventRecord], before: Mapping[str, object]) -> AccountRecord:
    """The newest event's account with what its rendering lacks, as it is known; a disconnected account has no details."""
    account = own[0].account
    assert account is not None
    known = dict(before)
    if account.status == "disconnected":
        known |= {"inactive_action": None, "inactive_cause": None}
    return replace(account, **known)  # type: ignore[arg-type]


def due_by_clock(
    base: pd.DataFrame, ledger: pd.DataFrame, policy: RelinkPolicy, stamp: RunStamp, since: date
) -> frozenset[str]:
    """Open ledger accounts of which a date has come, or come into the window, since the business date of the last snapshot.

    No event tells that time went by. What the dates say is known without a read; they are read again before anything rests on them.
    """
    opened = ledger.loc[flags(ledger["ledger_status"] == "open")]
    payments = opened.loc[flags(opened["purpose"] == "payments"), "account_id"]
    passed = (stamp.business_date - since).days
    deactivation = _comes_due(base["expected_deactivation_at"], policy.expiring_within_days, passed, stamp)
    expiry = _comes_due(base["usable_number_expires_at"], policy.expiring_within_days, passed, stamp)
    ids = base["account_id"]
    due = (deactivation & flags(ids.isin(opened["account_id"]))) | (expiry & flags(ids.isin(payments)))
    return frozenset(ids[due])


def _comes_due(times: pd.Series, window_days: int, passed_days: int, stamp: RunStamp) -> Flags:
    days = days_until(business_dates(times, stamp), stamp)
    due = np.zeros(len(times), dtype=bool)
    for threshold in (0, window_days):
        due |= flags((days <= threshold) & (days + passed_days > threshold))
    return due


def cover(places: Iterable[int], page: int) -> list[int]:
    """Where pages of consecutive accounts have to begin so that each of these places in the list is on one."""
    starts: list[int] = []
    for place in sorted(set(places)):
        if not starts or place >= starts[-1] + page:
            starts.append(place)
    return starts


def changed_ids(before: pd.DataFrame, now: pd.DataFrame) -> list[str]:
    """Ids of accounts of which anything but the time of their last refresh differs; both frames hold the same ids in the same order."""
    different = np.zeros(len(now), dtype=bool)
    for name in ACCOUNTS:
        if name != _UNWATCHED:
            different |= differs(now[name].reset_index(drop=True), before[name].reset_index(drop=True))
    changed: list[str] = now["account_id"].to_numpy()[different].tolist()
    return changed


def merged(base: pd.DataFrame, new: pd.DataFrame, read: pd.DataFrame, told: pd.DataFrame) -> pd.DataFrame:
    """The whole list as it is now, in its order: the new accounts, then the known ones, each as it was read, else as it was told, else as before."""
    told = told.loc[~flags(told["account_id"].isin(read["account_id"]))]
    tables = [pa.Table.from_pandas(one, preserve_index=False) for one in (base, read, told, new)]
    starts = np.cumsum([0, *(table.num_rows for table in tables)])
    order = np.arange(starts[1])
    known = pd.Index(base["account_id"])
    order[known.get_indexer(pd.Index(read["account_id"]))] = np.arange(starts[1], starts[2])
    order[known.get_indexer(pd.Index(told["account_id"]))] = np.arange(starts[2], starts[3])
    whole = pa.concat_tables([table.select(list(ACCOUNTS)).cast(pa.schema(list(ACCOUNTS.items()))) for table in tables])
    whole = whole.take(np.concatenate([np.arange(starts[3], starts[4]), order]))
    return from_columns({name: whole[name] for name in ACCOUNTS}, ACCOUNTS)


def drifted(before: pd.DataFrame, now: pd.DataFrame, changes: Changes) -> list[str]:
    """Ids of accounts that a full pull shows otherwise than the snapshot before it, that came or went, without any event that says so."""
    old, new = pd.Index(before["account_id"]), pd.Index(now["account_id"])
    both = new.isin(old)
    same = now.loc[both]
    changed = changed_ids(before.iloc[old.get_indexer(pd.Index(same["account_id"]))], same)
    came = set(new[~both]) - changes.created
    went = set(old[~old.isin(new)])
    return sorted({one for one in changed if one not in changes.explained} | came | went)
