"""Every value that a column may hold, where there is a list of them, and what it tells the reader; each is explained here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping

from reconcile.model import AFFECTED, Finding, NextStep, OutcomeKind, Result
from reconcile.refresh import RefreshStatus

FINDINGS: Mapping[str, str] = {
    Finding.UNREADABLE: "Stripe and the ledger both know the account, but Stripe describes it in a way that this version cannot judge.",
    Finding.NOT_IN_STRIPE: "The ledger names an account that Stripe did not list.",
    Finding.NOT_IN_LEDGER: "Stripe lists an account that the ledger does not name.",
    Finding.HOLDER_MISMATCH: "Stripe and the ledger say that different customers hold the account.",
    Finding.DISCONNECTED: "Access was ended by somebody; only a fresh connection brings it back, never a relink.",
    Finding.INACTIVE_PERMANENT: "The account is inactive and Stripe offers no action that would mend it.",
    Finding.INACTIVE: "The account is inactive and a relink would mend it.",
    Finding.ACCOUNT_NUMBER: "The account is used for payments and none of its tokenized numbers will stay usable.",
    Finding.EXPIRING: "The account still works but will become inactive soon unless it is relinked.",
    Finding.PERMISSIONS: "The account does not grant every permission that the ledger requires.",
    Finding.OK: "Nothing is wrong with the account.",
}

AFFECTED_FINDINGS = tuple(str(finding) for finding in AFFECTED)
"""Findings that a relink can cure, as cells hold them."""

NEXT_STEPS: Mapping[str, str] = {
    NextStep.NONE: "Nothing needs to be done.",
    NextStep.LEDGER_CLOSED: "The ledger closed the account, so nobody is asked about it.",
    NextStep.REPLACED: "The account lives on under a new authorization; change the ledger to name its successor.",
    NextStep.NOT_RELINKABLE: "No relink can help; the customer has to connect afresh or another way has to be found.",
    NextStep.REVIEW: "A person has to look, because the job would otherwise have to guess.",
    NextStep.DO_NOT_CONTACT: "The ledger or a suppression list forbids contacting this customer or about this account.",
    NextStep.REASON_OFF: "The settings leave requests for this reason out.",
    NextStep.OPEN_SESSION: "An earlier request is still waiting for the customer's answer.",
    NextStep.ATTEMPTS_EXHAUSTED: "The customer was asked as often as the settings allow for this breakage, or the ladder's last step brought no answer: now it is a person's.",
    NextStep.COOLDOWN: "The customer was asked too recently, is being asked tonight for another authorization, is before the next step of the ladder, or is left alone after withdrawing at the bank.",
    NextStep.HELD_BY_BRAKE: "So much broke at once that a person has to release the requests first.",
    NextStep.CAPPED: "The night's limit on requests was used up by more urgent ones, or nobody is contacted at this time because it is a quiet one.",
    NextStep.REQUEST: "The customer is asked to relink tonight.",
}

RESULTS: Mapping[str, str] = {
    Result.CREATED: "Stripe created the session.",
    Result.REJECTED: "Stripe refused to create the session.",
    Result.UNKNOWN: "The request was sent, and whether Stripe created the session cannot be known.",
    Result.NOT_SENT: "The run stopped before this request was sent.",
    Result.WOULD_REQUEST: "A dry run or plan would have sent this request.",
}

OUTCOMES: Mapping[str, str] = {
    OutcomeKind.RELINKED: "Every account that the request covered works again under the same authorization.",
    OutcomeKind.RELINKED_PARTIALLY: "Some of the covered accounts work again under the same authorization, some do not.",
    OutcomeKind.NEW_AUTHORIZATION: "The customer connected again under another authorization.",
    OutcomeKind.FAILED: "The customer's attempt failed.",
    OutcomeKind.CANCELLED: "The customer left the session without finishing it.",
    OutcomeKind.PENDING: "There is no answer yet, or the cure does not show yet.",
    OutcomeKind.HEALED: "Every covered account works again without an answer to this request.",
    OutcomeKind.EXPIRED: "There was no answer within the days that the settings allow.",
    OutcomeKind.REVIEW: "Stripe's answer cannot be read safely, so a person has to look.",
    OutcomeKind.UNKNOWN: "Whether Stripe created the session cannot be known, so the customer is not asked again.",
    OutcomeKind.REJECTED: "Stripe refused to create the session, so the customer was not asked.",
    OutcomeKind.NOT_SENT: "The run stopped before this request was sent.",
}

REASONS: Mapping[str, str] = {finding: FINDINGS[finding] for finding in AFFECTED}

BASES: Mapping[str, str] = {
    "event": "Stripe gave the time.",
    "observed": "The time is when the job first saw it, so it happened then or before.",
    "first_run": "It was so when the job first looked, so it has been so for at least that long.",
}

MATCHES: Mapping[str, str] = {
    "id": "The account kept its id.",
    "attributes": "Holder, institution, last four digits and subcategory fit exactly one account on either side.",
    "twin": "The customer linked afresh instead of answering a request: the same attributes, linked after the old account stopped working, each the other's only match.",
}

DELIVERIES: Mapping[str, str] = {
    "modal": "The session is offered to the customer inside the merchant's own application.",
    "hosted_url": "The merchant passes Stripe's hosted page on to the customer.",
    "hosted_email": "Stripe sends the customer an e-mail with its hosted page.",
}

LEDGER_STATUSES: Mapping[str, str] = {
    "open": "The account is in use.",
    "closed": "The account is no longer in use, so nobody is contacted about it.",
}

CAUSES: Mapping[str, str] = {
    "access_denied": "The customer or the bank took access away.",
    "access_expired": "The consent ran out, by time or because it was not used.",
    "account_closed": "The account was closed at the bank.",
    "account_unavailable": "The bank does not offer the account at present.",
    "institution_requirement": "The bank demands that its customer sign in or consent again.",
    "unspecified": "Stripe gives no cause.",
}

ACTIONS: Mapping[str, str] = {
    "none": "Nothing that the customer can do through Stripe would mend it.",
    "relink_required": "A relink by the customer would mend it, or keep it from breaking.",
}

STRIPE_STATUSES: Mapping[str, str] = {
    "active": "The account yields data.",
    "inactive": "The account yields no fresh data until it is mended.",
    "disconnected": "Access was ended; the account has to be connected anew.",
}

FAILURE_REASONS: Mapping[str, str] = {
    "no_account": "The customer signed in but did not link the account that was asked for.",
    "no_authorization": "The customer did not get through signing in at the bank.",
    "other": "It failed in some other way, which Stripe does not name.",
}

SESSION_STATUSES: Mapping[str, str] = {
    "pending": "The session waits for the customer.",
    "succeeded": "The customer finished the session.",
    "cancelled": "The customer left the session.",
    "failed": "The session ended without what was asked for.",
}

ORIGINS: Mapping[str, str] = {
    "run": "The nightly run planned it.",
    "apply": "A person applied a plan file.",
    "request": "A person asked for a selection by hand.",
    "retry": "A refused or unsent request of an earlier run was tried again.",
    "adopt": "Something else created the session, and the job was told to follow it.",
    "sessions_query": "Something else created the session, and ledger.sessions_query named it.",
}

REFRESH_STATUSES: Mapping[str, str] = {
    RefreshStatus.WAITING: "Stripe has not been asked yet: it allows no refresh before a later time, is busy with one, or could not be reached.",
    RefreshStatus.PENDING: "Stripe was asked and has not finished.",
    RefreshStatus.SUCCEEDED: "Everything that was asked for is fresh.",
    RefreshStatus.FAILED: "Stripe could not refresh some of it.",
    RefreshStatus.UNFINISHED: "Stripe had not finished seven dates later, and the account is not read for it any more.",
    RefreshStatus.REJECTED: "Stripe refused it.",
    RefreshStatus.UNKNOWN: "Whether Stripe was asked cannot be known, so it is not asked again.",
    RefreshStatus.NOT_SENT: "Stripe was not asked: the account allows none of it, is gone, or the time for it ran out.",
}

CLOSED_LISTS: Mapping[str, Mapping[str, str]] = {
    "finding": FINDINGS,
    "next_step": NEXT_STEPS,
    "reason": REASONS,
    "result": RESULTS,
    "outcome": OUTCOMES,
    "basis": BASES,
    "matched_by": MATCHES,
    "delivery": DELIVERIES,
    "ledger_status": LEDGER_STATUSES,
    "refresh_status": REFRESH_STATUSES,
}
"""Name of each closed list and its values, in the order in which they are listed everywhere."""

OPEN_LISTS: Mapping[str, Mapping[str, str]] = {
    "cause": CAUSES,
    "action": ACTIONS,
    "stripe_status": STRIPE_STATUSES,
    "failure_reason": FAILURE_REASONS,
    "session_status": SESSION_STATUSES,
    "origin": ORIGINS,
}
"""Words that this version knows of lists that may grow without it: Stripe's own, kept as they come, and the names of commands."""

ALL_LISTS: Mapping[str, Mapping[str, str]] = {**CLOSED_LISTS, **OPEN_LISTS}
"""Both, by the name that a column's `values` gives."""
