"""Changes the code in small ways, one at a time, and asks which changes no test notices: `make mutants`.

Each group below is changed in a copy of the tree and put to the tests that are about it. A change that survives must stand in
`explained.toml` with the reason why it is no fault; any other fails the run. So does an explanation that nothing needs any more.
Changes of nothing but the wording of a sentence for people (see `is_wording`) are counted and not listed.
Only SQLite is asked, since each change would need a server of its own; `--postgresql` asks both, for `--again`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXPLAINED = Path(__file__).with_name("explained.toml")
NOTICED = ("killed", "timeout", "segfault", "caught by type check")
CORES = os.cpu_count() or 1
SO_MUCH_SLOWER = 5
"""A change under which the tests take so many times as long makes them wait for ever; the tool's own 15 costs minutes for each."""


@dataclass(frozen=True, slots=True)
class Group:
    """Modules that are changed together, and the tests that must notice."""

    name: str
    modules: tuple[str, ...]
    tests: tuple[str, ...]


GROUPS = (
    Group(
        "redaction",
        ("reconcile/masking.py", "jobs/logs.py", "jobs/api_key.py"),
        ("tests/reconcile/test_masking.py", "tests/jobs/test_logs.py", "tests/jobs/test_api_key.py"),
    ),
    Group(
        "brakes",
        ("reconcile/brakes.py", "jobs/brake.py", "jobs/adapters/records_affected.py", "jobs/adapters/records_plans.py"),
        (
            "tests/reconcile/test_brakes.py",
            "tests/jobs/test_brake_records.py",
            "tests/jobs/test_brake.py",
            "tests/jobs/adapters/test_records_plans.py",
            "tests/jobs/adapters/test_records_affected.py",
        ),
    ),
    Group(
        "plan_file",
        ("jobs/plan_file.py",),
        ("tests/jobs/test_plan_file.py", "tests/jobs/test_apply.py", "tests/jobs/test_brake_records.py"),
    ),
    Group(
        "lock",
        ("jobs/adapters/lease.py", "jobs/adapters/lock_probe.py"),
        ("tests/jobs/adapters/test_lease.py", "tests/jobs/adapters/test_lock_probe.py"),
    ),
    Group(
        "send",
        ("jobs/send.py",),
        ("tests/jobs/test_send.py",),
    ),
    Group(
        "sender",
        ("jobs/sender.py",),
        ("tests/jobs/test_sender_step.py", "tests/jobs/test_send.py", "tests/jobs/test_relink_step.py"),
    ),
    Group(
        "key_age",
        ("jobs/key_age.py",),
        ("tests/jobs/test_key_age.py", "tests/jobs/test_send.py"),
    ),
    Group(
        "settle",
        ("jobs/settle.py",),
        ("tests/jobs/test_settle_step.py",),
    ),
    Group(
        "relink",
        ("jobs/relink.py",),
        ("tests/jobs/test_relink_step.py",),
    ),
    Group(
        "records",
        ("jobs/adapters/records_requests.py",),
        ("tests/jobs/adapters/test_records_requests.py",),
    ),
)


@dataclass(frozen=True, slots=True)
class Change:
    """One change of one function: the lines that went and those that came."""

    function: str
    was: str
    becomes: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the named groups, or all; 0 where every survivor is explained."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    names = ", ".join(group.name for group in GROUPS)
    parser.add_argument("group", nargs="*", help=f"all, if none is named: {names}")
    parser.add_argument("--children", type=int, default=CORES, help="how many changes are tried at once")
    parser.add_argument("--again", type=Path, help="try only the survivors that an earlier output in this file names")
    parser.add_argument("--postgresql", action="store_true", help="ask the tests that need PostgreSQL as well")
    options = parser.parse_args(arguments)
    unknown = set(options.group) - {group.name for group in GROUPS}
    if unknown:
        parser.error(f"no such group: {', '.join(sorted(unknown))}; there are {names}")
    explained = _explained()
    again = () if options.again is None else tuple(_NAMED.findall(options.again.read_text()))
    faults = 0
    for group in GROUPS:
        if not options.group or group.name in options.group:
            faults += _try_group(group, explained, options.children, again, options.postgresql)
    return 1 if faults else 0


