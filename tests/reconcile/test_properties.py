"""What must hold for every small world: nothing is lost, nothing is asked twice, and the order of rows says nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from reconcile.ledger import LedgerRow
from reconcile.model import AFFECTED, BreakageKey, Finding, NextStep, OutcomeKind, Scope, idempotency_key
from reconcile.policy import RelinkPolicy
from reconcile.records import AccountNumber, AccountRecord
from tests.reconcile.nights import FIRST_NIGHT, TOKENIZED, Decided, Memory, account, decide, row, send, stamp

quick = settings(max_examples=12, deadline=None)
AFFECTED_NAMES = {str(one) for one in AFFECTED}
FINDINGS = [str(one) for one in Finding]
PERMISSIONS = ("balances", "ownership", "payment_method", "transactions")

World = tuple[list[AccountRecord], list[LedgerRow]]


@st.composite
def states(draw: st.DrawFn) -> dict[str, Any]:
    """How Stripe describes an account: mostly something that a relink can mend."""
    status = draw(st.sampled_from(["active", "active", "inactive", "inactive", "disconnected", "frozen"]))
    due = draw(st.none() | st.integers(-5, 30))
    numbers = st.builds(
        AccountNumber,
        st.sampled_from([TOKENIZED, "account_number"]),
        st.sampled_from(["transactable", "pending", "expired", "deactivated"]),
        st.none() | st.integers(-5, 40).map(lambda days: FIRST_NIGHT + timedelta(days=days)),
    )
    return {
        "status": status,
        "inactive_action": draw(st.sampled_from(["relink_required", "relink_required", "none", "wait"]))
        if status == "inactive"
        else None,
        "active_action": draw(st.sampled_from([None, None, "none", "relink_required", "verify"]))
        if status == "active"
        else None,
        "expected_deactivation_at": None if due is None else FIRST_NIGHT + timedelta(days=due),
        "permissions": tuple(sorted(draw(st.sets(st.sampled_from(PERMISSIONS))))),
        "account_numbers": tuple(draw(st.lists(numbers, max_size=2))),
    }


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Up to a dozen accounts of up to four customers, each authorization mostly one customer's, and a ledger that mostly agrees."""
    accounts, rows = [], []
    for number in range(draw(st.integers(1, 12))):
        authorization = draw(st.integers(0, 5))
        customer = authorization % 4 if draw(st.integers(0, 9)) else draw(st.integers(0, 3))
        named = draw(st.sampled_from(["both"] * 8 + ["stripe", "ledger"]))
        if named != "ledger":
            accounts.append(
                account(
                    f"fca_{number:02d}",
                    f"fcauth_{authorization}" if draw(st.integers(0, 14)) else None,
                    account_holder_id=f"cus_{customer}",
                    institution_name=f"Bank {authorization % 2}",
                    **draw(states()),
                )
            )
        if named != "stripe":
            rows.append(
                row(
                    f"fca_{number:02d}",
                    f"cus_{customer}" if draw(st.integers(0, 12)) else "cus_9",
                    required_permissions=draw(
                        st.none()
                        | st.sets(st.sampled_from(PERMISSIONS), min_size=1).map(lambda one: tuple(sorted(one)))
                    ),
                    purpose=draw(st.sampled_from(["data", "payments"])),
                    status=draw(st.sampled_from(["open"] * 6 + ["closed"])),
                    do_not_contact=draw(st.integers(0, 14)) == 0,
                    exposure_minor=draw(st.none() | st.integers(0, 3)),
                    currency=draw(st.sampled_from(["eur", "usd"])),
                )
            )
    return accounts, rows


policies = st.builds(
    RelinkPolicy,
    reasons=st.sets(st.sampled_from(sorted(AFFECTED_NAMES)), min_size=1).map(tuple),
    max_requests_per_run=st.integers(0, 4),
    max_requests_per_institution=st.none() | st.integers(0, 2),
    allow_widening=st.booleans(),
)


def sent(decided: Decided) -> list[tuple[Any, ...]]:
    """Requests without the run's own numbering."""
    return [
        (one.breakage, one.attempt, one.account_id, one.holder, one.covered, one.permissions, one.widens, one.reason)
        for one in decided.plan.requests
    ]


@quick
@given(worlds(), policies)
def test_keys_are_conserved_and_each_has_one_finding_in_order_and_one_step(world: World, policy: RelinkPolicy) -> None:
    accounts, rows = world
    decided = decide(accounts, rows, Memory(policy))
    ids = decided.findings["account_id"].tolist()
    assert sorted(ids) == sorted({one.account_id for one in accounts} | {one.account_id for one in rows})
    for finding, also, step in decided.findings[["finding", "also", "next_step"]].itertuples(index=False):
        held = [finding, *(also.split(";") if also else [])]
        places = [FINDINGS.index(name) for name in held]
        assert places == sorted(set(places))
        assert step in list(NextStep)
        assert (finding == "ok") == (step == "none")
        assert finding != "ok" or not also


