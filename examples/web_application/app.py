"""A small web application that asks its customers to relink: inside its own page, or by leading them to Stripe's.

The recipe, in the order of a visit:

1. `Handover.offer_for` says whether a session waits for the customer who is signed in; it reads the job's records and needs no key.
2. The customer presses a button. The application reads that session from Stripe, checks that it still waits and is this customer's,
   records the handing over, and only then gives the client secret (modal) or a redirect (hosted) to this one browser.
3. Stripe.js, or Stripe's page, tells the customer's answer to the browser. That is for the screen alone: the job reads the session
   itself the next night and decides by what Stripe says there.

The client secret and the URL pass through the memory of one reply. They are not logged, stored, cached, or put into an address of
this application. Serve it over TLS; sign your customers in as you do elsewhere, which `sign_in` only pretends to do here.
"""

from __future__ import annotations

import html
import json
import secrets
import sys
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

from examples.web_application.stripe_sessions import SessionUnavailableError, StripeSessions, WaitingSession
from jobs.handover import Handover, Offer, OfferEndedError
from reconcile.errors import RelinkError

STATIC = Path(__file__).parent / "static"
CONTENT_TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8"}
AFTER_HOSTED = {
    "relinked": "Thank you. Your bank is connected again.",
    "new_authorization": "Thank you. Your bank is connected anew; we are matching your accounts.",
    "no_account": "You signed in, but did not choose the account that we need. When we ask again, please choose it.",
    "no_authorization": "Your bank did not let you sign in. Nothing was changed; we will ask you again.",
    "other": "Something went wrong at the bank. Nothing was changed; we will ask you again.",
    "cancelled": "You left before the end. Nothing was changed.",
    "waiting": "We have not heard from your bank yet. Please look in again later.",
}


class Application:
    """What the pages need: the job's records, Stripe, and whose browser a cookie belongs to."""

    def __init__(
        self, handover: Handover, sessions: StripeSessions, merchant: str, stripe_js: str, publishable_key: str
    ) -> None:
        self.handover = handover
        self.sessions = sessions
        self.merchant = merchant
        self.stripe_js = stripe_js
        self.publishable_key = publishable_key
        self._customers: dict[str, str] = {}
        self._handed_over: dict[str, str] = {}

    def sign_in(self, customer_id: str) -> str:
        """Stands for your own sign-in: returns the cookie of a browser that now belongs to a customer."""
        cookie = secrets.token_urlsafe(32)
        self._customers[cookie] = customer_id
        return cookie

    def customer_of(self, cookie: str) -> str | None:
        """The customer who is signed in."""
        return self._customers.get(cookie)

    def offer(self, customer_id: str) -> Offer | None:
        """The session that waits for a customer."""
        return self.handover.offer_for(self.merchant, customer_id)

    def hand_over(self, customer_id: str) -> tuple[Offer, WaitingSession] | None:
        """The session to give to this customer's browser now, or None where nothing waits any more.

        The order matters: look whether it still waits, then record, then give. A session that was recorded and never given is
        renewed in time; one that was given and not recorded would look as if nobody had been asked.
        """
        offer = self.offer(customer_id)
        if offer is None:
            return None
        session = self.sessions.read(offer.session_id)
        if session.status != "pending" or session.holder_id != customer_id:
            return None
        try:
            self.handover.offered(offer)
        except OfferEndedError:
            return None
        self._handed_over[customer_id] = offer.session_id
        return offer, session

    def outcome(self, customer_id: str) -> str:
        """What came of the session that this customer was led to, for the screen only."""
        session_id = self._handed_over.get(customer_id)
        return "waiting" if session_id is None else self.sessions.read(session_id).outcome


