"""The signal that ends a run in an orderly way."""

from __future__ import annotations


class Terminated(KeyboardInterrupt):
    """SIGTERM: leave at once, so that the run can be resumed."""
