"""The documented campaign: all trials, the designs that must fail, and 200 simultaneous starts on each kind of database.

`make chaos TRIALS=10000 STARTS=200` runs it; RELIABILITY.md has its figures.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from dataclasses import asdict
from typing import Any

from tests.chaos import campaign, starts
from tests.chaos import figures as figures_of
from tests.chaos.deployment import MUST_BE_ASKED
from tests.chaos.race_all import apart
from tests.chaos.variants import TELLING_GAPS

LEAST_TRIALS_OF_A_VARIANT, MOST_TRIALS_OF_A_VARIANT = 16, 200

ONCE_EACH = {authorizations[0]: 1 for authorizations in MUST_BE_ASKED}
"""The contacts of one undisturbed night, which is all that any number of starts may come to."""


def main() -> int:
    """Run everything and print the figures; 1 where the product failed, where starts at once asked others than one night does or not
    each once, or where a wrong design was not found out."""
    warnings.filterwarnings("ignore", category=DeprecationWarning)  # forking: no thread of ours is under way then
    made = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    made.add_argument("--trials", type=int, default=10_000)
    made.add_argument("--starts", type=int, default=200)
    made.add_argument("--seed", type=int, default=1)
    options = made.parse_args()
    seed = ("--seed", str(options.seed), "--progress")
    summary = campaign.run_campaign(campaign.parser().parse_args(["--trials", str(options.trials), *seed]))
    figures = summary["figures"]
    print(figures_of.as_table(summary))
    print(
        f"\nKilled at {summary['moments_killed_at']} of {summary['moments']} named moments, and at random; seed {options.seed}; "
        f"{figures['seconds']:.0f} s on {os.cpu_count()} cores, {figures['trials_a_second']} trials a second.\n"
    )
    for one in [*summary["broken"], *summary["suspicious"]]:
        print(one)
    failed = bool(summary["broken"] or summary["suspicious"])
    print("| design | trials | asked twice | lost |\n|---|---|---|---|")
    for variant, gap in TELLING_GAPS.items():
        trials = max(LEAST_TRIALS_OF_A_VARIANT, min(options.trials, MOST_TRIALS_OF_A_VARIANT))
        found = _variant(variant, gap, trials)
        print(f"| {variant} | {found['trials']} | {found['contacts_twice']} | {found['lost']} |", flush=True)
        failed = failed or not found["contacts_twice"]
    print("\n| database | simultaneous starts | exit codes | slowest refusal | contacts |\n|---|---|---|---|---|")
    for database in figures_of.DATABASES:
        with campaign.staged((database,)) as (root, stages, _):
            stage = stages[database]
            race = apart(root / "slot-0", lambda slot, stage=stage: asdict(starts.race(stage, slot, options.starts)))
        codes = ", ".join(f"{number} × {code}" for code, number in sorted(race["exit_codes"].items()))
        print(
            f"| {database} | {options.starts} | {codes} | {race['slowest_refusal_seconds']:.2f} s | {race['contacts']} |"
        )
        failed = failed or race["exit_codes"] != {"0": 1, "6": options.starts - 1} or race["contacts"] != ONCE_EACH
    return 1 if failed else 0


def _variant(variant: str, gap: str, trials: int) -> dict[str, Any]:
    options = ["--variant", variant, "--gap", gap, "--trials", str(trials), "--database", "sqlite", "--seed", "3"]
    options += ["--part", "create_session,record_result"]
    figures: dict[str, Any] = campaign.run_campaign(campaign.parser().parse_args(options))["figures"]
    return figures


if __name__ == "__main__":
    sys.exit(main())