@quick
@given(worlds(), policies, st.randoms(use_true_random=False))
def test_the_order_of_rows_says_nothing(world: World, policy: RelinkPolicy, random: Any) -> None:
    accounts, rows = world
    straight = decide(accounts, rows, Memory(policy))
    shuffled = decide(random.sample(accounts, len(accounts)), random.sample(rows, len(rows)), Memory(policy))
    pd.testing.assert_frame_equal(straight.findings, shuffled.findings)
    assert straight.plan == shuffled.plan
    assert straight.breakages == shuffled.breakages


@quick
@given(worlds(), policies)
def test_guards_hold(world: World, policy: RelinkPolicy) -> None:
    accounts, rows = world
    decided = decide(accounts, rows, Memory(policy))
    requests = decided.plan.requests
    assert len(requests) <= policy.max_requests_per_run
    assert max(Counter(one.holder for one in requests).values(), default=0) <= 1
    assert max(Counter(one.authorization_id for one in requests).values(), default=0) <= 1
    banks = Counter(one.institution_name for one in requests)
    assert (
        policy.max_requests_per_institution is None
        or max(banks.values(), default=0) <= policy.max_requests_per_institution
    )
    ledger = {one.account_id: one for one in rows}
    silent = {one.account_holder_id for one in rows if one.do_not_contact}
    asked = {one.authorization_id for one in requests}
    at_request = decided.findings["next_step"] == "request"
    assert set(decided.findings.loc[at_request, "authorization_id"]) == asked
    for request in requests:
        assert request.covered
        assert request.holder.id not in silent
        for one in request.covered:
            assert one.finding in AFFECTED_NAMES
            assert ledger[one.account_id].status == "open"
            assert ledger[one.account_id].account_holder_id == request.holder.id
            assert set(one.required_permissions) <= set(request.permissions)
            assert decided.cell(one.account_id, "authorization_id") == request.authorization_id
        assert decided.findings.loc[at_request, "finding"].isin(policy.reasons).all()


@quick
@given(worlds(), policies, st.sampled_from([OutcomeKind.PENDING, OutcomeKind.FAILED, None]))
def test_planning_again_after_sending_plans_none_of_it_again(world: World, policy: RelinkPolicy, outcome: Any) -> None:
    accounts, rows = world
    memory = Memory(replace(policy, max_requests_per_run=1000, max_requests_per_institution=None))
    first = decide(accounts, rows, memory)
    send(memory, first.plan.requests, stamp(), outcome=None if outcome is None else str(outcome))
    again = decide(accounts, rows, memory)
    assert again.plan.requests == ()
    assert again.breakages.opened == ()
    steps = set(again.findings.loc[again.findings["authorization_id"].isin(first.asked), "next_step"])
    assert "request" not in steps


@quick
@given(worlds())
def test_the_whole_is_the_union_of_its_customers(world: World) -> None:
    """Every id belongs to one part: an authorization that names several customers keeps them together, as does a ledger row."""
    accounts, rows = world
    parts = _parts(accounts, rows)
    whole = decide(accounts, rows)
    steps: dict[str, str] = {}
    made: list[tuple[Any, ...]] = []
    for part_accounts, part_rows in parts:
        part = decide(part_accounts, part_rows)
        assert not steps.keys() & part.steps().keys()
        steps |= part.steps()
        made += sent(part)
    assert steps == whole.steps()
    assert sorted(made, key=str) == sorted(sent(whole), key=str)


def _parts(accounts: list[AccountRecord], rows: list[LedgerRow]) -> list[World]:
    groups: list[set[str]] = []
    for one in accounts:
        groups.append({one.account_id, f"holder {one.account_holder_id}", f"authorization {one.authorization_id}"})
    groups += [{one.account_id, f"holder {one.account_holder_id}"} for one in rows]
    merged: list[set[str]] = []
    for group in groups:
        joined = [other for other in merged if other & group]
        merged = [other for other in merged if not other & group] + [group.union(*joined)]
    return [
        ([one for one in accounts if one.account_id in group], [one for one in rows if one.account_id in group])
        for group in merged
    ]


texts = st.text(st.sampled_from("a:1\x1f"), max_size=4)
identities = st.tuples(texts, texts, texts, texts, st.integers(1, 12), st.integers(1, 12))


@settings(max_examples=300, deadline=None)
@given(identities, identities)
def test_idempotency_key_is_one_for_each_identity(left: Any, right: Any) -> None:
    def key(identity: Any) -> str:
        merchant, mode, authorization, kind, breakage, attempt = identity
        return idempotency_key(Scope(merchant, mode), BreakageKey(authorization, kind, breakage), attempt)

    assert (key(left) == key(right)) == (left == right)
    assert len(key(left)) <= 255


