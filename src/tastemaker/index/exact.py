"""Exact search by inner product, the same answer to the last bit for a request alone and in any batch.

A BLAS product rounds differently for different block shapes, so it serves here as a sieve only. It is taken
in tiles that stay in the cache and are folded into running lists at once; the lists hold a few places more
than asked for. What they hold is scored again by a kernel that adds in one fixed order, in double precision,
where products of float32 are exact: those are the scores that are returned. An item that the sieve lost can
matter only if its true score is within the sieve's rounding error of the last place; the error is bounded
(Higham, Accuracy and Stability of Numerical Algorithms, 2002, eq. 3.5), and the few requests for which the
bound leaves a doubt, nearly always because of equal scores, are searched again by the fixed-order kernel.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from tastemaker.index.select import (
    Items,
    Rules,
    Scores,
    check_numbers,
    empty_lists,
    insert,
    merge,
    refuse,
    row_slices,
    select_listed,
    take_in,
)
from tastemaker.index.threads import n_workers, share
from tastemaker.types import Array, Jagged, UsageError, to_numpy

ROWS, COLUMNS = 512, 4240  # a tile of scores, 8 MB; rows an odd number of cache lines apart, or they evict each other
FEW = 32  # queries up to which BLAS loses more by repacking the items than a turned copy of the scores costs
STRIP = 256  # items that the fixed-order kernel takes at once
SPARE = 12  # places beyond k that the sieve keeps
SMALL = 1 << 21  # multiplications below which a second thread does not pay


class ExactIndex:
    """Vectors of a catalogue, searched whole.

    Args:
        vectors: [I, D], finite. Not copied where they are float32 and contiguous: they must stay as they are.
    """

    def __init__(self, vectors: Array) -> None:
        self.vectors = as_vectors(vectors)
        self.longest = _longest(self.vectors)

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def dim(self) -> int:
        return int(self.vectors.shape[1])

    def extend(self, vectors: Array) -> None:
        """Append the vectors of new items; old items keep their numbers and scores."""
        more = as_vectors(vectors, self.dim)
        self.longest = max(self.longest, _longest(more))  # first: a search that runs meanwhile stays right
        self.vectors = np.concatenate([self.vectors, more])

    def search(
        self,
        queries: Array,
        k: int,
        rules: Rules | None = None,
        *,
        candidates: Jagged[Items] | None = None,
        budget_mb: float = 256,
    ) -> tuple[Items, Scores]:
        """The k items with the highest inner product with each query, best first, ties by a hash of the item.

        Shapes:
            queries: [B, D], finite
            rules: what each of the B rows may not be answered with
            candidates: Jagged of B rows of item numbers, all that a row may be answered with
            returns items [B, k] and scores [B, k]; -1 and -inf after the end of a short list
        """
        queries = as_vectors(queries, self.dim, "queries")
        rules = Rules.of(len(queries), len(self)) if rules is None else rules
        if candidates is not None:
            return select_listed(candidates, self.listed_scores(queries, candidates), k, rules, len(self))
        sieved, rough = self._sweep(queries, min(k + max(SPARE, k // 4), max(len(self), 1)), rules, budget_mb)
        items, scores = empty_lists(len(queries), k)
        open_rows = np.zeros(len(queries), dtype=np.bool_)
        doubt = self._doubt(queries)

        def settle(parts: Any) -> None:
            for rows in parts:
                found = sieved[rows], rough[rows], doubt[rows]
                _settle(queries[rows], self.vectors, *found, items[rows], scores[rows], open_rows[rows])

        share(row_slices(len(queries), sieved.shape[1] * self.dim), settle)
        if open_rows.any():
            again = np.flatnonzero(open_rows)
            items[again], scores[again] = self._sweep(queries[again], k, rules.take(again), budget_mb, in_order=True)
        return items, scores

    def listed_scores(self, queries: Scores, listed: Jagged[Items]) -> Scores:
        """Scores [N] of the items each row lists, in their order; 0 for -1."""
        values = np.ascontiguousarray(listed.values, dtype=np.int32)
        check_numbers(values, len(self))
        scores = np.zeros(len(values), dtype=np.float32)

        def work(parts: Any) -> None:
            for rows in parts:
                _dots(queries[rows], self.vectors, values, listed.offsets[rows.start : rows.stop + 1], scores)

        share(row_slices(len(queries), len(values) * self.dim // max(len(queries), 1)), work)
        return scores

    def _doubt(self, queries: Scores) -> NDArray[np.float64]:
        """How far [B] a product in any order of additions may be from the one in fixed order."""
        lengths = np.sqrt(np.einsum("bd,bd->b", queries, queries, dtype=np.float64))
        sizes = lengths * self.longest
        eps, tiny = float(np.finfo(np.float32).eps), float(np.finfo(np.float32).tiny)
        doubt: NDArray[np.float64] = np.where(sizes > 0, (self.dim + 4) * (eps * sizes + 2 * tiny), 0.0)
        return doubt

    def _sweep(
        self, queries: Scores, k: int, rules: Rules, budget_mb: float, *, in_order: bool = False
    ) -> tuple[Items, Scores]:
        """The k best, by BLAS or `in_order`; a few queries are split over the threads by items."""
        b, n = len(queries), len(self)
        threads = 1 if b * n * self.dim < SMALL else n_workers()
        columns = max(1, min(COLUMNS, n))
        rows = max(1, min(ROWS, int(budget_mb * 2**18 / threads) // columns, -(-b // threads)))
        spans = 1 if b >= threads * rows else threads
        width = -(-n // spans)
        lists = [empty_lists(b, k) for _ in range(spans)]
        tasks = [(slice(r, min(r + rows, b)), s) for r in range(0, b, rows) for s in range(spans)]

        def work(parts: Any) -> None:
            tile = np.empty(rows * columns, dtype=np.float32)
            for part, span in parts:
                items, best = lists[span]
                own = rules.take(part)
                ruled = own.excluded, own.offsets, own.allowed, own.which
                ends = span * width, min((span + 1) * width, n)
                bad, score = _sieve(
                    queries[part], self.vectors, *ends, columns, tile, in_order, ruled, items[part], best[part]
                )
                if bad >= 0:
                    refuse(score, bad)

        share(tasks, work, threads=threads)
        for other in lists[1:]:
            merge(*lists[0], *other)
        return lists[0]


def as_vectors(vectors: Array, dim: int | None = None, what: str = "vectors") -> Scores:
    """Vectors as contiguous float32 [n, D], checked."""
    array = np.ascontiguousarray(to_numpy(vectors), dtype=np.float32)
    if array.ndim != 2 or (dim is not None and array.shape[1] != dim):
        raise UsageError(f"{what} must be [n, {'D' if dim is None else dim}], got shape {list(array.shape)}")
    if not np.isfinite(array).all():
        row = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
        raise UsageError(f"{what} must be finite, row {row} is not", hint="training may not have converged")
    return array


def _longest(vectors: Scores) -> float:
    """The length of the longest vector."""
    return float(np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64).max(initial=0.0)))


@njit(cache=True, nogil=True)
def _sieve(
    queries: Scores,
    vectors: Scores,
    start: int,
    stop: int,
    columns: int,
    tile: Scores,
    in_order: bool,
    rules: Any,
    items: Items,
    best: Scores,
) -> tuple[int, Any]:
    """Take the scores of items start to stop into lists; -1, or the item whose score is NaN or +inf, and the score.

    One call for all tiles, so that a search leaves the interpreter's lock to others from its beginning to its end.
    """
    b = len(queries)
    turned = np.empty(b * columns if b <= FEW else 0, dtype=np.float32)
    for first in range(start, stop, columns):
        n = min(columns, stop - first)
        strip, scores = vectors[first : first + n], tile[: b * n].reshape(b, n)
        if in_order:
            _in_order(queries, strip, scores)
        elif b > FEW:
            np.dot(queries, strip.T, scores)
        else:
            _turn(np.dot(strip, queries.T, turned[: n * b].reshape(n, b)), scores)
        bad = take_in(scores, first, rules, items, best)
        if bad >= 0:
            return first + bad % n, scores[bad // n, bad % n]
    return -1, np.float32(0.0)


@njit(cache=True, nogil=True)
def _turn(scores: Scores, out: Scores) -> None:
    """Write [n, b] as [b, n]."""
    for i in range(len(scores)):
        for r in range(len(out)):
            out[r, i] = scores[i, r]


@njit(cache=True, nogil=True)
def _dot(query: Scores, vector: Scores) -> Any:
    """Inner product, added from the first dimension to the last in double precision."""
    total = 0.0
    for d in range(len(query)):
        total += np.float64(query[d]) * np.float64(vector[d])
    return np.float32(total)


@njit(cache=True, nogil=True)
def _in_order(queries: Scores, strip: Scores, out: Scores) -> None:
    """`_dot` of all pairs: the additions of each pair in the same order, of many items side by side."""
    n, dim = strip.shape
    turned = np.empty((dim, STRIP))
    total = np.empty(STRIP)
    for first in range(0, n, STRIP):
        width = min(STRIP, n - first)
        for i in range(width):
            for d in range(dim):
                turned[d, i] = strip[first + i, d]
        for r in range(len(queries)):
            total[:] = 0.0
            for d in range(dim):
                factor, line = np.float64(queries[r, d]), turned[d]
                for i in range(STRIP):
                    total[i] += factor * line[i]
            for i in range(width):
                out[r, first + i] = np.float32(total[i])


@njit(cache=True, nogil=True)
def _dots(queries: Scores, vectors: Scores, listed: Items, ends: NDArray[np.int64], out: Scores) -> None:
    """`_dot` of each query with the items its row lists."""
    for r in range(len(queries)):
        for p in range(ends[r], ends[r + 1]):
            if listed[p] >= 0:
                out[p] = _dot(queries[r], vectors[listed[p]])


@njit(cache=True, nogil=True)
def _settle(
    queries: Scores,
    vectors: Scores,
    sieved: Items,
    rough: Scores,
    doubt: NDArray[np.float64],
    items: Items,
    best: Scores,
    open_rows: NDArray[np.bool_],
) -> None:
    """Score the sieved items again in fixed order; mark the rows that may lack one that was sieved out."""
    k = items.shape[1]
    for r in range(len(sieved)):
        for p in range(sieved.shape[1]):
            if sieved[r, p] < 0:
                break
            insert(items[r], best[r], sieved[r, p], _dot(queries[r], vectors[sieved[r, p]]))
        last = np.float64(rough[r, -1])  # no item outside the sieve scored above it; -inf: none is outside
        if sieved.shape[1] < len(vectors) and last > -np.inf and doubt[r] > 0.0:
            open_rows[r] = not (np.float64(best[r, k - 1]) > last + doubt[r])
