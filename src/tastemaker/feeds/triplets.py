"""Triples of a user, an item the user chose, and items the user did not choose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from tastemaker.feeds.feed import RowFeed, Rows
from tastemaker.feeds.matrix import cut_bags
from tastemaker.feeds.negatives import Sampler, clashes, uniform
from tastemaker.types import Jagged


@dataclass(frozen=True, eq=False)
class Triplets:
    """B choices and what they are held against.

    Shapes:
        users, items: [B] int64
        negatives: [B, n] int64, or [n] where the whole batch shares them
        clashes: [B, n] bool, where negatives are shared: which of them the user chose; else None
        pool: [M] int64, the distinct items of the users' histories, where those are asked for; else None
        history: [N] int64, items of the histories as places in `pool`
        offsets: [B + 1] int64, the history of row b is history[offsets[b]:offsets[b + 1]]
    """

    users: Any
    items: Any
    negatives: Any
    clashes: Any = None
    pool: Any = None
    history: Any = None
    offsets: Any = None

    def __len__(self) -> int:
        return len(self.users)

    @property
    def owners(self) -> Any:
        """The user of each choice [B]."""
        return self.users

    def take(self, rows: slice) -> Triplets:
        negatives = self.negatives[rows] if self.negatives.ndim > 1 else self.negatives
        marked = None if self.clashes is None else self.clashes[rows]
        offsets, history = None, None
        if self.offsets is not None:
            offsets, history = cut_bags(rows, self.offsets, self.history)
        return Triplets(self.users[rows], self.items[rows], negatives, marked, self.pool, history, offsets)


def triplets(
    matrix: sp.csr_array,
    batch_size: int,
    negatives: Sampler | Literal["batch"] | None = None,
    *,
    draw: Literal["choices", "users"] = "choices",
    histories: Jagged[NDArray[Any]] | None = None,
) -> RowFeed[Triplets]:
    """Every choice once an epoch, in random order, each with negatives.

    Args:
        matrix: who chose what [U, I], as `interaction_matrix` gives it.
        negatives: see `tastemaker.feeds.negatives`; "batch": the batch's own items, each user's own choices among
            them marked as clashes; None: one item the user did not choose, all alike.
        draw: "choices", or "users": as many pairs an epoch, each of a user drawn at random and one of the
            user's choices, so that every user counts alike (as the reference code of LightGCN does).
        histories: items of each user [U], which come along with the user's choices.
    """
    sampler = uniform(matrix, 1) if negatives is None else negatives
    degrees = np.diff(matrix.indptr)
    user_of = np.repeat(np.arange(matrix.shape[0], dtype=np.int32), degrees)
    active = np.flatnonzero(degrees)

    def make(rows: Rows, rng: np.random.Generator) -> Triplets:
        if draw == "users":
            users = active[rng.integers(0, len(active), len(rows))]
            rows = matrix.indptr[users] + rng.integers(0, degrees[users])
        users, items = user_of[rows].astype(np.int64), matrix.indices[rows].astype(np.int64)
        against = items if isinstance(sampler, str) else sampler(users, rng)
        marked = clashes(matrix, users, against) if against.ndim == 1 else None
        if histories is None:
            return Triplets(users, items, against, marked)
        past = histories.take(users)
        return Triplets(users, items, against, marked, *distinct(past.values, matrix.shape[1]), past.offsets)

    return RowFeed(matrix.nnz, batch_size, make, live=getattr(sampler, "live", False))


def distinct(numbers: NDArray[Any], n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The distinct ones of numbers [N] below n, rising [M], and the place of each number among them [N]."""
    present = np.zeros(n, dtype=np.bool_)
    present[numbers] = True
    place = np.cumsum(present) - 1
    return np.flatnonzero(present), place[numbers]
