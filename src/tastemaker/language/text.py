"""Vectors of texts without a language model: counts of words, weighed by rarity, in the space of their main axes.

    state = fit_text(texts, 100)              # arrays: what is cached and bundled
    encoder = TfidfSvd.of(state)              # a TextEncoder
    encoder.encode(["a new text"])            # [1, 100], of unit length

Ref: Salton, Buckley, "Term-weighting approaches in automatic text retrieval", 1988; Deerwester et al., "Indexing by
latent semantic analysis", JASIS 1990.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
import scipy.sparse as sp
from numba import njit
from numpy.typing import NDArray
from scipy.sparse.linalg import svds

from tastemaker.types import BundleError, NotFound, State, generator, nearest

Floats = NDArray[np.float32]
VERSION = 1
SMALL = 300  # texts or words up to which the matrix is taken apart whole


@dataclass(frozen=True, eq=False)
class TfidfSvd:
    """Texts to vectors of unit length; a text without a known word is 0.

    Shapes:
        words: [V] uint64, hashes of the known words, rising
        rarity: [V] float32, weight of each word: log((1 + n) / (1 + texts it is in)) + 1
        axes: [V, D] float32, what each word adds to a vector
    """

    words: NDArray[np.uint64]
    rarity: Floats
    axes: Floats

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> TfidfSvd:
        """From what `fit_text` gave; checked, since it may come with a stranger's bundle."""
        try:
            words, rarity, axes = (np.asarray(state[name]) for name in ("words", "rarity", "axes"))
        except KeyError as error:
            raise BundleError(f"a text encoder keeps {error.args[0]!r}, which is not here") from error
        whole = words.ndim == 1 and axes.ndim == 2 and len(words) == len(axes) and rarity.shape == words.shape
        if not whole or words.dtype != np.uint64 or not (np.isfinite(rarity).all() and np.isfinite(axes).all()):
            raise BundleError("the words, weights and axes of a text encoder do not fit one another")
        if (words[1:] <= words[:-1]).any():
            raise BundleError("the words of a text encoder must rise")
        return cls(words, rarity.astype(np.float32, copy=False), axes.astype(np.float32, copy=False))

    def state(self) -> State:
        return {"words": self.words, "rarity": self.rarity, "axes": self.axes}

    @property
    def dim(self) -> int:
        return int(self.axes.shape[1])

    @cached_property
    def identity(self) -> str:
        """Name, version and a hash of what was learnt."""
        total = hashlib.blake2b(digest_size=8)
        for array in (self.words, self.rarity, self.axes):
            total.update(array.tobytes())
        return f"tfidf-svd-{VERSION}-{total.hexdigest()}"

    def encode(self, texts: Sequence[str]) -> Floats:
        """Vectors [n, D]; equal texts give equal vectors, whatever stands beside them."""
        offsets, hashes = tokens(texts)
        place = np.searchsorted(self.words, hashes)
        known = place < len(self.words)
        known[known] = self.words[place[known]] == hashes[known]
        rows = np.repeat(np.arange(len(texts)), np.diff(offsets))[known]
        return _unit(_weighted(rows, place[known], self.rarity, len(texts)) @ self.axes)


def fit_text(
    texts: Sequence[str], dim: int, *, least: int = 2, most: float = 0.5, words: int = 50_000, seed: int = 0
) -> dict[str, NDArray[Any]]:
    """What a `TfidfSvd` of `dim` axes knows: learnt from texts, of any number.

    Args:
        dim: axes; where the texts span fewer, the others stay 0.
        least: a word in fewer texts than this is not known.
        most: a word in a larger share of the texts than this is not known; it tells nothing.
        words: how many words are known at most, those in most texts first.
    """
    offsets, hashes = tokens(texts)
    rows = np.repeat(np.arange(len(texts)), np.diff(offsets))
    found, place = np.unique(hashes, return_inverse=True)
    counted = sp.csr_array((np.ones(len(rows), dtype=np.float32), (rows, place)), shape=(len(texts), len(found)))
    texts_with = np.bincount(counted.indices, minlength=len(found))
    keep = np.flatnonzero((texts_with >= least) & (texts_with <= max(least, most * len(texts))))
    if len(keep) > words:
        keep = np.sort(keep[np.argsort(-texts_with[keep], kind="stable")[:words]])
    rarity = (np.log((1 + len(texts)) / (1 + texts_with[keep])) + 1).astype(np.float32)
    new_place = np.full(len(found), -1)
    new_place[keep] = np.arange(len(keep))
    known = new_place[place] >= 0
    matrix = _weighted(rows[known], new_place[place[known]], rarity, len(texts))
    return {"words": found[keep], "rarity": rarity, "axes": _axes(matrix, dim, generator(seed, "text axes"))}


