"""Every value that a closed column may hold, and what it tells the reader."""

from __future__ import annotations

from collections.abc import Mapping

from reconcile.model import AFFECTED, Finding, NextStep, OutcomeKind, Result

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
    NextStep.DO_NOT_CONTACT: "The ledger forbids contacting this customer.",
    NextStep.REASON_OFF: "The settings leave requests for this reason out.",
    NextStep.OPEN_SESSION: "An earlier request is still waiting for the customer's answer.",
    NextStep.ATTEMPTS_EXHAUSTED: "The customer was asked as often as the settings allow for this breakage.",
    NextStep.COOLDOWN: "The customer was asked too recently, or is being asked tonight for another authorization.",
    NextStep.HELD_BY_BRAKE: "So much broke at once that a person has to release the requests first.",
    NextStep.CAPPED: "The night's limit on requests was used up by more urgent ones.",
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
}
"""Name of each closed list and its values, in the order in which they are listed everywhere."""
