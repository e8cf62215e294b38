"""People and monitoring are told how a run ended; what hangs, refuses or fails there changes nothing about the run."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from jobs.addresses import heartbeat_problem, notify_urls, ping_address
from jobs.nightly import RunResult
from jobs.signals import Terminated
from jobs.watch import watched
from jobs.work import Work
from reconcile.errors import AlreadyRunning
from tests.jobs.listeners import Listener, listeners
from tests.jobs.nights import KEY, Nights, ledger_of

ROOT = Path(__file__).parents[2]
CANARY = "CANARYtoken51f0"
REFERENCE = "Ada Berg's mortgage"
MakeListener = Callable[..., Listener]


@pytest.fixture
def listener() -> Iterator[MakeListener]:
    with listeners() as make:
        yield make


def addresses(heartbeat: str | None = None, *notified: str) -> dict[str, str]:
    """The variables, each address with a secret in it."""
    found = {"RELINK_NOTIFY_URLS": "\n".join(f"json://{address}/{CANARY}" for address in notified)}
    return found if heartbeat is None else found | {"RELINK_HEARTBEAT_URL": f"http://{heartbeat}/{CANARY}"}


def night(nights: Nights, variables: Mapping[str, str], work: Work | None = None, **sections: Any) -> RunResult:
    """A run as `relink run` does it, watched."""
    chosen = work or Work("run")
    given = {"notify": {"timeout_seconds": 20}, **sections}
    settings = nights.settings(**given)
    with watched(settings, variables, chosen.command, dry_run=chosen.dry_run, clock=nights.now) as watch:
        return watch.ended(nights.run(chosen, on_start=watch.began, **given))


def message(listener: Listener) -> str:
    """The one notification that came."""
    (received,) = listener.received
    content = json.loads(received.body)
    return f"{content['title']}\n{content['message']}\n"


def test_a_night_that_went_well_pings_start_and_success_and_notifies_nobody(
    nights: Nights, listener: MakeListener
) -> None:
    heartbeat, service = listener(), listener()
    result = night(nights, addresses(heartbeat.address, service.address))
    assert result.exit_code == 0
    assert heartbeat.paths == [f"/{CANARY}/start", f"/{CANARY}"]
    assert service.received == []
    ids = {parse_qs(urlsplit(one.path).query)["rid"][0] for one in heartbeat.received}
    assert len(ids) == 1, "start and end carry the same run"
    assert result.run_id in heartbeat.received[1].body.decode()


def test_a_summary_of_success_comes_where_it_is_wanted_and_once_for_a_date(
    nights: Nights, listener: MakeListener
) -> None:
    service, heartbeat = listener(), listener()
    wanted = {"notify": {"on_success": True, "timeout_seconds": 20}}
    result = night(nights, addresses(heartbeat.address, service.address), **wanted)
    text = message(service)
    assert "exit code 0: done\nwhat to do: nothing\n" in text
    assert f"run {result.run_id}, business date {result.stamp.business_date}\n" in text
    assert f"report: {result.report_directory}\n" in text
    assert "accounts: 6 inactive, 6 ok\nnext steps: 6 none, 6 request\nrequests: 3 created\n" in text
    again = night(nights, addresses(heartbeat.address, service.address), **wanted)
    assert again.already_finished == result.run_id
    assert len(service.received) == 1
    assert heartbeat.paths[2:] == [f"/{CANARY}/start", f"/{CANARY}"], "a finished date is a success"


def held_by_a_brake(nights: Nights) -> dict[str, Any]:
    assert nights.run().exit_code == 0
    nights.world.advance(days=1)
    nights.world.break_authorization("fcauth_4")
    return {"brakes": {"minimum": 0, "newly_broken_share": 0.01, "newly_broken_share_7d": 1, "institution_share": 1}}


def answer_lost(nights: Nights) -> dict[str, Any]:
    nights.world.faults.script("error_500_after", method="POST")
    return {}


def faulty_ledger(nights: Nights) -> dict[str, Any]:
    ledger = nights.directory / "ledger.db"
    import sqlite3

    with sqlite3.connect(ledger) as connection:
        connection.execute("CREATE TABLE loans (account_id, account_holder_id, exposure_minor, currency, reference)")
        rows = [("fca_1_1", "cus_1", "77123.45", "USD", REFERENCE), ("fca_1_1", "cus_1", "77123.45", "USD", REFERENCE)]
        connection.executemany("INSERT INTO loans VALUES (?, ?, ?, ?, ?)", rows)
    connection.close()
    return {"ledger": {"url": f"sqlite:///{ledger}", "query": "SELECT * FROM loans"}}


@pytest.mark.parametrize(
    ("prepare", "code", "says"),
    [
        (held_by_a_brake, 5, ["next: relink run --override-brakes ", "held: 1 requests of main"]),
        (answer_lost, 4, ["next: relink status", "requests: 2 created, 1 unknown"]),
        (faulty_ledger, 3, ["next: relink doctor", "why, main: the ledger has 3 faults in 2 rows"]),
    ],
)
def test_what_needs_a_person_is_told_with_counts_and_ids_alone(
    nights: Nights,
    listener: MakeListener,
    prepare: Callable[[Nights], dict[str, Any]],
    code: int,
    says: list[str],
) -> None:
    heartbeat, service = listener(), listener()
    nights.load_ledger([row | {"reference": REFERENCE} for row in ledger_of(nights.world)])
    sections = prepare(nights)
    result = night(nights, addresses(heartbeat.address, service.address), **sections)
    assert result.exit_code == code
    assert heartbeat.paths == [f"/{CANARY}/start", f"/{CANARY}/{code}"]
    text = message(service)
    assert [part for part in [*says, f"exit code {code}", result.run_id, "merchants: main"] if part not in text] == []
    for private in ("Ada", "mortgage", "77123", KEY, CANARY, "Bank"):
        assert private not in text, private
        assert private not in heartbeat.received[1].body.decode()


@pytest.mark.parametrize("how", ["hangs", "refuses", "answers 500"])
def test_servers_that_fail_change_nothing_about_the_run(
    nights: Nights, listener: MakeListener, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The test ends at all only because a delivery that hangs is ended at its timeout."""
    server = listener(500 if how == "answers 500" else 200, hangs=how == "hangs")
    address = f"127.0.0.1:{closed_port()}" if how == "refuses" else server.address
    wanted = {"notify": {"on_success": True, "timeout_seconds": 1.5 if how == "hangs" else 20}}
    result = night(nights, addresses(address, address), **wanted)
    assert (result.exit_code, result.complete, nights.posts()) == (0, True, 3)
    assert nights.newest_run().exit_code == 0
    told = [one.getMessage() for one in caplog.records if one.name == "jobs.watch"]
    assert sorted(line.partition(" was not delivered: ")[0] for line in told) == [
        "the heartbeat",
        "the heartbeat's start",
        "the notification",
    ]
    assert CANARY not in caplog.text


