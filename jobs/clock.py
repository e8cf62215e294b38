"""The wall clock, passed in so that a simulated night is as good as a real one."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

from reconcile.model import RunStamp

Clock = Callable[[], datetime]
"""Returns the present moment as aware UTC."""


def system_clock() -> datetime:
    """The moment by this machine's clock."""
    return datetime.now(UTC)


def elapsed_seconds() -> float:
    """Seconds that also pass while the machine sleeps, where its system counts them, and that nobody can set back."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def new_stamp(
    command: str,
    clock: Clock,
    timezone: str,
    *,
    dry_run: bool = False,
    business_date: date | None = None,
    resumed_from: tuple[str, ...] = (),
) -> RunStamp:
    """A stamp for a run that starts now, under a run id of its own: `YYYYMMDDTHHMMSSZ-xxxx`, UTC and four hex digits.

    The business date is that of the scheduled time that the run serves, where one is given, else of its start.
    """
    now = clock()
    return RunStamp(
        run_id=f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}",
        command=command,
        as_of=now,
        business_date=business_date or now.astimezone(ZoneInfo(timezone)).date(),
        timezone=timezone,
        dry_run=dry_run,
        resumed_from=resumed_from,
    )
