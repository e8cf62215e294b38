"""Every number on the page, counted once more from the published Parquet files with SQL, without the code that made the page."""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path

import duckdb
import pytest

from tests.reports.page_reading import read_page
from tests.reports.page_world import publish_world

Key = tuple[str, str, str]
BROKEN = "finding in ('inactive', 'account_number', 'expiring', 'permissions')"
LOST = "finding in ('disconnected', 'inactive_permanent', 'not_in_stripe')"
CURED = "outcome in ('relinked', 'relinked_partially', 'new_authorization')"
UNASKED = "outcome in ('rejected', 'not_sent', 'unknown')"
FAILED = "outcome in ('failed', 'cancelled', 'expired')"
GROUPS = {
    "came back": CURED,
    "failed": "outcome = 'failed'",
    "left": "outcome = 'cancelled'",
    "no answer": "outcome = 'expired'",
    "waiting": "outcome = 'pending'",
    "healed alone": "outcome = 'healed'",
    "for a person": "outcome = 'review'",
    "not asked": UNASKED,
}
REASON = """case when outcome = 'cancelled' then 'left before the end' when outcome = 'expired' then 'no answer in time'
    when failure_reason = 'no_account' then 'did not link the account' when failure_reason = 'no_authorization' then 'did not log in at the bank'
    when failure_reason = 'other' then 'something unexpected' when failure_reason is null then 'failed, no reason given' else failure_reason end"""


World = tuple[Path, list[tuple[date, str, str]]]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("world")
    return root, publish_world(root)


class Recount:
    """The figures that the files hold, by table, row and name without its first parts."""

    def __init__(self, root: Path, run: Path, complete: list[str]) -> None:
        self.sql = duckdb.connect()
        self.figures: dict[Key, float | None] = {}
        self.summary = json.loads((run / "summary.json").read_text())
        self.night = date.fromisoformat(self.summary["run_date"])
        for name in ("accounts", "authorizations", "relink_requests", "relink_outcomes", "failure_reasons"):
            self.sql.execute(f"create view {name} as select * from read_parquet('{run}/{name}.parquet')")
            chosen = f" and run_id in {tuple(complete)}" if name in ("accounts", "authorizations") else ""
            self.sql.execute(
                f"create view all_{name} as select * from read_parquet('{root}/run_date=*/run_id=*/{name}.parquet', hive_partitioning=true)"
                f" where run_date > date '{self.night}' - 30 and run_id <= '{self.summary['run_id']}'{chosen}"
            )
        self.sql.execute(
            "create view newest as select * from all_relink_outcomes qualify row_number() over "
            "(partition by merchant, request_id order by run_date desc, run_id desc) = 1"
        )
        self.base = ""

    def all(self, query: str, *values: object) -> list[tuple]:  # type: ignore[type-arg]
        return self.sql.execute(query, values).fetchall()

    def one(self, query: str, *values: object):  # type: ignore[no-untyped-def]
        return self.all(query, *values)[0][0]

    def put(self, table: str, row: str, name: str, value: float | None) -> None:
        key = (table, row, name)
        assert key not in self.figures, key
        self.figures[key] = value

    def money(self, table: str, row: str, query: str) -> None:
        for currency, amount in self.all(f"select currency, sum(exposure_minor) from {query} group by 1"):
            if currency is not None and amount is not None:
                self.put(table, row, currency, amount)


def rate(part: float, whole: float) -> float | None:
    return None if whole < 5 else round(part / whole, 6)


def recount(root: Path, run: Path, complete: list[str], base: str) -> dict[Key, float | None]:
    """`complete` are the newest complete runs of each date, this one last; `base` is the last complete one before it."""
    of = Recount(root, run, complete)
    of.sql.execute(
        f"create view base as select * from read_parquet('{root}/run_date=*/run_id={base}/accounts.parquet', hive_partitioning=true)"
    )
    of.base = base
    open_broken = f"accounts where {BROKEN} and ledger_status = 'open' and exposure_minor is not null"
    _changes(of)
    _funnel(of)
    _times(of)
    for step, number in of.all(f"select next_step, count(*) from accounts where {BROKEN} group by 1"):
        of.put("steps", step, "accounts", number)
        of.money("steps", step, f"{open_broken} and next_step = '{step}'")
    for finding, number in of.all(f"select finding, count(*) from accounts where {LOST} group by 1"):
        of.put("lost", finding, finding, number)
    _window(of)
    _stake(of, open_broken)
    _expected(of)
    for merchant in ("east", "west", "all"):
        own = "true" if merchant == "all" else f"merchant = '{merchant}'"
        of.put("merchants", merchant, "accounts", of.one(f"select count(*) from accounts where {own}"))
        of.put("merchants", merchant, "broken", of.one(f"select count(*) from accounts where {BROKEN} and {own}"))
        of.money("merchants", merchant, f"{open_broken} and {own}")
    _trend(of)
    for total in json.loads((run / "manifest.json").read_text())["control"]:
        for side in ("left", "right"):
            of.put("control", f"{total['name']} | {'ties' if total['ties'] else 'DOES NOT TIE'}", side, total[side])
    _needs(of)
    _keys(of, open_broken)
    return of.figures


