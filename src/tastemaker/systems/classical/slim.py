"""SLIM: sparse, non-negative item-item weights, one elastic net an item.

Column j of W minimises 1/2 |x_j - X w|^2 + l2/2 |w|^2 + l1 |w|_1 over w >= 0 with w_j = 0, and a history x
scores x W.

Ref: Ning and Karypis, "SLIM: Sparse linear methods for top-N recommender systems", ICDM 2011, equation 4;
section 4.3 for the restriction to an item's nearest neighbours. Coordinate descent and its active set:
Friedman, Hastie, Tibshirani, "Regularization paths for generalized linear models via coordinate descent",
Journal of Statistical Software 33(1), 2010.

The items are solved in parallel, each with its residual over the users, so that memory does not grow with the
square of the catalogue. X has no negative entry: an item whose product with x_j is at most l1 has weight 0 in
the optimum, and only the others are visited.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numba import njit, prange
from numpy.typing import NDArray

from tastemaker.contracts import Fit, Program, system
from tastemaker.feeds import Weight, history_matrix, interaction_matrix
from tastemaker.nn.product import history_product
from tastemaker.types import (
    BundleError,
    DataError,
    Dataset,
    Requests,
    Schema,
    State,
    pack_csr,
    progress,
    setting,
    unpack_csr,
)

Floats = NDArray[np.float32]
BLOCK = 1024  # items solved between two advances of the progress bar
SPANS = 64  # pieces of a block; each allocates once


@system(
    "slim",
    family="classical",
    title="SLIM: sparse linear item-item model",
    paper="doi:10.1109/ICDM.2011.134",
    needs={"history"},
)
class SLIM:
    """Sparse non-negative item-item weights by elastic nets: EASE's elder, small enough for any catalogue.

    Published: Gowalla Recall@20 .1699, NDCG@20 .1382 (BARS).
    """

    @dataclass(frozen=True)
    class Config:
        l1: float = setting(
            1.0, "Penalty on the weights' sum: a larger one leaves fewer.", low=0.0, search=(0.01, 10.0), log=True
        )
        l2: float = setting(50.0, "Penalty on the squared weights.", low=0.0, search=(1.0, 500.0), log=True)
        neighbours: int = setting(
            0, "Only this many items most alike by cosine may have a weight for an item; 0: all.", low=0
        )
        weight: Weight = setting(
            "binary",
            "What an entry of the matrix is: 1, how often the item was chosen, or the events' value.",
            choices=("binary", "count", "value"),
        )
        tolerance: float = setting(
            1e-3, "An item is done when no weight moves by more than this share of its largest.", low=1e-9, log=True
        )
        passes: int = setting(200, "At most this many rounds over an item's weights.", low=1)

    def __init__(self, config: Config, schema: Schema) -> None:
        self.config, self.schema = config, schema
        self.weights: Any = None  # [I, I] csr_array: entry (i, j) is what item i says for item j

    def program(self, data: Dataset) -> Program:
        c = self.config
        matrix = interaction_matrix(data, weight=c.weight)
        self.weights = yield Fit(fit_weights, matrix, c.l1, c.l2, c.neighbours, c.tolerance, c.passes)

    def score(self, requests: Requests, items: NDArray[np.integer[Any]] | None = None) -> Floats:
        """History times weights [B, I], or [B, C] of the given items."""
        histories = history_matrix(requests, self.schema.n_items, weight=self.config.weight)
        return history_product(histories, self.weights, items)

    def export(self) -> State:
        return pack_csr("weights", self.weights)

    def restore(self, state: State) -> None:
        weights = unpack_csr("weights", state)
        n = self.schema.n_items
        if weights.shape != (n, n) or weights.dtype != np.float32:
            raise BundleError(f"SLIM of {n} items keeps float32 weights [{n}, {n}], got {weights.shape}")
        self.weights = weights


def fit_weights(
    matrix: sp.csr_array, l1: float, l2: float, neighbours: int = 0, tolerance: float = 1e-3, passes: int = 200
) -> sp.csr_array:
    """The weights W of a users-by-items matrix without negative entries.

    Shapes: matrix [U, I]; returns [I, I], rows and columns as in history @ W.
    """
    if matrix.nnz and matrix.data.min() < 0:
        raise DataError("SLIM learns from strengths that are never negative", hint="weigh by 'binary' or 'count'")
    n = matrix.shape[1]
    by_item = matrix.T.tocsr()
    sides = (by_item.indptr, by_item.indices, by_item.data, matrix.indptr, matrix.indices, matrix.data)
    norms = np.zeros(n, dtype=np.float64)
    np.add.at(norms, matrix.indices, matrix.data.astype(np.float64) ** 2)
    places, values, counts = [], [], np.zeros(n + 1, dtype=np.int64)
    with progress("SLIM: item-item weights", n) as advance:
        for start in range(0, n, BLOCK):
            block = np.arange(start, min(start + BLOCK, n))
            sizes = np.empty(len(block), dtype=np.int64)
            _count_candidates(block, *sides, l1, sizes)
            if neighbours:
                sizes = np.minimum(sizes, neighbours)
            offsets = np.concatenate([[0], np.cumsum(sizes)])
            candidates = np.empty(offsets[-1], dtype=np.int32)
            weights = np.zeros(offsets[-1], dtype=np.float32)
            _solve(block, *sides, norms, l1, l2, tolerance, passes, offsets, candidates, weights)
            found = weights > 0
            counts[block + 1] = np.diff(np.concatenate([[0], np.cumsum(found)])[offsets])
            places.append(candidates[found])
            values.append(weights[found])
            advance(len(block))
    if not places:
        return sp.csr_array((n, n), dtype=np.float32)
    by_column = sp.csc_array((np.concatenate(values), np.concatenate(places), np.cumsum(counts)), shape=(n, n))
    return by_column.tocsr()


@njit(cache=True, nogil=True)
def _products(
    j: int, starts: Any, users: Any, data: Any, user_starts: Any, items: Any, user_data: Any, products: Any, seen: Any
) -> int:
    """x_i.x_j of all items i that share a user with j, in `products`; their numbers in `seen`, returns how many.

    `products` is NaN where nothing was added yet, which is how it must come in.
    """
    count = 0
    for p in range(starts[j], starts[j + 1]):
        u = users[p]
        for q in range(user_starts[u], user_starts[u + 1]):
            i = items[q]
            if np.isnan(products[i]):
                products[i] = 0
                seen[count] = i
                count += 1
            products[i] += data[p] * user_data[q]
    return count


@njit(cache=True, parallel=True, nogil=True)
def _count_candidates(
    block: Any, starts: Any, users: Any, data: Any, user_starts: Any, items: Any, user_data: Any, l1: float, sizes: Any
) -> None:
    n_items = len(starts) - 1
    for s in prange(SPANS):
        products = np.full(n_items, np.nan, dtype=np.float32)
        seen = np.empty(n_items, dtype=np.int32)
        for b in range(s, len(block), SPANS):
            j = block[b]
            count = _products(j, starts, users, data, user_starts, items, user_data, products, seen)
            sizes[b] = 0
            for c in range(count):
                sizes[b] += seen[c] != j and products[seen[c]] > l1
                products[seen[c]] = np.nan


@njit(cache=True, parallel=True, nogil=True)
def _solve(
    block: Any,
    starts: Any,
    users: Any,
    data: Any,
    user_starts: Any,
    items: Any,
    user_data: Any,
    norms: Any,
    l1: float,
    l2: float,
    tolerance: float,
    passes: int,
    offsets: Any,
    candidates: Any,
    weights: Any,
) -> None:
    n_items, n_users = len(starts) - 1, len(user_starts) - 1
    for s in prange(SPANS):
        products = np.full(n_items, np.nan, dtype=np.float32)
        seen = np.empty(n_items, dtype=np.int32)
        residual = np.zeros(n_users, dtype=np.float32)
        for b in range(s, len(block), SPANS):
            j = block[b]
            count = _products(j, starts, users, data, user_starts, items, user_data, products, seen)
            mine, w = candidates[offsets[b] : offsets[b + 1]], weights[offsets[b] : offsets[b + 1]]
            _choose(j, seen[:count], products, norms, l1, mine)
            for c in range(count):
                products[seen[c]] = np.nan
            for p in range(starts[j], starts[j + 1]):
                residual[users[p]] = data[p]
            _descend(mine, w, starts, users, data, norms, l1, l2, tolerance, passes, residual)
            residual[:] = 0


@njit(cache=True, nogil=True)
def _choose(j: int, seen: Any, products: Any, norms: Any, l1: float, out: Any) -> None:
    """The items whose product exceeds l1, of which the `len(out)` most alike by cosine, in rising order."""
    alike = np.full(len(seen), -1.0)
    for c in range(len(seen)):
        i = seen[c]
        if i != j and products[i] > l1:
            alike[c] = products[i] / np.sqrt(norms[i])
    order = np.argsort(-alike, kind="mergesort")[: len(out)]
    out[:] = np.sort(seen[order])


@njit(cache=True, nogil=True)
def _descend(
    candidates: Any,
    w: Any,
    starts: Any,
    users: Any,
    data: Any,
    norms: Any,
    l1: float,
    l2: float,
    tolerance: float,
    passes: int,
    residual: Any,
) -> None:
    """Coordinate descent: over all candidates, then over those with a weight until they rest, and so on."""
    whole = True
    for _ in range(passes):
        moved, largest = 0.0, 0.0
        for c in range(len(candidates)):
            if not whole and w[c] == 0:
                continue
            i = candidates[c]
            total = norms[i] * w[c]
            for p in range(starts[i], starts[i + 1]):
                total += data[p] * residual[users[p]]
            fresh = np.float32(max(total - l1, 0.0) / (norms[i] + l2))
            step = fresh - w[c]
            if step != 0:
                w[c] = fresh
                for p in range(starts[i], starts[i + 1]):
                    residual[users[p]] -= step * data[p]
            moved, largest = max(moved, abs(step)), max(largest, fresh)
        still = moved <= tolerance * largest
        if whole and still:
            return
        whole = still
