"""What the records say under which name and settings a past report was made, or would be."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from pydantic import BaseModel

from jobs.adapters import records
from jobs.settings import BrakeSettings, RelinkSettings, ReportSettings, ScheduleSettings, Settings
from reconcile.model import RunStamp

COMMAND = "backfill"
"""The command of a report for a date that no run completed."""

Section = TypeVar("Section", bound=BaseModel)


def stamp_of_run(run: records.StoredRun, timezone: str) -> RunStamp:
    """The stamp of a run on record."""
    return RunStamp(run.run_id, run.command, run.started_at, run.business_date, timezone)


def stamp_of_date(on: date, timezone: str) -> RunStamp:
    """The stamp of a date that no run completed: its last second, under an id that is the same each time."""
    midnight = datetime.combine(on + timedelta(days=1), time(), ZoneInfo(timezone)).astimezone(UTC)
    end = midnight - timedelta(seconds=1)
    suffix = hashlib.sha256(f"{COMMAND} {on.isoformat()}".encode()).hexdigest()[:4]
    return RunStamp(f"{end:%Y%m%dT%H%M%SZ}-{suffix}", COMMAND, end, on, timezone)


def recorded_settings(record: Mapping[str, Any]) -> Settings:
    """The settings that a report rests on, from those recorded with a run or a snapshot; what a version did not know yet has its default."""
    return Settings(
        relink=_section(RelinkSettings, record, "relink"),
        brakes=_section(BrakeSettings, record, "brakes"),
        schedule=_section(ScheduleSettings, record, "schedule"),
        reports=ReportSettings(formats=tuple(record["reports"]["formats"])),
    )


def _section(kind: type[Section], record: Mapping[str, Any], name: str) -> Section:
    given = record.get(name) or {}
    return kind.model_validate({key: value for key, value in given.items() if key in kind.model_fields})