def _trend(of: Recount) -> None:
    asked = "authorizations where affected_accounts > 0 and next_step in"
    steps = "('open_session', 'attempts_exhausted', 'cooldown', 'held_by_brake', 'capped', 'request')"
    for on, number in of.all(f"select run_date, count(*) filter ({BROKEN}) from all_accounts group by 1"):
        of.put("trend", str(on), "broken", number)
        for name, chosen in (("eligible", steps), ("held", "('held_by_brake')")):
            of.put("trend", str(on), name, of.one(f"select count(*) from all_{asked} {chosen} and run_date = ?", on))
        of.money("trend", str(on), f"all_accounts where {BROKEN} and ledger_status = 'open' and run_date = '{on}'")
    complete = {on for (on,) in of.all("select distinct run_date from all_accounts")}
    dates = [on for (on,) in of.all("select distinct run_date from all_relink_outcomes")]
    rows = {f"{on}{'' if on in complete else ' | no nightly run'}": f"run_date = date '{on}'" for on in dates}
    for row, condition in {**rows, "all": "true"}.items():
        number = {
            name: of.one(f"select count(distinct (merchant, request_id)) from {counted} and {condition}")
            for name, counted in {
                "created": "all_relink_requests where result = 'created'",
                "unknown": "all_relink_requests where result = 'unknown'",
                "answered": f"all_relink_outcomes where ({CURED} or outcome in ('failed', 'cancelled', 'review'))",
                "came_back": f"all_relink_outcomes where {CURED}",
            }.items()
        }
        for name, found in number.items():
            of.put("trend", row, name, found)
        of.put("trend", row, "share", rate(number["came_back"], number["answered"]))


def _changes(of: Recount) -> None:
    of.sql.execute(f"""
        create view moved as
        select b.merchant, b.account_id, coalesce(a.finding, 'gone') as finding,
               case when a.account_id is null then b.exposure_minor else a.exposure_minor end as exposure_minor, case when a.account_id is null then b.currency else a.currency end as currency,
               case when a.account_id is null then b.ledger_status else a.ledger_status end as ledger_status,
               case when a.account_id is null or a.{LOST} then 'lost'
                    when exists (select 1 from all_relink_outcomes o where o.run_id > '{of.base}' and o.{CURED}
                                 and o.merchant = b.merchant and o.authorization_id = b.authorization_id) then 'recovered'
                    when a.finding = 'ok' then 'healed' else 'other' end as what
        from base b left join accounts a using (merchant, account_id)
        where b.{BROKEN} and (a.account_id is null or not a.{BROKEN})
        union all
        select a.merchant, a.account_id, a.finding, a.exposure_minor, a.currency, a.ledger_status, 'new'
        from accounts a left join base b using (merchant, account_id)
        where a.{BROKEN} and (b.account_id is null or not b.{BROKEN})""")
    of.put(
        "changes",
        f"broken on {of.one('select max(run_date) from base')}",
        "before",
        of.one(f"select count(*) from base where {BROKEN}"),
    )
    of.put("changes", "broken tonight", "now", of.one(f"select count(*) from accounts where {BROKEN}"))
    for what in ("new", "recovered", "healed", "lost", "other"):
        row = "otherwise" if what == "other" else what
        of.put("changes", row, what, of.one("select count(*) from moved where what = ?", what))
        of.money("changes", row, f"moved where what = '{what}' and ledger_status = 'open'")


def _funnel(of: Recount) -> None:
    steps = "('open_session', 'attempts_exhausted', 'cooldown', 'held_by_brake', 'capped', 'request')"
    of.sql.execute(f"""
        create view logins as select merchant, authorization_id, bool_or(next_step in {steps}) as eligible
        from all_authorizations where affected_accounts > 0 group by all""")
    finished = "(outcome = 'pending' and session_status = 'succeeded')"
    answered = f"({CURED} or outcome in ('failed', 'cancelled', 'review') or {finished})"
    conditions = {
        "affected": "true",
        "eligible": "eligible",
        "asked": f"eligible and o.request_id is not null and not {UNASKED}",
        "answered": f"eligible and {answered}",
        "relinked": f"eligible and ({CURED} or {finished})",
        "active": f"eligible and {CURED} and accounts_cured >= accounts_expected",
    }
    whole = of.one("select count(*) from logins")
    for name, condition in conditions.items():
        number = of.one(
            "select count(distinct (l.merchant, l.authorization_id)) from logins l left join newest o using (merchant, authorization_id) "
            f"where {condition}"
        )
        row = "active again" if name == "active" else name
        of.put("funnel", row, name, number)
        of.put("funnel", row, "share", rate(number, whole))


