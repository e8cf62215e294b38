"""Accounts of a report that agree in customer, institution, last digits and subcategory under more than one login."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from reconcile.model import NextStep
from reports.closed_lists import AFFECTED_FINDINGS

ALIKE_IN = ("merchant", "account_holder_id", "institution_name", "last4", "subcategory")


def twin_groups(accounts: pa.Table) -> list[list[dict[str, Any]]]:
    """The groups, each with its rows by account id, in order of their first ids."""
    whole = pc.is_valid(accounts["stripe_status"])
    for name in ALIKE_IN:
        whole = pc.and_(whole, pc.fill_null(pc.not_equal(accounts[name], ""), False))
    # Most customers have one login. Theirs are left out first, by two columns: with all of them it takes ten times as long, and a copy of the table.
    logins = accounts.select(["account_holder_id", "authorization_id"]).filter(whole)
    logins_of = logins.group_by("account_holder_id").aggregate([("authorization_id", "count_distinct")])
    customers = logins_of.filter(pc.greater(logins_of["authorization_id_count_distinct"], 1))["account_holder_id"]
    if not len(customers):
        return []
    known = accounts.filter(pc.and_(whole, pc.is_in(accounts["account_holder_id"], value_set=customers)))
    keys = known.select([*ALIKE_IN, "authorization_id", "account_id"])
    counted = keys.group_by(list(ALIKE_IN)).aggregate([("authorization_id", "count_distinct"), ("account_id", "list")])
    several = counted.filter(pc.greater(counted["authorization_id_count_distinct"], 1))
    if not several.num_rows:
        return []
    rows = known.filter(pc.is_in(known["account_id"], pc.list_flatten(several["account_id_list"]))).to_pylist()
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: (row["merchant"], row["account_id"])):
        groups.setdefault(tuple(row[name] for name in ALIKE_IN), []).append(row)
    return [group for group in groups.values() if len({row["authorization_id"] for row in group} - {None}) > 1]


def count_twins(tables: Mapping[str, pa.Table]) -> dict[str, int]:
    """How many groups and accounts of them there are, how many are replaced by a twin, and how many wait for a person instead of being asked about."""
    groups = twin_groups(tables["accounts"])
    rows = [row for group in groups for row in group]
    successors = tables["account_successors"]
    proven = successors.filter(pc.equal(successors["matched_by"], "twin")).select(["merchant", "old_account_id"])
    old = {(row["merchant"], row["old_account_id"]) for row in proven.to_pylist()}
    return {
        "groups": len(groups),
        "accounts": len(rows),
        "replaced": sum(
            row["next_step"] == NextStep.REPLACED and (row["merchant"], row["account_id"]) in old for row in rows
        ),
        "in_review": sum(is_in_review(row) for row in rows),
    }


def is_in_review(row: Mapping[str, Any]) -> bool:
    """Whether a relink could mend it and a person has to say first whether it should be asked about."""
    return row["next_step"] == NextStep.REVIEW and row["finding"] in AFFECTED_FINDINGS
