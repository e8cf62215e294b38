"""The log on stderr: one line a record, masked whatever was put into it, for people on a terminal and for machines elsewhere."""

from __future__ import annotations

import json
import logging
import math
import re
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal, TextIO

from reconcile.masking import mask

LogFormat = Literal["auto", "json", "text"]
LogLevel = Literal["debug", "info", "warning", "error"]

HIDDEN = "[masked]"

_THIRD_PARTIES = (
    "alembic",
    "apprise",
    "apscheduler",
    "asyncio",
    "charset_normalizer",
    "matplotlib",
    "opentelemetry",
    "py.warnings",
    "requests",
    "sqlalchemy",
    "stripe",
    "urllib3",
)
# The Stripe SDK logs whole bodies at debug, and SQLAlchemy's engine logs row values at info; matplotlib names every font of the machine.
_NEVER_BELOW = {"matplotlib": logging.WARNING, "stripe": logging.INFO, "sqlalchemy": logging.WARNING}
# It tells a header for the collector that is written wrongly as it stands, and such headers hold tokens.
_NEVER_HEARD = ("opentelemetry.util.re",)

_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_HIDDEN_FIELDS = re.compile(r"secret|password|api_key|(?:\A|_)(?:token|e_?mail|url)\Z", re.IGNORECASE)

# Control characters, the other characters that end a line or turn its direction, and halves of surrogate pairs.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


_context: ContextVar[Mapping[str, str]] = ContextVar("log_fields", default={})  # noqa: B039 - only ever replaced


@contextmanager
def log_fields(**fields: str) -> Iterator[None]:
    """Every JSON line that is logged in the block says these, too."""
    token = _context.set({**_context.get(), **fields})
    try:
        yield
    finally:
        _context.reset(token)


class _LogHandler(logging.StreamHandler[TextIO]):
    """Our one handler; a record that cannot be written is told of without its content."""

    def __init__(self, stream: TextIO, run_id: str | None) -> None:
        super().__init__(stream)
        self.run_id = run_id

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the standard library's name
        """Say where a faulty record came from; the standard handler would print its arguments unmasked."""
        error = sys.exc_info()[1]
        if isinstance(error, (BrokenPipeError, KeyboardInterrupt)) or self.stream.closed:
            return
        try:
            place = one_line(f"{record.name}:{record.lineno}")
            self.stream.write(f"a log record of {place} could not be written ({type(error).__name__})\n")
        except (OSError, ValueError):
            return


class _Formatter(logging.Formatter):
    def __init__(self, handler: _LogHandler) -> None:
        super().__init__()
        self._handler = handler

    def _fields(self, record: logging.LogRecord) -> dict[str, Any]:
        """Everything that was given as `extra`, and the run."""
        fields = {
            name: value
            for name, value in vars(record).items()
            if name not in _STANDARD_FIELDS and not name.startswith("_")
        }
        run_id = fields.pop("run_id", None) or self._handler.run_id
        return {"run_id": run_id, **fields} if run_id else fields


class _JsonFormatter(_Formatter):
    """One JSON object a line: ts, level, logger, message, run_id, merchant, stage, then whatever else was given."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "ts": _timestamp(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": mask(record.getMessage()),
        }
        fields = {**_context.get(), **self._fields(record)}
        entry.update({name: value for name, value in fields.items() if name not in entry})
        trace = "\n".join(_traceback_lines(record))
        if trace:
            entry["exception"] = trace
        return json.dumps(_safe(entry), ensure_ascii=True, separators=(",", ":"))


class _TextFormatter(_Formatter):
    """One line a record; a traceback follows in lines of its own, each marked, so that no text can pose as a record."""

    def format(self, record: logging.LogRecord) -> str:
        fields = _safe({name: value for name, value in self._fields(record).items() if name != "run_id"})
        extra = "".join(
            f" {name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in fields.items()
        )
        head = f"{_timestamp(record)} {record.levelname:<7} {record.name}: {mask(record.getMessage())}{extra}"
        return "\n".join([one_line(head), *(f"  | {one_line(line)}" for line in _traceback_lines(record))])


def configure_logging(
    format: LogFormat = "auto",  # noqa: A002 - the name that the settings give it
    level: LogLevel = "info",
    run_id: str | None = None,
    stream: TextIO | None = None,
) -> None:
    """Log to `stream` (stderr), as text on a terminal and JSON lines elsewhere unless `format` says which.

    May be called again, with the run's id as soon as it is known; the newest call holds.
    """
    target = stream or sys.stderr
    handler = _LogHandler(target, run_id)
    as_text = format == "text" or (format == "auto" and target.isatty())
    handler.setFormatter(_TextFormatter(handler) if as_text else _JsonFormatter(handler))
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, _LogHandler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name in _THIRD_PARTIES:
        floor = _NEVER_BELOW.get(name, logging.DEBUG) if level == "debug" else logging.WARNING
        logging.getLogger(name).setLevel(max(floor, root.level))
    for name in _NEVER_HEARD:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    logging.captureWarnings(True)


def install_excepthook(stream: TextIO | None = None) -> None:
    """Print the traceback of a bug masked and without local values, wherever it happens; Python then exits with 1."""

    def show(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None or issubclass(kind, SystemExit):
            return
        print_masked_traceback(error.with_traceback(trace), stream)

    sys.excepthook = show
    threading.excepthook = lambda given: show(given.exc_type, given.exc_value, given.exc_traceback)
    sys.unraisablehook = lambda given: show(given.exc_type, given.exc_value, given.exc_traceback)


def print_masked_traceback(error: BaseException, stream: TextIO | None = None) -> None:
    """Write an exception with its causes, each line masked."""
    target = stream or sys.stderr
    try:
        target.writelines(f"{line}\n" for line in _lines_of(error))
        target.flush()
    except (OSError, ValueError):  # nobody reads stderr any more
        return


def disable_core_dumps() -> None:
    """Keep a crash from writing this process's memory, the API key in it, to disk."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def one_line(text: str) -> str:
    """Text with every control character written out, so that it stays one line and moves no cursor."""
    return _CONTROL.sub(_written_out, text)


def _written_out(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")


def _timestamp(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _traceback_lines(record: logging.LogRecord) -> Iterator[str]:
    if record.exc_info and record.exc_info[1] is not None:
        yield from _lines_of(record.exc_info[1])
    elif record.exc_text:
        yield from mask(record.exc_text).splitlines()
    if record.stack_info:
        yield from mask(record.stack_info).splitlines()


def _lines_of(error: BaseException) -> Iterator[str]:
    # Masked as a whole as well as by line, so that nothing split over lines or joined by them slips through.
    text = "".join(traceback.TracebackException.from_exception(error, capture_locals=False).format())
    return (one_line(mask(line)) for line in mask(text).splitlines())


def _safe(value: Any, depth: int = 0) -> Any:
    """A value as JSON can hold it, every text in it masked and every field with a telling name hidden."""
    if value is None or isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, dict) and depth < 6:
        return {
            one_line(mask(str(name))): HIDDEN if _HIDDEN_FIELDS.search(str(name)) else _safe(inner, depth + 1)
            for name, inner in value.items()
        }
    if isinstance(value, (list, tuple, set, frozenset)) and depth < 6:
        return [_safe(inner, depth + 1) for inner in value]
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return mask(value if isinstance(value, str) else str(value))
