"""What a trial may start from besides a good night and a held one: a night that died while it was asking, and one that left requests unsent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from jobs.adapters import records
from jobs.adapters.database import open_database
from jobs.simulator.server import SimulatorServer
from tests.chaos.deployment import Template, clock_of, make_held_template, make_template, settings_for
from tests.chaos.night_process import Kill, run_night


def make_interrupted_template(directory: Path, database_url: str) -> Template:
    """Add a night that dies with one customer asked, one about to be, and one planned; two hours pass."""
    template = make_template(directory, database_url)
    with SimulatorServer(template.world) as server:
        settings = settings_for(server.base_url, database_url, directory / "reports")
        ended = run_night(settings, clock_of(template.world), Kill("after mark_attempting", 2))
        assert ended.killed, ended.why
    template.world.advance(hours=2)
    return replace(template, run_id=_newest_run(database_url))


def make_unsent_template(directory: Path, database_url: str) -> Template:
    """Add a night in which Stripe refuses two of three requests as too many; two hours pass."""
    template = make_template(directory, database_url)
    world = template.world
    with SimulatorServer(world) as server:
        settings = settings_for(server.base_url, database_url, directory / "reports")
        world.faults.script("rate_limit", method="POST", times=6)
        ended = run_night(settings, clock_of(world))
        assert ended.exit_code == 4, ended.why
        world.faults.clear()
    world.advance(hours=2)
    return replace(template, run_id=_newest_run(database_url))


def _newest_run(database_url: str) -> str:
    with open_database(database_url) as database:
        return records.list_runs(database, limit=1)[0].run_id


TEMPLATES = {
    "night": make_template,
    "held": make_held_template,
    "interrupted": make_interrupted_template,
    "unsent": make_unsent_template,
}
