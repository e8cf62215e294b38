"""Drives the example application in Chromium: every answer, by modal and by hosted page; then searches all that is left for secrets."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from examples.web_application.__main__ import BANKS, made_up_world, prepare, relink
from jobs.simulator.server import SimulatorServer
from jobs.simulator.world import DEFAULT_KEY, World
from tests.jobs.test_secrets import forms
from tests.look import browser

TITLE = "The example application in Chromium"
missing = browser.missing

ANSWERS = {
    # what the customer does in the browser: what the page says at once, what the job concludes (outcome, failure_reason)
    "whole": ("relinked", ("relinked", "")),
    "partial": ("some", ("relinked_partially", "")),
    "new_authorization": ("new_authorization", ("new_authorization", "")),
    "no_account": ("no_account", ("failed", "no_account")),
    "no_authorization": ("no_authorization", ("failed", "no_authorization")),
    "other": ("other", ("failed", "other")),
    "cancelled": ("cancelled", ("cancelled", "")),
}
PICTURED = ("whole", "no_account")


class Case(NamedTuple):
    """One customer; even ones are at the modal's bank, odd ones at the hosted page's."""

    customer_id: str
    delivery: str
    answer: str


CASES = [
    Case(f"cus_{number}", delivery, answer) for number, (answer, delivery) in enumerate(product(ANSWERS, BANKS), 1)
]


def look(directory: Path) -> list[str]:
    """Every fault found, a sentence each."""
    from playwright.sync_api import sync_playwright

    world = made_up_world(case.customer_id for case in CASES)
    for case in CASES:
        world.set_email(case.customer_id, f"canary.{case.customer_id}@customer.example")
    with tempfile.TemporaryDirectory() as made, SimulatorServer(world, browser_pages=True) as stripe:
        left = Path(made)
        deployment, profile = left / "deployment", left / "profile"
        deployment.mkdir()
        app = App(deployment, world, stripe)
        faults: list[str] = []
        try:
            with sync_playwright() as playwright:
                # A profile on disk, as a customer has one, so that its history can be searched.
                context = playwright.chromium.launch_persistent_context(
                    profile,
                    executable_path=browser.chromium(),
                    args=list(browser.FLAGS),
                    viewport={"width": 900, "height": 760},
                )
                seen = Seen(context)
                for case in CASES:
                    found = list(_visit(context, app, case, directory))
                    print(f"  {case.delivery:11} {case.answer:18} {'wrong' if found else 'fine'}")
                    faults += [f"{case.delivery}, {case.answer}: {fault}" for fault in found]
                faults += _nothing_twice(context, app)
                faults += seen.faults(world, stripe.base_url)
                context.close()
        finally:
            app.stop()
        relink(deployment, app.config, "collect")
        faults += _outcomes(deployment)
        faults += _search(world, left, profile)
        faults += _control(world, left, app)
    return faults


class App:
    """The application as a process of its own, over a deployment whose job has just run."""

    def __init__(self, deployment: Path, world: World, stripe: SimulatorServer) -> None:
        script = f"{stripe.base_url}/_simulator/browser/stripe.js"
        port = _free_port()
        self.address = f"http://127.0.0.1:{port}"
        self.config = prepare(deployment, world, stripe, f"{self.address}/relink/back")
        command = [sys.executable, "-m", "examples.web_application", "--config", str(self.config)]
        command += ["--stripe-js", script, "--port", str(port)]
        with (deployment / "application.log").open("wb") as log:
            self._process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, env={"PATH": "", "STRIPE_SESSIONS_KEY": DEFAULT_KEY}
            )
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(20)


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Seen:
    """What the browser asked for and said, to be searched afterwards."""

    def __init__(self, context: Any) -> None:
        self.addresses: list[str] = []
        self.texts: list[str] = []
        context.on("request", self._request)
        context.on("console", lambda message: self.texts.append(message.text))
        context.on("weberror", lambda error: self.texts.append(str(error.error)))

    def _request(self, request: Any) -> None:
        self.addresses.append(request.url)
        self.texts.append(request.headers.get("referer", ""))

    def faults(self, world: World, stripe: str) -> Iterator[str]:
        """Secrets in addresses, referrers and the console; the page behind a session's own URL is Stripe's."""
        own_url = {one.url for one in world.sessions.values() if one.url is not None}
        ours = [address for address in self.addresses if address not in own_url]
        for secret in _secrets(world):
            if any(form.decode("latin-1") in text for form in forms(secret) for text in [*ours, *self.texts]):
                yield f"a secret was in an address, a referrer or the console: {secret[:24]}…"
        strangers = {address for address in self.addresses if not address.startswith(("http://127.0.0.1:", "data:"))}
        yield from (f"the browser asked for {address}" for address in strangers)


def _visit(context: Any, app: App, case: Case, directory: Path) -> Iterator[str]:
    """One customer's visit, from signing in to what the page says at its end."""
    from axe_playwright_python.sync_playwright import Axe

    expected = ANSWERS[case.answer][0]
    context.clear_cookies()  # the next customer
    page = context.new_page()
    page.goto(app.address)
    page.locator("input[name=customer]").fill(case.customer_id)
    page.get_by_role("button", name="Sign in").click()
    for violation in Axe().run(page).response["violations"]:
        yield f"axe-core: {violation['id']}: {violation['help']}"
    picture = directory / f"application-{case.delivery}-{case.answer}"
    page.locator("#relink").click()
    if case.delivery == "modal":
        choice = page.locator(f"dialog button[data-how={case.answer}]")
    else:
        page.wait_for_url("**/_simulator/browser/hosted/**")
        choice = page.locator(f"button[value={case.answer}]")
    choice.wait_for()
    if case.answer in PICTURED:
        page.screenshot(path=f"{picture}-asked.png")
    choice.click()
    said = page.locator("#said[data-outcome]")
    said.wait_for()
    told = said.get_attribute("data-outcome")
    # Which accounts came back is told to the script only; after the hosted page the application just says that the bank is connected.
    if case.delivery != "modal" and expected == "some":
        expected = "relinked"
    if told != expected:
        yield f"the page says {told}, not {expected}"
    if case.answer in PICTURED:
        page.screenshot(path=f"{picture}-told.png")
    kept = page.evaluate(
        "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, document.body.innerHTML])"
    )
    if re.search(r"fcsess_client_secret_|/hosted/", kept):
        yield "a secret is in the page, in storage or in a cookie that scripts can read"
    page.close()


