"""The addresses that are told of a run: read from the environment, since each is a secret, and never shown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlencode, urlsplit, urlunsplit

from jobs.settings import Settings
from jobs.settings_checks import is_loopback

_BETWEEN_ADDRESSES = re.compile(r"[\s,]+(?=[A-Za-z][A-Za-z0-9+.-]*://)|\s+")
"""A comma parts two addresses only before a scheme: within one it may part its recipients."""


def notify_urls(settings: Settings, environment: Mapping[str, str]) -> list[str]:
    """The addresses to notify, in order; each is a secret."""
    text = _variable(settings.notify.urls_env, environment)
    return [url for url in _BETWEEN_ADDRESSES.split(text.strip(" \t\r\n,")) if url]


def heartbeat_url(settings: Settings, environment: Mapping[str, str]) -> str | None:
    """The address to ping, which is a secret."""
    return _variable(settings.notify.heartbeat_url_env, environment).strip() or None


def heartbeat_problem(url: str) -> str | None:
    """What is wrong with an address to ping, without showing it."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises where it is no number
    except ValueError:
        return "is not an address"
    if not url.isprintable() or " " in url or not parts.hostname:
        return "is not an address"
    if "@" in parts.netloc:
        return "names a user, which is not supported; put the check's own address there"
    if parts.scheme == "https" or (parts.scheme == "http" and is_loopback(url)):
        return None
    return "must be https; http only on loopback"


def _variable(name: str | None, environment: Mapping[str, str]) -> str:
    return "" if name is None else environment.get(name, "")


def ping_address(url: str, suffix: str, run: str | None) -> str:
    """The address of a start (`/start`), a success (empty) or a failure (`/EXIT_CODE`); `run` is a UUID that pairs start and end."""
    parts = urlsplit(url)
    query = "&".join(part for part in (parts.query, "" if run is None else urlencode({"rid": run})) if part)
    return urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/") + suffix, query, ""))
