"""Named moments of a run at which its process may be killed.

The product has no hooks for this. A child process that is about to run a night wraps what the night really calls: every function of
the records, every commit that writes, the lease, every call to Stripe down to the bytes on the wire, the snapshot file and the steps of
publishing. A wrapper says that a moment is reached and then lets the wrapped thing run as it is. Only ever install them in a process
that is thrown away.
"""

from __future__ import annotations

import dataclasses
import functools
import http.client
import inspect
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import urllib3.connection
from sqlalchemy.engine.default import DefaultDialect

from jobs import nightly, wiring
from jobs.adapters import lease, records, snapshots
from jobs.adapters.database import Database
from jobs.adapters.stripe_gateway import StripeGateway
from jobs.adapters.stripe_transport import StripeTransport

Reached = Callable[[str], None]
Replace = Callable[[Any, str, Any], None]

STAGE_FUNCTIONS = (
    "check_writable",
    "clean_leftovers",
    "record_decisions",
    "record_brakes",
    "store_plan",
    "relink",
    "refresh",
    "publish",
)
GATEWAY_METHODS = (
    "list_accounts_page",
    "list_account_columns",
    "list_events",
    "retrieve_account",
    "retrieve_session",
    "create_session",
    "refresh_account",
)
SNAPSHOT_STEPS = ("_make_private_directories", "_remove_leftovers", "_write_parquet", "_sha256", "_sync")

SENDING = ("create_session", "POST sessions", "mark_attempting", "record_result")
"""Parts of the names of the moments around a POST."""


def install(reached: Reached, replace: Replace = setattr) -> Moments:
    """From now on tell `reached` the name of every moment that this thread of this process comes to.

    Args:
        replace: puts a wrapper in the place of what it wraps; whoever wants to undo that passes a function that remembers.
    """
    moments = Moments(reached, replace)
    for name in records.__all__:
        if inspect.isfunction(getattr(records, name)):
            moments.wrap(records, name, _stage_name if name == "set_stage" else None)
    for name in STAGE_FUNCTIONS:
        moments.wrap(nightly, name)
    moments.wrap(lease, "acquire", lambda _: "lease.acquire")
    for name in ("check", "release"):
        moments.wrap(lease.Lease, name, lambda _, name=name: f"lease.{name}")
    for name in GATEWAY_METHODS:
        moments.wrap(StripeGateway, name)
    for name in SNAPSHOT_STEPS:
        moments.wrap(snapshots, name, lambda _, name=name: f"snapshot {name.strip('_')}")
    moments.wrap(os, "replace", lambda _: f"replace in {moments.doing}")
    _wrap_commits(moments)
    _wrap_wire(moments)
    _wrap_publishing(moments)
    return moments


class Moments:
    """Tells which moment is reached; `doing` is the innermost wrapped call that is under way, `writing` how many writes are."""

    def __init__(self, reached: Reached, replace: Replace) -> None:
        self._reached = reached
        self.replace = replace
        self._thread = threading.get_ident()
        self.doing = "start"
        self.writing = 0

    def __call__(self, name: str) -> None:
        if threading.get_ident() == self._thread:
            self._reached(name)

    def wrap(self, owner: Any, attribute: str, name: Callable[[tuple[Any, ...]], str] | None = None) -> None:
        """Say when a function begins and when it has returned."""
        function = getattr(owner, attribute)

        @functools.wraps(function)
        def wrapped(*arguments: Any, **named: Any) -> Any:
            shown = attribute if name is None else name(arguments)
            self(f"before {shown}")
            with self.inside(shown):
                result = function(*arguments, **named)
            self(f"after {shown}")
            return result

        self.replace(owner, attribute, wrapped)

    @contextmanager
    def inside(self, name: str) -> Iterator[None]:
        """While `name` is what the process is doing."""
        outer, self.doing = self.doing, name
        try:
            yield
        finally:
            self.doing = outer


def _stage_name(arguments: tuple[Any, ...]) -> str:
    return f"set_stage {arguments[2]}"


def _wrap_commits(moments: Moments) -> None:
    """Before and after each commit of a write, which lies between the function's last statement and its return."""
    run, begin, commit = Database.run, Database.begin, DefaultDialect.do_commit

    def counted_run(self: Database, *arguments: Any, **named: Any) -> Any:
        moments.writing += 1
        try:
            return run(self, *arguments, **named)
        finally:
            moments.writing -= 1

    @contextmanager
    def counted_begin(self: Database) -> Iterator[Any]:
        moments.writing += 1
        try:
            with begin(self) as connection:
                yield connection
        finally:
            moments.writing -= 1

    def told_commit(self: DefaultDialect, connection: Any) -> None:
        writes = moments.writing > 0
        if writes:
            moments(f"before commit of {moments.doing}")
        commit(self, connection)
        if writes:
            moments(f"after commit of {moments.doing}")

    moments.replace(Database, "run", counted_run)
    moments.replace(Database, "begin", counted_begin)
    moments.replace(DefaultDialect, "do_commit", told_commit)


def _wrap_wire(moments: Moments) -> None:
    """Before a connection is made, after each part that left, and before and after the head of the answer."""
    moments.wrap(StripeTransport, "_send", _call_name)
    connect, send, respond = (
        urllib3.connection.HTTPConnection.connect,
        http.client.HTTPConnection.send,
        urllib3.connection.HTTPConnection.getresponse,
    )

    def told_connect(self: urllib3.connection.HTTPConnection) -> None:
        moments(f"before connecting for {moments.doing}")
        connect(self)
        moments(f"after connecting for {moments.doing}")

    def told_send(self: http.client.HTTPConnection, data: Any) -> None:
        send(self, data)
        moments(f"part of {moments.doing} left")

    def told_respond(self: urllib3.connection.HTTPConnection) -> Any:
        moments(f"whole {moments.doing} left")
        response = respond(self)
        moments(f"head for {moments.doing} came")
        return response

    moments.replace(urllib3.connection.HTTPConnection, "connect", told_connect)
    moments.replace(http.client.HTTPConnection, "send", told_send)
    moments.replace(urllib3.connection.HTTPConnection, "getresponse", told_respond)


def _call_name(arguments: tuple[Any, ...]) -> str:
    _, method, url = arguments[:3]
    kind = next(part for part in urlsplit(url).path.split("/") if part not in ("", "v1", "financial_connections"))
    return f"{method.upper()} {kind}"


def _wrap_publishing(moments: Moments) -> None:
    reports = wiring.Wiring.reports.fget
    assert reports is not None

    def told(self: wiring.Wiring) -> Any:
        return dataclasses.replace(reports(self), reached=lambda step: moments(f"report: {step}"))

    moments.replace(wiring.Wiring, "reports", property(told))
