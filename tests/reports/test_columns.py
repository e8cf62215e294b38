"""The written columns are the promised ones, in the promised order."""

from __future__ import annotations

import pytest

from reports.columns import TABLES
from reports.contract import TYPE_NAMES

PROMISED = {
    "accounts": "merchant, account_id, authorization_id, account_holder_id, institution_name, last4, subcategory, ledger_status,"
    " stripe_status, cause, action, finding, also, next_step, inactive_since, inactive_since_basis, days_inactive,"
    " expected_deactivation_date, days_to_deactivation, permissions, missing_permissions, shared_accounts, shared_affected,"
    " last_refreshed_at, exposure_minor, currency, reference, refresh_status, refresh_requested_at, refresh_failure,"
    " balances_as_of, ownership_as_of, transactions_through",
    "authorizations": "merchant, authorization_id, account_holder_id, institution_name, accounts, affected_accounts, finding,"
    " next_step, attempts, last_request_at, exposure_minor, currency, exposure_by_currency, references",
    "relink_requests": "merchant, request_id, authorization_id, account_id, account_holder_id, institution_name, reason,"
    " covered_accounts, permissions, widens, delivery, attempt, result, session_id, error_type, error_code, error_message,"
    " http_status, stripe_request_id, calls, requested_at, references",
    "relink_outcomes": "merchant, request_id, session_id, authorization_id, account_holder_id, institution_name, cause, outcome,"
    " previous_outcome, failure_reason, session_status, new_authorization_id, accounts_expected, accounts_cured, requested_at,"
    " outcome_at, outcome_at_basis, hours_to_outcome, last_checked_at, reason, attempt, delivery, origin, exposure_minor,"
    " currency, references, reactivated_unattributed, cured_accounts, uncured_accounts, other_accounts",
    "account_successors": "merchant, old_account_id, new_account_id, old_authorization_id, new_authorization_id, matched_by,"
    " request_id",
    "failure_reasons": "merchant, institution_name, cause, outcome, failure_reason, requests, share",
}

TYPES_BY_NAME = {
    "also": "list of texts",
    "permissions": "list of texts",
    "missing_permissions": "list of texts",
    "covered_accounts": "list of texts",
    "cured_accounts": "list of texts",
    "uncured_accounts": "list of texts",
    "other_accounts": "list of texts",
    "references": "list of texts",
    "exposure_by_currency": "list of texts",
    "expected_deactivation_date": "date",
    "widens": "true or false",
    "reactivated_unattributed": "true or false",
    "share": "number",
    "hours_to_outcome": "number",
} | dict.fromkeys(
    [
        "days_inactive",
        "days_to_deactivation",
        "shared_accounts",
        "shared_affected",
        "exposure_minor",
        "accounts",
        "affected_accounts",
        "attempts",
        "attempt",
        "http_status",
        "calls",
        "accounts_expected",
        "accounts_cured",
        "requests",
    ],
    "whole number",
)


@pytest.mark.parametrize("name", PROMISED)
def test_columns_stand_in_the_promised_order(name: str) -> None:
    assert list(TABLES[name].names) == PROMISED[name].split(", ")


def test_there_is_no_other_table() -> None:
    assert list(TABLES) == list(PROMISED)


@pytest.mark.parametrize("name", PROMISED)
def test_types_follow_from_names(name: str) -> None:
    """Money is whole minor units, a moment is a time in UTC, and everything unlisted is text."""
    for column in TABLES[name].columns:
        moment = column.name.endswith(("_at", "_as_of", "_through")) or column.name == "inactive_since"
        expected = "time" if moment else TYPES_BY_NAME.get(column.name, "text")
        assert TYPE_NAMES[column.type] == expected, column.name
