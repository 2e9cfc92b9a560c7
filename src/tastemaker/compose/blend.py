"""Lists of several retrievers become one.

The lists are laid side by side first, an item a row with its place and score in each of them; then one score an item is
made of those, and the best are taken as everywhere in this project: higher first, ties by a fixed hash of the item.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tastemaker.compose import kernels
from tastemaker.compose.features import Features, Network
from tastemaker.compose.spec import RRF, Interleave, Learned, ScaledScores
from tastemaker.index.select import row_slices
from tastemaker.index.threads import share
from tastemaker.types import Requests, UsageError

Items = NDArray[np.int32]
Scores = NDArray[np.float32]
Floats = NDArray[np.float64]
HOW = {"rrf": 0, "rank": 1, "z": 2, "minmax": 3}


@dataclass(frozen=True, eq=False)
class Pool:
    """What C retrievers found for B requests, S places being the most they can name together.

    Shapes:
        items: [B, S] int32, distinct in a row, -1 after the last
        rank: [B, S, C] int32, place of the item in each list, from 1; 0: not in it
        score: [B, S, C] float32, its score there
    """

    items: Items
    rank: NDArray[np.int32]
    score: Scores

    @classmethod
    def of(cls, lists: Sequence[tuple[Items, Scores]]) -> Pool:
        """Lay lists of the retrievers [B, K] side by side."""
        items = np.ascontiguousarray(np.concatenate([items for items, _ in lists], axis=1), dtype=np.int32)
        scores = np.ascontiguousarray(np.concatenate([scores for _, scores in lists], axis=1), dtype=np.float32)
        starts = np.concatenate([[0], np.cumsum([items.shape[1] for items, _ in lists], dtype=np.int64)])
        shape = (*items.shape, len(lists))
        pool = cls(np.full_like(items, -1), np.zeros(shape, dtype=np.int32), np.zeros(shape, dtype=np.float32))

        def work(parts: Iterator[slice]) -> None:
            for part in parts:
                kernels.merge(items[part], scores[part], starts, pool.items[part], pool.rank[part], pool.score[part])

        share(row_slices(len(items), 8 * items.shape[1]), work)
        return pool

    def only(self, keep: NDArray[np.bool_]) -> Pool:
        """Without the items for which `keep` [B, S] does not hold; their places stay empty."""
        return self if keep.all() else Pool(np.where(keep, self.items, -1).astype(np.int32), self.rank, self.score)


class Blender(Protocol):
    """Gives every item of a pool one score."""

    def __call__(self, pool: Pool, requests: Requests) -> Scores:
        """Scores [B, S], finite; higher is better."""
        ...


@dataclass(frozen=True)
class Fused:
    """Reciprocal rank fusion, or the weighted sum of scaled scores."""

    weights: tuple[float, ...]
    how: str
    constant: float = 0.0

    def __call__(self, pool: Pool, requests: Requests) -> Scores:
        if not (np.isfinite(pool.score) | (pool.rank == 0)).all():
            raise UsageError("a retriever gave a score that is no finite number")
        out = np.zeros(pool.items.shape)
        weights = np.array(self.weights, dtype=np.float64)

        def work(parts: Iterator[slice]) -> None:
            for part in parts:
                kernels.fuse(pool.rank[part], pool.score[part], weights, HOW[self.how], self.constant, out[part])

        share(row_slices(len(out), 4 * pool.rank.shape[1] * pool.rank.shape[2]), work)
        return out.astype(np.float32)


@dataclass(frozen=True)
class TakeTurns:
    """Retrievers take turns in naming their best item that is not there yet."""

    weights: tuple[float, ...]

    def __call__(self, pool: Pool, requests: Requests) -> Scores:
        out = np.zeros(pool.items.shape)
        kernels.interleave(pool.rank, np.array(self.weights, dtype=np.float64), out)
        return out.astype(np.float32)


@dataclass(frozen=True, eq=False)
class ByRanker:
    """A trained ranker's scores."""

    features: Features
    network: Network

    def __call__(self, pool: Pool, requests: Requests) -> Scores:
        out = np.zeros(pool.items.shape, dtype=np.float32)
        rows, places = np.nonzero(pool.items >= 0)
        out[rows, places] = self.network.scores(self.features.of(pool, requests, rows, places))
        return out


def make_blender(blend: RRF | ScaledScores | Interleave | Learned, weights: Sequence[float]) -> Blender:
    """A blender that needs no training."""
    match blend:
        case RRF():
            return Fused(tuple(weights), "rrf", blend.constant)
        case ScaledScores():
            return Fused(tuple(weights), blend.scale)
        case Interleave():
            return TakeTurns(tuple(weights))
    raise UsageError("a learned blend is made by training", hint="tastemaker pipeline fit")