def test_a_ping_goes_where_it_was_set_to_and_nowhere_else(nights: Nights, listener: MakeListener) -> None:
    elsewhere, server = listener(), listener(307)
    server.headers["Location"] = f"http://{elsewhere.address}/"
    assert night(nights, addresses(server.address)).exit_code == 0
    assert server.paths == [f"/{CANARY}/start", f"/{CANARY}"]
    assert elsewhere.received == []


def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
    return port


def test_what_stops_a_run_before_it_starts_is_told(nights: Nights, listener: MakeListener) -> None:
    heartbeat, service = listener(), listener()
    del nights.environment["STRIPE_API_KEY"]
    with pytest.raises(Exception, match="STRIPE_API_KEY"):
        night(nights, addresses(heartbeat.address, service.address))
    assert heartbeat.paths == [f"/{CANARY}/2"]
    assert "exit code 2: settings or a key are wrong" in message(service)


def test_a_second_starter_tells_nobody(nights: Nights, listener: MakeListener) -> None:
    """The run that holds the lock tells of itself; its check must not be turned red by a run that did nothing."""
    heartbeat, service = listener(), listener()
    with (
        pytest.raises(AlreadyRunning),
        watched(nights.settings(), addresses(heartbeat.address, service.address), "run"),
    ):
        raise AlreadyRunning("another run holds the lock")
    assert heartbeat.received + service.received == []


