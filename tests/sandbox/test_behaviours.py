"""Every behaviour that a probe can see, at the stand-in on every run and at Stripe's sandbox by `pytest -m stripe_sandbox`."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from jobs.probe import READ_BEHAVIOURS, Observation
from jobs.simulator.stripe_behaviours import Live, sightings_on_file, stripe_behaviours
from tests.sandbox.conftest import HOW, TARGETS, observe, record, sandbox_key
from tests.sandbox.probes import PERSON_BEHAVIOURS, SANDBOX_BEHAVIOURS

PROBED: dict[Live, tuple[str, ...]] = {
    "reads": READ_BEHAVIOURS,
    "sandbox": SANDBOX_BEHAVIOURS,
    "person": PERSON_BEHAVIOURS,
}


@pytest.fixture(scope="module", params=TARGETS)
def observed(request: pytest.FixtureRequest) -> tuple[str, dict[str, Observation]]:
    target: str = request.param
    return target, observe(target)


@pytest.mark.parametrize("behaviour", [name for names in PROBED.values() for name in names])
def test_it_is_as_the_stand_in_has_it(observed: tuple[str, dict[str, Observation]], behaviour: str) -> None:
    target, found = observed
    one = found[behaviour]
    if target == "stripe" and one.agrees is None:
        pytest.skip(f"{behaviour} could not be seen: {one.saw}")
    assert one.agrees is True, f"{behaviour}: {one.saw}"


def test_each_probe_tells_each_of_its_behaviours_once(observed: tuple[str, dict[str, Observation]]) -> None:
    assert list(observed[1]) == [name for names in PROBED.values() for name in names]


def test_a_probe_notices_where_stripe_does_otherwise() -> None:
    found = observe("stand-in", session_creation_emits_event=True, hosted_return_url="nested", hosted_interval_hours=0)
    otherwise = {"events-of-a-creation", "hosted-return-url", "hosted-48-hours", "hosted-url-counts"}
    assert {name for name, one in found.items() if one.agrees is False} == otherwise
    assert found["hosted-return-url"].saw == (
        "needed; without one refused: 400, invalid_request_error, parameter_missing, param hosted[return_url]"
    )


def test_no_probe_tells_an_id() -> None:
    told = " ".join(one.saw for one in observe("stand-in").values())
    assert re.findall(r"(?:fca|fcauth|fcsess|fcsess_client_secret|evt|req)_\w+", told) == []
    assert [name for name in HOW if f"customer_{name}" in told] == []


@pytest.mark.parametrize("live", PROBED)
def test_the_table_says_what_each_probe_can_see(live: Live) -> None:
    assert {one.name for one in stripe_behaviours() if one.live == live} == set(PROBED[live])


def test_only_a_sandbox_key_is_used_and_none_is_shown() -> None:
    assert sandbox_key({}) is None
    assert sandbox_key({"RELINK_SANDBOX_KEY": " rk_test_abc "}) == "rk_test_abc"
    for key in ("rk_live_abc", "sk_live_abc", "pk_test_abc", "whatever"):
        with pytest.raises(ValueError, match="no sandbox key") as raised:
            sandbox_key({"RELINK_SANDBOX_KEY": key})
        assert key not in str(raised.value)


def test_what_was_seen_is_kept_and_what_was_not_leaves_it(tmp_path: Path) -> None:
    path = tmp_path / "seen.json"
    path.write_text("{}")
    first, second = datetime(2026, 12, 1, tzinfo=UTC), datetime(2026, 12, 2, tzinfo=UTC)
    record(
        {"keys": Observation("keys", True, "401"), "request-id": Observation("request-id", True, "came")}, first, path
    )
    record(
        {"keys": Observation("keys", False, "let in"), "request-id": Observation("request-id", None, "?")}, second, path
    )
    seen = sightings_on_file(path)
    assert (seen["keys"].on, seen["keys"].agrees, seen["keys"].saw) == (second.date(), False, "let in")
    assert (seen["request-id"].on, seen["request-id"].agrees) == (first.date(), True)
    assert {one.name for one in stripe_behaviours(seen) if one.seen} == {"keys", "request-id"}
