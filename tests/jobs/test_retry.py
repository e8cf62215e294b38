"""`relink retry` tries again what a finished run could not send, under the same guards, and nothing that may have arrived."""

from __future__ import annotations

import pytest

from jobs.adapters import records
from jobs.adapters.database import open_database
from jobs.nightly import RunResult
from jobs.resumption import work_to_retry
from reconcile.errors import SettingsError
from tests.jobs.dying import die
from tests.jobs.nights import Nights, assert_ties, table


def retry(nights: Nights, run_id: str, *, dry_run: bool = False) -> RunResult | None:
    with open_database(nights.database_url) as database:
        work = work_to_retry(database, run_id, dry_run=dry_run)
    return None if work is None else nights.run(work)


def results(result: RunResult | None) -> dict[str, str]:
    assert result is not None
    return {row["authorization_id"]: row["result"] for row in table(result, "relink_requests")}


def skipped(result: RunResult | None) -> dict[str, str]:
    assert result is not None
    return {name: why for night in result.nights for name, why in night.skipped}


def refuse_one(nights: Nights) -> str:
    """A night in which Stripe has no address of the first customer, who then gives one; returns its run id."""
    nights.sections["relink"] = {"delivery": "hosted_email", **nights.sections.get("relink", {})}
    nights.world.set_email("cus_1", None)
    result = nights.run()
    assert (result.exit_code, nights.states()["fcauth_1"]) == (4, "rejected")
    nights.world.set_email("cus_1", "one@customers.example")
    return result.run_id


def test_a_refused_request_is_a_further_attempt(both_nights: Nights) -> None:
    nights = both_nights
    run_id = refuse_one(nights)
    nights.world.advance(hours=1)
    result = retry(nights, run_id)
    assert result is not None
    assert (result.exit_code, results(result)) == (0, {"fcauth_1": "created"})
    assert [(one.request.attempt, one.state) for one in nights.stored() if one.authorization_id == "fcauth_1"] == [
        (1, "rejected"),
        (2, "created"),
    ]
    assert_ties(result)
    assert (nights.link("latest") or "").endswith(run_id), "a retry is not the night"
    again = retry(nights, run_id)
    assert results(again) == {}
    assert skipped(again) == {
        "fcauth_1": f"open_session: session {nights.by_authorization()['fcauth_1'].session_id} is still open"
    }


def test_what_was_not_sent_keeps_its_attempt(both_nights: Nights) -> None:
    nights = both_nights
    nights.world.faults.script("rate_limit", method="POST", times=3)
    night = nights.run()
    assert (night.exit_code, nights.states()["fcauth_1"]) == (4, "not_sent")
    result = retry(nights, night.run_id)
    assert results(result) == {"fcauth_1": "created"}
    assert nights.by_authorization()["fcauth_1"].request.attempt == 1
    assert nights.world.contacts_by_authorization() == {"fcauth_1": 1, "fcauth_2": 1, "fcauth_3": 1}


def test_an_unknown_request_is_left_to_a_person(nights: Nights) -> None:
    nights.world.faults.script("error_500_after", method="POST")
    night = nights.run()
    assert nights.states()["fcauth_1"] == "unknown"
    assert retry(nights, night.run_id) is None
    assert nights.world.contacts_by_authorization()["fcauth_1"] == 1


def test_attempts_run_out(nights: Nights) -> None:
    nights.sections["relink"] = {"max_attempts": 1}
    run_id = refuse_one(nights)
    assert skipped(retry(nights, run_id)) == {"fcauth_1": "attempts_exhausted: 1 of 1 attempts are spent"}


def test_a_customer_who_was_asked_elsewhere_meanwhile_cools_down(nights: Nights) -> None:
    """The refusal is forgiven; that the same customer was reached about another bank is not."""
    from tests.jobs.nights import add_customer

    add_customer(nights.world, 7, holder="cus_1")
    nights.load_ledger()
    run_id = refuse_one(nights)
    nights.world.break_authorization("fcauth_7")
    nights.world.advance(days=1)
    nights.run()
    assert nights.world.contacts_by_authorization()["fcauth_7"] == 1
    assert skipped(retry(nights, run_id))["fcauth_1"].startswith("cooldown: last asked on")
    assert "fcauth_1" not in nights.world.contacts_by_authorization()


def test_a_later_night_gives_the_date(nights: Nights) -> None:
    run_id = refuse_one(nights)
    first = nights.newest_run().business_date
    same_date = retry(nights, run_id, dry_run=True)
    nights.next_night()
    later = retry(nights, run_id, dry_run=True)
    assert same_date is not None
    assert later is not None
    assert (same_date.stamp.business_date, later.stamp.business_date) == (first, nights.now().date())


def test_a_dry_run_asks_nobody(nights: Nights) -> None:
    run_id = refuse_one(nights)
    before, posts = nights.knowledge(), nights.posts()
    assert results(retry(nights, run_id, dry_run=True)) == {"fcauth_1": "would_request"}
    assert (nights.knowledge(), nights.posts()) == (before, posts)


def test_refuses_a_run_that_did_not_finish(nights: Nights) -> None:
    die(nights, "planned")
    with open_database(nights.database_url) as database:
        run_id = records.list_runs(database, limit=1)[0].run_id
        with pytest.raises(SettingsError, match=f"relink resume {run_id}"):
            work_to_retry(database, run_id)
        with pytest.raises(SettingsError, match="there is no run"):
            work_to_retry(database, "20260101T000000Z-0000")
