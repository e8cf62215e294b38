"""A second, slow reading of the published decisions: dicts and loops over Stripe's raw JSON, sharing no code with the product.

What it returns is what the decision tables say, written down by somebody who had not read the product's own code. `Reading` remembers
from night to night what the job must remember: breakages, requests, successors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

Json = dict[str, Any]

ORDER = [
    "unreadable",
    "not_in_stripe",
    "not_in_ledger",
    "holder_mismatch",
    "disconnected",
    "inactive_permanent",
    "inactive",
    "account_number",
    "expiring",
    "permissions",
]
AFFECTED = ("inactive", "account_number", "expiring", "permissions")
KIND = {
    "inactive": "connection",
    "expiring": "connection",
    "account_number": "account_number",
    "permissions": "permissions",
}
SETTINGS: Json = {
    "reasons": list(AFFECTED),
    "causes_to_review": [],
    "expiring_within_days": 14,
    "ladder_days": None,
    "cooldown_days": 4,
    "max_attempts": 4,
    "pending_days": 7,
    "max_requests_per_run": 1000,
    "max_requests_per_institution": None,
    "allow_widening": True,
    "timezone": "UTC",
}
PROVISIONAL = ("expired", "healed", "cancelled")


def business_date(at: datetime, settings: Json) -> date:
    return at.astimezone(ZoneInfo(settings["timezone"])).date()


def holder_of(account: Json) -> tuple[str, str, str] | None:
    """(type, parameter that names it, id) or None."""
    holder = account.get("account_holder")
    if not holder:
        return None
    for name in ("customer", "customer_account", "account"):
        if holder.get(name):
            return holder["type"], name, holder[name]
    return None


def wanted(row: Mapping[str, Any]) -> list[str]:
    return [name for name in (part.strip() for part in (row.get("required_permissions") or "").split(",")) if name]


def is_open(row: Mapping[str, Any]) -> bool:
    return (row.get("status") or "open") == "open"


def forbids_contact(row: Mapping[str, Any]) -> bool:
    return str(row.get("do_not_contact") or "").lower() in ("true", "yes", "1")


def active_details(account: Json) -> Json:
    return (account.get("status_details") or {}).get("active") or {}


def inactive_details(account: Json) -> Json:
    return (account.get("status_details") or {}).get("inactive") or {}


def days_ahead(epoch_seconds: int, today: date, settings: Json) -> int:
    return (business_date(datetime.fromtimestamp(epoch_seconds, UTC), settings) - today).days


def has_usable_number(account: Json, today: date, settings: Json) -> bool:
    for number in account.get("account_numbers") or []:
        if number["identifier_type"] != "tokenized_account_number":
            continue
        expiry = number.get("expected_expiry_date")
        lasts = expiry is None or days_ahead(expiry, today, settings) > settings["expiring_within_days"]
        if number["status"] in ("transactable", "pending") and lasts:
            return True
    return False


def has_tokenized(account: Json) -> bool:
    return any(n["identifier_type"] == "tokenized_account_number" for n in account.get("account_numbers") or [])


def is_expiring(account: Json, today: date, settings: Json) -> bool:
    details = active_details(account)
    if account["status"] != "active" or details.get("action") != "relink_required":
        return False
    at = details.get("expected_deactivation_date")
    return at is None or days_ahead(at, today, settings) <= settings["expiring_within_days"]


def missing_permissions(account: Json, row: Mapping[str, Any]) -> list[str]:
    return [name for name in wanted(row) if name not in (account.get("permissions") or [])]


def is_unreadable(account: Json) -> bool:
    status = account["status"]
    if status == "disconnected":
        return False
    if account.get("authorization") is None or holder_of(account) is None:
        return True
    if status == "inactive":
        return inactive_details(account).get("action") not in ("none", "relink_required")
    if status == "active":
        return active_details(account).get("action") not in (None, "none", "relink_required")
    return True


def all_findings(account: Json | None, row: Mapping[str, Any] | None, today: date, settings: Json) -> list[str]:
    """Every finding that holds, in order; empty for an account that is well."""
    if account is None:
        return ["not_in_stripe"]
    found = []
    if row is None:
        found.append("not_in_ledger")
    else:
        if is_unreadable(account):
            found.append("unreadable")
        holder = holder_of(account)
        if holder is not None and holder[2] != row["account_holder_id"]:
            found.append("holder_mismatch")
        is_paying = row.get("purpose") == "payments" and has_tokenized(account)
        if is_paying and not has_usable_number(account, today, settings):
            found.append("account_number")
        if missing_permissions(account, row):
            found.append("permissions")
    if account["status"] == "disconnected":
        found.append("disconnected")
    if account["status"] == "inactive":
        action = inactive_details(account).get("action")
        if action == "none":
            found.append("inactive_permanent")
        if action == "relink_required":
            found.append("inactive")
    if is_expiring(account, today, settings):
        found.append("expiring")
    return [name for name in ORDER if name in found]


def is_cured(account: Json | None, finding: str, row: Mapping[str, Any] | None, today: date, settings: Json) -> bool:
    if account is None:
        return False
    if finding == "inactive":
        return bool(account["status"] == "active")
    if finding == "expiring":
        return account["status"] == "active" and not is_expiring(account, today, settings)
    if finding == "account_number":
        return has_usable_number(account, today, settings)
    return row is not None and not missing_permissions(account, row)


def match_successors(
    covered: Mapping[str, Json], siblings: Iterable[Json], new: Iterable[Json]
) -> tuple[dict[str, tuple[str, str]], set[str], set[str]]:
    """(old id -> (new id, matched_by)), the old ids for which there are several ways to pair, and those for which there is none.

    `covered` are the accounts as they were when asked about, `siblings` what the old authorization holds now.
    """
    new_by_id = {account["id"]: account for account in new}
    matched = {account_id: (account_id, "id") for account_id in covered if account_id in new_by_id}
    free = [account for account in new_by_id.values() if account["id"] not in matched]
    left = {account["id"]: account for account in siblings} | dict(covered)
    ambiguous, absent = set(), set()
    for account_id, account in covered.items():
        if account_id in matched:
            continue
        alike_old = [each for each in left if each not in matched and _likeness(left[each]) == _likeness(account)]
        alike_new = [each["id"] for each in free if _likeness(each) == _likeness(account)]
        if not alike_new:
            absent.add(account_id)
        elif len(alike_new) > 1 or len([each for each in alike_old if each not in new_by_id]) > 1:
            ambiguous.add(account_id)
    for account_id, account in covered.items():
        if account_id not in matched and account_id not in ambiguous | absent:
            matched[account_id] = (
                next(each["id"] for each in free if _likeness(each) == _likeness(account)),
                "attributes",
            )
    return matched, ambiguous, absent


def _likeness(account: Json) -> tuple[Any, ...]:
    return holder_of(account), account.get("institution_name"), account.get("last4"), account.get("subcategory")


@dataclass
class Request:
    """One request that the reading says was made, and what is known of it."""

    authorization: str
    account: str | None
    holder: tuple[str, str, str]
    institution: str
    reason: str
    covered: dict[str, str]
    permissions: set[str]
    widens: bool
    attempt: int
    breakage: tuple[str, str, int]
    made_on: date
    session_id: str | None = None
    outcome: str | None = None
    outcome_on: date | None = None
    previous: str | None = None
    failure_reason: str | None = None
    new_authorization: str | None = None
    cured: int | None = None
    is_contact: bool = True
    unmatched: set[str] = field(default_factory=set)
    snapshot: dict[str, Json] = field(default_factory=dict)

    @property
    def body(self) -> dict[str, str]:
        """The form fields of the POST, with the permissions as a set of their own (see `permissions`)."""
        kind, name, identifier = self.holder
        fields = {
            "account_holder[type]": kind,
            f"account_holder[{name}]": identifier,
            "relink_options[authorization]": self.authorization,
        }
        if self.account is not None:
            fields["relink_options[account]"] = self.account
            fields["limits[accounts]"] = "1"
        return fields


@dataclass
class Twin:
    """A fresh link that took an account's place; no request led to it."""

    authorization: str
    new_authorization: str


