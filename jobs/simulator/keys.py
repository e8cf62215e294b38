"""API keys of the simulated account (Stripe docs: API keys, restricted keys)."""

from __future__ import annotations

from dataclasses import dataclass

_RESTRICTED_DENIED = frozenset({"customers.list", "charges.list"})


@dataclass(slots=True)
class ApiKey:
    """What a key may do; `denied` are endpoint names answered with 403."""

    denied: frozenset[str]
    revoked: bool = False


def make_key(key: str, denied: frozenset[str], livemode: bool) -> ApiKey:
    """A key of this mode. Raises ValueError for a key that is neither sk_ nor rk_, or of the other mode."""
    mode = "live" if livemode else "test"
    for prefix in ("rk", "sk"):
        if key.startswith(f"{prefix}_{mode}_"):
            return ApiKey(denied | _RESTRICTED_DENIED if prefix == "rk" else denied)
    raise ValueError(f"a key of this world starts with rk_{mode}_ or sk_{mode}_")


def shown_key(key: str) -> str:
    """A key as Stripe's messages show it: its beginning, stars and its last four characters."""
    if len(key) <= 12:
        return key[:3] + "*" * max(0, len(key) - 3)
    return f"{key[:8]}{'*' * (len(key) - 12)}{key[-4:]}"
