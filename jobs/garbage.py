"""How often Python looks for cycles of garbage while a run holds millions of values."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_YOUNG, _MIDDLE, _OLD = 100_000, 20, 100


@contextmanager
def rare_collections() -> Iterator[None]:
    """Collect after a hundred thousand new objects instead of seven hundred.

    A run makes rows of whole worlds, which are no garbage while they are walked; going over them again and again took a sixth of the CPU of
    classifying, planning and reporting. What has no cycles is freed at once as ever.
    """
    before = gc.get_threshold()
    gc.set_threshold(_YOUNG, _MIDDLE, _OLD)
    try:
        yield
    finally:
        gc.set_threshold(*before)
