"""All races on one kind of database, as JSON: `python -m tests.chaos.race_all sqlite|postgresql STARTS`."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.chaos import starts
from tests.chaos.campaign import Stage, staged
from tests.chaos.night_process import fork

BEFORE_INTENT = "before mark_attempting"
IN_COMMIT = "before commit of mark_attempting"
AFTER_INTENT = "after mark_attempting"
AFTER_POST = "before record_result"


def main() -> None:
    """Run every scenario, each in a process and a slot of its own."""
    warnings.filterwarnings("ignore", category=DeprecationWarning)  # forking: no thread of ours is under way then
    database, number = sys.argv[1], int(sys.argv[2])
    with staged((database,)) as (root, stages, _):
        stage = stages[database]

        def do(work: Callable[[Path], Any]) -> Any:
            return apart(root / "slot-0", work)

        told: dict[str, Any] = {
            "race": do(lambda slot: asdict(starts.race(stage, slot, number))),
            "second": do(lambda slot: _second(stage, slot)),
            "stopped": {
                moment: do(lambda slot, moment=moment: asdict(starts.stop_beyond_lease(stage, slot, moment)))
                for moment in (BEFORE_INTENT, AFTER_INTENT, AFTER_POST)
            },
        }
        if database == "postgresql":
            for name, moments, for_good in (
                ("reconnecting", (BEFORE_INTENT, IN_COMMIT), False),
                ("cut_off", (BEFORE_INTENT, AFTER_INTENT), True),
            ):
                told[name] = {
                    moment: do(
                        lambda slot, moment=moment, for_good=for_good: asdict(
                            starts.lose_connections(stage, slot, moment, for_good=for_good)
                        )
                    )
                    for moment in moments
                }
    print(json.dumps(told))


def _second(stage: Stage, slot: Path) -> dict[str, Any]:
    url = stage.prepare(slot)
    code, seconds = starts.lone_second_start(stage.template, slot, url)
    return {"exit_code": code, "seconds": seconds}


def apart(slot: Path, work: Callable[[Path], Any]) -> Any:
    """Do work in a child, so that each scenario has the template's world to itself."""
    path = slot.with_suffix(".json")
    path.unlink(missing_ok=True)

    def write() -> None:
        path.write_text(json.dumps(work(slot)))

    child = fork(write)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0:
        raise SystemExit("a race broke off")
    return json.loads(path.read_text())


if __name__ == "__main__":
    main()
