"""GTE: an item is recommended by the number of short walks that lead to it, without training.

Each item starts as its own one-hot label and each user as zero; in each of k layers every node adds the sum of its
neighbours to itself. What a user holds of item i's label after k layers is the score. Written out, with the user-item
matrix A, that is

    S = sum over odd j up to k of C(k, j) A (A'A)^((j - 1) / 2)

so k = 3, the default, gives 3 A + A A'A: for an item the user has not chosen, the number of walks of length 3. An even
k counts the same walks as k - 1 with other weights, and for k up to 4 ranks what is new to the user alike.

Kept as published: the scores, exactly. Changed: the labels, a dense matrix of users by items, are never made; each
request walks from the items of its history. A history that is no row of A (a new user, or new choices) is walked from
as if it stood beside the graph: walks that come back through that user are not counted. Numbers of walks are small and
tie often; the lists break ties by a hash of the item, the published code as its sort happens to. Seen items are left
out of the lists, where the published code gives them the score 0 of items that no walk reaches.

Ref: Cai, Xia, Ren, Huang, "How expressive are graph neural networks in recommendation?", CIKM 2023, arXiv:2308.11127,
section 5; github.com/HKUDS/GTE.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb
from typing import Any

import numpy as np
import scipy.sparse as sp
from numba import njit
from numpy.typing import NDArray

from tastemaker.contracts import Fit, Program, system
from tastemaker.feeds import history_matrix, interaction_matrix
from tastemaker.index.threads import share
from tastemaker.nn.similarity import transposed
from tastemaker.types import (
    Array,
    BundleError,
    Dataset,
    Requests,
    Schema,
    State,
    pack_csr,
    setting,
    to_numpy,
    unpack_csr,
)

ROWS = 16  # requests of a task


@system(
    "gte",
    family="graph",
    title="GTE: counts of short walks",
    paper="arXiv:2308.11127",
    needs={"history"},
)
class GTE:
    """Scores an item by the walks that lead to it from the history; nothing is learnt but the graph."""

    @dataclass(frozen=True)
    class Config:
        n_layers: int = setting(
            3, "Layers of propagation: walks of odd length up to it are counted.", low=1, high=9, search=(3, 5)
        )

    def __init__(self, config: Config, schema: Schema) -> None:
        self.config, self.schema = config, schema
        self.by_user = sp.csr_array((schema.n_users, schema.n_items), dtype=np.float32)  # A
        self.by_item = sp.csr_array((schema.n_items, schema.n_users), dtype=np.float32)

    def program(self, data: Dataset) -> Program:
        self.by_user = yield Fit(interaction_matrix, data)
        self.by_item = transposed(self.by_user)

    def score(self, requests: Requests, items: Array | None = None) -> NDArray[np.float32]:
        """Weighted numbers of walks [B, I], or [B, C] of the given items; whole numbers, exact up to 2^24."""
        n = self.schema.n_items
        histories = history_matrix(requests, n)
        weights = layer_weights(self.config.n_layers)
        wanted = None if items is None else to_numpy(items)
        scores = np.zeros((requests.n, n if wanted is None else wanted.shape[1]), dtype=np.float32)

        def work(parts: Any) -> None:
            for rows in parts:
                some, out = histories[rows], scores[rows]
                whole = out if wanted is None else np.empty((len(out), n), dtype=np.float32)
                _walk(some.indptr, some.indices, *_ends(self.by_item), *_ends(self.by_user), weights, whole)
                if wanted is not None:
                    inside = (wanted[rows] >= 0) & (wanted[rows] < n)
                    picked = np.take_along_axis(whole, np.where(inside, wanted[rows], 0), axis=1)
                    out[:] = np.where(inside, picked, 0)

        share([slice(r, min(r + ROWS, requests.n)) for r in range(0, requests.n, ROWS)], work)
        return scores

    def export(self) -> State:
        return pack_csr("graph", self.by_user)

    def restore(self, state: State) -> None:
        graph, n_users, n_items = unpack_csr("graph", state), self.schema.n_users, self.schema.n_items
        if graph.shape != (n_users, n_items) or graph.data.dtype != np.float32 or not (graph.data == 1).all():
            raise BundleError(f"GTE keeps a float32 graph [{n_users}, {n_items}] of ones; the bundle has none such")
        self.by_user, self.by_item = graph, transposed(graph)


def layer_weights(n_layers: int) -> NDArray[np.float64]:
    """Weights of walks of length 1, 3, 5, ... after so many layers: binomial coefficients."""
    return np.array([comb(n_layers, length) for length in range(1, n_layers + 1, 2)], dtype=np.float64)


def _ends(matrix: sp.csr_array) -> tuple[NDArray[Any], NDArray[Any]]:
    return matrix.indptr, matrix.indices


@njit(cache=True, nogil=True)
def _walk(
    starts: Any,
    chosen: Any,
    user_starts: Any,
    users: Any,
    item_starts: Any,
    items: Any,
    weights: Any,
    out: Any,
) -> None:
    """Walks from each history to items, by way of users; in float64, where numbers of walks are exact up to 2^53."""
    n_users, n_items = len(item_starts) - 1, out.shape[1]
    at_users, at_items, total = np.zeros(n_users), np.zeros(n_items), np.zeros(n_items)
    there, here = np.empty(n_users, dtype=np.int32), np.empty(n_items, dtype=np.int32)
    for b in range(len(out)):
        n = 0
        for p in range(starts[b], starts[b + 1]):
            here[n], at_items[chosen[p]] = chosen[p], 1.0
            n += 1
        for length in range(len(weights)):
            if length:
                m = _step(here[:n], at_items, user_starts, users, at_users, there)
                n = _step(there[:m], at_users, item_starts, items, at_items, here)
            for i in here[:n]:
                total[i] += weights[length] * at_items[i]
        for i in here[:n]:
            at_items[i] = 0.0
        out[b] = total
        total[:] = 0.0


@njit(cache=True, nogil=True)
def _step(here: Any, walks: Any, starts: Any, ends: Any, further: Any, there: Any) -> int:
    """One edge further: move the walks that stand at `here` to the neighbours; how many nodes are now in `there`."""
    n = 0
    for node in here:
        many = walks[node]
        walks[node] = 0.0
        for q in range(starts[node], starts[node + 1]):
            end = ends[q]
            if further[end] == 0.0:
                there[n] = end
                n += 1
            further[end] += many
    return n
