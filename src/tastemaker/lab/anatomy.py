"""What systems are made of, read from their source: which stages they yield, which feeds they learn from, how long they
are. Nothing is run, so a table of them costs no training.

A stage or a feed counts where the class of a system, or any function or class of the package that it names, makes it.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from tastemaker.contracts import FAMILIES, Alternate, Fit, Precompute, SystemInfo, Train
from tastemaker.feeds import RowFeed, interaction_matrix, rollout

STAGES = (Precompute, Fit, Train, Alternate)
BELOW = ("tastemaker.contracts", "tastemaker.types")  # every system names those; they make neither stages nor feeds


@dataclass(frozen=True)
class Anatomy:
    """The parts of a system, each once, in the order of `STAGES` and of the alphabet.

    others: settings that name another system, which is fitted first
    """

    stages: tuple[str, ...]
    feeds: tuple[str, ...]
    others: tuple[str, ...]
    lines: int


def anatomy(info: SystemInfo) -> Anatomy:
    """What the system is made of."""
    named = list(_reached(info.cls))
    feeds = {_feed(value) for value in named} - {None} | ({"own rows"} if RowFeed in _named(info.cls) else set())
    hints = get_type_hints(info.config)
    others = tuple(sorted(name for name, kind in hints.items() if "SystemRef" in str(kind)))
    source = Path(inspect.getfile(info.cls)).read_text(encoding="utf-8")
    stages = tuple(stage.__name__ for stage in STAGES if stage in named)
    return Anatomy(stages, tuple(sorted(map(str, feeds))), others, source.count("\n"))


def anatomy_table(infos: Sequence[SystemInfo]) -> str:
    """Every system: what it can, what it learns from, in which stages, and how long its file is."""
    lines = ["| system | can | feeds | stages | lines |", "|---|---|---|---|---:|"]
    order = {family: place for place, family in enumerate(FAMILIES)}
    for info in sorted(infos, key=lambda i: (order[i.family], i.name)):
        parts = anatomy(info)
        stages = [*parts.stages, *(f"a system (`{name}`)" for name in parts.others)]
        cells = f"[`{info.name}`](systems/{info.name}.md)", info.capabilities, parts.feeds, stages, str(parts.lines)
        lines.append("| " + " | ".join(c if isinstance(c, str) else ", ".join(c) for c in cells) + " |")
    return "\n".join(lines)


def _feed(value: Any) -> str | None:
    """What a feed is called: the class of its batches, "matrix" or "rollout"; None: this is no feed."""
    if value is interaction_matrix or value is rollout:
        return "matrix" if value is interaction_matrix else "rollout"
    given = str(getattr(value, "__annotations__", {}).get("return", "")) if inspect.isfunction(value) else ""
    return given[len("RowFeed[") : -1] if given.startswith("RowFeed[") else None


def _reached(start: Any) -> Iterator[Any]:
    """The classes and functions of the package that `start` names, and those that these name, each once."""
    left, seen = [start], {id(start)}
    while left:
        yield (value := left.pop())
        if not value.__module__.startswith(BELOW):
            for other in _named(value):
                if id(other) not in seen:
                    seen.add(id(other))
                    left.append(other)


def _named(value: Any) -> Iterator[Any]:
    """Classes and functions of the package whose names stand in the source of a class or function."""
    known, own = vars(inspect.getmodule(value)), value.__module__
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(value)))):
        other = known.get(node.id) if isinstance(node, ast.Name) else None
        if (inspect.isclass(other) or inspect.isfunction(other)) and other.__module__.startswith(("tastemaker.", own)):
            yield other
