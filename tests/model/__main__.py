"""The documented campaign: many sequences of the stateful model, and how often each step was done.

`make model SEQUENCES=2000 STEPS=50 MODEL_SEED=1` runs it; RELIABILITY.md has its figures.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path

from tests.model.campaign import BATCH, Batch, try_batch


def main() -> int:
    """Run the campaign and print its figures; 1 where a fault was found."""
    made = argparse.ArgumentParser(prog="python -m tests.model", description=__doc__)
    made.add_argument("--sequences", type=int, default=2000)
    made.add_argument("--steps", type=int, default=50)
    made.add_argument("--seed", type=int, default=1, help=f"of the first {BATCH} sequences; the next have the next")
    made.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    made.add_argument("--keep", type=Path, help="a file for what each seed showed; a campaign that was stopped goes on")
    options = made.parse_args()
    started, total = time.monotonic(), Counter[str]()
    seeds = range(options.seed, options.seed + -(-options.sequences // BATCH))
    batches = {batch.seed: batch for batch in _kept(options.keep, options.steps) if batch.seed in seeds}
    left = [seed for seed in seeds if seed not in batches]
    with ProcessPoolExecutor(options.workers, get_context("spawn")) as pool:
        for done in as_completed([pool.submit(try_batch, seed, BATCH, options.steps) for seed in left]):
            batch = done.result()
            batches[batch.seed] = batch
            if options.keep is not None:
                with options.keep.open("a") as file:
                    file.write(json.dumps({"steps": options.steps} | asdict(batch)) + "\n")
            print(f"{len(batches) * BATCH} sequences, {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    told = [line for seed in seeds for line in batches[seed].told]
    for seed in seeds:
        total.update(batches[seed].counts)
    steps = {name: count for name, count in total.items() if name != "sequences" and ":" not in name}
    for line in told:
        print(line)
    print(
        f"{total['sequences']} sequences of up to {options.steps} steps, {sum(steps.values()):,} steps, "
        f"{sum(bool(batch.told) for batch in batches.values())} faults; seeds {seeds[0]} to {seeds[-1]}"
    )
    found = {key.partition(": ")[2]: n for key, n in sorted(total.items()) if key.startswith("found: ")}
    print(
        "sessions found of unknown requests: " + (", ".join(f"{n:,} {whose}" for whose, n in found.items()) or "none")
    )
    print("\n| step | times | ends |\n|---|---|---|")
    for name, times in sorted(steps.items()):
        ends = {key.partition(": ")[2]: n for key, n in sorted(total.items()) if key.startswith(f"{name}: ")}
        print(f"| {name} | {times:,} | {'; '.join(f'{count:,} {end}' for end, count in ends.items())} |")
    return 1 if told else 0


def _kept(path: Path | None, steps: int) -> list[Batch]:
    if path is None or not path.exists():
        return []
    kept = [json.loads(line) for line in path.read_text().splitlines()]
    return [Batch(one["seed"], one["counts"], one["told"]) for one in kept if one["steps"] == steps]


if __name__ == "__main__":
    sys.exit(main())
