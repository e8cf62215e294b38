"""Control totals: each number counted once in the reports and once where it came from, and whether the two tie."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from reconcile.model import NextStep, OutcomeKind, Result
from reports.closed_lists import AFFECTED_FINDINGS, FINDINGS, NEXT_STEPS, RESULTS
from reports.table_building import of_merchant


@dataclass(frozen=True, slots=True)
class ControlInputs:
    """The other side of one merchant's totals, counted by the pull, the ledger, the gateway and the records.

    None leaves out the totals that a command has no number for, as a `collect` has no plan. `accounts_pulled` counts the
    accounts of Stripe's pages and `ledger_rows` the rows that the ledger gave, both before the join; `ids_in_both` counts the ids
    they share. `plan_requests` counts the plan. `keys_posted` counts the different idempotency keys that the gateway sent.
    `sessions_recorded` counts this run's requests that the records hold as created. `open_before`, `answered` and `open_after`
    count sessions waiting for an answer before the run, those of them or of tonight's that got one, and those still waiting.
    `outcome_requests` counts the recorded requests whose outcome this run changed or that are still open, `successors_recorded`
    the replaced accounts that the records hold for this run, and `window_requests` the recorded requests of the 30 business dates
    ending tonight. Of a night that another run had begun, `requests_before`, `sent_before` and `created_before` count what that run did.
    """

    accounts_pulled: int | None = None
    ledger_rows: int | None = None
    ids_in_both: int | None = None
    plan_requests: int | None = None
    keys_posted: int | None = None
    sessions_recorded: int | None = None
    open_before: int | None = None
    answered: int | None = None
    open_after: int | None = None
    outcome_requests: int | None = None
    successors_recorded: int | None = None
    window_requests: int | None = None
    requests_before: int = 0
    sent_before: int = 0
    created_before: int = 0

    def as_json(self) -> dict[str, int | None]:
        """The numbers by name."""
        return asdict(self)

    @classmethod
    def from_json(cls, numbers: Mapping[str, Any]) -> ControlInputs:
        """The reverse of `as_json`; names of a later version are left out."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: number for name, number in numbers.items() if name in known})


@dataclass(frozen=True, slots=True)
class ControlTotal:
    """One total from both sides."""

    name: str
    left: int
    right: int

    @property
    def ties(self) -> bool:
        """Whether both sides agree."""
        return self.left == self.right

    def as_json(self) -> dict[str, object]:
        """The row of `control` in the summary."""
        return {"name": self.name, "left": self.left, "right": self.right, "ties": self.ties}


def control_totals(tables: Mapping[str, pa.Table], inputs: Mapping[str, ControlInputs]) -> list[ControlTotal]:
    """Every total of every merchant; a total whose table or number is missing is left out.

    Totals are kept apart by merchant, because a row too many of one could hide a row too few of another.
    """
    totals: list[ControlTotal] = []
    for merchant, numbers in sorted(inputs.items()):
        for name, left, right in _pairs(of_merchant(tables, merchant), numbers):
            if left is not None and right is not None:
                totals.append(ControlTotal(f"{merchant}: {name}", left, right))
    return totals


def exposure_totals(accounts: pa.Table) -> dict[str, int]:
    """Money at stake by currency code, in minor units: the affected accounts that the ledger has open."""
    at_stake = pc.and_kleene(
        pc.is_in(accounts["finding"], pa.array(AFFECTED_FINDINGS)), pc.equal(accounts["ledger_status"], "open")
    )
    with_money = pc.and_(pc.is_valid(accounts["exposure_minor"]), pc.is_valid(accounts["currency"]))
    chosen = accounts.filter(pc.and_kleene(at_stake, with_money)).select(["currency", "exposure_minor"])
    summed = chosen.group_by("currency").aggregate([("exposure_minor", "sum")])
    return dict(sorted(zip(summed["currency"].to_pylist(), summed["exposure_minor_sum"].to_pylist(), strict=True)))


def count_in(column: pa.ChunkedArray, values: Iterable[str]) -> int:
    """How many cells hold one of the values."""
    return pc.sum(pc.is_in(column, pa.array([str(value) for value in values], type=pa.string()))).as_py() or 0


Pair = tuple[str, int | None, int | None]


