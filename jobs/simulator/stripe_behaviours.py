"""Which behaviours of Stripe the job relies on or the stand-in imitates, where each comes from, and what a live probe saw of it.

The table is `stripe_behaviours.toml`. What probes saw at Stripe is `stripe_seen.json`, written by `pytest -m stripe_sandbox`:
names, dates, API versions, yes or no, and Stripe's words for a status or an error; no id.
"""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args

TABLE = "stripe_behaviours.toml"
SEEN = "stripe_seen.json"
NOT_DOCUMENTED = "not documented"

Live = Literal["reads", "sandbox", "person", "nothing"]
"""What can see a behaviour at Stripe: `relink doctor --probe`; the sandbox suite; the same with sessions that a person answered; nothing."""

LIVE_WORDS: Mapping[str, str] = {
    "reads": "never (`relink doctor --probe` would)",
    "sandbox": "never (`make sandbox` would)",
    "person": "never (`make sandbox` would, with sessions answered by hand)",
    "nothing": "never (it cannot be called forth)",
}


@dataclass(frozen=True, slots=True)
class Sighting:
    """What a probe saw at Stripe: on which date, at which API version, and whether it was as the stand-in has it."""

    on: date
    api_version: str
    agrees: bool
    saw: str = ""

    def __str__(self) -> str:
        verdict = "as the stand-in" if self.agrees else "otherwise"
        return f"{self.on}, {self.api_version}: {verdict}{self.saw and f' ({self.saw})'}"


@dataclass(frozen=True, slots=True)
class StripeBehaviour:
    """One behaviour. `tests` exercise it in the stand-in; `either` show the job right whatever Stripe does; both below `tests/`."""

    name: str
    stripe: str
    source: str
    stand_in: str
    live: Live
    tests: tuple[str, ...]
    either: tuple[str, ...] = ()
    seen: Sighting | None = None

    @property
    def is_documented(self) -> bool:
        """Whether Stripe says so somewhere."""
        return self.source != NOT_DOCUMENTED

    @property
    def seen_live(self) -> str:
        """Whether a live probe has seen it, in words."""
        return LIVE_WORDS[self.live] if self.seen is None else str(self.seen)


def stripe_behaviours(seen: Mapping[str, Sighting] | None = None) -> tuple[StripeBehaviour, ...]:
    """Every behaviour, in the order of the table; `seen` in place of what is on file.

    Raises:
        ValueError: the table has an unknown field or word, or a name twice.
    """
    sightings = sightings_on_file() if seen is None else seen
    rows = tomllib.loads(files(__package__).joinpath(TABLE).read_text(encoding="utf-8"))["behaviour"]
    found = tuple(_behaviour(row, sightings) for row in rows)
    names = [one.name for one in found]
    if len(set(names)) < len(names):
        raise ValueError(f"{TABLE}: a name stands twice")
    if strange := sightings.keys() - set(names):
        raise ValueError(f"{SEEN}: {', '.join(sorted(strange))} is no behaviour of {TABLE}")
    return found


def sightings_on_file(path: Path | None = None) -> dict[str, Sighting]:
    """What live probes have seen so far, by behaviour; `path` in place of the package's own file."""
    file = files(__package__).joinpath(SEEN) if path is None else path
    rows = json.loads(file.read_text(encoding="utf-8"))
    return {name: Sighting(**{**row, "on": date.fromisoformat(row["on"])}) for name, row in rows.items()}


def as_json(sightings: Mapping[str, Sighting]) -> str:
    """Sightings as they stand on file."""
    rows = {name: _plain(one) for name, one in sorted(sightings.items())}
    return json.dumps(rows, indent=2) + "\n"


def as_plain(behaviour: StripeBehaviour) -> dict[str, Any]:
    """A behaviour as JSON values."""
    seen = behaviour.seen
    return {
        "name": behaviour.name,
        "stripe": behaviour.stripe,
        "source": behaviour.source,
        "stand_in": behaviour.stand_in,
        "live": behaviour.live,
        "tests": list(behaviour.tests),
        "either": list(behaviour.either),
        "seen": None if seen is None else _plain(seen),
    }


def _plain(one: Sighting) -> dict[str, Any]:
    return {**asdict(one), "on": one.on.isoformat()}


def markdown(behaviours: tuple[StripeBehaviour, ...] | None = None) -> str:
    """The table as STRIPE.md has it."""
    lines = ["| behaviour | Stripe | source | the stand-in | seen live |", "|---|---|---|---|---|"]
    for one in stripe_behaviours() if behaviours is None else behaviours:
        decides = one.stand_in
        if one.either:
            decides += " The job is right either way: " + ", ".join(
                f"`{test.partition('::')[2]}`" for test in one.either
            )
        lines.append(f"| `{one.name}` | {one.stripe} | {one.source} | {decides} | {one.seen_live} |")
    return "\n".join(lines)


def _behaviour(row: Mapping[str, Any], seen: Mapping[str, Sighting]) -> StripeBehaviour:
    lists = {name: tuple(row.get(name, ())) for name in ("tests", "either")}
    try:
        found = StripeBehaviour(**{**row, **lists, "seen": seen.get(row["name"])})
    except (KeyError, TypeError) as fault:
        raise ValueError(f"{TABLE}: {row.get('name', 'a row without a name')}: {fault}") from None
    if found.live not in get_args(Live):
        raise ValueError(f"{TABLE}: {found.name}: live is one of {', '.join(get_args(Live))}")
    return found


if __name__ == "__main__":
    sys.stdout.write(markdown() + "\n")
