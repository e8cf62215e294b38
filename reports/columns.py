"""Every column of every report table, in order: its name, type, unit and meaning.

The writers take their schemas from here, and `reports/glossary.py` prints and looks up from here, so that neither can drift from
the other.
"""

from __future__ import annotations

from collections.abc import Mapping

from reports.contract import DATE, FLAG, REAL, TEXT, TEXTS, TIME, WHOLE, Column, TableContract

MERCHANT = Column("merchant", TEXT, "", "Name of the merchant in the settings.")
REQUEST_ID = Column("request_id", TEXT, "", "The job's own id of the request.")
AUTHORIZATION_ID = Column("authorization_id", TEXT, "", "Stripe's id of the login that the account was connected with.")
HOLDER_ID = Column("account_holder_id", TEXT, "", "Stripe's id of the customer who holds the account.")
INSTITUTION = Column(
    "institution_name", TEXT, "", "Name of the bank or other institution, as Stripe gives it.", free_text=True
)
CAUSE = Column("cause", TEXT, "", "Why the connection is or will be lost, in Stripe's own word.", values="cause")
CURRENCY = Column("currency", TEXT, "currency code", "Currency of exposure_minor; empty where that is.")
REFERENCES = Column(
    "references", TEXTS, "", "The merchant's own names for the accounts, each once, sorted.", free_text=True
)
REASON = Column(
    "reason",
    TEXT,
    "",
    "The first finding among the covered accounts, for which the customer is asked.",
    values="reason",
)
DELIVERY = Column("delivery", TEXT, "", "How the customer comes to the session.", values="delivery")
ATTEMPT = Column("attempt", WHOLE, "count", "Which contact of this breakage the request is, starting at 1.")
REQUESTED_AT = Column("requested_at", TIME, "UTC", "When Stripe was asked for the session; empty if it was not.")
FAILURE_REASON = Column(
    "failure_reason",
    TEXT,
    "",
    "Why the customer's attempt failed, in Stripe's own word; empty if none was given.",
    values="failure_reason",
    free_text=True,
)

ACCOUNTS = TableContract(
    "accounts",
    "one account that is in Stripe or in the ledger",
    (
        MERCHANT,
        Column("account_id", TEXT, "", "Stripe's id of the account."),
        AUTHORIZATION_ID,
        Column(
            "account_holder_id",
            TEXT,
            "",
            "Stripe's id of the customer who holds the account; the ledger's where Stripe lists no such account.",
        ),
        INSTITUTION,
        Column("last4", TEXT, "", "Last four digits of the account number."),
        Column("subcategory", TEXT, "", "Kind of account, in Stripe's own word."),
        Column(
            "ledger_status",
            TEXT,
            "",
            "Whether the ledger still uses the account; empty if it is not in the ledger.",
            values="ledger_status",
        ),
        Column(
            "stripe_status",
            TEXT,
            "",
            "The account's status in Stripe's own word; empty if Stripe does not list it. Or malformed and a field name, where what Stripe sent of the "
            "account is not as documented there.",
            values="stripe_status",
        ),
        CAUSE,
        Column("action", TEXT, "", "What would mend the account, in Stripe's own word.", values="action"),
        Column("finding", TEXT, "", "What is true of the account tonight; the first that holds.", values="finding"),
        Column("also", TEXTS, "", "Findings that hold as well but come after the first.", values="finding"),
        Column("next_step", TEXT, "", "What is done about the account tonight, or why nothing is.", values="next_step"),
        Column("inactive_since", TIME, "UTC", "Since when the account is inactive, as well as the job knows."),
        Column("inactive_since_basis", TEXT, "", "How the job knows inactive_since.", values="basis"),
        Column("days_inactive", WHOLE, "days", "Business dates from inactive_since to tonight."),
        Column(
            "expected_deactivation_date", DATE, "business date", "When Stripe expects the account to become inactive."
        ),
        Column(
            "days_to_deactivation",
            WHOLE,
            "days",
            "Business dates from tonight to expected_deactivation_date; below zero if it has passed.",
        ),
        Column("permissions", TEXTS, "", "What the account grants now; empty if Stripe does not say."),
        Column("missing_permissions", TEXTS, "", "What the ledger requires and the account does not grant."),
        Column("shared_accounts", WHOLE, "count", "Accounts in Stripe with the same authorization, itself included."),
        Column("shared_affected", WHOLE, "count", "Affected accounts with the same authorization, itself included."),
        Column("last_refreshed_at", TIME, "UTC", "When Stripe last refreshed any of the account's data successfully."),
        Column("exposure_minor", WHOLE, "minor units of currency", "Money at stake on the account, from the ledger."),
        CURRENCY,
        Column("reference", TEXT, "", "The merchant's own name for the account, from the ledger.", free_text=True),
        Column(
            "refresh_status",
            TEXT,
            "",
            "What became of asking Stripe for fresh data after the account came back, within the 30 business dates ending tonight; empty where "
            "none were to be asked for.",
            values="refresh_status",
        ),
        Column("refresh_requested_at", TIME, "UTC", "When Stripe was asked for them; empty if it was not."),
        Column("refresh_failure", TEXT, "", "Why they could not be had.", free_text=True),
        Column("balances_as_of", TIME, "UTC", "When the bank calculated the balances that the refresh brought."),
        Column("ownership_as_of", TIME, "UTC", "When the ownership that the refresh brought was fetched."),
        Column("transactions_through", TIME, "UTC", "Up to when the refresh brought transactions."),
    ),
    ("merchant", "account_id"),
)

