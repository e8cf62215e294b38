"""No secret, body or address leaves the gateway, and nothing of the machine changes where the key goes.

Each promise is checked on the bare `stripe` package too, which breaks it: the check works.
"""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import stripe

from tests.jobs.adapters.stub_stripe import Scripted, StubStripe, answer, stub_stripe

ROOT = Path(__file__).parents[3]
KEY = "rk_test_CANARYkey42"
SECRET = "fcsess_client_secret_CANARYsecret42"
LINK = "https://connect.stripe.com/relink/CANARYlink42?a=b"
EMAIL = "canary.mail42@example.com"
CANARIES = (KEY, SECRET, LINK, EMAIL, "CANARYbody42")

SESSION = {
    "id": "fcsess_1",
    "livemode": False,
    "status": "pending",
    "client_secret": SECRET,
    "url": LINK,
    "account_holder": {"type": "customer", "customer": {"id": "cus_1", "email": EMAIL}},
    "other": "CANARYbody42",
}
ACCOUNT = {"id": "fca_1", "status": "active", "livemode": False, "display_name": "CANARYbody42"}
MESSAGE = f"No {EMAIL}, no {quote(EMAIL)}; {SECRET} at {LINK} with key {KEY}"
ERROR = {"error": {"type": "invalid_request_error", "message": MESSAGE, "other": "CANARYbody42", "session": SESSION}}


@pytest.fixture
def stub() -> Iterator[StubStripe]:
    with stub_stripe() as started:
        yield started


def loud_script() -> list[Scripted]:
    whole = answer(SESSION).body
    return [
        answer(SESSION),
        answer(ERROR, 400),
        answer(ERROR | {"error": ERROR["error"] | {"type": "idempotency_error"}}, 400),
        *[answer(ERROR, 500)] * 2,
        *[Scripted(body=whole, cut=True)] * 2,
        *[Scripted(body=whole[:-9])] * 2,
        answer(SESSION | {"id": 42}),
        answer(ERROR, 403),
        answer({"data": [ACCOUNT, {"id": "fca_2", "livemode": False, "note": SECRET}], "has_more": False}),
        answer(SESSION | {"accounts": {"data": [ACCOUNT], "has_more": False}}),
        answer(SESSION | {"accounts": "CANARYbody42"}),
    ]


def run_probe(which: str, url: str, tmp_path: Path, **environment: str) -> bytes:
    """Run the probe with nothing of our environment but what is given, and return all it printed."""
    finished = subprocess.run(
        [sys.executable, "-m", "tests.jobs.adapters.leak_probe", which, url],
        cwd=ROOT,
        env={"XDG_CONFIG_HOME": str(tmp_path / "config")} | environment,
        input=KEY.encode() + b"\n",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout.decode()[-2000:]
    return finished.stdout


def leaks(output: bytes) -> set[str]:
    """Return the canaries found, plain, URL-encoded or in base64 at any alignment."""
    found = set()
    for canary in CANARIES:
        raw = canary.encode()
        forms = [raw, quote(canary, safe="").encode()]
        forms += [base64.b64encode(b" " * shift + raw)[4:-4] for shift in range(3)]
        if any(form in output for form in forms):
            found.add(canary)
    return found


def test_nothing_leaks_however_loud_the_process_is(stub: StubStripe, tmp_path: Path) -> None:
    """Root logger at DEBUG, the package's own debug printing, tracebacks with every local variable."""
    stub.script = loud_script()
    output = run_probe("gateway", stub.url, tmp_path, STRIPE_LOG="debug")
    assert stub.script == []
    assert b"SessionCreated" in output
    assert b"API response body" in output
    for fault in (b"rejected", b"idempotency_mismatch", b"server", b"cut_body", b"unparsable", b"key_refused"):
        assert fault in output
    assert leaks(output) == set()


def test_the_search_finds_what_the_bare_package_leaks(stub: StubStripe, tmp_path: Path) -> None:
    stub.script = loud_script()
    assert leaks(run_probe("package", stub.url, tmp_path, STRIPE_LOG="debug")) == set(CANARIES)


def test_netrc_and_proxies_of_the_machine_are_not_read(stub: StubStripe, tmp_path: Path) -> None:
    """Either would send the key elsewhere or replace it."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    netrc.chmod(0o600)
    with stub_stripe() as proxy:
        environment = {"NETRC": str(netrc), "HTTP_PROXY": proxy.url, "http_proxy": proxy.url, "ALL_PROXY": proxy.url}
        run_probe("gateway", stub.url, tmp_path, **environment)
        assert proxy.sent == []
        assert {sent.headers["Authorization"] for sent in stub.sent} == {f"Bearer {KEY}"}
        direct = len(stub.sent)
        run_probe("package", stub.url, tmp_path, **environment)
        assert len(stub.sent) == direct
        assert all(sent.headers["Authorization"].startswith("Basic ") for sent in proxy.sent)
        assert proxy.sent


def test_a_redirect_is_not_followed(stub: StubStripe, tmp_path: Path) -> None:
    """Following one would carry the body, and on the same host the key, elsewhere."""
    with stub_stripe() as elsewhere:
        stub.respond = lambda _: Scripted(307, headers={"Location": f"{elsewhere.url}/x"})
        run_probe("gateway", stub.url, tmp_path)
        assert elsewhere.sent == []
        run_probe("package", stub.url, tmp_path)
        assert elsewhere.sent


def test_no_home_is_needed_and_nothing_is_written_or_told(stub: StubStripe, tmp_path: Path) -> None:
    """Telemetry is off: no file, no header about the machine, and no account directory to look for."""
    run_probe("gateway", stub.url, tmp_path)
    assert list(tmp_path.rglob("*")) == []
    told = {"Host", "User-Agent", "Authorization", "Stripe-Version", "Accept", "Accept-Encoding"}
    for sent in stub.sent:
        assert set(sent.headers) - {"Content-Type", "Content-Length", "Idempotency-Key"} == told
        assert sent.headers["User-Agent"] == f"fc-relink stripe-python/{stripe.VERSION}"
    stub.sent.clear()
    run_probe("package", stub.url, tmp_path)
    assert list(tmp_path.rglob("*")) != []


def test_importing_the_core_brings_no_package_with_it() -> None:
    """What the core uses of this costs no start-up time: neither Stripe's package nor a parser."""
    code = (
        "import sys, reconcile.records, reconcile.masking, reconcile.session_request;"
        "print(sorted({'stripe', 'tenacity', 'requests', 'msgspec', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
