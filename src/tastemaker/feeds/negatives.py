"""Items that users did not choose, drawn many at a time.

A sampler is called with users [B] and a generator, and gives items [B, n], or [n] where the batch shares them. One
of rows never gives a user an item the user chose; items that a batch shares may clash: see `clashes`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np
import scipy.sparse as sp
from numba import njit
from numpy.typing import NDArray

from tastemaker.types import UsageError, to_numpy

Ints = NDArray[np.int64]
Sampler: TypeAlias = Callable[[Ints, np.random.Generator], Ints]
TRIES = 32  # draws before what the user did not choose is gone through item by item


def uniform(matrix: sp.csr_array, n: int) -> Sampler:
    """n items a user, all alike, none of which the user chose.

    Args:
        matrix: who chose what [U, I]. A user who chose everything gets any items.
    """
    return popular(matrix, n, 0.0)


def popular(matrix: sp.csr_array, n: int, power: float = 0.75) -> Sampler:
    """n items a user drawn in proportion to popularity^power, none of which the user chose.

    The distribution is exact for every user: that of the popularities of what the user did not choose. Where nobody
    chose anything of it, all of it is alike.

    Ref: Mikolov et al., arXiv:1310.4546, section 2.2 (the exponent); power 0 draws all items alike.
    """
    matrix = _checked(matrix, n)
    n_items, reach = matrix.shape[1], item_reach(matrix, power)
    indptr, indices = matrix.indptr, matrix.indices

    def sample(users: Ints, rng: np.random.Generator) -> Ints:
        out = np.empty((len(users), n), dtype=np.int64)
        seed = np.uint64(rng.integers(2**63))
        if len(reach):
            _draw_by_reach(users, indptr, indices, reach, seed, out)
        else:
            _draw(users, indptr, indices, n_items, seed, out)
        return out

    return sample


def shared(matrix: sp.csr_array, n: int, power: float = 0.0) -> Sampler:
    """n items for the whole batch [n], in proportion to popularity^power; a user may have chosen some of them."""
    n_items = _checked(matrix, n).shape[1]
    reach = item_reach(matrix, power)

    def sample(users: Ints, rng: np.random.Generator) -> Ints:
        if not len(reach):
            return rng.integers(0, n_items, n)
        return np.searchsorted(reach, rng.random(n), side="right").astype(np.int64)

    return sample


def hardest(sampler: Sampler, score: Callable[[Ints, Ints], Any], n: int = 1) -> Sampler:
    """Of the items another sampler draws for a user, the n which the system scores highest as it stands.

    The feed is live: no batch may be drawn ahead of its turn.

    Args:
        score: users [B] and items [B, m] to scores [B, m].

    Ref: Zhang, Chen, Wang, Yu, "Optimizing top-N collaborative filtering via dynamic negative item sampling",
    SIGIR 2013.
    """
    if n < 1:
        raise UsageError(f"at least one negative is drawn, got {n}")
    return Hardest(sampler, score, n)


@dataclass(frozen=True)
class Hardest:
    """See `hardest`."""

    sampler: Sampler
    score: Callable[[Ints, Ints], Any]
    n: int
    live: ClassVar[bool] = True

    def __call__(self, users: Ints, rng: np.random.Generator) -> Ints:
        pool = self.sampler(users, rng)
        if pool.ndim != 2 or pool.shape[1] < self.n:
            raise UsageError(f"the hardest {self.n} are picked from rows of at least as many, got {list(pool.shape)}")
        scores = to_numpy(self.score(users, pool))
        if scores.shape != pool.shape:
            raise UsageError(f"items {list(pool.shape)} need as many scores, got {list(scores.shape)}")
        return np.take_along_axis(pool, np.argsort(-scores, axis=1, kind="stable")[:, : self.n], axis=1)


@dataclass(frozen=True, eq=False)
class Stretches:
    """Items a user did not choose, each from the stretch of an order that goes with the item which was chosen.

    Shapes:
        matrix: who chose what [U, I]
        order: [N] int64, items as they lie
        starts, stops: [I] int64, with item i those of order[starts[i]:stops[i]] may be drawn
    """

    matrix: sp.csr_array
    order: Ints
    starts: Ints
    stops: Ints

    def draw(self, users: Ints, items: Ints, n: int, rng: np.random.Generator) -> Ints:
        """n items a row [B, n], all alike; a user who chose the whole stretch gets any items of it.

        Raises:
            UsageError: nothing lies in the stretch of one of these items.
        """
        empty = self.stops[items] <= self.starts[items]
        if empty.any():
            raise UsageError(f"no item can be held against item {items[empty][0]}: its stretch is empty")
        matrix, out = _checked(self.matrix, n), np.empty((len(users), n), dtype=np.int64)
        seed = np.uint64(rng.integers(2**63))
        _draw_stretch(
            users, matrix.indptr, matrix.indices, self.order, self.starts[items], self.stops[items], seed, out
        )
        return out


def clashes(matrix: sp.csr_array, users: Ints, items: Ints) -> NDArray[np.bool_]:
    """Whether user b chose item j: [B, n], for items [n] that all users share.

    One pass over what the users chose; the items may repeat.
    """
    out = np.zeros((len(users), len(items)), dtype=np.bool_)
    _clashes(users, matrix.indptr, matrix.indices, items, np.full(matrix.shape[1], -1, dtype=np.int32), out)
    return out


def log_frequency(matrix: sp.csr_array, power: float = 1.0) -> NDArray[np.float32]:
    """Log-probability [I] of each item when items are drawn in proportion to popularity^power.

    With power 1 it is the log-probability with which an item stands in a batch of choices: the correction of in-batch
    softmax. An item never chosen counts as half a choice. A sample of n items holds an item n times its probability
    on average: add log(n) where a sampled sum stands beside a term that is not sampled.

    Ref: Bengio, Senecal, 2008; Yi et al., RecSys 2019, doi:10.1145/3298689.3346996, section 3.
    """
    weights = np.maximum(_popularity(matrix), 0.5) ** power
    logs: NDArray[np.float32] = np.log(weights / weights.sum()).astype(np.float32)
    return logs


def item_reach(matrix: sp.csr_array, power: float) -> NDArray[np.float64]:
    """Cumulated probabilities of items in proportion to popularity^power [I]; empty where all are alike."""
    if power == 0.0:
        return np.empty(0)
    if power < 0.0:
        raise UsageError(f"negatives are drawn by popularity to a power of at least 0, got {power}")
    weights = _popularity(matrix) ** power
    if not weights.sum() > 0:
        raise UsageError("no item was chosen, so none can be drawn by popularity")
    reach: NDArray[np.float64] = np.cumsum(weights) / weights.sum()
    reach[reach >= reach[-1]] = 1.0  # rounding must leave no gap behind the last item that can be drawn
    return reach


def _popularity(matrix: sp.csr_array) -> NDArray[np.float64]:
    """How many users chose each item [I]."""
    return np.bincount(matrix.indices, minlength=matrix.shape[1]).astype(np.float64)


def _checked(matrix: sp.csr_array, n: int) -> sp.csr_array:
    """The matrix with columns sorted within rows, no entry twice."""
    if n < 1:
        raise UsageError(f"at least one negative is drawn, got {n}")
    if not matrix.shape[1]:
        raise UsageError("there are no items, so none can be drawn")
    if not matrix.has_canonical_format:
        matrix = matrix.copy()
        matrix.sum_duplicates()
    return matrix


# Kernels draw from counter-based streams: an item depends on the batch's seed and its own place alone.


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _share(counter: Any) -> Any:
    """A number in [0, 1) from a counter, by the splitmix64 finaliser."""
    z = counter * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return np.float64(z >> np.uint64(11)) * 2.0**-53


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _nth_absent(indices: Any, start: int, stop: int, n: int) -> int:
    """The n-th number, counted from 0, that is not among the rising indices[start:stop]."""
    low, high = start, stop
    while low < high:
        middle = (low + high) // 2
        if indices[middle] - (middle - start) <= n:
            low = middle + 1
        else:
            high = middle
    return n + (low - start)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _has(indices: Any, start: int, stop: int, item: int) -> bool:
    low, high = start, stop
    while low < high:
        middle = (low + high) // 2
        if indices[middle] < item:
            low = middle + 1
        else:
            high = middle
    return bool(low < stop and indices[low] == item)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _draw(users: Any, indptr: Any, indices: Any, n_items: int, seed: Any, out: Any) -> None:
    """One draw an item: a place among what the user did not choose."""
    width = out.shape[1]
    for b in range(len(users)):
        start, stop = indptr[users[b]], indptr[users[b] + 1]
        if stop - start >= n_items:
            stop = start
        left = n_items - (stop - start)
        for j in range(width):
            place = int(_share(seed + np.uint64(b * width + j)) * left)
            out[b, j] = _nth_absent(indices, start, stop, place)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _draw_by_reach(users: Any, indptr: Any, indices: Any, reach: Any, seed: Any, out: Any) -> None:
    """Draws until the user did not choose the item, and after too many of them an exact one."""
    width, n_items = out.shape[1], len(reach)
    for b in range(len(users)):
        start, stop = indptr[users[b]], indptr[users[b] + 1]
        if stop - start >= n_items:
            stop = start
        for j in range(width):
            counter = seed + np.uint64((b * width + j) * (TRIES + 1))
            item, found = 0, False
            for t in range(TRIES):
                item = np.searchsorted(reach, _share(counter + np.uint64(t)), side="right")
                if not _has(indices, start, stop, item):
                    found = True
                    break
            if not found:
                item = _draw_absent(indices, start, stop, reach, _share(counter + np.uint64(TRIES)))
            out[b, j] = item


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _draw_absent(indices: Any, start: int, stop: int, reach: Any, share: float) -> int:
    """An item that is not among indices[start:stop], in proportion to its probability; O(items)."""
    total, place = 0.0, start
    for item in range(len(reach)):
        if place < stop and indices[place] == item:
            place += 1
        else:
            total += reach[item] - (reach[item - 1] if item else 0.0)
    if total <= 0.0:
        return int(_nth_absent(indices, start, stop, int(share * (len(reach) - (stop - start)))))
    wanted, passed, place, last = share * total, 0.0, start, 0
    for item in range(len(reach)):
        if place < stop and indices[place] == item:
            place += 1
            continue
        weight = reach[item] - (reach[item - 1] if item else 0.0)
        passed += weight
        if weight > 0.0:
            last = item
            if passed > wanted:
                break
    return last


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _draw_stretch(
    users: Any, indptr: Any, indices: Any, order: Any, starts: Any, stops: Any, seed: Any, out: Any
) -> None:
    """Draws until the user did not choose the item, and after too many of them one among those left."""
    width = out.shape[1]
    for b in range(len(users)):
        begin, end = indptr[users[b]], indptr[users[b] + 1]
        size = stops[b] - starts[b]
        for j in range(width):
            counter = seed + np.uint64((b * width + j) * (TRIES + 1))
            item, found = order[starts[b]], False
            for t in range(TRIES):
                item = order[starts[b] + int(_share(counter + np.uint64(t)) * size)]
                if not _has(indices, begin, end, item):
                    found = True
                    break
            if not found:
                left = 0
                for place in range(starts[b], stops[b]):
                    left += not _has(indices, begin, end, order[place])
                wanted = int(_share(counter + np.uint64(TRIES)) * left)
                for place in range(starts[b], stops[b] if left else starts[b]):
                    if not _has(indices, begin, end, order[place]):
                        if not wanted:
                            item = order[place]
                            break
                        wanted -= 1
            out[b, j] = item


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _clashes(users: Any, indptr: Any, indices: Any, items: Any, first: Any, out: Any) -> None:
    """first [I]: filled with -1. Places of an item form a chain: its first one, then `after`."""
    after = np.empty(len(items), dtype=np.int32)
    for j in range(len(items) - 1, -1, -1):
        after[j] = first[items[j]]
        first[items[j]] = j
    for b in range(len(users)):
        for place in range(indptr[users[b]], indptr[users[b] + 1]):
            j = first[indices[place]]
            while j >= 0:
                out[b, j] = True
                j = after[j]
