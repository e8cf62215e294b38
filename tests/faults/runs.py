"""How a run under a fault ended, and what may be judged of it: the stand-in's log, and the rows read past the product's own code."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from jobs.nightly import RunResult
from jobs.simulator.request_log import LoggedCall
from jobs.work import Work
from reconcile.errors import RelinkError
from tests.chaos.deployment import Row, read_books
from tests.chaos.night_process import Kill, run_night
from tests.chaos.trials import wait_until_idle
from tests.jobs.nights import SESSIONS, Nights


@dataclass(frozen=True, slots=True)
class Ending:
    """The exit code that the command would end with, and what it would say."""

    exit_code: int
    why: str
    result: RunResult | None = None


def end(nights: Nights, work: Work | str = "run", **options: Any) -> Ending:
    """Do a run to its end, whatever that is."""
    try:
        result = nights.run(work, **options)
    except RelinkError as error:
        return Ending(error.exit_code, str(error))
    return Ending(result.exit_code, result.why or "", result)


def kill_at(nights: Nights, moment: str, occurrence: int = 1) -> None:
    """Do a run in a process of its own that is killed at a named moment."""
    ended = run_night(nights.settings(), nights.now, Kill(moment, occurrence))
    assert ended.killed, f"the run did not come to {moment}: {ended}"
    wait_until_idle(nights.server)


def rows(nights: Nights) -> list[Row]:
    """Every stored request, in the order of their ids."""
    books = read_books(nights.database_url, nights.directory / "scratch")
    return [row for _, row in sorted(books.requests.items())]


def states(nights: Nights) -> Counter[str]:
    """How many requests are in each state."""
    return Counter(row.state for row in rows(nights))


def posts(nights: Nights) -> list[LoggedCall]:
    """Every POST that the stand-in saw, refused ones too."""
    return [call for call in nights.world.log if (call.method, call.path) == ("POST", SESSIONS)]


def assert_posts_had_intents(nights: Nights) -> None:
    """Every POST has a row that was committed as attempting under its key."""
    attempted = {row.idempotency_key for row in rows(nights) if row.attempting_at is not None}
    assert {call.idempotency_key for call in posts(nights)} <= attempted


def assert_asked_once(nights: Nights, *authorizations: str) -> None:
    """Each of these, and nobody else, was asked once; the records know each session, and nothing is left under way."""
    assert nights.world.contacts_by_authorization() == dict.fromkeys(authorizations, 1)
    known = {row.session_id for row in rows(nights) if row.state == "created"}
    assert known == {effect.session_id for effect in nights.world.effects}
    assert not states(nights).keys() & {"planned", "attempting"}
    assert_posts_had_intents(nights)
