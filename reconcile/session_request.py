"""The body of a request, as text that can be stored before it is sent and sent again byte for byte."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from urllib.parse import urlencode


def encode_session_request(params: Mapping[str, object]) -> str:
    """Return `params` in Stripe's form encoding: `a[b]` for nested fields, `a[0]` for lists, in the order given.

    None leaves a field out; an empty text is sent (Stripe API docs: it unsets a value). The same parameters give the same
    text as the `stripe` package sends.

    Raises TypeError for a value that has no single form, such as a float.
    """
    return urlencode(list(_fields(params, ""))).replace("%5B", "[").replace("%5D", "]")


def _fields(params: Mapping[str, object], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in params.items():
        name = f"{prefix}[{key}]" if prefix else key
        yield from _field(name, value)


def _field(name: str, value: object) -> Iterator[tuple[str, str]]:
    if value is None:
        return
    if isinstance(value, bool):
        yield name, "true" if value else "false"
    elif isinstance(value, str):
        yield name, str(value)
    elif isinstance(value, int):
        yield name, f"{value:d}"
    elif isinstance(value, Mapping):
        yield from _fields(value, name)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            if item is None:
                raise TypeError(f"{name}[{index}] is None; a list holds values only")
            yield from _field(f"{name}[{index}]", item)
    else:
        raise TypeError(f"{name} is a {type(value).__name__}; a request holds text, whole numbers, lists and mappings")