def _pairs(tables: Mapping[str, pa.Table], numbers: ControlInputs) -> Iterator[Pair]:
    accounts, authorizations = tables.get("accounts"), tables.get("authorizations")
    if accounts is not None:
        yield from _account_pairs(accounts, numbers)
    if accounts is not None and authorizations is not None:
        yield from _authorization_pairs(accounts, authorizations)
    if authorizations is not None:
        yield (
            "authorizations to request = requests in the plan",
            count_in(authorizations["next_step"], (NextStep.REQUEST,)),
            numbers.plan_requests,
        )
    if "relink_requests" in tables:
        yield from _request_pairs(tables["relink_requests"], numbers)
    if "relink_outcomes" in tables:
        pending = count_in(tables["relink_outcomes"]["outcome"], (OutcomeKind.PENDING,))
        rows = tables["relink_outcomes"].num_rows
        yield "relink_outcomes rows = requests changed or still open in the records", rows, numbers.outcome_requests
        yield "relink_outcomes rows still pending = sessions open after", pending, numbers.open_after
    if "account_successors" in tables:
        rows = tables["account_successors"].num_rows
        yield "account_successors rows = successors in the records", rows, numbers.successors_recorded
    if "failure_reasons" in tables:
        counted = pc.sum(tables["failure_reasons"]["requests"]).as_py() or 0
        yield (
            "failure_reasons requests = requests of 30 business dates in the records",
            counted,
            numbers.window_requests,
        )


def _account_pairs(accounts: pa.Table, numbers: ControlInputs) -> Iterator[Pair]:
    ids = _plus(numbers.accounts_pulled, numbers.ledger_rows)
    yield (
        "accounts rows = Stripe ids + ledger ids - ids in both",
        accounts.num_rows,
        _plus(ids, _minus(numbers.ids_in_both)),
    )
    yield (
        "accounts rows with a Stripe status = accounts pulled",
        _filled(accounts["stripe_status"]),
        numbers.accounts_pulled,
    )
    yield (
        "accounts rows with a ledger status = ledger rows read",
        _filled(accounts["ledger_status"]),
        numbers.ledger_rows,
    )
    yield "findings = accounts rows", count_in(accounts["finding"], FINDINGS), accounts.num_rows
    yield "next steps = accounts rows", count_in(accounts["next_step"], NEXT_STEPS), accounts.num_rows


def _authorization_pairs(accounts: pa.Table, authorizations: pa.Table) -> Iterator[Pair]:
    in_question = pc.or_kleene(
        pc.is_in(accounts["finding"], pa.array(AFFECTED_FINDINGS)),
        pc.equal(accounts["next_step"], str(NextStep.REVIEW)),
    )
    yield (
        "authorizations of accounts affected or to review = authorizations rows",
        len(pc.unique(accounts.filter(in_question)["authorization_id"]).drop_null()),
        authorizations.num_rows,
    )
    yield (
        "affected accounts = affected accounts of all authorizations",
        count_in(accounts["finding"], AFFECTED_FINDINGS),
        pc.sum(authorizations["affected_accounts"]).as_py() or 0,
    )
    by_account, by_authorization = exposure_totals(accounts), _exposure_of_authorizations(authorizations)
    for currency in sorted({*by_account, *by_authorization}):
        yield (
            f"{currency} at stake on accounts = on authorizations",
            by_account.get(currency, 0),
            by_authorization.get(currency, 0),
        )


def _request_pairs(requests: pa.Table, numbers: ControlInputs) -> Iterator[Pair]:
    created = count_in(requests["result"], (Result.CREATED,))
    planned = _plus(numbers.plan_requests, numbers.requests_before)
    yield "requests in the plan = relink_requests rows", planned, requests.num_rows
    yield "results = relink_requests rows", count_in(requests["result"], RESULTS), requests.num_rows
    yield (
        "relink_requests rows that were sent = idempotency keys sent",
        _above_zero(requests["calls"]),
        _plus(numbers.keys_posted, numbers.sent_before),
    )
    yield "relink_requests rows created = sessions in the records", created, numbers.sessions_recorded
    yield (
        "open before + created = answered + open after",
        _plus(numbers.open_before, created - numbers.created_before),
        _plus(numbers.answered, numbers.open_after),
    )


def _exposure_of_authorizations(authorizations: pa.Table) -> dict[str, int]:
    money: dict[str, int] = {}
    for entry in pc.list_flatten(authorizations["exposure_by_currency"]).to_pylist():
        currency, _, amount = entry.rpartition(":")
        money[currency] = money.get(currency, 0) + int(amount)
    return money


def _filled(column: pa.ChunkedArray) -> int:
    return len(column) - int(column.null_count)


def _above_zero(column: pa.ChunkedArray) -> int:
    return pc.sum(pc.greater(column, 0)).as_py() or 0


def _plus(left: int | None, right: int | None) -> int | None:
    return None if left is None or right is None else left + right


def _minus(number: int | None) -> int | None:
    return None if number is None else -number
