"""Checks of what is shipped in `cron/`; says first what it needs, and fails where that is missing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "cron"
MOST_EXPOSURE = 1.5
"""What `systemd-analyze security` may at most find, of 10."""

NEEDS = {
    "cron": "Debian: apt-get install cron",
    "crontab": "Debian: apt-get install cron",
    "systemd-analyze": "Debian: apt-get install systemd",
    "unshare": "Debian: apt-get install util-linux",
    "mount": "Debian: apt-get install mount",
}


def missing() -> Iterator[str]:
    """What this host lacks."""
    for program, advice in NEEDS.items():
        if shutil.which(program) is None:
            yield f"the program {program} ({advice})"
    if os.geteuid() != 0:
        yield "root: a cron daemon and mounts of its own need it"
    elif shutil.which("unshare") and subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        yield "mounts of its own: in a container, give it CAP_SYS_ADMIN"


def check_units() -> list[str]:
    """systemd accepts the units, and finds the service well locked in."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        for unit in ("relink.service", "relink.timer"):
            text = (SHIPPED / unit).read_text()
            # verify wants the program to be there; everything else is as shipped.
            (directory / unit).write_text(text.replace("/srv/relink/venv/bin/relink", sys.executable))
        found = _run("systemd-analyze", "verify", *(str(path) for path in sorted(directory.iterdir())))
        security = _run("systemd-analyze", "security", "--offline=yes", "--no-pager", str(directory / "relink.service"))
    faults = [f"systemd-analyze verify: {line}" for line in found.splitlines() if line]
    level = re.search(r"exposure level for relink.service: ([\d.]+)", security)
    print(
        f"  systemd-analyze verify: {'faults' if faults else 'nothing to say'}; exposure {level[1] if level else '?'}"
    )
    if level is None or float(level[1]) > MOST_EXPOSURE:
        faults.append(f"systemd-analyze security: more exposed than {MOST_EXPOSURE}: {security[-200:]}")
    return faults


def check_with(checker: Path, *arguments: str) -> list[str]:
    """A checker that was installed for this ends well."""
    done = subprocess.run([checker, *arguments], cwd=ROOT, capture_output=True, text=True)
    print(f"  {checker.name} {' '.join(arguments)}: exit code {done.returncode}")
    return [f"{checker.name}: {done.stdout}{done.stderr}"] if done.returncode else []


def check_cron() -> list[str]:
    """A real cron daemon runs the shipped line; it sees mounts of its own, so that this host's crontabs stay untouched."""
    command = ["unshare", "--mount", "--propagation", "private", sys.executable, "-m", "tests.deploy.cron_daemon"]
    done = subprocess.run(command, cwd=ROOT)
    return [] if done.returncode == 0 else ["the cron daemon did not bring a report about, see above"]


def main(checkers: Path) -> int:
    """Run all checks, whatever comes of one, and return 1 where any failed."""
    lacking = list(missing())
    for lack in lacking:
        print(f"needed and missing: {lack}", file=sys.stderr)
    if lacking:
        return 1
    faults: list[str] = []
    print("units")
    faults += check_units()
    print("Kubernetes manifest, against the schemas in kubernetes-validate")
    faults += check_with(checkers / "kubernetes-validate", "--strict", "cron/relink.kubernetes.yaml")
    print("Dockerfile, by a linter: no image is built here")
    faults += check_with(checkers / "hadolint", "cron/Dockerfile")
    print("crontab line, by a cron daemon; up to three minutes")
    faults += check_cron()
    for fault in faults:
        print(f"FAILED {fault}", file=sys.stderr)
    print("deploy-check: " + (f"{len(faults)} faults" if faults else "all accepted"))
    return 1 if faults else 0


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    said = done.stdout + done.stderr
    return said if done.returncode == 0 or said else f"{command[0]} ended with {done.returncode}"


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
