"""Labels of rows: what is to be predicted of a user and an item, read from the events of a log.

A task is named by what it asks of an event:

    "choice"      1 where the user chose the item, 0 where it was shown, or drawn, and not chosen
    "kind=buy"    1 where an event of this kind happened, else 0
    "value>=4"    1 where the event's value reaches 4, else 0; no label where there is no value
    "value"       the value itself, a number
    "clicked"     any other column: of flags (0 or 1), or of numbers

A row is an item as it met a user: the events of one shown list with one item are one row (shown, then chosen), any
other event is a row of its own. What was never seen has no value: a label that is not there is NaN and takes no part.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.types import DataError, Dataset, Schema, UsageError, nearest

Ints: TypeAlias = NDArray[np.int64]
CHOICE = "choice"
_FORM = re.compile(r"(?P<column>\w+)(?:(?P<test>>=|=)(?P<against>.+))?")


@dataclass(frozen=True)
class Task:
    """One thing to predict.

    binary: whether labels are 0 or 1, else numbers
    unseen: whether an item that was not chosen counts as 0; else it has no label
    """

    name: str
    column: str
    test: str
    against: str
    binary: bool
    unseen: bool

    @classmethod
    def of(cls, name: str, schema: Schema) -> Task:
        """The task of this name, for data of this schema.

        Raises:
            UsageError: the name says nothing, or the column is not there or cannot be a label.
        """
        found = _FORM.fullmatch(name.strip())
        if found is None:
            raise UsageError(f"a task is 'choice', 'kind=...', 'value>=...' or a column of events, got {name!r}")
        column, test, against = found["column"], found["test"] or "", (found["against"] or "").strip()
        if column == CHOICE and not test:
            return cls(name, "", "", "", binary=True, unseen=True)
        if column not in schema.events:
            raise UsageError(f"events have no column for the task {name!r}", hint=nearest(column, schema.events))
        kind = schema.events[column].kind
        if kind not in ("number", "flag", "category") or (kind == "category" and test != "="):
            raise UsageError(f"the task {name!r} reads a column of kind {kind!r}", hint="as in 'kind=purchase'")
        if test == ">=" and not _is_number(against):
            raise UsageError(f"the task {name!r} holds a value against {against!r}, which is no number")
        return cls(name, column, test, against, binary=bool(test) or kind == "flag", unseen=column == "kind")

    @property
    def threshold(self) -> float | None:
        """From which value on an event counts, for a task of values."""
        return float(self.against) if self.column == "value" and self.test == ">=" else None

    def labels(self, events: pl.DataFrame, chosen: NDArray[np.bool_] | None) -> pl.Series:
        """The label of each event [N], missing where it has none."""
        if self.column == "":
            return pl.Series(np.ones(events.height, bool) if chosen is None else chosen).cast(pl.Float32)
        values = events[self.column]
        if self.test == ">=":
            return (values.cast(pl.Float64) >= float(self.against)).cast(pl.Float32)
        if self.test == "=":
            equal = (values.cast(pl.String) == self.against).cast(pl.Float32)
            return equal.fill_null(0.0) if self.unseen else equal
        return values.cast(pl.Float32).fill_nan(None)


def tasks_of(names: Sequence[str], schema: Schema) -> tuple[Task, ...]:
    """Tasks by name, at least one, none twice."""
    if not names or len(set(names)) < len(names):
        raise UsageError(f"there is at least one task, and none twice, got {list(names)}")
    return tuple(Task.of(name, schema) for name in names)


@dataclass(frozen=True, eq=False)
class Labelled:
    """E rows with labels, in the order of the events.

    Shapes:
        events: [E] int64, the first event of each row: when it was, in which context
        users, items: [E] int64
        labels: [E, T] float32, NaN: none
        open: [E] bool, rows of a choice that was made outside a shown list: nothing says what else was at hand
    """

    events: Ints
    users: Ints
    items: Ints
    labels: NDArray[np.float32]
    open: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.events)

    @classmethod
    def of(cls, data: Dataset, tasks: Sequence[Task], within: NDArray[np.bool_] | None = None) -> Labelled:
        """The rows of a log that have a label.

        Args:
            within: [n_events], rows whose events all lie there; None: all rows.

        Raises:
            DataError: there is none.
        """
        chosen = data.choices()
        events = data.events
        none = pl.repeat(None, events.height, dtype=pl.Int64, eager=True)
        slate = events["slate"] if "slate" in events.columns else none
        frame = pl.DataFrame(
            {
                "row": np.arange(events.height),
                "user": events["user"],
                "item": events["item"],
                "slate": slate,
                "alone": pl.Series(np.arange(events.height)).set(slate.is_not_null(), None),
                "chosen": np.ones(events.height, bool) if chosen is None else chosen,
                "within": np.ones(events.height, bool) if within is None else within,
                **{f"label {n}": task.labels(events, chosen) for n, task in enumerate(tasks)},
            }
        ).filter(pl.col("item").is_not_null())
        labels = [f"label {n}" for n in range(len(tasks))]
        rows = frame.group_by("user", "item", "slate", "alone", maintain_order=True).agg(
            pl.col("row").first(), pl.col("chosen").any(), pl.col("within").all(), *(pl.col(c).max() for c in labels)
        )
        rows = rows.filter(pl.col("within") & pl.any_horizontal(pl.col(c).is_not_null() for c in labels))
        if not rows.height:
            raise DataError(
                f"no event of {data.name} has a label for {', '.join(task.name for task in tasks)}",
                hint="name other tasks",
            )
        table = rows.select(pl.col(c).fill_null(np.nan) for c in labels).to_numpy()
        return cls(
            rows["row"].to_numpy().astype(np.int64),
            rows["user"].to_numpy().astype(np.int64),
            rows["item"].to_numpy().astype(np.int64),
            np.ascontiguousarray(table, dtype=np.float32),
            (rows["chosen"] & rows["slate"].is_null()).to_numpy(),
        )

    def take(self, rows: Any) -> Labelled:
        return Labelled(self.events[rows], self.users[rows], self.items[rows], self.labels[rows], self.open[rows])


def drawn_labels(tasks: Sequence[Task]) -> NDArray[np.float32]:
    """The labels [T] of an item that was drawn, and not chosen."""
    return np.array([0.0 if task.unseen else np.nan for task in tasks], dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Pasts:
    """What users chose before an event: places in a log of choices.

    Shapes:
        rows: [N] int64, the events of choices by user, oldest first
        items: [N] int64, values: [N] float32 (NaN: none), of these
        starts, stops: [n_events] int64, the past of an event is the choices from start to stop
    """

    rows: Ints
    items: Ints
    values: NDArray[np.float32]
    starts: Ints
    stops: Ints

    @classmethod
    def of(cls, data: Dataset, shown: NDArray[np.bool_] | None = None) -> Pasts:
        """Choices at an earlier time; without times, all of the user's.

        Args:
            shown: [n_events], which of the choices may be seen; None: all.
        """
        events, n = data.events, data.n_events
        chosen = data.choices()
        seen = np.ones(n, dtype=np.bool_) if chosen is None else chosen
        seen = seen if shown is None else seen & shown
        users = events["user"].to_numpy()
        count = np.concatenate([[0], np.cumsum(seen)])
        places = np.arange(n)
        first = np.maximum.accumulate(np.where(np.diff(users, prepend=-1) != 0, places, 0)) if n else places
        if data.has_time:
            times = events["time"].to_numpy()
            new = (np.diff(users, prepend=-1) != 0) | (np.diff(times, prepend=times[:1]) != 0)
            stops = count[np.maximum.accumulate(np.where(new, places, 0))] if n else places
        else:
            ends = np.searchsorted(users, users, side="right") if n else places
            stops = count[ends]
        picked = events.filter(pl.Series(seen))
        values = picked["value"].fill_null(np.nan) if "value" in picked.columns else None
        return cls(
            np.flatnonzero(seen),
            picked["item"].to_numpy().astype(np.int64),
            np.full(picked.height, np.nan, np.float32) if values is None else values.to_numpy().astype(np.float32),
            count[first],
            stops,
        )

    def of_events(self, events: Ints, max_len: int) -> tuple[Ints, Ints]:
        """The latest choices before each event [B]: places in `items` end to end [N], and offsets [B + 1]."""
        stops = self.stops[events]
        lengths = np.minimum(stops - self.starts[events], max_len)
        offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        return np.arange(offsets[-1]) + np.repeat(stops - lengths - offsets[:-1], lengths), offsets


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False
