"""What is masked, in which disguises, and what must stay readable."""

from __future__ import annotations

import base64
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconcile.masking import looks_sensitive, mask

SECRETS = [
    "fcsess_client_secret_AbC123xyz",
    "seti_1ABC_secret_2DEF3GHI",
    "sk_test_CanaryOwnKey000tT1zdp7dc",
    "sk_live_CanaryOwnKey000tT1zdp7dc",
    "rk_live_51Habcdef",
    "rk_test_51Habcdef",
    "whsec_a1B2c3D4e5",
    "jane.doe+bank@example.co.uk",
    "jürgen@bücher.example",
    "jane%40example.com",
    "https://connect.stripe.com/relink/abc?token=1",
    "https%3A%2F%2Fconnect.stripe.com%2Frelink%2Fabc",
    "connect.stripe.com/relink/abc",
    "HTTPS://EXAMPLE.COM/x",
    "postgresql+psycopg://user:pw@db.internal/relink",
    "http://user:pw@127.0.0.1:5000/",
    "http://127.0.0.1:5000/link/abcdef",
]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("around", ["{}", "before {} after", "value='{}',", '{{"key": "{}"}}', "({})", "key={}"])
def test_each_kind_is_masked_wherever_it_stands(secret: str, around: str) -> None:
    """Nothing of it that could be used remains, and what stands around it does."""
    text = around.format(secret)
    masked = mask(text)
    assert secret not in masked
    assert "abc" not in masked.lower()
    assert "jane" not in masked
    assert "pw" not in masked
    assert masked.startswith(around.split("{}", maxsplit=1)[0].replace("{{", "{")[:3])
    assert looks_sensitive(text)


@pytest.mark.parametrize("secret", SECRETS)
def test_base64_hides_nothing(secret: str) -> None:
    """In either alphabet, padded or not."""
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        token = encode(secret.encode()).decode()
        for written in (token, token.rstrip("=")):
            assert written not in mask(f"x {written} y")


def test_base64_hides_nothing_however_it_is_padded_or_written() -> None:
    """With a newline, as `echo` gives it; with the letters in which the alphabets differ; with padding too many."""
    for plain in ("key=rk_live_51Habcdef\n", "a\tjane.doe@example.com\r\n", "rk_live_51Habcdef ~~~ ??? >>>"):
        token = base64.b64encode(plain.encode()).decode()
        for written in (token, token.translate(str.maketrans("+/", "-_")), token.rstrip("=") + "=="):
            assert mask(f"x {written} y") == "x [secret] y"
    short = "rk_abcdeW"  # its base64 ends in X and has none of the padding, and is a key by its last letter only
    assert mask(base64.b64encode(short.encode()).decode()) == "[secret]"
    encoded = base64.urlsafe_b64encode(b"rk_live_51Habcdef ~~~ ??? >>>").decode()
    assert "-" in encoded, "else nothing is tried"
    assert "_" in encoded, "else nothing is tried"


ESCAPES = ["%3D", "%22", "%253d", "%25253D", "\\n", "\\t", "\\\\n", "\\x22", "\\u003d", "\\u0022"]


@pytest.mark.parametrize("escape", ESCAPES)
@pytest.mark.parametrize("secret", [*SECRETS, "connect.stripe.com%2Frelink%2Fabc", "https%3A%2F%2Fexample.com%2Fabc"])
def test_an_escape_before_it_hides_nothing(secret: str, escape: str) -> None:
    """The letters in which an escape ends are not those of a longer word."""
    for written in (secret, base64.b64encode(secret.encode()).decode()):
        masked = mask(f"value{escape}{written}")
        assert written not in masked
        assert "abc" not in masked.lower()
        assert "canary" not in masked.lower()
        assert "jane" not in masked


@pytest.mark.parametrize("escape", ESCAPES)
def test_an_authorization_header_behind_an_escape_is_masked(escape: str) -> None:
    assert "abc123" not in mask(f"Authorization:{escape}Bearer%20abc123DEF456")


@pytest.mark.parametrize("escape", ESCAPES)
@pytest.mark.parametrize("word", ["risk_level_one", "task_identity", "fca_1NxYz9", "4f9a0c11e2d3b4a5968778695a4b3c2d"])
def test_what_people_need_to_read_stays_behind_an_escape(word: str, escape: str) -> None:
    assert mask(f"value{escape}{word}") == f"value{escape}{word}"


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_base64_of_a_text_with_other_letters_hides_nothing(secret: str, encoding: str) -> None:
    """The letter may stand before, behind, or be cut in the middle of its bytes."""
    for text in (f"Zoë Müller: {secret} ", f"{secret} von Jürgen Groß"):
        token = base64.b64encode(text.encode(encoding)).decode().rstrip("=")
        assert mask(f"x {token} y") == "x [secret] y"
    cut = f"{secret} é".encode(encoding)[:-1]
    assert mask(base64.b64encode(cut).decode()) == "[secret]"


