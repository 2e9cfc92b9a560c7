"""EASE: item-item weights that predict a history from itself, in closed form.

The weights B minimise |X - XB|^2 + reg |B|^2 with a zero diagonal. With P = (X'X + reg I)^-1 they are
B_ij = -P_ij / P_jj, and a history x scores x B: the columns of B were fitted to predict an item, its rows
were not.

Ref: Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019, arXiv:1905.03375, equation 8.

Kept as published. The matrix is inverted in place, and half of it is held, since it is symmetric; of a large
catalogue only the largest weights are stored, and the manifest says which share of all weights' absolute mass was
lost by that (`facts`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
from numba import njit, prange
from numpy.typing import NDArray
from scipy.linalg import get_blas_funcs, get_lapack_funcs

from tastemaker.contracts import Fit, Program, system
from tastemaker.feeds import Weight, history_matrix, interaction_matrix
from tastemaker.nn.product import history_product
from tastemaker.types import (
    BudgetExceeded,
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
from tastemaker.types.meter import available_memory_mb

Floats = NDArray[np.float32]
Precision = Literal["auto", "float32", "float64"]
EXACT_UP_TO = 8192  # items: up to here the inverse is computed in float64 (0.3 GB)
DENSE_UP_TO = 4  # times `keep` items: up to here all weights together take little more room than the kept ones
BLOCK = 1024


@system(
    "ease",
    family="classical",
    title="EASE: a linear autoencoder in closed form",
    paper="arXiv:1905.03375",
    needs={"history"},
)
class EASE:
    """Item-item weights in closed form: deterministic, strong, one setting that matters.

    While it fits, memory grows with the square of the catalogue: 2 bytes for each item times item (4 up to
    8,192 items), and the weights it keeps.
    Published: Gowalla Recall@20 .1765, NDCG@20 .1467 with reg 80 (BARS).
    """

    @dataclass(frozen=True)
    class Config:
        reg: float = setting(
            250.0,
            "Penalty on the squared item-item weights; a larger one trusts rare items less.",
            low=1e-6,
            log=True,
            search=(10.0, 2000.0),
        )
        weight: Weight = setting(
            "binary",
            "What an entry of the matrix is: 1, how often the item was chosen, or the events' value.",
            choices=("binary", "count", "value"),
        )
        keep: int = setting(
            1000,
            "Weights kept per item, the largest of all; up to four times as many items, or with 0, all are kept.",
            low=0,
        )
        precision: Precision = setting(
            "auto",
            "Number format of the inverse; auto takes float64 up to 8,192 items.",
            choices=("auto", "float32", "float64"),
        )

    def __init__(self, config: Config, schema: Schema) -> None:
        self.config, self.schema = config, schema
        self.weights: Any = None  # [I, I] float32 or csr_array: entry (i, j) is what item i says for item j
        self.kept = 1.0

    def program(self, data: Dataset) -> Program:
        dtype = _dtype(self.config.precision, data.n_items)
        _check_memory(data.n_items, self._keep(data.n_items), dtype)
        matrix = interaction_matrix(data, weight=self.config.weight)
        self.weights, self.kept = yield Fit(
            fit_weights, matrix, self.config.reg, keep=self._keep(data.n_items), dtype=dtype.name
        )

    def score(self, requests: Requests, items: NDArray[np.integer[Any]] | None = None) -> Floats:
        """History times weights [B, I], or [B, C] of the given items."""
        histories = history_matrix(requests, self.schema.n_items, weight=self.config.weight)
        return history_product(histories, self.weights, items)

    def export(self) -> State:
        stored = pack_csr("weights", self.weights) if sp.issparse(self.weights) else {"weights": self.weights}
        return {**stored, "kept": np.array([self.kept])}

    def restore(self, state: State) -> None:
        weights: Any = state["weights"] if "weights" in state else unpack_csr("weights", state)
        n, entries = self.schema.n_items, weights.data if sp.issparse(weights) else weights
        if weights.shape != (n, n) or weights.dtype != np.float32 or not np.isfinite(entries).all():
            raise BundleError(f"EASE of {n} items keeps finite float32 weights [{n}, {n}], got {list(weights.shape)}")
        if "kept" not in state or state["kept"].shape != (1,):
            raise BundleError("EASE keeps the share of the weights it holds as `kept`, one number")
        self.weights, self.kept = weights, float(state["kept"][0])

    def facts(self) -> dict[str, float]:
        return {"share of the weights lost": round(1.0 - self.kept, 6)}

    def _keep(self, n_items: int) -> int:
        """Weights per item that are stored; 0 where all are."""
        return 0 if n_items <= DENSE_UP_TO * self.config.keep else self.config.keep


def fit_weights(matrix: sp.csr_array, reg: float, *, keep: int = 0, dtype: str = "float64") -> tuple[Any, float]:
    """The weights B of a users-by-items matrix, and the share of their absolute mass that is kept.

    Shapes: matrix [U, I]; returns [I, I], a float32 array where `keep` is 0, else a csr_array with at most
    I * keep entries.

    Raises:
        DataError: the Gram matrix is not positive definite in this number format.
    """
    n = matrix.shape[1]
    with progress("EASE: item-item weights", 1.25 * n) as advance:
        by_item = matrix.T.tocsr()
        sides = (by_item.indptr, by_item.indices, by_item.data, matrix.indptr, matrix.indices, matrix.data)
        blocks = [np.zeros((len(rows), rows.stop), dtype=dtype) for rows in _row_blocks(n)]
        for block, rows in zip(blocks, _row_blocks(n), strict=True):
            _fill_gram(rows.start, *sides, block)
            np.einsum("ii->i", block[:, rows.start :])[:] += reg
        advance(0.05 * n)
        invert(blocks, advance)
        if keep:
            return _largest(blocks, keep, advance)
        weights = np.empty((n, n), dtype=np.float32)
        scale = _scale(blocks)
        for block, rows in zip(blocks, _row_blocks(n), strict=True):
            span = slice(rows.start, rows.stop)
            weights[span, : rows.stop] = block * scale[: rows.stop]
            weights[: rows.start, span] = block[:, : rows.start].T * scale[span]
        np.fill_diagonal(weights, 0.0)
        return weights, 1.0


def _row_blocks(n: int) -> list[range]:
    return [range(start, min(start + BLOCK, n)) for start in range(0, n, BLOCK)]


def invert(blocks: list[NDArray[Any]], advance: Callable[[float], None] = lambda amount: None) -> None:
    """Replace a symmetric positive definite matrix A by -A^-1, in half the memory of a square one.

    Block r holds rows r * BLOCK, ... of A from the first column up to the end of its own diagonal square. The
    blocks are swept one after the other: with D the inverse of a diagonal square, A_ij -= A_ik D A_kj, A_ik
    becomes A_ik D and the square -D. Nearly all of the n^3 operations are matrix products in place.

    Ref: Goodnight, "A tutorial on the SWEEP operator", The American Statistician 33(3), 1979.
    """
    n, dtype = (blocks[-1].shape[1], blocks[0].dtype) if blocks else (0, np.dtype(np.float32))
    product = get_blas_funcs("gemm", dtype=dtype)
    for k, rows in enumerate(_row_blocks(n)):
        panel = np.empty((n, len(rows)), dtype=dtype)  # A_ik of all i
        panel[: rows.stop] = blocks[k].T
        for other, block in zip(_row_blocks(n)[k + 1 :], blocks[k + 1 :], strict=True):
            panel[other.start : other.stop] = block[:, rows.start : rows.stop]
        pivot = _inverse(panel[rows.start : rows.stop], rows.start)
        scaled = panel @ pivot
        for i, (other, block) in enumerate(zip(_row_blocks(n), blocks, strict=True)):
            span = slice(other.start, other.stop)
            if i == k:
                block[:] = scaled[: rows.stop].T
                block[:, rows.start :] = -pivot
                continue
            product(-1, panel[: other.stop].T, scaled[span].T, 1, block.T, trans_a=1, overwrite_c=1)
            if i > k:
                block[:, rows.start : rows.stop] = scaled[span]
        advance(len(rows))


def _inverse(square: NDArray[Any], first: int) -> NDArray[Any]:
    """The inverse of one positive definite square."""
    factorise, finish = get_lapack_funcs(("potrf", "potri"), (square,))
    factor, failed = factorise(square, lower=1, clean=1)
    if failed:
        raise DataError(
            f"X'X + reg is not positive definite in {square.dtype} (item {first + failed - 1})",
            hint="raise reg, or set precision to float64",
        )
    lower = finish(factor, lower=1)[0]
    return np.tril(lower) + np.tril(lower, -1).T  # type: ignore[no-any-return]


def _largest(blocks: list[NDArray[Any]], keep: int, advance: Callable[[float], None]) -> tuple[sp.csr_array, float]:
    """The n * keep largest weights of B, given -P, and their share of B's absolute mass."""
    n = blocks[-1].shape[1]
    scale = _scale(blocks)
    counts = np.zeros(1 << 16, dtype=np.int64)
    for rows, block in zip(_row_blocks(n), blocks, strict=True):
        _count_sizes(rows.start, block, scale, counts)
    above = np.cumsum(counts[::-1])[::-1]  # how many weights are in this bin of sizes or a higher one
    limit = np.uint32(max(int(np.argmax(above <= n * keep)), 1) << 15).view(np.float32)
    places, values, found, mass = [], [], [np.zeros(1, dtype=np.int64)], np.zeros(2)
    for k, rows in enumerate(_row_blocks(n)):
        columns = np.empty((len(rows), n), dtype=np.float32)  # of B, one a row
        columns[:, : rows.stop] = blocks[k]
        for other, block in zip(_row_blocks(n)[k + 1 :], blocks[k + 1 :], strict=True):
            columns[:, other.start : other.stop] = block[:, rows.start : rows.stop].T
        columns *= scale[rows.start : rows.stop, None].astype(np.float32)
        columns[np.arange(len(rows)), rows] = 0.0
        sizes = np.abs(columns)
        chosen = sizes >= limit
        found.append(chosen.sum(axis=1))
        places.append(np.nonzero(chosen)[1].astype(np.int32))
        values.append(columns[chosen])
        mass += sizes.sum(dtype=np.float64), np.abs(values[-1]).sum(dtype=np.float64)
        advance(0.2 * len(rows))
    parts = np.concatenate(values), np.concatenate(places), np.cumsum(np.concatenate(found))
    return sp.csc_array(parts, shape=(n, n)).tocsr(), float(mass[1] / mass[0]) if mass[0] else 1.0


