"""GF-CF: a linear and an ideal low-pass filter on the user-item graph, without training.

With R~ = D_u^-1/2 R D_i^-1/2 and V its leading right singular vectors, a history x scores

    x R~' R~ + alpha * x D_i^-1/2 V V' D_i^1/2

Ref: Shen et al., "How powerful is graph convolution for recommendation?", CIKM 2021, arXiv:2108.07567,
equations 10 and 11, Algorithm 1.

Kept as published. Nothing of items by items is made: the graph and V are kept, and a history goes through them.
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
from tastemaker.nn.svd import truncated_svd
from tastemaker.types import (
    Array,
    BundleError,
    DataError,
    Dataset,
    Requests,
    Schema,
    State,
    pack_csr,
    setting,
    to_numpy,
    unpack_csr,
)

Floats = NDArray[np.float32]
ROWS = 16  # requests of a task
TILE = 256  # items that the low-pass filter takes at once, so that their vectors stay in the cache


@system(
    "gf-cf",
    family="graph",
    title="GF-CF: graph filtering in closed form",
    paper="arXiv:2108.07567",
    needs={"history"},
)
class GFCF:
    """Graph filters that need a few sparse products and one truncated SVD.

    Published: Gowalla Recall@20 .1849, NDCG@20 .1518.
    """

    @dataclass(frozen=True)
    class Config:
        dim: int = setting(
            256, "How many singular vectors the low-pass filter keeps.", low=1, search=(32, 1024), log=True
        )
        alpha: float = setting(
            0.3, "Weight of the low-pass filter; the linear filter has 1.", low=0.0, search=(0.0, 1.0)
        )
        weight: Weight = setting(
            "binary",
            "What an edge weighs: 1, how often the item was chosen, or the events' value.",
            choices=("binary", "count", "value"),
        )

    def __init__(self, config: Config, schema: Schema) -> None:
        self.config, self.schema = config, schema
        self.graph: Any = None  # [U, I] csr_array, R~
        self.vectors: Floats = np.zeros((0, 0), dtype=np.float32)  # [I, D], V
        self.degrees: Floats = np.zeros(0, dtype=np.float32)  # [I]

    def program(self, data: Dataset) -> Program:
        matrix = interaction_matrix(data, weight=self.config.weight)
        self.graph, self.degrees = yield Fit(normalised, matrix)
        self.vectors = yield Fit(low_frequencies, self.graph, self.config.dim, rng="svd")
        self._prepare()

    def _prepare(self) -> None:
        """What answering needs and follows from what is kept."""
        self.by_item = self.graph.T.tocsr()  # [I, U]
        root = np.sqrt(self.degrees)[:, None]
        self.down = np.divide(self.vectors, root, out=np.zeros_like(self.vectors), where=root > 0)  # [I, D]
        self.up = self.vectors * root  # [I, D]
        self.across = np.ascontiguousarray(self.up.T)  # [D, I]

    def score(self, requests: Requests, items: Array | None = None) -> Floats:
        """Filtered histories [B, I], or [B, C] of the given items."""
        n = self.schema.n_items
        histories = history_matrix(requests, n, weight=self.config.weight)
        coded = history_product(histories, self.down) * np.float32(self.config.alpha)
        wanted = None if items is None else to_numpy(items)
        scores = np.empty((requests.n, n if wanted is None else wanted.shape[1]), dtype=np.float32)

        def work(parts: Any) -> None:
            for rows in parts:
                some, out = histories[rows], scores[rows]
                linear = out if wanted is None else np.empty((len(out), n), dtype=np.float32)
                _linear(*_arrays(some), *_arrays(self.by_item), *_arrays(self.graph), linear)
                if wanted is None:
                    _add_low_pass(coded[rows], self.across, out)
                else:
                    _pick(linear, coded[rows], self.up, wanted[rows], out)

        share([slice(r, min(r + ROWS, requests.n)) for r in range(0, requests.n, ROWS)], work)
        return scores

    def export(self) -> State:
        return {**pack_csr("graph", self.graph), "vectors": self.vectors, "degrees": self.degrees}

    def restore(self, state: State) -> None:
        graph = unpack_csr("graph", state)
        n, dim = self.schema.n_items, _padded(min(self.config.dim, self.schema.n_items))
        wanted = {"graph.data": graph.data.shape, "vectors": (n, dim), "degrees": (n,)}
        for name, shape in wanted.items():
            array = state.get(name)
            if array is None or array.shape != shape or array.dtype != np.float32 or not np.isfinite(array).all():
                raise BundleError(f"GF-CF keeps finite float32 {name} {list(shape)}; the bundle has none such")
        if (state["degrees"] < 0).any():
            raise BundleError("degrees of GF-CF are never negative")
        if graph.shape != (self.schema.n_users, n):
            raise BundleError(f"GF-CF keeps a graph [{self.schema.n_users}, {n}], got {list(graph.shape)}")
        self.graph, self.vectors, self.degrees = graph, state["vectors"], state["degrees"]
        self._prepare()


def normalised(matrix: sp.csr_array) -> tuple[sp.csr_array, Floats]:
    """R~ = D_u^-1/2 R D_i^-1/2, and the degrees of the items.

    Shapes: matrix [U, I]; returns [U, I] and [I].
    """
    if matrix.nnz and matrix.data.min() < 0:
        raise DataError("GF-CF takes edges that are never negative", hint="weigh by 'binary' or 'count'")
    of_user = np.asarray(matrix.sum(axis=1, dtype=np.float64))
    of_item = np.asarray(matrix.sum(axis=0, dtype=np.float64))
    left, right = (np.divide(1, np.sqrt(d), out=np.zeros_like(d), where=d > 0) for d in (of_user, of_item))
    data = matrix.data * np.repeat(left, np.diff(matrix.indptr)) * right[matrix.indices]
    graph = sp.csr_array((data.astype(np.float32), matrix.indices, matrix.indptr), shape=matrix.shape)
    return graph, of_item.astype(np.float32)


def low_frequencies(graph: sp.csr_array, dim: int, rng: np.random.Generator) -> Floats:
    """Leading right singular vectors [I, D], where D is rounded up by columns of zeros."""
    vectors = truncated_svd(graph, dim, rng)[1]
    return np.pad(vectors, ((0, 0), (0, _padded(vectors.shape[1]) - vectors.shape[1])))


def _padded(dim: int) -> int:
    return (dim + 3) // 4 * 4


def _arrays(matrix: sp.csr_array) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    return matrix.indptr, matrix.indices, matrix.data


@njit(cache=True, nogil=True)
def _linear(
    starts: Any,
    chosen: Any,
    weights: Any,
    user_starts: Any,
    users: Any,
    up: Any,
    item_starts: Any,
    items: Any,
    down: Any,
    out: Any,
) -> None:
    """x R~' R~ of each row x: from the items to their users, and from those to all their items."""
    n_users = len(item_starts) - 1
    reached = np.zeros(n_users, dtype=np.float32)
    seen = np.zeros(n_users, dtype=np.bool_)
    order = np.empty(n_users, dtype=np.int32)
    for b in range(len(out)):
        count = 0
        for p in range(starts[b], starts[b + 1]):
            for q in range(user_starts[chosen[p]], user_starts[chosen[p] + 1]):
                u = users[q]
                if not seen[u]:
                    seen[u] = True
                    order[count] = u
                    count += 1
                reached[u] += weights[p] * up[q]
        line = out[b]
        line[:] = 0
        for c in range(count):
            u = order[c]
            for q in range(item_starts[u], item_starts[u + 1]):
                line[items[q]] += reached[u] * down[q]
            reached[u] = 0
            seen[u] = False


