"""What is wrong with a pipeline, place by place, so that an editor can mark every field at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tastemaker.types import ConfigError, TastemakerError


@dataclass(frozen=True)
class Fault:
    """One fault: where it stands in the spec ("rerank.0.column", "" for the whole), what it is, what to do."""

    where: str
    what: str
    hint: str | None = None

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        return place + self.what + (f" ({self.hint})" if self.hint else "")


class PipelineError(ConfigError):
    """A pipeline cannot be put together; `faults` lists everything that is wrong with it."""

    def __init__(self, faults: Sequence[Fault], name: str = "") -> None:
        self.faults = tuple(faults)
        of = f"the pipeline {name!r}" if name else "the pipeline"
        if len(self.faults) == 1:
            only = self.faults[0]
            super().__init__(f"{of} is at fault: {Fault(only.where, only.what)}", hint=only.hint)
        else:
            lines = [f"{of} has {len(self.faults)} faults", *(f"  - {fault}" for fault in self.faults)]
            super().__init__("\n".join(lines))


class Faults:
    """Gathers faults: what is raised inside `at(place)` becomes one, and the work goes on."""

    def __init__(self) -> None:
        self.found: list[Fault] = []

    @contextmanager
    def at(self, where: str) -> Iterator[None]:
        try:
            yield
        except TastemakerError as error:
            self.found.append(Fault(where, error.message, error.hint))

    def add(self, where: str, what: str, hint: str | None = None) -> None:
        self.found.append(Fault(where, what, hint))
