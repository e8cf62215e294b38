"""Says in a person's words what is wrong with settings, all of it at once, and how to mend it."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from jobs.settings_source import Fault, Path_, dotted
from reconcile.errors import SettingsError
from reconcile.masking import looks_sensitive, mask

_SHOWN_VALUE_CHARACTERS = 60

_WORDS = {
    "missing": "is missing; add it",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "is too large",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "string_type": "must be text; put it in quotes",
    "tuple_type": "must be a list, as in [a, b]",
    "model_type": "must hold further names and values",
    "literal_error": "must be one of {expected}",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "too_short": "must have at least {min_length} entry",
    "string_too_short": "must not be empty",
    "string_too_long": "must be at most {max_length} characters long",
}


def setting_paths(model: type[BaseModel], above: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting's dotted path, without list positions, and its type."""
    for name, field in model.model_fields.items():
        path = f"{above}.{name}" if above else name
        inner = _model_in(field.annotation)
        if inner:
            yield from setting_paths(inner, path)
        else:
            yield path, field.annotation


def explain(details: ErrorDetails, model: type[BaseModel]) -> Fault:
    """Turn one of pydantic's findings into a fault."""
    path: Path_ = details["loc"]
    kind, context = details["type"], details.get("ctx", {})
    if kind == "extra_forbidden":
        return Fault(path, f"is not a setting{_nearest_key(path, model)}")
    if kind == "value_error":
        return Fault(path, str(context["error"]))
    words = _WORDS.get(kind, details["msg"].lower()).format_map(context)
    if kind == "literal_error":
        words += _nearest_value(details["input"], str(context.get("expected", "")))
    shown = "" if kind in ("missing", "model_type") else _shown(details["input"])
    return Fault(path, words + shown)


def settings_error(where: str, faults: Sequence[Fault], variables: Mapping[Path_, str]) -> SettingsError:
    """One error that lists every fault with its path, and the variable that set it where one did."""
    lines = []
    for fault in faults:
        name = None if isinstance(fault.path, str) else _variable_of(fault.path, variables)
        line = f"  {dotted(fault.path)}{f' (from ${name})' if name else ''}: {fault.problem}"
        line = mask(line)
        if line not in lines:
            lines.append(line)
    count = "1 fault" if len(lines) == 1 else f"{len(lines)} faults"
    return SettingsError("\n".join([f"{count} in the settings ({where}):", *lines]))


def _variable_of(path: Path_, variables: Mapping[Path_, str]) -> str | None:
    for depth in range(len(path), 0, -1):
        if path[:depth] in variables:
            return variables[path[:depth]]
    return next((name for below, name in variables.items() if below[: len(path)] == path), None)


def nearest(name: str, known: Sequence[str]) -> str | None:
    """The known name that a misspelt one most likely means."""
    found = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.6)
    return found[0] if found else None


def _nearest_key(path: Path_, model: type[BaseModel]) -> str:
    names = [part for part in path if not isinstance(part, int)]
    siblings = _fields_at(names[:-1], model)
    here = nearest(names[-1], siblings)
    if here:
        return f"; did you mean {here}?"
    everywhere = [known for known, _ in setting_paths(model)]
    exact = [known for known in everywhere if known.rpartition(".")[2] == names[-1]]
    if exact:
        return f"; did you mean {exact[0]}?"
    return f"; known here: {', '.join(siblings)}" if siblings else "; remove it"


def _fields_at(names: Sequence[str], model: type[BaseModel]) -> list[str]:
    here: type[BaseModel] | None = model
    for name in names:
        field = here.model_fields.get(name) if here else None
        here = _model_in(field.annotation) if field else None
    return list(here.model_fields) if here else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _nearest_value(value: object, expected: str) -> str:
    words = [word for word in expected.replace(" or ", ", ").replace("'", "").split(", ") if word]
    found = nearest(value, words) if isinstance(value, str) else None
    return f"; did you mean {found}?" if found else ""


def _shown(value: object) -> str:
    """The value as given, where it is short, printable and nothing secret."""
    if not isinstance(value, (str, int, float, bool)):
        return ""
    text = str(value)
    if len(text) > _SHOWN_VALUE_CHARACTERS or not text.isprintable() or looks_sensitive(text):
        return ""
    return f" (it is {value!r})"
