"""The simulated clock: frozen until moved, or running at any multiple of real time."""

from __future__ import annotations

import time
from datetime import UTC, datetime

SECONDS_PER_DAY = 86_400


def epoch_seconds(at: datetime) -> int:
    """Whole epoch seconds of an aware datetime; a naive one is refused, since its zone would be a guess."""
    if at.tzinfo is None:
        raise ValueError("a simulated time needs a time zone; pass an aware datetime such as datetime(..., tzinfo=UTC)")
    return int(at.timestamp())


class SimulatedClock:
    """Time of the simulated world, in epoch seconds. `rate` is simulated seconds per real second; 0 is frozen."""

    def __init__(self, start: datetime, rate: float = 0.0) -> None:
        if rate < 0:
            raise ValueError("rate must be 0 (frozen) or positive: simulated time never runs backwards")
        self._base_seconds = float(epoch_seconds(start))
        self._rate = rate
        self._mark = time.monotonic()

    @classmethod
    def real(cls) -> SimulatedClock:
        """A clock that shows the machine's own time from now on."""
        return cls(datetime.now(UTC), rate=1.0)

    @property
    def is_running(self) -> bool:
        """Whether simulated time passes by itself."""
        return self._rate > 0

    def now_seconds(self) -> int:
        """The simulated time in whole epoch seconds."""
        if not self._rate:
            return int(self._base_seconds)
        return int(self._base_seconds + (time.monotonic() - self._mark) * self._rate)

    def advance_to(self, at_seconds: int) -> None:
        """Move forward to `at_seconds`; moving back is refused."""
        if at_seconds < self.now_seconds():
            raise ValueError("simulated time cannot move backwards")
        self._base_seconds = float(at_seconds)
        self._mark = time.monotonic()
