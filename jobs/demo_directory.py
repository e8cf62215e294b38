"""The directory that a demo fills: its own, so that the next demo may replace it, and with settings that work afterwards."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from reconcile.errors import ReportError, SettingsError

MARKER = ".relink-demo"
KEY_VARIABLE = "STAND_IN_API_KEY"
"""Not the variable that real settings name, so that a real key in the environment is never taken for the demo's."""

_MADE_BY_A_DEMO = ("config.yaml", "ledger.csv", "var", "reports")
_NO_PLACE_IN_A_URL = "?#%"


@dataclass(frozen=True, slots=True)
class DemoDirectory:
    """Where a demo keeps what it makes."""

    path: Path

    @property
    def config(self) -> Path:
        """The settings, for the demo and for looking at it afterwards."""
        return self.path / "config.yaml"

    @property
    def ledger(self) -> Path:
        """The merchant's list of accounts."""
        return self.path / "ledger.csv"

    @property
    def database(self) -> Path:
        """The job's own tables."""
        return self.path / "var" / "relink.db"

    @property
    def log(self) -> Path:
        """What the job logged; a night under cron would log it to stderr."""
        return self.path / "var" / "relink.log"

    @property
    def reports(self) -> Path:
        """Where the nights' reports are published."""
        return self.path / "reports"


def prepare(path: Path) -> DemoDirectory:
    """An empty directory for a demo; what an earlier demo made there is removed, and nothing else ever is.

    Raises:
        SettingsError: the directory holds something that no demo made, or its name cannot stand in a database URL.
        ReportError: it cannot be written.
    """
    directory = DemoDirectory(path.absolute())
    if unfit := sorted(set(_NO_PLACE_IN_A_URL) & set(str(directory.path))):
        raise SettingsError(
            f"{path}: {' '.join(unfit)} cannot stand in a database's address; choose another --directory"
        )
    try:
        found = {entry.name for entry in directory.path.iterdir()} if directory.path.exists() else set()
        if found and MARKER not in found:
            raise SettingsError(
                f"{path} is not empty and holds no earlier demo ({MARKER} is missing); choose another --directory"
            )
        if foreign := sorted(found - {MARKER, *_MADE_BY_A_DEMO}):
            raise SettingsError(
                f"{path} holds {foreign[0]}, which no demo made; move it away, or choose another --directory"
            )
        directory.path.mkdir(parents=True, exist_ok=True)
        # The marker comes first, so that a demo that was broken off can be replaced, too.
        (directory.path / MARKER).touch()
        for name in found - {MARKER}:
            _remove(directory.path / name)
        directory.database.parent.mkdir()
    except OSError as fault:
        raise ReportError(f"{path}: {fault.strerror or fault}; choose another --directory") from fault
    return directory


def write_settings(directory: DemoDirectory, api_base: str) -> Path:
    """Write `config.yaml`: only what a demo needs otherwise than the defaults, with absolute paths."""
    # JSON's quoting is YAML's, too, so that no name of a directory can be anything but text.
    text = f"""\
# Settings of a finished demo. `relink --config` with this file shows what the demo's nights left behind: status, history, runs.
# The stand-in for Stripe ended with the demo, so that no further night can be run with it.

merchants:
  - name: main
    api_key_env: {KEY_VARIABLE}

stripe:
  api_base: {json.dumps(api_base)}
  requests_per_second: 1000            # the stand-in is on this machine; Stripe allows 100
  endpoint_requests_per_second: 1000   # Stripe allows 25

database:
  url: {json.dumps(f"sqlite:///{directory.database}")}

reports:
  directory: {json.dumps(str(directory.reports))}
  formats: [csv, parquet, xlsx, html]
"""
    directory.config.write_text(text, encoding="utf-8")
    return directory.config


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