def _try_group(
    group: Group, explained: dict[Change, str], children: int, again: Sequence[str], with_postgresql: bool
) -> int:
    with tempfile.TemporaryDirectory(prefix="mutants-") as place:
        tree = Path(place)
        _copy_tree(tree)
        _configure(tree, group, with_postgresql)
        results = _results(tree, children, again)
        survivors = {name: _change(tree, name) for name, result in results.items() if result not in NOTICED}
    counts = Counter(results.values())
    print(
        f"{group.name}: {len(results)} changes, "
        + ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))
    )
    wording = {name for name, change in survivors.items() if change not in explained and is_wording(change)}
    survivors = {name: change for name, change in survivors.items() if name not in wording}
    unexplained = [(name, change) for name, change in survivors.items() if change not in explained]
    for name, change in unexplained:
        print(
            f"  {results[name]}: {name}\n    function = {change.function!r}\n    - {change.was}\n    + {change.becomes}"
        )
    modules = {module.removesuffix(".py").replace("/", ".") for module in group.modules}
    stale = [
        change
        for change in explained
        if not again and change.function.rpartition(".")[0] in modules and change not in survivors.values()
    ]
    for change in stale:
        print(f"  explained, but no longer a survivor: {change.function}: {change.was!r} -> {change.becomes!r}")
    print(
        f"  {len(survivors)} survive, {len(survivors) - len(unexplained)} of them explained; besides, {len(wording)} changes of wording"
    )
    return len(unexplained) + len(stale)


_NAMED = re.compile(r"^  (?:survived|no tests|timeout|suspicious): (\S+__mutmut_\d+)$", re.MULTILINE)
_LITERAL = re.compile(r"""[rbf]*(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')""", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_]{2,}")
_WORDS_OF_A_SENTENCE = 3


def is_wording(change: Change) -> bool:
    """Whether a change touches nothing but one sentence for people: its case, letters put around it, or None in its place.

    A sentence is a text of three words and more with spaces between them. Names, keys, formats and patterns are none, so that changes of
    those still have to be noticed. Tests assert in a message what a person needs from it, not every letter.
    """
    literals = _LITERAL.findall(change.was)
    for literal in filter(_is_sentence, literals):
        if change.was.replace(literal, "None", 1) == change.becomes:
            return True
    became = _LITERAL.findall(change.becomes)
    if _LITERAL.sub('""', change.was) != _LITERAL.sub('""', change.becomes) or len(literals) != len(became):
        return False
    changed = [(before, after) for before, after in zip(literals, became, strict=True) if before != after]
    return bool(changed) and all(_is_sentence(before) and _same_words(before, after) for before, after in changed)


def _is_sentence(literal: str) -> bool:
    return " " in literal.strip("\"' ") and len(_WORD.findall(literal)) >= _WORDS_OF_A_SENTENCE


def _same_words(before: str, after: str) -> bool:
    return after.replace("XX", "").casefold() == before.casefold()


def _copy_tree(tree: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_bytes((ROOT / name).read_bytes())


def _configure(tree: Path, group: Group, with_postgresql: bool) -> None:
    settings = {
        "source_paths": ["jobs", "reconcile", "reports"],
        "only_mutate": list(group.modules),
        "also_copy": ["config.yaml", "cron"],
        "pytest_add_cli_args": ["-p", "no:cacheprovider", *(() if with_postgresql else ("-k", "not postgresql"))],
        "pytest_add_cli_args_test_selection": list(group.tests),
        "timeout_multiplier": SO_MUCH_SLOWER,
    }
    with (tree / "pyproject.toml").open("a") as file:
        file.write("\n[tool.mutmut]\n")
        file.writelines(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())


def _results(tree: Path, children: int, again: Sequence[str]) -> dict[str, str]:
    ran = _mutmut(tree, "run", "--max-children", str(children), *again)
    results = dict(_result_lines(_mutmut(tree, "results", "--all", "true").stdout))
    if again:
        results = {name: result for name, result in results.items() if result != "not checked"}
    if not results:
        sys.exit(f"no change was tried:\n{ran.stdout[-3000:]}{ran.stderr[-3000:]}")
    return results


def _result_lines(printed: str) -> Iterator[tuple[str, str]]:
    for line in printed.splitlines():
        name, colon, result = line.strip().rpartition(": ")
        if colon and "__mutmut_" in name:
            yield name, result


def _change(tree: Path, name: str) -> Change:
    shown = _mutmut(tree, "show", name).stdout.splitlines()
    body = [line for line in shown if not line.startswith(("---", "+++", "#"))]
    was = " ⏎ ".join(line[1:].strip() for line in body if line.startswith("-"))
    becomes = " ⏎ ".join(line[1:].strip() for line in body if line.startswith("+"))
    return Change(name.partition("__mutmut_")[0].replace(".x_", "."), was, becomes)


def _mutmut(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mutmut", *arguments], cwd=tree, check=False, capture_output=True, text=True
    )


def _explained() -> dict[Change, str]:
    listed = tomllib.loads(EXPLAINED.read_text()).get("survivor", [])
    return {Change(one["function"], one["was"], one["becomes"]): one["why"] for one in listed}


if __name__ == "__main__":
    sys.exit(main())
