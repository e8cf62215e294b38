"""Where settings come from: one strict YAML file, then `RELINK_` variables on top of it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from reconcile.errors import SettingsError
from reconcile.masking import mask

PREFIX = "RELINK_"
LEVEL_SEPARATOR = "__"
FILE_LIMIT_BYTES = 1024 * 1024

# Written from what Stripe's documentation shows of its keys and secrets; a name such as STRIPE_API_KEY does not match.
_SECRET = re.compile(r"\b(?:(?:sk|rk|ek)_(?:live|test)_\w+|whsec_\w+|\w*client_secret_\w{6,})")

Path_ = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with the settings: where, what, and how to mend it; never the value of anything secret."""

    path: Path_ | str
    problem: str


@dataclass(slots=True)
class RawSettings:
    """Settings as written, before any check; `variables` tells which paths an environment variable set."""

    values: dict[str, Any]
    variables: dict[Path_, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)


def dotted(path: Path_ | str) -> str:
    """A path as people write it: `merchants[0].name`."""
    if isinstance(path, str):
        return path
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def read_file(path: Path) -> RawSettings:
    """Read one settings file.

    Raises:
        SettingsError: it cannot be read, or is not one plain YAML mapping; nothing else can be said about it then.
    """
    text = _read_text(path)
    faults: list[Fault] = []
    loader = _StrictLoader(text, faults)
    try:
        values = loader.get_single_data()
    except yaml.YAMLError as error:
        raise SettingsError(f"{path}: {_yaml_problem(error)}") from None
    except (RecursionError, ValueError):
        raise SettingsError(f"{path}: is nested too deeply or holds an impossible number or date") from None
    finally:
        loader.dispose()
    if values is None:
        raise SettingsError(
            f"{path}: the settings file is empty; start from the config.yaml that came with this program"
        )
    if not isinstance(values, dict):
        raise SettingsError(f"{path}: the settings file must hold names and values, as in `log: {{level: info}}`")
    faults += _secrets_in_file(text, values)
    return RawSettings(values, faults=faults)


def overlay(raw: RawSettings, environment: Mapping[str, str], paths: Mapping[str, bool]) -> None:
    """Set what `RELINK_` variables say over what the file says, in place; one that is no setting is a fault.

    `paths` are all settings, dotted and without list positions, and whether each is text whatever it looks like in YAML.
    Variables that a setting names (a key's, an address') belong to that setting and are not read here.
    """
    sections = {path.partition(".")[0] for path in paths}
    named = _named_variables(raw.values, environment)
    for name in sorted(environment, key=lambda name: (name.count(LEVEL_SEPARATOR), name)):
        if not name.startswith(PREFIX) or name in named:
            continue
        path = _path_of(name)
        if LEVEL_SEPARATOR not in name and path[0] not in sections:
            raw.faults.append(Fault(f"${name}", f"is not a setting{_nearest_variable(name, paths)}"))
            continue
        try:
            value = _parse_value(environment[name], path, paths)
            _put(raw.values, path, value)
        except ValueError as error:
            raw.faults.append(Fault(f"${name}", str(error)))
        else:
            raw.variables[path] = name


def _named_variables(values: Mapping[str, Any], environment: Mapping[str, str]) -> set[str]:
    """The variables that hold what settings only name; whichever of file and environment names them."""
    named = {"RELINK_CONFIG", "RELINK_NOTIFY_URLS", "RELINK_HEARTBEAT_URL"}
    named |= {value.strip() for name, value in environment.items() if LEVEL_SEPARATOR in name and name.endswith("_ENV")}
    merchants = values.get("merchants")
    for section in (values.get("notify"), *(merchants if isinstance(merchants, list) else ())):
        if isinstance(section, dict):
            named |= {value for key, value in section.items() if str(key).endswith("_env") and isinstance(value, str)}
    return named


def _nearest_variable(name: str, paths: Mapping[str, bool]) -> str:
    variables = {
        PREFIX + path.replace("merchants.", "merchants.0.").replace(".", LEVEL_SEPARATOR).upper(): path
        for path in paths
    }
    last = name.removeprefix(PREFIX).lower()
    found = [variable for variable, path in variables.items() if path.endswith(f".{last}")]
    found = found or difflib.get_close_matches(name, list(variables), n=1, cutoff=0.8)
    return f"; did you mean ${found[0]}?" if found else "; remove it, or name it like $RELINK_LOG__LEVEL"


def _path_of(name: str) -> Path_:
    parts = name.removeprefix(PREFIX).lower().split(LEVEL_SEPARATOR)
    return tuple(int(part) if part.isascii() and part.isdecimal() and len(part) < 4 else part for part in parts)


