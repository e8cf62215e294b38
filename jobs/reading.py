"""Many single reads: several under way at once, their answers in the order asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

from jobs.crew import AT_ONCE, Crew
from reconcile.records import MalformedAnswer, ReadFailed, ReadRejected

_Asked = TypeVar("_Asked")
_Found = TypeVar("_Found")

ReadError = ReadFailed | ReadRejected | MalformedAnswer
"""What is one object's trouble, until it is that of several in a row."""


def read_in_order(
    asked: Sequence[_Asked], read: Callable[[_Asked], _Found], *, failures: int
) -> Iterator[tuple[_Asked, _Found | ReadError]]:
    """Yield each thing asked for with what was read, or with why that failed, in the order given.

    Reads change nothing at Stripe, so several may be under way, and whatever is when this ends early is done without. Until one was answered
    they are made one at a time, here: a Stripe that is down from the start is not asked more often than that.

    Args:
        read: called in other threads; it has to leave everything of ours alone.
        failures: so many one after the other, in the order given, are not the objects' own.

    Raises:
        ReadFailed, ReadRejected, MalformedAnswer: the last of so many failures.
        OutsideError: Stripe refused the key.
    """
    crew: Crew[tuple[int, _Found | ReadError]] = Crew("read")
    answers: dict[int, _Found | ReadError] = {}
    handed = in_a_row = 0
    answered = False
    try:
        for place, one in enumerate(asked):
            if not answered:
                answers[place] = _try(read, one)
                handed = place + 1
            while place not in answers:
                for further in range(handed, min(len(asked), place + AT_ONCE)):
                    crew.hand_or_make(partial(_try_apart, read, further, asked[further]))
                    handed = further + 1
                answered_place, answers[answered_place] = crew.hear()
            answer = answers.pop(place)
            yield one, answer
            if not isinstance(answer, ReadError):
                answered, in_a_row = True, 0
                continue
            in_a_row += 1
            if in_a_row >= failures:
                raise answer
    finally:
        crew.dismiss()


def _try(read: Callable[[_Asked], _Found], one: _Asked) -> _Found | ReadError:
    try:
        return read(one)
    except (ReadFailed, ReadRejected, MalformedAnswer) as failed:
        return failed


def _try_apart(read: Callable[[_Asked], _Found], place: int, one: _Asked) -> tuple[int, _Found | ReadError]:
    return place, _try(read, one)
