"""Where a key may come from and go to, and that it is shown nowhere, neither as itself nor in a refusal."""

from __future__ import annotations

import copy
import os
import pickle
import traceback
from pathlib import Path
from typing import Any

import pytest

from jobs.api_key import ApiKey, read_api_key, read_api_keys
from jobs.settings import MerchantSettings, parse_settings
from reconcile.errors import ModeMismatch, SettingsError

STRIPE = "https://api.stripe.com"
LOOPBACK = "http://127.0.0.1:12111"
RESTRICTED_LIVE = "rk_live_51CanaryCanaryCanary"
RESTRICTED_TEST = "rk_test_51CanaryCanaryCanary"
SECRET_LIVE = "sk_live_51CanaryCanaryCanary"
SECRET_TEST = "sk_test_51CanaryCanaryCanary"


def read(key: str, api_base: str = STRIPE, **merchant: Any) -> ApiKey:
    return read_api_key(MerchantSettings(name="main", **merchant), {"STRIPE_API_KEY": key}, api_base)


def key_file(directory: Path, content: str = RESTRICTED_TEST, mode: int = 0o600) -> Path:
    file = directory / "key"
    file.write_text(content)
    file.chmod(mode)
    return file


@pytest.mark.parametrize(
    ("text", "mode", "kind"),
    [
        (RESTRICTED_LIVE, "live", "restricted"),
        (RESTRICTED_TEST, "sandbox", "restricted"),
        (SECRET_TEST, "sandbox", "secret"),
    ],
)
def test_mode_and_kind_come_from_the_key(text: str, mode: str, kind: str) -> None:
    key = read(f"  {text}\n")
    assert (key.mode, key.kind, key.reveal()) == (mode, kind, text)


@pytest.mark.parametrize(
    "text", ["", "  ", "pk_live_abcdef", "sk_live_", "rk_test_a b", "rk_test_a\nX-Header: 1", "Qwertz", "rk_test_é"]
)
def test_what_is_no_key_is_refused_by_the_variables_name(text: str) -> None:
    with pytest.raises(SettingsError, match=r"merchant main: \$STRIPE_API_KEY") as caught:
        read(text)
    assert not text.strip() or text.strip() not in str(caught.value)


def test_a_missing_variable_is_named() -> None:
    with pytest.raises(SettingsError, match=r"\$OTHER is not set"):
        read_api_key(MerchantSettings(name="main", api_key_env="OTHER"), {"STRIPE_API_KEY": SECRET_TEST}, STRIPE)


def test_a_secret_live_key_needs_permission() -> None:
    with pytest.raises(SettingsError, match="allow_secret_key"):
        read(SECRET_LIVE)
    assert read(SECRET_LIVE, allow_secret_key=True).mode == "live"


@pytest.mark.parametrize("key", [RESTRICTED_LIVE, SECRET_LIVE])
def test_a_live_key_goes_to_stripe_only(key: str) -> None:
    with pytest.raises(SettingsError, match="holds a live key"):
        read(key, api_base=LOOPBACK, allow_secret_key=True)


def test_no_key_goes_to_another_host() -> None:
    with pytest.raises(SettingsError, match="neither"):
        read(RESTRICTED_TEST, api_base="https://stripe.example")
    assert read(RESTRICTED_TEST, api_base=LOOPBACK).mode == "sandbox"


def test_a_mode_that_differs_from_the_keys_stops_with_its_own_exit_code() -> None:
    with pytest.raises(ModeMismatch, match="mode is live, but") as caught:
        read(RESTRICTED_TEST, mode="live")
    assert caught.value.exit_code == 3
    assert read(RESTRICTED_TEST, mode="sandbox").mode == "sandbox"


