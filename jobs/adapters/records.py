"""Everything the job remembers, in one place to import from; the topics live in the `records_*` modules.

Every function takes the open `Database` first. Each is one transaction of its own, or joins the one that `with database.begin():` opened
in the same thread; those marked * must commit by themselves and refuse to join.

Runs (`records_runs`)
    stamp_merchant(database, merchant, mode, stripe_account, at); recorded_mode(database, merchant) -> str | None
    start_run(database, run_id, command, business_date, started_at, *, settings_hash, settings, arguments, report_directory, resumed_from)
    set_stage(database, run_id, stage)
    finish_run(database, run_id, state, finished_at, exit_code, *, why, held, report_directory, facts)
    report_facts_of(database, run_id) -> ReportFacts(published_at, facts) | None
    record_run_merchant(database, run_id, scope, *, snapshot_id, complete, held, why, counts)
    run(database, run_id) -> StoredRun | None; list_runs(database, limit); unfinished_runs(database)
    complete_run_on(database, business_date, until); last_complete_run(database, scope, before, not_held, on_or_before)
    last_successful_run(database, scope); runs_between(database, first, last, commands)
    newest_run_of(database, commands, *, complete, until) -> StoredRun | None; recorded_scopes(database) -> [Scope]

Snapshots (`records_snapshots`)
    record_snapshot(database, SnapshotRecord); snapshot(database, snapshot_id); last_snapshot(database, scope, before, on_or_before, obtained)
    snapshots_between(database, scope, first, last); drift_since(database, scope, first) -> int

Account history (`records_history`), frames in the `frames.HISTORY` contract
    append_history(database, scope, run_id, changed) -> int; latest_history(database, scope, as_of=None); troubled_history(database, scope)
    history_of(database, scope, account_ids, authorization_ids, holder_ids)

Accounts that the brakes know (`records_affected`)
    BRAKED_COMMANDS; has_base_for_brakes(database, scope); known_affected(database, scope, on=None); newly_affected_since(database, scope, since, until=None)
    advance_affected(database, scope, run_id, business_date, *, newly, ended, baseline)

Breakages and successors (`records_breakages`)
    open_breakages(database, scope); breakages(database, scope, since=None); breakages_of(database, scope, authorization_id)
    breakages_as_of(database, scope, moment); highest_breakage_numbers(database, scope, as_of=None) -> {(authorization_id, kind): number}
    open_breakage(database, scope, *opened); close_breakage(database, scope, *keys, at, run_id, reason)
    mark_eligible(database, scope, *keys, at)
    add_successors(database, scope, run_id, matched, at); successors(database, scope, as_of=None); successors_of_run(database, scope, run_id)
    successors_of(database, scope, account_ids, authorization_ids) -> [(matched_at, run_id, Successor)]

Requests, written (`records_requests`)
    * plan_requests(database, scope, run_id, business_date, [(request, body, api_version)], at, fence)
    plan_taken(database, scope, run_id, business_date, request, at, why)
    * mark_attempting(database, request_id, at, fence, *, replay=False)
    record_result(database, request_id, state, at, *, calls, session_id, error_type, error_code, error_message, http_status,
                  stripe_request_id, requested_at)
    record_no_answer(database, request_id, *, calls, error_type, error_code, error_message, http_status, stripe_request_id)
    record_not_sent(database, request_id, at, *, error_type, error_message)
    * mark_offered(database, scope, session_id, at) -> bool
    adopt_request(database, scope, run_id, business_date, request, session_id, requested_at, at) -> bool
    resolve_unknown(database, request_id, at, *, resolved_by, state, session_id)
    record_found(database, request_id, at, *, session_id, resolved_by)
    ContactTaken is raised where a contact, or a step of it, was somebody else's already

Requests, read (`records_contacts`), all -> list[StoredRequest] in the order of planning
    open_requests, planned_requests, attempting_requests, unknown_requests (database, scope)
    provisional_requests(database, scope, since); requests_since(database, scope, business_date)
    count_requests_between(database, scope, first, last) -> int; requests_of_run(database, run_id, scope=None); requests_with_outcome_of_run(database, scope, run_id)
    requests_for_authorizations, requests_for_holders, requests_by_id (database, scope, ids); requests_brought_back(database, scope, since)
    all_requests_for_planning(database, scope, since); requests_as_of(database, scope, moment, since=None)
    find_by_session(database, scope, session_id) -> StoredRequest | None
    once_unknown_requests(database, scope, since); followed_sessions(database, scope, session_ids) -> {session_id}

Sessions that something else made (`records_orphans`)
    events_read_to(database, scope) -> datetime | None; mark_events_read(database, scope, moment)
    foreign_sessions_since(database, scope, since) -> [ForeignSession]; add_foreign_sessions(database, scope, sessions)
    refused_sessions(database, scope, session_ids) -> {session_id: RefusedSession}; add_refused_sessions(database, scope, sessions, at)

Refreshes after a relink (`records_refreshes`), all read ones -> [StoredRefresh] in the order of planning
    plan_refreshes(database, scope, run_id, business_date, [(request_id, account_id)], at)
    * mark_refresh_attempting(database, refresh_id, at, fence, *, features, body, api_version, replay=False)
    record_refresh_result(database, refresh_id, run_id, before, state, at, *, features, seen, calls, not_before_at, error)
    add_refresh_checks(database, run_id, refresh_id, {feature: FeatureState}, at)
    unfinished_refreshes(database, scope); followed_refreshes(database, scope, since)
    refreshes_of_requests(database, scope, request_ids); refreshes_as_of(database, scope, moment, first, last)
    refresh_checks_of(database, refresh_id) -> [(checked_at, run_id, feature, FeatureState)]

Outcomes (`records_outcomes`)
    append_outcomes(database, run_id, business_date, outcomes, observed_at)
    outcomes_of(database, request_id) -> [(observed_at, run_id, Outcome)]
    add_session_checks(database, run_id, [(request_id, session_status)], checked_at)
    session_checks_of(database, request_id) -> [(checked_at, run_id, session_status)]

How things stand now, counted (`records_standing`)
    open_session_counts(database, scope) -> [OpenSessions(delivery, sessions, offered, oldest_requested_at)]
    unfinished_counts(database, scope) -> {state: number}; last_run_id(database, scope) -> str | None

Decisions (`records_decisions`)
    record_changed_decisions(database, scope, run_id, business_date, at, {Decision}, only=None) -> int
    decisions_about(database, scope, authorization_ids, account_ids) -> [StoredDecision]

Held plans and API calls (`records_plans`)
    plans_holding(database, scope, authorization_id, first, before) -> [HeldPlan]
    hold_plan(database, HeldPlan); held_plan(database, plan_hash); list_held_plans(database, now, scope=None)
    * release_plan(database, plan_hash, run_id, at, fence) -> HeldPlan
    add_api_calls(database, run_id, scope, day, [ApiCalls]); reads_last_30_days(database, scope, now) -> int
    reads_by_purpose_30_days(database, scope, now) -> {purpose: reads}
    api_calls_of_run(database, run_id, scope=None) -> [ApiCalls]

What is too old to keep (`records_retention`)
    prunable_snapshots(database, before) -> [SnapshotRecord]; kept_snapshot_paths(database); unfinished_run_ids(database)
    oldest_snapshot_date(database, but_for=()); remove_old_rows(database, snapshot_ids, before, *, dry_run=False) -> {what: number}

Embedded ledger (`records_ledger`)
    load_ledger(database, rows, merge=False) -> LedgerChange(added, changed, removed); ledger_rows(database, merchant=None); ledger_chunks(database)
"""

