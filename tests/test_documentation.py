"""The docs say what the code does: columns, commands, settings and exit codes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jobs.cli import COMMANDS
from jobs.simulator.stripe_behaviours import markdown as behaviours_markdown
from reconcile import errors
from reports.glossary import markdown

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_readme_has_every_column_as_the_code_has_it() -> None:
    """`make columns` writes them; a column changed without it fails here."""
    _, _, after = README.partition("<!-- columns: made by `make columns` -->\n")
    block, _, _ = after.partition("<!-- end of columns -->")
    assert block.strip() == markdown().strip()


def test_stripe_page_has_the_behaviours_as_the_stand_in_has_them() -> None:
    """`make behaviours` writes them."""
    _, _, after = (ROOT / "STRIPE.md").read_text(encoding="utf-8").partition("made by `make behaviours` -->\n")
    block, _, _ = after.partition("<!-- end of behaviours -->")
    assert block.strip() == behaviours_markdown().strip()


@pytest.mark.parametrize("command", COMMANDS)
def test_readme_names_every_command(command: str) -> None:
    assert f"`relink {command}" in README


def test_readme_names_every_exit_code_of_the_errors() -> None:
    codes = {kind.exit_code for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "exit_code")}
    rows = set(re.findall(r"^\| (\d+)", README, flags=re.MULTILINE))
    assert {str(code) for code in codes} <= rows


def test_architecture_names_only_modules_that_exist() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:jobs|reconcile|reports|tests|benchmarks)/[\w/]+(?:\.py)?)`", text))
    assert len(named) > 10
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_operations_names_only_settings_that_exist() -> None:
    from jobs.settings import parse_settings
    from reports.closed_lists import DELIVERIES, NEXT_STEPS
    from reports.columns import TABLES

    columns = {*TABLES, *(name for contract in TABLES.values() for name in contract.names)}
    text = (ROOT / "OPERATIONS.md").read_text(encoding="utf-8")
    known = str(parse_settings({"merchants": [{"name": "main"}]}).model_dump())
    named = {
        word
        for word in re.findall(r"`([a-z_0-9]+)`", text)
        if "_" in word and word not in ("not_sent", "sk_live_", "pg_dump", *DELIVERIES, *NEXT_STEPS, *columns)
    }
    settings = {word for word in named if not word.startswith("_")}
    assert [word for word in sorted(settings) if word not in known] == []