AUTHORIZATIONS = TableContract(
    "authorizations",
    "one authorization with an affected account or one to review",
    (
        MERCHANT,
        AUTHORIZATION_ID,
        Column("account_holder_id", TEXT, "", "Stripe's id of the customer; empty where the accounts disagree."),
        Column(
            "institution_name",
            TEXT,
            "",
            "Name of the institution of the first of its accounts that has one.",
            free_text=True,
        ),
        Column("accounts", WHOLE, "count", "Accounts in Stripe with this authorization."),
        Column("affected_accounts", WHOLE, "count", "How many of them are affected."),
        Column(
            "finding",
            TEXT,
            "",
            "The first finding among its affected accounts, else among those to review.",
            values="finding",
        ),
        Column(
            "next_step",
            TEXT,
            "",
            "What is done about the authorization tonight, or why nothing is.",
            values="next_step",
        ),
        Column("attempts", WHOLE, "count", "Contacts made so far in its open breakages."),
        Column("last_request_at", TIME, "UTC", "When the customer was last asked about this authorization."),
        Column(
            "exposure_minor",
            WHOLE,
            "minor units of currency",
            "Money at stake on its affected accounts that the ledger has open; empty where there is none or several currencies meet.",
        ),
        CURRENCY,
        Column("exposure_by_currency", TEXTS, "CODE:minor units", "The same money for each currency, sorted by code."),
        Column(
            "references",
            TEXTS,
            "",
            "The merchant's own names for its accounts that are affected or to review, each once, sorted.",
            free_text=True,
        ),
    ),
    ("merchant", "authorization_id"),
)

RELINK_REQUESTS = TableContract(
    "relink_requests",
    "one request of this run",
    (
        MERCHANT,
        REQUEST_ID,
        AUTHORIZATION_ID,
        Column("account_id", TEXT, "", "The one account that is asked for; empty where the whole authorization is."),
        HOLDER_ID,
        INSTITUTION,
        REASON,
        Column("covered_accounts", TEXTS, "", "The accounts that the request is to cure."),
        Column("permissions", TEXTS, "", "What the customer is asked to grant."),
        Column("widens", FLAG, "", "Whether some account is asked for more than it grants and needs."),
        DELIVERY,
        ATTEMPT,
        Column("result", TEXT, "", "What became of the call to Stripe.", values="result"),
        Column("session_id", TEXT, "", "Stripe's id of the session, if it was created."),
        Column("error_type", TEXT, "", "Kind of error that Stripe answered with."),
        Column("error_code", TEXT, "", "Stripe's code for the error."),
        Column("error_message", TEXT, "", "What Stripe said about the error, masked.", free_text=True),
        Column("http_status", WHOLE, "HTTP status", "Status of Stripe's last answer."),
        Column("stripe_request_id", TEXT, "", "Stripe's id of the call, to quote to its support."),
        Column("calls", WHOLE, "count", "How often the call went out, the first time included."),
        REQUESTED_AT,
        REFERENCES,
    ),
    ("merchant", "request_id"),
)

