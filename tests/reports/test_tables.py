"""What the tables say about findings, requests and outcomes."""

from __future__ import annotations

import random
from datetime import timedelta

import pyarrow as pa
import pytest

from reconcile.model import BreakageKey, CoveredAccount, Result, State, Successor
from reports.columns import TABLES
from reports.request_tables import (
    account_successors_table,
    failure_reasons_table,
    relink_outcomes_table,
    relink_requests_table,
)
from reports.tables import accounts_table, authorizations_table, combine
from tests.reports.factories import NIGHT, account, broken, findings, stored, tables


def rows(table: pa.Table) -> list[dict[str, object]]:
    return table.to_pylist()


def test_every_table_of_no_rows_keeps_its_schema() -> None:
    for name, table in tables().items():
        assert table.schema == TABLES[name].schema
        assert table.num_rows == 0


def test_accounts_turn_joined_texts_into_lists() -> None:
    frame = findings(
        account("fca_1", also="expiring;permissions", permissions=None, missing_permissions="balances"),
        account("fca_2", also="", permissions="", missing_permissions=None),
    )
    first, second = rows(accounts_table("main", frame))
    assert (first["also"], first["permissions"], first["missing_permissions"]) == (
        ["expiring", "permissions"],
        None,
        ["balances"],
    )
    assert (second["also"], second["permissions"], second["missing_permissions"]) == ([], [], None)


def test_the_holder_of_an_account_that_stripe_lacks_is_the_ledgers() -> None:
    frame = findings(
        account("fca_1", in_stripe=False, account_holder_id=None, ledger_holder_id="cus_9"),
        account("fca_2", account_holder_id="cus_1", ledger_holder_id="cus_8", finding="holder_mismatch"),
        account("fca_3", account_holder_id=None, ledger_holder_id="cus_7", finding="unreadable"),
    )
    assert [row["account_holder_id"] for row in rows(accounts_table("main", frame))] == ["cus_9", "cus_1", None]


def test_outside_words_are_masked_in_every_table() -> None:
    key = "rk_live_" + "a1B2c3D4e5F6"
    words = f"Bank of ann@example.com {key}"
    frame = findings(broken("fca_1", institution_name=words, reference=words), account("fca_2", reference="loan 2"))
    request = stored(of={"institution_name": words, "references": (words,)}, error_message=words, failure_reason=words)
    for name, table in tables(frame, (request,), (request,)).items():
        text = str(table.to_pylist())
        assert "ann@example.com" not in text, name
        assert key not in text, name
    assert rows(accounts_table("main", frame))[1]["reference"] == "loan 2"


def test_rows_come_in_one_order_whatever_the_order_they_went_in() -> None:
    frame_rows = [broken(f"fca_{number}", authorization_id=f"fcauth_{number % 7}") for number in range(40)]
    requests = [stored(f"req_{number}", of={"institution_name": f"Bank {number % 3}"}) for number in range(40)]
    straight = tables(findings(*frame_rows), tuple(requests), tuple(requests))
    shuffler = random.Random(7)
    shuffler.shuffle(frame_rows)
    shuffler.shuffle(requests)
    shuffled = tables(findings(*frame_rows), tuple(requests), tuple(requests))
    for name, table in straight.items():
        assert table.equals(shuffled[name]), name
        keys = [tuple(row[column] for column in TABLES[name].key) for row in rows(table)]
        assert keys == sorted(keys, key=lambda key: tuple((part is None, part) for part in key)), name


