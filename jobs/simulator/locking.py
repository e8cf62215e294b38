"""Methods that hold the world's lock, so that they are safe while it is served."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from jobs.simulator.state import State

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
Holding = TypeVar("Holding", bound=State)


def locked(
    method: Callable[Concatenate[Holding, Arguments], Result],
) -> Callable[Concatenate[Holding, Arguments], Result]:
    """A method that holds the world's lock while it runs."""

    @wraps(method)
    def guarded(self: Holding, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with self.lock:
            return method(self, *args, **kwargs)

    return guarded
