"""Decide tonight's requests: one next step for every account, and a reason for everything that is not done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from itertools import groupby
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from reconcile.classify import Flags, flags
from reconcile.contacts import Contacts
from reconcile.delivery import DELIVERY_METHODS, UNAVAILABLE_LIMIT, delivery_of, hosted_too_soon
from reconcile.frames import FINDINGS, arrow_series, check, values_of
from reconcile.ladder import contact_gap_days, most_attempts, step_due
from reconcile.model import (
    KIND_OF_FINDING,
    AuthorizationDecision,
    Breakage,
    BreakageKey,
    Finding,
    Holder,
    NextStep,
    Plan,
    RelinkRequest,
    RunStamp,
    Scope,
)
from reconcile.policy import RelinkPolicy
from reconcile.quiet import Bank
from reconcile.request import (
    AFFECTED_NAMES,
    REQUEST_COLUMNS,
    Row,
    covered_accounts,
    covered_at_once,
    describe_covered,
    due_date,
    exposure_by_currency,
    plain_rows,
    requested_permissions,
    single_account,
    subcategory_filter,
    widens,
)

Steps = NDArray[np.object_]
Decided = dict[str, tuple[NextStep, str]]

_ROWS_AT_ONCE = 10_000
"""So many rows at a time become Python values, which take ten times the memory of columns."""

_TWIN = "it may be the same account as another"


@dataclass(frozen=True, slots=True)
class PlanInputs:
    """Everything besides the findings that a decision rests on.

    `successors` maps an old account id to its new, other one; `unmatched_accounts` were covered by a request that ended under a new
    authorization and have no proven successor; `held_authorizations` are stopped by a brake; `only_authorizations` narrows the
    plan to what a person asked for. `suppressed_ids` are holders and accounts that a list of the merchant's forbids to contact;
    `quiet` says why nobody is contacted at this time, None where people are; `quiet_until` until when some customers are left
    alone about a bank; `eligible_dates` since when each breakage could be asked about. `twins_in_review` are accounts that may be the same as
    another, with the reason.
    """

    scope: Scope
    stamp: RunStamp
    policy: RelinkPolicy
    breakages: Sequence[Breakage]
    contacts: Contacts
    successors: Mapping[str, str] = field(default_factory=dict)
    unmatched_accounts: Collection[str] = ()
    held_authorizations: Collection[str] = ()
    only_authorizations: frozenset[str] | None = None
    ignore_cooldown: bool = False
    suppressed_ids: Collection[str] = frozenset()
    quiet: str | None = None
    quiet_until: Mapping[Bank, date] = field(default_factory=dict)
    eligible_dates: Mapping[BreakageKey, date] = field(default_factory=dict)
    twins_in_review: Mapping[str, str] = field(default_factory=dict)
    breakage_of: Mapping[tuple[str, str], BreakageKey] = field(init=False, repr=False, compare=False)
    """The open breakage of an authorization and a kind, worked out once for all parts of a world."""

    def __post_init__(self) -> None:
        by_pair = {(one.key.authorization_id, one.key.kind): one.key for one in self.breakages}
        object.__setattr__(self, "breakage_of", by_pair)


@dataclass(frozen=True, slots=True)
class Candidate:
    """An authorization that could be asked about; `rows` are all its accounts in Stripe, `covered` those to be cured.

    Both are empty while turns are given out: that rests on who is waiting and how urgent it is, and most are not asked tonight.
    """

    authorization_id: str
    rows: Sequence[Row]
    covered: Sequence[Row]
    holder: Holder
    breakage: BreakageKey
    reason: str
    cause: str | None
    institution_name: str | None
    due_date: date | None
    exposure: Mapping[str, int]
    delivery: str

    def urgency(self) -> tuple[date, bool, str, int, str]:
        """Earliest due first, then by currency code with the most money at stake, then by id."""
        currency = min(self.exposure, default="")
        return (
            self.due_date or date.max,
            not currency,
            currency,
            -self.exposure.get(currency, 0),
            self.authorization_id,
        )


@dataclass(frozen=True, slots=True)
class Crossing:
    """What a customer's accounts decide about accounts elsewhere: customers whom the ledger silences, and successors that it names."""

    silent_holders: frozenset[str] = frozenset()
    named_successors: frozenset[str] = frozenset()

    def __or__(self, other: Crossing) -> Crossing:
        return Crossing(self.silent_holders | other.silent_holders, self.named_successors | other.named_successors)


