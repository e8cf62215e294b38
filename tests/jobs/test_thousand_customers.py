"""One merchant's worth of customers with two bad ones: all others are asked, and two rows say why these were not."""

from __future__ import annotations

from tests.jobs.conftest import MakeNights
from tests.jobs.nights import assert_ties, small_world, table

CUSTOMERS = 1000
REFUSED, MALFORMED = 500, 501


def test_998_of_1000_are_asked_and_two_rows_say_why_two_were_not(make_nights: MakeNights) -> None:
    world = small_world(CUSTOMERS, range(1, CUSTOMERS + 1), accounts=1)
    nights = make_nights(world)
    world.delete_customer(f"cus_{REFUSED}")
    world.override(f"fca_{MALFORMED}_1", {"account_holder": f"cus_{MALFORMED}"})
    result = nights.run()

    assert result.exit_code == 4
    assert result.complete
    assert_ties(result)
    asked = world.contacts_by_authorization()
    assert set(asked) == {f"fcauth_{number}" for number in range(1, CUSTOMERS + 1)} - {
        f"fcauth_{REFUSED}",
        f"fcauth_{MALFORMED}",
    }
    assert set(asked.values()) == {1}

    requests = {row["authorization_id"]: row for row in table(result, "relink_requests")}
    assert len(requests) == CUSTOMERS - 1
    refused = requests[f"fcauth_{REFUSED}"]
    assert (refused["result"], refused["http_status"], refused["error_code"]) == ("rejected", 400, "resource_missing")
    assert "No such customer" in refused["error_message"]
    assert sum(row["result"] == "created" for row in requests.values()) == CUSTOMERS - 2

    accounts = {row["account_id"]: row for row in table(result, "accounts")}
    assert len(accounts) == CUSTOMERS
    malformed = accounts[f"fca_{MALFORMED}_1"]
    assert (malformed["finding"], malformed["next_step"]) == ("unreadable", "review")
    assert malformed["stripe_status"] == "malformed: account_holder"
    assert sum(row["finding"] == "inactive" for row in accounts.values()) == CUSTOMERS - 1

    assert result.report_directory is not None
    names = {path.name for path in result.report_directory.iterdir()}
    assert {"manifest.json", "summary.json", "accounts.csv", "relink_requests.csv", "relink_outcomes.csv"} <= names
