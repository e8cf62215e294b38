"""Our form encoding against the one of the `stripe` package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

import pytest
import stripe
from hypothesis import given
from hypothesis import strategies as st

from reconcile.session_request import encode_session_request


class Recorder(stripe.HTTPClient):
    """An HTTP client that keeps the body and goes nowhere."""

    name = "recorder"
    body: str

    def request(self, method: str, url: str, headers: Any, post_data: Any = None, **_: Any) -> Any:
        self.body = post_data
        return "{}", 200, {}


def sent_by_package(params: Mapping[str, Any]) -> str:
    recorder = Recorder()
    stripe.enable_telemetry = False
    client = stripe.StripeClient("sk_test_1", http_client=recorder)
    client.raw_request("post", "/v1/financial_connections/sessions", **params)
    return recorder.body


PARAMS: dict[str, Any] = {
    "account_holder": {"type": "customer", "customer": "cus_1"},
    "permissions": ["balances", "payment_method"],
    "relink_options": {"authorization": "fcauth_1", "account": None},
    "limits": {"accounts": 1},
    "filters": {"account_subcategories": ("checking", "savings"), "countries": []},
    "manual_entry": {"mode": ""},
    "return_url": "https://example.com/back?a=1&b=ü +%",
    "flag": True,
    "other": False,
    "nested": [{"a": [1, {"b": "c"}]}, ["x", "y"]],
}


def test_a_session_request_equals_what_the_package_sends() -> None:
    encoded = encode_session_request(PARAMS)
    assert encoded == sent_by_package(PARAMS)
    assert encoded.startswith("account_holder[type]=customer&account_holder[customer]=cus_1&permissions[0]=balances&")
    assert "account]" not in encoded
    assert "limits[accounts]=1" in encoded
    assert encoded.isascii()


names = st.text(st.sampled_from("abcdefgh_"), min_size=1, max_size=6)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=("Cs",))),
    lambda inner: (
        st.lists(inner.filter(lambda item: item is not None), max_size=3) | st.dictionaries(names, inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(names.map(lambda name: f"p{name}"), values, max_size=4))
def test_any_parameters_equal_what_the_package_sends(params: dict[str, Any]) -> None:
    """Booleans inside lists are the one difference: the package writes them as Python does, which Stripe does not read."""
    ours = encode_session_request(params)
    theirs = sent_by_package(params)
    if "=True" in theirs or "=False" in theirs:
        assert parse_qsl(ours.lower(), keep_blank_values=True) == parse_qsl(theirs.lower(), keep_blank_values=True)
    else:
        assert ours == theirs


@pytest.mark.parametrize("value", [1.5, b"x", object(), {1, 2}])
def test_a_value_without_one_form_is_refused(value: object) -> None:
    """The stored body must not depend on how something happens to print."""
    with pytest.raises(TypeError, match=r"limits\[accounts\]"):
        encode_session_request({"limits": {"accounts": value}})


def test_nothing_inside_a_list_is_refused() -> None:
    """Leaving it out would leave a hole in the numbering."""
    with pytest.raises(TypeError, match=r"permissions\[1\]"):
        encode_session_request({"permissions": ["balances", None]})