from __future__ import annotations

from jobs.adapters.records_affected import (
    BRAKED_COMMANDS,
    advance_affected,
    has_base_for_brakes,
    known_affected,
    newly_affected_since,
)
from jobs.adapters.records_breakages import (
    add_successors,
    breakages,
    breakages_as_of,
    breakages_of,
    close_breakage,
    highest_breakage_numbers,
    mark_eligible,
    open_breakage,
    open_breakages,
    successors,
    successors_of,
    successors_of_run,
)
from jobs.adapters.records_contacts import (
    all_requests_for_planning,
    attempting_requests,
    count_requests_between,
    find_by_session,
    followed_sessions,
    once_unknown_requests,
    open_requests,
    planned_requests,
    provisional_requests,
    requests_as_of,
    requests_brought_back,
    requests_by_id,
    requests_for_authorizations,
    requests_for_holders,
    requests_of_run,
    requests_since,
    requests_with_outcome_of_run,
    unknown_requests,
)
from jobs.adapters.records_decisions import StoredDecision, decisions_about, record_changed_decisions
from jobs.adapters.records_history import append_history, history_of, latest_history, troubled_history
from jobs.adapters.records_ledger import LedgerChange, ledger_chunks, ledger_rows, load_ledger
from jobs.adapters.records_orphans import (
    RefusedSession,
    add_foreign_sessions,
    add_refused_sessions,
    events_read_to,
    foreign_sessions_since,
    mark_events_read,
    refused_sessions,
)
from jobs.adapters.records_outcomes import add_session_checks, append_outcomes, outcomes_of, session_checks_of
from jobs.adapters.records_plans import (
    ApiCalls,
    HeldPlan,
    add_api_calls,
    api_calls_of_run,
    held_plan,
    hold_plan,
    list_held_plans,
    plans_holding,
    reads_by_purpose_30_days,
    reads_last_30_days,
    release_plan,
)
from jobs.adapters.records_refreshes import (
    add_refresh_checks,
    followed_refreshes,
    mark_refresh_attempting,
    plan_refreshes,
    record_refresh_result,
    refresh_checks_of,
    refreshes_as_of,
    refreshes_of_requests,
    unfinished_refreshes,
)
from jobs.adapters.records_requests import (
    ContactTaken,
    adopt_request,
    mark_attempting,
    mark_offered,
    plan_requests,
    plan_taken,
    record_found,
    record_no_answer,
    record_not_sent,
    record_result,
    resolve_unknown,
)
from jobs.adapters.records_retention import (
    kept_snapshot_paths,
    oldest_snapshot_date,
    prunable_snapshots,
    remove_old_rows,
    unfinished_run_ids,
)
from jobs.adapters.records_runs import (
    COMPLETE,
    INTERRUPTED,
    NIGHT_COMMANDS,
    RUNNING,
    STOPPED,
    ReportFacts,
    RunMerchant,
    StoredRun,
    complete_run_on,
    finish_run,
    last_complete_run,
    last_successful_run,
    list_runs,
    newest_run_of,
    record_run_merchant,
    recorded_mode,
    recorded_scopes,
    report_facts_of,
    run,
    runs_between,
    set_stage,
    stamp_merchant,
    start_run,
    unfinished_runs,
)
from jobs.adapters.records_snapshots import (
    SnapshotRecord,
    drift_since,
    last_snapshot,
    record_snapshot,
    snapshot,
    snapshots_between,
)
from jobs.adapters.records_standing import OpenSessions, last_run_id, open_session_counts, unfinished_counts

