"""Errors that say what was expected, what came, and what to do about it."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from types import ModuleType


class TastemakerError(Exception):
    """Root of every error raised on purpose. `exit_code` is what the command line returns."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  what to do: {self.hint}" if self.hint else self.message


class UsageError(TastemakerError):
    """A call or a command was given arguments that do not fit together."""

    exit_code = 2


class ConfigError(UsageError):
    """A setting is unknown, of the wrong type or out of range."""


class NotFound(UsageError):
    """A name (system, dataset, split, recipe, column) is not there; the message offers the nearest."""


class MissingExtra(TastemakerError):
    """An optional dependency is not installed; the message carries the install command."""

    exit_code = 4


class BundleError(TastemakerError):
    """A bundle is damaged, of a newer format, or not what its manifest says."""

    exit_code = 5


class BudgetExceeded(TastemakerError):
    """The work would need more memory than the stated budget; nothing has been started."""

    exit_code = 6


class CapabilityError(TastemakerError):
    """A system was asked for something that it does not declare."""

    exit_code = 7


class Diverged(TastemakerError):
    """Training broke down: a loss was no number, or grew without bound."""

    exit_code = 8


@dataclass(frozen=True)
class Problem:
    """One fault in the input: where it stands and what is wrong with it."""

    what: str
    file: str | None = None
    row: int | None = None  # 1-based line of the file, the header counted
    column: str | None = None
    value: str | None = None

    def __str__(self) -> str:
        place = self.file or "input"
        if self.row is not None:
            place += f":{self.row}"
        if self.column is not None:
            place += f" [{self.column}]"
        return f"{place}: {self.what}" + (f" (found {self.value!r})" if self.value is not None else "")


class DataError(TastemakerError):
    """Input data cannot be used. Every problem is counted; a sample of them is shown."""

    exit_code = 3

    def __init__(
        self,
        message: str,
        problems: Sequence[Problem] = (),
        *,
        total: int | None = None,
        hint: str | None = None,
    ) -> None:
        self.problems = tuple(problems)
        self.total = len(self.problems) if total is None else total
        lines = [message, *(f"  - {problem}" for problem in self.problems)]
        if self.total > len(self.problems):
            lines.append(f"  ... and {self.total - len(self.problems):,} more")
        super().__init__("\n".join(lines), hint=hint)


def nearest(name: str, known: Iterable[str]) -> str:
    """A sentence fragment that names the closest known names, or lists a few of them."""
    known = sorted(known)
    close = get_close_matches(name, known, n=3, cutoff=0.5)
    if close:
        return "did you mean " + " or ".join(repr(c) for c in close) + "?"
    shown = ", ".join(known[:20])
    return f"known: {shown}" + (", ..." if len(known) > 20 else "") if known else "none are known"


def optional(module: str, *, extra: str, why: str) -> ModuleType:
    """Import an optional dependency, or say which command installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtra(
            f"{why} needs the package {module.split('.')[0]!r}, which is not installed.",
            hint=f"pip install 'tastemaker[{extra}]'",
        ) from error