RELINK_OUTCOMES = TableContract(
    "relink_outcomes",
    "one request whose outcome changed or is still open",
    (
        MERCHANT,
        REQUEST_ID,
        Column("session_id", TEXT, "", "Stripe's id of the session; empty if none is known."),
        AUTHORIZATION_ID,
        HOLDER_ID,
        INSTITUTION,
        Column(
            "cause",
            TEXT,
            "",
            "Why the connection was or would be lost when the customer was asked, in Stripe's own word.",
            values="cause",
        ),
        Column("outcome", TEXT, "", "What came of the request.", values="outcome"),
        Column(
            "previous_outcome",
            TEXT,
            "",
            "What this row said before, where a later answer replaced it.",
            values="outcome",
        ),
        FAILURE_REASON,
        Column(
            "session_status",
            TEXT,
            "",
            "The session's status in Stripe's own word, when last looked up.",
            values="session_status",
        ),
        Column("new_authorization_id", TEXT, "", "The other authorization under which the customer connected."),
        Column("accounts_expected", WHOLE, "count", "Accounts that the request was to cure."),
        Column(
            "accounts_cured", WHOLE, "count", "How many of them are cured; empty until there is something to compare."
        ),
        REQUESTED_AT,
        Column("outcome_at", TIME, "UTC", "When the outcome came about, as well as the job knows."),
        Column("outcome_at_basis", TEXT, "", "How the job knows outcome_at.", values="basis"),
        Column(
            "hours_to_outcome", REAL, "hours", "From requested_at to outcome_at, to four decimals, never below zero."
        ),
        Column("last_checked_at", TIME, "UTC", "When the session was last looked up."),
        REASON,
        ATTEMPT,
        DELIVERY,
        Column("origin", TEXT, "", "The command that made the request.", values="origin"),
        Column(
            "exposure_minor",
            WHOLE,
            "minor units of currency",
            "Money at stake on the covered accounts when the customer was asked; empty where there is none or several currencies meet.",
        ),
        CURRENCY,
        REFERENCES,
        Column(
            "reactivated_unattributed",
            FLAG,
            "",
            "Whether covered accounts of this unknown request came back while no session is known that explains it: the customer may have answered "
            "one that nobody can follow, or the bank healed by itself.",
        ),
        Column(
            "cured_accounts",
            TEXTS,
            "",
            "The covered accounts that are cured; empty until there is something to compare.",
        ),
        Column(
            "uncured_accounts",
            TEXTS,
            "",
            "The covered accounts that are not cured, or not yet; empty until there is something to compare.",
        ),
        Column(
            "other_accounts",
            TEXTS,
            "",
            "Accounts that came back by the session without being covered: broken when the customer was asked, or made since.",
        ),
    ),
    ("merchant", "request_id"),
)

ACCOUNT_SUCCESSORS = TableContract(
    "account_successors",
    "one account that was replaced under a new authorization",
    (
        MERCHANT,
        Column("old_account_id", TEXT, "", "The account as it was known, to be changed in the ledger."),
        Column("new_account_id", TEXT, "", "The account that carries it on."),
        Column("old_authorization_id", TEXT, "", "The authorization of the old account."),
        Column("new_authorization_id", TEXT, "", "The authorization of the new account."),
        Column("matched_by", TEXT, "", "How the two were told to be one.", values="matched_by"),
        Column("request_id", TEXT, "", "The job's own id of the request that led to it; empty for a twin."),
    ),
    ("merchant", "old_account_id", "new_account_id"),
)

FAILURE_REASONS = TableContract(
    "failure_reasons",
    "the requests of the 30 business dates ending tonight that share institution, cause, outcome and failure reason",
    (
        MERCHANT,
        INSTITUTION,
        Column(
            "cause",
            TEXT,
            "",
            "Why the connection was or would be lost when the customer was asked, in Stripe's own word.",
            values="cause",
        ),
        Column("outcome", TEXT, "", "What came of the requests so far.", values="outcome"),
        FAILURE_REASON,
        Column("requests", WHOLE, "count", "How many requests share all of this."),
        Column(
            "share",
            REAL,
            "share from 0 to 1",
            "Their part of all requests of that merchant, institution and cause, unanswered ones included.",
        ),
    ),
    ("merchant", "institution_name", "cause", "outcome", "failure_reason"),
)

TABLES: Mapping[str, TableContract] = {
    contract.name: contract
    for contract in (ACCOUNTS, AUTHORIZATIONS, RELINK_REQUESTS, RELINK_OUTCOMES, ACCOUNT_SUCCESSORS, FAILURE_REASONS)
}
"""Every report table by name, in the order in which they are written."""