@dataclass(frozen=True, slots=True)
class Survey:
    """What can be said before anything is given out: steps of accounts, and who could be asked about, in no order.

    `steps` are empty where the account's authorization is to decide; `decided` are authorizations that a standing fact rules out.
    """

    steps: Steps
    details: Steps
    candidates: Sequence[Candidate]
    decided: Decided


class Turn(NamedTuple):
    """What is given out to an authorization; requests are numbered from 1 in sending order, held ones by themselves."""

    step: NextStep
    detail: str
    number: int


def plan(findings: pd.DataFrame, inputs: PlanInputs) -> tuple[pd.DataFrame, Plan]:
    """Return the findings with their next steps, and the plan of requests in sending order.

    Args:
        findings: `frames.FINDINGS`; not changed.

    No two requests share an authorization or a customer.
    """
    check(findings, FINDINGS, "findings")
    found = survey(findings, inputs, crossing(findings, inputs.successors))
    return settle_plan(findings, found, give_out(found.candidates, inputs), inputs)


def crossing(findings: pd.DataFrame, successors: Mapping[str, str]) -> Crossing:
    """What these accounts decide about others."""
    silent = findings.loc[flags(findings["do_not_contact"]), "ledger_holder_id"].dropna()
    named = flags(findings["in_ledger"]) & flags(findings["account_id"].isin(set(successors.values())))
    return Crossing(frozenset(silent), frozenset(findings.loc[named, "account_id"]))


def survey(findings: pd.DataFrame, inputs: PlanInputs, across: Crossing) -> Survey:
    """Decide what does not depend on who else is asked; every account of an authorization must be there."""
    steps, details = _account_steps(findings, inputs, across)
    candidates, decided = _candidates(findings, steps == "", inputs, with_rows=False)
    return Survey(steps, details, candidates, decided)


def give_out(candidates: Iterable[Candidate], inputs: PlanInputs) -> dict[str, Turn]:
    """Give tonight's requests out among all candidates, by authorization id."""
    turns: dict[str, Turn] = {}
    numbers: Counter[NextStep] = Counter()
    for candidate, step, detail in _spend(sorted(candidates, key=Candidate.urgency), inputs):
        numbers[step] += 1
        turns[candidate.authorization_id] = Turn(step, detail, numbers[step])
    return turns


def settle_plan(
    findings: pd.DataFrame, found: Survey, turns: Mapping[str, Turn], inputs: PlanInputs
) -> tuple[pd.DataFrame, Plan]:
    """Return surveyed findings with their next steps, and the part of the plan that is about them."""
    steps, details = found.steps.copy(), found.details.copy()
    decided: Decided = dict(found.decided)
    chosen: dict[NextStep, list[tuple[int, Candidate]]] = {NextStep.REQUEST: [], NextStep.HELD_BY_BRAKE: []}
    for candidate in found.candidates:
        step, detail, _ = turns[candidate.authorization_id]
        decided[candidate.authorization_id] = (step, detail)
    for candidate in _with_rows(
        findings, steps == "", [one for one, (step, _) in decided.items() if step in chosen], inputs
    ):
        step, _, number = turns[candidate.authorization_id]
        chosen[step].append((number, candidate))
    requests, held = (
        [_request(candidate, inputs, number) for number, candidate in sorted(chosen[step], key=lambda one: one[0])]
        for step in (NextStep.REQUEST, NextStep.HELD_BY_BRAKE)
    )
    waiting = np.flatnonzero(steps == "")
    for position, name in zip(waiting.tolist(), values_of(findings["authorization_id"].iloc[waiting]), strict=True):
        steps[position], details[position] = decided[name]
    planned = findings.copy(deep=False)
    planned["next_step"] = arrow_series([str(step) for step in steps], FINDINGS["next_step"], planned.index)
    return check(planned, FINDINGS, "planned findings"), Plan(
        tuple(requests), _decisions(findings, steps, details, decided), tuple(held), inputs.twins_in_review
    )


