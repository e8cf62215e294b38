"""The example application without a browser: who is given what, and that nothing of it stays anywhere."""

from __future__ import annotations

import http.client
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import NamedTuple
from urllib.parse import urlencode, urlsplit

import pytest

from examples.web_application.app import Application, Server
from examples.web_application.stripe_sessions import StripeSessions, WaitingSession, outcome_of
from jobs.handover import Handover
from tests.jobs.conftest import MakeNights
from tests.jobs.nights import KEY, Nights, outcomes, small_world


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: str


class Browser:
    """Speaks HTTP with one cookie, and follows nothing by itself."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.cookie = ""

    def ask(self, method: str, path: str, body: str = "", **headers: str) -> Reply:
        parts = urlsplit(self.address)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
        sent = {"Content-Type": "application/x-www-form-urlencoded", "Cookie": self.cookie, **headers}
        try:
            connection.request(method, path, body.encode(), sent)
            answer = connection.getresponse()
            return Reply(answer.status, dict(answer.getheaders()), answer.read().decode())
        finally:
            connection.close()

    def sign_in(self, customer_id: str) -> None:
        reply = self.ask("POST", "/sign-in", urlencode({"customer": customer_id}))
        assert reply.status == 303
        self.cookie = reply.headers["Set-Cookie"].partition(";")[0]


@contextmanager
def application(nights: Nights) -> Iterator[Browser]:
    import threading

    handover = Handover.open(nights.config_file(), {}, nights.now)
    sessions = StripeSessions(KEY, nights.server.base_url)
    made = Application(handover, sessions, "main", f"{nights.server.base_url}/_simulator/browser/stripe.js", "pk_test")
    server = Server(made)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield Browser(server.address)
    finally:
        server.shutdown()
        server.server_close()
        handover.__exit__()


@pytest.fixture
def nights(make_nights: MakeNights) -> Nights:
    """Customer 1 is asked by modal, customer 2 by the hosted page, customer 3 by Stripe's mail; 4 has nothing to do."""
    nights = make_nights(small_world(), browser_pages=True)
    nights.sections["relink"] = {
        "return_url": "https://shop.example/back",
        "delivery_rules": [
            {"customer": "cus_2", "delivery": "hosted_url"},
            {"customer": "cus_3", "delivery": "hosted_email"},
        ],
    }
    assert nights.run().exit_code == 0
    return nights


def test_the_secret_goes_to_its_own_customer_only_and_once_it_is_recorded(
    nights: Nights, capsys: pytest.CaptureFixture[str]
) -> None:
    session = nights.world.sessions[nights.by_authorization()["fcauth_1"].session_id or ""]
    with application(nights) as browser:
        assert browser.ask("POST", "/relink/modal").status == 404, "nobody is signed in"
        browser.sign_in("cus_4")
        assert "nothing to do" in browser.ask("GET", "/").body
        assert browser.ask("POST", "/relink/modal").status == 409
        browser.sign_in("cus_1")
        assert browser.ask("POST", "/relink/modal", Origin="https://elsewhere.example").status == 403
        assert nights.by_authorization()["fcauth_1"].offered_at is None
        home = browser.ask("GET", "/")
        assert "Reconnect" in home.body
        reply = browser.ask("POST", "/relink/modal", Origin=browser.address)
        assert json.loads(reply.body) == {"client_secret": session.client_secret, "accounts": ["fca_1_1", "fca_1_2"]}
        assert (reply.headers["Cache-Control"], reply.headers["Referrer-Policy"]) == ("no-store", "same-origin")
        assert nights.by_authorization()["fcauth_1"].offered_at == nights.now()
        assert "_secret_" not in home.body
        # Answered, and not collected yet: there is nothing to hand over any more.
        nights.world.answer(session.id, "no_account")
        assert browser.ask("POST", "/relink/modal").status == 409
    logged = capsys.readouterr().err
    assert "POST /relink/modal 200" in logged
    assert not any(secret in logged for secret in nights.world.secrets_issued)


