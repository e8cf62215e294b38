"""Runs a real cron daemon on the shipped crontab; to be started under `unshare --mount`, as root."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from jobs.adapters import records
from jobs.adapters.database import open_database
from jobs.simulator.server import SimulatorServer
from reconcile.ledger import check_rows, require_clean
from tests.jobs.nights import KEY, ledger_of, small_world

ROOT = Path(__file__).parents[2]
HOME = Path("/srv/relink")
EVERY_MINUTE = "* * * * *"
PATIENCE_SECONDS = 180


def main() -> int:
    """Install the line as crontab(1) does, start cron, and wait for its run to publish; 0 where it did."""
    for directory in ("/srv", "/var/spool/cron", "/etc/cron.d", "/run"):
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "none", directory], check=True)
    with tempfile.NamedTemporaryFile() as nothing:
        subprocess.run(["mount", "--bind", nothing.name, "/etc/crontab"], check=True)
    crontabs = Path("/var/spool/cron/crontabs")
    crontabs.mkdir(mode=0o1730)
    world = small_world(start=datetime.now(UTC))
    with SimulatorServer(world) as server:
        _deploy(server.base_url)
        with open_database(f"sqlite:///{HOME}/var/relink.db") as database:
            database.upgrade()
            records.load_ledger(database, require_clean(check_rows(ledger_of(world), ["main"])))
        shipped = (ROOT / "cron" / "relink.crontab").read_text()
        line, replaced = re.subn(r"^30 3 \* \* \*", EVERY_MINUTE, shipped, flags=re.MULTILINE)
        assert replaced == 1, "the shipped crontab has another time than 30 3 * * *"
        subprocess.run(["crontab", "-"], input=line, text=True, check=True)
        daemon = subprocess.Popen(["cron", "-f"])
        try:
            latest = HOME / "var/reports/latest"
            until = time.monotonic() + PATIENCE_SECONDS
            while not latest.exists() and time.monotonic() < until:
                time.sleep(1)
        finally:
            daemon.terminate()
            daemon.wait()
        log = HOME / "log/relink.log"
        if not latest.exists():
            print(f"no report; the log: {log.read_text() if log.exists() else 'none'}", file=sys.stderr)
            return 1
        summary = json.loads((latest / "summary.json").read_text())
        asked = len(world.effects)
        print(
            f"  cron ran {summary['run_id']}: complete {summary['complete']}, {asked} of 3 sessions, a log of {log.stat().st_size} bytes"
        )
        return 0 if summary["complete"] and asked == 3 else 1


def _deploy(api_base: str) -> None:
    """What the crontab line expects in its place: the program, a config.yaml and a directory for the log."""
    (HOME / "log").mkdir(parents=True)
    (HOME / "var").mkdir()
    (HOME / "venv").symlink_to(Path(sys.executable).parents[1])
    key = HOME / "key"
    key.touch(mode=0o600)
    key.write_text(KEY)
    settings = {
        "merchants": [{"name": "main", "api_key_file": os.fspath(key)}],
        "stripe": {"api_base": api_base},
        "brakes": {"newly_broken_share": 1.0, "newly_broken_share_7d": 1.0, "institution_share": 1.0, "minimum": 1000},
    }
    (HOME / "config.yaml").write_text(json.dumps(settings))


if __name__ == "__main__":
    sys.exit(main())