def _with_rows(
    findings: pd.DataFrame, undecided: Flags, authorizations: Collection[str], inputs: PlanInputs
) -> Sequence[Candidate]:
    """The candidates of some authorizations with their rows."""
    if not authorizations:
        return ()
    theirs = flags(findings["authorization_id"].isin(list(authorizations)))
    candidates, _ = _candidates(findings.loc[theirs], undecided[theirs], inputs, with_rows=True)
    return candidates


def _account_steps(findings: pd.DataFrame, inputs: PlanInputs, across: Crossing) -> tuple[Steps, Steps]:
    """The next step that an account's own facts decide, empty where its authorization is to decide; and why it needs review."""
    finding, authorization = findings["finding"], findings["authorization_id"]
    affected = flags(finding.isin(AFFECTED_NAMES))
    reviews = {
        "the accounts of the authorization disagree on the holder": authorization.isin(
            _disputed_authorizations(findings)
        ),
        "whether Stripe made an earlier request cannot be known": authorization.isin(
            inputs.contacts.unknown_authorizations
        ),
        "the cause is set to be reviewed": findings["cause"].isin(inputs.policy.causes_to_review),
        "what the customer linked could not be matched": findings["account_id"].isin(set(inputs.unmatched_accounts)),
        _TWIN: findings["account_id"].isin(set(inputs.twins_in_review)),
    }
    concerns = {detail: flags(where) for detail, where in reviews.items()}
    conditions: list[tuple[Flags, NextStep]] = [
        (flags(finding == str(Finding.OK)), NextStep.NONE),
        (flags(findings["ledger_status"] == "closed"), NextStep.LEDGER_CLOSED),
        (_replaced(findings, inputs.successors, across), NextStep.REPLACED),
        (
            flags(finding.isin([Finding.DISCONNECTED, Finding.INACTIVE_PERMANENT, Finding.NOT_IN_STRIPE])),
            NextStep.NOT_RELINKABLE,
        ),
        (flags(finding.isin([Finding.UNREADABLE, Finding.NOT_IN_LEDGER, Finding.HOLDER_MISMATCH])), NextStep.REVIEW),
        (_silenced(findings, across, inputs.suppressed_ids), NextStep.DO_NOT_CONTACT),
        (np.logical_or.reduce(list(concerns.values())), NextStep.REVIEW),
        (affected & ~flags(finding.isin(inputs.policy.reasons)), NextStep.REASON_OFF),
    ]
    steps = _first_that_holds([(where, str(step)) for where, step in conditions], len(findings))
    details = _first_that_holds([(where, detail) for detail, where in concerns.items()], len(findings))
    twins = np.flatnonzero(details == _TWIN)
    for position, account_id in zip(twins.tolist(), values_of(findings["account_id"].iloc[twins]), strict=True):
        details[position] = inputs.twins_in_review[account_id]
    return steps, details


def _first_that_holds(conditions: Sequence[tuple[Flags, str]], rows: int) -> Steps:
    """For each row the word of its first condition, empty where none holds; every row's is the same object, not a text of its own."""
    words = np.full(rows, "", dtype=object)
    for where, word in reversed(conditions):
        words[where] = word
    return words


def _replaced(findings: pd.DataFrame, successors: Mapping[str, str], across: Crossing) -> Flags:
    """Accounts with a successor under another id.

    Once the ledger names the successor, an old row that is still open stays `replaced`: that customer has just relinked, and
    asking again about the dead account would be a second contact for the same outage.
    """
    if not successors:
        return np.zeros(len(findings), dtype=bool)
    successor = findings["account_id"].map(dict(successors)).astype(object)
    in_ledger = flags(findings["in_ledger"])
    moved = flags(successor.notna()) & flags(successor != findings["account_id"].astype(object))
    return moved & (in_ledger | ~flags(successor.isin(across.named_successors)))


def _silenced(findings: pd.DataFrame, across: Crossing, suppressed_ids: Collection[str]) -> Flags:
    """Every account of a holder that the ledger marks `do_not_contact` anywhere or a list suppresses, and every suppressed account."""
    silent = across.silent_holders | set(suppressed_ids)
    names = ("account_holder_id", "ledger_holder_id", "account_id")
    return flags(findings[list(names)].isin(silent).any(axis=1))


