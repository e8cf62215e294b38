"""How old an idempotency key is, by whichever clock says more, so that none that stood still can make it young."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

KEY_LIFETIME = timedelta(hours=20)
"""How long a key is trusted to be remembered. Stripe keeps it for at least 24 hours (Stripe API docs: idempotent requests); four
hours are left for clocks that differ and calls that hang."""

NowOrNone = Callable[[], datetime | None]
"""A clock; None while it has not been heard yet."""


class KeyAge:
    """Measures one key's age on several clocks at once.

    A wall clock may be set back, a clock that counts from boot may stand still while a virtual machine is suspended, and Stripe's is heard only
    with its answers. Each counts from its own first reading, so that a difference between them is no age; the one that moved the
    furthest is believed.
    """

    def __init__(self, age: timedelta, clocks: Sequence[NowOrNone]) -> None:
        self._age = age
        self._clocks = clocks
        self._born: list[datetime | None] = [None for _ in clocks]
        self.now()

    def now(self) -> timedelta:
        """The age; it never falls."""
        readings = [clock() for clock in self._clocks]
        for now, born in zip(readings, self._born, strict=True):
            if now is not None and born is not None:
                self._age = max(self._age, now - born)
        # A clock that is heard for the first time starts from the age that the others tell.
        self._born = [
            now - self._age if now is not None and born is None else born
            for now, born in zip(readings, self._born, strict=True)
        ]
        return self._age

    def expired(self) -> bool:
        """Whether Stripe may have forgotten the key, so that the same bytes would create a second session."""
        return self.now() >= KEY_LIFETIME
