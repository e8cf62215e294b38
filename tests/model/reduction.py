"""Makes a failing sequence short: steps are left out as long as the same thing goes wrong without them."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

from tests.model.deployment import Rules
from tests.model.machine import directory
from tests.model.play import Step, replay

LONGEST_SECONDS = 120


def complaint(rules: Rules, steps: Sequence[Step]) -> str | None:
    """What goes wrong in a sequence, without the ids and numbers in it; None where nothing does."""
    try:
        replay(directory(), rules, steps)
    except Exception as error:
        first = f"{type(error).__name__}: {error}".splitlines()[0].partition(";")[0]
        return re.sub(r"\w*\d[\w.-]*", "#", first)
    return None


def reduced(rules: Rules, steps: Sequence[Step]) -> list[Step]:
    """The steps that are needed for the fault, as far as some time allows to tell."""
    kept, wanted = list(steps), complaint(rules, steps)
    end, size = time.monotonic() + LONGEST_SECONDS, max(1, len(kept) // 2)
    while wanted is not None and size:
        place, left_out = 0, False
        while place < len(kept) and time.monotonic() < end:
            fewer = kept[:place] + kept[place + size :]
            if complaint(rules, fewer) == wanted:
                kept, left_out = fewer, True
            else:
                place += size
        if not (size == 1 and left_out):
            size //= 2
        if time.monotonic() > end:
            break
    return kept
