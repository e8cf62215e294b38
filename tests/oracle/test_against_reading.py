"""The job's published tables and what it really sent, against a second reading of the decision tables.

The world is a generated one with every disagreement that a ledger can have, plus oddities put in by hand. Nothing here looks into the
core: inputs are Stripe's JSON pages, the ledger's rows and the simulator's own record of what reached it.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pyarrow.parquet as pq
import pytest

from jobs.adapters import records
from jobs.handover import Handover
from jobs.night import Work
from jobs.nightly import RunResult, run
from jobs.settings import Settings, parse_settings
from jobs.simulator.ledger import make_ledger
from jobs.simulator.reply import Call, Reply
from jobs.simulator.server import SimulatorServer
from jobs.simulator.world import World
from jobs.wiring import wire
from reconcile.ledger import check_rows, require_clean
from tests.oracle.contract_reading import AFFECTED, PROVISIONAL, Reading, Request, business_date, holder_of

KEY = "rk_test_simulator"
ENVIRONMENT = {"STRIPE_API_KEY": KEY}
SESSIONS = "/v1/financial_connections/sessions"
Row = dict[str, Any]


class RecordingServer(SimulatorServer):
    """The simulator, which also keeps the calls themselves."""

    def __init__(self, world: World) -> None:
        self.calls: list[tuple[Call, int]] = []
        super().__init__(world)

    def _respond(self, call: Call) -> tuple[Reply, World]:
        reply, world = super()._respond(call)
        self.calls.append((call, reply.status))
        return reply, world


@dataclass
class Night:
    """One night: what the job did and published, and what the reading says."""

    number: int
    today: date
    result: RunResult
    tables: dict[str, list[Row]]
    calls: list[tuple[Call, int]]
    reading: dict[str, Any]
    requests: list[Request]
    rejected: list[Request]
    outcomes: dict[str, tuple[Any, ...]]
    cured: dict[str, int | None]
    successors: dict[str, tuple[Any, ...]]
    all_outcomes: Counter[tuple[Any, ...]]
    open_before: list[Request]
    changed_holders: set[tuple[str, str, str]]
    states: dict[str, tuple[Any, ...]] = field(default_factory=dict)

    @property
    def posts(self) -> list[tuple[Call, int]]:
        return [each for each in self.calls if each[0].method == "POST"]

    @property
    def sessions_read(self) -> list[str]:
        return [call.path.split("/")[4] for call, _ in self.calls if call.path.startswith(SESSIONS + "/")]


class Story:
    """A seeded world, its ledger, the job run on it night after night, and the reading beside it."""

    def __init__(self, directory: Path, accounts: int, seed: int, relink: Row | None = None, timezone: str = "UTC"):
        self.directory = directory
        self.world = World.generate(accounts, seed=seed)
        self.ledger: list[Row] = [dict(row) for row in make_ledger(self.world, seed=seed)]
        add_oddities(self.world, self.ledger, timezone)
        self.beside = add_look_alikes(self.world, self.ledger)
        self.timezone = timezone
        self.relink = relink or {}
        self.reading = Reading(self.relink | {"timezone": timezone})
        self.nights: list[Night] = []
        self.gone: list[str] = []
        self.is_stirred = True

    def open(self, server: RecordingServer) -> None:
        self.server = server
        self.settings = self.make_settings(self.directory)
        self.load_ledger()

    def load_ledger(self) -> None:
        with wire(self.settings, ENVIRONMENT, calls_stripe=False) as wiring:
            records.load_ledger(wiring.database, require_clean(check_rows(self.ledger, ["main"])))

    def make_settings(self, directory: Path) -> Settings:
        return parse_settings(
            {
                "merchants": [{"name": "main"}],
                "stripe": {
                    "api_base": self.server.base_url,
                    "requests_per_second": 5000,
                    "endpoint_requests_per_second": 5000,
                },
                "database": {"url": f"sqlite:///{directory / 'relink.db'}"},
                "reports": {"directory": str(directory / "reports"), "formats": ["csv", "parquet"]},
                "relink": self.relink,
                "brakes": {"newly_broken_share": 1, "newly_broken_share_7d": 1, "institution_share": 1},
                "schedule": {"timezone": self.timezone},
            }
        )

    def now(self) -> datetime:
        return self.world.now_at

    def run(self, **work: Any) -> RunResult:
        with wire(self.settings, ENVIRONMENT, holder=None if work.get("dry_run") else "run", clock=self.now) as wiring:
            return run(wiring, Work("run", **work))

    def night(self, days: int = 1) -> Night:
        """Let time pass, read Stripe as it is, run the job, and hand every offer over."""
        if self.nights:
            self.world.advance(days=days)
        hidden = {each: self.world.sessions.pop(each) for each in self.gone}
        now_at, today = self.now(), business_date(self.now(), self.reading.settings)
        accounts = list(pages(self.server, "/v1/financial_connections/accounts"))
        since = self.last_at if self.nights else now_at
        deactivated_at = deactivations(self.server, since) if self.nights else {}
        open_now = ("pending", *PROVISIONAL)
        followed = [each.session_id for each in self.reading.requests if each.session_id and each.outcome in open_now]
        sessions = {each: get(self.server, f"{SESSIONS}/{each}") for each in followed}
        open_before = [each for each in self.reading.requests if each.outcome == "pending"]
        first = len(self.server.calls)
        made_before = {*self.world.sessions, *hidden}
        result = self.run()
        self.world.sessions |= hidden
        calls = self.server.calls[first:]
        tables = read_tables(result)
        read_tonight = {call.path.split("/")[4] for call, _ in calls if call.path.startswith(SESSIONS + "/")}
        looks = {each: session for each, session in sessions.items() if each in read_tonight}
        changed = self.reading.collect(accounts, self.ledger, looks, now_at)
        reading, requests = self.reading.night(accounts, self.ledger, now_at, deactivated_at)
        made = {
            session.authorization_id: each for each, session in self.world.sessions.items() if each not in made_before
        }
        rejected = []
        for request in requests:
            request.session_id = made.get(request.authorization)
            request.outcome = "pending" if request.session_id else "rejected"
            if request.session_id is None:
                rejected.append(request)
        self.reading.requests.extend(requests)
        told = [*changed, *rejected, *(each for each in self.reading.requests if each.outcome == "pending")]
        states = {account["id"]: state(account) for account in accounts}
        before = self.nights[-1].states if self.nights else states
        changed_holders = {
            seen[each][1]
            for each in {*before, *states}
            for seen in (before, states)
            if each in seen and before.get(each) != states.get(each)
        }
        self.nights.append(
            Night(
                number=len(self.nights),
                today=today,
                result=result,
                tables=tables,
                calls=calls,
                reading=reading,
                requests=requests,
                rejected=rejected,
                outcomes={name_of(each): outcome_of(each) for each in told},
                cured={name_of(each): each.cured for each in changed},
                successors={
                    old: (new, each.authorization, each.new_authorization, by)
                    for old, (new, by, each) in self.reading.successors.items()
                },
                all_outcomes=Counter(
                    (each.institution, each.outcome, each.failure_reason) for each in self.reading.requests
                ),
                open_before=open_before,
                changed_holders=changed_holders,
                states=states,
            )
        )
        self.last_at = now_at
        self.hand_over(requests)
        if self.is_stirred:
            self.stir(len(self.nights))
        return self.nights[-1]

    def stir(self, number: int) -> None:
        """Let happen after the first and the second night what a generated world leaves to chance."""
        if number == 1:
            waiting = iter(self.pending(2))
            for accounts, chosen in (
                (None, {"keep_account_ids": False, "ambiguous": True, "old_disconnected": False}),
                (None, {"keep_account_ids": False, "ambiguous": False, "old_disconnected": False}),
                (None, {"keep_account_ids": False, "ambiguous": False, "old_disconnected": True}),
                (None, {"keep_account_ids": True}),
                (1, {"keep_account_ids": False, "ambiguous": False, "old_disconnected": False}),
                (1, {"keep_account_ids": True, "old_disconnected": False}),
                (1, {"keep_account_ids": False, "ambiguous": True, "old_disconnected": False}),
            ):
                request = next(waiting)
                some = list(request.covered)[:accounts]
                self.world.answer(request.session_id or "", "new_authorization", some, **chosen)
            for how, lag in (("whole", 90_000), ("partial", 0), ("whole", 0)):
                request = next(waiting)
                some = list(request.covered)[:1] if how == "partial" else None
                self.world.answer(request.session_id or "", how, some, lag_seconds=lag)
            self.world.heal_authorization(next(waiting).authorization)
            waiting = iter(self.pending(1))
            for how in ("succeeded_without_result", "other", "failed", "cancelled", "no_account", "no_authorization"):
                self.world.answer(next(waiting).session_id or "", how)
            gone = next(waiting)
            self.world.answer(gone.session_id or "", "cancelled")
            self.gone.append(gone.session_id or "")  # the next nights find that Stripe knows it no more
            for _ in range(8):  # most of these customers answer all the same
                self.world.heal_authorization(next(waiting).authorization)
            for times in (1, 1, 2):  # customers who link afresh instead of answering
                afresh = next(waiting).authorization
                for _ in range(times):
                    self.world.link_afresh(afresh)
                    self.world.advance(seconds=60)
            self.world.break_authorization(self.beside)
        if number == 2:
            moved = [old for old, (new, _, _) in self.reading.successors.items() if old == new]
            for account_id in moved:  # under its new authorization it breaks again
                self.world.break_account(account_id)
            replaced = iter([(old, new) for old, (new, _, _) in self.reading.successors.items() if old != new])
            rows = {row["account_id"]: row for row in self.ledger}
            old, new = next(replaced)
            self.ledger.append(rows[old] | {"account_id": new})
            old, new = next(replaced)
            rows[old]["account_id"] = new
            self.world.remove_account(next(iter(self.pending(2)[0].covered)))
            self.load_ledger()

    def pending(self, covered: int) -> list[Request]:
        """Requests nobody answered yet, that cover at least so many accounts."""
        return [
            each
            for each in self.reading.requests
            if each.session_id in self.world.sessions
            and self.world.sessions[each.session_id].status == "pending"
            and len(each.covered) >= covered
            and self.world.authorizations[each.authorization].status == "inactive"
        ]

    def hand_over(self, requests: Sequence[Request]) -> None:
        with wire(self.settings, ENVIRONMENT, calls_stripe=False) as wiring:
            handover = Handover(self.settings, wiring.database, self.now)
            for request in requests:
                if request.session_id is not None:
                    offer = handover.offer_for("main", request.holder[2])
                    assert offer is not None
                    assert offer.session_id == request.session_id
                    assert handover.offered(offer)


def name_of(request: Request) -> str:
    """What a request is called here and in the report: its session, else its authorization and date."""
    return request.session_id or f"{request.authorization} on {request.made_on}"


def outcome_of(request: Request) -> tuple[Any, ...]:
    return (
        request.outcome,
        request.previous,
        request.failure_reason,
        request.new_authorization,
        len(request.covered),
        request.reason,
        request.attempt,
    )


def add_look_alikes(world: World, ledger: list[Row]) -> str:
    """Two accounts of one customer that work and agree in everything, under two logins; the first login's id."""
    holder = ("customer", "cus_with_two_alike")
    long_ago = datetime.fromtimestamp(world.start, UTC) - timedelta(days=100)
    made = [
        world.add_authorization(
            holder, "Bramblefield Bank", [{"last4": "4711"}], created_at=long_ago + timedelta(days=place)
        )
        for place in range(2)
    ]
    for authorization in made:
        ledger.append(
            {
                "account_id": authorization.accounts[0].id,
                "account_holder_id": holder[1],
                "purpose": "data",
                "status": "open",
            }
        )
    return made[0].id