@pytest.mark.parametrize("work", [Work("run", dry_run=True), Work("collect", from_stored=True, sends=False)])
def test_dry_runs_and_other_commands_tell_nobody(nights: Nights, listener: MakeListener, work: Work) -> None:
    heartbeat, service = listener(), listener()
    night(nights, addresses(heartbeat.address, service.address), work, notify={"on_success": True})
    assert heartbeat.received + service.received == []


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (Terminated(), 143), (KeyError("x"), 1)])
def test_an_interrupted_run_and_a_fault_of_ours_are_told(
    nights: Nights, listener: MakeListener, error: BaseException, code: int
) -> None:
    heartbeat, service = listener(), listener()
    first = nights.run()
    settings = nights.settings(notify={"timeout_seconds": 20})
    variables = addresses(heartbeat.address, service.address)

    def stopped() -> None:
        with watched(settings, variables, "run", clock=nights.now) as watch:
            watch.began(first.run_id)
            raise error

    with pytest.raises(type(error)):
        stopped()
    assert heartbeat.paths == [f"/{CANARY}/start", f"/{CANARY}/{code}"]
    text = message(service)
    assert f"run {first.run_id}, business date {first.stamp.business_date}\n" in text
    assert f"report: {first.report_directory}\n" in text


def test_the_command_tells_and_shows_no_address(nights: Nights, listener: MakeListener) -> None:
    """A real process with everything logged: its streams, files and arguments hold no address."""
    heartbeat, service = listener(500), listener(500)
    nights.world.faults.script("error_500_after", method="POST")
    config = nights.config_file(notify={"timeout_seconds": 20}, log={"format": "text", "level": "debug"})
    ended = subprocess.run(
        [sys.executable, "-m", "jobs", "--config", str(config), "run"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "STRIPE_API_KEY": KEY, **addresses(heartbeat.address, service.address)},
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 4, ended.stderr
    assert heartbeat.paths[-1] == f"/{CANARY}/4"
    assert b"the notification was not delivered: the service did not take it" in ended.stderr
    assert b"the heartbeat was not delivered: it answered 500" in ended.stderr
    kept = [ended.stdout, ended.stderr, *(path.read_bytes() for path in nights.directory.rglob("*") if path.is_file())]
    assert [content for content in kept if CANARY.encode() in content] == []


def test_a_run_that_is_ended_while_it_tells_keeps_its_result(nights: Nights, listener: MakeListener) -> None:
    heartbeat = listener(hangs=True, answers_first=1)
    config = nights.config_file(notify={"timeout_seconds": 300})
    process = subprocess.Popen(
        [sys.executable, "-m", "jobs", "--config", str(config), "run"],
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "STRIPE_API_KEY": KEY,
            "RELINK_HEARTBEAT_URL": f"http://{heartbeat.address}/x",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    heartbeat.wait_for(2)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, nights.newest_run().exit_code) == (0, 0)
    assert b"requests: 3 created" in out


@pytest.mark.parametrize(
    ("text", "urls"),
    [
        ("", []),
        (" slack://a/b/c ", ["slack://a/b/c"]),
        (
            "slack://a/b, mailto://u:p@h.example?to=x,y\njson://h/",
            ["slack://a/b", "mailto://u:p@h.example?to=x,y", "json://h/"],
        ),
        ("json://a/,json://b/", ["json://a/", "json://b/"]),
    ],
)
def test_addresses_are_separated_by_space_comma_or_newline(nights: Nights, text: str, urls: list[str]) -> None:
    assert notify_urls(nights.settings(), {"RELINK_NOTIFY_URLS": text}) == urls


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("https://hc.example/ping/1", None),
        ("http://127.0.0.1:8000/ping/1", None),
        ("http://hc.example/ping/1", "must be https; http only on loopback"),
        ("file:///etc/passwd", "is not an address"),
        ("https://user:pass@hc.example/", "names a user, which is not supported; put the check's own address there"),
        ("https://hc.example:x/", "is not an address"),
        ("hc.example/ping", "is not an address"),
    ],
)
def test_only_addresses_that_keep_the_secret_are_pinged(url: str, problem: str | None) -> None:
    assert heartbeat_problem(url) == problem


@pytest.mark.parametrize(
    ("url", "suffix", "pinged"),
    [
        ("https://hc.example/ping/1", "/start", "https://hc.example/ping/1/start?rid=r"),
        ("https://hc.example/key/nightly/?create=1", "/4", "https://hc.example/key/nightly/4?create=1&rid=r"),
        ("https://hc.example/ping/1#x", "", "https://hc.example/ping/1?rid=r"),
    ],
)
def test_start_and_failure_go_to_the_path_and_keep_the_query(url: str, suffix: str, pinged: str) -> None:
    assert ping_address(url, suffix, "r") == pinged
