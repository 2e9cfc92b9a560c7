"""A sparse graph from clusters to items whose edges keep two numbers, and what trials add to them.

An edge's d is 1 + the sum of w^2 over its trials, its b the sum of w r, w being how much of its cluster was in who
asked. Both are sums: what was counted in several places, in any order, is put together by addition.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from tastemaker.types import BundleError, Jagged, State

Floats = NDArray[np.float64]
CLUSTER = np.int64(1 << 32)  # an edge's key is cluster * CLUSTER + item


@dataclass(frozen=True, eq=False)
class EdgeSums:
    """What trials add to edges: keys [n], rising, and the sums of w^2 and of w r."""

    keys: NDArray[np.int64]
    squares: Floats
    rewards: Floats

    @classmethod
    def of(cls, keys: NDArray[np.int64], squares: Floats, rewards: Floats) -> EdgeSums:
        """Sums over entries in any order, an edge perhaps in several."""
        found, place = np.unique(keys, return_inverse=True)
        n = len(found)
        sums: list[Any] = [np.bincount(place, part, minlength=n) for part in (squares, rewards)]
        return cls(found, *sums)

    def merged(self, other: EdgeSums) -> EdgeSums:
        pairs = ((getattr(self, name), getattr(other, name)) for name in ("keys", "squares", "rewards"))
        return EdgeSums.of(*(np.concatenate(pair) for pair in pairs))


@dataclass(frozen=True, eq=False)
class Edges:
    """The graph and what its edges have seen.

    Shapes: offsets [C + 1]; items [E], those of cluster c from offsets[c], rising; seen, earned [E]: d and b
    """

    offsets: NDArray[np.int64]
    items: NDArray[np.int32]
    seen: Floats
    earned: Floats

    @classmethod
    def of(cls, keys: NDArray[np.int64], n_clusters: int, seen: Floats, earned: Floats) -> Edges:
        """From distinct keys in any order."""
        order = np.argsort(keys, kind="stable")
        counts = np.bincount(keys // CLUSTER, minlength=n_clusters)
        items = (keys[order] % CLUSTER).astype(np.int32)
        return cls(np.concatenate([[0], np.cumsum(counts)]), items, seen[order], earned[order])

    @property
    def keys(self) -> NDArray[np.int64]:
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets)) * CLUSTER + self.items

    def learnt(self, sums: EdgeSums) -> Edges:
        """With these sums added; what is of no edge is left out."""
        at = np.empty(len(sums.keys), dtype=np.int64)
        _find(sums.keys // CLUSTER, sums.keys % CLUSTER, self.offsets, self.items, at)
        known = at >= 0
        seen, earned = self.seen.copy(), self.earned.copy()
        seen[at[known]] += sums.squares[known]
        earned[at[known]] += sums.rewards[known]
        return Edges(self.offsets, self.items, seen, earned)

    def look_up(
        self, numbers: NDArray[np.int32], weights: Floats, alpha: float, n_items: int
    ) -> tuple[Jagged[NDArray[np.int32]], NDArray[np.float32]]:
        """Items that edges of clusters [B, K] lead to, B rows, each item once, and their upper confidence bounds [N].

        Work grows with the edges of the K clusters.
        """
        room = np.diff(self.offsets)[numbers].sum(axis=1)
        starts = np.concatenate([[0], np.cumsum(room)])
        listed, bounds = np.empty(starts[-1], dtype=np.int32), np.empty(starts[-1], dtype=np.float32)
        lengths = np.empty(len(numbers), dtype=np.int64)
        graph = self.offsets, self.items, self.seen, self.earned
        _look_up(numbers, weights, *graph, alpha, n_items, starts, listed, bounds, lengths)
        keep = np.arange(starts[-1]) - np.repeat(starts[:-1], room) < np.repeat(lengths, room)
        return Jagged(listed[keep], np.concatenate([[0], np.cumsum(lengths)])), bounds[keep]

    def score(self, numbers: NDArray[np.int32], weights: Floats, alpha: float, scores: NDArray[np.float32]) -> None:
        """Write the bounds of the items that edges lead to into scores [B, I]; others stay as they are."""
        _score(numbers, weights, self.offsets, self.items, self.seen, self.earned, alpha, scores)

    def export(self) -> State:
        return {f"edges.{name}": getattr(self, name) for name in ("offsets", "items", "seen", "earned")}

    @classmethod
    def restored(cls, state: State, n_clusters: int, n_items: int) -> Edges:
        """What `export` gave. Raises BundleError where it does not fit."""
        try:
            offsets, items, seen, earned = (state[f"edges.{n}"] for n in ("offsets", "items", "seen", "earned"))
        except KeyError as error:
            raise BundleError(f"a part of the graph is missing: {error}") from error
        n = len(items)
        whole = offsets.shape == (n_clusters + 1,) and offsets[0] == 0 and offsets[-1] == n
        if not whole or (np.diff(offsets) < 0).any() or not seen.shape == earned.shape == items.shape == (n,):
            raise BundleError("the parts of the graph do not fit each other")
        if n and not 0 <= items.min() <= items.max() < n_items:
            raise BundleError(f"the graph leads to items beyond the {n_items:,} of the catalogue")
        parts = ((offsets, np.int64), (items, np.int32), (seen, np.float64), (earned, np.float64))
        kept: list[Any] = [np.ascontiguousarray(array, dtype) for array, dtype in parts]
        edges = cls(*kept)
        if (np.diff(edges.keys) <= 0).any() or not ((seen > 0) & np.isfinite(seen) & np.isfinite(earned)).all():
            raise BundleError("an edge is there twice, or what it keeps is no number")
        return edges


def nearest_items(centres: NDArray[np.float32], items: NDArray[np.float32], width: int) -> NDArray[np.int64]:
    """Keys of the edges from each centre to the `width` items with the largest inner product."""
    width = min(width, len(items))
    numbers = np.arange(len(items))
    keys = []
    for cluster, centre in enumerate(centres):  # a row at a time: no matrix of clusters by items
        near = items @ centre
        best = np.lexsort((numbers, -near))[:width] if width < len(items) else numbers
        keys.append(cluster * CLUSTER + best)
    return np.concatenate(keys)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _find(clusters: Any, wanted: Any, offsets: Any, items: Any, at: Any) -> None:
    """Where edges stand, by halving; -1: nowhere."""
    for n in range(len(wanted)):
        at[n] = -1
        if not 0 <= clusters[n] < len(offsets) - 1:
            continue
        low, high = offsets[clusters[n]], offsets[clusters[n] + 1]
        while low < high:
            middle = (low + high) >> 1
            if items[middle] < wanted[n]:
                low = middle + 1
            else:
                high = middle
        if low < offsets[clusters[n] + 1] and items[low] == wanted[n]:
            at[n] = low


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _look_up(
    numbers: Any,
    weights: Any,
    offsets: Any,
    items: Any,
    seen: Any,
    earned: Any,
    alpha: Any,
    n_items: Any,
    starts: Any,
    listed: Any,
    scores: Any,
    ends: Any,
) -> None:
    """Items that edges of each row lead to, each once, with their bounds; ends says how many of a row's room."""
    means, squares = np.zeros(n_items), np.zeros(n_items)
    for row in range(len(numbers)):
        n, first = 0, starts[row]
        for place in range(numbers.shape[1]):
            cluster, weight = numbers[row, place], weights[row, place]
            for edge in range(offsets[cluster], offsets[cluster + 1]):
                item, square = items[edge], weight * weight / seen[edge]
                if square == 0.0:
                    continue  # nothing of this cluster is in who asks
                if squares[item] == 0.0:
                    listed[first + n] = item
                    n += 1
                means[item] += weight * earned[edge] / seen[edge]
                squares[item] += square
        for at in range(first, first + n):
            item = listed[at]
            scores[at] = means[item] + alpha * np.sqrt(squares[item])
            means[item] = squares[item] = 0.0
        ends[row] = n


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _score(
    numbers: Any, weights: Any, offsets: Any, items: Any, seen: Any, earned: Any, alpha: Any, scores: Any
) -> None:
    """Bounds of the items that edges lead to, written into scores [B, I]."""
    means, squares = np.zeros(scores.shape[1]), np.zeros(scores.shape[1])
    for row in range(len(numbers)):
        for turn in range(2):  # sums first, then they are written and cleared
            for place in range(numbers.shape[1]):
                cluster, weight = numbers[row, place], weights[row, place]
                for edge in range(offsets[cluster], offsets[cluster + 1]):
                    item = items[edge]
                    if turn == 0:
                        means[item] += weight * earned[edge] / seen[edge]
                        squares[item] += weight * weight / seen[edge]
                    elif squares[item] > 0.0:
                        scores[row, item] = means[item] + alpha * np.sqrt(squares[item])
                        means[item] = squares[item] = 0.0
