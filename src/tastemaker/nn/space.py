"""Where users and items stand: vectors of length 1, from another system or by a factorisation of the choices.

    self.space = yield from space(self.config.vectors, self.config.dim, data, interaction_matrix(data))

What is kept are the vectors, not the system they come from, so users stand where they stood when it was fitted. Who has
no vector stands at the mean of the items in the request's history, and without a history nowhere, at 0.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
import scipy.sparse as sp
from numpy.typing import NDArray

from tastemaker.contracts import Embeds, Fit, Stage
from tastemaker.nn.product import history_product
from tastemaker.nn.svd import truncated_svd
from tastemaker.types import (
    BundleError,
    CapabilityError,
    Dataset,
    Requests,
    Schema,
    State,
    SystemRef,
    UsageError,
    to_numpy,
)

Floats = NDArray[np.float32]
BLOCK = 1024  # users whose vectors are asked for at once
VECTOR = "vector"  # column of a table of new rows that says where they stand


@dataclass(frozen=True, eq=False)
class Space:
    """Vectors of users [U, D] and items [I, D], of length 1; 0 for those of whom nothing is known."""

    users: Floats
    items: Floats

    def queries(self, requests: Requests) -> Floats:
        """Where those who ask stand [B, D]."""
        found = np.zeros((requests.n, self.items.shape[1]), dtype=np.float32)
        if requests.users is not None:
            known = (requests.users >= 0) & (requests.users < len(self.users))
            found[known] = self.users[requests.users[known]]
        if requests.history is not None:
            strange = np.flatnonzero(~found.any(axis=1))
            past = requests.items().take(strange)
            past = past.where(past.values < len(self.items))
            index = past.values.astype(np.int32), past.offsets.astype(np.int32)
            shape = (len(strange), len(self.items))
            rows = sp.csr_array((np.ones(len(past.values), dtype=np.float32), *index), shape=shape)
            found[strange] = unit(history_product(rows, self.items))
        return found

    def extended(self, users: Any = None, items: Any = None) -> Space:
        """With further rows, which stand where their column "vector" says, else at 0."""
        width = self.items.shape[1]
        return Space(
            np.concatenate([self.users, placed(users, width)]), np.concatenate([self.items, placed(items, width)])
        )

    def export(self) -> State:
        return {"space.users": self.users, "space.items": self.items}

    @classmethod
    def of(cls, state: State, n_users: int, n_items: int) -> Space:
        """What `export` gave. Raises BundleError where it does not fit."""
        users, items = state.get("space.users"), state.get("space.items")
        if users is None or items is None or users.ndim != 2 or items.ndim != 2 or users.shape[1] != items.shape[1]:
            raise BundleError("vectors of users and items are missing or differ in width")
        if len(users) != n_users or len(items) != n_items:
            raise BundleError(
                f"there are vectors of {len(users)} users and {len(items)} items, not {n_users}, {n_items}"
            )
        if not (np.isfinite(users).all() and np.isfinite(items).all()):
            raise BundleError("vectors hold values that are no numbers")
        return cls(users.astype(np.float32, copy=False), items.astype(np.float32, copy=False))


def space(ref: SystemRef | None, dim: int, data: Dataset, matrix: sp.csr_array) -> Generator[Stage, Any, Space]:
    """The part of a program that finds where users and items stand.

    Args:
        ref: a system that gives vectors, fitted first on the same data; None: `dim` singular vectors of `matrix`.
    """
    if ref is None:
        users, items = yield Fit(factorise, matrix, dim, rng="space")
    else:
        fitted = yield Fit(ref, data)
        kept = tuple(name for name in ("item", "time", "value") if name in data.events.columns)
        everybody = Requests(data.n_users, users=np.arange(data.n_users, dtype=np.int32), history=data.histories(kept))
        users, items = yield Fit(vectors_of, ref.name, fitted, everybody)
    return Space(unit(users), unit(items))


def factorise(matrix: sp.csr_array, dim: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Users [U, D] and items [I, D]: the matrix R is about U S V', users stand at R V and items at V S."""
    values, vectors = truncated_svd(matrix, dim, rng)
    return history_product(matrix, vectors), vectors * values


def vectors_of(name: str, system: Any, everybody: Requests) -> tuple[Floats, Floats]:
    """What a fitted system says of all users [U, D] and items [I, D]."""
    if not isinstance(system, Embeds):
        raise CapabilityError(f"{name} gives no vectors, so nobody can be placed by them", hint="bpr-mf does, or ials")
    starts = range(0, everybody.n, BLOCK)
    parts = [to_numpy(system.queries(everybody.take(slice(start, start + BLOCK)))) for start in starts]
    items = to_numpy(system.items()).astype(np.float32)
    return np.concatenate([np.zeros((0, items.shape[1])), *parts]).astype(np.float32), items


def unit(vectors: NDArray[Any]) -> Floats:
    """Rows at length 1; a row of zeros stays one."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1.0), dtype=np.float32)


def placed(table: pl.DataFrame | None, width: int) -> Floats:
    """Where the rows of a table of newcomers stand [n, width]."""
    if table is None:
        return np.zeros((0, width), dtype=np.float32)
    if VECTOR not in table.columns:
        return np.zeros((table.height, width), dtype=np.float32)
    vectors = np.array(table[VECTOR].to_list(), dtype=np.float32).reshape(table.height, -1)
    if table.height and (vectors.shape[1] != width or not np.isfinite(vectors).all()):
        raise UsageError(f"the column {VECTOR!r} of new rows holds {width} numbers each, got {vectors.shape[1]}")
    return unit(vectors.reshape(table.height, width))


def grown(schema: Schema, users: pl.DataFrame | None, items: pl.DataFrame | None) -> Schema:
    """The schema with the rows of these tables added."""
    more = [0 if table is None else table.height for table in (users, items)]
    return replace(schema, n_users=schema.n_users + more[0], n_items=schema.n_items + more[1])
