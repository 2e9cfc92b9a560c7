"""Progress bars for anything that takes longer than two seconds, drawn on the terminal's error stream."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol


class Advance(Protocol):
    """Called with how much has been done since the last call, and perhaps with what to say beside the bar."""

    def __call__(self, amount: float = 1.0, said: str | None = None) -> None: ...


DELAY_SECONDS = 0.7
_shown: ContextVar[bool] = ContextVar("progress_shown", default=True)


class _Bar:
    def __init__(self, label: str, total: float | None) -> None:
        self.label, self.total, self.done, self.said = label, total, 0.0, ""
        self.start = time.monotonic()
        self.bar: Any = None
        self.task: Any = None

    def __call__(self, amount: float = 1.0, said: str | None = None) -> None:
        self.done += amount
        self.said = self.said if said is None else said
        if self.bar is None and time.monotonic() - self.start > DELAY_SECONDS:
            self.open()
        if self.bar is not None:
            self.bar.update(self.task, completed=self.done, said=self.said)

    def open(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%")
        console = Console(stderr=True)
        clocks = TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[said]}")
        self.bar = Progress(*columns, *clocks, transient=True, console=console)
        self.bar.start()
        self.task = self.bar.add_task(self.label, total=self.total, completed=self.done, said=self.said)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.stop()


@contextmanager
def progress(label: str, total: float | None = None) -> Iterator[Advance]:
    """Show a bar named `label` while the block runs; call what is yielded to advance it.

    Nested calls draw one bar, the outermost; nothing is drawn where the error stream is no terminal.
    """
    if not _shown.get() or not sys.stderr.isatty():
        yield _silent
        return
    bar = _Bar(label, total)
    token = _shown.set(False)
    try:
        yield bar
    finally:
        _shown.reset(token)
        bar.close()


def _silent(amount: float = 1.0, said: str | None = None) -> None:
    """Where nothing is drawn."""


@contextmanager
def quiet() -> Iterator[None]:
    """Draw no bars inside the block."""
    token = _shown.set(False)
    try:
        yield
    finally:
        _shown.reset(token)
