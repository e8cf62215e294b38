"""Faults on demand: scripted for the next matching calls, or at random by a seeded rate.

Before the effect, nothing was executed and nothing stored, save `error_500_before`, which Stripe stores under the key:
rate_limit, lock_timeout, in_use, error_500_before, error_502, error_503, reset_before, hang_before, unauthorized, forbidden, redirect.
`slow` executes only after `seconds` (or `release_hanging`), its key in flight meanwhile.
After the effect, the call was executed and its reply stored under its key:
error_500_after, reset_after, hang_after, cut_body, cut_json, not_json.
Odd pages: empty_page, repeated_page, duplicate_id, missing_authorization, wrong_livemode.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from jobs.simulator.draws import Draws

BEFORE = (
    "rate_limit",
    "lock_timeout",
    "in_use",
    "error_500_before",
    "error_502",
    "error_503",
    "reset_before",
    "hang_before",
    "unauthorized",
    "forbidden",
    "redirect",
)
DURING = ("slow",)
AFTER = ("error_500_after", "reset_after", "hang_after", "cut_body", "cut_json", "not_json")
ODD_PAGES = ("empty_page", "repeated_page", "duplicate_id", "missing_authorization", "wrong_livemode")
KINDS = BEFORE + DURING + AFTER + ODD_PAGES


@dataclass(slots=True)
class Fault:
    """A fault and its details: `reason` of a 429, seconds a hang lasts at most, `retry_after_seconds` header."""

    kind: str
    reason: str = "endpoint-rate"
    seconds: float = 30.0
    retry_after_seconds: int | None = None
    location: str = "http://localhost:1/elsewhere"
    should_retry: bool | None = None


@dataclass(slots=True)
class _Scripted:
    method: str
    path: str
    fault: Fault
    times: int
    skip: int


@dataclass(slots=True)
class _Random:
    method: str
    path: str
    rate: float
    kinds: tuple[str, ...]
    seed: int
    seconds: float


class Faults:
    """The faults of one world. Paths are shell patterns such as ``/v1/financial_connections/sessions*``."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._scripted: list[_Scripted] = []
        self._random: list[_Random] = []
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()
        self.release = threading.Event()
        self.injected: Counter[str] = Counter()

    def script(
        self,
        kind: str,
        *,
        method: str = "*",
        path: str = "*",
        times: int = 1,
        skip: int = 0,
        reason: str = "endpoint-rate",
        seconds: float = 30.0,
        retry_after_seconds: int | None = None,
        location: str = "http://localhost:1/elsewhere",
        should_retry: bool | None = None,
    ) -> None:
        """Let the next `times` matching calls fail in this way, after `skip` that do not."""
        _check(kind)
        fault = Fault(kind, reason, seconds, retry_after_seconds, location, should_retry)
        with self._lock:
            self._scripted.append(_Scripted(method, path, fault, times, skip))

    def at_random(
        self,
        rate: float,
        kinds: Sequence[str],
        *,
        method: str = "*",
        path: str = "*",
        seed: int | None = None,
        seconds: float = 0.2,
    ) -> None:
        """Let a share of matching calls fail; which ones follows from the seed and the call, not from timing."""
        for kind in kinds:
            _check(kind)
        with self._lock:
            self._random.append(
                _Random(method, path, rate, tuple(kinds), self._seed if seed is None else seed, seconds)
            )

    def clear(self) -> None:
        """No more faults, and an end to those that hang."""
        with self._lock:
            self._scripted.clear()
            self._random.clear()
        self.release_hanging()

    def release_hanging(self) -> None:
        """Close every connection that hangs now; later hangs hang again."""
        released, self.release = self.release, threading.Event()
        released.set()

    def take(self, method: str, path: str, identity: str) -> Fault | None:
        """The fault of this call, if any; `identity` tells calls apart (query, key)."""
        with self._lock:
            if not self._scripted and not self._random:
                return None
            for scripted in self._scripted:
                if not (fnmatchcase(method, scripted.method) and fnmatchcase(path, scripted.path)):
                    continue
                if scripted.skip:
                    scripted.skip -= 1
                    continue
                scripted.times -= 1
                if scripted.times <= 0:
                    self._scripted.remove(scripted)
                self.injected[scripted.fault.kind] += 1
                return scripted.fault
            for number, chance in enumerate(self._random):
                if not (fnmatchcase(method, chance.method) and fnmatchcase(path, chance.path)):
                    continue
                name = f"{number}:{method}:{path}:{identity}"
                self._seen[name] += 1
                draws = Draws(chance.seed, "fault", name, self._seen[name])
                if draws.chance(chance.rate):
                    kind = draws.pick(chance.kinds)
                    self.injected[kind] += 1
                    return Fault(kind, seconds=chance.seconds)
        return None


def _check(kind: str) -> None:
    if kind not in KINDS:
        raise ValueError(f"unknown fault {kind!r}; known are {', '.join(KINDS)}")