def _disputed_authorizations(findings: pd.DataFrame) -> set[str]:
    """Authorizations whose accounts in Stripe name more than one holder, or a holder and none."""
    listed = flags(findings["in_stripe"]) & flags(findings["authorization_id"].notna())
    rows = findings.loc[listed, ["authorization_id", "holder_type", "account_holder_id"]]
    table = pa.Table.from_pandas(rows, preserve_index=False)
    holder = pc.binary_join_element_wise(
        *(pc.fill_null(table[name], "") for name in ("holder_type", "account_holder_id")), "\x1f"
    )
    ends = table.select(["authorization_id"]).append_column("holder", holder).group_by("authorization_id")
    found = ends.aggregate([("holder", "min"), ("holder", "max")])
    disputed = found.filter(pc.not_equal(found["holder_min"], found["holder_max"]))
    return set(disputed["authorization_id"].to_pylist())


def _by_authorization(findings: pd.DataFrame, wanted: Flags) -> Iterator[tuple[str, list[Row]]]:
    """All Stripe accounts of each authorization that has a wanted account, by authorization id."""
    chosen = findings["authorization_id"].isin(findings.loc[wanted, "authorization_id"].dropna().unique())
    sorted_rows = findings.loc[flags(chosen), list(REQUEST_COLUMNS)].sort_values(["authorization_id", "account_id"])
    for start, end in _runs(sorted_rows["authorization_id"]):
        rows = plain_rows(sorted_rows.iloc[start:end])
        for name, group in groupby(rows, key=lambda row: str(row["authorization_id"])):
            yield name, list(group)


def _runs(names: pd.Series) -> Iterator[tuple[int, int]]:
    """Bounds of stretches of a sorted column, each some thousand rows long and ending where the name changes."""
    codes, _ = pd.factorize(names)
    bounds = np.append(np.flatnonzero(np.diff(codes)) + 1, len(codes)).tolist()
    start = 0
    for end in bounds:
        if end - start >= _ROWS_AT_ONCE or end == len(codes):
            if end > start:
                yield start, end
            start = end


def _candidates(
    findings: pd.DataFrame, undecided: Flags, inputs: PlanInputs, *, with_rows: bool
) -> tuple[list[Candidate], Decided]:
    """Authorizations that no standing fact rules out, by id; and the steps of those that one does."""
    left_out = {*inputs.successors, *inputs.suppressed_ids, *inputs.twins_in_review}
    waiting = set(values_of(findings.loc[undecided, "account_id"]))
    decided: Decided = {}
    candidates: list[Candidate] = []
    for authorization_id, rows in _by_authorization(findings, undecided):
        covered = covered_accounts(rows, left_out)
        # One of several payments accounts may itself be a person's to look at, or its reason be off; then it is not its turn.
        possible = [
            _candidate(authorization_id, rows, part, inputs)
            for part in covered_at_once(covered)
            if any(row["account_id"] in waiting for row in part)
        ]
        steps = []
        for candidate in sorted(possible, key=lambda one: _turn(one, inputs.contacts)):
            step = (
                _standing_step(candidate, inputs)
                or _stripes_step(candidate, inputs)
                or _widening_step(candidate, inputs)
            )
            if step is None:
                candidates.append(candidate if with_rows else replace(candidate, rows=(), covered=()))
                break
            steps.append(step)
        else:
            decided[authorization_id] = next(
                (step for step in steps if step[0] != NextStep.ATTEMPTS_EXHAUSTED), steps[0]
            )
    return candidates, decided


def _candidate(
    authorization_id: str,
    rows: Sequence[Row],
    covered: Sequence[Row],
    inputs: PlanInputs,
) -> Candidate:
    reason = next(kind for kind in AFFECTED_NAMES if any(row["finding"] == kind for row in covered))
    breakage = inputs.breakage_of.get((authorization_id, str(KIND_OF_FINDING[reason])))
    if breakage is None:
        raise ValueError(f"authorization {authorization_id} has no open breakage for {reason}")
    first = next(row for row in covered if row["finding"] == reason)
    holder = Holder(first["holder_type"], first["account_holder_id"])
    return Candidate(
        authorization_id=authorization_id,
        rows=rows,
        covered=covered,
        holder=holder,
        breakage=breakage,
        reason=reason,
        cause=first["cause"],
        institution_name=first["institution_name"],
        due_date=due_date(covered, inputs.stamp),
        exposure=exposure_by_currency(covered),
        delivery=delivery_of(
            inputs.policy,
            merchant=inputs.scope.merchant,
            institution=first["institution_name"],
            customer=holder.id,
            reason=reason,
        ),
    )


