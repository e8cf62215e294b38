"""What a customer's browser sees of the stand-in: a script in the place of Stripe.js, and the page behind a hosted session's URL.

Both say on every screen that they are simulated, and let the person at the keyboard choose how the customer answers.
"""

from __future__ import annotations

import hmac
import html
from urllib.parse import parse_qs

import msgspec

from jobs.simulator import render
from jobs.simulator.model import Session
from jobs.simulator.reply import Call, Reply
from jobs.simulator.world import World

PREFIX = "/_simulator/browser/"
CHOICES = {
    "whole": "Reconnect every account",
    "partial": "Reconnect only some accounts",
    "new_authorization": "Sign in anew, as if at first",
    "no_account": "Sign in, but choose no account",
    "no_authorization": "Fail to sign in",
    "other": "Let something unexpected happen",
    "cancelled": "Close this window",
}
_PREVIEW = "2026-09-30.preview"
_PRIVATE = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff"}
_SCRIPT = """\
// SIMULATED: this is not Stripe.js. It stands in its place where an application is tried against `relink simulator`.
"use strict";
(() => {
  const origin = new URL(document.currentScript.src).origin;
  const choices = CHOICES;
  const ask = (clientSecret, how) => fetch(origin + "PREFIXanswer", {
    method: "POST", credentials: "omit", referrerPolicy: "no-referrer", cache: "no-store",
    headers: {"Content-Type": "text/plain"}, body: JSON.stringify({client_secret: clientSecret, how}),
  }).then((reply) => reply.json());
  window.Stripe = () => ({
    collectFinancialConnectionsAccounts: ({clientSecret}) => new Promise((resolve) => {
      const dialog = document.createElement("dialog");
      dialog.setAttribute("aria-labelledby", "simulated-title");
      const title = document.createElement("h2");
      title.id = "simulated-title";
      title.textContent = "SIMULATED bank sign-in (not Stripe)";
      dialog.append(title);
      for (const [how, label] of Object.entries(choices)) {
        const button = document.createElement("button");
        button.type = "button";
        button.dataset.how = how;
        button.textContent = label;
        button.addEventListener("click", async () => {
          const answer = await ask(clientSecret, how);
          dialog.remove();
          resolve(answer.error ? {error: answer.error} : {financialConnectionsSession: answer});
        });
        const line = document.createElement("p");
        line.append(button);
        dialog.append(line);
      }
      document.body.append(dialog);
      dialog.showModal();
    }),
  });
})();
"""


def respond(world: World, call: Call) -> Reply:
    """One call of a browser."""
    world.settle()
    name = call.path.removeprefix(PREFIX)
    if name == "stripe.js" and call.method == "GET":
        script = _SCRIPT.replace("CHOICES", msgspec.json.encode(CHOICES).decode()).replace("PREFIX", PREFIX)
        return Reply(200, script.encode(), {**_PRIVATE, "Content-Type": "text/javascript; charset=utf-8"})
    if name == "answer" and call.method == "POST":
        return _answer_in_modal(world, call)
    if name.startswith("hosted/") and call.method in ("GET", "POST"):
        return _hosted(world, call, *name.removeprefix("hosted/").partition("/")[::2])
    return _page(404, "There is nothing here.")


def _answer_in_modal(world: World, call: Call) -> Reply:
    """Answer the session of a client secret, which travels in the body only."""
    headers = {**_PRIVATE, "Content-Type": "application/json", "Access-Control-Allow-Origin": "*"}
    try:
        given = msgspec.json.decode(call.body)
        secret, how = str(given["client_secret"]), str(given["how"])
        session = next(one for one in world.sessions.values() if hmac.compare_digest(one.client_secret, secret))
        world.answer(session.id, how)
    except (KeyError, TypeError, ValueError, StopIteration, msgspec.DecodeError) as fault:
        error = {"type": "invalid_request_error", "message": f"the session cannot be answered ({type(fault).__name__})"}
        return Reply(200, msgspec.json.encode({"error": error}), headers)
    return Reply(200, msgspec.json.encode(_shown_to_browser(world, session)), headers)


def _shown_to_browser(world: World, session: Session) -> render.Json:
    """The session as the promise resolves to it: without its secret."""
    shown = render.rendering(_PREVIEW)
    assert shown is not None
    body = dict(world.rendered(session, shown))
    body.pop("client_secret", None)
    return body


def _hosted(world: World, call: Call, session_id: str, token: str) -> Reply:
    session = world.sessions.get(session_id)
    url = None if session is None else session.url
    if session is None or url is None or not hmac.compare_digest(url.rpartition("/")[2], token):
        return _page(404, "There is no such page.")
    if session.status != "pending":
        return _page(410, "This link has been used.")
    if call.method == "GET":
        return _page(200, "Reconnect your bank", form=True)
    how = parse_qs(call.body.decode("ascii", "replace")).get("how", [""])[0]
    if how not in CHOICES:
        return _page(400, "Choose one of the answers.", form=True)
    world.answer(session.id, how)
    if session.return_url is None:
        return _page(200, "Thank you. You may close this window.")
    return Reply(303, b"", {**_PRIVATE, "Location": session.return_url})


def _page(status: int, title: str, *, form: bool = False) -> Reply:
    buttons = "".join(
        f'<p><button name="how" value="{how}">{html.escape(label)}</button></p>' for how, label in CHOICES.items()
    )
    body = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>SIMULATED: {html.escape(title)}</title></head><body><main>"
        f"<p><strong>SIMULATED bank sign-in (not Stripe)</strong></p><h1>{html.escape(title)}</h1>"
        f'{f"""<form method="post">{buttons}</form>""" if form else ""}</main></body></html>'
    )
    policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"
    headers = {**_PRIVATE, "Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": policy}
    return Reply(status, body.encode(), headers)