def add_oddities(world: World, ledger: list[Row], timezone: str) -> None:
    """What a generated world does not have by itself, on authorizations that were well until now."""
    rows = {row["account_id"]: row for row in ledger}
    well = iter(
        [
            authorization
            for authorization in list(world.authorizations.values())
            if authorization.status == "active"
            and authorization.active_action == "none"
            and authorization.institution.manner == "ordinary"
            and all(each.id in rows and each.status == "active" for each in authorization.accounts)
            and all(rows[each.id]["account_holder_id"] == each.holder.id for each in authorization.accounts)
            and all(rows[each.id]["do_not_contact"] in ("", "false", "no", "0") for each in authorization.accounts)
            and all(rows[each.id]["status"] in ("", "open") for each in authorization.accounts)
        ]
    )

    def pick(size: int = 1) -> Any:
        return next(each for each in well if len(each.accounts) >= size)

    def plain(authorization: Any) -> None:
        for account in authorization.accounts:
            rows[account.id] |= {"required_permissions": "", "purpose": "data"}

    for fields in (
        {"status": "frozen"},
        {"status": "inactive", "status_details": {"inactive": {"action": "call_bank", "cause": "unspecified"}}},
        {"status": "inactive", "status_details": {}},
        {
            "status_details": {
                "active": {"action": "verify", "cause": "unspecified", "expected_deactivation_date": None}
            }
        },
        {"account_holder": None},
        {"authorization": None},
        {
            "status": "inactive",
            "status_details": {"inactive": {"action": "mend", "cause": "other"}},
            "authorization": None,
        },
    ):
        world.override(pick().accounts[0].id, fields)
        world.override(pick(2).accounts[1].id, fields)
    for fields in ({"account_holder": None}, {"status": "frozen"}):  # beside a sibling that is to be relinked
        authorization = pick(2)
        world.override(authorization.accounts[0].id, fields)
        world.break_account(authorization.accounts[1].id)
    for holder in (("customer", "cus_someone_else"), ("customer_account", "acct_someone_else")):
        authorization = pick(2)
        world.break_authorization(authorization.id)
        world.set_holder(authorization.accounts[0].id, holder)
        authorization = pick(2)  # one account's row agrees with the other holder
        world.break_authorization(authorization.id)
        world.set_holder(authorization.accounts[0].id, holder)
        rows[authorization.accounts[0].id]["account_holder_id"] = holder[1]
    for index in (0, 1):  # one row silences all of its holder's accounts, also a closed one
        authorization = pick(2)
        world.break_authorization(authorization.id)
        rows[authorization.accounts[index].id] |= {"do_not_contact": "yes", "status": "closed" if index else "open"}
    for which in ((0,), (0, 1)):
        authorization = pick(2)
        world.break_authorization(authorization.id)
        for index in which:
            rows[authorization.accounts[index].id]["status"] = "closed"
    authorization = pick(2)  # a closed row and one that the ledger lacks want nothing
    plain(authorization)
    world.break_account(authorization.accounts[0].id)
    rows[authorization.accounts[1].id] |= {"status": "closed", "required_permissions": "ownership,transactions"}
    authorization = pick(2)
    world.break_account(authorization.accounts[0].id)
    ledger.remove(rows.pop(authorization.accounts[1].id))
    authorization = pick(2)  # needs beyond what its siblings grant
    for account in authorization.accounts:
        world.set_permissions(account.id, ("balances",))
        rows[account.id]["required_permissions"] = "balances"
    rows[authorization.accounts[0].id]["required_permissions"] = "transactions, ownership"
    authorization = pick(2)
    world.set_permissions(authorization.accounts[0].id, ("balances",))
    world.set_permissions(authorization.accounts[1].id, ("payment_method", "transactions"))
    rows[authorization.accounts[0].id]["required_permissions"] = ""
    rows[authorization.accounts[1].id]["required_permissions"] = "transactions"
    world.break_account(authorization.accounts[0].id, cause="access_denied")
    for index, currency in enumerate(("usd", "eur", "gbp", "usd", None)):  # equally urgent, told apart by money
        authorization = pick(2)
        world.break_authorization(authorization.id)
        for place, account in enumerate(authorization.accounts):
            amount = None if currency is None else (index + 1) * 1_000_000 * (place + 1)
            rows[account.id] |= {"exposure_minor": amount, "currency": currency}
    authorization = pick(2)
    world.break_authorization(authorization.id)
    rows[authorization.accounts[0].id] |= {"exposure_minor": 5_000_000, "currency": "usd"}
    rows[authorization.accounts[1].id] |= {"exposure_minor": 1, "currency": "eur"}

    noon = datetime.fromtimestamp(world.now, UTC).replace(hour=17)
    world.expect_deactivation(pick().id, None)
    for days in (1, 9, 10, 11, 13, 14, 15, 16):
        world.expect_deactivation(pick().id, noon + timedelta(days=days))
    # Either side of midnight, here and elsewhere, at the window's end.
    for hours in (9.9, 14.0, 18.9, 23.9, 28.9, 34.0):
        world.expect_deactivation(pick().id, noon.replace(hour=0) + timedelta(days=14, hours=hours))

    late, soon = noon + timedelta(days=90), noon + timedelta(days=14)
    number = "tokenized_account_number"
    for numbers in (
        [(number, "expired", None)],
        [(number, "transactable", soon)],
        [(number, "transactable", soon + timedelta(days=1))],
        [(number, "pending", None)],
        [(number, "pending", soon)],
        [(number, "deactivated", late), (number, "expired", None)],
        [(number, "deactivated", late), (number, "pending", late)],
        [("account_number", "transactable", None), (number, "expired", None)],
        [("account_number", "deactivated", None)],
    ):
        for count, purpose in ((1, "payments"), (2, "payments"), (1, "data")):
            holder = world.add_customer(("customer", f"cus_paying{len(world.holders)}"))
            made = world.add_authorization(
                (holder.kind, holder.id),
                "Bramblefield Bank",
                [{"numbers": numbers, "last4": f"{place:04d}"} for place in range(count)],
            )
            for account in made.accounts:
                ledger.append(
                    {
                        "account_id": account.id,
                        "account_holder_id": holder.id,
                        "required_permissions": "balances",
                        "purpose": purpose,
                        "status": "open",
                    }
                )
    unpayable = ledger[-3]["account_id"]  # a payments account, unreadable besides
    rows[unpayable] = ledger[-3]
    assert rows[unpayable]["purpose"] == "payments"
    world.override(
        unpayable,
        {
            "status": "frozen",
            "account_numbers": [{"identifier_type": number, "status": "expired", "expected_expiry_date": None}],
        },
    )
    account = pick().accounts[0]
    world.override(account.id, {"status": "frozen"})
    rows[account.id] |= {"account_holder_id": "cus_of_another_row", "required_permissions": "ownership,transactions"}
    for _ in range(2):
        authorization = pick()
        world.break_authorization(authorization.id)
        world.delete_customer(authorization.holder.id)


