"""The Stripe API key: read from a variable or a private file, held so that it cannot be shown by accident."""

from __future__ import annotations

import hmac
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NoReturn

from jobs.settings import MerchantSettings, Settings
from jobs.settings_checks import DEFAULT_KEY_VARIABLE, STRIPE_API, is_loopback
from reconcile.errors import ModeMismatch, SettingsError

KEY_FILE_LIMIT_BYTES = 4096

# Stripe docs: API keys. `test` is how keys of a sandbox are marked.
_KEY = re.compile(r"(?P<kind>sk|rk)_(?P<mode>live|test)_[A-Za-z0-9_]{1,500}")


class ApiKey:
    """An API key; only `reveal` gives the text. It cannot be printed, compared, pickled or copied."""

    __slots__ = ("__text", "kind", "mode")

    def __init__(self, text: str) -> None:
        match = _KEY.fullmatch(text)
        if not match:
            raise SettingsError(
                "this is not a Stripe API key: one begins with rk_live_, rk_test_, sk_live_ or sk_test_"
            )
        self.__text = text
        self.kind: Literal["restricted", "secret"] = "restricted" if match["kind"] == "rk" else "secret"
        self.mode: Literal["live", "sandbox"] = "live" if match["mode"] == "live" else "sandbox"

    def reveal(self) -> str:
        """The key itself, for the one place that calls Stripe."""
        return self.__text

    def is_same_as(self, other: ApiKey) -> bool:
        """Whether two keys are one."""
        return hmac.compare_digest(self.__text, other.__text)

    def __repr__(self) -> str:
        return f"ApiKey({self.kind}, {self.mode})"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("an API key is never pickled or copied")


def read_api_keys(settings: Settings, environment: Mapping[str, str]) -> dict[str, ApiKey]:
    """The key of every merchant, by merchant name.

    Raises:
        SettingsError: a key is missing, readable by others, malformed, not allowed, or shared by two merchants; all are named.
        ModeMismatch: a merchant's mode is not its key's.
    """
    keys: dict[str, ApiKey] = {}
    faults: list[str] = []
    mismatch: ModeMismatch | None = None
    for merchant in settings.merchants:
        try:
            key = read_api_key(merchant, environment, settings.stripe.api_base)
        except SettingsError as error:
            faults.append(str(error))
            continue
        except ModeMismatch as error:
            mismatch = mismatch or error
            continue
        twin = next(
            (
                other.name
                for other in settings.merchants
                if other.name in keys
                and keys[other.name].is_same_as(key)
                and other.stripe_account == merchant.stripe_account
            ),
            None,
        )
        if twin:
            faults.append(
                f"merchants {twin} and {merchant.name} have the same API key; give each merchant its own, or its own stripe_account"
            )
        keys[merchant.name] = key
    if faults:
        raise SettingsError("\n".join(faults))
    if mismatch:
        raise mismatch
    return keys


def read_api_key(merchant: MerchantSettings, environment: Mapping[str, str], api_base: str) -> ApiKey:
    """One merchant's key, checked against what the settings allow.

    Raises:
        SettingsError: it is missing, readable by others, malformed or not allowed.
        ModeMismatch: the merchant's mode is not the key's.
    """
    if merchant.api_key_file is not None:
        where, text = f"api_key_file {merchant.api_key_file}", _read_key_file(merchant)
    else:
        variable = merchant.api_key_env or DEFAULT_KEY_VARIABLE
        where, text = f"${variable}", environment.get(variable, "").strip()
        if not text:
            advice = "set it to the merchant's restricted key, or name a file with api_key_file"
            raise SettingsError(f"merchant {merchant.name}: ${variable} is not set or empty; {advice}")
    try:
        key = ApiKey(text)
    except SettingsError:
        advice = "it must begin with rk_live_ or rk_test_ (or sk_test_), be one word, and be whole"
        raise SettingsError(f"merchant {merchant.name}: {where} does not hold a Stripe API key; {advice}") from None
    _check_allowed(key, merchant, where, api_base)
    return key


def _check_allowed(key: ApiKey, merchant: MerchantSettings, where: str, api_base: str) -> None:
    if key.mode == "live" and api_base != STRIPE_API:
        raise SettingsError(
            f"merchant {merchant.name}: {where} holds a live key, which is sent to {STRIPE_API} only; "
            "use a test key with stripe.api_base, or set stripe.api_base back"
        )
    if api_base != STRIPE_API and not is_loopback(api_base):
        raise SettingsError(f"merchant {merchant.name}: stripe.api_base is neither {STRIPE_API} nor on loopback")
    if key.mode == "live" and key.kind == "secret" and not merchant.allow_secret_key:
        raise SettingsError(
            f"merchant {merchant.name}: {where} holds a secret key, which may do everything; create a restricted key (rk_live_) "
            "at Stripe, or set allow_secret_key: true"
        )
    if merchant.mode is not None and merchant.mode != key.mode:
        raise ModeMismatch(
            f"merchant {merchant.name}: mode is {merchant.mode}, but {where} holds a {key.mode} key; correct one of them"
        )


def _read_key_file(merchant: MerchantSettings) -> str:
    path = merchant.api_key_file or Path()
    place = f"merchant {merchant.name}: api_key_file {path}"
    try:
        # Not blocking, so that a pipe put in the file's place is refused instead of waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            # The opened file itself is looked at, so that it cannot be exchanged between the look and the read.
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise SettingsError(f"{place} is not a file")
            # A group may read: that is how systemd and Kubernetes hand a secret to a user who is not root.
            if status.st_mode & 0o037:
                mode = stat.S_IMODE(status.st_mode)
                raise SettingsError(
                    f"{place} can be used by others (mode {mode:04o}); chmod 600 it, and roll the key if others had it"
                )
            content = os.read(descriptor, KEY_FILE_LIMIT_BYTES + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise SettingsError(
            f"{place} cannot be read ({error.strerror}); create it, readable by the job's user alone"
        ) from None
    if len(content) > KEY_FILE_LIMIT_BYTES:
        raise SettingsError(f"{place} is longer than any key; it must hold the key alone")
    text = content.decode("utf-8-sig", errors="replace").strip()
    if not text:
        raise SettingsError(f"{place} is empty; it must hold the key")
    return text
