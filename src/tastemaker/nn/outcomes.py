"""Feedback as trials: of which item, for which request, with what reward."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import reduce
from typing import Any, Literal, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.types import IMPRESSION, PASSIVE_KINDS, Columns, Dataset, Feedback, Jagged, Requests

NO_REWARD = PASSIVE_KINDS | {"skip", "hide", "dislike", "not_interested"}
"""Kinds of event that say the item was seen, and not liked."""

TAKES_BACK = ("undo", "unlike")
BLOCK = 1 << 16  # events of a dataset that are looked at at once

Counted = Literal["events", "impressions"]
"""What a trial is: every event with an item, those of `NO_REWARD` having reward 0; or impressions alone, to which other
events bring the reward (where a page reports what was seen, and what was chosen later)."""


@dataclass(frozen=True, eq=False)
class Trials:
    """What came back, an entry an event with an item.

    Shapes: rows [N] the request of each; items [N]; rewards [N]; counts [N] 1 where it is a trial, else 0
    """

    rows: NDArray[np.int64]
    items: NDArray[np.int32]
    rewards: NDArray[np.float64]
    counts: NDArray[np.float64]


def trials(feedback: Feedback, n_items: int, *, whole: float = 1.0, counted: Counted = "events") -> Trials:
    """Trials of feedback; items that are not known are left out, and so are kinds of `TAKES_BACK`.

    Counts and rewards add up: it does not matter in which order, or in how many pieces, feedback comes.
    whole: value of an event that is a whole reward; a reward is at most 1 and at least -1
    """
    events: Jagged[Columns] = (
        feedback.events
        if feedback.events is not None
        else Jagged(Columns(item=np.empty(0, dtype=np.int32)), np.zeros(len(feedback) + 1, dtype=np.int64))
    )
    columns: Any = events.values
    items = np.asarray(columns["item"], dtype=np.int32)
    values = np.asarray(columns["value"], dtype=np.float64) if "value" in columns else np.ones(len(items))
    rewards = np.clip(np.where(np.isnan(values), 1.0, values) / whole, -1.0, 1.0)
    counts, known = np.ones(len(items)), (items >= 0) & (items < n_items)
    if "kind" in columns:
        kinds = np.asarray(columns["kind"], dtype=object)
        rewards[np.isin(kinds, list(NO_REWARD))] = 0.0
        if counted == "impressions":
            counts = (kinds == IMPRESSION).astype(np.float64)
        known &= ~np.isin(kinds, TAKES_BACK)
    return Trials(events.rows[known], items[known], rewards[known], counts[known])


def as_served(feedback: Feedback, *names: str) -> list[NDArray[Any]] | None:
    """Columns of the trace of the lists that are answered, a row a request; None where one is missing."""
    trace = None if feedback.slates is None else feedback.slates.trace
    return None if trace is None or not set(names) <= set(trace) else [trace[name] for name in names]


def past(data: Dataset, columns: Sequence[str] = ()) -> Iterator[Feedback]:
    """The events of a dataset as feedback, a request an event, with the named columns as its context."""
    kept = [name for name in ("item", "kind", "value", "position", "time") if name in data.events.columns]
    whole = data.events.filter(pl.col("item").is_not_null())
    for start in range(0, max(whole.height, 1), BLOCK):
        events = whole.slice(start, BLOCK)
        context = {name: np.array(events[name].to_list(), dtype=np.float64) for name in columns}
        requests = Requests(
            events.height, users=events["user"].to_numpy(), context=Columns(context) if context else None
        )
        values = Columns({name: events[name].to_numpy() for name in kept})
        yield Feedback(requests, events=Jagged(values, np.arange(events.height + 1)))


class Sums(Protocol):
    """Makes of feedback what adds up."""

    def update(self, feedback: Feedback) -> Any: ...

    def merge(self, left: Any, right: Any) -> Any: ...


def summed(of: Sums, data: Dataset, columns: Sequence[str] = ()) -> tuple[NDArray[Any], ...]:
    """What all events of a dataset add: the fields of the delta."""
    total: Any = reduce(of.merge, map(of.update, past(data, columns)))
    return tuple(getattr(total, field.name) for field in fields(total))