def get(server: SimulatorServer, path: str, **parameters: Any) -> Any:
    """An object as Stripe's JSON, None where Stripe knows none."""
    query = "?" + urlencode(parameters) if parameters else ""
    headers = {"Authorization": f"Bearer {KEY}", "Stripe-Version": "2026-09-30.preview"}
    try:
        with urllib.request.urlopen(urllib.request.Request(server.base_url + path + query, headers=headers)) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise


def pages(server: SimulatorServer, path: str, **parameters: Any) -> Iterator[Row]:
    cursor: Row = {}
    while True:
        page = get(server, path, limit=100, **parameters, **cursor)
        yield from page["data"]
        if not page["has_more"]:
            return
        cursor = {"starting_after": page["data"][-1]["id"]}


def deactivations(server: SimulatorServer, since: datetime) -> dict[str, datetime]:
    """Stripe's newest time of deactivation of each account since a moment."""
    told: dict[str, datetime] = {}
    name = "financial_connections.account.deactivated"
    for event in pages(server, "/v1/events", type=name, **{"created[gte]": int(since.timestamp())}):
        at = datetime.fromtimestamp(event["created"], UTC)
        account_id = event["data"]["object"]["id"]
        told[account_id] = max(at, told.get(account_id, at))
    return told


def state(account: Row) -> tuple[Any, ...]:
    """What of an account could be news of its customer; not its refreshes."""
    details = account.get("status_details") or {}
    numbers = account.get("account_numbers") or []
    return (
        account["authorization"],
        holder_of(account),
        account["status"],
        (details.get("inactive") or {}).get("action"),
        (details.get("inactive") or {}).get("cause"),
        (details.get("active") or {}).get("action") or "none",
        (details.get("active") or {}).get("expected_deactivation_date"),
        tuple(sorted(account["permissions"] or [])),
        tuple((each["status"], each["expected_expiry_date"]) for each in numbers),
    )


