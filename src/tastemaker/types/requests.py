"""B questions to a recommender, columnar. All fields are optional and the list of fields is closed."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tastemaker.types.errors import UsageError
from tastemaker.types.jagged import Columns, Jagged

REQUEST_FIELDS = ("users", "history", "context", "text", "dialogue", "candidates", "exclude", "filter", "now", "seeds")


@dataclass(frozen=True, eq=False)
class ItemFilter:
    """A predicate over item columns, already resolved: which items each request may be answered with.

    Shapes:
        allowed: [F, I] bool, one row a distinct predicate
        which: [B] int32, the row of `allowed` that holds for a request, -1 for no restriction
    """

    allowed: NDArray[np.bool_]
    which: NDArray[np.int32]

    def __post_init__(self) -> None:
        object.__setattr__(self, "allowed", np.atleast_2d(np.asarray(self.allowed, dtype=np.bool_)))
        object.__setattr__(self, "which", np.asarray(self.which, dtype=np.int32))
        if len(self.which) and not -1 <= self.which.min() <= self.which.max() < len(self.allowed):
            raise UsageError(f"a filter's rows run from -1 to {len(self.allowed) - 1}, got {self.which}")

    def __len__(self) -> int:
        return len(self.which)

    def take(self, rows: NDArray[np.integer[Any]] | slice) -> ItemFilter:
        return ItemFilter(self.allowed, self.which[rows])


@dataclass(frozen=True, eq=False)
class Requests:
    """B questions.

    Shapes:
        n: B
        users: [B] int32, -1 for a user the system has never seen
        history: Jagged of B rows of event Columns ("item", and "time", "value", ... as declared), oldest first;
            item -1: an event without an item, as a search
        context: Columns of B rows
        text: [B] strings
        dialogue: Jagged of B rows of Columns ("speaker", "text")
        candidates, exclude: Jagged of B rows of item numbers
        filter: ItemFilter of B rows
        now: [B] int64, in the dataset's time unit
        seeds: [B] uint64, one random stream a request
    """

    n: int
    users: NDArray[np.int32] | None = None
    history: Jagged[Columns] | None = None
    context: Columns | None = None
    text: NDArray[np.object_] | None = None
    dialogue: Jagged[Columns] | None = None
    candidates: Jagged[NDArray[np.int32]] | None = None
    exclude: Jagged[NDArray[np.int32]] | None = None
    filter: ItemFilter | None = None
    now: NDArray[np.int64] | None = None
    seeds: NDArray[np.uint64] | None = None

    def __post_init__(self) -> None:
        for name, dtype in (("users", np.int32), ("now", np.int64), ("seeds", np.uint64), ("text", np.object_)):
            value = getattr(self, name)
            if value is not None:
                array = np.asarray(value, dtype=dtype)
                if array.ndim != 1:
                    raise UsageError(f"{name} must have one dimension [B], got shape {list(array.shape)}")
                object.__setattr__(self, name, array)
        for name in REQUEST_FIELDS:
            value = getattr(self, name)
            rows = value.n_rows if isinstance(value, Columns) else None if value is None else len(value)
            if rows is not None and rows != self.n:
                raise UsageError(f"{self.n} requests need {self.n} rows of {name}, got {rows}")
        if self.history is not None and "item" not in _columns(self.history):
            raise UsageError("a history needs the column 'item'", hint="Requests.of_items(...) makes one from lists")

    @classmethod
    def of_users(cls, users: Any, **more: Any) -> Requests:
        users = np.atleast_1d(np.asarray(users, dtype=np.int32))
        return cls(len(users), users=users, **more)

    @classmethod
    def of_items(cls, histories: Any, **more: Any) -> Requests:
        """Requests whose histories are lists of item numbers, oldest first."""
        rows = histories if isinstance(histories, Jagged) else Jagged.from_lists(histories, dtype=np.int32)
        return cls(len(rows), history=Jagged(Columns(item=rows.values), rows.offsets), **more)

    def __len__(self) -> int:
        return self.n

    def given(self) -> frozenset[str]:
        """Names of the fields that are present."""
        return frozenset(name for name in REQUEST_FIELDS if getattr(self, name) is not None)

    def items(self) -> Jagged[NDArray[np.int32]]:
        """Item numbers of the histories, events without an item left out."""
        if self.history is None:
            raise UsageError("these requests carry no history")
        rows: Jagged[NDArray[np.int32]] = self.history.column("item")
        return rows.where(rows.values >= 0) if len(rows.values) and rows.values.min() < 0 else rows

    def take(self, rows: NDArray[np.integer[Any]] | slice) -> Requests:
        """The named requests, in the named order."""
        picked: dict[str, Any] = {}
        for name in REQUEST_FIELDS:
            value = getattr(self, name)
            if value is not None:
                picked[name] = value[rows] if isinstance(value, np.ndarray) else value.take(rows)
        return Requests(len(np.arange(self.n)[rows]), **picked)

    def with_(self, **changes: Any) -> Requests:
        return replace(self, **changes)


def _columns(history: Jagged[Any]) -> tuple[str, ...]:
    return tuple(history.values) if isinstance(history.values, Columns) else ()


assert {f.name for f in fields(Requests)} == {"n", *REQUEST_FIELDS}
