"""One merchant's records as they stood when a report was made: what a rebuilt report rests on besides its snapshot."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta

from jobs.adapters import records
from jobs.adapters.database import Database
from jobs.decide import guards_since
from jobs.publish import first_of_window
from reconcile.contacts import LISTED, NO_ANSWER, is_open
from reconcile.model import Breakage, BreakageKey, RunStamp, Scope, State, StoredRequest, Successor
from reconcile.policy import RelinkPolicy
from reconcile.refresh import StoredRefresh

_INSTANT = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class PastRecords:
    """The records of one merchant at a past moment.

    `contacts` are the requests of earlier runs that the guards rested on when the run decided, and the sessions of the merchant's list that it
    followed before, `requests` its own, `followed` those whose
    outcome was still open or had changed, `window` those of the business dates that the report counts. `open_before` and `highest_before` are the
    outages before the run took in its snapshot, `open_after` those after it. `refreshes` are those of the same business dates as `window`.
    """

    contacts: list[StoredRequest]
    requests: list[StoredRequest]
    followed: list[StoredRequest]
    window: list[StoredRequest]
    open_before: list[Breakage]
    highest_before: Mapping[tuple[str, str], int]
    open_after: set[BreakageKey]
    successors: list[Successor]
    refreshes: list[StoredRefresh]


def past_records(
    database: Database,
    scope: Scope,
    stamp: RunStamp,
    policy: RelinkPolicy,
    moment: datetime,
    *,
    settled: Collection[str] = (),
    taken_over: Collection[str] = (),
    unanswered: Mapping[str, Mapping[str, object]] | None = None,
) -> PastRecords:
    """Read what a run's report showed, leaving out everything that came later.

    Args:
        stamp: of the run; a date that no run served has a stamp of its own, whose run id nothing is recorded under.
        moment: when the report was made.
        settled: the requests of earlier runs that this one brought to an end.
        taken_over: the requests of the runs that this one finished, which it told as its own.
        unanswered: what was known of the run's own requests that had no answer then, by request id.
    """
    first = first_of_window(stamp)
    guards = guards_since(policy, stamp)
    since = min(first, guards)
    known = records.requests_as_of(database, scope, moment, since)
    known = [_as_published(one, unanswered or {}) for one in known]
    before = {
        one.request.request_id: one.outcome
        for one in records.requests_as_of(database, scope, stamp.as_of - _INSTANT, since)
    }
    around = records.breakages_as_of(database, scope, stamp.as_of)
    open_before = [_as_of(one, stamp.as_of) for one in around if one.opened_run_id != stamp.run_id]
    open_keys = {one.key for one in open_before}
    own = set(taken_over)

    def made_here(one: StoredRequest) -> bool:
        return one.run_id == stamp.run_id and one.request.origin != LISTED

    requests = [one for one in known if made_here(one) or one.request.request_id in own]
    began = datetime.combine(guards, time(), UTC) - timedelta(days=1)

    reported = {*settled, *(one.request.request_id for one in requests)}

    def stands_in_the_way(one: StoredRequest) -> bool:
        # As `records.all_requests_for_planning` chooses, before this run recorded anything.
        was_open = one.state == State.CREATED and before.get(one.request.request_id) in (None, *NO_ANSWER)
        return (
            one.request.breakage in open_keys
            or one.state in (State.PLANNED, State.ATTEMPTING, State.UNKNOWN)
            or was_open
            or one.business_date >= guards
            or any(at is not None and at >= began for at in (one.attempting_at, one.offered_at))
        )

    def is_followed(one: StoredRequest) -> bool:
        changed_on = None if one.outcome_observed_at is None else stamp.date_of(one.outcome_observed_at)
        changed = one.outcome_run_id in stamp.run_ids or (_no_run(stamp) and changed_on == stamp.business_date)
        return is_open(one) or changed or one.request.request_id in reported

    return PastRecords(
        contacts=[one for one in known if not made_here(one) and stands_in_the_way(one)],
        requests=requests,
        followed=[one for one in known if is_followed(one)],
        window=[one for one in known if first <= one.business_date <= stamp.business_date],
        open_before=open_before,
        highest_before=records.highest_breakage_numbers(database, scope, stamp.as_of - _INSTANT),
        open_after={
            one.key
            for one in records.breakages_as_of(database, scope, moment)
            if one.closed_at is None or one.closed_at > moment
        },
        successors=records.successors(database, scope, moment),
        refreshes=records.refreshes_as_of(database, scope, moment, first, stamp.business_date),
    )


def _as_of(breakage: Breakage, moment: datetime) -> Breakage:
    was_eligible = breakage.eligible_at is not None and breakage.eligible_at <= moment
    return replace(breakage, eligible_at=breakage.eligible_at if was_eligible else None)


def _as_published(stored: StoredRequest, unanswered: Mapping[str, Mapping[str, object]]) -> StoredRequest:
    known = unanswered.get(stored.request.request_id)
    return stored if known is None else replace(stored, **known)  # type: ignore[arg-type]


def _no_run(stamp: RunStamp) -> bool:
    return stamp.command == "backfill"