def _times(of: Recount) -> None:
    for name, grouping in (("coalesce(institution_name, '(no name)')", "group by 1"), ("'all'", "")):
        for row, number, bounds, median, high in of.all(
            f"select {name}, count(*), count(*) filter (outcome_at_basis <> 'event'), quantile_cont(hours_to_outcome, 0.5), "
            f"quantile_cont(hours_to_outcome, 0.9) from newest where {CURED} and hours_to_outcome is not null {grouping}"
        ):
            few = number < 5
            of.put("times", row, "relinked", number)
            of.put("times", row, "bounds", bounds)
            of.put("times", row, "median", None if few else round(median, 4))
            of.put("times", row, "p90", None if few else round(high, 4))


def _window(of: Recount) -> None:
    asked = f"coalesce(sum(requests) filter (not {UNASKED}), 0)"
    groups = ", ".join(f"coalesce(sum(requests) filter ({condition}), 0)" for condition in GROUPS.values())
    for name, grouping in (("coalesce(institution_name, '(no name)')", "group by 1"), ("'all'", "")):
        for row in of.all(f"select {name}, sum(requests), {asked}, {groups} from failure_reasons {grouping}"):
            of.put("outcomes", row[0], "requests", row[1])
            for label, number in zip(GROUPS, row[3:], strict=True):
                of.put("outcomes", row[0], label, number)
            of.put("outcomes", row[0], "rate", rate(row[3], row[2]))
    reasons = [one for (one,) in of.all(f"select distinct {REASON} from failure_reasons where {FAILED}")]
    for (cause,) in of.all(f"select distinct coalesce(cause, 'none given') from failure_reasons where {FAILED}"):
        chosen = f"from failure_reasons where {FAILED} and coalesce(cause, 'none given') = ?"
        of.put("causes", cause, "requests", of.one(f"select sum(requests) {chosen}", cause))
        for reason in reasons:
            of.put(
                "causes",
                cause,
                reason,
                of.one(f"select coalesce(sum(requests) filter ({REASON} = '{reason}'), 0) {chosen}", cause),
            )
    for name, cause, reason, number, whole in of.all(
        f"select coalesce(institution_name, '(no name)'), coalesce(cause, 'none given'), {REASON}, sum(requests), any_value(whole) from "
        "(select *, sum(requests) over (partition by coalesce(institution_name, '(no name)'), coalesce(cause, 'none given')) as whole from failure_reasons) "
        f"where {FAILED} group by 1, 2, 3"
    ):
        of.put("failures", f"{name} | {cause} | {reason}", "requests", number)
        of.put("failures", f"{name} | {cause} | {reason}", "share", rate(number, whole))


def _stake(of: Recount, open_broken: str) -> None:
    ages = {
        "0–7 days": "days_inactive <= 7",
        "8–30 days": "days_inactive between 8 and 30",
        "31–60 days": "days_inactive between 31 and 60",
        "61–90 days": "days_inactive between 61 and 90",
        "over 90 days": "days_inactive > 90",
        "not inactive yet": "days_inactive is null",
        "all": "true",
    }
    for label, condition in ages.items():
        of.put("ages", label, "accounts", of.one(f"select count(*) from accounts where {BROKEN} and {condition}"))
        first = f"select count(*) from accounts where {BROKEN} and {condition} and inactive_since_basis = 'first_run'"
        of.put("ages", label, "at_least", of.one(first))
        of.money("ages", label, f"{open_broken} and {condition}")
    for name, broken, whole in of.all(
        f"select coalesce(institution_name, '(no name)'), count(*) filter ({BROKEN} and ledger_status = 'open') as broken, "
        "count(*) filter (stripe_status is not null and ledger_status = 'open') from accounts group by 1 having broken > 0"
    ):
        of.put("institutions", name, "broken", broken)
        of.put("institutions", name, "in_use", whole)
        of.put("institutions", name, "share", rate(broken, whole))
        for currency, amount in of.all(
            f"select currency, sum(exposure_minor) from {open_broken} and coalesce(institution_name, '(no name)') = ? group by 1",
            name,
        ):
            of.put("institutions", name, currency, amount)