@pytest.mark.parametrize("number", [2, 3])
def test_a_hosted_session_leads_to_stripes_page_and_back(nights: Nights, number: int) -> None:
    with application(nights) as browser:
        browser.sign_in(f"cus_{number}")
        home = browser.ask("GET", "/").body
        assert "/relink/hosted" in home
        assert "stripe.js" not in home
        assert browser.ask("POST", "/relink/modal").status == 409, "a hosted session has no secret to give"
        sent = browser.ask("POST", "/relink/hosted")
        assert (sent.status, sent.body) == (303, "")
        url = sent.headers["Location"]
        bank = Browser(nights.server.base_url)
        path = urlsplit(url).path
        assert "SIMULATED" in bank.ask("GET", path).body
        assert bank.ask("GET", path[:-1] + "x").status == 404
        assert bank.ask("POST", path, "how=nonsense").status == 400
        back = bank.ask("POST", path, "how=new_authorization")
        assert (back.status, back.headers["Location"]) == (303, "https://shop.example/back")
        assert bank.ask("GET", path).status == 410
        assert 'data-outcome="new_authorization"' in browser.ask("GET", "/relink/back").body
        assert browser.ask("POST", "/relink/hosted").status == 409
    assert outcomes(nights.next_night())[f"fcauth_{number}"] == "new_authorization"


def test_nothing_is_given_where_the_handing_over_cannot_be_recorded(nights: Nights) -> None:
    with application(nights) as browser:
        browser.sign_in("cus_1")
        with closing(sqlite3.connect(nights.directory / "relink.db")) as records, records:
            records.execute(
                "CREATE TRIGGER full BEFORE UPDATE ON relink_requests BEGIN SELECT RAISE(ABORT, 'disk full'); END"
            )
        reply = browser.ask("POST", "/relink/modal")
        assert (reply.status, "_secret_" in reply.body) == (503, False)


def test_the_stand_in_for_stripe_js_answers_by_the_secret_alone(nights: Nights) -> None:
    session = nights.world.sessions[nights.by_authorization()["fcauth_1"].session_id or ""]
    page = Browser(nights.server.base_url)
    path = "/_simulator/browser/answer"
    assert "SIMULATED" in page.ask("GET", "/_simulator/browser/stripe.js").body
    for secret in ("", "fcsess_client_secret_wrong", session.id):
        refused = page.ask("POST", path, json.dumps({"client_secret": secret, "how": "whole"}))
        assert "error" in json.loads(refused.body)
    assert session.status == "pending"
    reply = page.ask("POST", path, json.dumps({"client_secret": session.client_secret, "how": "whole"}))
    answered = json.loads(reply.body)
    assert outcome_of(answered) == "relinked"
    assert "client_secret" not in answered
    assert session.status == "succeeded"


def test_a_session_that_was_read_shows_no_secret() -> None:
    shown = repr(
        WaitingSession("pending", "cus_1", "waiting", client_secret="fcsess_client_secret_x", url="https://x.example/y")
    )
    assert "secret" not in shown
    assert "x.example" not in shown


@pytest.mark.parametrize(
    ("session", "outcome"),
    [
        ({"status": "pending"}, "waiting"),
        ({"status": "pending", "relink_result": None}, "waiting"),
        ({"status": "cancelled", "relink_result": None}, "cancelled"),
        ({"relink_options": {"authorization": "a"}, "relink_result": {"authorization": "a"}}, "relinked"),
        ({"relink_options": {"authorization": "a"}, "relink_result": {"authorization": "b"}}, "new_authorization"),
        ({"relink_result": {"authorization": None, "failure_reason": "no_account"}}, "no_account"),
    ],
)
def test_the_branches_of_stripes_guide(session: dict[str, object], outcome: str) -> None:
    assert outcome_of(session) == outcome
