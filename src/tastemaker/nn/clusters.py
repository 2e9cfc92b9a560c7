"""Clusters of users, and how much of each there is in somebody who asks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from tastemaker.nn.space import unit
from tastemaker.types import BundleError, State, progress

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Clusters:
    """Centres [C, D] of length 1; the larger a cluster, the lower its number.

    nearest: how many clusters somebody belongs to; temperature: how evenly
    """

    centres: Floats
    nearest: int
    temperature: float

    def memberships(self, queries: Floats) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        """The nearest clusters of those who stand at `queries` [B, D] and their weights, which sum to 1: [B, K] both.

        Weights are a softmax over the nearest of <u, centre> / temperature. Among clusters equally near the larger
        ones are taken, so somebody of whom nothing is known belongs to the largest, evenly.
        """
        numbers = np.empty((len(queries), min(self.nearest, len(self.centres))), dtype=np.int32)
        near = np.empty(numbers.shape, dtype=np.float32)
        _nearest(np.ascontiguousarray(queries @ self.centres.T), numbers, near)
        weights = np.exp((near - near[:, :1]).astype(np.float64) / self.temperature)
        return numbers, weights / weights.sum(axis=1, keepdims=True)

    def dense(self, queries: Floats) -> NDArray[np.float64]:
        """Weights of all clusters [B, C], 0 but for the nearest."""
        numbers, weights = self.memberships(queries)
        found = np.zeros((len(queries), len(self.centres)))
        np.put_along_axis(found, numbers.astype(np.int64), weights, 1)
        return found

    def export(self) -> State:
        return {"centres": self.centres}

    @classmethod
    def of(cls, state: State, width: int, nearest: int, temperature: float) -> Clusters:
        centres = state.get("centres")
        if centres is None or centres.ndim != 2 or centres.shape[1] != width or not len(centres):
            raise BundleError(f"centres of clusters have {width} numbers each; the bundle has none such")
        if not np.isfinite(centres).all():
            raise BundleError("centres hold values that are no numbers")
        return cls(centres.astype(np.float32, copy=False), nearest, temperature)


def spherical_kmeans(vectors: Floats, n: int, rng: np.random.Generator, *, rounds: int = 25) -> Floats:
    """Centres [C, D] of at most n clusters of vectors of length 1 (rows of zeros are left out), the largest first.

    Starts are drawn with chances proportional to the squared distance from the nearest start so far. A centre is the
    mean of its members, at length 1; one that loses all members starts again at the vector that fits its own worst.

    Ref: Dhillon, Modha, Machine Learning 42, 2001; Arthur, Vassilvitskii, SODA 2007 (the starts).
    """
    known = vectors[vectors.any(axis=1)]
    if not len(known):
        return np.zeros((1, vectors.shape[1]), dtype=np.float32)
    n = min(n, len(known))
    centres = np.empty((n, known.shape[1]), dtype=np.float32)
    centres[0] = known[rng.integers(len(known))]
    far = 1.0 - known @ centres[0]
    with progress("clusters", n + rounds) as advance:
        for start in range(1, n):
            chance = np.cumsum(np.maximum(far, 0.0), dtype=np.float64)
            at = int(np.searchsorted(chance, rng.random() * chance[-1])) if chance[-1] > 1e-6 else start
            centres[start] = known[min(at, len(known) - 1)]
            far = np.minimum(far, 1.0 - known @ centres[start])
            advance(1)
        own = np.full(len(known), -1)
        for _ in range(rounds):
            near = known @ centres.T
            before, own = own, near.argmax(axis=1)
            if np.array_equal(before, own):
                break
            sums = np.zeros((n, known.shape[1]))
            np.add.at(sums, own, known)
            centres = unit(sums)
            empty = np.flatnonzero(np.bincount(own, minlength=n) == 0)
            worst = np.argsort(near.max(axis=1), kind="stable")[: len(empty)]
            centres[empty] = known[worst]
            advance(1)
    sizes = np.bincount((known @ centres.T).argmax(axis=1), minlength=n)
    return np.ascontiguousarray(centres[np.argsort(-sizes, kind="stable")])


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _nearest(scores: Any, numbers: Any, best: Any) -> None:
    """The highest scores of each row and where they stand; of equal ones the first."""
    k = numbers.shape[1]
    for row in range(len(scores)):
        filled = 0
        for column in range(scores.shape[1]):
            value = scores[row, column]
            if filled == k and not value > best[row, k - 1]:
                continue
            at = filled if filled < k else k - 1
            while at > 0 and value > best[row, at - 1]:
                best[row, at] = best[row, at - 1]
                numbers[row, at] = numbers[row, at - 1]
                at -= 1
            best[row, at] = value
            numbers[row, at] = column
            filled = min(filled + 1, k)