@quick
@given(worlds())
def test_idempotency_key_knows_nothing_of_the_parameters(world: World) -> None:
    accounts, rows = world
    richer = [replace(one, required_permissions=PERMISSIONS, purpose="data", exposure_minor=None) for one in rows]
    policy = RelinkPolicy(return_url="https://shop.example/back", narrow_to_subcategories=True, delivery="hosted_email")
    plain = {one.breakage: one.idempotency_key for one in decide(accounts, rows).plan.requests}
    other = {one.breakage: one.idempotency_key for one in decide(accounts, richer, Memory(policy)).plan.requests}
    assert {name: plain[name] for name in plain.keys() & other.keys()} == {
        name: other[name] for name in plain.keys() & other.keys()
    }


night_states = st.sampled_from(
    ["well", "inactive", "expiring", "permanent", "disconnected", "misfiled", "odd", "vanished"]
)
answers = st.sampled_from(
    [None, *(str(one) for one in (OutcomeKind.FAILED, OutcomeKind.CANCELLED, OutcomeKind.EXPIRED))]
)


def _as(state: str, account_id: str) -> AccountRecord | None:
    fields: dict[str, dict[str, Any]] = {
        "well": {},
        "inactive": {"status": "inactive", "inactive_action": "relink_required"},
        "expiring": {"active_action": "relink_required"},
        "permanent": {"status": "inactive", "inactive_action": "none"},
        "disconnected": {"status": "disconnected"},
        "misfiled": {"status": "inactive", "inactive_action": "relink_required", "account_holder_id": "cus_2"},
        "odd": {"status": "inactive", "inactive_action": "wait"},
    }
    return account(account_id, **fields[state]) if state in fields else None


@settings(max_examples=12, deadline=None)
@given(
    st.lists(st.tuples(night_states, night_states, answers, st.integers(1, 4)), min_size=2, max_size=8),
    st.integers(1, 3),
    st.integers(2, 4),
)
def test_over_many_nights_no_outage_is_asked_about_too_often(
    nights: list[tuple[str, str, str | None, int]], max_attempts: int, cooldown_days: int
) -> None:
    memory = Memory(RelinkPolicy(max_attempts=max_attempts, cooldown_days=cooldown_days))
    day, numbers, since = 0, {}, {}
    for first, second, answer, later in nights:
        accounts = [one for one in (_as(first, "fca_1"), _as(second, "fca_2")) if one is not None]
        run = stamp(day)
        decided = decide(accounts, [row("fca_1"), row("fca_2")], memory, run)
        for opened in decided.breakages.opened:
            pair = (opened.key.authorization_id, opened.key.kind)
            assert opened.key.number == numbers.get(pair, 0) + 1
            numbers[pair] = opened.key.number
        assert len({(one.key.authorization_id, one.key.kind) for one in decided.breakages.open}) == len(
            decided.breakages.open
        )
        for one in accounts:
            at = decided.cell(one.account_id, "inactive_since")
            assert (at is None) == (one.status != "inactive")
            if at is not None:
                assert at <= run.as_of
                assert at == since.setdefault(one.account_id, at)
            else:
                since.pop(one.account_id, None)
        send(memory, decided.plan.requests, run, outcome=answer)
        day += later
    keys = [one.request.idempotency_key for one in memory.requests]
    assert len(set(keys)) == len(keys)
    assert max(Counter(one.request.breakage for one in memory.requests).values(), default=0) <= max_attempts
    days = [one.business_date for one in memory.requests]
    assert all((after - before).days >= cooldown_days for before, after in pairwise(days))


zones = st.sampled_from(
    [
        "UTC",
        "America/New_York",
        "Europe/Berlin",
        "Australia/Lord_Howe",
        "Pacific/Apia",
        "America/St_Johns",
        "Asia/Kathmandu",
    ]
)
moments = st.datetimes(datetime(2026, 1, 1), datetime(2028, 1, 1)).map(lambda at: at.replace(tzinfo=UTC, microsecond=0))


@quick
@given(zones, moments, st.lists(st.integers(-40 * 24 * 60, 40 * 24 * 60), min_size=1, max_size=6))
def test_business_dates_are_those_of_the_zone(zone: str, at: datetime, minutes: list[int]) -> None:
    run = stamp(timezone=zone, at=at)
    dues = {f"fca_{n}": at + timedelta(minutes=offset) for n, offset in enumerate(minutes)}
    accounts = [
        account(name, active_action="relink_required", expected_deactivation_at=due) for name, due in dues.items()
    ]
    decided = decide(accounts, [row(name) for name in dues], run=run)
    for name, due in dues.items():
        local = due.astimezone(ZoneInfo(zone)).date()
        days = (local - at.astimezone(ZoneInfo(zone)).date()).days
        assert decided.cell(name, "expected_deactivation_date") == local
        assert decided.cell(name, "days_to_deactivation") == days
        assert (decided.cell(name, "finding") == "expiring") == (days <= 14)
