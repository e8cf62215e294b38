"""What came of a request: every row of the outcome table by example, and which sessions are worth a read."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from reconcile.model import CoveredAccount, Holder, State, StoredRequest
from reconcile.normalize import accounts_frame
from reconcile.outcomes import Conclusion, Look, account_states, conclude, sessions_to_read, unmatched_accounts
from reconcile.policy import RelinkPolicy
from reconcile.records import AccountRecord, SessionRecord
from tests.reconcile.nights import FIRST_NIGHT, account, expiring, inactive, number, request, session, stamp, stored

POLICY = RelinkPolicy(pending_days=7)
SAME, OTHER = {"result_authorization": "fcauth_1"}, {"result_authorization": "fcauth_2"}


def covered(account_id: str, finding: str = "inactive", last4: str = "0001", *needs: str) -> CoveredAccount:
    return CoveredAccount(account_id, finding, needs, "Bank One", last4, "checking")


TWO = (covered("fca_1"), covered("fca_2", last4="0002"))


def asked(*accounts: CoveredAccount, **fields: Any) -> StoredRequest:
    return stored(request(*accounts), stamp().business_date, FIRST_NIGHT, **fields)


def look(seen: SessionRecord | None, *, gone: bool = False) -> Look:
    return Look(seen, gone=gone)


def concluded(
    one: StoredRequest, seen: SessionRecord | Look | None, *accounts: AccountRecord, day: int = 1
) -> Conclusion | None:
    looked = look(seen) if isinstance(seen, SessionRecord) else seen
    return conclude(one, looked, account_states(accounts_frame(accounts)), POLICY, stamp(day))


def outcome(*arguments: Any, **options: Any) -> tuple[str, int]:
    found = concluded(*arguments, **options)
    assert found is not None
    return found.outcome.kind, found.outcome.accounts_cured


def test_same_authorization_with_every_some_and_no_covered_account_cured() -> None:
    done = session("succeeded", **SAME)
    second = {"last4": "0002"}
    assert outcome(asked(*TWO), done, account("fca_1"), account("fca_2", **second)) == ("relinked", 2)
    assert outcome(asked(*TWO), done, account("fca_1"), inactive("fca_2", **second)) == ("relinked_partially", 1)
    assert outcome(asked(*TWO), done, account("fca_1")) == ("relinked_partially", 1)
    assert outcome(asked(*TWO), done, inactive("fca_1"), inactive("fca_2", **second)) == ("pending", 0)


def test_the_sessions_own_accounts_show_a_cure_that_the_snapshot_does_not_yet() -> None:
    done = session("succeeded", account("fca_1"), **SAME)
    assert outcome(asked(), done, inactive("fca_1")) == ("relinked", 1)


@pytest.mark.parametrize(
    ("finding", "cured", "broken"),
    [
        ("inactive", account(), inactive()),
        ("inactive", expiring(), account(status="disconnected")),
        ("expiring", account(), expiring(days=15)),
        ("expiring", expiring(days=16), expiring(days=None)),
        ("expiring", account(active_action="none"), inactive()),
        (
            "account_number",
            account(account_numbers=(number("pending"),)),
            account(account_numbers=(number("expired"),)),
        ),
        (
            "account_number",
            account(account_numbers=(number("expired"), number("transactable", 16))),
            account(account_numbers=(number("transactable", 15),)),
        ),
        ("permissions", account(permissions=("ownership",)), account(permissions=("balances",))),
        ("permissions", account(permissions=("ownership", "balances")), account(permissions=None)),
    ],
)
def test_cured_is_the_end_of_what_was_found(finding: str, cured: AccountRecord, broken: AccountRecord) -> None:
    one = asked(covered("fca_1", finding, "0001", "ownership"))
    assert outcome(one, session("succeeded", **SAME), cured) == ("relinked", 1)
    assert outcome(one, session("succeeded", **SAME), broken) == ("pending", 0)


@pytest.mark.parametrize("status", ["failed", "succeeded", "cancelled", "pending", None, "of another word"])
@pytest.mark.parametrize("reason", ["no_account", "no_authorization", "other", "a word of next year"])
def test_failure_reason_stands_before_the_status_and_as_stripe_sent_it(status: str | None, reason: str) -> None:
    found = concluded(asked(), session(status, failure_reason=reason), inactive())
    assert found is not None
    assert (found.outcome.kind, found.outcome.failure_reason) == ("failed", reason)


def test_a_result_stands_before_the_status() -> None:
    assert outcome(asked(), session("failed", **SAME), account()) == ("relinked", 1)
    assert outcome(asked(), session("cancelled", **SAME), account()) == ("relinked", 1)


@pytest.mark.parametrize(
    ("status", "expected"),
    [("failed", "failed"), ("cancelled", "cancelled"), ("succeeded", "review"), ("pending", "pending")],
)
def test_without_a_result_the_status_decides(status: str, expected: str) -> None:
    found = concluded(asked(), session(status), inactive())
    assert found is not None
    assert (found.outcome.kind, found.outcome.failure_reason, found.outcome.session_status) == (expected, None, status)


def test_a_session_that_stripe_knows_no_more_is_for_a_person() -> None:
    assert outcome(asked(), look(None, gone=True), account()) == ("review", 1)


def test_healed_needs_every_covered_account_and_no_answer() -> None:
    assert outcome(asked(*TWO), session(), account("fca_1"), account("fca_2")) == ("healed", 2)
    assert outcome(asked(*TWO), session(), account("fca_1"), inactive("fca_2")) == ("pending", 1)
    # Without a look at the session nobody knows whether the customer did it.
    assert outcome(asked(*TWO), None, account("fca_1"), account("fca_2")) == ("pending", 2)


def test_expired_is_older_than_pending_days() -> None:
    assert outcome(asked(), session(), inactive(), day=7) == ("pending", 0)
    assert outcome(asked(), session(), inactive(), day=8) == ("expired", 0)
    assert outcome(asked(), None, inactive(), day=8) == ("pending", 0)


def test_an_answer_replaces_a_provisional_outcome_and_silence_does_not() -> None:
    for before in ("expired", "healed", "cancelled"):
        one = replace(asked(), outcome=before, outcome_observed_at=FIRST_NIGHT)
        found = concluded(one, session("succeeded", **SAME), account(), day=9)
        assert found is not None
        assert (found.outcome.kind, found.outcome.previous) == ("relinked", before)
        assert concluded(one, session(), inactive(), day=9) is None
        assert concluded(one, None, account(), day=9) is None


def test_provisional_for_thirty_days() -> None:
    one = replace(asked(), outcome="expired", outcome_observed_at=FIRST_NIGHT)
    customer = {one.request.holder}
    assert sessions_to_read([one], customer, [], stamp(30), POLICY) == [one]
    assert sessions_to_read([one], customer, [], stamp(31), POLICY) == []
    assert sessions_to_read([one], [], [], stamp(3), POLICY) == []
    for settled in ("relinked", "failed", "review", "new_authorization", "relinked_partially"):
        assert sessions_to_read([replace(one, outcome=settled)], customer, ["fcsess_1"], stamp(1), POLICY) == []


def test_an_open_session_is_read_on_days_1_and_3_on_news_and_before_it_expires() -> None:
    days, one = [], asked()
    for day in range(10):
        if sessions_to_read([one], [], [], stamp(day), POLICY):
            days.append(day)
            one = replace(one, last_checked_at=stamp(day).as_of)
    assert days == [1, 3, 8, 9]
    assert sessions_to_read([one], [Holder("customer", "cus_1")], [], stamp(5), POLICY) == [one]
    assert sessions_to_read([one], [Holder("customer_account", "cus_1")], [], stamp(5), POLICY) == []
    assert sessions_to_read([one], [], ["fcsess_1"], stamp(5), POLICY) == [one]
    assert sessions_to_read([one], [], ["fcsess_2"], stamp(5), POLICY) == []


def test_a_missed_night_is_made_up_for_and_what_has_no_session_is_never_read() -> None:
    assert sessions_to_read([asked()], [], [], stamp(2), POLICY) != []
    late = replace(asked(), last_checked_at=stamp(2).as_of)
    assert sessions_to_read([late], [], [], stamp(4), POLICY) == [late]
    for state in (State.UNKNOWN, State.REJECTED, State.NOT_SENT):
        one = asked(state=str(state), session_id=None)
        assert sessions_to_read([one], [one.request.holder], [], stamp(1), POLICY) == []


def successors(found: Conclusion | None) -> dict[str, tuple[str, str]]:
    assert found is not None
    return {one.old_account_id: (one.new_account_id, one.matched_by) for one in found.successors}


def elsewhere(*accounts: AccountRecord) -> Conclusion | None:
    return concluded(asked(*TWO), session("succeeded", **OTHER), *accounts)


def test_new_authorization_matched_by_id() -> None:
    found = elsewhere(account("fca_1", "fcauth_2"), account("fca_2", "fcauth_2", last4="0002"))
    assert found is not None
    assert (found.outcome.kind, found.outcome.result_authorization_id) == ("new_authorization", "fcauth_2")
    assert successors(found) == {"fca_1": ("fca_1", "id"), "fca_2": ("fca_2", "id")}


def test_new_authorization_matched_by_attributes() -> None:
    old = inactive("fca_1"), inactive("fca_2", last4="0002")
    found = elsewhere(*old, account("fca_8", "fcauth_2"), account("fca_9", "fcauth_2", last4="0002"))
    assert found is not None
    assert found.outcome.kind == "new_authorization"
    assert successors(found) == {"fca_1": ("fca_8", "attributes"), "fca_2": ("fca_9", "attributes")}


@pytest.mark.parametrize(
    "strange",
    [
        {"account_holder_id": "cus_2"},
        {"holder_type": "customer_account"},
        {"institution_name": "Bank Two"},
        {"last4": "0009"},
        {"last4": None},
        {"subcategory": "savings"},
    ],
)
def test_one_attribute_that_differs_is_no_match(strange: dict[str, Any]) -> None:
    found = elsewhere(inactive("fca_1"), account("fca_8", "fcauth_2", **strange))
    assert found is not None
    assert found.outcome.kind == "new_authorization"
    assert found.successors == ()


def test_a_partial_match_leaves_the_others_to_a_person() -> None:
    found = elsewhere(inactive("fca_1"), inactive("fca_2", last4="0002"), account("fca_8", "fcauth_2"))
    assert found is not None
    assert found.outcome.kind == "new_authorization"
    assert successors(found) == {"fca_1": ("fca_8", "attributes")}
    one = replace(asked(*TWO), outcome="new_authorization", result_authorization_id="fcauth_2")
    assert unmatched_accounts([one], {"fca_1": "fca_8"}) == {"fca_2"}


def test_anything_ambiguous_is_reviewed_and_never_guessed() -> None:
    twice = [account("fca_8", "fcauth_2"), account("fca_9", "fcauth_2")]
    found = concluded(asked(), session("succeeded", **OTHER), inactive("fca_1"), *twice)
    assert found is not None
    assert (found.outcome.kind, found.successors) == ("review", ())
    twins = covered("fca_1"), covered("fca_2")  # two old ones alike, one new
    found = concluded(asked(*twins), session("succeeded", **OTHER), account("fca_8", "fcauth_2"))
    assert found is not None
    assert (found.outcome.kind, found.successors) == ("review", ())
    # An account of the old authorization that nobody was asked about could be the one, too.
    found = concluded(
        asked(), session("succeeded", **OTHER), inactive("fca_1"), account("fca_7"), account("fca_8", "fcauth_2")
    )
    assert found is not None
    assert (found.outcome.kind, found.successors) == ("review", ())


def test_an_id_match_takes_its_account_out_of_the_likenesses() -> None:
    twins = covered("fca_1"), covered("fca_2")
    found = concluded(
        asked(*twins), session("succeeded", **OTHER), account("fca_1", "fcauth_2"), account("fca_8", "fcauth_2")
    )
    assert successors(found) == {"fca_1": ("fca_1", "id"), "fca_2": ("fca_8", "attributes")}


def test_accounts_under_a_third_authorization_are_no_successors() -> None:
    found = elsewhere(inactive("fca_1"), account("fca_8", "fcauth_3"), account("fca_9", "fcauth_2", last4="0003"))
    assert found is not None
    assert found.successors == ()


def test_times_are_stripes_where_an_event_told_them_and_else_upper_bounds() -> None:
    at = FIRST_NIGHT + timedelta(hours=5)
    told = conclude(asked(), Look(session("cancelled"), answered_at=at), {}, POLICY, stamp(1))
    assert told is not None
    assert (told.outcome.at, told.outcome.at_basis) == (at, "event")
    seen = conclude(asked(), Look(session("cancelled")), {}, POLICY, stamp(1))
    assert seen is not None
    assert (seen.outcome.at, seen.outcome.at_basis) == (stamp(1).as_of, "observed")
