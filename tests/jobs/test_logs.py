"""What the job logs and prints of a bug: one masked line a record, as JSON or text, and no core dump that holds the key."""

from __future__ import annotations

import io
import json
import logging
import os
import resource
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from jobs.logs import configure_logging, disable_core_dumps, install_excepthook, one_line, print_masked_traceback

SECRETS = (
    "fcsess_client_secret_AbCdEf123456",
    "rk_live_51CanaryCanaryCanary",
    "ada.lovelace@example.com",
    "https://connect.stripe.com/session/abc#token",
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def untouched_logging() -> Iterator[None]:
    """Give the process its logging back, levels of other people's loggers included."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    named = {
        name: logger.level for name, logger in root.manager.loggerDict.items() if isinstance(logger, logging.Logger)
    }
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
    yield
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, logger in root.manager.loggerDict.items():
        if isinstance(logger, logging.Logger):
            logger.setLevel(named.get(name, logging.NOTSET))
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks


def logged(format: str = "json", level: str = "info", run_id: str | None = None) -> io.StringIO:  # noqa: A002
    stream = io.StringIO()
    configure_logging(format, level, run_id, stream)  # type: ignore[arg-type]
    root = logging.getLogger()
    root.handlers[:] = root.handlers[-1:]  # without pytest's own, which raise on a faulty record
    return stream


def entries(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_lines_carry_time_level_logger_message_run_and_extra() -> None:
    stream = logged(run_id="20260101T000000Z-abcd")
    logging.getLogger("jobs.pull").warning(
        "page %d of %d", 3, 7, extra={"accounts": 300, "at": datetime(2026, 1, 1, tzinfo=UTC)}
    )
    (entry,) = entries(stream)
    assert datetime.fromisoformat(entry.pop("ts")).utcoffset().total_seconds() == 0
    assert entry == {
        "level": "warning",
        "logger": "jobs.pull",
        "message": "page 3 of 7",
        "run_id": "20260101T000000Z-abcd",
        "accounts": 300,
        "at": "2026-01-01T00:00:00Z",
    }


def test_format_auto_is_text_on_a_terminal_and_json_elsewhere() -> None:
    terminal, pipe = Terminal(), io.StringIO()
    configure_logging(stream=terminal)
    logging.getLogger("jobs").info("on a terminal", extra={"pages": 3})
    configure_logging(stream=pipe)
    logging.getLogger("jobs").info("in a pipe")
    assert terminal.getvalue().endswith(" INFO    jobs: on a terminal pages=3\n")
    assert entries(pipe)[0]["message"] == "in a pipe"


@pytest.mark.parametrize("format", ["json", "text"])
def test_secrets_are_masked_wherever_they_are_put(format: str) -> None:  # noqa: A002
    stream = logged(format)
    logger = logging.getLogger("jobs")
    for secret in SECRETS:
        logger.info("message %s" % secret)  # noqa: UP031
        logger.info("argument %s and %r", secret, {"nested": [secret]})
        logger.info(
            "extra", extra={"note": secret, "nested": {secret: [secret, (secret,)]}, "thing": ValueError(secret)}
        )
        try:
            try:
                raise KeyError(secret)
            except KeyError as error:
                error.add_note(f"note {secret}")
                raise RuntimeError(f"while at {secret}") from error
        except RuntimeError:
            logger.exception("failed")
    written = stream.getvalue()
    assert written.count("RuntimeError: while at") == written.count("KeyError: ") == len(SECRETS)
    for secret in SECRETS:
        assert secret not in written
        assert secret.split("_")[-1] not in written


@pytest.mark.parametrize(
    "field", ["client_secret", "password", "api_key", "email", "url", "hosted_url", "access_token"]
)
def test_fields_with_a_telling_name_are_hidden_whatever_they_hold(field: str) -> None:
    stream = logged()
    logging.getLogger("jobs").info(
        "x", extra={field: "plain-value", "tokenized_numbers": 2, "deep": {field: "plain-value"}}
    )
    assert "plain-value" not in stream.getvalue()
    assert entries(stream)[0]["tokenized_numbers"] == 2


@pytest.mark.parametrize("format", ["json", "text"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\u2028", "\x85", "\x0b", "\x1b[2J", "\x00"])
def test_a_record_is_one_line_whatever_is_in_it(format: str, end: str) -> None:  # noqa: A002
    stream = logged(format)
    logging.getLogger("jobs").info(
        "bank%s%s", end, "2026-01-01T00:00:00Z ERROR jobs: forged", extra={"name_of_bank": f"a{end}b"}
    )
    written = stream.getvalue()
    assert written.endswith("\n")
    assert len(written.splitlines()) == 1
    assert end not in written.removesuffix("\n")


def test_no_line_of_a_traceback_can_pose_as_a_record() -> None:
    stream = logged("text")
    try:
        raise ValueError("bad\n2026-01-01T00:00:00Z ERROR jobs: forged")
    except ValueError:
        logging.getLogger("jobs").exception("failed")
    head, *rest = stream.getvalue().splitlines()
    assert head.endswith("jobs: failed")
    assert rest
    assert all(line.startswith("  | ") for line in rest)


def test_values_that_json_does_not_know_are_written_as_text() -> None:
    stream = logged()
    recursive: list[Any] = []
    recursive.append(recursive)
    logging.getLogger("jobs").info(
        "x", extra={"share": float("nan"), "things": {3}, "deep": recursive, "broken": "\ud800"}
    )
    text = stream.getvalue()
    assert "NaN" not in text
    assert json.loads(text)["things"] == [3]
    assert json.loads(text)["share"] == "nan"


def test_a_faulty_record_is_told_without_its_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    stream = logged()
    logging.getLogger("jobs").info("%d accounts", SECRETS[0])
    assert "could not be written (TypeError)" in stream.getvalue()
    assert SECRETS[0] not in stream.getvalue() + capsys.readouterr().err


def test_third_parties_are_quiet_unless_debugging_and_never_tell_bodies_or_rows() -> None:
    names = ("urllib3.connectionpool", "requests", "alembic.runtime", "stripe", "sqlalchemy.engine.Engine")

    def heard(level: str) -> dict[str, set[str]]:
        stream = logged(level=level)
        for name in names:
            logging.getLogger(name).debug("body")
            logging.getLogger(name).info("news")
            logging.getLogger(name).warning("alarm")
        lines = entries(stream)
        return {name: {line["message"] for line in lines if line["logger"] == name} for name in names}

    assert all(messages == {"alarm"} for messages in heard("info").values())
    assert all(messages == set() for messages in heard("error").values())
    debugging = heard("debug")
    assert debugging["urllib3.connectionpool"] == {"body", "news", "alarm"}
    assert debugging["stripe"] == {"news", "alarm"}
    assert debugging["sqlalchemy.engine.Engine"] == {"alarm"}


@pytest.mark.parametrize("level", ["debug", "info"])
def test_headers_for_a_collector_that_are_written_wrongly_are_not_told(level: str) -> None:
    """The package logs the whole header, with the token in it."""
    from opentelemetry.util.re import parse_env_headers

    stream = logged(level=level)
    parse_env_headers("x-honeycomb-team: canary-token", liberal=False)
    parse_env_headers("canary-token", liberal=True)
    logging.getLogger("opentelemetry.util.re").critical("canary-token")
    assert stream.getvalue() == ""


def test_configuring_again_replaces_the_handler_and_names_the_run() -> None:
    first, second = logged(), logged(run_id="run-2")
    logging.getLogger("jobs").info("once")
    assert first.getvalue() == ""
    assert [entry["run_id"] for entry in entries(second)] == ["run-2"]


def test_warnings_are_logged_and_masked() -> None:
    stream = logged()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.warn(f"old: {SECRETS[2]}", UserWarning, stacklevel=1)
    assert "old: " in stream.getvalue()
    assert SECRETS[2] not in stream.getvalue()


def test_a_bug_ends_with_a_masked_traceback_without_local_values_and_exit_1() -> None:
    program = """
from jobs.logs import disable_core_dumps, install_excepthook
install_excepthook(); disable_core_dumps()
def work(parts):
    hidden = "local-value"
    raise RuntimeError("at " + "_".join(parts))
work(["fcsess", "client", "secret", "AbCdEf123456"])
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "RuntimeError: at [secret]" in ended.stderr
    assert "AbCdEf" not in ended.stderr.replace('"AbCdEf123456"', "")
    assert "local-value" not in ended.stderr.replace('hidden = "local-value"', "")


def test_a_bug_in_a_thread_is_masked_too(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    install_excepthook(stream)

    def fail() -> None:
        raise RuntimeError(SECRETS[1])

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    assert "RuntimeError: " in stream.getvalue()
    assert SECRETS[1] not in stream.getvalue() + capsys.readouterr().err


def test_a_stderr_that_nobody_reads_any_more_or_that_was_closed_hides_no_exit_code() -> None:
    program = (
        "import sys; from jobs.logs import print_masked_traceback; print_masked_traceback(ValueError('x')); sys.exit(5)"
    )
    reader, writer = os.pipe()
    os.close(reader)
    try:
        assert subprocess.run([sys.executable, "-c", program], stderr=writer, check=False).returncode == 5
    finally:
        os.close(writer)
    closed = io.StringIO()
    closed.close()
    print_masked_traceback(ValueError("x"), closed)  # raises nothing


def test_core_dumps_are_off_afterwards() -> None:
    program = "import resource; from jobs.logs import disable_core_dumps; disable_core_dumps(); print(resource.getrlimit(resource.RLIMIT_CORE))"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "(0, 0)"


def test_a_json_line_is_compact_ascii_and_names_only_what_was_given() -> None:
    stream = logged()
    logging.getLogger("jobs").info("Zürich", extra={"_private": 1, "bank": "\u2014"})
    line = stream.getvalue()
    assert line.isascii()
    assert ", " not in line
    assert '": ' not in line
    (entry,) = entries(stream)
    assert entry.pop("ts").endswith("Z")
    assert entry == {"level": "info", "logger": "jobs", "message": "Zürich", "bank": "\u2014"}


def test_a_record_may_name_another_run_and_text_lines_name_none() -> None:
    stream = logged(run_id="run-1")
    logging.getLogger("jobs").info("x", extra={"run_id": "run-2"})
    logging.getLogger("jobs").info("x", extra={"run_id": None})
    assert [entry["run_id"] for entry in entries(stream)] == ["run-2", "run-1"]
    stream = logged("text", run_id="run-1")
    logging.getLogger("jobs").info("x", extra={"bank": "a b", "pages": 3, "all": True})
    assert stream.getvalue().endswith(" INFO    jobs: x bank=a b pages=3 all=true\n")
    assert stream.getvalue()[: stream.getvalue().index(" ")].endswith("Z")


def test_an_exception_is_told_whole_line_by_line_without_local_values() -> None:
    stream = logged()
    try:
        hidden = "local" + "-value"
        raise ValueError("bad")
    except ValueError:
        logging.getLogger("jobs").exception("failed")
    assert hidden not in stream.getvalue()
    told = entries(stream)[0]["exception"].split("\n")
    assert (told[0], told[-1]) == ("Traceback (most recent call last):", "ValueError: bad")
    assert [line for line in told if line.strip() == 'raise ValueError("bad")']


def test_an_exception_without_a_traceback_and_one_that_was_formatted_before_are_told_too() -> None:
    stream = logged()
    logging.getLogger("jobs").error("failed", exc_info=ValueError(f"bad {SECRETS[0]}"))
    record = logging.LogRecord("jobs", logging.ERROR, __file__, 1, "again", None, None)
    record.exc_text = f"Traceback: {SECRETS[1]}"
    logging.getLogger("jobs").handle(record)
    logging.getLogger("jobs").error("where", stack_info=True)
    first, second, third = (entry["exception"] for entry in entries(stream))
    assert (first, second) == ("ValueError: bad [secret]", "Traceback: [secret]")
    assert third.startswith("Stack (most recent call last):")


def test_control_characters_are_written_out() -> None:
    assert one_line("a\x1b[0m\n\u2028\ud800é") == "a\\x1b[0m\\n\\u2028\\ud800é"


def nested(depth: int, kind: type) -> Any:
    return "x" if not depth else {"in": nested(depth - 1, kind)} if kind is dict else [nested(depth - 1, kind)]


@pytest.mark.parametrize("kind", [dict, list])
def test_six_levels_stay_as_they_are_and_deeper_ones_become_text(kind: type) -> None:
    """The record itself is the first level."""
    stream = logged()
    logging.getLogger("jobs").info("x", extra={"five": nested(5, kind), "six": nested(6, kind)})
    (entry,) = entries(stream)
    assert entry["five"] == nested(5, kind)
    assert entry["six"] != nested(6, kind)
    deepest = entry["six"]
    for _ in range(5):
        deepest = deepest["in"] if kind is dict else deepest[0]
    assert deepest == str(nested(1, kind))


def test_times_are_told_in_utc_wherever_the_host_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        stream = logged()
        logging.getLogger("jobs").info("x", extra={"at": datetime(2026, 1, 1, 12, tzinfo=UTC)})
    finally:
        monkeypatch.undo()
        time.tzset()
    assert entries(stream)[0]["at"] == "2026-01-01T12:00:00Z"


class BrokenOnce(io.StringIO):
    broken = True

    def write(self, text: str) -> int:
        if self.broken:
            self.broken = False
            raise BrokenPipeError
        return super().write(text)


def test_nobody_who_stopped_reading_is_told_of_it() -> None:
    stream = BrokenOnce()
    configure_logging("json", stream=stream)
    root = logging.getLogger()
    root.handlers[:] = root.handlers[-1:]
    logging.getLogger("jobs").info("x")
    assert stream.getvalue() == ""


def test_a_faulty_record_names_its_place() -> None:
    stream = logged()
    logging.getLogger("jobs.pull").info("%d accounts", "x")
    assert stream.getvalue().startswith("a log record of jobs.pull:")


def test_configuring_captures_warnings() -> None:
    before = warnings.showwarning
    logged()
    assert warnings.showwarning is not before
    logging.captureWarnings(False)


def test_every_hook_shows_where_it_happened_and_nothing_where_nothing_did(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    install_excepthook(stream)
    try:
        raise RuntimeError(SECRETS[1])
    except RuntimeError as error:
        caught = error
    trace = caught.__traceback__
    hooks = (
        lambda kind, error, trace: sys.excepthook(kind, error, trace),
        lambda kind, error, trace: threading.excepthook(
            SimpleNamespace(exc_type=kind, exc_value=error, exc_traceback=trace)  # type: ignore[arg-type]
        ),
        lambda kind, error, trace: sys.unraisablehook(
            SimpleNamespace(exc_type=kind, exc_value=error, exc_traceback=trace)  # type: ignore[arg-type]
        ),
    )
    for number, hook in enumerate(hooks, start=1):
        hook(RuntimeError, caught.with_traceback(None), trace)
        assert stream.getvalue().count("raise RuntimeError(SECRETS[1])") == number
        hook(RuntimeError, None, trace)
        hook(SystemExit, SystemExit(3), None)
    assert stream.getvalue().count("RuntimeError: [secret]") == len(hooks)
    assert "SystemExit" not in stream.getvalue()
    assert capsys.readouterr().err == ""


def test_core_dumps_are_turned_off_beyond_recall(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hard limit as well, which is why this process only listens: what it gives up it would never get back."""
    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda *limit: asked.append(limit))
    disable_core_dumps()
    assert asked == [(resource.RLIMIT_CORE, (0, 0))]
