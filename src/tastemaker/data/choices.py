"""The log of choices a split deals out, and what a split lets a system see that came later."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tastemaker.data.dealing import follow, shown_later, shuffle_keys
from tastemaker.types import AVAILABLE, PARTS, DataError, Dataset, Split

TRAIN, VALID, TEST = PARTS["train"], PARTS["valid"], PARTS["test"]


@dataclass(frozen=True, eq=False)
class Log:
    """The choices among a dataset's events, user by user, oldest first.

    Shapes: rows [n] which events they are, None: all; users, items [n] int32; times [n] int64, empty: there are none
    """

    data: Dataset
    rows: NDArray[np.int64] | None
    users: NDArray[np.int32]
    items: NDArray[np.int32]
    times: NDArray[np.int64]

    @classmethod
    def of(cls, data: Dataset) -> Log:
        chosen = data.choices()
        columns = [data.events[c].to_numpy() for c in ("user", "time") if c in data.events.columns]
        columns.append((data.events["item"] if chosen is None else data.events["item"].fill_null(-1)).to_numpy())
        rows = None if chosen is None else np.flatnonzero(chosen)
        if not data.n_events or (rows is not None and not len(rows)):
            raise DataError(f"no event of {data.name} is a choice of a user for an item, so there is nothing to split")
        users, *times, items = columns if rows is None else [column[rows] for column in columns]
        return cls(data, rows, users, items, times[0] if times else np.empty(0, np.int64))

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """Choices of each user [U]."""
        return np.bincount(self.users, minlength=self.data.n_users)

    def keys(self, rng: np.random.Generator) -> NDArray[np.uint64]:
        return shuffle_keys(self.users, self.items, self.times, rng)

    def at(self, which: Any) -> Any:
        """Where these choices stand among the events."""
        return which if self.rows is None else self.rows[which]

    def spread(self, part: NDArray[np.int8]) -> NDArray[np.int8]:
        """Parts of choices as parts of all events [n_events]."""
        if self.rows is None:
            return part
        spread, chosen = np.zeros(self.data.n_events, np.int8), np.zeros(self.data.n_events, np.bool_)
        spread[self.rows], chosen[self.rows] = part, True
        follow(spread, chosen, self.data.events["user"].to_numpy())
        return spread


def foresight(made: Split, log: Log) -> list[str]:
    """A sentence for each way in which training, or what is shown of a user, lies after what is asked for."""
    part = made.part[log.at(slice(None))]
    judged = TEST if (part == TEST).any() else VALID
    asked = part == judged
    if made.asked is not None:
        asked &= made.asked[log.at(slice(None))]
    word = "test" if judged == TEST else "valid"
    if not made.data.has_time:
        return [f"events have no times, so nothing tells whether training lies after the {word} events"]
    said = []
    n = int(np.count_nonzero(asked))
    latest = log.times[part == TRAIN].max()
    if later := int(np.count_nonzero(log.times[asked] < latest)):
        said.append(
            f"training sees the future: {later / n:.1%} of the {word} events are older than the last "
            "training event; one cut in time for everybody, as time:0.8, avoids this"
        )
    shown = (TRAIN, VALID) if made.history == "known" and judged == TEST else (TRAIN,)
    if own := own_later(log, part, made, shown):
        said.append(
            f"{own / n:.1%} of the {word} events are older than an event of the same user that a system "
            "is shown when it is asked for them"
        )
    if made.cut is not None and AVAILABLE not in made.data.items.columns:
        late = made.data.n_items - len(np.unique(log.items[log.times < made.cut]))
        if late:
            said.append(
                f"items have no column {AVAILABLE!r}, so training knows {late:,} items that were first "
                "chosen after the cut"
            )
    return said


def own_later(log: Log, part: NDArray[np.int8], made: Split | None, shown: tuple[int, ...]) -> int:
    """How many test (else valid) choices that are asked for are older than a choice of their user that is shown."""
    judged = part == (TEST if (part == TEST).any() else VALID)
    lies_open = part == shown[0]
    for code in shown[1:]:
        lies_open |= part == code
    if made is not None and made.asked is not None:
        asked = made.asked[log.at(slice(None))]
        if made.case is None:  # a session's own beginning never lies after its end
            lies_open |= judged & ~asked
        judged &= asked
    return shown_later(log.counts, log.times, lies_open, judged)
