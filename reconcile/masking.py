"""Takes out of a text what must never be stored, logged or shown: secrets, links that are keys, e-mail addresses."""

from __future__ import annotations

import base64
import re

EMAIL = "[email]"
LINK = "[url]"
SECRET = "[secret]"  # noqa: S105 - the replacement, not a secret

# An escape that is written out before a word, as in `%3Dsk_…` or `\\nsk_…`, ends in letters that are none of the word's own.
_BEHIND_ESCAPE = (
    r"(?<=%[0-9A-Fa-f]{2})|(?<=%25[0-9A-Fa-f]{2})|(?<=%2525[0-9A-Fa-f]{2})"
    r"|(?<=\\[abefnrtv0])|(?<=\\x[0-9A-Fa-f]{2})|(?<=\\u[0-9A-Fa-f]{4})"
)
_START = rf"(?:\b|{_BEHIND_ESCAPE})"

# Every repetition is bounded, or begins only where none of its letters stands before, so that no text of any length makes a pattern slow.
_EMAIL = re.compile(
    r"[^\s@<>\"',;:()\[\]{}|=&?/\\]{1,128}(?:@|%40)[^\s@<>\"',;:()\[\]{}|=&?/\\%]{1,128}\.[^\W\d_]{2,24}",
    re.I,
)
_LINK = re.compile(_START + r"[a-z][a-z0-9+.\-]{1,30}(?:://|%3A%2F%2F)[^\s\"'<>]+", re.I)
_STRIPE_PAGE = re.compile(_START + r"(?:[a-z0-9\-]{1,63}\.){0,4}stripe\.com(?:/|%2F)[^\s\"'<>]+", re.I)
_BEARER = re.compile(_START + r"(Bearer|Basic)(\s+|%20)[A-Za-z0-9._~+/=:\-]{6,}")
_KEY = re.compile(rf"(?:(?<![A-Za-z0-9])|{_BEHIND_ESCAPE})" + r"(?:sk|rk|ek|uk|whsec)_[A-Za-z0-9_*]{6,}")
_SESSION_SECRET = re.compile(r"(?<![A-Za-z0-9_])[A-Za-z0-9_]{0,128}_secret_[A-Za-z0-9_\-]{6,}")
_ENCODED = re.compile(r"(?<![A-Za-z0-9+/_\-])[A-Za-z0-9+/_\-]{12,}={0,2}")
_ESCAPE_LETTERS = {"%": (2, 4, 6), "\\": (1, 3, 5)}
"""How many letters of a token may be those of an escape that began before it."""
_UNREADABLE = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ufffd]")

# An address without a path, query or user opens nothing, and people need to read where the job connects to.
_HARMLESS_LINK = re.compile(
    r"(?:https?://(?:127\.\d+\.\d+\.\d+|localhost|\[::1\]|api\.stripe\.com)(?::\d+)?/?|sqlite:///[^\s@?]*)[.,;:)]*\Z",
    re.I,
)


def mask(text: str) -> str:
    """Return `text` with every e-mail address, link, key and client secret replaced, plain, URL-encoded or in base64."""
    return _mask_encoded(_mask_plain(text))


def looks_sensitive(text: str) -> bool:
    """Tell whether `text` holds anything shaped like an e-mail address, a link, a key or a client secret."""
    return "://" in text or mask(text) != text


def _mask_plain(text: str) -> str:
    if "://" in text or "%3A%2F%2F" in text.upper():
        text = _LINK.sub(_mask_link, text)
    if "stripe.com" in text.lower():
        text = _STRIPE_PAGE.sub(_mask_link, text)
    if "_" in text:
        text = _SESSION_SECRET.sub(SECRET, text)
        text = _KEY.sub(SECRET, text)
    if "B" in text:
        text = _BEARER.sub(rf"\1 {SECRET}", text)
    if "@" in text or "%40" in text:
        text = _EMAIL.sub(EMAIL, text)
    return text


def _mask_link(found: re.Match[str]) -> str:
    link = found.group()
    return link if _HARMLESS_LINK.match(link) else LINK


def _mask_encoded(text: str) -> str:
    return _ENCODED.sub(_mask_token, text)


def _mask_token(found: re.Match[str]) -> str:
    token = found.group()
    before = found.string[found.start() - 1 : found.start()]
    for start in (0, *_ESCAPE_LETTERS.get(before, ())):
        plain = _decoded(token[start:].rstrip("="))
        if _mask_plain(plain) != plain:
            return token[:start] + SECRET
    return token


def _decoded(token: str) -> str:
    """Return what a base64 token says; a last letter that says nothing by itself is what a cut has left."""
    whole = token[:-1] if len(token) % 4 == 1 else token
    padded = whole + "=" * (-len(whole) % 4)
    text = base64.b64decode(padded.replace("-", "+").replace("_", "/")).decode(errors="replace")
    # An id or a digest says no text. Keys and links do not come about by chance, but what looks like an address might.
    return text if 8 * len(_UNREADABLE.findall(text)) <= len(text) else text.replace("@", " ")
