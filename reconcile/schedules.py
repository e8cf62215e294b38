"""How long logins last at a bank, learnt from the account history, and which of them will lapse next by that.

Stripe announces a deactivation where the bank tells it of one. Where it does not, many logins still end after a fixed time, such as 90 or 180
days after the customer last gave consent. That makes no finding and asks nobody; it tells people what is coming.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from statistics import median_low
from typing import NamedTuple

import pandas as pd

from reconcile.classify import business_dates
from reconcile.frames import values_of
from reconcile.model import RunStamp

LAPSED = "access_expired"
"""The cause that says that time ended a consent (Stripe API: account.status_details.inactive.cause)."""

WINDOW_DAYS = 7
"""Lifetimes that differ by less count as the same: a night may find a lapse, or a customer's return, some days late."""

SHORTEST_DAYS = 14
MINIMUM_LAPSES = 20
MINIMUM_DATES = 5
AGREEING_SHARE = 0.6


@dataclass(frozen=True, slots=True)
class Lapse:
    """A login that ended by time: when the customer had last given consent, and when it ended."""

    institution_name: str
    authorization_id: str
    started_on: date
    ended_on: date

    @property
    def days(self) -> int:
        """How long it lasted."""
        return (self.ended_on - self.started_on).days


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """What the history tells: logins that lapsed, and since when each login that works has consent."""

    lapses: tuple[Lapse, ...]
    working_since: Mapping[str, date]


@dataclass(frozen=True, slots=True)
class Schedule:
    """Logins at a bank last `days`, as `agreeing` of the `observed` logins say: those that lapsed, and those that outlived it."""

    institution_name: str
    days: int
    agreeing: int
    observed: int


@dataclass(frozen=True, slots=True)
class ExpectedLapses:
    """Working logins of a bank that by its schedule lapse soon, without a date of Stripe's; `logins_by_date` is in order of dates.

    A date that has just passed is counted for today. `accounts` and money are of their open ledger rows, in minor units by currency.
    """

    schedule: Schedule
    within_days: int
    logins_by_date: Mapping[date, int]
    accounts: int
    exposure_by_currency: Mapping[str, int] = field(default_factory=dict)

    @property
    def logins(self) -> int:
        """How many logins."""
        return sum(self.logins_by_date.values())


def lifetimes(troubled: pd.DataFrame, accounts: pd.DataFrame, stamp: RunStamp) -> Lifetimes:
    """Read off how long logins lasted.

    Consent is given when an account is linked, when it comes back from inactive, when a relink that was required no longer is, and under
    another authorization. Of the accounts of one login the last one to do so counts.

    Args:
        troubled: `frames.HISTORY` in several rows an account, by account and time: of all that ever were inactive or required a relink.
        accounts: tonight's accounts, in columns as `frames.ACCOUNTS` or `frames.FINDINGS` has them.
    """
    linked = {
        account_id: on
        for account_id, on in zip(
            values_of(accounts["account_id"]), values_of(business_dates(accounts["created_at"], stamp)), strict=True
        )
        if on is not None
    }
    ended: dict[tuple[str, str, date], date] = {}
    since = dict(linked)
    for account_id, rows in _by_account(troubled, stamp):
        started: date | None = linked.get(account_id)
        for before, now in zip([None, *rows], rows, strict=False):
            if now.status == "inactive":
                if (
                    started is not None
                    and now.lapsed_on is not None
                    and (before is None or before.status != "inactive")
                ):
                    key = (now.institution_name, now.authorization_id, now.lapsed_on)
                    ended[key] = max(started, ended.get(key, started))
                started = None
            elif now.status != "active":
                started = None
            elif before is not None and _consented(before, now):
                started = now.observed_on
        if started is None:
            since.pop(account_id, None)
        else:
            since[account_id] = started
    lapses = tuple(
        Lapse(bank, login, start, end) for (bank, login, end), start in sorted(ended.items()) if start <= end
    )
    return Lifetimes(lapses, _of_logins(accounts, since))


def possible_banks(known: Lifetimes) -> frozenset[str]:
    """Banks with enough lapses for a schedule, whether or not they agree."""
    count = Counter(lapse.institution_name for lapse in known.lapses)
    return frozenset(bank for bank, lapses in count.items() if lapses >= MINIMUM_LAPSES)


def learn(known: Lifetimes, bank_of: Mapping[str, str], stamp: RunStamp) -> dict[str, Schedule]:
    """The schedules of the banks that have one, by name.

    A bank has one where at least `MINIMUM_LAPSES` of its lapses lie within `WINDOW_DAYS` of each other, on at least `MINIMUM_DATES` different
    dates with none of them holding more than half, and where these are at least `AGREEING_SHARE` of all its lapses and of the logins that work on
    beyond. So neither one bad night of a bank, nor a few lapses among many logins that last, makes a schedule.

    Args:
        bank_of: the bank's name by authorization, of the logins that work.
    """
    by_bank: defaultdict[str, list[Lapse]] = defaultdict(list)
    for lapse in known.lapses:
        by_bank[lapse.institution_name].append(lapse)
    ages: defaultdict[str, list[int]] = defaultdict(list)
    for login, since in known.working_since.items():
        if login in bank_of:
            ages[bank_of[login]].append((stamp.business_date - since).days)
    found = (_schedule(bank, lapses, ages[bank]) for bank, lapses in sorted(by_bank.items()))
    return {one.institution_name: one for one in found if one is not None}


