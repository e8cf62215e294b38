"""A contact that turns out to be somebody else's ends that one request, never the run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from sqlalchemy import text

from jobs import nightly
from jobs.adapters import records
from jobs.adapters.database import open_database
from jobs.night import MerchantNight
from jobs.progress import Quiet, Step
from jobs.wiring import Wiring
from tests.jobs.nights import SCOPE, Nights, assert_ties, table


@pytest.fixture
def broken(both_nights: Nights) -> Nights:
    """A night in which all was well, then three broken authorizations."""
    for number in (1, 2, 3):
        both_nights.world.heal_authorization(f"fcauth_{number}")
    both_nights.run()
    both_nights.world.advance(days=1)
    for number in (1, 2, 3):
        both_nights.world.break_authorization(f"fcauth_{number}")
    return both_nights


def test_a_contact_that_is_recorded_already_is_left_out_and_listed(
    broken: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program plans one of them after tonight's plan was made and before it is stored."""
    earlier = broken.newest_run().run_id

    def another_program(wiring: Wiring, night: MerchantNight) -> None:
        first = next(one for one in night.plan.requests if one.authorization_id == "fcauth_1")
        foreign = replace(first, request_id="foreign")
        records.open_breakage(wiring.database, SCOPE, *(night.breakages.opened if night.breakages else ()))
        records.plan_requests(wiring.database, SCOPE, earlier, broken.now().date(), [(foreign, "", "")], broken.now())

    monkeypatch.setattr(nightly, "STAGES", (*nightly.STAGES, ("elsewhere", another_program)))
    result = broken.run()
    assert result.exit_code == 4
    assert_ties(result)
    rows = {row["authorization_id"]: row for row in table(result, "relink_requests")}
    assert {name: row["result"] for name, row in rows.items()} == {
        "fcauth_1": "not_sent",
        "fcauth_2": "created",
        "fcauth_3": "created",
    }
    assert rows["fcauth_1"]["error_type"] == "contact_taken"
    assert "connection breakage 1, attempt 1" in rows["fcauth_1"]["error_message"]
    assert sorted(broken.world.contacts_by_authorization()) == ["fcauth_2", "fcauth_3"]


class _SentElsewhere(Quiet):
    """Lets another program send the first request where sending begins."""

    def __init__(self, nights: Nights) -> None:
        self._nights = nights

    @contextmanager
    def step(self, name: str, total: int | None = None) -> Iterator[Step]:
        if name == "relink requests":
            with open_database(self._nights.database_url) as database:
                statement = text(
                    "UPDATE relink_requests SET state = 'attempting', attempting_at = planned_at "
                    "WHERE authorization_id = 'fcauth_1'"
                )
                database.run(lambda connection: connection.execute(statement))
        with super().step(name, total) as step:
            yield step


def test_a_request_that_is_under_way_already_is_left_alone(broken: Nights) -> None:
    result = broken.run(progress=_SentElsewhere(broken))
    assert result.exit_code == 4
    assert broken.states() == {"fcauth_1": "attempting", "fcauth_2": "created", "fcauth_3": "created"}
    assert sorted(broken.world.contacts_by_authorization()) == ["fcauth_2", "fcauth_3"]
    assert {row["authorization_id"] for row in table(result, "relink_requests")} == set(broken.states())
