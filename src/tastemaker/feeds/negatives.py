"""Items that users did not choose, drawn many at a time.

A sampler is called with users [B] and a generator, and gives items [B, n], or [n] where the batch shares them.
Kernels draw from counter-based streams, so that an item depends on the batch's seed and its own place alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import scipy.sparse as sp
from numba import njit
from numpy.typing import NDArray

from tastemaker.types import UsageError

Ints = NDArray[np.int64]
Sampler: TypeAlias = Callable[[Ints, np.random.Generator], Ints]
TRIES = 64  # draws before a user who chose nearly everything gets the next item in order


def uniform(matrix: sp.csr_array, n: int) -> Sampler:
    """n items a user, all alike, none of which the user chose.

    Args:
        matrix: who chose what [U, I], columns sorted within rows. A user who chose everything gets any items.
    """
    return popular(matrix, n, 0.0)


def popular(matrix: sp.csr_array, n: int, power: float = 0.75) -> Sampler:
    """n items a user drawn in proportion to popularity^power, none of which the user chose.

    Ref: Mikolov et al., arXiv:1310.4546, section 2.2 (the exponent); power 0 draws all items alike.
    """
    _check(n)
    reach = item_reach(matrix, power)
    indptr, indices = matrix.indptr, matrix.indices

    def sample(users: Ints, rng: np.random.Generator) -> Ints:
        out = np.empty((len(users), n), dtype=np.int64)
        _draw(users, indptr, indices, matrix.shape[1], reach, np.uint64(rng.integers(2**63)), out)
        return out

    return sample


def shared(matrix: sp.csr_array, n: int, power: float = 0.0) -> Sampler:
    """n items for the whole batch [n]; a user may have chosen some of them: see `chosen`."""
    _check(n)
    reach = item_reach(matrix, power)

    def sample(users: Ints, rng: np.random.Generator) -> Ints:
        if not len(reach):
            return rng.integers(0, matrix.shape[1], n)
        return np.searchsorted(reach, rng.random(n), side="right").astype(np.int64)

    return sample


def hardest(sampler: Sampler, score: Callable[[Ints, Ints], Any], n: int = 1) -> Sampler:
    """Of the items another sampler draws for a user, the n which the system scores highest as it stands.

    Give the feed `live=True`: no batch may be drawn ahead of its turn.

    Args:
        score: users [B] and items [B, m] to scores [B, m].

    Ref: Zhang, Chen, Wang, Yu, "Optimizing top-N collaborative filtering via dynamic negative item sampling",
    SIGIR 2013.
    """
    _check(n)

    def sample(users: Ints, rng: np.random.Generator) -> Ints:
        pool = sampler(users, rng)
        if pool.ndim != 2 or pool.shape[1] < n:
            raise UsageError(f"the hardest {n} are picked from rows of at least as many, got {list(pool.shape)}")
        scores = np.asarray(score(users, pool))
        best = np.argpartition(-scores, n - 1, axis=1)[:, :n]
        return np.take_along_axis(pool, best, axis=1)

    return sample


def chosen(matrix: sp.csr_array, users: Ints, items: Ints) -> NDArray[np.bool_]:
    """Whether user b chose item j: [B, n], for items [B, n], or [n] that all users share."""
    out = np.zeros((len(users), items.shape[-1]), dtype=np.bool_)
    rows = np.broadcast_to(items, out.shape)
    _chosen(users, matrix.indptr, matrix.indices, rows, out)
    return out


def log_frequency(matrix: sp.csr_array) -> NDArray[np.float32]:
    """Log of the share of all choices that fall on each item [I], an item never chosen counting as half a choice.

    It is the log-probability with which an item stands in a batch of choices: the correction of in-batch and of
    sampled softmax. Ref: Bengio, Senecal, 2008; Yi et al., RecSys 2019, doi:10.1145/3298689.3346996, section 3.
    """
    counts = np.maximum(np.bincount(matrix.indices, minlength=matrix.shape[1]), 0.5)
    return np.log(counts / counts.sum()).astype(np.float32)


def item_reach(matrix: sp.csr_array, power: float) -> NDArray[np.float64]:
    """Cumulated probabilities of items in proportion to popularity^power [I]; empty where all are alike."""
    if power == 0.0:
        return np.empty(0)
    weights = np.bincount(matrix.indices, minlength=matrix.shape[1]).astype(np.float64) ** power
    if not weights.sum() > 0:
        raise UsageError("no item was chosen, so none can be drawn by popularity")
    reach = np.cumsum(weights) / weights.sum()
    reach[reach >= reach[-1]] = 1.0  # rounding must leave no gap behind the last item that can be drawn
    return reach


def _check(n: int) -> None:
    if n < 1:
        raise UsageError(f"at least one negative is drawn, got {n}")


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _mixed(state: Any) -> Any:
    """The splitmix64 finaliser: 64 well-mixed bits of a counter."""
    z = state * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _has(indices: Any, start: int, stop: int, item: int) -> bool:
    place = start + np.searchsorted(indices[start:stop], item)
    return bool(place < stop and indices[place] == item)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _draw(users: Any, indptr: Any, indices: Any, n_items: int, reach: Any, seed: Any, out: Any) -> None:
    for b in range(len(users)):
        start, stop = indptr[users[b]], indptr[users[b] + 1]
        full = stop - start >= n_items
        for j in range(out.shape[1]):
            counter = seed + np.uint64((b * out.shape[1] + j) * TRIES)
            item = 0
            for t in range(TRIES):
                bits = _mixed(counter + np.uint64(t))
                share = np.float64(bits >> np.uint64(11)) * 2.0**-53
                item = int(share * n_items) if len(reach) == 0 else np.searchsorted(reach, share, side="right")
                if full or not _has(indices, start, stop, item):
                    break
            else:
                while _has(indices, start, stop, item):
                    item = (item + 1) % n_items
            out[b, j] = item


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _chosen(users: Any, indptr: Any, indices: Any, items: Any, out: Any) -> None:
    for b in range(len(users)):
        start, stop = indptr[users[b]], indptr[users[b] + 1]
        for j in range(items.shape[1]):
            out[b, j] = _has(indices, start, stop, items[b, j])