@pytest.mark.parametrize("length", [4095, 4096, 4097, 100_000])
def test_base64_of_any_length_hides_nothing_at_its_end(length: int) -> None:
    for cut in range(4):
        text = "x" * length + " rk_live_51Habcdef and more"
        token = base64.b64encode(text.encode()).decode().rstrip("=")
        assert mask(f"x {token[: len(token) - cut]} y") == "x [secret] y"


def test_binary_data_in_base64_shows_no_key_and_is_no_address() -> None:
    """Ids and digests say bytes in which an `@` and a `.` come about by chance."""
    noise = bytes(range(128, 256))
    assert mask(base64.b64encode(noise + b"rk_live_51Habcdef" + noise).decode()) == "[secret]"
    digest = base64.b64encode(noise[:4] + b"ada@bank.example" + noise[:4]).decode()
    assert mask(digest) == digest
    assert mask(base64.b64encode(b"ada@bank.example" + noise[:2]).decode()) == "[secret]"


def test_an_authorization_header_is_masked() -> None:
    assert mask("Authorization: Bearer abc123DEF456") == "Authorization: Bearer [secret]"
    assert mask("Authorization: Basic cms6cGFzcw==").startswith("Authorization: Basic [secret]")


@pytest.mark.parametrize(
    "text",
    [
        "fca_1NxYz9 of fcauth_8Abc for cus_Q12345, session fcsess_1Abc, request req_9zZ",
        "relink.allow_secret_key must be true for sk_live keys; set merchants.0.allow_secret_key",
        "GET /v1/financial_connections/accounts/:id: rejected, HTTP 404, resource_missing",
        "connecting to http://127.0.0.1:12111",
        "connecting to https://api.stripe.com",
        "database sqlite:///var/relink.db",
        "risk_level task_id desk_number_123456",
        "20261123T033000Z-a1b2 4f9a0c11e2d3b4a5968778695a4b3c2d1e0f00112233445566778899aabbccdd",
        "a = b & c @ d; 5 @ 3.50",
        "",
    ],
)
def test_what_people_need_to_read_stays(text: str) -> None:
    """Ids, paths, digests and where the job connects to are no secrets."""
    assert mask(text) == text


@pytest.mark.parametrize("reference", ["INV-2026-0042", "Acme, branch 7", "cus_1/main", "7"])
def test_an_ordinary_reference_is_not_sensitive(reference: str) -> None:
    assert not looks_sensitive(reference)


@pytest.mark.parametrize("reference", ["https://api.stripe.com", "http://localhost", "ftp://x"])
def test_any_link_is_sensitive_as_a_reference(reference: str) -> None:
    assert looks_sensitive(reference)


@given(st.text())
def test_masking_twice_changes_nothing_more(text: str) -> None:
    assert mask(mask(text)) == mask(text)


@given(st.text(alphabet=st.characters(codec="ascii"), max_size=40), st.text(max_size=40))
def test_a_key_is_masked_in_any_surroundings(before: str, after: str) -> None:
    """Whatever stands around it, unless it makes the key part of a longer word."""
    assert "sk_live_CanaryOwnKey000" not in mask(f"{before} sk_live_CanaryOwnKey000 {after}")


@pytest.mark.parametrize(
    "unit",
    [
        "a",
        "@",
        "a@",
        "a_secret_",
        "sk_",
        "http://",
        "%40.",
        "a.b@",
        "Bearer ",
        "A1+/",
        "%3D",
        "%25",
        "\\n",
        "\\x22a.",
        "stripe.com",
        "YUBi",
    ],
)
def test_no_text_makes_it_slow(unit: str) -> None:
    """A hostile message of 200 kB costs a fraction of a second, not minutes."""
    text = unit * (200_000 // len(unit))
    started = process_time()
    mask(text)
    assert process_time() - started < 5


def test_a_letter_too_many_at_the_end_of_base64_costs_nothing_of_what_stands_before() -> None:
    short = base64.b64encode(b"rk_abcdeW").decode()  # a key by its last letter only
    assert mask(short + "A") == "[secret]"


def test_up_to_an_eighth_of_unreadable_bytes_an_address_in_base64_is_one() -> None:
    for unreadable, masked in ((3, True), (4, False)):
        token = base64.b64encode(b"ada@bank.example abcd" + b"\xff" * unreadable).decode()
        assert (mask(token) == "[secret]") is masked
