"""Reads of an answer which fields it has, for probes that compare Stripe with what is documented; pure.

Kept are names of fields, ids as cursors, times of creation, and words of the chosen fields; any other value is passed over, secrets too.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import msgspec

from jobs.adapters.stripe_records import NotJson, WrongShape
from reconcile.masking import mask

_LONGEST_WORD = 80
_UNREAD = frozenset({"metadata", "previous_attributes"})  # their keys are the merchant's own
_NAME = re.compile(r"[a-z0-9_]{1,60}")


@dataclass(frozen=True, slots=True)
class Item:
    """One object of an answer. `fields` are dotted paths, `[]` behind a list; `words` are values of the chosen fields by path."""

    fields: frozenset[str]
    words: Mapping[str, frozenset[str]]
    created: int | None
    id: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Look:
    """What a GET showed: its objects (one, or those of a page), whether more follow, and what its headers told."""

    items: tuple[Item, ...]
    has_more: bool | None
    has_request_id: bool = False
    server_at: datetime | None = None
    api_version: str | None = None

    @property
    def fields(self) -> frozenset[str]:
        """The fields that any of the objects has."""
        return frozenset().union(*(item.fields for item in self.items))

    def words(self, name: str) -> frozenset[str]:
        """The words of a field over all objects."""
        return frozenset().union(*(item.words.get(name, frozenset()) for item in self.items))


def read_look(body: bytes, words: Collection[str] = ()) -> Look:
    """What an answer shows.

    Raises:
        NotJson, WrongShape: it is no JSON document, or no object.
    """
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, ValueError):
        found = None
    if found is None:
        raise NotJson
    if not isinstance(found, dict) or not isinstance(found.get("data", []), list):
        raise WrongShape("no object")
    if found.get("object") != "list":
        return Look((_item(found, words),), None)
    items = tuple(_item(one, words) for one in found["data"] if isinstance(one, dict))
    return Look(items, found.get("has_more") is True)


def with_headers(look: Look, request_id: str | None, server_at: datetime | None, api_version: str | None) -> Look:
    """The same with what the headers told."""
    return replace(look, has_request_id=bool(request_id), server_at=server_at, api_version=api_version)


def _item(found: Mapping[str, Any], chosen: Collection[str]) -> Item:
    words: dict[str, set[str]] = {}
    fields: set[str] = set()
    for path, value in _paths(found, ""):
        fields.add(path)
        if path in chosen:
            words.setdefault(path, set()).add(_word(value))
    created, identifier = found.get("created"), found.get("id")
    return Item(
        frozenset(fields),
        {path: frozenset(values) for path, values in words.items()},
        created if isinstance(created, int) else None,
        identifier if isinstance(identifier, str) else None,
    )


def _paths(value: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, inner in value.items():
        if not _NAME.fullmatch(name):
            continue
        path = prefix + name
        yield path, inner
        if name in _UNREAD:
            continue
        for one in inner if isinstance(inner, list) else [inner]:
            if isinstance(one, dict):
                yield from _paths(one, f"{path}[]." if isinstance(inner, list) else f"{path}.")


def _word(value: Any) -> str:
    if value is None or isinstance(value, bool | int):
        return str(value).lower()
    return mask(value)[:_LONGEST_WORD] if isinstance(value, str) else type(value).__name__