def _scale(blocks: list[NDArray[Any]]) -> NDArray[Any]:
    """What turns column j of -P into column j of B."""
    squares = zip(_row_blocks(sum(map(len, blocks))), blocks, strict=True)
    return -1.0 / np.concatenate([block.diagonal(rows.start) for rows, block in squares])  # type: ignore[no-any-return]


def _dtype(precision: Precision, n_items: int) -> np.dtype[Any]:
    if precision == "auto":
        precision = "float64" if n_items <= EXACT_UP_TO else "float32"
    return np.dtype(precision)


def _check_memory(n_items: int, keep: int, dtype: np.dtype[Any]) -> None:
    """Refuse what cannot fit before anything is allocated."""
    half = dtype.itemsize * n_items * (n_items + 6 * BLOCK) / 2  # the blocks, and two panels
    weights = 24 * n_items * keep if keep else 4 * n_items**2  # found, by column, by row; or all of them
    need, free = (half + weights) / 2**30, available_memory_mb() / 2**10
    if need > free:
        raise BudgetExceeded(
            f"EASE of {n_items:,} items needs {need:,.1f} GB of memory in {dtype}, {free:,.1f} GB are available",
            hint="drop rare items (a k-core), lower keep, or take slim or item-knn, which hold kept weights alone",
        )


@njit(cache=True, parallel=True, nogil=True)
def _fill_gram(
    first: int, item_starts: Any, users: Any, item_data: Any, user_starts: Any, items: Any, user_data: Any, out: Any
) -> None:
    """Rows of X'X from item `first` on, up to the last of these items' own columns."""
    for r in prange(len(out)):
        row = out[r]
        for p in range(item_starts[first + r], item_starts[first + r + 1]):
            u, x = users[p], item_data[p]
            for q in range(user_starts[u], user_starts[u + 1]):
                if items[q] >= len(row):
                    break  # columns of a row rise
                row[items[q]] += x * user_data[q]


@njit(cache=True, nogil=True)
def _count_sizes(first: int, block: Any, scale: Any, counts: Any) -> None:
    """Count the weights on both sides of the diagonal by size: the upper half of a float's bits, sign left out."""
    for r in range(len(block)):
        i = first + r
        for j in range(i):
            for weight in (block[r, j] * scale[j], block[r, j] * scale[i]):
                counts[np.float32(abs(weight)).view(np.uint32) >> 15] += 1
