"""What the merchant's web application sees, and what handing a session over changes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from jobs.handover import Handover, Offer, OfferEndedError
from reconcile.errors import SettingsError
from tests.jobs.nights import Nights, outcomes, steps


def handover(nights: Nights) -> Handover:
    return Handover.open(nights.config_file(), {}, nights.now)


def offer(nights: Nights, customer: str = "cus_1") -> Offer | None:
    with handover(nights) as opened:
        return opened.offer_for("main", customer)


def hand_over(nights: Nights, customer: str = "cus_1") -> bool:
    with handover(nights) as opened:
        found = opened.offer_for("main", customer)
        assert found is not None
        return opened.offered(found)


def test_an_open_session_is_offered_to_its_customer_only(both_nights: Nights) -> None:
    nights = both_nights
    assert offer(nights) is None, "before the first run"
    nights.run()
    found = offer(nights)
    assert found is not None
    stored = nights.by_authorization()["fcauth_1"]
    assert (found.session_id, found.request_id) == (stored.session_id, stored.request.request_id)
    assert (found.authorization_id, found.account_holder_id, found.offered_at) == ("fcauth_1", "cus_1", None)
    assert offer(nights, "cus_5") is None
    assert offer(nights, "' OR 1=1--") is None


def test_the_first_handing_over_stands(nights: Nights) -> None:
    nights.run()
    assert hand_over(nights)
    first = nights.now()
    nights.world.advance(hours=5)
    assert not hand_over(nights)
    found = offer(nights)
    assert found is not None
    assert found.offered_at == first


@pytest.mark.parametrize("how", ["whole", "cancelled", "no_account"])
def test_an_answered_session_is_not_offered_again(nights: Nights, how: str) -> None:
    nights.run()
    nights.world.answer(nights.by_authorization()["fcauth_1"].session_id or "", how)
    nights.next_night()
    assert offer(nights) is None


def test_what_is_unknown_cannot_be_handed_over(nights: Nights) -> None:
    nights.run()
    made_up: Any = Offer("main", "sandbox", "fcsess_none", "r", "fcauth_1", "cus_1", None, None)
    with handover(nights) as opened:
        with pytest.raises(OfferEndedError, match="fcsess_none"):
            opened.offered(made_up)
        with pytest.raises(SettingsError, match="no merchant 'other'"):
            opened.offer_for("other", "cus_1")


def test_an_offer_that_nobody_saw_and_that_healed_is_no_contact(nights: Nights) -> None:
    nights.run()
    hand_over(nights, "cus_2")
    for number in (1, 2):
        nights.world.heal_authorization(f"fcauth_{number}")
    healed = outcomes(nights.next_night())
    assert (healed["fcauth_1"], healed["fcauth_2"]) == ("healed", "healed")
    for number in (1, 2):
        nights.world.break_authorization(f"fcauth_{number}")
    found = steps(nights.next_night())
    assert (found["fca_1_1"], found["fca_2_1"]) == ("request", "cooldown")


def test_an_offer_never_taken_up_is_renewed_and_counts(nights: Nights) -> None:
    nights.sections["relink"] = {"max_attempts": 2}
    nights.run()
    for _ in range(8):
        nights.next_night()
    assert nights.by_authorization()["fcauth_1"].request.attempt == 2
    for _ in range(8):
        result = nights.next_night()
    assert steps(result)["fca_1_1"] == "attempts_exhausted"
    assert nights.world.contacts_by_authorization()["fcauth_1"] == 2


def test_a_customer_is_left_alone_from_the_handing_over_on(nights: Nights) -> None:
    """Handed over on day 6 and expired on day 8: the cooldown of four days counts from day 6."""
    nights.run()
    for _ in range(6):
        nights.next_night()
    hand_over(nights)
    found = [steps(nights.next_night())["fca_1_1"] for _ in range(4)]
    assert found == ["open_session", "cooldown", "cooldown", "request"]


def test_the_clock_of_the_handing_over_is_kept_in_utc(nights: Nights) -> None:
    nights.run()
    hand_over(nights)
    found = offer(nights)
    assert found is not None
    assert found.offered_at is not None
    assert found.offered_at.utcoffset() == timedelta(0)
