"""Choices as a sparse matrix: users by items when learning, requests by items when answering.

Both matrices are made by the same code, so what a system is shown of a user weighs what it weighed in training.
`bags` is a feed of the rows of such a matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from tastemaker.feeds.feed import RowFeed, Rows
from tastemaker.types import DataError, Dataset, Requests

Weight = Literal["binary", "count", "value"]
"""What an entry is: 1; how often the user chose the item; the events' value (rating, seconds, ...)."""

Repeats = Literal["last", "sum"]
"""What becomes of the values of a user's events with the same item."""


def interaction_matrix(data: Dataset, *, weight: Weight = "binary", repeats: Repeats = "last") -> sp.csr_array:
    """Who chose what: a float32 matrix of users by items, columns sorted within rows, no entry twice.

    Impressions and events without an item do not count. An event without a value has the value 1.

    Args:
        weight: see `Weight`.
        repeats: for values only, whether the latest counts (ratings) or their sum (seconds).

    Shapes: returns [U, I]; users and items without events are empty rows and columns.

    Raises:
        DataError: `weight` is "value" and events have no values, or an infinite one.
    """
    chosen = data.interactions()
    values = None
    if weight == "value":
        if "value" not in chosen.columns:
            raise DataError(f"the events of {data.name} have no column 'value'", hint="weigh by 'binary' or 'count'")
        values = chosen["value"].fill_null(1.0).to_numpy()
    counts = np.bincount(chosen["user"].to_numpy(), minlength=data.n_users)
    offsets = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
    return _matrix(offsets, chosen["item"].to_numpy(), values, data.n_items, weight, repeats)


def history_matrix(
    requests: Requests, n_items: int, *, weight: Weight = "binary", repeats: Repeats = "last"
) -> sp.csr_array:
    """The requests' histories as rows like those of `interaction_matrix`.

    Items without a number, or with one past `n_items` (they arrived after training), are left out. Where
    values are asked for and the history carries none, every event has the value 1.

    Shapes: returns [B, n_items].
    """
    items = requests.items() if requests.history is None else requests.history.column("item")
    columns = requests.history.values if requests.history is not None else {}
    values = columns["value"] if weight == "value" and "value" in columns else None
    return _matrix(items.offsets, items.values, values, n_items, weight, repeats)


@dataclass(frozen=True, eq=False)
class Bags:
    """B rows of a sparse matrix: what autoencoders read and are to give back.

    Shapes:
        rows: [B] int64, which rows they are
        items: [N] int64, rising within a row
        values: [N] float32
        offsets: [B + 1] int64, row b is items[offsets[b]:offsets[b + 1]]
    """

    rows: Any
    items: Any
    values: Any
    offsets: Any

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def owners(self) -> Any:
        """The user of each row [B]."""
        return self.rows

    def take(self, rows: slice) -> Bags:
        offsets, items, values = cut_bags(rows, self.offsets, self.items, self.values)
        return Bags(self.rows[rows], items, values, offsets)

    @classmethod
    def of(cls, matrix: sp.csr_array, rows: NDArray[np.int64] | None = None) -> Bags:
        """The named rows of a matrix; None: all of them."""
        if rows is None:
            rows = np.arange(matrix.shape[0])
        else:
            matrix = matrix[rows]
        return cls(rows, matrix.indices.astype(np.int64), matrix.data, matrix.indptr.astype(np.int64))


def bags(matrix: sp.csr_array, batch_size: int) -> RowFeed[Bags]:
    """Every row of the matrix that has an entry, once an epoch, in random order."""
    filled = np.flatnonzero(np.diff(matrix.indptr))

    def make(rows: Rows, rng: np.random.Generator) -> Bags:
        return Bags.of(matrix, filled[rows])

    return RowFeed(len(filled), batch_size, make)


def cut_bags(rows: slice, offsets: Any, *values: Any) -> tuple[Any, ...]:
    """Offsets and values of consecutive rows."""
    first, last, _ = rows.indices(len(offsets) - 1)
    cut = offsets[first : max(first, last) + 1]
    return (cut - cut[0], *(value[cut[0] : cut[-1]] for value in values))


def _matrix(
    offsets: NDArray[np.int64],
    items: NDArray[np.integer[Any]],
    values: NDArray[Any] | None,
    n_items: int,
    weight: Weight,
    repeats: Repeats,
) -> sp.csr_array:
    weights = np.ones(len(items), dtype=np.float32)
    if values is not None:
        weights = np.nan_to_num(np.asarray(values, dtype=np.float32), nan=1.0, posinf=np.inf, neginf=-np.inf)
        if not np.isfinite(weights).all():
            raise DataError("values of events must be finite to weigh them", hint="weigh by 'binary' or 'count'")
    if len(items) and (items.min() < 0 or items.max() >= n_items):
        known = (items >= 0) & (items < n_items)
        offsets = np.concatenate([[0], np.cumsum(known)])[offsets]
        items, weights = items[known], weights[known]
    add = weight == "count" or (weight == "value" and repeats == "sum")
    last = values is not None and not add
    index = np.int32 if max(len(items), n_items) < 2**31 else np.int64
    entries = np.arange(len(items)) if last else weights
    matrix = sp.csr_array((entries, items.astype(index), offsets.astype(index)), shape=(len(offsets) - 1, n_items))
    if last:
        return _latest(matrix, weights)
    matrix.sum_duplicates()
    if not add:
        matrix.data[:] = 1.0
    return matrix


def _latest(places: sp.csr_array, weights: NDArray[np.float32]) -> sp.csr_array:
    """Of entries with the same row and column, which hold their places in time, the weight of the latest."""
    places.sort_indices()
    new = np.ones(places.nnz, dtype=np.bool_)
    new[1:] = np.diff(places.indices) != 0
    starts = places.indptr[:-1]
    new[starts[starts < places.nnz]] = True
    first = np.flatnonzero(new)
    latest = np.maximum.reduceat(places.data, first) if len(first) else first
    indptr = np.concatenate([[0], np.cumsum(new)])[places.indptr].astype(places.indptr.dtype)
    matrix = sp.csr_array((weights[latest], places.indices[first], indptr), shape=places.shape)
    matrix.has_canonical_format = True
    return matrix