@dataclass
class Sighting:
    """An account as one night saw it."""

    night: int
    at: datetime
    login: str | None
    works: bool
    broken_at: datetime | None


@dataclass
class AccountReading:
    """What a row of the accounts table must say."""

    account: Json | None
    row: Mapping[str, Any] | None
    finding: str
    also: list[str]
    missing: list[str]
    next_step: str = ""
    shared_accounts: int | None = None
    shared_affected: int | None = None
    inactive_since: datetime | None = None
    inactive_since_basis: str | None = None
    days_inactive: int | None = None
    days_to_deactivation: int | None = None


class Reading:
    """The contract, read night after night."""

    def __init__(self, settings: Json | None = None) -> None:
        self.settings = SETTINGS | (settings or {})
        self.requests: list[Request] = []
        self.breakage_numbers: dict[tuple[str, str], int] = {}
        self.breakages_open: set[tuple[str, str]] = set()
        self.successors: dict[str, tuple[str, str, Request | Twin]] = {}
        self.sightings: dict[str, list[Sighting]] = {}
        self.last_seen: dict[str, Json] = {}
        self.nights_read = 0
        self.doubtful_twins: set[str] = set()
        self.refuted_twins: set[str] = set()
        self.inactive_since: dict[str, tuple[datetime, str]] = {}
        self.is_first_night = True
        self.eligible_on: dict[tuple[str, str, int], date] = {}
        self.last_at = datetime.min.replace(tzinfo=UTC)

    # --- what is found

    def night(
        self,
        accounts: list[Json],
        ledger: list[Mapping[str, Any]],
        now_at: datetime,
        deactivated_at: Mapping[str, datetime] | None = None,
    ) -> tuple[dict[str, AccountReading], list[Request]]:
        """The accounts table and tonight's requests in the order of sending. Collect outcomes of the same night first.

        `deactivated_at` is Stripe's own time, from the events since the night before.
        """
        today = business_date(now_at, self.settings)
        stripe = {account["id"]: account for account in accounts}
        rows = {row["account_id"]: row for row in ledger}
        found: dict[str, AccountReading] = {}
        for account_id in [*stripe, *(each for each in rows if each not in stripe)]:
            account, row = stripe.get(account_id), rows.get(account_id)
            names = all_findings(account, row, today, self.settings)
            missing = missing_permissions(account, row) if account and row else []
            found[account_id] = AccountReading(account, row, names[0] if names else "ok", names[1:], missing)
        self._remember_inactive(stripe, now_at, deactivated_at or {})
        groups: dict[str, list[str]] = {}
        for account_id, account in stripe.items():
            if account.get("authorization") is not None:
                groups.setdefault(account["authorization"], []).append(account_id)
        for account_id, read in found.items():
            if read.account is None:
                continue
            members = groups.get(read.account.get("authorization") or "", [])
            if members:
                read.shared_accounts = len(members)
                read.shared_affected = sum(1 for each in members if found[each].finding in AFFECTED)
            if account_id in self.inactive_since:
                at, read.inactive_since_basis = self.inactive_since[account_id]
                read.inactive_since = at
                read.days_inactive = (today - business_date(at, self.settings)).days
            expected = active_details(read.account).get("expected_deactivation_date")
            if read.account["status"] == "active" and expected is not None:
                read.days_to_deactivation = days_ahead(expected, today, self.settings)
        self._find_twins(stripe, found, now_at)
        self._keep_breakages(groups, found)
        requests = self._decide(groups, found, rows, today)
        return found, requests

    def _remember_inactive(
        self, stripe: dict[str, Json], now_at: datetime, deactivated_at: Mapping[str, datetime]
    ) -> None:
        basis = "first_run" if self.is_first_night else "observed"
        self.is_first_night = False
        for account_id, account in stripe.items():
            if account["status"] != "inactive":
                self.inactive_since.pop(account_id, None)
            elif account_id in deactivated_at and (
                account_id not in self.inactive_since or deactivated_at[account_id] > self.last_at
            ):
                self.inactive_since[account_id] = (deactivated_at[account_id], "event")
            else:
                self.inactive_since.setdefault(account_id, (now_at, basis))
        for account_id in [each for each in self.inactive_since if each not in stripe]:
            del self.inactive_since[account_id]
        self.last_at = now_at

    def _keep_breakages(self, groups: dict[str, list[str]], found: dict[str, AccountReading]) -> None:
        shown, opened = set(), set()
        for authorization, members in groups.items():
            for account_id in members:
                read = found[account_id]
                if self._is_replaced(account_id) or (read.row is not None and not is_open(read.row)):
                    continue
                if read.finding in AFFECTED:
                    opened.add((authorization, KIND[read.finding]))
                # An account that is merely misfiled or unreadable tonight does not end an outage that Stripe still shows.
                names = (read.finding, *read.also) if read.finding != "unreadable" else AFFECTED
                if read.finding in (*AFFECTED, "unreadable", "holder_mismatch", "not_in_ledger"):
                    shown.update((authorization, KIND[name]) for name in names if name in AFFECTED)
        self.breakages_open &= shown | opened
        for each in opened - self.breakages_open:
            self.breakage_numbers[each] = self.breakage_numbers.get(each, 0) + 1
            self.breakages_open.add(each)

    # --- which accounts may be one

    def _find_twins(self, stripe: dict[str, Json], found: dict[str, AccountReading], now_at: datetime) -> None:
        self.nights_read += 1
        for account_id, account in stripe.items():
            self.last_seen[account_id] = account
            since = self.inactive_since.get(account_id)
            sighting = Sighting(
                self.nights_read,
                now_at,
                account.get("authorization"),
                account["status"] == "active",
                None if since is None else since[0],
            )
            self.sightings.setdefault(account_id, []).append(sighting)
        self.doubtful_twins = set()
        alike: dict[tuple[Any, ...], list[str]] = {}
        for account_id, account in self.last_seen.items():
            if all(_likeness(account)):
                alike.setdefault(_likeness(account), []).append(account_id)
        for group in alike.values():
            if len(group) > 1:
                self._judge_alike(group, stripe, found)

    def _judge_alike(self, group: list[str], stripe: dict[str, Json], found: dict[str, AccountReading]) -> None:
        for each in group:
            new, by = self.successors[each][:2] if each in self.successors else ("", "")
            if by == "twin" and new in group and (self._shared_a_login(each, new) or self._worked_together(each, new)):
                self.refuted_twins.add(each)
        free = [each for each in group if not self._is_replaced(each)]
        rivals = {
            each: [other for other in free if other != each and not self._shared_a_login(each, other)] for each in free
        }
        heirs = {self.successors[each][0] for each in self.successors if self._is_replaced(each)}
        for each in free:
            if len(rivals[each]) == 1 and rivals[rivals[each][0]] == [each] and rivals[each][0] not in heirs:
                other = rivals[each][0]
                if each in stripe and other in stripe and self._took_its_place(each, other, found):
                    links = Twin(stripe[each]["authorization"], stripe[other]["authorization"])
                    self.successors[each] = (other, "twin", links)
                    continue
            read = found.get(each)
            if each not in stripe or read is None or read.row is None or read.finding not in AFFECTED:
                continue
            in_use = [
                other
                for other in rivals[each]
                if other in stripe and not (found[other].row is not None and not is_open(found[other].row or {}))
            ]
            if is_open(read.row) and any(self._goes_first(other, each, found) for other in in_use):
                self.doubtful_twins.add(each)

    def _shared_a_login(self, one: str, other: str) -> bool:
        return bool(
            {seen.login for seen in self.sightings[one] if seen.login}
            & {seen.login for seen in self.sightings[other] if seen.login}
        )

    def _worked_together(self, one: str, other: str) -> bool:
        return bool(
            {seen.night for seen in self.sightings[one] if seen.works}
            & {seen.night for seen in self.sightings[other] if seen.works}
        )

    def _took_its_place(self, old: str, new: str, found: dict[str, AccountReading]) -> bool:
        """Whether `new` was linked because `old` had stopped working."""
        was, now = found[old], found[new]
        assert was.account is not None
        assert now.account is not None
        if was.row is None or not is_open(was.row) or (now.row is not None and not is_open(now.row)):
            return False
        if was.finding not in ("inactive", "inactive_permanent", "disconnected") or now.account["status"] != "active":
            return False
        if now.finding not in ("ok", "not_in_ledger", *AFFECTED):
            return False
        if not was.account.get("authorization") or not now.account.get("authorization"):
            return False
        if was.account["status"] == "inactive" and inactive_details(was.account).get("cause") == "account_closed":
            return False
        linked_at = now.account["created"]
        refreshed = [
            (was.account.get(name) or {}).get("last_attempted_at")
            for name in ("balance_refresh", "ownership_refresh", "transaction_refresh")
            if (was.account.get(name) or {}).get("status") == "succeeded"
        ]
        if was.account["created"] >= linked_at or any(at is not None and at >= linked_at for at in refreshed):
            return False
        if self._worked_together(old, new):
            return False
        worked = [seen.night for seen in self.sightings[old] if seen.works]
        down = [seen for seen in self.sightings[old] if not worked or seen.night > worked[-1]]
        broken_at = min(seen.broken_at or seen.at for seen in down)
        late_by = broken_at.timestamp() - linked_at
        return late_by <= 0 or (bool(worked) and late_by <= 48 * 3600)

    def _goes_first(self, one: str, other: str, found: dict[str, AccountReading]) -> bool:
        """Whether, of two that may be one, the first is the one to ask about."""

        def order(account_id: str) -> tuple[Any, ...]:
            read = found[account_id]
            account = read.account or {}
            works = account["status"] == "active"
            in_need = read.finding in AFFECTED
            askable = in_need and read.row is not None and is_open(read.row)
            return works, works and not in_need, askable, account["created"], account_id

        return order(one) > order(other)

    # --- what is done

    def _decide(
        self,
        groups: dict[str, list[str]],
        found: dict[str, AccountReading],
        rows: Mapping[str, Mapping[str, Any]],
        today: date,
    ) -> list[Request]:
        silent = {row["account_holder_id"] for row in rows.values() if forbids_contact(row)}
        undecided: dict[str, list[str]] = {}
        for account_id, read in found.items():
            read.next_step = self._own_step(account_id, read, groups, found, silent, set(rows))
            if not read.next_step and read.account is not None:
                undecided.setdefault(read.account["authorization"], []).append(account_id)
        waiting = []
        for authorization, account_ids in undecided.items():
            covered = [each for each in groups[authorization] if self._is_covered(each, found[each], silent)]
            parts = [covered]
            # Several accounts used for payments, and no other, are asked for one after the other.
            if all((found[each].row or {}).get("purpose") == "payments" for each in covered):
                parts = [[each] for each in covered if found[each].finding in self.settings["reasons"]]
                parts.sort(
                    key=lambda part: (
                        self._asked_about(part[0], authorization, found),
                        self._urgency(part, found, part[0]),
                    )
                )
            tried = []
            for part in parts:
                covered, request = part, self._request(authorization, part, groups[authorization], found, today)
                tried.append(self._authorization_step(request, today))
                if not tried[-1]:
                    break
            step = tried[-1] and next((each for each in tried if each != "attempts_exhausted"), tried[0])
            if step:
                for account_id in account_ids:
                    found[account_id].next_step = step
            else:
                waiting.append((self._urgency(covered, found, authorization), request, account_ids))
            if step in ("", "open_session", "attempts_exhausted", "cooldown"):
                # A cap takes it back below: the days of a ladder begin once nothing holds the outage back.
                for outage in self._outages_of(authorization):
                    self.eligible_on.setdefault(outage, today)
        waiting.sort(key=lambda each: each[0])
        made: list[Request] = []
        for _, request, account_ids in waiting:
            if any(request.holder == other.holder for other in made):
                step = "cooldown"
            elif len(made) >= self.settings["max_requests_per_run"] or (
                self.settings["max_requests_per_institution"] is not None
                and sum(1 for other in made if other.institution == request.institution)
                >= self.settings["max_requests_per_institution"]
            ):
                step = "capped"
                for outage in self._outages_of(request.authorization):
                    if self.eligible_on.get(outage) == today:
                        del self.eligible_on[outage]
            else:
                step = "request"
                made.append(request)
            for account_id in account_ids:
                found[account_id].next_step = step
        return made

    def _outages_of(self, authorization: str) -> list[tuple[str, str, int]]:
        return [
            (each, kind, self.breakage_numbers[each, kind])
            for each, kind in self.breakages_open
            if each == authorization
        ]

    def _own_step(
        self,
        account_id: str,
        read: AccountReading,
        groups: dict[str, list[str]],
        found: dict[str, AccountReading],
        silent: set[str],
        named: set[str],
    ) -> str:
        finding, row, account = read.finding, read.row, read.account
        if finding == "ok":
            return "none"
        if row is not None and not is_open(row):
            return "ledger_closed"
        # An old row that is still open stays `replaced` after the ledger names the successor in another row.
        if self._is_replaced(account_id) and (row is not None or self.successors[account_id][0] not in named):
            return "replaced"
        if finding in ("disconnected", "inactive_permanent", "not_in_stripe"):
            return "not_relinkable"
        if finding in ("unreadable", "not_in_ledger", "holder_mismatch"):
            return "review"
        assert row is not None
        assert account is not None
        if row["account_holder_id"] in silent:
            return "do_not_contact"
        authorization = account["authorization"]
        if len({holder_of(found[each].account or {}) for each in groups[authorization]}) > 1:
            return "review"
        mine = [request for request in self.requests if request.authorization == authorization]
        if any(request.outcome == "unknown" and self._is_current(request) for request in mine):
            return "review"
        cause = inactive_details(account).get("cause") or active_details(account).get("cause")
        if cause in self.settings["causes_to_review"]:
            return "review"
        if any(account_id in request.unmatched and self._is_current(request) for request in mine):
            return "review"
        if account_id in self.doubtful_twins:
            return "review"
        if finding not in self.settings["reasons"]:
            return "reason_off"
        return ""

    def _asked_about(self, account_id: str, authorization: str, found: dict[str, AccountReading]) -> int:
        """How often the current outage of an account's kind was asked about for this very account."""
        kind = KIND[found[account_id].finding]
        outage = (authorization, kind, self.breakage_numbers[authorization, kind])
        return sum(
            1 for each in self.requests if each.is_contact and each.breakage == outage and account_id in each.covered
        )

    def _is_replaced(self, account_id: str) -> bool:
        is_moved = account_id in self.successors and self.successors[account_id][0] != account_id
        return is_moved and account_id not in self.refuted_twins

    def _is_covered(self, account_id: str, read: AccountReading, silent: set[str]) -> bool:
        return (
            read.finding in AFFECTED
            and read.row is not None
            and is_open(read.row)
            and read.row["account_holder_id"] not in silent
            and not self._is_replaced(account_id)
            and account_id not in self.doubtful_twins
        )

    def _is_current(self, request: Request) -> bool:
        authorization, kind, number = request.breakage
        return (authorization, kind) in self.breakages_open and self.breakage_numbers[authorization, kind] == number

    def _authorization_step(self, request: Request, today: date) -> str:
        mine = [each for each in self.requests if each.authorization == request.authorization]
        if any(each.outcome == "pending" for each in mine):
            return "open_session"
        contacts = [each for each in self.requests if each.is_contact]
        if sum(1 for each in contacts if each.breakage == request.breakage) >= self.settings["max_attempts"]:
            return "attempts_exhausted"
        ladder = self.settings["ladder_days"]
        if ladder is not None:
            begun = self.eligible_on.get(request.breakage, today)
            if request.attempt > len(ladder):
                return "attempts_exhausted"
            if (today - begun).days < ladder[request.attempt - 1]:
                return "cooldown"
        apart = self.settings["cooldown_days"] if ladder is None else 2
        for each in contacts:
            same = each.breakage == request.breakage or (each.holder == request.holder and each.outcome != "rejected")
            if same and (today - each.made_on).days < apart:
                return "cooldown"
        if not self.settings["allow_widening"] and request.widens:
            return "review"
        return ""

    def _request(
        self,
        authorization: str,
        covered: list[str],
        members: list[str],
        found: dict[str, AccountReading],
        today: date,
    ) -> Request:
        permissions: set[str] = set()
        for account_id in members:
            read = found[account_id]
            if read.row is not None and read.account is not None and is_open(read.row):
                permissions |= set(wanted(read.row) or read.account["permissions"] or [])
        only = found[covered[0]]
        assert only.row is not None
        assert only.account is not None
        scoped = len(covered) == 1 and only.row.get("purpose") == "payments"
        widens = False
        for account_id in members:
            read = found[account_id]
            assert read.account is not None
            # Nothing is asked of a sibling that is disconnected, nor of any where one account alone is asked for.
            if read.account["status"] == "disconnected" or (scoped and account_id != covered[0]):
                continue
            needs = set(wanted(read.row)) if read.row is not None and is_open(read.row) else set()
            if permissions - set(read.account["permissions"] or []) - needs:
                widens = True
        reason = next(name for name in ORDER if any(found[each].finding == name for each in covered))
        breakage = (authorization, KIND[reason], self.breakage_numbers[authorization, KIND[reason]])
        holder = holder_of(only.account)
        assert holder is not None
        return Request(
            authorization=authorization,
            account=covered[0] if scoped else None,
            holder=holder,
            institution=only.account["institution_name"],
            reason=reason,
            covered={account_id: found[account_id].finding for account_id in covered},
            permissions=permissions,
            widens=widens,
            attempt=1 + sum(1 for each in self.requests if each.breakage == breakage and each.is_contact),
            breakage=breakage,
            made_on=today,
            snapshot={account_id: found[account_id].account or {} for account_id in covered},
        )

    def _urgency(self, covered: list[str], found: dict[str, AccountReading], authorization: str) -> tuple[Any, ...]:
        due = []
        money: dict[str, int] = {}
        for account_id in covered:
            read = found[account_id]
            assert read.account is not None
            assert read.row is not None
            at = active_details(read.account).get("expected_deactivation_date")
            if account_id in self.inactive_since:
                due.append(business_date(self.inactive_since[account_id][0], self.settings))
            elif at is not None:
                due.append(business_date(datetime.fromtimestamp(at, UTC), self.settings))
            if read.row.get("exposure_minor") is not None:
                currency = str(read.row["currency"]).lower()
                money[currency] = money.get(currency, 0) + int(read.row["exposure_minor"])
        most = min(((currency, -amount) for currency, amount in money.items()), default=("~", 0))
        return min(due, default=date.max), most, authorization

    # --- what came of it

    def collect(
        self,
        accounts: list[Json],
        ledger: list[Mapping[str, Any]],
        sessions: Mapping[str, Json | None],
        now_at: datetime,
    ) -> list[Request]:
        """Judge each unsettled request; `sessions` holds those looked up tonight (None: gone). Returns those that changed."""
        today = business_date(now_at, self.settings)
        stripe = {account["id"]: account for account in accounts}
        rows = {row["account_id"]: row for row in ledger}
        changed = []
        for request in self.requests:
            is_provisional = request.outcome in PROVISIONAL and (today - (request.outcome_on or today)).days <= 30
            if request.session_id not in sessions or not (request.outcome == "pending" or is_provisional):
                continue
            before = request.outcome
            self._judge(request, sessions[request.session_id], stripe, rows, today)
            if request.outcome != before:
                request.previous, request.outcome_on = before, today
                changed.append(request)
        return changed

    def _judge(
        self,
        request: Request,
        session: Json | None,
        stripe: dict[str, Json],
        rows: Mapping[str, Mapping[str, Any]],
        today: date,
    ) -> None:
        cured = sum(
            1
            for account_id, finding in request.covered.items()
            if is_cured(stripe.get(account_id), finding, rows.get(account_id), today, self.settings)
        )
        status = (session or {}).get("status") or "pending"
        result = (session or {}).get("relink_result")
        if session is not None and status == "pending" and not result and request.outcome in PROVISIONAL:
            return
        request.cured = cured
        if session is None:
            request.outcome = "review"
            return
        if result and result.get("authorization") == request.authorization:
            for outcome, holds in (("relinked", cured == len(request.covered)), ("relinked_partially", cured > 0)):
                if holds:
                    request.outcome = outcome
                    return
            # An answer of which nothing shows ages like none at all; nobody could ever be asked again otherwise.
            is_old = self.is_given_up(request, today)
            request.outcome = "expired" if is_old else "pending"
        elif result and result.get("authorization"):
            self._succeed_elsewhere(request, result["authorization"], stripe)
        elif result and result.get("failure_reason"):
            request.outcome, request.failure_reason = "failed", result["failure_reason"]
        elif status in ("failed", "cancelled"):
            request.outcome = status
        elif status == "succeeded":
            request.outcome = "review"
        elif cured == len(request.covered):
            request.outcome = "healed"
        elif self.is_given_up(request, today):
            request.outcome = "expired"
        else:
            request.outcome = "pending"

    def is_given_up(self, request: Request, today: date) -> bool:
        """Whether a session has waited long enough: `pending_days`, or with a ladder until the day before its next step."""
        ladder = self.settings["ladder_days"]
        if ladder is None or request.attempt >= len(ladder):
            return bool((today - request.made_on).days > self.settings["pending_days"])
        begun = self.eligible_on.get(request.breakage, request.made_on)
        # A step that came late moves no later one, but two contacts are two dates apart.
        next_step = max(begun + timedelta(days=ladder[request.attempt]), request.made_on + timedelta(days=2))
        return today >= next_step

    def _succeed_elsewhere(self, request: Request, new_authorization: str, stripe: dict[str, Json]) -> None:
        request.new_authorization = new_authorization
        new = [account for account in stripe.values() if account.get("authorization") == new_authorization]
        siblings = [each for each in stripe.values() if each.get("authorization") == request.authorization]
        matched, ambiguous, absent = match_successors(request.snapshot, siblings, new)
        for account_id, (new_id, by) in matched.items():
            self.successors[account_id] = (new_id, by, request)
        request.outcome = "review" if ambiguous else "new_authorization"
        request.unmatched = ambiguous | absent
        if not ambiguous:
            request.cured = len(matched)
        # Where one of several accounts was asked for alone, the others keep the outage open.
        if not request.unmatched and request.account is None:
            self.breakages_open.discard(request.breakage[:2])