class TestAuthorizations:
    def test_only_those_with_an_affected_account_or_one_to_review(self) -> None:
        frame = findings(
            account("fca_1", authorization_id="fcauth_ok"),
            broken("fca_2", authorization_id="fcauth_broken"),
            account("fca_3", authorization_id="fcauth_review", finding="not_in_ledger", next_step="review"),
            account("fca_4", authorization_id=None, finding="unreadable", next_step="review"),
            account("fca_5", authorization_id="fcauth_gone", finding="disconnected", next_step="not_relinkable"),
        )
        assert [row["authorization_id"] for row in rows(authorizations_table("main", frame, ()))] == [
            "fcauth_broken",
            "fcauth_review",
        ]

    def test_the_finding_is_the_first_among_the_affected_else_among_those_to_review(self) -> None:
        frame = findings(
            account("fca_1", finding="not_in_ledger", next_step="review"),
            broken("fca_2", finding="expiring"),
            broken("fca_3", finding="account_number"),
            account("fca_4", authorization_id="fcauth_2", finding="holder_mismatch", next_step="review"),
            account("fca_5", authorization_id="fcauth_2", finding="not_in_ledger", next_step="review"),
        )
        first, second = rows(authorizations_table("main", frame, ()))
        assert (first["finding"], first["accounts"], first["affected_accounts"]) == ("account_number", 3, 2)
        assert (second["finding"], second["affected_accounts"]) == ("not_in_ledger", 0)

    @pytest.mark.parametrize(
        ("steps", "expected"),
        [
            (("review", "request"), "request"),
            (("ledger_closed", "cooldown", "none"), "cooldown"),
            (("do_not_contact", "ledger_closed"), "ledger_closed"),
            (("none", "reason_off"), "reason_off"),
        ],
    )
    def test_the_step_decided_for_the_authorization_stands_before_those_of_single_accounts(
        self, steps: tuple[str, ...], expected: str
    ) -> None:
        frame = findings(*(broken(f"fca_{number}", next_step=step) for number, step in enumerate(steps)))
        assert rows(authorizations_table("main", frame, ()))[0]["next_step"] == expected

    def test_money_is_that_of_affected_accounts_which_the_ledger_has_open(self) -> None:
        frame = findings(
            broken("fca_1", exposure_minor=100, currency="EUR"),
            broken("fca_2", exposure_minor=-30, currency="EUR"),
            broken("fca_3", exposure_minor=500, currency="EUR", ledger_status="closed"),
            account("fca_4", exposure_minor=900, currency="EUR"),
            broken("fca_5", exposure_minor=7, currency="USD", authorization_id="fcauth_2"),
            broken("fca_6", exposure_minor=8, currency="EUR", authorization_id="fcauth_2"),
            broken("fca_7", authorization_id="fcauth_3"),
        )
        first, second, third = rows(authorizations_table("main", frame, ()))
        assert (first["exposure_minor"], first["currency"], first["exposure_by_currency"]) == (70, "EUR", ["EUR:70"])
        assert (second["exposure_minor"], second["currency"], second["exposure_by_currency"]) == (
            None,
            None,
            ["EUR:8", "USD:7"],
        )
        assert (third["exposure_minor"], third["currency"], third["exposure_by_currency"]) == (None, None, [])

    def test_references_are_those_of_the_accounts_in_question_once_and_sorted(self) -> None:
        frame = findings(
            broken("fca_1", reference="b"),
            broken("fca_2", reference="a"),
            broken("fca_3", reference="b"),
            account("fca_4", reference="healthy"),
        )
        assert rows(authorizations_table("main", frame, ()))[0]["references"] == ["a", "b"]

    def test_a_holder_is_named_only_where_the_accounts_agree(self) -> None:
        frame = findings(
            broken("fca_1"), broken("fca_2", account_holder_id="cus_2"), broken("fca_3", authorization_id="fcauth_2")
        )
        assert [row["account_holder_id"] for row in rows(authorizations_table("main", frame, ()))] == [None, "cus_1"]

    def test_attempts_are_contacts_of_open_breakages_and_the_last_request_is_any(self) -> None:
        old = BreakageKey("fcauth_1", "connection", 1)
        now = BreakageKey("fcauth_1", "connection", 2)
        later = NIGHT + timedelta(days=3)
        requests = (
            stored("req_1", of={"breakage": now}),
            stored("req_2", of={"breakage": now}, state="rejected"),
            stored(
                "req_3",
                of={"breakage": now},
                state="unknown",
                requested_at=None,
                attempting_at=NIGHT + timedelta(days=1),
            ),
            stored("req_4", of={"breakage": now}, state="planned", requested_at=None),
            stored("req_5", of={"breakage": now}, state="not_sent", requested_at=None),
            stored("req_6", of={"breakage": old}, requested_at=later),
        )
        frame = findings(broken("fca_1"))
        (row,) = rows(authorizations_table("main", frame, requests, open_breakages={now}))
        assert (row["attempts"], row["last_request_at"]) == (2, later), "an unknown offer was handed to nobody"
        (row,) = rows(authorizations_table("main", frame, requests))
        assert row["attempts"] == 3


class TestRequests:
    @pytest.mark.parametrize(
        ("state", "result"),
        [
            (State.PLANNED, "not_sent"),
            (State.ATTEMPTING, "unknown"),
            (State.CREATED, "created"),
            (State.REJECTED, "rejected"),
            (State.UNKNOWN, "unknown"),
            (State.NOT_SENT, "not_sent"),
        ],
    )
    def test_each_state_has_its_result(self, state: State, result: str) -> None:
        assert rows(relink_requests_table([stored(state=str(state))]))[0]["result"] == result

    def test_a_dry_run_says_what_it_would_send(self) -> None:
        (row,) = rows(
            relink_requests_table([stored(state="planned", requested_at=None, calls=0)], result=Result.WOULD_REQUEST)
        )
        assert (row["result"], row["requested_at"]) == ("would_request", None)

    def test_lists_keep_their_parts(self) -> None:
        covered = (CoveredAccount("fca_1", "inactive"), CoveredAccount("fca_2", "inactive"))
        request = stored(
            of={"covered": covered, "permissions": ("balances", "ownership"), "references": ("b", "a", "b")}
        )
        (row,) = rows(relink_requests_table([request]))
        assert row["covered_accounts"] == ["fca_1", "fca_2"]
        assert row["permissions"] == ["balances", "ownership"]
        assert row["references"] == ["a", "b"]