@njit(cache=True, nogil=True, fastmath={"contract"})
def _add_low_pass(coded: Any, across: Any, out: Any) -> None:
    """Add coded [b, D] @ across [D, I], each element summed from the first dimension to the last."""
    for first in range(0, out.shape[1], TILE):
        last = min(first + TILE, out.shape[1])
        for b in range(len(out)):
            line = out[b, first:last]
            for f in range(0, len(across), 4):
                q0, q1, q2, q3 = coded[b, f], coded[b, f + 1], coded[b, f + 2], coded[b, f + 3]
                a0, a1 = across[f, first:last], across[f + 1, first:last]
                a2, a3 = across[f + 2, first:last], across[f + 3, first:last]
                for j in range(len(line)):
                    line[j] = line[j] + q0 * a0[j] + q1 * a1[j] + q2 * a2[j] + q3 * a3[j]


@njit(cache=True, nogil=True, fastmath={"contract"})
def _pick(linear: Any, coded: Any, up: Any, wanted: Any, out: Any) -> None:
    """The same sums of the wanted items alone; 0 for a number that is none."""
    for b in range(len(out)):
        for c in range(wanted.shape[1]):
            j = wanted[b, c]
            out[b, c] = 0
            if 0 <= j < len(up):
                total = linear[b, j]
                for f in range(up.shape[1]):
                    total = total + coded[b, f] * up[j, f]
                out[b, c] = total
