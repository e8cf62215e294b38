"""Cursors, limits and the filters of the event list (Stripe API docs: pagination, list all events)."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from jobs.simulator import parameters
from jobs.simulator.failures import ApiFailure, missing
from jobs.simulator.model import Event
from jobs.simulator.parameters import Parameters


class Identified(Protocol):
    """Anything with an id."""

    @property
    def id(self) -> str:
        """Its id."""
        ...


Item = TypeVar("Item", bound=Identified)


def cut_page(
    source: Sequence[Item], given: Parameters, position: Callable[[str], int | None], object_name: str
) -> tuple[list[Item], bool]:
    """A page, newest first, of an oldest-first sequence, and whether more follow."""
    limit = parameters.integer(given.get("limit", "10"), "limit")
    if limit < 1 or limit > 100:
        side = ("less", "100") if limit > 100 else ("greater", "1")
        raise ApiFailure(
            400,
            f"This value must be {side[0]} than or equal to {side[1]}.",
            code="parameter_invalid_integer",
            param="limit",
        )
    if "starting_after" in given and "ending_before" in given:
        raise ApiFailure(400, "Pass only one of starting_after and ending_before.", param="starting_after")
    for name in ("starting_after", "ending_before"):
        cursor = parameters.text(given, name)
        if cursor is None:
            continue
        place = position(cursor)
        if place is None:
            raise missing(object_name, cursor, name, status=400)
        if name == "starting_after":
            older = max(0, place - limit)
            return list(reversed(source[older:place])), older > 0
        newer = source[place + 1 : place + 1 + limit]
        return list(reversed(newer)), len(source) > place + 1 + limit
    first = max(0, len(source) - limit)
    return list(reversed(source[first:])), first > 0


def event_types(given: Parameters) -> list[str] | None:
    """The wanted event types, `type` with wildcards or up to twenty `types`; None for all."""
    wanted = given.get("types")
    if wanted is not None and "type" in given:
        raise ApiFailure(400, "You may only specify one of these parameters: type, types.", param="types")
    if wanted is None:
        named = parameters.text(given, "type")
        return None if named is None else [named]
    if not wanted or len(wanted) > 20:
        raise ApiFailure(400, "types takes 1 to 20 event names.", param="types")
    for name in wanted:
        if "*" in name:
            raise ApiFailure(400, f"Invalid event name in types: {name}", param="types")
    return list(wanted)


def created_bounds(events: Sequence[Event], created: Any) -> tuple[int, int]:
    """The slice of `events` that a `created` filter leaves."""
    if created is None:
        return 0, len(events)

    def place(find: Callable[..., int], value: str, param: str) -> int:
        return find(events, parameters.integer(value, param), key=lambda event: event.created)

    if isinstance(created, str):
        return place(bisect_left, created, "created"), place(bisect_right, created, "created")
    first, last = 0, len(events)
    for name, value in created.items():
        param = f"created[{name}]"
        if name == "gte":
            first = max(first, place(bisect_left, value, param))
        elif name == "gt":
            first = max(first, place(bisect_right, value, param))
        elif name == "lte":
            last = min(last, place(bisect_right, value, param))
        else:
            last = min(last, place(bisect_left, value, param))
    return first, max(first, last)
