"""One night of the real job, at a moment that is given: `python -m benchmarks.our_night --config config.yaml --now 2026-11-20T03:30:00+00:00`.

The same wiring and the same run as `relink run`; only the clock starts at the night and goes on from there.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from time import monotonic


def main(arguments: Sequence[str] | None = None) -> int:
    """Do one night; returns the run's exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.our_night", description=__doc__)
    for name in ("--config", "--now"):
        parser.add_argument(name, required=True)
    given = parser.parse_args(arguments)
    start, began = datetime.fromisoformat(given.now), monotonic()

    def clock() -> datetime:
        return start + timedelta(seconds=monotonic() - began)

    from pathlib import Path

    from jobs.nightly import run
    from jobs.settings import load_settings
    from jobs.wiring import wire
    from jobs.work import Work

    settings = load_settings(Path(given.config), os.environ)
    with wire(settings, os.environ, holder="run", clock=clock) as wiring:
        result = run(wiring, Work("run"))
    if result.why:
        sys.stderr.write(f"{result.why}\n")
    return result.exit_code


if __name__ == "__main__":
    sys.exit(main())
