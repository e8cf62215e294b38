"""Stripe's JSON into records: what is taken, what is told apart, and what never gets through."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from jobs.adapters.stripe_records import (
    NotJson,
    WrongShape,
    read_account,
    read_accounts,
    read_error,
    read_session,
)
from reconcile.records import AccountNumber

BARE: dict[str, Any] = {"id": "fca_1", "status": "active", "livemode": True, "authorization": "fcauth_1"}


def encoded(payload: Any) -> bytes:
    return json.dumps(payload).encode()


def at(epoch_seconds: int) -> datetime:
    return datetime.fromtimestamp(epoch_seconds, UTC)


def test_a_full_account() -> None:
    """Each field lands in its place; expanded objects give their id; names, balances and owners stay behind."""
    record = read_account(
        encoded(
            BARE
            | {
                "object": "financial_connections.account",
                "display_name": "Jane's checking",
                "balance": {"current": {"usd": 12345}},
                "ownership": {"id": "fcaowns_1", "owners": {"data": [{"email": "jane@example.com"}]}},
                "created": 1_700_000_000,
                "institution": {"id": "fcinst_1", "name": "ignored"},
                "institution_name": "Test Bank",
                "last4": "6789",
                "category": "cash",
                "subcategory": "savings",
                "account_holder": {"type": "customer", "customer": {"id": "cus_1", "email": "jane@example.com"}},
                "status_details": {
                    "active": {
                        "action": "relink_required",
                        "cause": "access_expired",
                        "expected_deactivation_date": 1_800_000_000,
                    }
                },
                "permissions": ["balances", "a_future_one"],
                "account_numbers": [
                    {
                        "identifier_type": "tokenized_account_number",
                        "status": "pending",
                        "expected_expiry_date": 1_900_000_000,
                    },
                    {"identifier_type": "account_number", "status": "transactable"},
                ],
                "balance_refresh": {"status": "failed", "last_attempted_at": 1_760_000_003},
                "ownership_refresh": {"status": "succeeded", "last_attempted_at": 1_760_000_001},
                "transaction_refresh": {"status": "succeeded", "last_attempted_at": 1_760_000_002},
            }
        )
    )
    assert dataclasses.asdict(record) == {
        "account_id": "fca_1",
        "authorization_id": "fcauth_1",
        "authorization_key_present": True,
        "holder_type": "customer",
        "account_holder_id": "cus_1",
        "institution_id": "fcinst_1",
        "institution_name": "Test Bank",
        "last4": "6789",
        "category": "cash",
        "subcategory": "savings",
        "status": "active",
        "active_action": "relink_required",
        "active_cause": "access_expired",
        "expected_deactivation_at": at(1_800_000_000),
        "inactive_action": None,
        "inactive_cause": None,
        "permissions": ("balances", "a_future_one"),
        "account_numbers": (
            AccountNumber("tokenized_account_number", "pending", at(1_900_000_000)),
            AccountNumber("account_number", "transactable", None),
        ),
        "last_refreshed_at": at(1_760_000_002),
        "created_at": at(1_700_000_000),
        "livemode": True,
    }


def test_an_absent_authorization_is_not_a_null_one() -> None:
    """The first says that the API version is wrong, the second something about the account."""
    absent = read_account(encoded({key: value for key, value in BARE.items() if key != "authorization"}))
    null = read_account(encoded(BARE | {"authorization": None}))
    assert (absent.authorization_id, absent.authorization_key_present) == (None, False)
    assert (null.authorization_id, null.authorization_key_present) == (None, True)


@pytest.mark.parametrize(
    "details", [None, {}, {"active": {}}, {"active": None}, {"inactive": {}}, {"active": {"action": None}}]
)
def test_empty_status_details_say_nothing(details: Any) -> None:
    """Stripe sends empty hashes where its own types promise fields."""
    record = read_account(encoded(BARE | {"status_details": details}))
    found = (record.active_action, record.active_cause, record.expected_deactivation_at, record.inactive_action)
    assert found == (None, None, None, None)


@pytest.mark.parametrize(
    ("holder", "expected"),
    [
        ({"type": "customer", "customer": "cus_1"}, ("customer", "cus_1")),
        ({"type": "customer", "customer": None, "customer_account": "acct_2"}, ("customer_account", "acct_2")),
        ({"type": "customer", "customer_account": {"id": "acct_2"}}, ("customer_account", "acct_2")),
        ({"type": "account", "account": "acct_1"}, ("account", "acct_1")),
        ({"type": "account", "account": {"id": "acct_1"}}, ("account", "acct_1")),
        ({"type": "customer", "customer": None}, ("customer", None)),
        ({"type": "account", "customer": "cus_1"}, ("account", None)),
        (None, (None, None)),
    ],
)
def test_the_holder_is_named_by_the_field_that_carries_it(holder: Any, expected: Any) -> None:
    """A request sends the holder back exactly as the account carries it, so the field matters."""
    record = read_account(encoded(BARE | {"account_holder": holder}))
    assert (record.holder_type, record.account_holder_id) == expected


@pytest.mark.parametrize("status", ["active", "inactive", "disconnected", "a_status_of_next_year", "", "état ＝1"])
def test_words_of_open_lists_stand_as_sent(status: str) -> None:
    assert read_account(encoded(BARE | {"status": status})).status == status


@pytest.mark.parametrize(
    "change",
    [
        {"id": None},
        {"id": 1},
        {"status": None},
        {"livemode": "true"},
        {"permissions": "balances"},
        {"created": "yesterday"},
        {"created": 2**62},
        {"status_details": []},
        {"account_holder": "cus_1"},
    ],
)
def test_another_type_than_documented_is_an_error(change: dict[str, Any]) -> None:
    """A field that cannot be trusted must not become an account that looks well."""
    with pytest.raises(WrongShape) as raised:
        read_account(encoded(BARE | change))
    assert raised.value.__context__ is None


@pytest.mark.parametrize("missing", ["id", "status", "livemode"])
def test_a_required_key_is_required(missing: str) -> None:
    with pytest.raises(WrongShape, match=missing):
        read_account(encoded({key: value for key, value in BARE.items() if key != missing}))


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"status": None}, "status"),
        ({"permissions": "balances"}, "permissions"),
        ({"created": 2**62}, "a time"),
        ({"account_holder": "cus_1"}, "account_holder"),
        ({"account_numbers": [{"status": 4}]}, "account_numbers[0].status"),
        ({"authorization": 9}, "authorization"),
    ],
)
def test_one_account_that_is_not_as_documented_hides_no_other(change: dict[str, Any], place: str) -> None:
    page = {"data": [BARE, BARE | {"id": "fca_odd"} | change], "has_more": True}
    (sound, odd), has_more = read_accounts(encoded(page))
    assert sound == read_account(encoded(BARE))
    assert has_more
    assert (odd.account_id, odd.status, odd.livemode) == ("fca_odd", f"malformed: {place}", BARE["livemode"])
    assert odd.authorization_key_present == ("authorization" in BARE | change)
    with pytest.raises(WrongShape):
        read_accounts(encoded(page | {"data": page["data"][1:]}))


@pytest.mark.parametrize("change", [{"id": None}, {"livemode": "true"}])
def test_an_account_that_cannot_be_told_from_others_is_an_error(change: dict[str, Any]) -> None:
    with pytest.raises(WrongShape):
        read_accounts(encoded({"data": [BARE, BARE | change], "has_more": False}))


def test_every_cut_of_a_page_is_noticed() -> None:
    """No prefix of a page passes for a page."""
    body = encoded({"object": "list", "data": [BARE, BARE], "has_more": False})
    assert len(read_accounts(body)[0]) == 2
    for length in range(len(body)):
        with pytest.raises(NotJson):
            read_accounts(body[:length])


def test_a_session_record_has_no_room_for_its_secret() -> None:
    """The secret, the URL and the e-mail are in the body and nowhere in the record."""
    body = encoded(
        {
            "id": "fcsess_1",
            "livemode": False,
            "status": "cancelled",
            "client_secret": "fcsess_client_secret_canary",
            "url": "https://connect.stripe.com/canary",
            "ui_mode": "hosted",
            "hosted": {"delivery_method": "url", "return_url": "https://example.com/canary"},
            "account_holder": {"type": "customer", "customer": {"id": "cus_1", "email": "canary@example.com"}},
            "permissions": ["balances"],
            "relink_options": {"authorization": "fcauth_1", "account": "fca_1"},
            "relink_result": {"authorization": None, "failure_reason": "no_account"},
            "status_details": {"cancelled": {"reason": "custom_manual_entry"}},
            "accounts": {"object": "list", "data": [BARE], "has_more": True},
        }
    )
    session, has_more = read_session(body)
    assert has_more
    assert "canary" not in repr(session)
    assert (session.requested_account, session.result_present, session.failure_reason) == ("fca_1", True, "no_account")
    assert (session.cancelled_reason, session.ui_mode, session.delivery_method) == (
        "custom_manual_entry",
        "hosted",
        "url",
    )


def test_a_session_of_an_older_version_has_no_result() -> None:
    """Below the preview versions neither status nor relink options exist; that is told, not guessed."""
    session, has_more = read_session(encoded({"id": "fcsess_1", "livemode": False}))
    assert (session.status, session.has_relink_options, session.result_present) == (None, False, False)
    assert (session.accounts, has_more) == ((), False)


def test_an_error_keeps_its_codes_and_a_masked_message() -> None:
    error = read_error(
        encoded(
            {
                "error": {
                    "type": "invalid_request_error",
                    "code": "resource_missing",
                    "param": "account_holder[customer]",
                    "message": "No such customer: 'cus_1'\n(jane@example.com, https://pay.stripe.com/x, sk_test_123456) "
                    + "x" * 999,
                    "setup_intent": {"client_secret": "seti_1_secret_abcdef"},
                }
            }
        )
    )
    assert (error.error_type, error.error_code) == ("invalid_request_error", "resource_missing")
    assert error.param == "account_holder[customer]"
    assert error.message is not None
    assert error.message.startswith("No such customer: 'cus_1' ([email], [url] [secret]) ")
    assert len(error.message) <= 300


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'{"error": "invalid_grant"}', b'{"error": {"code": 7}}', b"\xff"]
)
def test_an_unreadable_error_says_nothing(body: bytes) -> None:
    error = read_error(body)
    assert (error.error_type, error.error_code, error.param, error.message) == (None, None, None, None)