def _parse_value(text: str, path: Path_, paths: Mapping[str, bool]) -> object:
    faults: list[Fault] = []
    is_text = paths.get(".".join(str(part) for part in path if not isinstance(part, int)), False)
    if "\x00" in text or len(text) > FILE_LIMIT_BYTES:
        raise ValueError("holds a NUL character or is too long")
    if _SECRET.search(text):
        raise ValueError("holds what looks like a key or a secret; put it where api_key_env or api_key_file say")
    loader = _StrictLoader(text, faults)
    try:
        value = loader.get_single_data()
    except (yaml.YAMLError, RecursionError, ValueError):
        if is_text:
            return text
        raise ValueError("is not a YAML value; write it as it would stand in the file, lists as [a, b]") from None
    finally:
        loader.dispose()
    if faults:
        raise ValueError(faults[0].problem)
    if is_text and value is not None and not isinstance(value, str):
        return text
    return value


def _put(values: dict[str, Any], path: Path_, value: object) -> None:
    """Set one value at a path, making the mappings on the way and a list's next element, never a gap."""
    here: Any = values
    for depth, part in enumerate(path):
        last = depth == len(path) - 1
        if isinstance(part, int):
            if not isinstance(here, list):
                raise ValueError(f"{dotted(path[:depth])} is not a list")
            if part > len(here):
                raise ValueError(f"{dotted(path[:depth])} has only {len(here)} entries, so the next one is {len(here)}")
            if part == len(here):
                here.append(None)
        elif not isinstance(here, dict):
            raise ValueError(f"{dotted(path[:depth])} has no further levels")
        if last:
            here[part] = value
            return
        following = here[part] if isinstance(part, int) else here.get(part)
        if following is None:
            following = [] if isinstance(path[depth + 1], int) else {}
            here[part] = following
        here = following


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(FILE_LIMIT_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a path"
        raise SettingsError(
            f"{path}: the settings file cannot be read ({reason}); check --config or $RELINK_CONFIG"
        ) from None
    if len(content) > FILE_LIMIT_BYTES:
        raise SettingsError(f"{path}: the settings file is larger than 1 MiB; is this the right file?")
    if b"\x00" in content:
        raise SettingsError(f"{path}: the settings file holds NUL bytes; save it as UTF-8 text")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SettingsError(
            f"{path}: the settings file is not UTF-8 at byte {error.start}; save it as UTF-8 text"
        ) from None


def _yaml_problem(error: yaml.YAMLError) -> str:
    """What the parser says, with its place but without the line itself, which may hold a secret."""
    mark = getattr(error, "problem_mark", None)
    place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "unreadable"
    return f"is not plain YAML{place}: {mask(str(problem))}"


def _secrets_in_file(text: str, values: object) -> list[Fault]:
    """Anything that looks like a key, comments included, told by its place only."""
    paths: dict[str, Path_] = {}
    _collect_secrets(values, (), paths)
    faults = []
    for number, line in enumerate(text.splitlines(), start=1):
        for match in _SECRET.finditer(line):
            path = paths.get(match[0])
            where = f"{dotted(path)} (line {number})" if path else f"line {number}"
            advice = "holds what looks like a key or a secret; take it out, roll it at Stripe, and name its variable or file instead"
            faults.append(Fault(where, advice))
    return faults


def _collect_secrets(value: object, path: Path_, paths: dict[str, Path_]) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            _collect_secrets(key, (*path, "…") if _SECRET.search(str(key)) else path, paths)
            _collect_secrets(inner, (*path, "…" if _SECRET.search(str(key)) else str(key)), paths)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _collect_secrets(inner, (*path, index), paths)
    elif isinstance(value, str):
        for match in _SECRET.finditer(value):
            paths.setdefault(match[0], path)


class _StrictLoader(yaml.SafeLoader):
    """YAML without aliases and with every repeated or unnamed key told; tags that build objects are unknown to it."""

    def __init__(self, text: str, faults: list[Fault]) -> None:
        super().__init__(text)
        self._faults = faults

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuse aliases: settings need none, and a few lines of them can stand for gigabytes."""
        if self.check_event(yaml.AliasEvent):
            mark = self.get_mark()
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not accepted", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Note keys that stand twice, of which plain YAML keeps the last in silence."""
        seen: set[str] = set()
        for key_node, _ in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag != "tag:yaml.org,2002:str":
                raise yaml.constructor.ConstructorError(None, None, "a key is not text", key_node.start_mark)
            if key_node.value in seen:
                name = mask(key_node.value)[:80]
                self._faults.append(Fault(f"line {line}", f"{name} stands twice in one mapping; keep one of them"))
            seen.add(key_node.value)
        return super().construct_mapping(node, deep=deep)
