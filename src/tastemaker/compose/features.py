"""What a trained ranker sees of a candidate, and the ranker as it answers.

Of each retriever: whether it found the item, 1 / rank, log of the rank, the score within the list from 0 to 1, the
score as it is, and the best score of the list, which tells how sure the retriever is of this request. Of the item:
numbers of the catalogue. Of the request: how long its history is. What a retriever did not find stands just below the
end of its list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tastemaker.compose import kernels
from tastemaker.types import BundleError, Requests, State

if TYPE_CHECKING:
    from tastemaker.compose.blend import Pool

Floats = NDArray[np.float32]
A_LIST = ("found", "1/rank", "log rank", "scaled score", "score", "best score")
CLIP = 10.0  # standard deviations beyond which a feature is cut


@dataclass(frozen=True)
class FeatureSchema:
    """Names of the features, in their order: what a ranker was trained on is what it must be given.

    lists: retrievers by key, and how many items each names
    columns: of the catalogue
    """

    lists: tuple[tuple[str, int], ...]
    columns: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        of_lists = [f"{key}: {what}" for key, _ in self.lists for what in A_LIST]
        return [*of_lists, "found by", "log history", *(f"item: {column}" for column in self.columns)]

    @property
    def width(self) -> int:
        return len(self.lists) * len(A_LIST) + 2 + len(self.columns)


@dataclass(frozen=True, eq=False)
class Features:
    """Makes features of candidates.

    Shapes: columns [I, X] float32, a column of the catalogue each, missing values NaN
    """

    schema: FeatureSchema
    columns: Floats

    def of(self, pool: Pool, requests: Requests, rows: NDArray[np.int64], places: NDArray[np.int64]) -> Floats:
        """Features [N, F] of the candidates at these rows and places of the pool; NaN where a value is missing."""
        there = pool.rank > 0
        low = np.where(there, pool.score, np.inf).min(axis=1, initial=np.inf)  # [B, C]
        high = np.where(there, pool.score, -np.inf).max(axis=1, initial=-np.inf)
        low, high = (np.where(np.isfinite(value), value, 0.0) for value in (low, high))
        rank, found = pool.rank[rows, places], there[rows, places]  # [N, C]
        longest = np.array([k for _, k in self.schema.lists])
        score = np.where(found, pool.score[rows, places], low[rows])
        apart = high[rows] - low[rows]
        parts = [
            found,
            np.where(found, 1.0 / np.maximum(rank, 1), 0.0),
            np.log(np.where(found, rank, longest + 1)),
            np.where(apart > 0, (score - low[rows]) / np.where(apart > 0, apart, 1.0), found),
            score,
            high[rows],
        ]
        lists = np.stack(parts, axis=2).reshape(
            len(rows), len(parts) * len(longest)
        )  # a retriever's features beside one another
        lengths = np.zeros(requests.n) if requests.history is None else requests.history.lengths
        more = [found.sum(axis=1), np.log1p(lengths)[rows]]
        whole = [lists, np.stack(more, axis=1), self.columns[pool.items[rows, places]]]
        return np.concatenate(whole, axis=1).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Network:
    """A trained ranker: standardised features through a linear layer, and a hidden one with ReLU beside it.

    Shapes: mean, scale, linear [F]; inner [H, F]; bias, outer [H]
    """

    mean: Floats
    scale: Floats
    linear: Floats
    inner: Floats
    bias: Floats
    outer: Floats

    @classmethod
    def of(cls, state: State, width: int) -> Network:
        """From named arrays, their shapes checked: they may come from a stranger."""
        wanted: dict[str, tuple[int, ...]] = {"mean": (width,), "scale": (width,), "linear": (width,)}
        hidden = len(state["bias"]) if "bias" in state and state["bias"].ndim == 1 else 0
        wanted |= {"inner": (hidden, width), "bias": (hidden,), "outer": (hidden,)}
        if set(state) != set(wanted):
            raise BundleError(f"a ranker keeps {', '.join(sorted(wanted))}, got {', '.join(sorted(state))}")
        for name, shape in wanted.items():
            if state[name].shape != shape or state[name].dtype != np.float32 or not np.isfinite(state[name]).all():
                raise BundleError(f"the ranker's array {name!r} must be {list(shape)}, float32 and finite")
        return cls(**{name: np.ascontiguousarray(state[name]) for name in wanted})

    def state(self) -> State:
        """The arrays, by name."""
        return {name: getattr(self, name) for name in ("mean", "scale", "linear", "inner", "bias", "outer")}

    def scores(self, features: Floats) -> Floats:
        """Scores [N] of candidates with these features [N, F]; a missing value counts as the mean."""
        known = np.where(np.isnan(features), self.mean, features)
        out = np.empty(len(features), dtype=np.float32)
        kernels.rank_by_network(known, self.mean, self.scale, CLIP, *self._layers, out)
        return out

    @property
    def _layers(self) -> tuple[Floats, Floats, Floats, Floats]:
        return self.linear, self.inner, self.bias, self.outer


@dataclass(frozen=True, eq=False)
class Trained:
    """A ranker and what it was trained to see."""

    schema: FeatureSchema
    network: Network