def read_tables(result: RunResult) -> dict[str, list[Row]]:
    assert result.report_directory is not None
    return {path.stem: pq.read_table(path).to_pylist() for path in result.report_directory.glob("*.parquet")}


def differences(expected: Mapping[str, Any], shown: Mapping[str, Any]) -> list[str]:
    """Each key whose values differ, both named."""
    keys = sorted({*expected, *shown})
    return [
        f"{key}: read {expected.get(key, 'nothing')!r}, published {shown.get(key, 'nothing')!r}"
        for key in keys
        if expected.get(key) != shown.get(key) or (key in expected) != (key in shown)
    ]


STORIES: dict[str, tuple[int, int, Row, str, tuple[int, ...]]] = {
    "defaults": (3_000, 7, {}, "UTC", (0, 1, 1, 1, 1, 4, 1)),
    "ladder": (2_000, 7, {"ladder_days": [0, 3, 8]}, "UTC", (0, 1, 1, 1, 1, 4, 8)),
    "tight": (
        3_000,
        23,
        {
            "expiring_within_days": 10,
            "cooldown_days": 2,
            "max_attempts": 2,
            "pending_days": 3,
            "max_requests_per_run": 60,
            "max_requests_per_institution": 9,
            "causes_to_review": ["institution_requirement"],
        },
        "America/Los_Angeles",
        (0, 1, 1, 1, 1),
    ),
    "choosy": (
        2_000,
        41,
        {"reasons": ["inactive", "expiring", "account_number"]},
        "Pacific/Auckland",
        (0, 1, 1),
    ),
    "narrow": (
        2_000,
        59,
        {"allow_widening": False},
        "UTC",
        (0, 1, 1),
    ),
}


