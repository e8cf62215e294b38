"""The forty nights whole: `make nights`. Prints each night and then the figures of RELIABILITY.md; ends with 1 where a promise was broken."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.forty_nights.play import QUICK, Played, Size, play
from tests.forty_nights.variants import VARIANTS, install

ALWAYS = (
    "nights",
    "nights held",
    "logins expired at once",
    "fresh links",
    "asked",
    "sessions found by a person",
    "successors right",
    "successors in review",
    "successors of silent accounts",
    "successors missing",
    "successors taken over into the ledger",
    "successors wrong",
    "asked although all works",
    "asked about a replaced account",
    "asked about an account linked afresh since",
    "above the ladder",
    "without next step",
    "sessions unaccounted",
)


def main() -> int:
    """Play, judge and tell."""
    made = argparse.ArgumentParser(prog="python -m tests.forty_nights", description=__doc__)
    made.add_argument("--nights", type=int)
    made.add_argument("--accounts", type=int)
    made.add_argument("--seed", type=int, default=1)
    made.add_argument("--pull", choices=("auto", "full", "incremental"), default="auto")
    made.add_argument("--quick", action="store_true", help="the few nights of `make test`")
    made.add_argument("--variant", choices=sorted(VARIANTS), help="a wrong design, which must be found out")
    options = made.parse_args()
    size = replace(QUICK if options.quick else Size(), seed=options.seed, pull=options.pull)
    size = replace(size, nights=options.nights or size.nights, accounts=options.accounts or size.accounts)
    logging.disable(logging.CRITICAL)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="relink-nights-") as directory, pytest.MonkeyPatch.context() as patch:
        if options.variant is not None:
            install(options.variant, patch)
        played = play(Path(directory), size, lambda line: print(line, file=sys.stderr, flush=True))
    for fault in played.faults:
        print(f"WRONG {fault}")
    _tell(played, size)
    print(
        f"\n{size.nights} nights, {size.accounts:,} accounts, seed {size.seed}, pull {size.pull}: {len(played.faults)} faults; "
        f"{time.monotonic() - started:.0f} s ({time.process_time():.0f} s of a processor)"
    )
    return 1 if played.faults else 0


def _tell(played: Played, size: Size) -> None:
    """The tables, as they stand in RELIABILITY.md."""
    figures = {"accounts": size.accounts} | {name: played.figures[name] for name in ALWAYS}
    print("\n| what | number |\n|---|---|")
    for name, number in figures.items():
        print(f"| {name} | {number:,} |")
    outcomes = sorted((name[9:], number) for name, number in played.figures.items() if name.startswith("outcome: "))
    print(f"\nOutcomes of the sessions: {', '.join(f'{number:,} {name}' for name, number in outcomes)}")
    print(
        f"Outages open at the end, by next step: {', '.join(f'{n:,} {step}' for step, n in sorted(played.waiting.items()))}"
    )
    print(f"What customers did: {', '.join(f'{n:,} {how}' for how, n in sorted(played.done.items()))}")


if __name__ == "__main__":
    sys.exit(main())
