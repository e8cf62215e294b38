"""Database URLs without what is secret in them."""

from __future__ import annotations

import re
from urllib.parse import unquote, unquote_plus

# Greedy to the last `@`, because a password that somebody forgot to percent-encode may itself hold `/`, `:` or `@`.
_USER_AND_PASSWORD = re.compile(r"(?P<start>://[^:@/?#]*):(?P<password>.*)@", re.DOTALL)
_PARAMETER = re.compile(r"(?P<start>[?&;](?P<name>[^=&;]*)=)(?P<value>[^&;]*)")
_PLAIN_PARAMETERS = frozenset(
    {
        "application_name",
        "charset",
        "connect_timeout",
        "database",
        "dbname",
        "driver",
        "host",
        "mode",
        "port",
        "role",
        "schema",
        "service",
        "sslmode",
        "target_session_attrs",
        "uri",
        "warehouse",
    }
)


def without_password(url: str) -> str:
    """The same URL with its password, and every parameter that could hold a secret, replaced by `***`."""
    stripped = _USER_AND_PASSWORD.sub(r"\g<start>:***@", url, count=1)
    return _PARAMETER.sub(_hide_parameter, stripped)


def secrets_of(url: str) -> tuple[str, ...]:
    """Every piece of a URL that `without_password` hides, as written and percent-decoded, longest first."""
    found = {match["value"] for match in _PARAMETER.finditer(url) if match["name"].lower() not in _PLAIN_PARAMETERS}
    credentials = _USER_AND_PASSWORD.search(url)
    if credentials:
        found.add(credentials["password"])
    decoded = {text for value in found for text in (value, unquote(value), unquote_plus(value))}
    return tuple(sorted((text for text in decoded if len(text) > 1), key=len, reverse=True))


def scrub(text: str, url: str) -> str:
    """A driver's message with whatever is secret in the URL replaced by `***`."""
    for secret in (url, *secrets_of(url)):
        text = text.replace(secret, without_password(url) if secret == url else "***")
    return text


def _hide_parameter(match: re.Match[str]) -> str:
    plain = match["name"].lower() in _PLAIN_PARAMETERS
    return match[0] if plain else f"{match['start']}***"
