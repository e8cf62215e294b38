"""Which accounts a session brought back though nobody asked for them: only those that were broken before, or are new."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconcile.comparison import others_cured
from reconcile.normalize import accounts_frame
from reconcile.outcomes import Look, account_states, conclude
from reconcile.policy import RelinkPolicy
from reconcile.records import AccountRecord
from tests.reconcile.nights import FIRST_NIGHT, account, expiring, inactive, request, session, stamp, stored
from tests.reconcile.test_outcomes import covered

ASKED_AT = FIRST_NIGHT + timedelta(minutes=1)


def state(status: str, action: str | None = None, days: float = 0) -> dict[str, Any]:
    """A row of the account history."""
    return {"observed_at": FIRST_NIGHT + timedelta(days=days), "stripe_status": status, "action": action}


def others(
    *accounts: AccountRecord, past: Any = None, listed: tuple[AccountRecord, ...] = (), led_to: str = "fcauth_1"
):  # type: ignore[no-untyped-def]
    one = stored(request(covered("fca_1")), stamp().business_date, ASKED_AT)
    done = session("succeeded", *listed, result_authorization=led_to)
    seen = account_states(accounts_frame((*accounts, *listed)))
    return others_cured(one, done, seen, past or {})


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ([state("inactive", "relink_required")], account("fca_2"), True),
        ([state("active", "relink_required")], account("fca_2"), True),
        ([state("active")], account("fca_2"), False),
        ([state("inactive", "relink_required")], inactive("fca_2"), False),
        ([state("inactive", "relink_required")], expiring("fca_2"), False),
        ([state("inactive"), state("active", days=0.0001)], account("fca_2"), False),
        ([state("inactive"), state("active", days=1)], account("fca_2"), True),
        ([], account("fca_2"), False),
        ([], account("fca_2", created_at=ASKED_AT), True),
        ([], account("fca_2", created_at=ASKED_AT - timedelta(days=1)), False),
    ],
)
def test_another_account_counts_where_it_was_broken_when_the_customer_was_asked(
    before: list[dict[str, Any]], after: AccountRecord, told: bool
) -> None:
    assert others(account("fca_1"), after, past={"fca_2": before}) == (("fca_2",) if told else ())


def test_accounts_of_other_logins_and_covered_ones_are_no_others() -> None:
    broken = {name: [state("inactive")] for name in ("fca_1", "fca_2", "fca_3")}
    assert others(account("fca_1"), account("fca_3", "fcauth_9"), past=broken) == ()
    linked = (account("fca_3", "fcauth_9"),)
    assert others(account("fca_1"), past=broken, listed=linked) == ("fca_3",), "the session itself names it"


def test_a_successor_is_no_other_account() -> None:
    one = stored(request(covered("fca_1")), stamp().business_date, ASKED_AT)
    new = {"created_at": ASKED_AT + timedelta(hours=1)}
    after = (account("fca_8", "fcauth_2", **new), account("fca_9", "fcauth_2", last4="0009", **new))
    found = conclude(
        one,
        Look(session("succeeded", *after, result_authorization="fcauth_2")),
        account_states(accounts_frame((inactive("fca_1"),))),
        RelinkPolicy(),
        stamp(1),
    )
    assert found is not None
    assert [one.new_account_id for one in found.successors] == ["fca_8"]
    assert (found.outcome.cured_accounts, found.outcome.other_accounts) == (("fca_1",), ("fca_9",))


@given(st.dictionaries(st.sampled_from([f"fca_{n}" for n in range(1, 7)]), st.booleans(), min_size=1), st.data())
def test_every_account_that_came_back_is_either_asked_for_or_another(
    working: dict[str, bool], data: st.DataObject
) -> None:
    asked = data.draw(st.sets(st.sampled_from(sorted(working)), min_size=1))
    one = stored(request(*(covered(name) for name in sorted(asked))), stamp().business_date, ASKED_AT)
    after = [account(name) if works else inactive(name) for name, works in working.items()]
    found = conclude(
        one,
        Look(session("succeeded", result_authorization="fcauth_1")),
        account_states(accounts_frame(after)),
        RelinkPolicy(),
        stamp(1),
        past={name: [state("inactive")] for name in working},
    )
    assert found is not None
    cured, other = found.outcome.cured_accounts or (), found.outcome.other_accounts or ()
    assert set(cured) <= asked
    assert set(other).isdisjoint(asked)
    assert found.outcome.accounts_cured == len(cured)
    if cured:
        assert {*cured, *other} == {name for name, works in working.items() if works}