def _nothing_twice(context: Any, app: App) -> Iterator[str]:
    """Who has answered is not handed the session again, although the job has not collected the answer yet."""
    page = context.new_page()
    for case in CASES[:2]:
        page.goto(app.address)
        sign_in = "(customer) => fetch('/sign-in', {method: 'POST', body: new URLSearchParams({customer})})"
        page.evaluate(sign_in, case.customer_id)
        page.goto(app.address)
        path = "/relink/modal" if case.delivery == "modal" else "/relink/hosted"
        status = page.evaluate(
            "(path) => fetch(path, {method: 'POST', redirect: 'manual'}).then((reply) => reply.status)", path
        )
        if status != 409:
            yield f"{case.delivery}: an answered session was handed over again ({status})"
    page.close()


def _outcomes(deployment: Path) -> Iterator[str]:
    """The job's own conclusions."""
    newest = max((deployment / "reports").glob("run_date=*/run_id=*"), key=lambda path: path.name)
    with (newest / "relink_outcomes.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = {row["account_holder_id"]: row for row in csv.DictReader(file)}
    for case in CASES:
        row, expected = rows[case.customer_id], ANSWERS[case.answer][1]
        if (row["outcome"], row["failure_reason"], row["delivery"]) != (*expected, case.delivery):
            yield f"{case}: the job concluded {row['outcome']} {row['failure_reason']} ({row['delivery']})"


def _secrets(world: World) -> set[str]:
    """Client secrets, session URLs, the key and e-mail addresses."""
    return set(world.secrets_issued) | {world.email_of(case.customer_id) or "" for case in CASES} - {""}


def _found(secret: str, content: bytes) -> bool:
    return any(form in content for form in forms(secret)) or secret.encode("utf-16-le") in content


def _hits(secrets: set[str], directory: Path) -> dict[str, set[str]]:
    """Which files hold a secret in any form."""
    hits: dict[str, set[str]] = {}
    for path in directory.rglob("*"):
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            hits[str(path.relative_to(directory))] = {secret for secret in secrets if _found(secret, content)}
    return {name: found for name, found in hits.items() if found}


def _search(world: World, left: Path, profile: Path) -> Iterator[str]:
    """Every file of the deployment, the logs and the browser's profile, its history included."""
    secrets = _secrets(world)
    urls = {one.url for one in world.sessions.values() if one.url is not None}
    files = sum(path.is_file() for path in left.rglob("*"))
    for name, found in _hits(secrets, left).items():
        # The customer's own browser remembers having been on Stripe's page, as on any page; the link is used up by then.
        stray = found - urls if (left / name).is_relative_to(profile) else found
        yield from (f"{name} holds {secret[:24]}…" for secret in sorted(stray))
    remembered = sorted(_hits(urls, left))
    print(
        f"  searched {files} files for {len(secrets)} secrets; visits to Stripe's page are remembered in {remembered}"
    )
    for one in world.sessions.values():
        if one.url is not None and (status := _status(one.url)) != 410:
            yield f"a used link answers {status}"


def _status(url: str) -> int:
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(url) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def _control(world: World, left: Path, app: App) -> Iterator[str]:
    """The search finds what is planted: in an address that is visited, in storage, and in a log."""
    from playwright.sync_api import sync_playwright

    secret = next(one for one in world.secrets_issued if "_client_secret_" in one)
    planted = left / "planted"
    planted.mkdir()
    (planted / "application.log").write_text(f"GET /?secret={secret} 200\n")
    page_file = planted / "page.html"
    page_file.write_text("<p>planted</p>")
    profile = planted / "profile"
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            profile, executable_path=browser.chromium(), args=list(browser.FLAGS)
        )
        page = context.new_page()
        page.goto(f"{page_file.as_uri()}?secret={secret}")
        page.evaluate("(secret) => localStorage.setItem('secret', secret)", secret)
        page.wait_for_timeout(500)
        context.close()
    hits = {Path(name).name if "leveldb" not in name else "leveldb" for name in _hits({secret}, planted)}
    yield from (
        f"the search does not find what is planted in {place}"
        for place in ("application.log", "History", "leveldb")
        if place not in hits
    )