@pytest.fixture(scope="module", params=list(STORIES))
def story(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """Several nights of one world; each test then compares one thing in all of them."""
    accounts, seed, relink, timezone, steps = STORIES[request.param]
    made = Story(tmp_path_factory.mktemp(request.param), accounts, seed, relink, timezone)
    with RecordingServer(made.world) as server:
        made.open(server)
        for days in steps:
            made.night(days)
        yield made


def test_every_night_ends_complete(story: Story) -> None:
    # 4: a deleted customer's request is rejected; nothing worse happens.
    assert [night.result.complete for night in story.nights] == [True] * len(story.nights)
    assert [night.result.exit_code for night in story.nights] == [4 if night.rejected else 0 for night in story.nights]
    assert [night.result.why for night in story.nights] == [None] * len(story.nights)


def test_the_world_holds_every_kind_of_disagreement(story: Story) -> None:
    found = {read.finding for night in story.nights for read in night.reading.values()}
    also = {name for night in story.nights for read in night.reading.values() for name in read.also}
    assert found >= {"ok", "unreadable", "not_in_stripe", "not_in_ledger", "holder_mismatch", "disconnected"}
    assert found >= {"inactive_permanent", *AFFECTED}
    assert also >= {"holder_mismatch", "disconnected", *AFFECTED}


def test_findings(story: Story) -> None:
    for night in story.nights:
        expected = {key: (read.finding, read.also) for key, read in night.reading.items()}
        shown = {row["account_id"]: (row["finding"], row["also"]) for row in night.tables["accounts"]}
        assert len(night.tables["accounts"]) == len(shown)
        assert differences(expected, shown) == []


def test_next_steps(story: Story) -> None:
    for night in story.nights:
        expected = {key: (read.finding, read.next_step) for key, read in night.reading.items()}
        shown = {row["account_id"]: (row["finding"], row["next_step"]) for row in night.tables["accounts"]}
        assert differences(expected, shown) == [], f"night {night.number}"


def test_account_facts(story: Story) -> None:
    for night in story.nights:
        expected = {
            key: (
                set(read.missing) if read.account else None,
                read.shared_accounts,
                read.shared_affected,
                read.inactive_since,
                read.inactive_since_basis,
                read.days_inactive,
                read.days_to_deactivation,
            )
            for key, read in night.reading.items()
        }
        shown = {
            row["account_id"]: (
                set(row["missing_permissions"] or []) if row["stripe_status"] else None,
                row["shared_accounts"],
                row["shared_affected"],
                row["inactive_since"],
                row["inactive_since_basis"],
                row["days_inactive"],
                row["days_to_deactivation"],
            )
            for row in night.tables["accounts"]
        }
        assert differences(expected, shown) == [], f"night {night.number}"


def test_requests_in_the_report(story: Story) -> None:
    for night in story.nights:
        expected = {
            each.authorization: (
                each.account,
                each.holder[2],
                each.reason,
                set(each.covered),
                each.permissions,
                each.widens,
                each.attempt,
                each.session_id,
                "rejected" if each in night.rejected else "created",
            )
            for each in night.requests
        }
        shown = {
            row["authorization_id"]: (
                row["account_id"],
                row["account_holder_id"],
                row["reason"],
                set(row["covered_accounts"]),
                set(row["permissions"]),
                row["widens"],
                row["attempt"],
                row["session_id"],
                row["result"],
            )
            for row in night.tables["relink_requests"]
        }
        assert len(shown) == len(night.tables["relink_requests"])
        assert differences(expected, shown) == [], f"night {night.number}"


def test_what_was_posted(story: Story) -> None:
    for night in story.nights:
        posted = [dict(parse_qsl(call.body.decode())) for call, _ in night.posts]
        sent = []
        for body in posted:
            permissions = {value for name, value in body.items() if name.startswith("permissions[")}
            sent.append(
                ({name: value for name, value in body.items() if not name.startswith("permissions[")}, permissions)
            )
        # Several are under way at once and may overtake each other; that they begin in the order of urgency shows in their ids.
        expected = [(each.body, each.permissions) for each in night.requests]
        turns = [expected.index(one) for one in sent]
        assert sorted(turns) == list(range(len(expected))), f"night {night.number}"
        begun = sorted(night.tables["relink_requests"], key=lambda row: row["request_id"])
        order = [each.body["relink_options[authorization]"] for each in night.requests]
        assert [row["authorization_id"] for row in begun] == order, f"night {night.number}"
        keys = [call.headers["idempotency-key"] for call, _ in night.posts]
        assert len(set(keys)) == len(keys)
    everything = [call.headers["idempotency-key"] for night in story.nights for call, _ in night.posts]
    assert len(set(everything)) == len(everything)


def test_one_customer_and_one_authorization_once_a_night(story: Story) -> None:
    for night in story.nights:
        holders = Counter(each.holder for each in night.requests)
        assert max(holders.values(), default=0) <= 1
        institutions = Counter(row["institution_name"] for row in night.tables["relink_requests"])
        most = story.relink.get("max_requests_per_institution")
        assert most is None or max(institutions.values(), default=0) <= most
        assert len(night.posts) <= story.relink.get("max_requests_per_run", 1000)


def test_sessions_are_read_when_due_and_only_then(story: Story) -> None:
    for night, before in zip(story.nights[1:], story.nights, strict=False):
        must, may = set(), set()
        answered = {
            each.session_id
            for each in story.reading.requests
            if each.session_id in story.world.sessions and story.world.sessions[each.session_id].status != "pending"
        }
        for request in night.open_before:
            assert request.session_id is not None
            ages = range((before.today - request.made_on).days + 1, (night.today - request.made_on).days + 1)
            on_day = 1 in ages or 3 in ages or story.reading.is_given_up(request, night.today)
            if on_day or request.holder in night.changed_holders:
                must.add(request.session_id)
        for request in story.reading.requests:
            if (
                request.session_id is not None
                and request.holder in night.changed_holders
                and request.outcome_on is not None
            ):
                may.add(request.session_id)  # a provisional outcome, which news of the customer may replace
        may |= must | answered
        assert must <= set(night.sessions_read)
        assert set(night.sessions_read) <= may
        assert len(set(night.sessions_read)) == len(night.sessions_read)


def test_outcomes(story: Story) -> None:
    for night in story.nights:
        shown = {
            row["session_id"]
            or f"{row['authorization_id']} on {business_date(row['requested_at'], story.reading.settings)}": row
            for row in night.tables["relink_outcomes"]
        }
        assert len(shown) == len(night.tables["relink_outcomes"])
        columns = [
            "outcome",
            "previous_outcome",
            "failure_reason",
            "new_authorization_id",
            "accounts_expected",
            "reason",
            "attempt",
        ]
        told = {name: tuple(row[column] for column in columns) for name, row in shown.items()}
        assert differences(night.outcomes, told) == [], f"night {night.number}"
        cured = {name: shown[name]["accounts_cured"] for name in night.cured}
        assert differences(night.cured, cured) == [], f"night {night.number}"


def test_every_kind_of_outcome_came_about(story: Story) -> None:
    seen = Counter(outcome[0] for night in story.nights for outcome in night.outcomes.values())
    assert set(seen) >= {"relinked", "relinked_partially", "new_authorization", "failed", "cancelled", "pending"}
    assert set(seen) >= {"healed", "review", "rejected"}
    assert ("expired" in seen) == (len(story.nights) > 3)
    reasons = {outcome[2] for night in story.nights for outcome in night.outcomes.values()}
    assert reasons >= {None, "no_account", "no_authorization", "other"}


def test_successors(story: Story) -> None:
    for night in story.nights:
        shown = {
            row["old_account_id"]: tuple(
                row[name] for name in ("new_account_id", "old_authorization_id", "new_authorization_id", "matched_by")
            )
            for row in night.tables["account_successors"]
        }
        assert differences(night.successors, shown) == [], f"night {night.number}"
    assert {row[3] for row in story.nights[-1].successors.values()} - {"twin"} == {"id", "attributes"}


def test_twins_are_told_as_the_world_has_them_or_left_to_a_person(story: Story) -> None:
    told = {old: row[0] for old, row in story.nights[-1].successors.items() if row[3] == "twin"}
    assert told or story.relink, "none in the world that is told by the default settings"
    assert {old: [new] for old, new in told.items()} == {old: story.world.lives_on[old] for old in told}
    alike = {each.id for each in story.world.authorizations[story.beside].accounts} | {
        old for old, copies in story.world.lives_on.items() if len(copies) > 1
    }
    shown = {row["account_id"]: row["next_step"] for row in story.nights[1].tables["accounts"]}
    assert alike <= set(shown)
    assert Counter(shown[each] for each in alike)["review"] >= 2


def test_failure_reasons(story: Story) -> None:
    for night in story.nights:
        shown: Counter[tuple[Any, ...]] = Counter()
        for row in night.tables["failure_reasons"]:
            shown[row["institution_name"], row["outcome"], row["failure_reason"]] += row["requests"]
        assert shown == night.all_outcomes, f"night {night.number}"


def test_a_second_run_of_the_same_night_sends_nothing(story: Story) -> None:
    posts = [call for call, _ in story.server.calls if call.method == "POST"]
    again = story.run()
    assert again.already_finished == story.nights[-1].result.run_id
    assert again.exit_code == 0
    assert [call for call, _ in story.server.calls if call.method == "POST"] == posts
    assert len(story.world.effects) == len([each for each in story.reading.requests if each.session_id])


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """One finished night of a small world, and then a day on which nothing was run."""
    made = Story(tmp_path_factory.mktemp("rehearsal"), 600, 7)
    with RecordingServer(made.world) as server:
        made.open(server)
        made.is_stirred = False
        made.night()
        made.world.advance(days=1)
        yield made


def test_a_dry_run_changes_nothing_and_says_what_the_run_then_does(rehearsal: Story) -> None:
    reports = rehearsal.directory / "reports"
    links = {name: (reports / name).resolve() for name in ("latest", "last_attempt")}
    before, kept = dump(rehearsal.directory / "relink.db"), files(reports)
    first = len(rehearsal.server.calls)
    dry = rehearsal.run(dry_run=True)
    assert dry.complete
    assert dry.exit_code == 0
    assert {call.method for call, _ in rehearsal.server.calls[first:]} == {"GET"}
    assert dump(rehearsal.directory / "relink.db") == before
    left = files(reports)
    assert {name: left.get(name) for name in kept} == kept
    assert all(name.startswith("dry_run=true/") for name in left.keys() - kept.keys())
    assert {name: (reports / name).resolve() for name in links} == links

    would = read_tables(dry)
    real = rehearsal.run()
    done = read_tables(real)
    for table in ("accounts", "relink_requests"):
        ours = {"request_id", "result", "session_id", "http_status", "stripe_request_id", "calls", "requested_at"}
        ours |= {"error_type", "error_code", "error_message"}
        keep = [{name: cell for name, cell in row.items() if name not in ours} for row in would[table]]
        assert keep == [{name: cell for name, cell in row.items() if name not in ours} for row in done[table]]
    assert would["relink_requests"]
    assert {row["result"] for row in would["relink_requests"]} == {"would_request"}
    assert {row["session_id"] for row in would["relink_requests"]} == {None}

    def answers(tables: dict[str, list[Row]]) -> dict[str, Any]:
        return {row["session_id"]: row["outcome"] for row in tables["relink_outcomes"] if row["session_id"] in made}

    made = {each.session_id for each in rehearsal.reading.requests} - {None}
    assert answers(would) == answers(done)
    assert set(answers(done).values()) > {"pending", "relinked"}


def dump(path: Path) -> list[str]:
    connection = sqlite3.connect(path)
    try:
        return list(connection.iterdump())
    finally:
        connection.close()


def files(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }
