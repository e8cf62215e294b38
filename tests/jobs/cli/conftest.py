"""Runs the command in this process, over a deployment with a simulated Stripe."""

from __future__ import annotations

import json
import logging
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from jobs.cli import main
from tests.jobs.nights import KEY, Nights


@dataclass(frozen=True)
class Ended:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Relink = Callable[..., Ended]


@pytest.fixture
def relink(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Relink]:
    """The command; what it changes in this process is put back."""
    handlers, level = list(logging.root.handlers), logging.root.level
    caught = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    for name in ("RELINK_CONFIG", "STRIPE_API_KEY"):
        monkeypatch.delenv(name, raising=False)

    def call(*arguments: str) -> Ended:
        capsys.readouterr()
        code = main(arguments)
        said = capsys.readouterr()
        return Ended(code, said.out, said.err)

    yield call
    logging.root.handlers[:], logging.root.level = handlers, level
    logging.captureWarnings(False)
    for number, handler in caught.items():
        signal.signal(number, handler)


@pytest.fixture
def at(nights: Nights, relink: Relink, monkeypatch: pytest.MonkeyPatch) -> Relink:
    """The command in the directory and with the settings and the key of `nights`."""
    return deployed(nights, relink, monkeypatch)


def deployed(nights: Nights, relink: Relink, monkeypatch: pytest.MonkeyPatch, /, **sections: Any) -> Relink:
    """The command for a deployment, found by ./config.yaml as under cron."""
    nights.config_file(**sections)
    monkeypatch.chdir(nights.directory)
    monkeypatch.setenv("STRIPE_API_KEY", KEY)
    return relink