class Server(ThreadingHTTPServer):
    """The application on loopback."""

    daemon_threads = True

    def __init__(self, application: Application, port: int = 0) -> None:
        self.application = application
        super().__init__(("127.0.0.1", port), Handler)

    @property
    def address(self) -> str:
        """Where the application is."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    """Pages and the two ways of handing over; every reply is private to one browser."""

    server: Server

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/":
            self._reply(200, self._home())
        elif path == "/relink/back":
            self._reply(200, self._back())
        elif path.startswith("/static/") and (file := STATIC / Path(path).name).is_file():
            self._reply(200, file.read_bytes(), CONTENT_TYPES[file.suffix])
        else:
            self._reply(404, page("Not found", "<p>There is nothing here.</p>"))

    def do_POST(self) -> None:
        body = self.rfile.read(min(int(self.headers.get("Content-Length") or 0), 10_000))
        if self.headers.get("Origin", self.server.address) != self.server.address:
            self._reply(403, page("No", "<p>This did not come from our own page.</p>"))
            return
        if self.path == "/sign-in":
            cookie = self.server.application.sign_in(parse_qs(body.decode()).get("customer", [""])[0])
            more = {"Location": "/", "Set-Cookie": f"session={cookie}; HttpOnly; SameSite=Lax; Path=/"}
            self._reply(303, b"", more=more)
            return
        customer_id = self._customer()
        if customer_id is None or self.path not in ("/relink/modal", "/relink/hosted"):
            self._reply(404, page("Not found", "<p>There is nothing here.</p>"))
            return
        try:
            given = self.server.application.hand_over(customer_id)
        except (RelinkError, SessionUnavailableError) as error:
            self.log(f"handing over failed: {type(error).__name__}")
            self._reply(503, page("Later", "<p>Please try again later.</p>"))
            return
        offer, session = given or (None, None)
        if self.path == "/relink/modal" and offer and session and session.client_secret:
            content = json.dumps({"client_secret": session.client_secret, "accounts": offer.account_ids})
            self._reply(200, content.encode(), "application/json")
        elif self.path == "/relink/hosted" and session and session.url:
            self._reply(303, b"", more={"Location": session.url})
        else:
            self._reply(409, page("Done", '<p>There is nothing to do any more. <a href="/">Back</a></p>'))

    def _home(self) -> bytes:
        customer_id = self._customer()
        if customer_id is None:
            return page(
                "Sign in",
                '<form method="post" action="/sign-in"><label>Customer id <input name="customer"></label> '
                "<button>Sign in</button></form><p>This stands for your own sign-in.</p>",
            )
        application = self.server.application
        offer = application.offer(customer_id)
        if offer is None:
            return page("Your bank connections", "<p>All is well. There is nothing to do.</p>")
        bank = html.escape(offer.institution_name or "Your bank")
        if offer.delivery == "modal":
            key = html.escape(application.publishable_key, quote=True)
            action = f'<button id="relink" data-publishable-key="{key}">Reconnect</button>'
        else:
            action = '<form method="post" action="/relink/hosted"><button id="relink">Reconnect</button></form>'
        return page(
            "Your bank connections",
            f'<div class="card"><h2>{bank}</h2><div id="asked"><p>This bank asks you to sign in again.</p>{action}</div>'
            '<p id="said" role="status"></p></div>',
            scripts=(application.stripe_js, "/static/script.js") if offer.delivery == "modal" else (),
        )

    def _back(self) -> bytes:
        customer_id = self._customer()
        try:
            outcome = "waiting" if customer_id is None else self.server.application.outcome(customer_id)
        except SessionUnavailableError:
            outcome = "waiting"
        said = html.escape(AFTER_HOSTED.get(outcome, AFTER_HOSTED["other"]))
        return page(
            "Your bank connections", f'<p id="said" role="status" data-outcome="{html.escape(outcome)}">{said}</p>'
        )

    def _customer(self) -> str | None:
        cookie = SimpleCookie(self.headers.get("Cookie", "")).get("session")
        return None if cookie is None else self.server.application.customer_of(cookie.value)

    def _reply(
        self,
        status: int,
        body: bytes,
        content_type: str = "text/html; charset=utf-8",
        more: dict[str, str] | None = None,
    ) -> None:
        stripe = "/".join(self.server.application.stripe_js.split("/")[:3])
        # With the real Stripe.js also allow what Stripe's integration security guide lists.
        policy = (
            f"default-src 'none'; script-src 'self' {stripe}; connect-src 'self' {stripe}; frame-src {stripe}; style-src 'self'; "
            "base-uri 'none'; frame-ancestors 'none'"
        )
        self.send_response_only(status)
        headers = {
            "Content-Type": content_type,
            "Content-Length": str(len(body)),
            "Content-Security-Policy": policy,
            "Cache-Control": "no-store",
            "Referrer-Policy": "same-origin",
            "X-Content-Type-Options": "nosniff",
            **(more or {}),
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.log(f"{self.command} {self.path.partition('?')[0]} {status}")

    def log(self, text: str) -> None:
        """One line: what was asked for, without its query, and never what was answered."""
        print(text, file=sys.stderr, flush=True)  # noqa: T201

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (name set by http.server)
        """Say nothing by itself: the base class would log whole addresses."""


def page(title: str, content: str, scripts: tuple[str, ...] = ()) -> bytes:
    """A whole page."""
    tags = "".join(f'<script src="{html.escape(script, quote=True)}" defer></script>' for script in scripts)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{html.escape(title)}</title><link rel="stylesheet" href="/static/style.css">{tags}</head>'
        f"<body><main><h1>{html.escape(title)}</h1>{content}</main></body></html>"
    ).encode()
