"""The command that checks everything a night rests on."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from jobs.cli.common import config_option, json_option, print_json, say, settings_of, shown
from reconcile.errors import SettingsError

if TYPE_CHECKING:
    from jobs.doctor import Check


@click.command()
@config_option
@json_option
@click.option("--probe", is_flag=True, help="Also look, by about 20 reads, whether Stripe does as the job expects.")
@click.pass_context
def doctor(context: click.Context, config: str | None, as_json: bool, probe: bool) -> int:
    """Check settings, key, Stripe, database, ledger and reports, and say how to mend what is wrong; changes nothing."""
    from jobs.doctor import examine, failed, worst_exit_code

    checks: list[Check] = []
    try:
        settings = settings_of(context, config)
    except SettingsError as error:
        checks.append(failed("settings", error))
        if not as_json:
            _print(checks[0])
    else:
        for check in examine(settings, os.environ, probe=probe):
            checks.append(check)
            if not as_json:
                _print(check)
    code = worst_exit_code(checks)
    if as_json:
        print_json({"exit_code": code, "checks": [_plain(check) for check in checks]})
    return code


def _print(check: Check) -> None:
    whose = f" [{check.merchant}]" if check.merchant else ""
    lines = (shown(line) for line in check.text.splitlines())
    say(f"{check.level:<4}  {check.name}{whose}: {next(lines, '')}")
    for line in lines:
        say(f"      {line}")
    if check.mend:
        say(f"      mend: {shown(check.mend)}")


def _plain(check: Check) -> dict[str, Any]:
    probed = {"agrees": check.agrees} if check.name.startswith("probe ") else {}
    return {
        **probed,
        "name": check.name,
        "merchant": check.merchant,
        "level": check.level,
        "text": "\n".join(shown(line) for line in check.text.splitlines()),
        "mend": check.mend,
    }
