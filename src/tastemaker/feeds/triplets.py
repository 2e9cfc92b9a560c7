"""Triples of a user, an item the user chose, and items the user did not choose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp

from tastemaker.feeds.feed import RowFeed, Rows
from tastemaker.feeds.negatives import Sampler, uniform


@dataclass(frozen=True, eq=False)
class Triplets:
    """B choices and what they are held against.

    Shapes:
        users, items: [B] int64
        negatives: [B, n] int64, or [n] where the whole batch shares them
    """

    users: Any
    items: Any
    negatives: Any

    def __len__(self) -> int:
        return len(self.users)

    def take(self, rows: slice) -> Triplets:
        negatives = self.negatives[rows] if self.negatives.ndim > 1 else self.negatives
        return Triplets(self.users[rows], self.items[rows], negatives)


def triplets(
    matrix: sp.csr_array,
    batch_size: int,
    negatives: Sampler | None = None,
    *,
    draw: Literal["choices", "users"] = "choices",
) -> RowFeed[Triplets]:
    """Every choice once an epoch, in random order, each with negatives.

    Args:
        matrix: who chose what [U, I], as `interaction_matrix` gives it.
        negatives: see `tastemaker.feeds.negatives`; default: one item the user did not choose, all alike.
        draw: "choices", or "users": as many pairs an epoch, each of a user drawn at random and one of the
            user's choices, so that every user counts alike (as the reference code of LightGCN does).
    """
    sampler = uniform(matrix, 1) if negatives is None else negatives
    rows_of = np.repeat(np.arange(matrix.shape[0], dtype=np.int64), np.diff(matrix.indptr))
    items_of = matrix.indices.astype(np.int64)
    active = np.flatnonzero(np.diff(matrix.indptr))

    def make(rows: Rows, rng: np.random.Generator) -> Triplets:
        if draw == "users":
            users = active[rng.integers(0, len(active), len(rows))]
            starts, stops = matrix.indptr[users], matrix.indptr[users + 1]
            rows = starts + rng.integers(0, stops - starts)
        users = rows_of[rows]
        return Triplets(users, items_of[rows], sampler(users, rng))

    return RowFeed(matrix.nnz, batch_size, make)
