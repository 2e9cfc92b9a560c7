"""What torch compiles, and what it leaves as it is.

`torch.compiler.disable` does the latter, and importing what it needs takes seconds, also in a process that only lists
systems or answers. So it is put off until something is compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

_LEFT: list[LeftAlone] = []


class LeftAlone:
    """A function that compiled code calls and is not compiled with: it would gain nothing, as a loop that looks at its
    data."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        _LEFT.append(self)

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, compiled when it is first called; what is to be left alone is a break in its graph."""
    while _LEFT:
        one = _LEFT.pop()
        one.function = torch.compiler.disable(one.function)  # type: ignore[no-untyped-call]
    ready: Callable[..., Any] = torch.compile(function)
    return ready