def expected_lapses(
    schedules: Mapping[str, Schedule],
    known: Lifetimes,
    findings: pd.DataFrame,
    stamp: RunStamp,
    within_days: int,
) -> tuple[ExpectedLapses, ...]:
    """The logins that lapse within so many days, by bank.

    Left out are logins of which an account is not active or has a date of Stripe's or is required to relink, since those are told already,
    logins without an open ledger row, and such as have outlived the schedule by half its window, of which it cannot be true.
    """
    columns = [
        *("authorization_id", "institution_name", "stripe_status", "active_action", "expected_deactivation_at"),
        *("ledger_status", "exposure_minor", "currency"),
    ]
    logins: defaultdict[str, list[tuple[object, ...]]] = defaultdict(list)
    for login, *facts in zip(*(values_of(findings[name]) for name in columns), strict=True):
        if login in known.working_since and facts[0] in schedules:
            logins[login].append(tuple(facts))
    due: defaultdict[str, dict[date, int]] = defaultdict(dict)
    accounts: defaultdict[str, int] = defaultdict(int)
    money: defaultdict[str, defaultdict[str, int]] = defaultdict(lambda: defaultdict(int))
    for login, rows in logins.items():
        bank = str(rows[0][0])
        on = known.working_since[login] + timedelta(days=schedules[bank].days)
        ahead = (on - stamp.business_date).days
        healthy = all(
            status == "active" and action != "relink_required" and at is None for _, status, action, at, *_ in rows
        )
        open_rows = [(minor, currency) for *_, ledger, minor, currency in rows if ledger == "open"]
        if not healthy or not open_rows or not -(WINDOW_DAYS // 2) <= ahead <= within_days:
            continue
        on = max(on, stamp.business_date)
        due[bank][on] = due[bank].get(on, 0) + 1
        accounts[bank] += len(open_rows)
        for minor, currency in open_rows:
            if isinstance(minor, int) and isinstance(currency, str):
                money[bank][currency] += minor
    return tuple(
        ExpectedLapses(
            schedules[bank],
            within_days,
            dict(sorted(due[bank].items())),
            accounts[bank],
            dict(sorted(money[bank].items())),
        )
        for bank in sorted(due)
    )


class _State(NamedTuple):
    authorization_id: str
    institution_name: str
    status: str | None
    action: str | None
    observed_on: date
    lapsed_on: date | None


def _by_account(troubled: pd.DataFrame, stamp: RunStamp) -> Iterator[tuple[str, list[_State]]]:
    names = (
        *("account_id", "authorization_id", "institution_name", "present", "stripe_status", "action", "cause"),
        "inactive_since_basis",
    )
    # Dates in the core's own way, by columns: as a value each, a moment costs as much as all the rest of its row.
    dates = (values_of(business_dates(troubled[name], stamp)) for name in ("observed_at", "inactive_since"))
    rows: list[_State] = []
    current: str | None = None
    for account_id, login, bank, present, status, action, cause, basis, observed_on, since in zip(
        *(values_of(troubled[name]) for name in names), *dates, strict=True
    ):
        if account_id != current:
            if current is not None:
                yield current, rows
            current, rows = account_id, []
        lapsed_on = since if cause == LAPSED and basis != "first_run" and bank and login else None
        rows.append(_State(login or "", bank or "", status if present else None, action, observed_on, lapsed_on))
    if current is not None:
        yield current, rows


def _consented(before: _State, now: _State) -> bool:
    renewed = before.action == "relink_required" and now.action != "relink_required"
    return before.status != "active" or renewed or before.authorization_id != now.authorization_id


def _of_logins(accounts: pd.DataFrame, since: Mapping[str, date]) -> dict[str, date]:
    logins: dict[str, date] = {}
    columns = (values_of(accounts[name]) for name in ("account_id", "authorization_id", "stripe_status"))
    for account_id, login, status in zip(*columns, strict=True):
        if login is not None and status == "active" and account_id in since:
            logins[login] = max(since[account_id], logins.get(login, since[account_id]))
    return logins


def _schedule(bank: str, lapses: Sequence[Lapse], ages: Iterable[int]) -> Schedule | None:
    ordered = sorted(lapses, key=lambda lapse: lapse.days)
    best: Sequence[Lapse] = ()
    last = 0
    for first, lapse in enumerate(ordered):
        while last < len(ordered) and ordered[last].days < lapse.days + WINDOW_DAYS:
            last += 1
        if last - first > len(best):
            best = ordered[first:last]
    if len(best) < MINIMUM_LAPSES or best[0].days < SHORTEST_DAYS:
        return None
    on: defaultdict[date, int] = defaultdict(int)
    for lapse in best:
        on[lapse.ended_on] += 1
    outlived = sum(age >= best[0].days + WINDOW_DAYS for age in ages)
    observed = len(ordered) + outlived
    if len(on) < MINIMUM_DATES or 2 * max(on.values()) > len(best) or len(best) < AGREEING_SHARE * observed:
        return None
    return Schedule(bank, median_low(lapse.days for lapse in best), len(best), observed)
