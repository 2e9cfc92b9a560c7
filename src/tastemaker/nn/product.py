"""Products of histories with item tables and item-item weights.

A row of a result is summed in the order of its history, whatever rows stand beside it, so a request scores
the same to the bit alone and in a batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from numba import njit, prange
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def history_product(
    histories: sp.csr_array,
    table: Any,
    columns: NDArray[np.integer[Any]] | None = None,
    start: Floats | None = None,
) -> Floats:
    """`start + histories @ table` as a dense array, on all cores.

    Shapes:
        histories: [B, I] float32, canonical
        table: [I, D] float32, an array or a csr_array
        columns: [B, C] column numbers, or None for all; a number out of range scores 0
        start: [D], what every row starts from, or None for zeros
        returns [B, D], or [B, C]
    """
    indptr, indices, data = histories.indptr, histories.indices, histories.data
    n_columns = table.shape[1]
    start = np.zeros(n_columns, dtype=np.float32) if start is None else start
    if columns is None:
        out = np.empty((histories.shape[0], n_columns), dtype=np.float32)
        if sp.issparse(table):
            _sparse(indptr, indices, data, table.indptr, table.indices, table.data, start, out)
        else:
            _dense(indptr, indices, data, table, start, out)
        return out
    picked = np.zeros(columns.shape, dtype=np.float32)
    if sp.issparse(table):
        _sparse_picked(indptr, indices, data, table.indptr, table.indices, table.data, start, columns, picked)
    else:
        _dense_picked(indptr, indices, data, table, start, columns, picked)
    return picked


@njit(cache=True, parallel=True, nogil=True)
def _dense(indptr: Any, indices: Any, data: Any, table: Any, start: Any, out: Any) -> None:
    for b in prange(len(out)):
        row = out[b]
        row[:] = start
        for p in range(indptr[b], indptr[b + 1]):
            weight, values = data[p], table[indices[p]]
            for j in range(len(row)):
                row[j] += weight * values[j]


@njit(cache=True, parallel=True, nogil=True)
def _dense_picked(indptr: Any, indices: Any, data: Any, table: Any, start: Any, columns: Any, out: Any) -> None:
    for b in prange(len(out)):
        for c in range(columns.shape[1]):
            j = columns[b, c]
            if 0 <= j < table.shape[1]:
                out[b, c] = start[j]
                for p in range(indptr[b], indptr[b + 1]):
                    out[b, c] += data[p] * table[indices[p], j]


@njit(cache=True, parallel=True, nogil=True)
def _sparse(indptr: Any, indices: Any, data: Any, starts: Any, places: Any, values: Any, start: Any, out: Any) -> None:
    for b in prange(len(out)):
        row = out[b]
        row[:] = start
        for p in range(indptr[b], indptr[b + 1]):
            weight, i = data[p], indices[p]
            for q in range(starts[i], starts[i + 1]):
                row[places[q]] += weight * values[q]


@njit(cache=True, parallel=True, nogil=True)
def _sparse_picked(
    indptr: Any, indices: Any, data: Any, starts: Any, places: Any, values: Any, start: Any, columns: Any, out: Any
) -> None:
    for b in prange(len(out)):
        row = start.copy()
        for p in range(indptr[b], indptr[b + 1]):
            weight, i = data[p], indices[p]
            for q in range(starts[i], starts[i + 1]):
                row[places[q]] += weight * values[q]
        for c in range(columns.shape[1]):
            j = columns[b, c]
            if 0 <= j < len(row):
                out[b, c] = row[j]
