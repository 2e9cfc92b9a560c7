"""What torch compiles, and what it leaves as it is.

`torch.compiler.disable` does the latter, and importing what it needs takes seconds, in every process that only answers
or trains without compiling. So it is put off until something is compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

_LEFT: list[Left] = []


class Left:
    """A function that compiled code calls and is not compiled with."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        _LEFT.append(self)

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)


def left_alone(function: Callable[..., Any]) -> Left:
    """A function that would gain nothing by being compiled, as a loop that looks at its data."""
    return Left(function)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, compiled when it is first called; what is to be left alone is a break in its graph."""
    while _LEFT:
        one = _LEFT.pop()
        one.function = torch.compiler.disable(one.function)  # type: ignore[no-untyped-call]
    ready: Callable[..., Any] = torch.compile(function)
    return ready