def _turn(candidate: Candidate, contacts: Contacts) -> tuple[object, ...]:
    """Whose turn it is among the accounts of one authorization: whoever was asked about least often, then the most urgent.

    Else the most urgent account, left unanswered, would use up the attempts that the outage has for all of them.
    """
    account_id = str(candidate.covered[0]["account_id"])
    return contacts.account_attempts.get((candidate.breakage, account_id), 0), candidate.urgency(), account_id


def _standing_step(candidate: Candidate, inputs: PlanInputs) -> tuple[NextStep, str] | None:
    """The step that earlier requests impose, whatever else is asked tonight."""
    contacts, policy, today = inputs.contacts, inputs.policy, inputs.stamp.business_date
    breakage = candidate.breakage
    session_id = contacts.open_authorizations.get(candidate.authorization_id)
    if session_id is not None:
        return NextStep.OPEN_SESSION, f"session {session_id} is still open"
    attempts, most = contacts.attempts.get(breakage, 0), most_attempts(policy)
    if attempts >= most:
        return NextStep.ATTEMPTS_EXHAUSTED, f"{attempts} of {most} attempts are spent"
    if inputs.ignore_cooldown:
        return None
    dates = [contacts.last_contact.get(candidate.holder), contacts.last_attempt.get(breakage)]
    asked = [day for day in dates if day is not None]
    gap = contact_gap_days(policy)
    if asked and (today - max(asked)).days < gap:
        return NextStep.COOLDOWN, f"last asked on {max(asked)}, next {gap} days after"
    eligible = min(inputs.eligible_dates.get(breakage, today), contacts.first_request.get(breakage, today))
    due = step_due(policy, attempts, eligible)
    if due is not None and today < due:
        return NextStep.COOLDOWN, f"step {attempts + 1} of {most} of the ladder is due on {due}"
    until = inputs.quiet_until.get((candidate.holder, candidate.institution_name))
    if until is not None and today < until:
        return NextStep.COOLDOWN, f"the customer withdrew at this bank and is left alone until {until}"
    return None


def _stripes_step(candidate: Candidate, inputs: PlanInputs) -> tuple[NextStep, str] | None:
    """`cooldown` where Stripe would refuse by its own rules, so that no attempt is spent on hearing it."""
    contacts, policy = inputs.contacts, inputs.policy
    if candidate.delivery in DELIVERY_METHODS:
        for asked in (candidate.holder, candidate.authorization_id):
            last = contacts.last_hosted.get(asked)
            if last is not None and hosted_too_soon(last, inputs.stamp.as_of, policy):
                hours = policy.hosted_interval_hours
                return (
                    NextStep.COOLDOWN,
                    f"Stripe allows a hosted request {hours} hours after the last one, of {last:%Y-%m-%d %H:%M} UTC",
                )
    if inputs.ignore_cooldown:
        return None
    institution = candidate.institution_name
    refusals = 0 if institution is None else contacts.unavailable_today.get(institution, 0)
    if candidate.breakage in contacts.refused_today or refusals >= UNAVAILABLE_LIMIT:
        return NextStep.COOLDOWN, "Stripe cannot reach the institution; it is left for the next date"
    return None


def _widening_step(candidate: Candidate, inputs: PlanInputs) -> tuple[NextStep, str] | None:
    """`review` where the request would ask more of a sibling account and the settings do not allow that."""
    rows = candidate.rows
    if inputs.policy.allow_widening or not widens(rows, requested_permissions(rows), _named_account(candidate, inputs)):
        return None
    return NextStep.REVIEW, "the request would ask more of a sibling account than it grants and needs"


def _named_account(candidate: Candidate, inputs: PlanInputs) -> str | None:
    """The account that the session is to name: none where any eligible one at the institution will do."""
    return single_account(candidate.covered) if inputs.policy.payments_account == "same" else None


