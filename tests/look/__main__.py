"""`python -m tests.look` (`make look`): opens what the job writes in the programs that people open it with.

It says what it needs and fails where that is missing, so that nothing is ever taken for seen that was not.
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

from tests.look import application, browser, office


def main() -> int:
    """Look at everything; 0 if nothing is missing or wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.look", description=__doc__)
    looks = {"page": browser, "office": office, "application": application}
    parser.add_argument("--only", choices=looks, help="look at one thing alone")
    parser.add_argument("--directory", type=Path, default=Path("var/look"), help="where pictures are left")
    options = parser.parse_args()
    directory: Path = options.directory
    chosen = [look for name, look in looks.items() if options.only in (None, name)]
    missing = dict.fromkeys(need for look in chosen for need in look.missing())
    if missing:
        print("This needs:", *(f"  {need}" for need in missing), sep="\n", file=sys.stderr)
        return 2
    directory.mkdir(parents=True, exist_ok=True)
    faults = []
    for look in chosen:
        print(look.TITLE)
        faults += look.look(directory)
    print(*(f"WRONG: {fault}" for fault in faults), sep="\n")
    print(
        f"{datetime.now(UTC):%Y-%m-%d}: {f'{len(faults)} faults' if faults else 'nothing wrong'}; pictures in {directory}"
    )
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
