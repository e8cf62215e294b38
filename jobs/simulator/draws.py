"""Seeded draws that depend only on what they are for, never on the order in which they are asked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from struct import unpack
from typing import TypeVar

_WORD_RANGE = 2.0**32
Choice = TypeVar("Choice")


def words(text: str) -> tuple[int, ...]:
    """Sixteen 32-bit words that follow from `text` alone."""
    return unpack("<16I", blake2b(text.encode()).digest())


def token(text: str, length: int = 24) -> str:
    """A hexadecimal identifier part that follows from `text` alone."""
    return blake2b(text.encode()).hexdigest()[:length]


class Draws:
    """An endless stream of random numbers named by its purpose, such as ``7:answer:fcauth_x:2``."""

    __slots__ = ("_at", "_block", "_name", "_words")

    def __init__(self, *purpose: object) -> None:
        self._name = ":".join(map(str, purpose))
        self._words = words(self._name)
        self._at = 0
        self._block = 0

    def word(self) -> int:
        """The next 32-bit word."""
        if self._at == len(self._words):
            self._block += 1
            self._words = words(f"{self._name}#{self._block}")
            self._at = 0
        value = self._words[self._at]
        self._at += 1
        return value

    def unit(self) -> float:
        """The next number in [0, 1)."""
        return self.word() / _WORD_RANGE

    def chance(self, probability: float) -> bool:
        """True with that probability."""
        return self.unit() < probability

    def between(self, low: float, high: float) -> float:
        """A number in [low, high)."""
        return low + (high - low) * self.unit()

    def pick(self, choices: Sequence[Choice]) -> Choice:
        """One of `choices`, each as likely."""
        return choices[self.word() % len(choices)]

    def weighted(self, weights: Mapping[str, float]) -> str:
        """One key of `weights`, as likely as its weight; keys are tried in their given order."""
        mark = self.unit() * sum(weights.values())
        for name, weight in weights.items():
            mark -= weight
            if mark < 0:
                return name
        return next(reversed([name for name, weight in weights.items() if weight > 0]))

    def subset(self, items: Sequence[Choice], size: int) -> list[Choice]:
        """`size` of the items, in their given order."""
        ranked = sorted(range(len(items)), key=lambda _: self.word())[:size]
        return [items[index] for index in sorted(ranked)]

    def waiting_seconds(self, rate_per_day: float) -> int:
        """Seconds until the next arrival of a process with that many arrivals a day."""
        return 1 + int(-math.log(1.0 - self.unit()) / rate_per_day * 86_400)