__all__ = [
    "BRAKED_COMMANDS",
    "COMPLETE",
    "INTERRUPTED",
    "NIGHT_COMMANDS",
    "RUNNING",
    "STOPPED",
    "ApiCalls",
    "ContactTaken",
    "HeldPlan",
    "LedgerChange",
    "OpenSessions",
    "RefusedSession",
    "ReportFacts",
    "RunMerchant",
    "SnapshotRecord",
    "StoredDecision",
    "StoredRun",
    "add_api_calls",
    "add_foreign_sessions",
    "add_refresh_checks",
    "add_refused_sessions",
    "add_session_checks",
    "add_successors",
    "adopt_request",
    "advance_affected",
    "all_requests_for_planning",
    "api_calls_of_run",
    "append_history",
    "append_outcomes",
    "attempting_requests",
    "breakages",
    "breakages_as_of",
    "breakages_of",
    "close_breakage",
    "complete_run_on",
    "count_requests_between",
    "decisions_about",
    "drift_since",
    "events_read_to",
    "find_by_session",
    "finish_run",
    "followed_refreshes",
    "followed_sessions",
    "foreign_sessions_since",
    "has_base_for_brakes",
    "held_plan",
    "highest_breakage_numbers",
    "history_of",
    "hold_plan",
    "kept_snapshot_paths",
    "known_affected",
    "last_complete_run",
    "last_run_id",
    "last_snapshot",
    "last_successful_run",
    "latest_history",
    "ledger_chunks",
    "ledger_rows",
    "list_held_plans",
    "list_runs",
    "load_ledger",
    "mark_attempting",
    "mark_eligible",
    "mark_events_read",
    "mark_offered",
    "mark_refresh_attempting",
    "newest_run_of",
    "newly_affected_since",
    "oldest_snapshot_date",
    "once_unknown_requests",
    "open_breakage",
    "open_breakages",
    "open_requests",
    "open_session_counts",
    "outcomes_of",
    "plan_refreshes",
    "plan_requests",
    "plan_taken",
    "planned_requests",
    "plans_holding",
    "provisional_requests",
    "prunable_snapshots",
    "reads_by_purpose_30_days",
    "reads_last_30_days",
    "record_changed_decisions",
    "record_found",
    "record_no_answer",
    "record_not_sent",
    "record_refresh_result",
    "record_result",
    "record_run_merchant",
    "record_snapshot",
    "recorded_mode",
    "recorded_scopes",
    "refresh_checks_of",
    "refreshes_as_of",
    "refreshes_of_requests",
    "refused_sessions",
    "release_plan",
    "remove_old_rows",
    "report_facts_of",
    "requests_as_of",
    "requests_brought_back",
    "requests_by_id",
    "requests_for_authorizations",
    "requests_for_holders",
    "requests_of_run",
    "requests_since",
    "requests_with_outcome_of_run",
    "resolve_unknown",
    "run",
    "runs_between",
    "session_checks_of",
    "set_stage",
    "snapshot",
    "snapshots_between",
    "stamp_merchant",
    "start_run",
    "successors",
    "successors_of",
    "successors_of_run",
    "troubled_history",
    "unfinished_counts",
    "unfinished_refreshes",
    "unfinished_run_ids",
    "unfinished_runs",
    "unknown_requests",
]
