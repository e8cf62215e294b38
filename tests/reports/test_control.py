"""Control totals tie on a sound night, and each fails when its own side loses a row."""

from __future__ import annotations

from dataclasses import asdict, replace

import pyarrow as pa
import pytest

from reports.control import ControlInputs, control_totals, exposure_totals
from reports.tables import combine
from tests.reports.factories import NIGHT_INPUTS, account, broken, findings, night, stored, tables


def untied(night_tables: dict[str, pa.Table], inputs: ControlInputs = NIGHT_INPUTS) -> set[str]:
    return {
        total.name.removeprefix("main: ") for total in control_totals(night_tables, {"main": inputs}) if not total.ties
    }


def test_a_sound_night_ties_in_every_total() -> None:
    totals = control_totals(night(), {"main": NIGHT_INPUTS})
    assert [total.name for total in totals if not total.ties] == []
    assert len(totals) == 18
    assert len({total.name for total in totals}) == 18


@pytest.mark.parametrize(
    ("name", "row", "expected"),
    [
        ("accounts", 0, "EUR at stake on accounts = on authorizations"),
        ("accounts", 0, "affected accounts = affected accounts of all authorizations"),
        ("accounts", 3, "accounts rows = Stripe ids + ledger ids - ids in both"),
        ("accounts", 3, "accounts rows with a ledger status = ledger rows read"),
        ("accounts", 2, "accounts rows with a Stripe status = accounts pulled"),
        ("authorizations", 0, "authorizations to request = requests in the plan"),
        ("authorizations", 0, "EUR at stake on accounts = on authorizations"),
        ("relink_requests", 0, "requests in the plan = relink_requests rows"),
        ("relink_requests", 0, "relink_requests rows that were sent = idempotency keys sent"),
        ("relink_requests", 0, "relink_requests rows created = sessions in the records"),
        ("relink_requests", 0, "open before + created = answered + open after"),
        ("relink_outcomes", 0, "relink_outcomes rows still pending = sessions open after"),
        ("relink_outcomes", 0, "relink_outcomes rows = requests changed or still open in the records"),
        ("authorizations", 1, "authorizations of accounts affected or to review = authorizations rows"),
        ("account_successors", 0, "account_successors rows = successors in the records"),
        ("failure_reasons", 0, "failure_reasons requests = requests of 30 business dates in the records"),
    ],
)
def test_a_dropped_row_shows(name: str, row: int, expected: str) -> None:
    cut = night()
    kept = [number for number in range(cut[name].num_rows) if number != row]
    cut[name] = cut[name].take(pa.array(kept, pa.int64()))
    assert expected in untied(cut)


@pytest.mark.parametrize("field", [name for name, value in asdict(NIGHT_INPUTS).items() if value is not None])
def test_each_number_from_outside_is_compared_with_something(field: str) -> None:
    wrong = replace(NIGHT_INPUTS, **{field: getattr(NIGHT_INPUTS, field) + 1})
    assert untied(night(), wrong)


@pytest.mark.parametrize(
    ("name", "column", "expected"),
    [
        ("accounts", "finding", "findings = accounts rows"),
        ("accounts", "next_step", "next steps = accounts rows"),
        ("relink_requests", "result", "results = relink_requests rows"),
    ],
)
def test_a_value_outside_its_closed_list_shows(name: str, column: str, expected: str) -> None:
    for odd in ("surprise", None):
        changed = night()
        table = changed[name]
        cells = [odd, *table[column].to_pylist()[1:]]
        changed[name] = table.set_column(
            table.schema.get_field_index(column), table.schema.field(column), pa.array(cells, pa.string())
        )
        assert expected in untied(changed)


def test_numbers_that_a_command_does_not_have_leave_their_totals_out() -> None:
    names = {total.name for total in control_totals(night(), {"main": ControlInputs()})}
    assert names == {
        "main: findings = accounts rows",
        "main: next steps = accounts rows",
        "main: authorizations of accounts affected or to review = authorizations rows",
        "main: affected accounts = affected accounts of all authorizations",
        "main: EUR at stake on accounts = on authorizations",
        "main: results = relink_requests rows",
    }


def test_one_merchants_surplus_does_not_hide_anothers_lack() -> None:
    first, second = night(), night()
    for name, table in second.items():
        second[name] = table.set_column(
            0, table.schema.field(0), pa.repeat(pa.scalar("other", pa.string()), table.num_rows)
        )
    both = {name: combine(name, [first[name], second[name]]) for name in first}
    inputs = {"main": NIGHT_INPUTS, "other": NIGHT_INPUTS}
    assert all(total.ties for total in control_totals(both, inputs))
    shifted = {
        "main": replace(NIGHT_INPUTS, accounts_pulled=4, ids_in_both=3),
        "other": replace(NIGHT_INPUTS, accounts_pulled=2, ids_in_both=1),
    }
    assert {total.name.split(":")[0] for total in control_totals(both, shifted) if not total.ties} == {"main", "other"}


def test_money_at_stake_leaves_out_what_is_healthy_closed_or_without_amount() -> None:
    accounts = tables(
        findings(
            broken("fca_1", exposure_minor=5, currency="EUR"),
            broken("fca_2", exposure_minor=7, currency="USD"),
            broken("fca_3", exposure_minor=11, currency="EUR", ledger_status="closed"),
            account("fca_4", exposure_minor=13, currency="EUR"),
            broken("fca_5"),
            broken("fca_6", exposure_minor=17, currency="EUR"),
        )
    )["accounts"]
    assert exposure_totals(accounts) == {"EUR": 22, "USD": 7}


def test_inputs_survive_their_way_through_json() -> None:
    assert ControlInputs.from_json({**NIGHT_INPUTS.as_json(), "of_a_later_version": 3}) == NIGHT_INPUTS


def test_a_request_that_never_left_is_no_key_sent() -> None:
    requests = (stored("req_1"), stored("req_2", state="not_sent", calls=0, requested_at=None, session_id=None))
    totals = {
        total.name: total
        for total in control_totals(
            tables(requests=requests), {"main": ControlInputs(keys_posted=1, sessions_recorded=1)}
        )
    }
    assert totals["main: relink_requests rows that were sent = idempotency keys sent"].left == 1
    assert totals["main: relink_requests rows created = sessions in the records"].ties
