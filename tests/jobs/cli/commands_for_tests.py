"""Commands that end in every way that a command can end."""

from __future__ import annotations

import os
import signal
import time

import click

from reconcile.errors import AlreadyRunning


@click.command()
@click.argument("how")
@click.option("--json", is_flag=True)
def end(how: str, json: bool) -> int:
    """End in some way."""
    if how == "bug":
        raise KeyError("the session fcsess_1_secret_abcdefgh of kim.doe@customer.example")
    if how == "busy":
        raise AlreadyRunning("another run holds the lock: kim.doe@customer.example")
    if how == "interrupt":
        raise KeyboardInterrupt
    if how == "terminate":
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)  # never waited for: the signal ends it
    if how == "pipe":
        raise BrokenPipeError(32, "Broken pipe")  # of a connection, not of what is printed
    return int(how)
