"""The summary counts what the tables hold and claims nothing for a run that stopped."""

from __future__ import annotations

import json

from reconcile.model import Finding, NextStep, OutcomeKind, Result
from reports.control import control_totals
from reports.summary import ApiCalls, MerchantRun, build_summary
from tests.reports.factories import NIGHT_INPUTS, broken, facts, findings, night, stored, tables


def test_every_closed_value_is_counted_zero_included() -> None:
    counts = build_summary(facts(), night())["counts"]
    assert isinstance(counts, dict)
    assert set(counts["finding"]) == set(Finding)
    assert set(counts["next_step"]) == set(NextStep)
    assert set(counts["outcome"]) == set(OutcomeKind)
    assert set(counts["result"]) == set(Result)
    assert {name: number for name, number in counts["finding"].items() if number} == {
        "inactive": 1,
        "ok": 1,
        "not_in_ledger": 1,
        "not_in_stripe": 1,
    }
    assert counts["reason"] == {"inactive": 1, "account_number": 0, "expiring": 0, "permissions": 0}


def test_the_funnel_narrows_from_accounts_to_cures() -> None:
    requests = (
        stored("req_1", outcome="relinked"),
        stored("req_2", outcome="new_authorization"),
        stored("req_3", outcome="failed", failure_reason="no_account"),
        stored("req_4", outcome="expired"),
        stored("req_5"),
        stored("req_6", state="rejected"),
        stored("req_7", state="unknown"),
    )
    frame = findings(broken("fca_1"), broken("fca_2"), broken("fca_3", authorization_id="fcauth_2"))
    funnel = build_summary(facts(), tables(frame, requests))["funnel"]
    assert funnel == {
        "tonight": {
            "accounts": 3,
            "accounts_in_both": 3,
            "affected_accounts": 3,
            "affected_authorizations": 2,
            "requests": 7,
            "created": 5,
        },
        "thirty_days": {"requests": 7, "asked": 5, "answered": 3, "cured": 2},
    }


def test_money_is_apart_by_currency() -> None:
    frame = findings(
        broken("fca_1", exposure_minor=3, currency="USD"),
        broken("fca_2", exposure_minor=4, currency="EUR"),
    )
    assert build_summary(facts(), tables(frame))["money_at_stake_minor"] == {"EUR": 4, "USD": 3}


def test_a_stopped_run_says_why_and_counts_nothing() -> None:
    summary = build_summary(
        facts(complete=False, why="the ledger at postgresql://ann:pw@db/ledger is away", sent=3), None
    )
    assert (summary["complete"], summary["sent"], summary["control"]) == (False, 3, [])
    assert (summary["counts"], summary["funnel"], summary["money_at_stake_minor"]) == (None, None, None)
    assert "ledger" in str(summary["why"])
    assert "ann:pw" not in str(summary["why"])


def test_keys_are_the_same_whether_or_not_a_run_stopped() -> None:
    stopped = build_summary(facts(complete=False, why="stopped"), None)
    finished = build_summary(facts(), night(), control_totals(night(), {"main": NIGHT_INPUTS}))
    assert list(stopped) == list(finished)


def test_it_is_plain_json() -> None:
    run = facts(
        merchants=[
            MerchantRun("north", "live", "snap_2", held=True),
            MerchantRun("east", "live", None, complete=False, why="away"),
        ],
        api_calls=ApiCalls({"pull": 20, "collect": 3}, writes=4, retries=2, rate_limited=1),
        durations_seconds={"relink": 2.00049, "pull": 1.0},
    )
    summary = json.loads(json.dumps(build_summary(run, night(), control_totals(night(), {"main": NIGHT_INPUTS}))))
    assert [one["merchant"] for one in summary["merchants"]] == ["east", "north"]
    assert summary["merchants"][0]["counts"] is None
    assert sum(summary["merchants"][1]["counts"]["finding"].values()) == 0
    assert summary["api_calls"] == {
        "reads": {"collect": 3, "pull": 20},
        "writes": 4,
        "refreshes": 0,
        "retries": 2,
        "rate_limited": 1,
    }
    assert summary["durations_seconds"] == {"pull": 1.0, "relink": 2.0}
    assert summary["run_date"] == "2026-11-22"
    assert summary["control"][0] == {
        "name": "main: accounts rows = Stripe ids + ledger ids - ids in both",
        "left": 4,
        "right": 4,
        "ties": True,
    }
