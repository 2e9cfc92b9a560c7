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
from numba import njit
from numpy.typing import NDArray

from tastemaker.contracts import Fit, Program, system
from tastemaker.feeds import Weight, history_matrix, interaction_matrix
from tastemaker.index.threads import share
from tastemaker.nn.product import history_product
from tastemaker.nn.similarity import Measure, Neighbours, squared_lengths, transposed
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
PARTS = 32  # tasks a block is dealt out to


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
        if weights.shape != (n, n) or weights.dtype != np.float32 or not np.isfinite(weights.data).all():
            raise BundleError(f"SLIM of {n} items keeps finite float32 weights [{n}, {n}], got {list(weights.shape)}")
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
    items = transposed(matrix)
    norms = squared_lengths(items)
    near = Neighbours(items, Measure("cosine")) if neighbours else None
    places, values, counts = [], [], [np.zeros(1, dtype=np.int64)]
    with progress("SLIM: item-item weights", n) as advance:
        for block in (np.arange(start, min(start + BLOCK, n)) for start in range(0, n, BLOCK)):
            if near is None:
                offsets, candidates = _candidates(block, items, matrix, l1)
            else:
                nearest = near.nearest(items[block], neighbours, leave_out=block)
                offsets, candidates = nearest.indptr, nearest.indices
            weights = np.zeros(len(candidates), dtype=np.float32)
            rule = norms, l1, l2, tolerance, passes, matrix.shape[0]
            _in_parts(_solve, len(block), block, offsets, candidates, *_arrays(items), *rule, weights)
            found = weights > 0
            counts.append(np.diff(np.concatenate([[0], np.cumsum(found)])[offsets]))
            places.append(candidates[found])
            values.append(weights[found])
            advance(len(block))
    parts = [np.concatenate(part) if part else np.zeros(0, dtype=np.float32) for part in (values, places)]
    by_column = sp.csc_array((*parts, np.cumsum(np.concatenate(counts))), shape=(n, n))
    return by_column.tocsr()


def _candidates(
    block: NDArray[np.int64], items: sp.csr_array, matrix: sp.csr_array, l1: float
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """The items whose product with each item of the block exceeds l1: offsets [b + 1] and their numbers."""
    sizes = np.zeros(len(block), dtype=np.int64)
    given = block, *_arrays(items), *_arrays(matrix), l1
    nowhere, nothing = np.zeros(len(block) + 1, dtype=np.int64), np.zeros(0, dtype=np.int32)
    _in_parts(_collect, len(block), *given, sizes, nowhere, nothing)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    candidates = np.empty(offsets[-1], dtype=np.int32)
    _in_parts(_collect, len(block), *given, sizes, offsets, candidates)
    return offsets, candidates


def _in_parts(kernel: Any, n: int, *given: Any) -> None:
    """Run a kernel on rows first, first + step, ... of n, for each first below step, on all cores."""

    def work(firsts: Any) -> None:
        for first in firsts:
            kernel(first, PARTS, *given)

    share(range(min(PARTS, n)), work)


def _arrays(matrix: sp.csr_array) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    return matrix.indptr, matrix.indices, matrix.data


@njit(cache=True, nogil=True)
def _collect(
    first: int,
    step: int,
    block: Any,
    item_starts: Any,
    users: Any,
    item_data: Any,
    user_starts: Any,
    items: Any,
    user_data: Any,
    l1: float,
    sizes: Any,
    offsets: Any,
    out: Any,
) -> None:
    """Count the candidates of each item into `sizes`; with room in `out`, write them there too."""
    n_items = len(item_starts) - 1
    products = np.zeros(n_items, dtype=np.float32)
    met = np.zeros(n_items, dtype=np.bool_)
    order = np.empty(n_items, dtype=np.int32)
    for b in range(first, len(block), step):
        j = block[b]
        n_met = 0
        for p in range(item_starts[j], item_starts[j + 1]):
            u = users[p]
            for q in range(user_starts[u], user_starts[u + 1]):
                i = items[q]
                if not met[i]:
                    met[i] = True
                    order[n_met] = i
                    n_met += 1
                products[i] += item_data[p] * user_data[q]
        count = 0
        for c in range(n_met):
            i = order[c]
            if i != j and products[i] > l1:
                if len(out):
                    out[offsets[b] + count] = i
                count += 1
            products[i] = 0
            met[i] = False
        sizes[b] = count


@njit(cache=True, nogil=True)
def _solve(
    first: int,
    step: int,
    block: Any,
    offsets: Any,
    candidates: Any,
    starts: Any,
    users: Any,
    data: Any,
    norms: Any,
    l1: float,
    l2: float,
    tolerance: float,
    passes: int,
    n_users: int,
    weights: Any,
) -> None:
    """Coordinate descent over all candidates, then over those with a weight until they rest, and so on."""
    residual = np.zeros(n_users, dtype=np.float32)
    for b in range(first, len(block), step):
        mine, w = candidates[offsets[b] : offsets[b + 1]], weights[offsets[b] : offsets[b + 1]]
        residual[:] = 0
        for p in range(starts[block[b]], starts[block[b] + 1]):
            residual[users[p]] = data[p]
        whole = True
        for _ in range(passes):
            moved, largest = 0.0, 0.0
            for c in range(len(mine)):
                if not whole and w[c] == 0:
                    continue
                i = mine[c]
                total = norms[i] * w[c]
                for p in range(starts[i], starts[i + 1]):
                    total += data[p] * residual[users[p]]
                change = np.float32(max(total - l1, 0.0) / (norms[i] + l2)) - w[c]
                if change != 0:
                    w[c] += change
                    for p in range(starts[i], starts[i + 1]):
                        residual[users[p]] -= change * data[p]
                moved, largest = max(moved, abs(change)), max(largest, w[c])
            still = moved <= tolerance * largest
            if whole and still:
                break
            whole = still