def item_texts(items: pl.DataFrame, columns: Sequence[str] = ()) -> list[str]:
    """One text a row: words and lists of words of the named columns, in their order; numbers are words too.

    Args:
        columns: none named: every column of text or lists of text, but for the ids.

    Raises:
        NotFound: a column is not there.
    """
    listed = pl.List(pl.String)
    wordy = [name for name, kind in items.schema.items() if kind in (pl.String, listed) and name != "item"]
    for name in columns:
        if name not in items.columns:
            raise NotFound(f"the items have no column {name!r}", hint=nearest(name, wordy))
    parts = [
        (
            pl.col(name).cast(listed).list.join(" ")
            if isinstance(items.schema[name], pl.List)
            else pl.col(name).cast(pl.String)
        ).fill_null("")
        for name in columns or wordy
    ]
    joined = items.select(pl.concat_str(parts, separator=". ") if parts else pl.lit("")).to_series()
    return list(joined) if len(joined) == items.height else [""] * items.height


def tokens(texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Hashes of the words of each text, in their order: offsets [n + 1] and hashes [N].

    A word is a run of letters, digits and signs beyond ASCII, in lower case.
    """
    lower = pl.Series(list(texts), dtype=pl.String).fill_null("").str.to_lowercase()
    sizes = lower.str.len_bytes().to_numpy().astype(np.int64)
    bounds = np.concatenate([[0], np.cumsum(sizes)])
    content = np.frombuffer("".join(lower).encode(), dtype=np.uint8)
    offsets, hashes = np.zeros(len(sizes) + 1, dtype=np.int64), np.empty(len(content) // 2 + len(sizes), np.uint64)
    n = _hash_words(content, bounds, offsets, hashes)
    return offsets, hashes[:n]


def _weighted(rows: NDArray[Any], words: NDArray[Any], rarity: Floats, n: int) -> sp.csr_array:
    """Texts by words, each entry (1 + log count) times the word's rarity, each row of unit length."""
    ones = np.ones(len(rows), dtype=np.float32)
    matrix = sp.csr_array((ones, (rows, words)), shape=(n, len(rarity)))
    matrix.sum_duplicates()
    matrix.data = (1 + np.log(matrix.data)) * rarity[matrix.indices]
    lengths = np.sqrt(np.bincount(np.repeat(np.arange(n), np.diff(matrix.indptr)), matrix.data**2, n))
    matrix.data /= np.repeat(np.where(lengths > 0, lengths, 1), np.diff(matrix.indptr)).astype(np.float32)
    return matrix


def _axes(matrix: sp.csr_array, dim: int, rng: np.random.Generator) -> Floats:
    """The leading right singular vectors [V, dim], the largest entry of each positive; zeros past the rank."""
    axes = np.zeros((matrix.shape[1], dim), dtype=np.float32)
    smaller = min(matrix.shape)
    if not matrix.nnz:
        return axes
    if dim >= smaller or smaller <= SMALL:
        _, values, turned = np.linalg.svd(matrix.toarray(), full_matrices=False)
    else:
        start = rng.standard_normal(smaller).astype(np.float32)
        _, values, turned = svds(matrix, dim, v0=start, return_singular_vectors="vh")
    order = np.argsort(-values, kind="stable")[:dim]
    order = order[values[order] > values.max() * 1e-5]
    found = turned[order].T
    largest = np.take_along_axis(found, np.abs(found).argmax(axis=0)[None], axis=0)
    axes[:, : found.shape[1]] = found * np.sign(largest)
    return axes


def _unit(vectors: NDArray[Any]) -> Floats:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(lengths > 1e-12, lengths, 1)).astype(np.float32)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _hash_words(content: Any, bounds: Any, offsets: Any, hashes: Any) -> int:
    """FNV-1a of every word, 64 bits. Ref: Fowler, Noll, Vo, draft-eastlake-fnv."""
    n = 0
    for text in range(len(bounds) - 1):
        state, inside = np.uint64(0xCBF29CE484222325), False
        for place in range(bounds[text], bounds[text + 1]):
            byte = content[place]
            letter = (byte >= 97 and byte <= 122) or (byte >= 48 and byte <= 57) or byte >= 128
            if letter:
                state = (state ^ np.uint64(byte)) * np.uint64(0x100000001B3)
                inside = True
            elif inside:
                hashes[n] = state
                n += 1
                state, inside = np.uint64(0xCBF29CE484222325), False
        if inside:
            hashes[n] = state
            n += 1
        offsets[text + 1] = n
    return n
