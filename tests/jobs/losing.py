"""Nights in which the answer to a POST is lost though Stripe acted on it."""

from __future__ import annotations

from tests.jobs.nights import Nights


def lose(nights: Nights, *, days: float = 0) -> str:
    """A night in which the answer to the first POST is a 500 after the effect; returns the session that nobody knows."""
    nights.world.faults.script("error_500_after", method="POST", times=3)
    assert nights.run().exit_code == 4
    assert nights.states()["fcauth_1"] == "unknown"
    nights.world.advance(days=days)
    return made_for(nights, "fcauth_1")[-1]


def made_for(nights: Nights, authorization_id: str) -> list[str]:
    """The sessions that the stand-in made about an authorization, the oldest first."""
    return [one.session_id for one in nights.world.effects if one.authorization_id == authorization_id]
