"""A split: which events a system may learn from, which choose between systems, which judge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.types.dataset import Dataset
from tastemaker.types.errors import UsageError
from tastemaker.types.jagged import Jagged
from tastemaker.types.requests import Requests

Part = Literal["train", "valid", "test"]
PARTS: Mapping[Part, int] = {"train": 0, "valid": 1, "test": 2}


@dataclass(frozen=True, eq=False)
class Cases:
    """B held-out questions and their right answers.

    Shapes:
        requests: B requests: users, history, exclude (items seen before), now where there are times
        targets: Jagged of B rows of item numbers, distinct in a row, none of them excluded
        gains: the worth of each target, sharing the targets' offsets; None: all worth 1
    """

    requests: Requests
    targets: Jagged[NDArray[np.int32]]
    gains: Jagged[NDArray[np.float32]] | None = None

    def __post_init__(self) -> None:
        if len(self.targets) != self.requests.n:
            raise UsageError(
                f"{self.requests.n} requests need {self.requests.n} rows of targets, got {len(self.targets)}"
            )
        if self.gains is not None and not np.array_equal(self.gains.offsets, self.targets.offsets):
            raise UsageError("every target has one gain: targets and gains must share their offsets")

    def __len__(self) -> int:
        return self.requests.n

    def take(self, rows: NDArray[np.integer[Any]] | slice) -> Cases:
        gains = None if self.gains is None else self.gains.take(rows)
        return Cases(self.requests.take(rows), self.targets.take(rows), gains)


@dataclass(frozen=True, eq=False)
class Split:
    """Parts of one dataset's events.

    name, spec: what was asked for (kind, settings, seed), enough to make the split again
    data: the whole dataset, filters applied
    part: [n_events] int8, one of `PARTS`, or -1 for events that no part holds
    cut: where training ends in time, for splits that cut all users at one time; else None
    history: what a system is shown of a user when it answers test cases: "train" or "known" (train and valid)
    warnings: ways in which the split lets a system see what it could not have known
    """

    name: str
    data: Dataset
    part: NDArray[np.int8]
    spec: Mapping[str, Any] = field(default_factory=dict)
    cut: int | None = None
    history: Literal["train", "known"] = "train"
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        part = np.ascontiguousarray(self.part, dtype=np.int8)
        object.__setattr__(self, "part", part)
        if part.shape != (self.data.n_events,):
            raise UsageError(f"{self.data.n_events:,} events need as many part numbers, got shape {list(part.shape)}")

    def events(self, part: Part) -> pl.DataFrame:
        """Events of one part."""
        return self.data.events.filter(pl.Series(self.part == PARTS[part]))

    @cached_property
    def train(self) -> Dataset:
        """All a system may learn from; users and items first seen after `cut` are not in it."""
        known = self.data if self.cut is None else self.data.asof(self.cut)
        return known.with_events(self.events("train"))

    def cases(self, part: Part = "test") -> Cases:
        """One case a user with events in `part`: the user's history, what was seen, and the targets."""
        if part == "train":
            raise UsageError("cases come from 'valid' or 'test'")
        shown: tuple[Part, ...] = ("train", "valid") if part == "test" and self.history == "known" else ("train",)
        seen: tuple[Part, ...] = ("train", "valid") if part == "test" else ("train",)
        held = self.data.with_events(self.events(part)).interactions()
        users = held["user"].unique().sort().to_numpy()
        columns = ("item", *(("time",) if self.data.has_time else ()))
        history = self._parts(shown).histories(columns).take(users)
        before = self._parts(seen).histories().take(users).column("item")
        row = np.searchsorted(users, held["user"].to_numpy())
        items = held["item"].to_numpy()
        key = row * np.int64(self.data.n_items) + items
        past = before.rows * np.int64(self.data.n_items) + before.values
        first = np.unique(key, return_index=True)[1]
        first = np.sort(first[~np.isin(key[first], past)])
        targets = Jagged.from_rows(row[first], items[first], len(users))
        keep = np.flatnonzero(targets.lengths)
        now = None
        if self.data.has_time:
            times = held["time"].to_numpy()
            now = np.full(len(users), np.iinfo(np.int64).max)
            np.minimum.at(now, row, times)
        requests = Requests(len(users), users=users.astype(np.int32), history=history, exclude=before, now=now)
        return Cases(requests.take(keep), targets.take(keep))

    def _parts(self, parts: tuple[Part, ...]) -> Dataset:
        wanted = np.isin(self.part, [PARTS[p] for p in parts])
        return self.data.with_events(self.data.events.filter(pl.Series(wanted)))


__all__ = ["PARTS", "Cases", "Part", "Split"]
