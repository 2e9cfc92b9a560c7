"""What transforms share: a program whose stages are changed one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tastemaker.contracts import Program, Stage


def with_stages(program: Program, change: Callable[[Stage], Stage]) -> Program:
    """The same program, each of its stages changed before it is run; it is sent what the changed stage gave."""
    sent: Any = None
    while True:
        try:
            stage = program.send(sent)
        except StopIteration:
            return
        sent = yield change(stage)
