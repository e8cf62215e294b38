"""Every way in which a command can end has its exit code, and says nothing secret."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import jobs.cli
from tests.jobs.cli.conftest import Relink
from tests.jobs.nights import KEY, Nights

ROOT = Path(jobs.cli.__file__).parents[2]


@pytest.fixture
def end(relink: Relink, monkeypatch: pytest.MonkeyPatch) -> Relink:
    monkeypatch.setitem(jobs.cli.COMMANDS, "end", ("tests.jobs.cli.commands_for_tests:end", "End in some way."))
    return relink


@pytest.mark.parametrize(
    ("how", "code"),
    [("0", 0), ("4", 4), ("5", 5), ("bug", 1), ("busy", 6), ("interrupt", 130), ("terminate", 143), ("pipe", 1)],
)
def test_each_end_has_its_exit_code(end: Relink, how: str, code: int) -> None:
    assert end("end", how).code == code


@pytest.mark.parametrize("closed", ["2>&-", "1>&- 2>&-", "0<&- 1>&- 2>&-"])
def test_streams_that_were_closed_before_the_start_change_no_exit_code(nights: Nights, closed: str) -> None:
    """And nothing is written into the database, which would have been opened under their numbers."""
    nights.run()
    nights.config_file()
    before = Path(nights.database_url.removeprefix("sqlite:///")).read_bytes()
    for arguments, code in (("status", 0), ("resume none", 2)):
        command = f"exec {sys.executable} -P -m jobs {arguments} {closed}"
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "STRIPE_API_KEY": KEY}
        ended = subprocess.run(["sh", "-c", command], cwd=nights.directory, env=environment, check=False)
        assert ended.returncode == code
    assert Path(nights.database_url.removeprefix("sqlite:///")).read_bytes() == before


def test_a_bug_shows_its_traceback_without_what_is_secret(end: Relink) -> None:
    ended = end("end", "bug")
    assert "Traceback" in ended.err
    assert "commands_for_tests.py" in ended.err
    assert "KeyError" in ended.err
    assert "_secret_" not in ended.err
    assert "kim.doe" not in ended.err
    assert ended.out == ""


def test_an_error_that_a_person_can_mend_is_one_masked_line_and_json_where_asked(end: Relink) -> None:
    ended = end("end", "busy", "--json")
    assert ended.err == "relink: another run holds the lock: [email]\n"
    assert ended.json == {"error": "another run holds the lock: [email]", "exit_code": 6}
    assert end("end", "busy").out == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["nosuch"],
        ["runs", "--nosuch"],
        ["runs", "list", "--limit", "0"],
        ["runs", "show"],
        ["history"],
        ["ledger", "load"],
        ["ledger", "load", "no-such-file.csv"],
        ["db"],
        ["status", "--config", "no-such-file.yaml"],
    ],
)
def test_wrong_usage_ends_with_2_and_an_explanation(
    relink: Relink, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = relink(*arguments)
    assert ended.code == 2
    assert ended.err
    assert ended.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "rk_live_51abcdefghij"],
        ["rk_live_51abcdefghij"],
        ["history", "a@canary.example", "b@canary.example"],
        ["runs", "list", "--limit", "rk_live_51abcdefghij"],
        ["runs", "--rk_live_51abcdefghij"],
        ["run", "x\n2026-01-01T00:00:00Z ERROR forged\x1b[2J"],
        ["ledger", "load", "https://canary.example/a?token=b"],
    ],
)
def test_wrong_usage_is_told_masked_and_on_one_line(
    relink: Relink, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = relink(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert [secret for secret in ("51abc", "canary", "\x1b") if secret in ended.err] == []
    *usage, told = ended.err.splitlines()
    assert told.startswith("Error: ")
    assert [line for line in usage if not line.startswith(("Usage: relink", "Try 'relink")) and line] == []


def test_the_help_promises_no_more_than_is_done(relink: Relink) -> None:
    """A customer may be asked again on a later day of an outage."""
    assert "once" not in relink("--help").out


def test_a_crash_of_the_command_leaves_no_core(tmp_path: Path) -> None:
    """The kernel says what holds in the process itself, which began without a limit."""

    def without_limit() -> None:
        hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
        try:
            resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        except ValueError:  # another test lowered it for good, and only root may raise it
            resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))

    command = [sys.executable, "-P", "-m", "jobs", "simulator", "--port", "0", "--json"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=without_limit
    ) as process:
        try:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["base_url"]
            limits = Path(f"/proc/{process.pid}/limits").read_text()
        finally:
            process.kill()
    [core] = [line.split() for line in limits.splitlines() if line.startswith("Max core file size")]
    assert core[-3:] == ["0", "0", "bytes"]


def test_without_settings_a_command_says_where_they_are_looked_for(
    relink: Relink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = relink("status", "--json")
    assert ended.code == 2
    assert "--config" in ended.json["error"]


def test_the_settings_are_found_before_and_after_the_command_and_in_the_environment(
    nights: Nights, relink: Relink, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = str(nights.config_file())
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert relink("--config", file, "runs", "--json").json == []
    assert relink("runs", "--json", "--config", file).json == []
    assert relink("runs", "list", "--json", "--config", file).json == []
    assert relink("runs", "--config", file, "list", "--json").json == []
    monkeypatch.setenv("RELINK_CONFIG", file)
    assert relink("runs", "--json").json == []


def test_every_line_of_a_runs_log_names_the_run(at: Relink) -> None:
    ended = at("run", "--json")
    assert ended.code == 0
    lines = [json.loads(line) for line in ended.err.splitlines()]
    assert lines
    assert {line.get("run_id") for line in lines} == {ended.json["run_id"]}


def test_a_reader_that_leaves_early_changes_neither_the_exit_code_nor_the_peace(nights: Nights) -> None:
    nights.run()
    nights.config_file()
    ends = ((["runs"], 0), (["doctor", "--json"], 3), (["runs", "--help"], 0))
    for arguments, code in ends:
        ended = _run_with_closed_stdout(nights, arguments)
        assert (arguments, ended.returncode) == (arguments, code)
        assert b"Traceback" not in ended.stderr
        assert b"Exception ignored" not in ended.stderr


def test_the_module_is_the_command(nights: Nights) -> None:
    nights.config_file()
    ended = subprocess.run(
        [sys.executable, "-P", "-m", "jobs", "runs", "--json"],
        cwd=nights.directory,
        env=_environment(),
        capture_output=True,
        timeout=60,
    )
    assert (ended.returncode, json.loads(ended.stdout), ended.stderr) == (0, [], b"")


def test_help_answers_without_the_heavy_packages() -> None:
    script = (
        "import sys; from jobs.cli import main; code = main(['--help']); "
        "heavy = {'stripe', 'pandas', 'pyarrow', 'sqlalchemy', 'rich', 'pydantic'} & set(sys.modules); "
        "sys.exit(code or (7 if heavy else 0))"
    )
    ended = subprocess.run([sys.executable, "-P", "-c", script], env=_environment(), capture_output=True, timeout=60)
    assert ended.returncode == 0
    for name in jobs.cli.COMMANDS:
        assert f"  {name} ".encode() in ended.stdout


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RELINK_", "STRIPE_"))}
    return {**kept, "PYTHONPATH": str(ROOT), "STRIPE_API_KEY": KEY}


def _run_with_closed_stdout(nights: Nights, arguments: list[str]) -> subprocess.CompletedProcess[bytes]:
    """Run a command whose stdout is a pipe that nobody reads any more."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        return subprocess.run(
            [sys.executable, "-P", "-m", "jobs", *arguments],
            cwd=nights.directory,
            env=_environment(),
            stdout=writing,
            stderr=subprocess.PIPE,
            timeout=60,
        )
    finally:
        os.close(writing)
