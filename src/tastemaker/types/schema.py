"""What a system may know of a dataset before it sees a row: sizes and the kinds of its columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from tastemaker.types.errors import NotFound, UsageError, nearest

Kind = Literal["number", "category", "categories", "text", "image", "vector", "flag"]
KINDS: tuple[Kind, ...] = ("number", "category", "categories", "text", "image", "vector", "flag")
TimeUnit = Literal["us", "step"]


@dataclass(frozen=True)
class Column:
    """A column's kind; `width` is the length of a vector; `size` counts the values of a category."""

    kind: Kind
    width: int = 1
    size: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"a column is one of {', '.join(KINDS)}, got {self.kind!r}")
        if self.width < 1:
            raise UsageError(f"a column's width is at least 1, got {self.width}")


@dataclass(frozen=True)
class Schema:
    """Sizes and columns of a dataset; it travels in the bundle and builds the system anew."""

    n_users: int
    n_items: int
    users: Mapping[str, Column] = field(default_factory=dict)
    items: Mapping[str, Column] = field(default_factory=dict)
    events: Mapping[str, Column] = field(default_factory=dict)
    time_unit: TimeUnit | None = None

    def __post_init__(self) -> None:
        if self.n_users < 0 or self.n_items < 0:
            raise UsageError(f"sizes are never negative, got {self.n_users} users and {self.n_items} items")

    def column(self, table: Literal["users", "items", "events"], name: str) -> Column:
        columns: Mapping[str, Column] = getattr(self, table)
        if name not in columns:
            raise NotFound(f"the table {table!r} has no column {name!r}", hint=nearest(name, columns))
        return columns[name]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Schema:
        tables = {t: {n: Column(**c) for n, c in stored.get(t, {}).items()} for t in ("users", "items", "events")}
        return cls(stored["n_users"], stored["n_items"], **tables, time_unit=stored.get("time_unit"))
