"""A page read into columns says what the same page says as records, and is refused with the same words."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from jobs.adapters.stripe_columns import read_account_columns
from jobs.adapters.stripe_records import NotJson, WrongShape, read_accounts
from reconcile.frames import ACCOUNTS
from reconcile.normalize import accounts_frame, pages_table

SECONDS = st.sampled_from([None, 0, -1, 1_700_000_000, 1_800_000_000, 253_402_300_799, 253_402_300_800, -(2**62)])
WORDS = st.sampled_from([None, "", "active", "Zoë\x00", 7])
ACTIONS = st.none() | st.fixed_dictionaries(
    {}, optional={"action": WORDS, "cause": WORDS, "expected_deactivation_date": SECONDS}
)
OBJECTS = st.sampled_from([None, "id_1", {"id": "id_2", "email": "jane@example.com"}, 3])
NUMBERS = st.fixed_dictionaries(
    {
        "identifier_type": st.sampled_from(["tokenized_account_number", "account_number", None]),
        "status": st.sampled_from(["transactable", "pending", "deactivated", None]),
        "expected_expiry_date": SECONDS,
    }
)
REFRESHES = st.none() | st.fixed_dictionaries(
    {"status": st.sampled_from(["succeeded", "failed", "pending"]), "last_attempted_at": SECONDS}
)
ACCOUNTS_OF_STRIPE = st.fixed_dictionaries(
    {
        "id": st.sampled_from(["fca_1", "fca_2", "fca_3"]),
        "status": st.sampled_from(["active", "inactive", "disconnected", "a_new_one", None]),
        "livemode": st.booleans(),
    },
    optional={
        "authorization": OBJECTS,
        "account_holder": st.none()
        | st.fixed_dictionaries(
            {"type": st.sampled_from(["customer", "account", None])},
            optional={"customer": OBJECTS, "account": OBJECTS, "customer_account": OBJECTS},
        ),
        "institution": OBJECTS,
        "institution_name": WORDS,
        "last4": WORDS,
        "category": WORDS,
        "subcategory": WORDS,
        "status_details": st.none() | st.fixed_dictionaries({}, optional={"active": ACTIONS, "inactive": ACTIONS}),
        "permissions": st.none() | st.lists(st.sampled_from(["balances", "transactions", "balances;"]), max_size=3),
        "account_numbers": st.none() | st.lists(NUMBERS, max_size=3),
        "balance_refresh": REFRESHES,
        "inferred_balances_refresh": REFRESHES,
        "ownership_refresh": REFRESHES,
        "transaction_refresh": REFRESHES,
        "created": SECONDS,
    },
)
SOUND = {"id": "fca_0", "status": "active", "livemode": False, "authorization": "fcauth_0", "created": 1_700_000_000}


def outcome(read: Callable[[bytes], Any], body: bytes) -> Any:
    try:
        return read(body)
    except (NotJson, WrongShape) as fault:
        return type(fault), str(fault), fault.__context__


@given(st.lists(ACCOUNTS_OF_STRIPE | st.just(SOUND), max_size=4), st.booleans())
def test_a_page_by_columns_is_the_page_by_records(accounts: list[dict[str, Any]], has_more: bool) -> None:
    body = json.dumps({"data": accounts, "has_more": has_more}).encode()
    by_records, page = outcome(read_accounts, body), outcome(read_account_columns, body)
    if isinstance(by_records[0], type):
        assert page == by_records
        return
    records, _ = by_records
    frame = accounts_frame(records)
    assert pages_table([page]).equals(pa.table({name: pa.array(frame[name].array) for name in ACCOUNTS}))
    assert page.authorization_key_present == [record.authorization_key_present for record in records]
    assert page.livemode == [record.livemode for record in records]
    assert (list(page.account_ids), page.has_more) == ([record.account_id for record in records], has_more)


@given(st.lists(st.just(SOUND), min_size=1, max_size=2))
def test_every_cut_of_a_page_is_noticed(accounts: list[dict[str, Any]]) -> None:
    body = json.dumps({"data": accounts, "has_more": False}).encode()
    assert {outcome(read_account_columns, body[:end]) for end in range(len(body))} == {(NotJson, "", None)}
