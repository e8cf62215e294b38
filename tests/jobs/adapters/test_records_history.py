"""Account history, breakages, successors and the embedded ledger in both databases."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.adapters import records
from jobs.adapters.database import Database
from reconcile.errors import DatabaseError
from reconcile.frames import HISTORY, empty, from_columns
from reconcile.ledger import LedgerRow
from reconcile.model import Scope, Successor
from tests.jobs.adapters.stored_values import AT, DATE, DAY, HOUR, OTHER_SCOPE, RUN_ID, SCOPE, breakage, key


def frame(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    filled = [{"observed_at": AT, "present": True, **row} for row in rows]
    return from_columns({name: [row.get(name) for row in filled] for name in HISTORY}, HISTORY)


def test_the_newest_row_of_each_account_now_and_then(database: Database) -> None:
    first = frame(
        [
            {"account_id": "fca_b", "stripe_status": "active"},
            {"account_id": "fca_a", "stripe_status": "active", "last4": "0042"},
        ]
    )
    second = frame(
        [{"account_id": "fca_b", "stripe_status": "inactive", "observed_at": AT + DAY, "inactive_since": AT + HOUR}]
    )
    third = frame([{"account_id": "fca_B", "present": False, "observed_at": AT + DAY}])
    assert records.append_history(database, SCOPE, RUN_ID, first) == 2
    assert records.append_history(database, SCOPE, RUN_ID, second) == 1
    assert records.append_history(database, SCOPE, RUN_ID, third) == 1
    assert records.append_history(database, SCOPE, RUN_ID, empty(HISTORY)) == 0
    ordered = pd.concat([third, first.iloc[[1]], second], ignore_index=True)
    pd.testing.assert_frame_equal(records.latest_history(database, SCOPE), ordered)
    pd.testing.assert_frame_equal(records.latest_history(database, SCOPE, AT), first.iloc[::-1].reset_index(drop=True))
    pd.testing.assert_frame_equal(records.latest_history(database, SCOPE, AT - HOUR), empty(HISTORY))
    pd.testing.assert_frame_equal(records.latest_history(database, OTHER_SCOPE), empty(HISTORY))


texts = st.none() | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=6)
moments = st.none() | st.datetimes(datetime(1900, 1, 1), datetime(9000, 1, 1), timezones=st.just(UTC))
history_rows = st.lists(
    st.fixed_dictionaries(
        {
            "account_id": st.text(st.sampled_from("abC09_é\n\r\",;\\.'N"), min_size=1, max_size=6),
            "present": st.booleans(),
            "institution_name": texts,
            "permissions": st.sampled_from([None, "", "balances;transactions", "NULL", "\\N", "\\.", '"']),
            "inactive_since": moments,
            "expected_deactivation_at": moments,
        }
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda row: row["account_id"],
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=history_rows)
def test_whatever_an_account_holds_comes_back(database: Database, rows: list[dict[str, Any]]) -> None:
    scope = Scope(f"merchant {_fresh()}", "live")
    stored = frame(rows)
    assert records.append_history(database, scope, RUN_ID, stored) == len(rows)
    expected = stored.sort_values("account_id", ignore_index=True)
    pd.testing.assert_frame_equal(
        records.latest_history(database, scope).sort_values("account_id", ignore_index=True), expected
    )


_numbers = iter(range(10**9))


def _fresh() -> int:
    return next(_numbers)


def test_saying_the_same_again_changes_nothing_and_another_run_may_not(database: Database) -> None:
    rows = [{"account_id": f"fca_{number}"} for number in range(900)]
    assert records.append_history(database, SCOPE, RUN_ID, frame(rows[:600])) == 600
    assert records.append_history(database, SCOPE, RUN_ID, frame(rows)) == 300
    with pytest.raises(DatabaseError, match=rf"fca_0.*{RUN_ID}.*another run"):
        records.append_history(database, SCOPE, "another run", frame([*rows[:1], {"account_id": "fca_new"}]))
    assert len(records.latest_history(database, SCOPE)) == 900, "a refused append leaves nothing"


def test_history_is_part_of_a_larger_transaction(database: Database) -> None:
    def work(_: object) -> None:
        records.append_history(database, SCOPE, RUN_ID, frame([{"account_id": "fca_1"}]))
        records.append_history(database, SCOPE, RUN_ID, frame([{"account_id": "fca_2"}]))
        assert len(records.latest_history(database, SCOPE)) == 2
        raise KeyError

    with pytest.raises(KeyError):
        database.run(work)
    assert records.latest_history(database, SCOPE).empty


def test_text_that_no_database_holds_does_not_end_a_run(database: Database) -> None:
    records.append_history(database, SCOPE, RUN_ID, frame([{"account_id": "fca_1", "institution_name": "a\x00b"}]))
    assert records.latest_history(database, SCOPE)["institution_name"].tolist() == ["a\ufffdb"]


def test_the_whole_history_of_some_accounts(database: Database) -> None:
    moments = [AT + number * HOUR for number in range(3)]
    for moment in moments:
        rows = [
            {
                "account_id": "fca_1",
                "authorization_id": "fcauth_1",
                "account_holder_id": "cus_1",
                "observed_at": moment,
            },
            {
                "account_id": "fca_2",
                "authorization_id": "fcauth_2",
                "account_holder_id": "cus_1",
                "observed_at": moment,
            },
        ]
        records.append_history(database, SCOPE, RUN_ID, frame(rows))
    by_account = records.history_of(database, SCOPE, ["fca_1", *(f"fca_none_{number}" for number in range(900))])
    assert by_account["observed_at"].tolist() == [pd.Timestamp(moment) for moment in moments]
    assert records.history_of(database, SCOPE, authorization_ids=["fcauth_2"])["account_id"].unique().tolist() == [
        "fca_2"
    ]
    both = records.history_of(database, SCOPE, ["fca_1"], holder_ids=["cus_1"])
    assert both["account_id"].tolist() == ["fca_1"] * 3 + ["fca_2"] * 3
    pd.testing.assert_frame_equal(records.history_of(database, SCOPE), empty(HISTORY))


def test_a_frame_of_another_shape_is_a_bug(database: Database) -> None:
    with pytest.raises(ValueError, match="history"):
        records.append_history(database, SCOPE, RUN_ID, pd.DataFrame({"account_id": ["fca_1"]}))


def test_breakages_open_and_close_once(database: Database) -> None:
    first, second = breakage(), breakage(key=key("fcauth_2"), opened_at=AT + DAY, opened_date=(AT + DAY).date())
    records.open_breakage(database, SCOPE)
    records.open_breakage(database, SCOPE, first, second)
    records.open_breakage(database, SCOPE, replace(first, opened_at=AT + 5 * DAY))
    assert records.open_breakages(database, SCOPE) == [first, second]
    assert records.open_breakages(database, OTHER_SCOPE) == []
    records.mark_eligible(database, SCOPE, first.key, second.key, at=AT + HOUR)
    records.mark_eligible(database, SCOPE, first.key, at=AT + DAY)
    records.close_breakage(database, SCOPE, first.key, at=AT + 2 * DAY, run_id=RUN_ID, reason="cured")
    records.close_breakage(database, SCOPE, first.key, at=AT + 3 * DAY, run_id="later", reason="replaced")
    shut = replace(first, eligible_at=AT + HOUR, closed_at=AT + 2 * DAY, closed_run_id=RUN_ID, closed_reason="cured")
    waiting = replace(second, eligible_at=AT + HOUR)
    assert records.open_breakages(database, SCOPE) == [waiting]
    assert records.breakages(database, SCOPE) == [shut, waiting]
    assert records.breakages(database, SCOPE, since=(AT + DAY).date()) == [waiting]
    assert records.breakages_of(database, SCOPE, "fcauth_1") == [shut]


def test_numbers_go_on_from_the_highest_of_each_kind(database: Database) -> None:
    numbered = [
        breakage(key=key("fcauth_1", kind, number))
        for kind, number in (("connection", 1), ("connection", 2), ("permissions", 1))
    ]
    records.open_breakage(database, SCOPE, *numbered)
    records.open_breakage(database, OTHER_SCOPE, breakage(key=key("fcauth_1", "connection", 9)))
    assert records.highest_breakage_numbers(database, SCOPE) == {
        ("fcauth_1", "connection"): 2,
        ("fcauth_1", "permissions"): 1,
    }


def test_successors_are_kept_once(database: Database) -> None:
    one = Successor("fca_1", "fca_9", "fcauth_1", "fcauth_9", "id", "req_1")
    two = Successor("fca_2", "fca_8", "fcauth_1", "fcauth_9", "attributes", "req_1")
    records.add_successors(database, SCOPE, RUN_ID, [one], AT)
    records.start_run(database, "later", "run", DATE, AT, settings_hash="", settings={})
    records.add_successors(database, SCOPE, "later", [one, two], AT + DAY)
    records.add_successors(database, SCOPE, "later", [], AT + DAY)
    assert records.successors(database, SCOPE) == [one, two]
    assert records.successors_of_run(database, SCOPE, "later") == [two]
    assert records.successors(database, OTHER_SCOPE) == []


def ledger_row(account_id: str, **values: Any) -> LedgerRow:
    return LedgerRow(
        merchant=values.pop("merchant", "main"), account_id=account_id, account_holder_id="cus_1", **values
    )


def test_loading_a_ledger_replaces_it_and_merging_adds(database: Database) -> None:
    one = ledger_row(
        "fca_1", required_permissions=("balances",), exposure_minor=2**62 + 1, currency="EUR", reference="an 'odd' one"
    )
    two, three = (
        ledger_row("fca_2", required_permissions=None, do_not_contact=True),
        ledger_row("fca_3", merchant="other"),
    )
    assert records.load_ledger(database, [two, one, three]) == (3, 0, 0)
    assert records.load_ledger(database, [one, two, three]) == (0, 0, 0)
    assert records.ledger_rows(database) == [one, two, three]
    assert records.ledger_rows(database, "other") == [three]
    changed, added = replace(two, status="closed"), ledger_row("fca_4")
    assert records.load_ledger(database, [changed, added], merge=True) == (1, 1, 0)
    assert records.ledger_rows(database) == [one, changed, added, three]
    assert records.load_ledger(database, [changed]) == (0, 0, 3)
    assert records.ledger_rows(database) == [changed]


def test_a_load_that_fails_leaves_the_old_ledger(database: Database) -> None:
    records.load_ledger(database, [ledger_row("fca_1")])
    with pytest.raises(DatabaseError):
        records.load_ledger(database, [ledger_row("fca_2"), ledger_row("fca_3", status=None)])
    assert [row.account_id for row in records.ledger_rows(database)] == ["fca_1"]


identifiers = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x2FFF, exclude_categories=["Cs"]), min_size=1, max_size=8
)
ledger_lists = st.lists(
    st.builds(
        LedgerRow,
        merchant=st.sampled_from(["main", "other"]),
        account_id=identifiers,
        account_holder_id=identifiers,
        required_permissions=st.none() | st.lists(st.sampled_from(["balances", "ownership"]), unique=True).map(tuple),
        do_not_contact=st.booleans(),
        exposure_minor=st.none() | st.integers(-(2**63), 2**63 - 1),
        reference=texts,
    ),
    max_size=8,
    unique_by=lambda row: (row.merchant, row.account_id),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=ledger_lists, after=ledger_lists, merge=st.booleans())
def test_a_ledger_is_what_was_loaded_and_the_counts_say_what_changed(
    database: Database, before: list[LedgerRow], after: list[LedgerRow], merge: bool
) -> None:
    records.load_ledger(database, before)
    old = {(row.merchant, row.account_id): row for row in before}
    new = {(row.merchant, row.account_id): row for row in after}
    kept = {**old, **new} if merge else new
    change = records.load_ledger(database, after, merge=merge)
    assert {(row.merchant, row.account_id): row for row in records.ledger_rows(database)} == kept
    changed = sum(old[pair] != row for pair, row in new.items() if pair in old)
    assert change == (len(new.keys() - old.keys()), changed, 0 if merge else len(old.keys() - new.keys()))


def test_times_keep_their_microseconds(database: Database) -> None:
    odd = AT + timedelta(microseconds=1)
    records.append_history(
        database, SCOPE, RUN_ID, frame([{"account_id": "fca_1", "observed_at": odd, "inactive_since": odd}])
    )
    assert records.latest_history(database, SCOPE, AT).empty
    assert records.latest_history(database, SCOPE, odd)["inactive_since"].tolist() == [pd.Timestamp(odd)]