def _expected(of: Recount) -> None:
    monday = of.night - timedelta(days=of.night.weekday())
    end = monday + timedelta(days=35)
    day = "expected_deactivation_date"
    rows = f"accounts where stripe_status = 'active' and ledger_status = 'open' and {day}"
    parts = {
        "Expected before tonight, still active": f"< date '{of.night}'",
        f"Expected from tonight to {end - timedelta(days=1)}": f"between date '{of.night}' and date '{end}' - 1",
        "Expected later": f">= date '{end}'",
    }
    for label, condition in parts.items():
        of.put("expected", label, "accounts", of.one(f"select count(*) from {rows} {condition}"))
        of.money("expected", label, f"{rows} {condition}")
    soon = list(parts.values())[1]
    for on, number in of.all(f"select {day}, count(*) from {rows} {soon} group by 1"):
        of.put("calendar", "", str(on), number)
    for week, currency, amount in of.all(
        f"select date_trunc('week', {day})::date, currency, sum(exposure_minor) from {rows} {soon} group by 1, 2"
    ):
        if amount is not None:
            of.put("calendar", "", f"{week} {currency}", amount)


def _needs(of: Recount) -> None:
    reviewed = "(select distinct merchant, authorization_id from accounts where next_step = 'review' and authorization_id is not null)"
    unknown = f"""newest n where outcome = 'unknown' and (exists (select 1 from {reviewed} r where r.merchant = n.merchant
        and r.authorization_id = n.authorization_id) or exists (select 1 from relink_outcomes t where t.request_id = n.request_id))"""
    three = "('unreadable', 'not_in_ledger', 'holder_mismatch')"
    counts = {
        "east": "select count(*) from authorizations where next_step = 'held_by_brake' and merchant = 'east'",
        "unknown": f"select count(*) from {unknown}",
        "rejected": "select count(*) from relink_requests where result = 'rejected'",
        "not_sent": "select count(*) from relink_requests where result = 'not_sent'",
        "answers": "select count(*) from relink_outcomes where outcome = 'review'",
        **{
            finding: f"select count(*) from accounts where next_step = 'review' and finding = '{finding}'"
            for finding in ("unreadable", "not_in_ledger", "holder_mismatch")
        },
        "review": f"""select count(*) from accounts a where next_step = 'review' and finding not in {three}
            and not exists (select 1 from {unknown} and n.merchant = a.merchant and n.authorization_id = a.authorization_id)""",
        **{
            step: f"select count(*) from accounts where next_step = '{step}'"
            for step in ("attempts_exhausted", "replaced")
        },
    }
    for name, query in counts.items():
        if number := of.one(query):
            of.put("", "", f"needs {name}", number)


def _keys(of: Recount, open_broken: str) -> None:
    changed, figures = ("changes",), of.figures
    of.put("", "", "key broken", of.one(f"select count(*) from accounts where {BROKEN}"))
    of.put("", "", "key came_back", sum(figures[*changed, name, name] or 0 for name in ("recovered", "healed")))
    for currency, amount in of.all(f"select currency, sum(exposure_minor) from {open_broken} group by 1"):
        of.put("", "", f"key {currency}", amount)
    of.put("", "", "key asked", of.one("select count(*) from relink_requests where result = 'created'"))
    of.put(
        "",
        "",
        "key expected",
        next(value for (table, row, _), value in figures.items() if table == "expected" and "from tonight" in row),
    )
    waiting = sum(value or 0 for (_, _, name), value in figures.items() if name.startswith("needs "))
    of.put("", "", "key waiting", waiting)


def on_page(html: str) -> dict[Key, float | None]:
    """The page's figures under the same names: the last part of each, where a number of a row stands before it."""
    figures: dict[Key, float | None] = {}
    for (table, row, name), value in read_page(html).figures.items():
        first, _, last = name.partition(".")
        if table == "calendar":
            key = (table, "", last.replace(".", " "))
        elif table:
            key = (table, row, last if first == "trend" and "." not in last else last.rpartition(".")[2])
        else:
            key = ("", "", f"{first} {last.rpartition('.')[2]}")
        assert key not in figures, key
        figures[key] = value
    return figures


@pytest.mark.parametrize(
    ("number", "complete", "base"),
    [(1, (0, 1), 0), (5, (0, 1, 3, 5), 3), (6, (0, 1, 3, 6), 5), (7, (0, 1, 3, 6, 7), 6)],
)
def test_every_number_on_the_page_is_that_of_the_files_before_it(
    world: World, number: int, complete: tuple[int, ...], base: int
) -> None:
    """A collect and a stopped run lie between; a later run of a date stands for it in the trend."""
    root, runs = world
    on, run_id, _ = runs[number]
    run = root / f"run_date={on}" / f"run_id={run_id}"
    found = on_page((run / "index.html").read_text(encoding="utf-8"))
    expected = recount(root, run, [runs[each][1] for each in complete], runs[base][1])
    assert len(found) > 500
    assert found.keys() == expected.keys()
    # Halves of the last decimal are rounded up here and to the even digit there.
    differ = {
        key: (found[key], expected[key]) for key in found if found[key] != pytest.approx(expected[key], abs=1.5e-4)
    }
    assert differ == {}
