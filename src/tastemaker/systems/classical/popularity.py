"""Popularity: every request is answered with what most users chose, recent choices counting for more if wanted.

A choice that lies `half_life` behind the end of the training data counts half. Exponential decay keeps the
ratio of any two items' counts however much later the request comes, so the ranking needs no present time.
Items that nobody chose score 0.

Ref: the baseline of Ji et al., "A re-visit of the popularity baseline in recommender systems", SIGIR 2020
(arXiv:2005.13829), whose DecayPop is `half_life`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tastemaker.contracts import Fit, Program, system
from tastemaker.types import (
    Array,
    BundleError,
    DataError,
    Dataset,
    Requests,
    Schema,
    State,
    setting,
    to_numpy,
)

DAY = 86_400_000_000  # microseconds


@system("popularity", family="classical", title="Most popular", paper="arXiv:2005.13829")
class Popularity:
    """Scores an item by how often it was chosen; the same for everybody."""

    @dataclass(frozen=True)
    class Config:
        by: Literal["users", "events"] = setting(
            "users", "Count the users who chose an item, or every time it was chosen.", choices=("users", "events")
        )
        half_life: float | None = setting(
            None,
            "Days (steps, where time is an order without a clock) after which a choice counts half; none: no decay.",
            low=1e-6,
            log=True,
            search=(1.0, 365.0),
        )

    def __init__(self, config: Config, schema: Schema) -> None:
        self.config, self.schema = config, schema
        self.counts: NDArray[np.float32] = np.zeros(schema.n_items, dtype=np.float32)

    def program(self, data: Dataset) -> Program:
        self.counts = yield Fit(popularity, data, self.config.by, self.config.half_life)

    def score(self, requests: Requests, items: Array | None = None) -> NDArray[np.float32]:
        if items is None:
            return np.tile(self.counts, (requests.n, 1))
        return np.asarray(self.counts[to_numpy(items)])

    def export(self) -> State:
        return {"counts": self.counts}

    def restore(self, state: State) -> None:
        counts = state.get("counts")
        if counts is None or counts.shape != (self.schema.n_items,) or not np.isfinite(counts).all():
            raise BundleError(f"popularity keeps one finite count for each of {self.schema.n_items:,} items")
        self.counts = counts.astype(np.float32, copy=False)


def popularity(
    data: Dataset, by: Literal["users", "events"] = "users", half_life: float | None = None
) -> NDArray[np.float32]:
    """How often each item was chosen, decayed as of the last event of `data`: [I].

    With `by="users"` a user's latest choice of an item is the one that counts.
    """
    chosen = data.interactions()
    if by == "users":
        chosen = chosen.unique(["user", "item"], keep="last", maintain_order=True)
    items = chosen["item"].to_numpy()
    if half_life is None:
        return np.bincount(items, minlength=data.n_items).astype(np.float32)
    if not data.has_time:
        raise DataError(f"{data.name} has no times, so its choices have no age", hint="leave half_life out")
    times = chosen["time"].to_numpy()
    age = (times.max(initial=0) - times) / (DAY if data.time_unit == "us" else 1)
    return np.bincount(items, np.exp2(-age / half_life), minlength=data.n_items).astype(np.float32)
