"""A split: which events a system may learn from, which choose between systems, which judge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.types.dataset import Dataset
from tastemaker.types.errors import UsageError
from tastemaker.types.jagged import Columns, Jagged
from tastemaker.types.requests import Requests
from tastemaker.types.vocabulary import UNKNOWN

Part = Literal["train", "valid", "test"]
PARTS: Mapping[Part, int] = {"train": 0, "valid": 1, "test": 2}
Shown = Literal["train", "known"]
SHOWN: tuple[Shown, ...] = ("train", "known")
HISTORY_COLUMNS = ("item", "time", "value")

Flags = NDArray[np.bool_]
Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Cases:
    """B held-out questions and their right answers.

    dropped: cases left out, since every item held out for them had been seen before

    Shapes:
        requests: B requests: users (-1: training has no event of the user), history, exclude (items seen before;
            None where items may come again), now where there are times: the time of the first target
        targets: Jagged of B rows of item numbers in the order of time, distinct in a row, none of them excluded
        gains: the worth of each target, sharing the targets' offsets; None: all worth 1
        known: [I] bool, the items of the whole dataset that training has a choice of; None: not stated
    """

    requests: Requests
    targets: Jagged[NDArray[np.int32]]
    gains: Jagged[NDArray[np.float32]] | None = None
    known: Flags | None = None
    dropped: int = 0

    def __post_init__(self) -> None:
        if len(self.targets) != self.requests.n:
            raise UsageError(
                f"{self.requests.n} requests need {self.requests.n} rows of targets, got {len(self.targets)}"
            )
        if self.gains is not None and not np.array_equal(self.gains.offsets, self.targets.offsets):
            raise UsageError("every target has one gain: targets and gains must share their offsets")

    def __len__(self) -> int:
        return self.requests.n

    @property
    def cold_targets(self) -> int:
        """Targets that training has no choice of. They stay targets: whoever cannot find them misses them."""
        return 0 if self.known is None else int(np.count_nonzero(~self.known[self.targets.values]))

    @property
    def strangers(self) -> int:
        """Cases whose user training does not know."""
        return 0 if self.requests.users is None else int(np.count_nonzero(self.requests.users == UNKNOWN))

    def take(self, rows: NDArray[np.integer[Any]] | slice) -> Cases:
        gains = None if self.gains is None else self.gains.take(rows)
        return Cases(self.requests.take(rows), self.targets.take(rows), gains, self.known, self.dropped)


@dataclass(frozen=True, eq=False)
class Split:
    """Parts of one dataset's events.

    name, spec: what was asked for, in short and in full (kind, settings, seed): enough to make the split again
    data: the whole dataset, filters applied
    part: [n_events] int8, one of `PARTS`, or -1 for events that no part holds
    cut: where training ends in time, for splits that cut all users at one time; else None
    history: what a system is shown of a user when it answers test cases: "train" or "known" (train and valid)
    warnings: ways in which the split lets a system see what it could not have known
    repeats: whether an item seen before may be a target, and be recommended, again
    case: [n_events] int64, the case that an event belongs to, all of one user; None: a user is a case
    asked: [n_events] bool, held-out events that are asked for; the others of their case are shown as history.
        None: all of them are asked for
    """

    name: str
    data: Dataset
    part: NDArray[np.int8]
    spec: Mapping[str, Any] = field(default_factory=dict)
    cut: int | None = None
    history: Shown = "train"
    warnings: tuple[str, ...] = ()
    repeats: bool = False
    case: NDArray[np.int64] | None = None
    asked: Flags | None = None

    def __post_init__(self) -> None:
        for name, dtype in (("part", np.int8), ("case", np.int64), ("asked", np.bool_)):
            value = getattr(self, name)
            if value is None and name != "part":
                continue
            column = np.ascontiguousarray(value, dtype=dtype)
            object.__setattr__(self, name, column)
            if column.shape != (n := self.data.n_events,):
                raise UsageError(f"{n:,} events need as many entries of {name!r}, got shape {list(column.shape)}")
        low, high = (self.part.min(), self.part.max()) if self.part.size else (0, 0)
        if low < -1 or high >= len(PARTS):
            raise UsageError(f"part numbers run from -1 to {len(PARTS) - 1}, got {low} to {high}")
        if self.history not in SHOWN:
            raise UsageError(f"what is shown of a user is one of {', '.join(SHOWN)}, got {self.history!r}")

    @property
    def sizes(self) -> dict[Part, int]:
        """How many events each part has."""
        counts = np.bincount(self.part[self.part >= 0], minlength=len(PARTS))
        return {name: int(counts[code]) for name, code in PARTS.items()}

    def events(self, part: Part) -> pl.DataFrame:
        """Events of one part."""
        return self.data.events.filter(pl.Series(self.part == PARTS[part]))

    @cached_property
    def train(self) -> Dataset:
        """All a system may learn from; users and items first seen after `cut` are not in it."""
        train = self.data.with_events(self.events("train"))
        return train if self.cut is None else train.asof(self.cut)

    def cases(self, part: Part = "test") -> Cases:
        """One case a user (or as `case` groups them) with choices in `part`, ordered by user.

        A case shows the user's choices in the parts that `history` names and those of its own that are not asked
        for, oldest first; items seen in any earlier part are excluded and are no targets, unless they may repeat.
        The words and the moment of a case are those of its first choice that is asked for.
        """
        if part == "train":
            raise UsageError("cases come from 'valid' or 'test'")
        from tastemaker.types.unseen import unseen  # compiled code: a second that only those pay who ask for cases

        users, items = _numbers(self.data, "user"), _numbers(self.data, "item")
        chosen = self.data.choices()
        trained = _both(self.part == PARTS["train"], chosen)
        before = trained if part == "valid" else trained | _both(self.part == PARTS["valid"], chosen)
        shown = before if self.history == "known" else trained
        held = _both(self.part == PARTS[part], chosen)
        asked, beside = _cases_of(held, self.asked, users if self.case is None else self.case)
        n_asked = len(asked)

        seen = np.zeros_like(before) if self.repeats else before
        no_rows = Jagged.empty(n_asked, np.int64)
        asked = asked.where(unseen(asked, no_rows if self.repeats else beside, seen, users, items, self.data.n_items))
        left = np.flatnonzero(asked.lengths)
        asked, beside = asked.take(left), beside.take(left)
        first = asked.values[asked.offsets[:-1]]
        asker = users[first]

        history = _past(users, shown, asker, beside)
        exclude = None
        if not self.repeats:
            past = history if shown is before else _past(users, before, asker, beside)
            exclude = Jagged(items[past.values], past.offsets)
        columns = {c: _numbers(self.data, c) for c in HISTORY_COLUMNS if c in self.data.events.columns}
        requests = Requests(
            len(asked),
            users=np.where(_present(users, trained, self.data.n_users)[asker], asker, UNKNOWN).astype(np.int32),
            history=Jagged(Columns({c: v[history.values] for c, v in columns.items()}), history.offsets),
            exclude=exclude,
            text=_queries(self.data, first),
            now=columns["time"][first] if self.data.has_time else None,
        )
        return Cases(
            requests,
            Jagged(items[asked.values], asked.offsets),
            known=_present(items, trained, self.data.n_items),
            dropped=n_asked - len(asked),
        )


def _cases_of(held: Flags, asked: Flags | None, keys: NDArray[Any]) -> tuple[Jagged[Rows], Jagged[Rows]]:
    """Rows of events that are asked for, and of those that stand beside them, a row a case.

    Cases are the keys of events that are asked for, in the order of their first such event.
    """
    rows = np.flatnonzero(held if asked is None else held & asked)
    names = keys[rows]
    new = np.ones(len(rows), dtype=np.bool_)
    np.not_equal(names[1:], names[:-1], out=new[1:])
    # a case may have several runs of rows: where sessions of a user take turns
    known, first, run_case = np.unique(names[new], return_index=True, return_inverse=True)
    place = np.empty(len(known), np.int64)
    place[np.argsort(first)] = np.arange(len(known))
    group = place[run_case][np.cumsum(new) - 1] if len(rows) else rows
    of_case = Jagged.from_rows(group, rows, len(known))
    if asked is None:
        return of_case, Jagged.empty(len(known), np.int64)
    others = np.flatnonzero(held & ~asked)
    at = np.minimum(np.searchsorted(known, keys[others]), max(0, len(known) - 1))
    mine = known[at] == keys[others] if len(known) else np.zeros(len(others), dtype=np.bool_)
    return of_case, Jagged.from_rows(place[at[mine]], others[mine], len(known))


def _past(users: NDArray[Any], shown: Flags, asker: NDArray[Any], beside: Jagged[Rows]) -> Jagged[Rows]:
    """Rows of events shown to each asker [B]: the user's where `shown`, and those beside the case, oldest first."""
    rows = np.flatnonzero(shown)
    counts = np.bincount(users[rows], minlength=int(asker.max(initial=-1)) + 1)
    past: Jagged[Rows] = Jagged(rows, np.concatenate([[0], np.cumsum(counts)])).take(asker)
    if not len(beside.values):
        return past
    case = np.concatenate([past.rows, beside.rows])
    every = np.concatenate([past.values, beside.values])
    order = np.lexsort((every, case))
    return Jagged.from_rows(case[order], every[order], len(asker))


def _present(numbers: NDArray[Any], rows: Flags, n: int) -> Flags:
    """Which of `n` numbers stand in these rows."""
    found = np.zeros(n, dtype=np.bool_)
    found[numbers[rows]] = True
    return found


def _both(rows: Flags, chosen: Flags | None) -> Flags:
    return rows if chosen is None else rows & chosen


def _queries(data: Dataset, rows: Rows) -> NDArray[np.object_] | None:
    """What users asked for in words at these events [B], "" where they did not; None where nobody did."""
    if "query" not in data.events.columns:
        return None
    said = data.events["query"][rows]
    return None if said.null_count() == len(said) else said.fill_null("").to_numpy().astype(np.object_)


def _numbers(data: Dataset, column: str) -> NDArray[Any]:
    values = data.events[column]
    return cast("NDArray[Any]", (values.fill_null(-1) if column == "item" else values).to_numpy())


__all__ = ["HISTORY_COLUMNS", "PARTS", "SHOWN", "Cases", "Part", "Shown", "Split"]