class TestOutcomes:
    def test_a_request_without_an_outcome_stands_for_its_state(self) -> None:
        states = {
            "created": "pending",
            "unknown": "unknown",
            "attempting": "unknown",
            "rejected": "rejected",
            "planned": "not_sent",
        }
        table = relink_outcomes_table([stored(f"req_{state}", state=state) for state in states])
        assert {row["request_id"].removeprefix("req_"): row["outcome"] for row in rows(table)} == states  # type: ignore[attr-defined]

    def test_hours_run_from_the_request_and_never_below_zero(self) -> None:
        table = relink_outcomes_table(
            [
                stored("req_1", outcome="relinked", outcome_at=NIGHT + timedelta(hours=30, minutes=15)),
                stored("req_2", outcome="relinked", outcome_at=NIGHT - timedelta(hours=25)),
                stored("req_3"),
            ]
        )
        assert [row["hours_to_outcome"] for row in rows(table)] == [30.25, 0.0, None]

    def test_only_another_authorization_is_a_new_one(self) -> None:
        table = relink_outcomes_table(
            [
                stored("req_1", outcome="relinked", result_authorization_id="fcauth_1"),
                stored("req_2", outcome="new_authorization", result_authorization_id="fcauth_2"),
            ]
        )
        assert [row["new_authorization_id"] for row in rows(table)] == [None, "fcauth_2"]

    def test_money_of_several_currencies_is_not_added(self) -> None:
        table = relink_outcomes_table(
            [
                stored("req_1", of={"exposure_by_currency": {"EUR": 5}}),
                stored("req_2", of={"exposure_by_currency": {"EUR": 5, "USD": 6}}),
                stored("req_3", of={"exposure_by_currency": {}}),
            ]
        )
        assert [(row["exposure_minor"], row["currency"]) for row in rows(table)] == [
            (5, "EUR"),
            (None, None),
            (None, None),
        ]


def test_successors_carry_both_ids() -> None:
    one = Successor("fca_1", "fca_9", "fcauth_1", "fcauth_2", "attributes", "req_1")
    assert rows(account_successors_table("main", [one])) == [
        {
            "merchant": "main",
            "old_account_id": "fca_1",
            "new_account_id": "fca_9",
            "old_authorization_id": "fcauth_1",
            "new_authorization_id": "fcauth_2",
            "matched_by": "attributes",
            "request_id": "req_1",
        }
    ]


class TestFailureReasons:
    def test_shares_are_of_one_institution_and_cause_with_pending_requests(self) -> None:
        requests = [
            stored("req_1", outcome="failed", failure_reason="no_account"),
            stored("req_2", outcome="failed", failure_reason="no_account"),
            stored("req_3", outcome="failed"),
            stored("req_4"),
            stored("req_5", of={"cause": None}, outcome="relinked"),
            stored("req_6", of={"institution_name": None}, outcome="relinked"),
        ]
        table = failure_reasons_table(requests)
        assert [tuple(row.values())[1:] for row in rows(table)] == [
            ("Bank One", "access_expired", "failed", "no_account", 2, 0.5),
            ("Bank One", "access_expired", "failed", None, 1, 0.25),
            ("Bank One", "access_expired", "pending", None, 1, 0.25),
            ("Bank One", None, "relinked", None, 1, 1.0),
            (None, "access_expired", "relinked", None, 1, 1.0),
        ]

    def test_institutions_whose_names_mask_alike_are_one_row(self) -> None:
        requests = [stored(f"req_{name}", of={"institution_name": f"{name}@example.com"}) for name in ("ann", "bob")]
        (row,) = rows(failure_reasons_table(requests))
        assert (row["requests"], row["share"]) == (2, 1.0)


def test_merchants_are_put_together_in_order() -> None:
    frame = findings(account("fca_1"))
    both = combine("accounts", [accounts_table("north", frame), accounts_table("east", frame)])
    assert [row["merchant"] for row in rows(both)] == ["east", "north"]
    assert combine("accounts", []).schema == TABLES["accounts"].schema
