"""Stripe's form encoding, parsed and checked strictly (Stripe API docs: request bodies, error codes parameter_*)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from jobs.simulator.failures import ApiFailure

Parameters = dict[str, Any]
TEXT, LIST, RANGE = "text", "list", "range"
Schema = Mapping[str, Any]
_NAME = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")


def parse(*encoded: str) -> Parameters:
    """Nested parameters of query strings and form bodies: ``a[b]=1&c[]=2&d[0]=3``. Raises ApiFailure 400."""
    tree: Parameters = {}
    for text in encoded:
        for name, value in parse_qsl(text, keep_blank_values=True):
            match = _NAME.fullmatch(name)
            if match is None:
                raise ApiFailure(
                    400, f"Invalid request (check that your POST content type and names are right): {name}"
                )
            path = [match[1], *re.findall(r"\[([^\[\]]*)\]", match[2])]
            _place(tree, path, value, name)
    return {name: _lists(value) for name, value in tree.items()}


def check(parameters: Parameters, schema: Schema) -> None:
    """Refuse names that `schema` does not know and values of another shape than its own."""
    unknown = list(_unknown(parameters, schema, ""))
    if unknown:
        plural = "s" if len(unknown) > 1 else ""
        raise ApiFailure(
            400, f"Received unknown parameter{plural}: {', '.join(unknown)}", code="parameter_unknown", param=unknown[0]
        )


def required(parameters: Parameters, name: str) -> Any:
    """A parameter that must be there."""
    if name not in parameters:
        raise ApiFailure(400, f"Missing required param: {name}.", code="parameter_missing", param=name)
    return parameters[name]


def text(parameters: Parameters, name: str, param: str | None = None) -> str | None:
    """An optional text that may not be empty."""
    value = parameters.get(name)
    if value is None:
        return None
    if value == "":
        raise ApiFailure(
            400,
            f"You passed an empty string for '{param or name}'. We assume empty values are an attempt to unset a "
            "parameter; however it cannot be unset. You should remove it from your request or supply a non-empty value.",
            code="parameter_invalid_empty",
            param=param or name,
        )
    return str(value)


def one_of(value: str, known: Iterable[str], param: str) -> str:
    """A value from a closed list."""
    choices = list(known)
    if value not in choices:
        listed = choices[0] if len(choices) == 1 else f"{', '.join(choices[:-1])}, or {choices[-1]}"
        raise ApiFailure(400, f"Invalid {param}: must be one of {listed}", param=param)
    return value


def values(parameters: Parameters, name: str, known: Iterable[str], param: str | None = None) -> tuple[str, ...]:
    """An optional list of values from a closed list, without repeats."""
    shown = param or name
    found = parameters.get(name, [])
    if found == "":
        raise ApiFailure(400, f"Invalid array for '{shown}'.", code="parameter_invalid_empty", param=shown)
    known = tuple(known)
    result = tuple(one_of(value, known, f"{shown}[{index}]") for index, value in enumerate(found))
    if len(set(result)) != len(result):
        raise ApiFailure(400, f"Duplicate values in {shown}.", param=shown)
    return result


def integer(value: str, param: str) -> int:
    """A whole number, as Stripe reads them."""
    if not re.fullmatch(r"-?\d{1,18}", value):
        raise ApiFailure(400, f"Invalid integer: {value}", code="parameter_invalid_integer", param=param)
    return int(value)


def _place(tree: Parameters, path: list[str], value: str, name: str) -> None:
    node = tree
    for step, following in zip(path, [*path[1:], None], strict=True):
        key = step if step else str(len(node))
        if following is None:
            if key in node:
                raise ApiFailure(400, f"Parameter given twice: {name}", param=name)
            node[key] = value
            return
        child = node.setdefault(key, {})
        if not isinstance(child, dict):
            raise ApiFailure(400, f"Invalid object for '{name}'.", param=name)
        node = child


def _lists(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if value and all(key.isdigit() for key in value):
        return [_lists(value[key]) for key in sorted(value, key=int)]
    return {key: _lists(item) for key, item in value.items()}


def _unknown(parameters: Parameters, schema: Schema, prefix: str) -> Iterable[str]:
    for name, value in parameters.items():
        param = f"{prefix}[{name}]" if prefix else name
        if name not in schema:
            yield param
            continue
        shape = schema[name]
        if isinstance(shape, Mapping):
            if not isinstance(value, dict):
                raise ApiFailure(400, f"Invalid object for '{param}'.", param=param)
            yield from _unknown(value, shape, param)
        elif shape == RANGE:
            if isinstance(value, dict):
                yield from (f"{param}[{key}]" for key in value if key not in ("gt", "gte", "lt", "lte"))
            elif not isinstance(value, str):
                raise ApiFailure(400, f"Invalid {param}.", param=param)
        elif shape == LIST:
            if not (value == "" or (isinstance(value, list) and all(isinstance(item, str) for item in value))):
                raise ApiFailure(400, f"Invalid array for '{param}'.", param=param)
        elif not isinstance(value, str):
            raise ApiFailure(400, f"Invalid string for '{param}'.", param=param)
