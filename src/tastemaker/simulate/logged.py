"""Logged trials: what was shown to whom, how likely it was to be shown, and what came of it.

What a replay plays again and what off-policy estimates are made of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.types import EVENT_COLUMNS, PASSIVE_KINDS, Columns, DataError, Dataset, Requests, UsageError

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Logged:
    """N trials of K slots.

    Shapes:
        requests: the N requests that were answered
        items: [N, K] what was shown; a trial of one item may come as [N]
        rewards: [N, K] what each slot brought
        propensities: [N, K] probability with which each slot was given its item, after the slots before it
        n_items: how many items could have been shown
    """

    requests: Requests
    items: NDArray[np.int32]
    rewards: Floats
    propensities: Floats
    n_items: int

    def __post_init__(self) -> None:
        for name, dtype in (("items", np.int32), ("rewards", np.float64), ("propensities", np.float64)):
            array = np.asarray(getattr(self, name), dtype=dtype)
            object.__setattr__(self, name, array[:, None] if array.ndim == 1 else array)
        shapes = {self.items.shape, self.rewards.shape, self.propensities.shape}
        if len(shapes) > 1 or self.items.ndim != 2 or len(self.items) != self.requests.n:
            raise UsageError(f"{self.requests.n} trials need items, rewards and propensities [N, K], got {shapes}")
        if self.items.size and not 0 <= self.items.min() <= self.items.max() < self.n_items:
            raise UsageError(f"items shown run from 0 to {self.n_items - 1}, got others")
        if not ((self.propensities > 0) & (self.propensities <= 1)).all():
            raise UsageError(
                "what was shown had a probability above 0 and of at most 1; some propensities say otherwise"
            )
        if not np.isfinite(self.rewards).all():
            raise UsageError("rewards are finite numbers")

    def __len__(self) -> int:
        return len(self.items)

    @property
    def k(self) -> int:
        return int(self.items.shape[1])

    def take(self, rows: NDArray[np.integer[Any]] | slice) -> Logged:
        """The named trials."""
        return Logged(
            self.requests.take(rows), self.items[rows], self.rewards[rows], self.propensities[rows], self.n_items
        )

    @classmethod
    def of(cls, data: Dataset) -> Logged:
        """The trials among a dataset's events, one item each: those with a propensity.

        Where impressions carry propensities they are the trials, and the reward of one is the sum of the values of the
        user's other events with the item in the same slate. Without impressions every event with a propensity is a
        trial, and its value the reward. An event without a value is worth 1.

        Raises:
            DataError: no event has an item and a propensity.
        """
        events = data.events.with_row_index("row")
        if "propensity" not in events.columns:
            raise DataError(f"the events of {data.name} have no propensity, so nothing can be replayed or reweighed")
        worth = pl.col("value").fill_null(1.0).cast(pl.Float64) if "value" in events.columns else pl.lit(1.0)
        passive = (
            pl.col("kind").is_in(list(PASSIVE_KINDS)).fill_null(False) if "kind" in events.columns else pl.lit(False)
        )
        events = events.with_columns(worth=worth, passive=passive).filter(pl.col("item").is_not_null())
        trials = events.filter(pl.col("propensity").is_not_null())
        if trials["passive"].any():
            keys = [name for name in ("user", "item", "slate") if name in events.columns]
            outcomes = events.filter(~pl.col("passive")).group_by(keys).agg(reward=pl.col("worth").sum())
            trials = trials.filter(pl.col("passive")).join(outcomes, on=keys, how="left", nulls_equal=True)
            trials = trials.sort("row").with_columns(pl.col("reward").fill_null(0.0))
        else:
            trials = trials.with_columns(reward=pl.col("worth"))
        if not trials.height:
            raise DataError(f"no event of {data.name} has both an item and a propensity")
        known = {*EVENT_COLUMNS, "row", "user", "item", "worth", "passive", "reward"}
        context = {name: _array(trials[name]) for name in trials.columns if name not in known}
        requests = Requests(
            trials.height,
            users=trials["user"].to_numpy(),
            context=Columns(context) if context else None,
            now=trials["time"].to_numpy() if data.has_time else None,
        )
        rewards, chances = trials["reward"].to_numpy(), trials["propensity"].to_numpy()
        return cls(requests, trials["item"].to_numpy(), rewards, chances, data.n_items)


def _array(values: pl.Series) -> NDArray[Any]:
    """A context column; one of vectors becomes [N, D]."""
    if isinstance(values.dtype, pl.List):
        width = values.list.len()
        if width.n_unique() == 1 and not values.null_count():
            return values.explode().to_numpy().reshape(len(values), -1)
    return values.to_numpy()
