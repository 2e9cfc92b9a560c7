"""Nearest rows of sparse matrices, never dense in more than one row a thread.

Rows are "documents" and columns "terms": for similarities between items the documents are items and the terms
are the users who chose them, for similarities between users the other way round.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
from numba import get_num_threads, njit, prange
from numpy.typing import NDArray

from tastemaker.types import UsageError, mix, progress

Similarity = Literal["cosine", "jaccard", "dot"]
Weighting = Literal["none", "tfidf", "bm25"]

BLOCK_WORK = 200_000_000  # multiplications between two steps of the progress bar
SERIAL_WORK = 300_000  # fewer additions than this are done before a second thread has woken up


@dataclass(frozen=True)
class Measure:
    """How similar a document x (of the history) and a document y (the other one) are, from their inner product.

    cosine: x.y / (|x|^(2 alpha) |y|^(2 - 2 alpha) + shrinkage); alpha 0.5 is the cosine, alpha 1 on binary
        matrices the conditional probability of y given x
    jaccard: x.y / (|x|^2 + |y|^2 - x.y + shrinkage); on binary matrices shared terms / all terms (Tanimoto)
    dot: x.y

    Ref: alpha: Aiolli, "Efficient top-N recommendation for very large scale binary rated datasets", RecSys 2013;
    shrinkage: as the neighbourhood baselines of Ferrari Dacrema et al., TOIS 2021 (arXiv:1911.07698), have it.
    """

    kind: Similarity = "cosine"
    alpha: float = 0.5
    shrinkage: float = 0.0

    def sizes(self, squares: NDArray[np.float64], *, history: bool) -> NDArray[np.float64]:
        """What each document brings to the denominator, from its squared length."""
        if self.kind == "cosine":
            return np.asarray(squares ** (self.alpha if history else 1 - self.alpha))
        return squares if self.kind == "jaccard" else np.ones_like(squares)

    @property
    def damping(self) -> float:
        return 0.0 if self.kind == "dot" else self.shrinkage


@dataclass(frozen=True)
class TermWeights:
    """Weights of terms, learned from a matrix of documents and applied to others of the same columns.

    tfidf: sqrt(tf) (1 + log((1 + N) / (1 + df)))
    bm25: tf (k1 + 1) / (tf + k1 (1 - b + b length / mean length)) log(1 + (N - df + 0.5) / (df + 0.5))

    with N documents, df those that hold the term, tf the entry, length the sum of a document's entries.

    Ref: Robertson and Zaragoza, "The probabilistic relevance framework: BM25 and beyond", 2009, with the logarithm
    kept positive as Lucene does; tfidf as Lucene's classic similarity.

    Shapes: idf [F]
    """

    how: Weighting
    idf: NDArray[np.float32]
    mean_length: float
    k1: float
    b: float

    @classmethod
    def of(cls, documents: sp.csr_array, how: Weighting, *, k1: float = 1.2, b: float = 0.75) -> TermWeights:
        n, n_terms = documents.shape
        df = np.bincount(documents.indices, minlength=n_terms)
        idf = 1 + np.log((1 + n) / (1 + df)) if how == "tfidf" else np.log1p((n - df + 0.5) / (df + 0.5))
        mean = float(documents.data.sum(dtype=np.float64)) / max(n, 1)
        return cls(how, idf.astype(np.float32), mean, k1, b)

    def apply(self, documents: sp.csr_array) -> sp.csr_array:
        """The documents with weights for entries; the structure is shared."""
        if self.how == "none":
            return documents
        tf = np.maximum(documents.data, 0)
        if self.how == "tfidf":
            tf = np.sqrt(tf)
        else:
            length = np.asarray(documents.sum(axis=1, dtype=np.float64))
            share = 1 - self.b + self.b * length / (self.mean_length or 1.0)
            pull = np.repeat(np.float32(self.k1) * share.astype(np.float32), np.diff(documents.indptr))
            tf = tf * np.float32(self.k1 + 1) / np.maximum(tf + pull, np.float32(1e-12))
        weights = (tf * self.idf[documents.indices]).astype(np.float32)
        return sp.csr_array((weights, documents.indices, documents.indptr), shape=documents.shape)


def transposed(matrix: sp.csr_array) -> sp.csr_array:
    """The transpose, stored by rows, its columns sorted."""
    return sp.csr_array(matrix.T.tocsr())


def squared_lengths(matrix: sp.csr_array) -> NDArray[np.float64]:
    """The sum of squares of each row."""
    squares = matrix.data.astype(np.float64) ** 2
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    return np.bincount(rows, squares, minlength=matrix.shape[0]).astype(np.float64, copy=False)


class Neighbours:
    """Documents ready to be searched for those nearest to others.

    Args:
        documents: what is searched, N documents of F terms.
        measure: the similarity; `history` says whether the documents searched are its x (of the history).

    Ties are broken by a hash of the document's number, never by its order. Only positive similarities count.
    """

    def __init__(self, documents: sp.csr_array, measure: Measure, *, history: bool = False) -> None:
        self.postings = transposed(documents)
        self.measure, self.history = measure, history
        self.sizes = measure.sizes(squared_lengths(documents), history=history)
        self.order = np.argsort(mix(np.arange(documents.shape[0])), kind="stable").astype(np.uint32)
        self.rank = np.empty_like(self.order)
        self.rank[self.order] = np.arange(len(self.order), dtype=np.uint32)

    def nearest(
        self, queries: sp.csr_array, k: int, *, leave_out: NDArray[np.integer[Any]] | None = None
    ) -> sp.csr_array:
        """The `k` most similar documents of each query, as a row of similarities; fewer where fewer share a term.

        Shapes: queries [B, F]; leave_out [B], a document that is none of the row's neighbours, or -1; returns
        [B, N] with at most k entries a row, in no order.
        """
        n_rows, n = queries.shape[0], len(self.sizes)
        if queries.shape[1] != len(self.postings.indptr) - 1:
            raise UsageError(f"queries need {len(self.postings.indptr) - 1} columns, got {queries.shape[1]}")
        k = min(k, n)
        out = np.full(n_rows, -1) if leave_out is None else np.where(leave_out < n, leave_out, -1)
        own = self.measure.sizes(squared_lengths(queries), history=not self.history)
        lengths = np.diff(self.postings.indptr)
        work = np.concatenate([[0], np.cumsum(lengths[queries.indices], dtype=np.int64)])[queries.indptr]
        ids, values = np.empty((n_rows, k), dtype=np.int32), np.empty((n_rows, k), dtype=np.float32)
        counts = np.zeros(n_rows, dtype=np.int64)
        rule = self.measure.kind == "jaccard", float(self.measure.damping)
        with progress("nearest neighbours", float(max(work[-1], 1))) as advance:
            for start, stop in _blocks(work, BLOCK_WORK):
                bounds = start + _cuts(work[start : stop + 1], work[stop] - work[start])
                given = (*_arrays(queries), own, out, *_arrays(self.postings), self.sizes, *rule, self.rank, self.order)
                run = _nearest if len(bounds) > 2 else _nearest_serial
                run(bounds, work, *given, ids, values, counts)
                advance(float(work[stop] - work[start]))
        keep = np.arange(k) < counts[:, None]
        indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64 if n_rows * k >= 2**31 else np.int32)
        return sp.csr_array((values[keep], ids[keep].astype(indptr.dtype, copy=False), indptr), shape=(n_rows, n))


def _arrays(matrix: sp.csr_array) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float32]]:
    return matrix.indptr, matrix.indices, matrix.data.astype(np.float32, copy=False)


def _blocks(work: NDArray[np.int64], most: int) -> list[tuple[int, int]]:
    """Runs of rows that cost about `most` each."""
    n = len(work) - 1
    edges = np.searchsorted(work, np.arange(0, int(work[-1]), most)[1:], side="left")
    edges = np.unique(np.concatenate([[0], edges, [n]]))
    return [(int(start), int(stop)) for start, stop in pairwise(edges)]


def _cuts(work: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """Where to cut rows into parts of equal cost, some for each thread; one part where there is little to do."""
    n = len(work) - 1
    parts = 1 if total < SERIAL_WORK else min(n, 8 * get_num_threads())
    goals = work[0] + total * np.arange(1, parts) // max(parts, 1)
    return np.unique(np.concatenate([[0], np.searchsorted(work, goals), [n]]))


@njit(cache=True, nogil=True)
def _largest_first(keys: Any, n: int, k: int) -> None:
    """Move the k largest of keys[:n] to the front (Hoare's quickselect)."""
    low, high = 0, n - 1
    while low < high:
        pivot, i, j = keys[(low + high) >> 1], low, high
        while i <= j:
            while keys[i] > pivot:
                i += 1
            while keys[j] < pivot:
                j -= 1
            if i <= j:
                keys[i], keys[j] = keys[j], keys[i]
                i += 1
                j -= 1
        if k - 1 <= j:
            high = j
        elif k - 1 >= i:
            low = i
        else:
            break


@njit(cache=True, nogil=True)
def _select(
    found: Any, dots: Any, own: float, sizes: Any, jaccard: bool, damping: float, rank: Any, k: int, keys: Any
) -> int:
    """Put the keys of the k most similar of the found documents first in `keys`; how many there are.

    A positive float32 and its bits have the same order, so one whole number holds similarity and tie-breaker.
    """
    n = 0
    floor: Any = 0.0
    for place in range(len(found)):
        j, dot = found[place], dots[place]
        below = own + sizes[j] - dot + damping if jaccard else own * sizes[j] + damping
        if dot < floor * below or below <= 0:
            continue
        keys[n] = (np.uint64(np.float32(dot / below).view(np.uint32)) << np.uint64(32)) | np.uint64(rank[j])
        n += 1
        if n == len(keys):
            _largest_first(keys, n, k)
            n = k
            floor = np.uint32(keys[:k].min() >> np.uint64(32)).view(np.float32) * (1 - 1e-6)  # for rounding
    if n > k:
        _largest_first(keys, n, k)
    return min(n, k)


@njit(cache=True, nogil=True)
def _nearest_part(
    first: int,
    last: int,
    work: Any,
    q_indptr: Any,
    q_indices: Any,
    q_data: Any,
    own: Any,
    leave_out: Any,
    p_indptr: Any,
    p_indices: Any,
    p_data: Any,
    sizes: Any,
    jaccard: bool,
    damping: float,
    rank: Any,
    order: Any,
    ids: Any,
    values: Any,
    counts: Any,
) -> None:
    """Rows `first` to `last`: inner products gathered in one dense row (Gustavson 1978), then the best k of it."""
    n_documents, k = len(sizes), ids.shape[1]
    whole = np.zeros(n_documents, dtype=np.float32)
    found, dots = np.empty(n_documents + 1, dtype=np.int32), np.empty(n_documents + 1, dtype=np.float32)
    keys = np.empty(4 * k + 64, dtype=np.uint64)
    for row in range(first, last):
        for place in range(q_indptr[row], q_indptr[row + 1]):
            term, weight = q_indices[place], q_data[place]
            for posting in range(p_indptr[term], p_indptr[term + 1]):
                whole[p_indices[posting]] += weight * p_data[posting]
        if leave_out[row] >= 0:
            whole[leave_out[row]] = 0
        n = 0  # what is not positive is overwritten by the next: no branch that nobody can predict
        if work[row + 1] - work[row] > n_documents // 2:  # most documents share a term: look at all
            for j in range(n_documents):
                found[n], dots[n] = j, whole[j]
                n += whole[j] > 0
            whole[:] = 0
        else:  # walk the postings once more; at its second sight a document is 0
            for place in range(q_indptr[row], q_indptr[row + 1]):
                term = q_indices[place]
                for posting in range(p_indptr[term], p_indptr[term + 1]):
                    j = p_indices[posting]
                    found[n], dots[n] = j, whole[j]
                    n += whole[j] > 0
                    whole[j] = 0
        n = _select(found[:n], dots[:n], own[row], sizes, jaccard, damping, rank, k, keys)
        counts[row] = n
        for place in range(n):
            ids[row, place] = order[keys[place] & np.uint64(0xFFFFFFFF)]
            values[row, place] = np.uint32(keys[place] >> np.uint64(32)).view(np.float32)


@njit(cache=True, nogil=True)
def _nearest_serial(bounds: Any, work: Any, *given: Any) -> None:
    _nearest_part(bounds[0], bounds[-1], work, *given)


@njit(cache=True, nogil=True, parallel=True)
def _nearest(bounds: Any, work: Any, *given: Any) -> None:
    for part in prange(len(bounds) - 1):
        _nearest_part(bounds[part], bounds[part + 1], work, *given)