def test_a_key_file_is_read_through_a_link(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(key_file(tmp_path, f"\n{RESTRICTED_TEST}  \n"))
    assert read("", api_key_file=link).reveal() == RESTRICTED_TEST


@pytest.mark.parametrize("mode", [0o660, 0o604, 0o620, 0o602, 0o610, 0o644, 0o777])
def test_a_key_file_that_others_can_use_is_refused(tmp_path: Path, mode: int) -> None:
    file = key_file(tmp_path, mode=mode)
    with pytest.raises(SettingsError, match=f"{file} can be used by others .mode {mode:04o}"):
        read("", api_key_file=file)


def test_a_link_does_not_hide_that_others_can_read_the_file(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(key_file(tmp_path, mode=0o644))
    with pytest.raises(SettingsError, match="can be used by others"):
        read("", api_key_file=link)


@pytest.mark.parametrize(
    ("content", "expected"),
    [("", "is empty"), (" \n", "is empty"), ("x" * 5000, "longer"), ("nonsense", "does not hold")],
)
def test_a_key_file_without_a_key_is_refused(tmp_path: Path, content: str, expected: str) -> None:
    with pytest.raises(SettingsError, match=expected):
        read("", api_key_file=key_file(tmp_path, content))


def test_a_key_file_that_is_missing_or_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        read("", api_key_file=tmp_path / "none")
    with pytest.raises(SettingsError, match="is not a file"):
        read("", api_key_file=tmp_path)
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(SettingsError, match="is not a file"):
        read("", api_key_file=tmp_path / "pipe")


def test_two_merchants_with_one_key_are_refused_and_every_fault_is_told() -> None:
    merchants = [{"name": name, "api_key_env": name.upper()} for name in ("a", "b", "c")]
    settings = parse_settings({"merchants": merchants})
    with pytest.raises(SettingsError) as caught:
        read_api_keys(settings, {"A": RESTRICTED_TEST, "B": RESTRICTED_TEST})
    assert "merchants a and b have the same API key" in str(caught.value)
    assert "merchant c: $C is not set" in str(caught.value)
    assert "Canary" not in str(caught.value)
    platform = [{**merchant, "stripe_account": f"acct_{merchant['name']}"} for merchant in merchants]
    one_key = dict.fromkeys("ABC", RESTRICTED_TEST)
    assert len(read_api_keys(parse_settings({"merchants": platform}), one_key)) == 3, "a platform's connected accounts"
    keys = read_api_keys(settings, {"A": RESTRICTED_TEST, "B": SECRET_TEST, "C": RESTRICTED_LIVE})
    assert {name: key.mode for name, key in keys.items()} == {"a": "sandbox", "b": "sandbox", "c": "live"}


def test_a_key_cannot_be_shown_pickled_or_copied() -> None:
    key = read(RESTRICTED_LIVE)
    shown = [repr(key), str(key), f"{key}", f"{key!r}", repr({"key": key})]
    assert not any("Canary" in text for text in shown)
    assert not hasattr(key, "__dict__"), "else `vars` and whatever else shows what an object holds would show the text"
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="never pickled"):
            leak(key)


@pytest.mark.parametrize(
    ("key", "merchant"), [(SECRET_LIVE, {}), (RESTRICTED_TEST, {"mode": "live"}), ("rk_test_Canary!", {})]
)
def test_no_refusal_shows_the_key(key: str, merchant: dict[str, Any]) -> None:
    with pytest.raises((SettingsError, ModeMismatch)) as caught:
        read(key, **merchant)
    error: BaseException | None = caught.value
    while error is not None:
        assert "Canary" not in "".join(traceback.format_exception_only(error))
        error = error.__context__


def merchants(*named: dict[str, Any]) -> dict[str, Any]:
    return {"merchants": [{"api_key_env": f"KEY_{one['name'].upper()}", **one} for one in named]}


def test_every_other_fault_of_every_merchant_is_told_at_once_before_any_wrong_mode() -> None:
    settings = parse_settings(
        merchants({"name": "a"}, {"name": "b", "mode": "live"}, {"name": "c"}, {"name": "d", "mode": "live"})
    )
    environment = {"KEY_B": RESTRICTED_TEST, "KEY_D": "rk_test_51OtherCanary"}
    with pytest.raises(SettingsError) as caught:
        read_api_keys(settings, environment)
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == ["merchant a", "merchant c"]


def test_of_several_wrong_modes_the_first_is_told_and_none_is_passed_over() -> None:
    settings = parse_settings(merchants({"name": "a", "mode": "live"}, {"name": "b", "mode": "live"}, {"name": "c"}))
    environment = {"KEY_A": RESTRICTED_TEST, "KEY_B": "rk_test_51OtherCanary", "KEY_C": "rk_test_51ThirdCanary"}
    with pytest.raises(ModeMismatch, match=r"merchant a: mode is live, but \$KEY_A holds a sandbox key"):
        read_api_keys(settings, environment)
    settings = parse_settings(merchants({"name": "a", "mode": "live"}, {"name": "b"}))
    with pytest.raises(SettingsError, match="merchant b"):
        read_api_keys(settings, {"KEY_A": RESTRICTED_TEST})


def test_a_key_file_may_have_a_byte_order_mark_and_be_as_long_as_allowed(tmp_path: Path) -> None:
    for content in ("\ufeff" + RESTRICTED_TEST, RESTRICTED_TEST.ljust(4096)):
        file = key_file(tmp_path, content)
        assert read_api_key(MerchantSettings(name="main", api_key_file=file), {}, STRIPE).reveal() == RESTRICTED_TEST
    with pytest.raises(SettingsError, match="longer than any key"):
        read_api_key(MerchantSettings(name="main", api_key_file=key_file(tmp_path, " " * 4097)), {}, STRIPE)


def test_a_key_file_of_other_bytes_is_refused_and_not_shown(tmp_path: Path) -> None:
    file = key_file(tmp_path)
    file.write_bytes(b"rk_test_\xff\xfe51Canary")
    with pytest.raises(SettingsError, match="does not hold a Stripe API key") as caught:
        read_api_key(MerchantSettings(name="main", api_key_file=file), {}, STRIPE)
    assert "Canary" not in str(caught.value)