def _spend(candidates: Sequence[Candidate], inputs: PlanInputs) -> Iterator[tuple[Candidate, NextStep, str]]:
    """Give tonight's requests out in order of urgency: one a customer, none against a brake, no more than the caps."""
    policy = inputs.policy
    left = policy.max_requests_per_run - inputs.contacts.requested_today
    by_institution = Counter(inputs.contacts.requested_today_by_institution)
    asked: set[Holder] = set()
    for candidate in candidates:
        institution = candidate.institution_name or ""
        ceiling = policy.max_requests_per_institution
        if inputs.only_authorizations is not None and candidate.authorization_id not in inputs.only_authorizations:
            yield candidate, NextStep.CAPPED, "not among those this command was given"
        elif candidate.holder in asked:
            yield candidate, NextStep.COOLDOWN, "the same customer is asked about another authorization tonight"
        elif candidate.authorization_id in inputs.held_authorizations:
            yield candidate, NextStep.HELD_BY_BRAKE, "a brake holds it until a person releases it"
        elif inputs.quiet is not None:
            yield candidate, NextStep.CAPPED, f"{inputs.quiet}: nobody is contacted, the next run takes it up"
        elif left <= 0:
            yield candidate, NextStep.CAPPED, f"max_requests_per_run is {policy.max_requests_per_run}"
        elif ceiling is not None and by_institution[institution] >= ceiling:
            yield candidate, NextStep.CAPPED, f"max_requests_per_institution is {ceiling}"
        else:
            left -= 1
            by_institution[institution] += 1
            asked.add(candidate.holder)
            yield candidate, NextStep.REQUEST, ""


def _request(candidate: Candidate, inputs: PlanInputs, number: int) -> RelinkRequest:
    account_id = _named_account(candidate, inputs)
    permissions = requested_permissions(candidate.rows)
    policy, breakage = inputs.policy, candidate.breakage
    return RelinkRequest(
        request_id=f"{inputs.stamp.run_id}-{inputs.scope.merchant}-{number:05d}",
        merchant=inputs.scope.merchant,
        mode=inputs.scope.mode,
        breakage=breakage,
        attempt=inputs.contacts.highest_attempt.get(breakage, 0) + 1,
        account_id=account_id,
        holder=candidate.holder,
        institution_name=candidate.institution_name,
        reason=candidate.reason,
        cause=candidate.cause,
        covered=describe_covered(candidate.covered),
        permissions=permissions,
        widens=widens(candidate.rows, permissions, account_id),
        delivery=candidate.delivery,
        due_date=candidate.due_date,
        exposure_by_currency=candidate.exposure,
        references=tuple(sorted({row["reference"] for row in candidate.covered} - {None})),
        origin=inputs.stamp.command,
        limit_accounts=None if single_account(candidate.covered) is None else 1,
        account_subcategories=subcategory_filter(candidate.covered) if policy.narrow_to_subcategories else (),
        return_url=policy.return_url,
    )


def _decisions(
    findings: pd.DataFrame, steps: Steps, details: Steps, decided: Decided
) -> tuple[AuthorizationDecision, ...]:
    """One decision an authorization with something to decide, by id: its own step, else the first of its accounts'."""
    chosen = dict(decided)
    order = {str(step): rank for rank, step in enumerate(NextStep)}
    # Most accounts are in order or stand alone; walking them one by one would cost more than the rest of the plan.
    to_decide = np.flatnonzero(
        (steps != str(NextStep.NONE)) & findings["authorization_id"].notna().to_numpy(dtype=bool)
    )
    names = values_of(findings["authorization_id"].iloc[to_decide])
    for name, step, detail in zip(names, steps[to_decide], details[to_decide], strict=True):
        if name in decided:
            continue
        standing = chosen.get(name)
        if standing is None or order[str(step)] < order[str(standing[0])]:
            chosen[name] = (NextStep(str(step)), str(detail))
    words = {
        step: str(step) for step in NextStep
    }  # one object for each, since a decision is kept for every affected authorization
    return tuple(AuthorizationDecision(name, words[step], detail) for name, (step, detail) in sorted(chosen.items()))
